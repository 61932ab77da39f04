// The page: what hangs together with what.

import { Compare, embedded } from "./compare.js";
import { Flight, firstNotBelow, STAGES, STATUSES } from "./flight.js";
import { latOf } from "./geo.js";
import { element, FrameList } from "./list.js";
import { MapView } from "./map.js";
import { paintOverlay, WITHIN_68, WITHIN_95 } from "./overlay.js";
import { STAGE_COLOURS, Timeline } from "./timeline.js";
import { believed, clock, duration, explained, figure, GLYPHS, isUnix, milliseconds } from "./words.js";

const root = document.documentElement;
const byId = (id) => document.getElementById(id);
const say = (id, text) => { const node = byId(id); if (node.textContent !== text) node.textContent = text; };

const data = JSON.parse(byId("data").textContent);
const flight = new Flight(data.flight);
const options = data.settings ? data.settings.options : {};
const compare = new Compare(data.pictures);
let selected = 0;

const view = new MapView(byId("map"), {
  paint: (context, map) => {
    const guess = data.pictures[selected];
    const drawn = paintOverlay(context, map, flight, selected, guess && guess.lat_deg !== null ? guess : null);
    Object.assign(root.dataset, drawn);
  },
  onFollow: () => {},
  onDraw: (tiles) => { root.dataset.tiles = tiles; },
});
view.following = false;
const list = new FrameList(byId("list"), byId("rows"), flight, { pictured: (row) => compare.has(row) && data.pictures[row].kinds.includes("frame"), onSelect: select });
const timeline = new Timeline(byId("timeline"), flight, { deadlineMs: options.deadline_ms, onSelect: select, onPoint: (row) => say("pointed", row === null ? "" : [flight.names[row], clock(flight.c.t_exposure_s[row]), flight.status(row), ...flight.happened(row).map(([, text]) => text)].join(" · ")) });
const pictured = Int32Array.from(Object.keys(data.pictures), Number).sort();

// --- the selected frame ---------------------------------------------------------------------

function select(row) {
  row = Math.max(0, Math.min(flight.count - 1, row));
  selected = row;
  root.dataset.selected = row;
  const status = flight.status(row), place = flight.place(row), eph = flight.number("eph_m", row);
  byId("chosen").dataset.status = status;
  say("status-glyph", GLYPHS[flight.c.status[row]]);
  say("status-word", status);
  say("position", place ? `${place[0].toFixed(6)}, ${place[1].toFixed(6)}` : "no position given");
  say("reason", flight.reason(row) || (eph === null ? "" : `68 % within ${(WITHIN_68 * eph).toFixed(1)} m, 95 % within ${(WITHIN_95 * eph).toFixed(1)} m`));
  say("explained", explained(flight.reason(row)));
  byId("explained").hidden = !explained(flight.reason(row));
  say("frame-name", flight.names[row]);
  say("frame-number", `${row + 1} of ${flight.count}`);
  const own = data.pictures[row];
  compare.show(row, status, "no pictures of this frame");
  byId("nearest").hidden = Boolean(own) || !pictured.length;
  byId("pictures-note").hidden = !(own && own.otherwise);
  say("pictures-note", own && own.otherwise ? "When the frames were gone through again for the pictures, this one came out otherwise than in the log: the pictures show what it came to then." : "");
  facts(row);
  list.select(row);
  timeline.select(row);
  const slider = byId("timeline");
  slider.setAttribute("aria-valuenow", row + 1);
  slider.setAttribute("aria-valuetext", `${flight.names[row]} ${status}`);
  say("spoken", `${flight.names[row]} ${status} ${flight.reason(row)}`);
  bringIntoView(row);
  view.redraw();
}

// Move the map only where the selected place would not be seen.
function bringIntoView(row) {
  const guess = data.pictures[row];
  const place = flight.place(row) || (guess && guess.lat_deg !== null ? [guess.lat_deg, guess.lon_deg] : null);
  if (!place || !view.width) return;
  const [x, y] = view.pixel(...place), edge = 30;
  const dx = x < edge ? edge - x : x > view.width - edge ? view.width - edge - x : 0;
  const dy = y < edge ? edge - y : y > view.height - edge ? view.height - edge - y : 0;
  if (dx || dy) view.panBy(dx && dx + Math.sign(dx) * view.width / 4, dy && dy + Math.sign(dy) * view.height / 4);
}

function nearestPictured() {
  if (!pictured.length) return;
  const at = firstNotBelow(pictured, selected), after = pictured[Math.min(at, pictured.length - 1)], before = pictured[Math.max(0, at - 1)];
  select(Math.abs(after - selected) <= Math.abs(selected - before) ? after : before);
}

// To the next frame that is listed.
function step(by) {
  const rows = flight.rows();
  let at = firstNotBelow(rows, selected);
  if (rows[at] !== selected && by > 0) at--;
  const next = rows[Math.max(0, Math.min(rows.length - 1, at + by))];
  if (next !== undefined) select(next);
}

function facts(row) {
  const n = (name, digits, unit) => figure(flight.number(name, row), digits, unit), c = flight.c;
  const t = c.t_exposure_s[row], look = flight.look(row), eph = flight.number("eph_m", row), stated = flight.number("stated_eph_m", row);
  const made = flight.madeWith(row);
  const rows = [
    ["time", clock(t, { day: true }) + (isUnix(t) ? " UTC" : ""), "by the clock of the telemetry"],
    ["accuracy, 1 σ", eph === null ? "–" : `${eph.toFixed(1)} m`, stated === null ? "as assumed: the index has no calibration" : `calibrated; ${stated.toFixed(1)} m before`],
    ["heading", n("yaw_deg", 0, "°"), "with the correction that fits the imagery best"],
    ["looks at", look ? `${look[0].toFixed(6)}, ${look[1].toFixed(6)}` : "–", "where the optical axis meets the ground, by this frame's match"],
    ["believed", believed(flight.number("probability", row)), "that the best position is right, by the tracker"],
    ["inliers", String(c.inliers[row]), "local features that agree with the best match"],
    ["their error", n("reprojection_px", 2, " px"), "reprojection"],
    ["correlation", n("ncc", 2), "of gradients, at the best match"],
    ["similarity", n("similarity", 2), "cosine, of the best match's tile"],
    ["margin", n("margin", 1), "log evidence of the best match over the second best"],
    ["searched", flight.mode(row) === "TRACK" ? "near the last position" : "the whole map", `${c.windows[row]} windows of imagery were looked at`],
    ["windows", String(c.windows[row]), "of imagery that were looked at"],
    ["time taken", milliseconds(flight.number("total_ms", row)), STAGES.map((s) => `${s.replace("_", " ")} ${milliseconds(flight.number(`${s}_ms`, row))}`).join(", ")],
    ["left out", flight.shed(row).join(", ") || "nothing", "to keep the deadline"],
    ["ran on", made.engine_id || made.backend || "–", made.fallback || ""],
    ["tile", c.tile_id[row] < 0 ? "–" : String(c.tile_id[row]), "row of the index's tile table that led to the match"],
  ];
  byId("facts").replaceChildren(...rows.map(([name, value, title]) => {
    const line = element("div");
    line.title = title;
    line.append(element("dt", "", name), element("dd", "", value));
    return line;
  }));
  byId("happened").replaceChildren(...flight.happened(row).map(([kind, text]) => {
    const item = element("li");
    item.append(element("b", "", kind), document.createTextNode(` ${text}`));
    return item;
  }));
  const stages = byId("stages");
  stages.replaceChildren(...STAGES.map((name, k) => {
    const item = element("li"), box = element("i");
    box.style.background = STAGE_COLOURS[k];
    item.append(box, document.createTextNode(`${name.replace("_", " ")} ${milliseconds(flight.number(`${name}_ms`, row))}`));
    return item;
  }));
}

// --- what is said once ----------------------------------------------------------------------

function head() {
  const c = flight.c, first = c.t_exposure_s[0], last = c.t_exposure_s[flight.count - 1], made = data.flight.made_with;
  say("log", data.log);
  const span = last - first;
  say("when", (isUnix(first) ? `${clock(first, { day: true, tenths: false })} UTC` : `${clock(first)} by the telemetry's clock`) + (span > 0 && span < 1e7 ? `, ${duration(span)}` : ""));
  const median = flight.percentile("total_ms", 0.5), p99 = flight.percentile("total_ms", 0.99);
  const missed = c.deadline_missed.reduce((sum, v) => sum + v, 0), dropped = c.dropped.reduce((sum, v) => sum + v, 0);
  const ephs = flight.percentile("eph_m", 0.5);
  const figures = [["frames", String(flight.count)], ["median time", milliseconds(median)], ["99 % within", milliseconds(p99)], ["median accuracy, 1 σ", figure(ephs, 1, " m")]];
  if (missed) figures.push(["deadline missed", String(missed)]);
  if (dropped) figures.push(["dropped", String(dropped)]);
  byId("key-figures").replaceChildren(...figures.map(([name, value]) => {
    const box = element("div");
    box.append(element("dt", "", name), element("dd", "", value));
    return box;
  }));
  byId("counts").replaceChildren(...STATUSES.map((name, k) => {
    const button = element("button", "count");
    button.type = "button";
    button.dataset.status = name;
    button.disabled = flight.counts[k] === 0;
    button.title = `Show only ${name}; again for all`;
    button.append(element("span", "glyph", GLYPHS[k]), element("b", "", String(flight.counts[k])), document.createTextNode(name), element("span", "share", flight.counts[k] ? share(flight.counts[k]) : ""));
    button.addEventListener("click", () => filter(k));
    return button;
  }));
  const notes = byId("notes");
  notes.hidden = !data.notes.length;
  notes.replaceChildren(...data.notes.map((note) => element("li", "", note)));
  const s = data.settings || {}, several = (name) => [...new Set(made.map((m) => m[name]).filter(Boolean))].join(", ");
  const run = [
    ["source", s.source], ["telemetry", s.telemetry], ["camera", s.camera],
    ["encoder", [several("bundle_id"), s.bundle].filter(Boolean).join(" · ")], ["index", [several("index_id"), s.index].filter(Boolean).join(" · ")],
    ["ran on", several("engine_id")], ["not on a faster one", several("fallback")],
    ["options", Object.entries(options).map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", ")],
    ["page made by", data.made_by],
  ];
  byId("run-facts").replaceChildren(...run.filter(([, value]) => value).map(([name, value]) => {
    const line = element("div");
    line.append(element("dt", "", name), element("dd", "", value));
    return line;
  }));
  say("scoring", "This page has no truth to compare with, so it says what was answered, not how right it was: look at the pictures. With surveyed or GNSS positions in a CSV, from a checkout: python -m benchmarks accuracy --log LOG --truth TRUTH.csv");
}

const share = (count) => {
  const percent = count / flight.count * 100;
  return `${percent.toFixed(count && count < flight.count ? 1 : 0)} %`;
};

function filter(status) {
  flight.toggle(status);
  [...byId("counts").children].forEach((button, k) => button.setAttribute("aria-pressed", flight.filter.has(k)));
  list.changed();
  const rows = flight.rows();
  say("shown", listed());
  root.dataset.listed = rows.length;
  if (rows.length && !flight.shown(selected)) select(rows[Math.min(rows.length - 1, firstNotBelow(rows, selected))]);
  else list.select(selected);
  view.redraw();
}

async function showMap() {
  const image = data.map ? new Image() : null;
  if (image) {
    image.src = embedded("picture-map");
    try { await image.decode(); } catch { /* The track is drawn without it. */ }
  }
  const known = image && image.naturalWidth > 0;
  const bounds = data.map ? data.map.bounds : boundsOfTrack();
  if (!bounds) { byId("map").parentElement.classList.add("empty"); say("credit", "no frame has a position"); }
  else view.use({ version: 1, bounds, min_zoom: 0, max_zoom: data.map ? data.map.zoom + 1 : 20, image: known ? image : null });
  if (data.map) say("credit", data.map.credit || "imagery: maker and licence not known");
  bringIntoView(selected);
}

// Without a map: the flight's own extent, with a margin.
function boundsOfTrack() {
  let box = null, first = 0;
  for (let row = 0; row < flight.count; row++) {
    const place = flight.place(row);
    if (!place) continue;
    if (!box) { first = place[1]; box = [place[0], place[0], place[1], place[1]]; }
    const lon = first + ((place[1] - first + 540) % 360) - 180;
    box = [Math.min(box[0], place[0]), Math.max(box[1], place[0]), Math.min(box[2], lon), Math.max(box[3], lon)];
  }
  if (!box) return null;
  const margin = Math.max(0.002, (box[1] - box[0]) * 0.15, (box[3] - box[2]) * 0.15);
  return { south_deg: box[0] - margin, north_deg: box[1] + margin, west_deg: box[2] - margin, east_deg: box[3] + margin };
}

// --- what the user does ---------------------------------------------------------------------

let pressed = null;
byId("map").addEventListener("pointerdown", (e) => { pressed = [e.offsetX, e.offsetY]; });
byId("map").addEventListener("click", (e) => {
  if (!pressed || Math.hypot(e.offsetX - pressed[0], e.offsetY - pressed[1]) > 5) return;
  const nearest = nearestTo(e.offsetX, e.offsetY);
  if (nearest >= 0) select(nearest);
});
byId("map").addEventListener("pointermove", (e) => {
  if (!view.tiles.map) return;
  let lon = (view.x + (e.offsetX - view.width / 2) / view.scale - 0.5) * 360;
  lon -= 360 * Math.round(lon / 360);
  say("place", `${latOf(view.y + (e.offsetY - view.height / 2) / view.scale).toFixed(6)}, ${lon.toFixed(6)}`);
});
byId("map").addEventListener("pointerleave", () => say("place", ""));

function nearestTo(px, py) {
  let best = -1, least = Infinity;
  const x = view.x + (px - view.width / 2) / view.scale, y = view.y + (py - view.height / 2) / view.scale;
  for (let row = 0; row < flight.count; row++) {
    if (!flight.placed(row) || !flight.shown(row)) continue;
    let dx = flight.x[row] - x;
    dx -= Math.round(dx);
    const far = dx * dx + (flight.y[row] - y) ** 2;
    if (far < least) { least = far; best = row; }
  }
  return best;
}

const THEMES = ["system", "light", "dark"];
function useTheme(name) {
  if (name === "system") delete root.dataset.theme; else root.dataset.theme = name;
  say("theme", `theme: ${name}`);
  try { localStorage.setItem("skyfix-theme", name); } catch { /* Files and private windows keep nothing. */ }
  timeline.draw();
}
let theme = "system";
try { theme = localStorage.getItem("skyfix-theme") || "system"; } catch { /* As above. */ }
useTheme(THEMES.includes(theme) ? theme : "system");
const nextTheme = () => useTheme(THEMES[(THEMES.indexOf(root.dataset.theme || "system") + 1) % THEMES.length]);
const larger = () => { byId("larger").setAttribute("aria-pressed", byId("main").classList.toggle("larger")); };
const about = () => {
  byId("run").hidden = !byId("run").hidden;
  byId("about").setAttribute("aria-expanded", !byId("run").hidden);
};

// Left and right are the frames', on the map too; the divider keeps its own.
addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.id === "swipe") return;
  const inList = e.target.id === "list" || e.target.id === "timeline", key = e.key;
  const page = Math.max(1, Math.floor(byId("list").clientHeight / 58) - 1);
  const steps = { ArrowLeft: -1, ArrowRight: 1, ...(inList ? { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, Home: -flight.count, End: flight.count } : {}) };
  const actions = { "+": () => view.zoomBy(1), "=": () => view.zoomBy(1), "-": () => view.zoomBy(-1), 0: () => view.fit(),
    b: () => compare.blink(), l: larger, t: nextTheme, p: nearestPictured, n: () => select(flight.change(selected, e.shiftKey ? -1 : 1)) };
  const action = steps[key] && !e.shiftKey ? () => step(steps[key]) : actions[key.toLowerCase()];
  if (!action) return;
  action();
  e.preventDefault();
  e.stopPropagation();
}, { capture: true });
byId("nearest").addEventListener("click", nearestPictured);
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("change").addEventListener("click", (e) => select(flight.change(selected, e.shiftKey ? -1 : 1)));
byId("zoom-in").addEventListener("click", () => view.zoomBy(1));
byId("zoom-out").addEventListener("click", () => view.zoomBy(-1));
byId("fit").addEventListener("click", () => view.fit());
byId("time-in").addEventListener("click", () => timeline.zoom(-1));
byId("time-out").addEventListener("click", () => timeline.zoom(1));
byId("theme").addEventListener("click", nextTheme);
byId("larger").addEventListener("click", larger);
byId("about").addEventListener("click", about);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => timeline.draw());
// Paper is white and has no buttons: what they would show is shown.
let before = null;
addEventListener("beforeprint", () => {
  before = { theme: root.dataset.theme, hidden: byId("run").hidden };
  root.dataset.theme = "light";
  byId("run").hidden = false;
  timeline.paint();
});
addEventListener("afterprint", () => {
  if (!before) return;
  if (before.theme) root.dataset.theme = before.theme; else delete root.dataset.theme;
  byId("run").hidden = before.hidden;
  timeline.draw();
});

head();
const listed = () => [flight.filter.size ? `${flight.rows().length} of ${flight.count}` : `${flight.count}`, pictured.length && pictured.length < flight.count ? `${pictured.length} with pictures` : ""].filter(Boolean).join(", ");
say("shown", listed());
byId("list").classList.toggle("bare", !pictured.length);
root.dataset.listed = root.dataset.frames = flight.count;
byId("timeline").setAttribute("aria-valuemax", flight.count);
select(0);
showMap().then(() => { root.dataset.ready = "yes"; });
