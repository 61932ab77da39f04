// The flight as the page holds it: a column per field of the records, a row per frame.

import { xOf, yOf } from "./geo.js";

export const STATUSES = ["OK", "DEGRADED", "ABSTAIN", "LOST"];
export const STAGES = ["capture", "ground_view", "encode", "search", "refine", "track"];
const MODES = ["TRACK", "GLOBAL"];
const NO_PLACE = -(2 ** 31), PER_DEGREE = 1e7;
const ARRAYS = { f64: Float64Array, f32: Float32Array, i32: Int32Array, u8: Uint8Array };

export class Flight {
  constructor(data) {
    this.count = data.frames;
    this.names = data.names;
    this.data = data;
    this.c = Object.fromEntries(Object.entries(data.columns).map(([name, [kind, text]]) => [name, column(kind, text)]));
    this.firstRows = new Set(data.first_rows);
    this.eventsOf = new Map();
    for (const [row, text] of data.events) this.eventsOf.set(row, [...this.eventsOf.get(row) || [], text]);
    this.project();
    this.counts = [0, 0, 0, 0];
    for (const status of this.c.status) this.counts[status]++;
    this.filter = new Set();
  }

  // Web Mercator of every place once: NaN where there is none.
  project() {
    const { lat_deg: lat, lon_deg: lon } = this.c;
    this.x = new Float64Array(this.count).fill(NaN);
    this.y = new Float64Array(this.count).fill(NaN);
    for (let row = 0; row < this.count; row++) {
      if (lat[row] === NO_PLACE || lon[row] === NO_PLACE) continue;
      this.x[row] = xOf(lon[row] / PER_DEGREE);
      this.y[row] = yOf(lat[row] / PER_DEGREE);
    }
  }

  status(row) { return STATUSES[this.c.status[row]]; }
  mode(row) { return MODES[this.c.mode[row]]; }
  reason(row) { return this.data.reasons[this.c.reason[row]]; }
  shed(row) { return this.data.sheds[this.c.shed[row]]; }
  madeWith(row) { return this.data.made_with[this.c.made_with[row]]; }
  events(row) { return this.eventsOf.get(row) || []; }
  placed(row) { return this.x[row] === this.x[row]; }
  place(row) { return degrees(this.c.lat_deg[row], this.c.lon_deg[row]); }
  look(row) { return degrees(this.c.look_lat_deg[row], this.c.look_lon_deg[row]); }

  // A number of a record, or null where it has none.
  number(name, row) {
    const value = this.c[name][row];
    return value === value ? value : null;
  }

  shown(row) { return !this.filter.size || this.filter.has(this.c.status[row]); }

  // Rows in the list, ascending; an array of its own only where there is a filter.
  rows() {
    if (this.listed) return this.listed;
    const found = [];
    for (let row = 0; row < this.count; row++) if (this.shown(row)) found.push(row);
    return this.listed = Int32Array.from(found);
  }

  toggle(status) {
    if (this.filter.has(status)) this.filter.delete(status); else this.filter.add(status);
    this.listed = null;
  }

  // What changed with a frame, in words: events of the record, and what the one before was.
  happened(row) {
    const found = this.events(row).map((text) => ["event", text]);
    if (this.firstRows.has(row)) { if (row) found.push(["run", "a new run begins"]); return found; }
    const c = this.c;
    if (c.status[row] !== c.status[row - 1]) found.push(["status", `${this.status(row - 1)} → ${this.status(row)}`]);
    if (c.mode[row] !== c.mode[row - 1]) found.push(["mode", c.mode[row] ? "searched the whole map again" : "searched near the last position again"]);
    if (c.reset_counter[row] !== c.reset_counter[row - 1]) found.push(["reset", "the position jumped to another track"]);
    if (this.shed(row).length && !this.shed(row - 1).length) found.push(["shed", `work left out for time: ${this.shed(row).join(", ")}`]);
    if (c.deadline_missed[row] && !c.deadline_missed[row - 1]) found.push(["deadline", "took longer than the deadline"]);
    if (c.dropped[row]) found.push(["dropped", `${c.dropped[row]} frames before this one were dropped for a newer one`]);
    return found;
  }

  // The next row in a direction, among those that are shown, where the status is another.
  change(row, step) {
    for (let k = row + step; k > 0 && k < this.count; k += step)
      if (this.shown(k) && this.c.status[k] !== this.c.status[k - 1]) return k;
    return row;
  }

  // Seconds at a percentile of a column's numbers, or null.
  percentile(name, share) {
    const sorted = Float32Array.from(this.c[name]).filter((v) => v === v).sort();
    return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : null;
  }
}

// Position of the first value in an ascending array that is not below another.
export function firstNotBelow(values, wanted) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < wanted) low = middle + 1; else high = middle;
  }
  return low;
}

const degrees = (lat, lon) => lat === NO_PLACE || lon === NO_PLACE ? null : [lat / PER_DEGREE, lon / PER_DEGREE];

function column(kind, text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  if (new Uint8Array(new Uint16Array([1]).buffer)[0] === 1) return new ARRAYS[kind](bytes.buffer);
  const size = ARRAYS[kind].BYTES_PER_ELEMENT;
  for (let k = 0; k < bytes.length; k += size) bytes.subarray(k, k + size).reverse();
  return new ARRAYS[kind](bytes.buffer);
}
