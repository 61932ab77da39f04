// The page: words and figures, and what hangs together with what.

import { Compare } from "./compare.js";
import { connect } from "./connection.js";
import { Flight } from "./flight.js";
import { paintLatency, STAGES } from "./latency.js";
import { MapView } from "./map.js";
import { paintOverlay, WITHIN_68, WITHIN_95 } from "./overlay.js";

const GLYPHS = { OK: "●", DEGRADED: "◐", ABSTAIN: "○", LOST: "✕" };
const MOST_NEWS = 200;
const root = document.documentElement;
const byId = (id) => document.getElementById(id);
const say = (id, text) => { const node = byId(id); if (node.textContent !== text) node.textContent = text; };

const flight = new Flight();
const view = new MapView(byId("map"), {
  paint: (context, map) => { root.dataset.points = paintOverlay(context, map, flight); },
  onFollow: (on) => byId("follow").setAttribute("aria-pressed", on),
  onDraw: (tiles) => { root.dataset.tiles = tiles; },
});
const compare = new Compare((shot, has) => { root.dataset.pictures = `${shot.seq}:${has.map(Number).join("")}`; });
let hello = null, lostAt = performance.now(), latencyPending = false;

connect({
  hello(news) {
    if (hello && hello.page !== news.page) { location.reload(); return; }
    if (hello && hello.run !== news.run) { flight.clear(); compare.shown = null; }
    hello = news;
    root.dataset.run = news.run;
    document.title = news.about.title;
    say("attribution", news.map.attribution);
    view.use(news.map);
  },
  history(history) {
    flight.replace(history);
    byId("news").replaceChildren();
    history.news.forEach(addNews);
    show();
  },
  fix(update) {
    const before = flight.fix;
    flight.update(update);
    update.news.forEach(addNews);
    show();
    if (before && before.status !== update.fix.status) say("spoken", `${update.fix.status} ${update.fix.reason}`);
  },
}, (state) => {
  if (state === "lost" && root.dataset.connection !== "lost") lostAt = performance.now();
  root.dataset.connection = state;
  say("connection-word", state === "live" ? "live" : "no connection");
  if (state === "lost") say("spoken", "No connection to the drone");
  check();
});

function show() {
  const fix = flight.fix;
  check();
  figures();
  if (fix) {
    Object.assign(root.dataset, { status: fix.status, mode: fix.mode, seq: fix.seq });
    if (fix.lat_deg !== null && fix.lon_deg !== null) view.moveTo(fix.lat_deg, fix.lon_deg);
  }
  view.redraw();
  compare.refresh();
  if (!latencyPending) { latencyPending = true; requestAnimationFrame(latency); }
}

// What holds until the next frame, and whether there still are frames.
function check() {
  const live = root.dataset.connection === "live", fix = flight.fix;
  const silentS = (performance.now() - flight.gotAt) / 1000;
  const fresh = live && fix !== null && silentS < flight.patienceS();
  if (flight.fresh !== fresh) { flight.fresh = fresh; view.redraw(); }
  if (!fresh && flight.known) view.redraw();
  root.dataset.fresh = fresh ? "yes" : live && !fix ? "none" : "no";
  let notice = "";
  if (root.dataset.connection === "lost") notice = `No connection to the drone for ${seconds((performance.now() - lostAt) / 1000)}. Trying again.`;
  else if (live && !fix) notice = "Connected; no frame yet.";
  else if (live && !fresh) notice = `No frame for ${seconds(silentS)}.`;
  say("notice", notice);
  byId("notice").hidden = !notice;
  say("status-glyph", fresh ? GLYPHS[fix.status] : "?");
  say("status-word", fresh ? fix.status : fix ? `was ${fix.status}` : "no frame");
  say("mode", fix ? fix.mode : "");
  const known = flight.known, now = fresh && fix.lat_deg !== null;
  say("position", known ? `${now ? "" : "last known "}${known.lat.toFixed(6)}, ${known.lon.toFixed(6)}` : "no position yet");
  say("reason", fix && fix.reason ? fix.reason : now && fix.eph_m !== null
    ? `68 % within ${(WITHIN_68 * fix.eph_m).toFixed(1)} m, 95 % within ${(WITHIN_95 * fix.eph_m).toFixed(1)} m` : "");
}

const seconds = (s) => s < 120 ? `${Math.round(s)} s` : `${Math.round(s / 60)} min`;
const number = (value, digits, unit = "") => value === null || value === undefined ? "–" : value.toFixed(digits) + unit;
const clock = (t) => `${Math.floor(t / 60)}:${(t % 60).toFixed(1).padStart(4, "0")}`;

function figures() {
  const fix = flight.fix, totals = flight.totals;
  say("eph", fix ? number(fix.eph_m, 1, " m") : "–");
  say("probability", fix ? believed(fix.probability) : "–");
  say("heading", fix ? number(fix.yaw_deg, 0, "°") : "–");
  say("rate", number(flight.rateHz(), 1, " /s"));
  const frames = totals.frames || 0, share = (n) => frames ? `${((n || 0) / frames * 100).toFixed(n && n < frames ? 1 : 0)} %` : "–";
  const rows = [
    ["time", fix ? clock(fix.t_fix_s) : "–"], ["frames", frames], ["OK", share(totals.OK)],
    ["lost", share(totals.LOST)], ["missed", totals.missed || 0, totals.missed], ["shed", totals.shed || 0, totals.shed],
    ["dropped", totals.dropped || 0, totals.dropped], ["inliers", fix ? fix.inliers : "–"],
    ["correlation", fix ? number(fix.ncc, 2) : "–"], ["similarity", fix ? number(fix.similarity, 2) : "–"],
    ["windows", fix ? fix.windows : "–"], ["backend", fix && fix.backend ? fix.backend : "–", fix && fix.fallback],
  ];
  const list = byId("figures");
  if (!list.children.length) for (const [name] of rows) {
    const row = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    row.append(dt, dd);
    list.append(row);
  }
  rows.forEach(([, value, bad], k) => {
    const dd = list.children[k].lastChild, text = String(value);
    if (dd.textContent !== text) dd.textContent = text;
    dd.classList.toggle("bad", Boolean(bad));
    if (typeof bad === "string") dd.title = bad;
  });
}

// Never rounded up to certain.
function believed(p) {
  if (p >= 1) return "100 %";
  return p > 0.99 ? `${(Math.floor(p * 10000) / 100).toFixed(2)} %` : `${Math.floor(p * 100)} %`;
}

function addNews([t, seq, kind, text]) {
  const row = document.createElement("li"), time = document.createElement("time");
  const what = document.createElement("span"), words = document.createElement("span");
  time.textContent = clock(t);
  time.title = `frame ${seq}`;
  what.textContent = kind;
  what.className = "kind";
  if (kind === "status") words.className = `status-${text.split(":")[0].split(" ").at(-1)}`;
  words.textContent = text;
  row.append(time, what, words);
  const list = byId("news");
  list.prepend(row);
  while (list.children.length > MOST_NEWS) list.lastChild.remove();
}

function latency() {
  latencyPending = false;
  const found = paintLatency(byId("latency"), flight.times, hello && hello.about.deadline_ms);
  const stages = flight.fix ? flight.fix.latency_ms : {};
  const words = found ? `now ${number(stages.total, 0)} · median ${found.p50.toFixed(0)} · 99 % ${found.p99.toFixed(0)} ms` : "";
  say("latency-figures", words);
  byId("latency").setAttribute("aria-label", `Latency of each frame's stages: ${words}`);
  const list = byId("stages");
  if (!list.children.length) for (const [name, colour] of STAGES) {
    const item = document.createElement("li"), box = document.createElement("i"), text = document.createElement("b");
    item.style.color = colour;
    text.dataset.stage = name;
    item.append(box, text);
    list.append(item);
  }
  for (const text of list.querySelectorAll("b")) {
    const ms = stages[text.dataset.stage];
    text.textContent = `${text.dataset.stage.replace("_", " ")} ${ms === undefined ? "–" : ms < 10 ? ms.toFixed(1) : ms.toFixed(0)}`;
  }
}

// --- what the user does ---------------------------------------------------------------------

const THEMES = ["system", "light", "dark"];
function useTheme(name) {
  if (name === "system") delete root.dataset.theme; else root.dataset.theme = name;
  byId("theme").textContent = `theme: ${name}`;
  try { localStorage.setItem("skyfix-theme", name); } catch { /* Private windows keep nothing. */ }
  latency();
}
let theme = "system";
try { theme = localStorage.getItem("skyfix-theme") || "system"; } catch { /* As above. */ }
useTheme(THEMES.includes(theme) ? theme : "system");
const nextTheme = () => useTheme(THEMES[(THEMES.indexOf(root.dataset.theme || "system") + 1) % THEMES.length]);
const larger = () => byId("larger").setAttribute("aria-pressed", byId("main").classList.toggle("larger"));
const follow = () => view.follow(!view.following);

const actions = { "+": () => view.zoomBy(1), "=": () => view.zoomBy(1), "-": () => view.zoomBy(-1), f: follow,
  0: () => view.showAll(), b: () => compare.blink(), p: () => compare.hold(), l: larger, t: nextTheme };
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const action = actions[event.key.toLowerCase()];
  if (action) { action(); event.preventDefault(); }
});
byId("zoom-in").addEventListener("click", () => view.zoomBy(1));
byId("zoom-out").addEventListener("click", () => view.zoomBy(-1));
byId("fit").addEventListener("click", () => view.showAll());
byId("follow").addEventListener("click", follow);
byId("theme").addEventListener("click", nextTheme);
byId("larger").addEventListener("click", larger);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", latency);
new ResizeObserver(latency).observe(byId("latency"));
document.addEventListener("visibilitychange", () => compare.refresh());
setInterval(() => {
  check();
  // The last frames before a pause came too soon after each other for pictures of all.
  if (flight.fresh && compare.seq !== flight.fix.seq) compare.refresh();
}, 500);
