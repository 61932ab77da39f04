// The map: a canvas with a view that is panned, zoomed and followed. Sizes are CSS pixels.

import { latOf, metresPerUnit, xOf, yOf } from "./geo.js";
import { TileLayer } from "./tiles.js";

const MARGIN_ZOOMS = 3;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class MapView {
  constructor(canvas, { paint, onFollow, onDraw }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.paint = paint;
    this.onFollow = onFollow;
    this.onDraw = onDraw;
    this.x = this.y = 0.5;
    this.zoom = 1;
    this.following = true;
    this.target = null;
    this.pending = false;
    this.pointers = new Map();
    this.tiles = new TileLayer(() => this.redraw());
    new ResizeObserver(() => this.resized()).observe(canvas);
    this.listen();
  }

  get width() { return this.canvas.clientWidth; }
  get height() { return this.canvas.clientHeight; }
  get scale() { return 256 * 2 ** this.zoom; }
  get latDeg() { return latOf(this.y); }

  use(map) {
    const b = map.bounds;
    map.box = { west: xOf(b.west_deg), east: xOf(b.east_deg), north: yOf(b.north_deg), south: yOf(b.south_deg) };
    const other = !this.tiles.map || this.tiles.map.version !== map.version;
    this.tiles.use(map);
    if (other) { this.target = null; this.fitted = false; this.fit(); }
    this.redraw();
  }

  // Pixels of a position, by the copy of the world that is nearest to the middle.
  pixel(latDeg, lonDeg) {
    let dx = xOf(lonDeg) - this.x;
    dx -= Math.round(dx);
    return [this.width / 2 + dx * this.scale, this.height / 2 + (yOf(latDeg) - this.y) * this.scale];
  }

  pixelsPerMetre(latDeg) { return this.scale / metresPerUnit(latDeg); }

  // Where the drone is: kept in the middle while following.
  moveTo(latDeg, lonDeg) {
    const first = this.target === null;
    this.target = [xOf(lonDeg), yOf(latDeg)];
    if (!this.following) return;
    if (first) {
      // About 400 m across: the drone's surroundings, near enough to see the accuracy.
      const zoom = Math.log2(Math.min(this.width, this.height) / 400 * metresPerUnit(latDeg) / 256);
      this.zoom = this.clamped(zoom);
      [this.x, this.y] = this.target;
    }
    this.redraw();
  }

  follow(on) {
    this.following = on;
    this.onFollow(on);
    if (on) this.redraw();
  }

  fit() {
    const map = this.tiles.map;
    if (!map || !this.width || !this.height) return;
    const { west, east, north, south } = map.box;
    this.x = (west + east) / 2;
    this.y = (north + south) / 2;
    this.zoom = this.clamped(Math.log2(Math.min(this.width * 0.94 / (east - west), this.height * 0.94 / (south - north)) / 256));
    this.fitted = true;
    this.redraw();
  }

  showAll() { this.follow(false); this.fit(); }

  zoomBy(step, atX = this.width / 2, atY = this.height / 2) {
    const before = this.scale;
    this.zoom = this.clamped(this.zoom + step);
    const keep = 1 / before - 1 / this.scale;
    // Following keeps the drone in the middle, so only a free map zooms about the pointer.
    if (!this.following || !this.target) {
      this.x += (atX - this.width / 2) * keep;
      this.y += (atY - this.height / 2) * keep;
    }
    this.redraw();
  }

  panBy(dx, dy) {
    if (this.following) this.follow(false);
    this.x -= dx / this.scale;
    this.y = Math.max(0, Math.min(1, this.y - dy / this.scale));
    this.redraw();
  }

  clamped(zoom) {
    const map = this.tiles.map;
    if (!map) return zoom;
    const whole = Math.log2(Math.min(this.width / (map.box.east - map.box.west), this.height / (map.box.south - map.box.north)) / 256);
    return Math.max(Math.min(map.min_zoom - 1, whole - 1), Math.min(map.max_zoom + MARGIN_ZOOMS, zoom));
  }

  resized() {
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    if (!this.fitted) this.fit();
    this.redraw();
  }

  redraw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.draw(); });
  }

  draw() {
    if (!this.width || !this.height) return;
    if (this.following && this.target && !this.pointers.size) this.approach();
    const ratio = devicePixelRatio || 1, c = this.context;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.fillStyle = "#242b33";
    c.fillRect(0, 0, this.width, this.height);
    this.tiles.draw(c, this, ratio);
    this.paint(c, this);
    this.onDraw(this.tiles.drawn);
  }

  approach() {
    const [tx, ty] = this.target;
    const dx = (tx - this.x) - Math.round(tx - this.x), dy = ty - this.y;
    const far = Math.hypot(dx, dy) * this.scale;
    const share = calm.matches || far < 0.7 || far > this.width ? 1 : 0.22;
    this.x += dx * share;
    this.y += dy * share;
    if (share < 1) this.redraw();
  }

  listen() {
    const c = this.canvas;
    c.addEventListener("pointerdown", (e) => {
      c.setPointerCapture(e.pointerId);
      this.pointers.set(e.pointerId, [e.offsetX, e.offsetY]);
    });
    c.addEventListener("pointermove", (e) => {
      const last = this.pointers.get(e.pointerId);
      if (!last) return;
      const now = [e.offsetX, e.offsetY];
      const [other] = [...this.pointers].filter(([id]) => id !== e.pointerId).map(([, p]) => p);
      this.pointers.set(e.pointerId, now);
      if (!other) {
        this.panBy(now[0] - last[0], now[1] - last[1]);
      } else {
        const before = Math.hypot(last[0] - other[0], last[1] - other[1]);
        const after = Math.hypot(now[0] - other[0], now[1] - other[1]);
        if (!this.following) this.panBy((now[0] - last[0]) / 2, (now[1] - last[1]) / 2);
        if (before > 5 && after > 5) this.zoomBy(Math.log2(after / before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      }
    });
    for (const kind of ["pointerup", "pointercancel"]) c.addEventListener(kind, (e) => this.pointers.delete(e.pointerId));
    c.addEventListener("wheel", (e) => {
      e.preventDefault();
      const lines = e.deltaMode === 1 ? 16 : e.deltaMode === 2 ? 200 : 1;
      this.zoomBy(Math.max(-1, Math.min(1, -e.deltaY * lines / 240)), e.offsetX, e.offsetY);
    }, { passive: false });
    c.addEventListener("dblclick", (e) => this.zoomBy(1, e.offsetX, e.offsetY));
    c.addEventListener("keydown", (e) => {
      const step = e.shiftKey ? 200 : 70;
      const pans = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (e.ctrlKey || e.metaKey || e.altKey || !pans[e.key]) return;
      this.panBy(...pans[e.key]);
      e.preventDefault();
    });
  }
}
