// What is drawn over the imagery: track, accuracy, drone, scale.

const COLOURS = { OK: "#27e0a0", DEGRADED: "#ffb13d", ABSTAIN: "#c9d3dd", LOST: "#ff4f8b" };
const DARK = "#06090ccc";
// Of a circular normal error of 1 sigma per axis (Rayleigh): 68 % and 95 % of errors lie within.
export const WITHIN_68 = 1.51, WITHIN_95 = 2.45;

export function paintOverlay(c, view, flight) {
  const drawn = paintTrack(c, view, flight);
  const known = flight.known;
  if (known) {
    const now = flight.fresh && flight.fix && flight.fix.lat_deg !== null;
    if (now) paintLook(c, view, flight.fix);
    paintAccuracy(c, view, known, now);
    paintDrone(c, view, known, now, flight);
  }
  paintScale(c, view);
  return drawn;
}

// Lines of one status each; no line where there was no position or the track jumped.
function paintTrack(c, view, flight) {
  const lines = [], ends = [];
  let line = null, last = null;
  for (const p of flight.track()) {
    if (p.lat === null) {
      if (last) ends.push([last, p.status]);
      line = last = null;
      continue;
    }
    const joined = last && last.reset === p.reset;
    if (!joined || last.status !== p.status) lines.push(line = { status: p.status, points: joined ? [last] : [] });
    line.points.push(p);
    last = p;
  }
  c.lineJoin = c.lineCap = "round";
  let drawn = 0;
  for (const [width, casing] of [[6.5, true], [3.5, false]]) {
    c.lineWidth = width;
    for (const { status, points } of lines) {
      c.setLineDash(!casing && status === "DEGRADED" ? [7, 7] : []);
      c.strokeStyle = casing ? DARK : COLOURS[status] || COLOURS.ABSTAIN;
      c.beginPath();
      points.forEach((p, k) => {
        const [x, y] = view.pixel(p.lat, p.lon);
        if (k) c.lineTo(x, y); else { c.moveTo(x, y); c.lineTo(x + 0.01, y); }
      });
      c.stroke();
      if (!casing) drawn += points.length;
    }
  }
  c.setLineDash([]);
  for (const [p, status] of ends) paintEnd(c, ...view.pixel(p.lat, p.lon), status);
  return drawn;
}

// Where the position was lost (a cross) or withheld (a ring).
function paintEnd(c, x, y, status) {
  c.beginPath();
  if (status === "LOST") { c.moveTo(x - 6, y - 6); c.lineTo(x + 6, y + 6); c.moveTo(x + 6, y - 6); c.lineTo(x - 6, y + 6); }
  else c.arc(x, y, 5, 0, 2 * Math.PI);
  for (const [width, colour] of [[6, DARK], [3, COLOURS[status] || "#fff"]]) { c.lineWidth = width; c.strokeStyle = colour; c.stroke(); }
}

function paintAccuracy(c, view, known, now) {
  if (known.eph === null) return;
  const [x, y] = view.pixel(known.lat, known.lon), perMetre = view.pixelsPerMetre(known.lat);
  const circles = [[WITHIN_95, [6, 5], "#ffffff1c"], [WITHIN_68, [], "#ffffff26"]];
  for (const [within, dash, fill] of circles) {
    c.beginPath();
    c.arc(x, y, Math.max(2, within * known.eph * perMetre), 0, 2 * Math.PI);
    if (now) { c.fillStyle = fill; c.fill(); }
    c.setLineDash([]);
    c.lineWidth = 3; c.strokeStyle = "#06090c99"; c.stroke();
    c.setLineDash(dash);
    c.lineWidth = 1.6; c.strokeStyle = now ? "#fff" : "#c9d3dd"; c.stroke();
  }
  c.setLineDash([]);
}

function paintLook(c, view, fix) {
  if (fix.look_lat_deg === null || fix.look_lon_deg === null) return;
  const [x, y] = view.pixel(fix.look_lat_deg, fix.look_lon_deg);
  const [dx, dy] = view.pixel(fix.lat_deg, fix.lon_deg);
  c.lineWidth = 1.5; c.strokeStyle = "#ffffffcc";
  c.beginPath();
  c.moveTo(dx, dy); c.lineTo(x, y);
  c.moveTo(x - 6, y); c.lineTo(x + 6, y); c.moveTo(x, y - 6); c.lineTo(x, y + 6);
  c.stroke();
}

// A dot with an arrow that points out of the circles, so that neither hides the other; hollow and
// grey where it is the last known place.
function paintDrone(c, view, known, now, flight) {
  const [x, y] = view.pixel(known.lat, known.lon);
  const colour = now ? COLOURS[flight.fix.status] || "#fff" : "#c9d3dd";
  c.save();
  c.translate(x, y);
  c.lineJoin = c.lineCap = "round";
  if (known.yaw !== null) {
    const within = known.eph === null ? 0 : WITHIN_95 * known.eph * view.pixelsPerMetre(known.lat);
    const tip = -Math.min(90, Math.max(24, within + 14));
    c.rotate(known.yaw * Math.PI / 180);
    c.beginPath();
    c.moveTo(0, -4); c.lineTo(0, tip + 6);
    c.moveTo(0, tip - 6); c.lineTo(8, tip + 7); c.lineTo(0, tip + 3); c.lineTo(-8, tip + 7); c.closePath();
    c.lineWidth = 6; c.strokeStyle = "#06090c"; c.stroke();
    c.lineWidth = 2.5; c.strokeStyle = now ? "#fff" : colour; c.stroke();
    c.fillStyle = now ? "#fff" : "#3a4552"; c.fill();
  }
  c.beginPath();
  c.arc(0, 0, 4.5, 0, 2 * Math.PI);
  c.lineWidth = 5; c.strokeStyle = "#06090c"; c.stroke();
  c.fillStyle = now ? colour : "#06090c"; c.fill();
  c.lineWidth = 1.8; c.strokeStyle = now ? "#fff" : colour; c.stroke();
  c.restore();
  if (!now) label(c, `last known, ${age(flight.knownAgeS())} ago`, x + 16, y + 5);
}

const age = (s) => s < 100 ? `${Math.round(s)} s` : `${Math.round(s / 60)} min`;

function paintScale(c, view) {
  const perMetre = view.pixelsPerMetre(view.latDeg);
  const most = Math.min(160, view.width / 3) / perMetre;
  const power = 10 ** Math.floor(Math.log10(most));
  const metres = [5, 2, 1].map((m) => m * power).find((m) => m <= most) || power;
  const long = metres * perMetre, y = view.height - 14;
  c.lineCap = "butt";
  for (const [width, colour] of [[5, "#06090ccc"], [2, "#fff"]]) {
    c.lineWidth = width; c.strokeStyle = colour;
    c.beginPath(); c.moveTo(14, y - 5); c.lineTo(14, y); c.lineTo(14 + long, y); c.lineTo(14 + long, y - 5); c.stroke();
  }
  label(c, metres >= 1000 ? `${metres / 1000} km` : `${metres} m`, 20, y - 7);
}

function label(c, text, x, y) {
  c.font = "600 13px system-ui, sans-serif";
  c.lineJoin = "round";
  c.lineWidth = 4; c.strokeStyle = "#06090cdd"; c.strokeText(text, x, y);
  c.fillStyle = "#fff"; c.fillText(text, x, y);
}
