// What is drawn over the imagery: track, frames, accuracy, what the selected one saw, scale, north.

import { metresPerUnit, xOf, yOf } from "./geo.js";
import { STATUSES } from "./flight.js";

// As on the live page.
export const COLOURS = { OK: "#27e0a0", DEGRADED: "#ffb13d", ABSTAIN: "#c9d3dd", LOST: "#ff4f8b" };
// Of a circular normal error of 1 sigma per axis (Rayleigh): 68 % and 95 % of errors lie within.
export const WITHIN_68 = 1.51, WITHIN_95 = 2.45;
const CASING = "#06090ccc";
const NEAREST_PX = 1.5, MARKS_PX = 9, ENDS_PX = 7;

// Returns how many frames and how many ends of the track were drawn.
export function paintOverlay(c, view, flight, row, guess) {
  const { lines, marks, ends } = traced(view, flight);
  c.lineJoin = c.lineCap = "round";
  for (const [width, casing] of [[5, true], [2.5, false]]) {
    c.lineWidth = width;
    for (const { status, path } of lines) {
      c.setLineDash(!casing && status === 1 ? [7, 7] : []);
      c.strokeStyle = casing ? CASING : COLOURS[STATUSES[status]];
      c.stroke(path);
    }
  }
  c.setLineDash([]);
  for (const [x, y, status] of ends) paintEnd(c, x, y, STATUSES[status]);
  for (const [x, y, status] of marks) paintMark(c, x, y, STATUSES[status], 3.6);
  if (guess) paintGuess(c, view, guess, flight.status(row));
  if (flight.placed(row)) paintSelected(c, view, flight, row);
  paintScale(c, view);
  return { marks: marks.length, ends: ends.length };
}

// Pixels of a point of the world square, by the copy that is nearest to the middle.
function pixel(view, x, y) {
  let dx = x - view.x;
  dx -= Math.round(dx);
  return [view.width / 2 + dx * view.scale, view.height / 2 + (y - view.y) * view.scale];
}

// The track in pixels, thinned to what can be told apart: lines of one status, marks, and where it
// ends. No line where there was no position or the track jumped.
function traced(view, flight) {
  const key = [view.x, view.y, view.scale, view.width, view.height, ...flight.filter].join();
  if (flight.traced && flight.traced.key === key) return flight.traced;
  return flight.traced = { key, ...trace(view, flight) };
}

function trace(view, flight) {
  const lines = [], marks = [], ends = [], { x: xs, y: ys } = flight, { status, reset_counter: resets } = flight.c;
  const outside = (x, y) => x < -40 || y < -40 || x > view.width + 40 || y > view.height + 40;
  let line = null, last = -1, lastX = 0, lastY = 0, markX = -1e9, markY = -1e9, endX = -1e9, endY = -1e9, ended = -1;
  for (let row = 0; row < flight.count; row++) {
    if (xs[row] !== xs[row]) {
      line = null;
      // Where the position was withheld or lost: at the last one that was known.
      if (last >= 0 && status[row] !== ended && flight.shown(row)) {
        if (Math.hypot(lastX - endX, lastY - endY) >= ENDS_PX || ended >= 0) ends.push([lastX, lastY, status[row]]);
        endX = lastX; endY = lastY; ended = status[row];
      }
      continue;
    }
    ended = -1;
    const [x, y] = pixel(view, xs[row], ys[row]);
    const joined = line && resets[last] === resets[row] && !flight.firstRows.has(row);
    if (!joined || line.status !== status[row]) {
      const path = new Path2D();
      if (joined) path.moveTo(lastX, lastY); else path.moveTo(x, y);
      lines.push(line = { status: status[row], path });
      path.lineTo(x, y);
    } else if (Math.hypot(x - lastX, y - lastY) >= NEAREST_PX || row === flight.count - 1) {
      line.path.lineTo(x, y);
    } else continue;
    last = row; lastX = x; lastY = y;
    if (flight.shown(row) && !outside(x, y) && Math.hypot(x - markX, y - markY) >= MARKS_PX) {
      marks.push([x, y, status[row]]);
      markX = x; markY = y;
    }
  }
  return { lines, marks, ends: ends.filter(([x, y]) => !outside(x, y)) };
}

// Disc or half disc: told apart without colours too.
function paintMark(c, x, y, status, radius) {
  c.beginPath();
  c.arc(x, y, radius, 0, 2 * Math.PI);
  c.lineWidth = 3; c.strokeStyle = CASING; c.stroke();
  c.fillStyle = status === "DEGRADED" ? "#06090c" : COLOURS[status];
  c.fill();
  if (status !== "DEGRADED") return;
  c.beginPath();
  c.arc(x, y, radius, Math.PI / 2, 1.5 * Math.PI);
  c.fillStyle = COLOURS.DEGRADED; c.fill();
  c.beginPath();
  c.arc(x, y, radius, 0, 2 * Math.PI);
  c.lineWidth = 1.2; c.strokeStyle = COLOURS.DEGRADED; c.stroke();
}

// Where the position was lost (a cross) or withheld (a ring), around the last one known.
function paintEnd(c, x, y, status) {
  c.beginPath();
  if (status === "LOST") { c.moveTo(x - 6, y - 6); c.lineTo(x + 6, y + 6); c.moveTo(x + 6, y - 6); c.lineTo(x - 6, y + 6); }
  else c.arc(x, y, 7, 0, 2 * Math.PI);
  for (const [width, colour] of [[5.5, CASING], [2.5, COLOURS[status]]]) { c.lineWidth = width; c.strokeStyle = colour; c.stroke(); }
}

// The ground that the pictures show; dashed where the match was not believed.
function paintGuess(c, view, { lat_deg: lat, lon_deg: lon, size_m: size }, status) {
  const [x, y] = pixel(view, xOf(lon), yOf(lat)), side = size / metresPerUnit(lat) * view.scale;
  const sure = status === "OK";
  c.lineJoin = "miter";
  for (const [width, colour, dash] of [[4, CASING, []], [1.8, sure ? "#ffffffcc" : "#fff", sure ? [] : [7, 5]]]) {
    c.setLineDash(dash);
    c.lineWidth = width; c.strokeStyle = colour;
    c.strokeRect(x - side / 2, y - side / 2, side, side);
  }
  c.setLineDash([]);
  if (!sure) label(c, "best guess, not given", x - side / 2 + 4, y - side / 2 - 6);
}

function paintSelected(c, view, flight, row) {
  const [lat] = flight.place(row), [x, y] = pixel(view, flight.x[row], flight.y[row]), perMetre = view.scale / metresPerUnit(lat);
  const eph = flight.number("eph_m", row), yaw = flight.number("yaw_deg", row), look = flight.look(row);
  const status = flight.status(row);
  if (look) {
    const [lx, ly] = pixel(view, xOf(look[1]), yOf(look[0]));
    for (const [width, colour] of [[4, CASING], [1.6, "#fff"]]) {
      c.lineWidth = width; c.strokeStyle = colour;
      c.beginPath();
      c.moveTo(x, y); c.lineTo(lx, ly);
      c.moveTo(lx - 6, ly); c.lineTo(lx + 6, ly); c.moveTo(lx, ly - 6); c.lineTo(lx, ly + 6);
      c.stroke();
    }
  }
  if (eph !== null) for (const [within, dash, fill] of [[WITHIN_95, [6, 5], "#ffffff1c"], [WITHIN_68, [], "#ffffff26"]]) {
    c.beginPath();
    c.arc(x, y, Math.max(2, within * eph * perMetre), 0, 2 * Math.PI);
    c.fillStyle = fill; c.fill();
    c.setLineDash([]);
    c.lineWidth = 3; c.strokeStyle = "#06090c99"; c.stroke();
    c.setLineDash(dash);
    c.lineWidth = 1.6; c.strokeStyle = "#fff"; c.stroke();
  }
  c.setLineDash([]);
  if (yaw !== null) {
    const within = eph === null ? 0 : WITHIN_95 * eph * perMetre, tip = -Math.min(90, Math.max(26, within + 14));
    c.save();
    c.translate(x, y);
    c.rotate(yaw * Math.PI / 180);
    c.beginPath();
    c.moveTo(0, -4); c.lineTo(0, tip + 6);
    c.moveTo(0, tip - 6); c.lineTo(8, tip + 7); c.lineTo(0, tip + 3); c.lineTo(-8, tip + 7); c.closePath();
    c.lineWidth = 6; c.strokeStyle = "#06090c"; c.stroke();
    c.lineWidth = 2.5; c.strokeStyle = "#fff"; c.stroke();
    c.fillStyle = "#fff"; c.fill();
    c.restore();
  }
  paintMark(c, x, y, status, 6);
  c.beginPath();
  c.arc(x, y, 8.5, 0, 2 * Math.PI);
  c.lineWidth = 2; c.strokeStyle = "#fff"; c.stroke();
}

function paintScale(c, view) {
  const perMetre = view.scale / metresPerUnit(view.latDeg);
  const most = Math.min(160, view.width / 3) / perMetre, power = 10 ** Math.floor(Math.log10(most));
  const metres = [5, 2, 1].map((m) => m * power).find((m) => m <= most) || power;
  const long = metres * perMetre, y = view.height - 14;
  c.lineCap = "butt"; c.lineJoin = "miter";
  for (const [width, colour] of [[5, CASING], [2, "#fff"]]) {
    c.lineWidth = width; c.strokeStyle = colour;
    c.beginPath(); c.moveTo(14, y - 5); c.lineTo(14, y); c.lineTo(14 + long, y); c.lineTo(14 + long, y - 5); c.stroke();
    c.beginPath(); c.moveTo(22, y - 28); c.lineTo(22, y - 60); c.moveTo(15, y - 50); c.lineTo(22, y - 61); c.lineTo(29, y - 50); c.stroke();
  }
  label(c, metres >= 1000 ? `${metres / 1000} km` : `${metres} m`, 20, y - 7);
  label(c, "N", 33, y - 44);
}

function label(c, text, x, y) {
  c.font = "600 13px system-ui, sans-serif";
  c.lineJoin = "round";
  c.lineWidth = 4; c.strokeStyle = "#06090cdd"; c.strokeText(text, x, y);
  c.fillStyle = "#fff"; c.fillText(text, x, y);
}
