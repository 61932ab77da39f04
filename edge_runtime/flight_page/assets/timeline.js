// The flight over time: status, events, accuracy and latency, each frame in its place.

import { COLOURS } from "./overlay.js";
import { STAGES, STATUSES } from "./flight.js";
import { clock } from "./words.js";

export const STAGE_COLOURS = ["#8d99a6", "#56b4e9", "#2f7fc1", "#00a37a", "#e69f00", "#cc79a7"];
// Okabe and Ito 2008: told apart by colour-blind eyes too.
const GUTTER = 66, LANE = 8, EVENTS = 14, AXIS = 15, FEWEST = 8, SNAP_PX = 7;
const LONG_GAPS = 5;

export class Timeline {
  constructor(canvas, flight, { deadlineMs, onSelect, onPoint }) {
    Object.assign(this, { canvas, flight, deadlineMs, onSelect, onPoint });
    this.from = 0;
    this.to = flight.count;
    this.row = 0;
    this.marked = [];
    for (let row = 0; row < flight.count; row++) {
      const kinds = flight.happened(row).map(([kind]) => kind).filter((kind) => kind !== "mode" && kind !== "status");
      if (kinds.length) this.marked.push([row, kinds]);
    }
    this.gaps = longGaps(flight);
    new ResizeObserver(() => this.draw()).observe(canvas);
    const rowAt = (event) => this.rowAt(event.offsetX, event.offsetY);
    let held = false;
    canvas.addEventListener("pointerdown", (e) => { held = true; canvas.setPointerCapture(e.pointerId); onSelect(rowAt(e)); });
    canvas.addEventListener("pointermove", (e) => { if (held) onSelect(rowAt(e)); onPoint(rowAt(e)); });
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { held = false; });
    canvas.addEventListener("pointerleave", () => onPoint(null));
    canvas.addEventListener("wheel", (e) => {
      if (this.flight.count <= FEWEST) return;
      e.preventDefault();
      this.zoom(Math.sign(e.deltaY), rowAt(e));
    }, { passive: false });
  }

  get width() { return this.canvas.clientWidth; }
  get wide() { return this.width - GUTTER - 6; }

  // The frame at a place; among the events, the frame of the nearest one.
  rowAt(x, y) {
    if (y <= EVENTS) {
      const far = ([row]) => Math.abs(GUTTER + (row + 0.5 - this.from) * this.wide / (this.to - this.from) - x);
      const [near] = this.marked.filter((mark) => far(mark) < SNAP_PX).sort((a, b) => far(a) - far(b));
      if (near) return near[0];
    }
    const row = Math.floor(this.from + (x - GUTTER) / this.wide * (this.to - this.from));
    return Math.max(Math.ceil(this.from), Math.min(Math.ceil(this.to) - 1, row));
  }

  // Show fewer (-1) or more (1) frames, the one at the pointer where it is.
  zoom(step, about = this.row) {
    const before = this.to - this.from, most = this.flight.count;
    const span = Math.max(Math.min(FEWEST, most), Math.min(most, before * 1.5 ** step));
    const share = (about + 0.5 - this.from) / before;
    this.move(about + 0.5 - span * share, span);
    this.draw();
  }

  move(from, span) {
    this.from = Math.max(0, Math.min(this.flight.count - span, from));
    this.to = this.from + span;
  }

  select(row) {
    this.row = row;
    const span = this.to - this.from;
    if (row < this.from || row + 1 > this.to) this.move(row - span / 2, span);
    this.draw();
  }

  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.paint(); });
  }

  paint() {
    const { canvas } = this, ratio = devicePixelRatio || 1, width = this.width, height = canvas.clientHeight;
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const c = canvas.getContext("2d"), style = getComputedStyle(canvas);
    // Only the cursor moves with every step: the rest is kept as long as nothing of it changes.
    const key = [this.from, this.to, canvas.width, canvas.height, style.getPropertyValue("--ink")].join();
    if (key !== this.key) {
      this.paintFlight(c, style, ratio, width, height);
      this.kept = this.kept || document.createElement("canvas");
      this.kept.width = canvas.width;
      this.kept.height = canvas.height;
      this.kept.getContext("2d").drawImage(canvas, 0, 0);
      this.key = key;
    } else {
      c.setTransform(1, 0, 0, 1, 0, 0);
      c.clearRect(0, 0, canvas.width, canvas.height);
      c.drawImage(this.kept, 0, 0);
      c.setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    // The selected frame, across everything.
    const per = this.wide / (this.to - this.from), xa = GUTTER + (this.row - this.from) * per, xb = xa + per;
    c.fillStyle = `${style.getPropertyValue("--focus").trim()}33`;
    c.fillRect(xa, 0, Math.max(2, xb - xa), height - AXIS);
    c.fillStyle = style.getPropertyValue("--focus");
    c.fillRect((xa + xb) / 2 - 1, 0, 2, height - AXIS);
  }

  paintFlight(c, style, ratio, width, height) {
    const { flight } = this;
    const ink = style.getPropertyValue("--ink"), line = style.getPropertyValue("--line"), bad = style.getPropertyValue("--lost");
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    c.font = "11px system-ui, sans-serif";
    const span = this.to - this.from, per = this.wide / span, x = (row) => GUTTER + (row - this.from) * per;
    const bands = { lanes: EVENTS + 2, eph: EVENTS + 4 * LANE + 10 };
    const room = height - AXIS - bands.eph - 8, tallEph = Math.floor(room * 0.4);
    const latencyTop = bands.eph + tallEph + 10, tallMs = room - tallEph - 2;
    const columns = gathered(flight, this.from, this.to, Math.max(1, Math.floor(this.wide)));

    c.save();
    c.beginPath(); c.rect(GUTTER, 0, this.wide, height); c.clip();
    // Status: a lane for each, so that its height says which it is.
    STATUSES.forEach((name, k) => {
      const y = bands.lanes + k * LANE;
      c.fillStyle = k % 2 ? "transparent" : `${line.trim()}55`;
      c.fillRect(GUTTER, y, this.wide, LANE);
    });
    for (const col of columns) for (let k = 0; k < 4; k++) if (col.statuses >> k & 1) {
      c.fillStyle = style.getPropertyValue(`--${STATUSES[k].toLowerCase()}`);
      c.fillRect(x(col.from), bands.lanes + k * LANE + 1, Math.max(1.5, x(col.to) - x(col.from)), LANE - 2);
    }
    // Accuracy: a bar to the largest of each column.
    const ephs = columns.map((col) => col.eph).filter((v) => v >= 0).sort((a, b) => a - b);
    const topEph = niceAbove(Math.max(1, ephs.length ? 1.15 * ephs[Math.floor(0.98 * (ephs.length - 1))] : 1));
    const yEph = (v) => bands.eph + tallEph * (1 - Math.min(v, topEph) / topEph);
    c.fillStyle = style.getPropertyValue("--ok");
    for (const col of columns) if (col.eph >= 0) {
      c.globalAlpha = 0.85;
      c.fillRect(x(col.from), yEph(col.eph), Math.max(1, (x(col.to) - x(col.from)) * 0.9), bands.eph + tallEph - yEph(col.eph));
      c.globalAlpha = 1;
    }
    // Latency: of each column the slowest frame, by stages.
    const totals = columns.map((col) => col.total).sort((a, b) => a - b);
    const topMs = niceAbove(Math.max(this.deadlineMs ? this.deadlineMs * 1.15 : 0, totals.length ? totals[Math.floor(0.98 * (totals.length - 1))] * 1.1 : 0, 10));
    const yMs = (v) => latencyTop + tallMs * (1 - Math.min(v, topMs) / topMs);
    for (const col of columns) {
      if (col.slowest < 0) continue;
      let sum = 0;
      STAGES.forEach((stage, k) => {
        const ms = flight.number(`${stage}_ms`, col.slowest) || 0;
        c.fillStyle = STAGE_COLOURS[k];
        c.fillRect(x(col.from), yMs(sum + ms), Math.max(1, (x(col.to) - x(col.from)) * 0.9), yMs(sum) - yMs(sum + ms));
        sum += ms;
      });
      if (col.missed) { c.fillStyle = bad; c.fillRect(x(col.from), latencyTop - 4, Math.max(2, x(col.to) - x(col.from)), 4); }
    }
    if (this.deadlineMs) {
      c.setLineDash([6, 4]);
      c.lineWidth = 1.5; c.strokeStyle = bad;
      c.beginPath(); c.moveTo(GUTTER, yMs(this.deadlineMs)); c.lineTo(width, yMs(this.deadlineMs)); c.stroke();
      c.setLineDash([]);
    }
    c.restore();
    scale(c, width, bands.eph, tallEph, topEph, "m", ink, line);
    scale(c, width, latencyTop, tallMs, topMs, "ms", ink, line);
    this.paintGaps(c, x, height, ink);
    this.paintEvents(c, x, ink, bad);
    this.paintLabels(c, ink, bands, tallEph, latencyTop, tallMs, style);
    this.paintAxis(c, x, height, ink);
    document.documentElement.dataset.columns = columns.length;
  }

  paintLabels(c, ink, bands, tallEph, latencyTop, tallMs, style) {
    c.textAlign = "left"; c.textBaseline = "middle";
    STATUSES.forEach((name, k) => {
      c.font = "600 8.5px system-ui, sans-serif";
      c.fillStyle = style.getPropertyValue(`--${name.toLowerCase()}`);
      c.fillText(name, 4, bands.lanes + (k + 0.5) * LANE + 0.5);
    });
    c.font = "11px system-ui, sans-serif";
    c.fillStyle = ink;
    c.fillText("events", 4, EVENTS / 2 + 1);
    c.fillText("eph", 4, bands.eph + tallEph / 2);
    c.fillText("time", 4, latencyTop + tallMs / 2);
  }

  paintEvents(c, x, ink, bad) {
    c.textAlign = "center"; c.textBaseline = "middle";
    c.font = "600 10px system-ui, sans-serif";
    let last = -1e9;
    for (const [row, kinds] of this.marked) {
      if (row < this.from - 1 || row > this.to) continue;
      const at = x(row + 0.5);
      if (at - last < 5) continue;
      last = at;
      c.fillStyle = kinds.some((kind) => kind === "reset" || kind === "run") ? ink : bad;
      c.fillText(kinds.includes("run") ? "▐" : kinds.includes("reset") ? "↷" : kinds.includes("event") ? "◆" : "▾", at, EVENTS / 2 + 1);
    }
  }

  // Where much more time passed between two frames than usual: the axis counts frames.
  paintGaps(c, x, height, ink) {
    c.strokeStyle = ink; c.lineWidth = 1;
    c.setLineDash([1, 3]);
    for (const row of this.gaps) if (row >= this.from && row <= this.to) {
      c.beginPath(); c.moveTo(Math.round(x(row)) + 0.5, EVENTS); c.lineTo(Math.round(x(row)) + 0.5, height - AXIS); c.stroke();
    }
    c.setLineDash([]);
  }

  paintAxis(c, x, height, ink) {
    const { flight } = this, times = flight.c.t_exposure_s;
    c.font = "11px system-ui, sans-serif"; c.textBaseline = "alphabetic"; c.fillStyle = ink;
    const ticks = Math.max(1, Math.min(Math.floor(this.wide / 110), Math.floor(this.to - this.from)));
    let free = -1e9;
    for (let k = 0; k <= ticks; k++) {
      const row = Math.min(Math.ceil(this.to) - 1, Math.round(this.from + (this.to - this.from) * k / ticks));
      const text = clock(times[row], { tenths: false }), half = c.measureText(text).width / 2;
      const at = Math.min(this.width - half - 1, Math.max(GUTTER + half, x(row + 0.5)));
      if (at - half < free) continue;
      free = at + half + 8;
      c.textAlign = "center";
      c.fillText(text, at, height - 3);
    }
  }
}

// What is drawn of each frame, or of each pixel where there are more frames than pixels.
function gathered(flight, from, to, most) {
  const first = Math.floor(from), after = Math.min(flight.count, Math.ceil(to));
  const count = Math.min(most, after - first), found = [];
  const { status, total_ms: total, eph_m: eph, deadline_missed: missed } = flight.c;
  for (let k = 0; k < count; k++) {
    const a = first + Math.floor((after - first) * k / count), b = first + Math.floor((after - first) * (k + 1) / count);
    const col = { from: a, to: b, statuses: 0, eph: -1, total: 0, slowest: -1, missed: 0 };
    for (let row = a; row < b; row++) {
      col.statuses |= 1 << status[row];
      if (eph[row] > col.eph) col.eph = eph[row];
      if (total[row] >= col.total) { col.total = total[row]; col.slowest = row; }
      col.missed |= missed[row];
    }
    found.push(col);
  }
  return found;
}

function longGaps(flight) {
  const t = flight.c.t_exposure_s, steps = [];
  for (let row = 1; row < flight.count; row++) if (t[row] > t[row - 1]) steps.push(t[row] - t[row - 1]);
  if (steps.length < 8) return [];
  const usual = steps.sort((a, b) => a - b)[steps.length >> 1], found = [];
  for (let row = 1; row < flight.count && found.length < 500; row++) if (t[row] - t[row - 1] > LONG_GAPS * usual) found.push(row);
  return found;
}

function scale(c, width, top, tall, most, unit, ink, line) {
  c.fillStyle = ink; c.strokeStyle = line; c.lineWidth = 1;
  c.textAlign = "right"; c.textBaseline = "middle"; c.font = "11px system-ui, sans-serif";
  for (const value of [0, most]) {
    const y = top + tall * (1 - value / most);
    c.fillText(value ? `${+value.toPrecision(3)} ${unit}` : "0", GUTTER - 5, Math.max(y, 6));
    c.beginPath(); c.moveTo(GUTTER, Math.round(y) + 0.5); c.lineTo(width, Math.round(y) + 0.5); c.stroke();
  }
}

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 6, 8, 10].map((m) => m * power).find((m) => m >= value) || 10 * power;
}
