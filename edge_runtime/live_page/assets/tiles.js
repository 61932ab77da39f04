// The imagery: tiles from the server, the nearest coarser one where the right one is not there.

const MOST_KEPT = 320, MOST_LOADING = 12;

export class TileLayer {
  constructor(onChange) {
    this.onChange = onChange;
    this.map = null;
    this.tiles = new Map();
    this.loading = 0;
    this.drawn = 0;
  }

  // `map` as in the server's hello; another imagery forgets everything, the same one tries again.
  use(map) {
    if (!this.map || this.map.version !== map.version) this.tiles.clear();
    else for (const [key, tile] of this.tiles) if (tile.state === "failed") this.tiles.delete(key);
    this.map = map;
  }

  draw(context, view, ratio) {
    this.drawn = 0;
    if (!this.map) return;
    const { min_zoom: low, max_zoom: high } = this.map;
    const zoom = Math.max(low, Math.min(high, Math.round(view.zoom + Math.log2(ratio))));
    const n = 2 ** zoom, scale = 256 * 2 ** view.zoom;
    const left = view.x - view.width / 2 / scale, right = view.x + view.width / 2 / scale;
    const top = view.y - view.height / 2 / scale, bottom = view.y + view.height / 2 / scale;
    const box = this.box(view.x);
    const x0 = Math.floor(Math.max(left, box.west) * n), x1 = Math.ceil(Math.min(right, box.east) * n);
    const y0 = Math.floor(Math.max(top, box.north, 0) * n), y1 = Math.ceil(Math.min(bottom, box.south, 1) * n);
    const wanted = [];
    for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) {
      const place = [(x / n - left) * scale, (y / n - top) * scale, ((x + 1) / n - left) * scale, ((y + 1) / n - top) * scale];
      this.paint(context, zoom, ((x % n) + n) % n, y, place.map((v) => Math.round(v * ratio) / ratio), wanted);
    }
    // From the middle outwards.
    wanted.sort((a, b) => a[1] - b[1]);
    for (const [key] of wanted) this.load(key);
    this.forget();
  }

  box(nearX) {
    const b = this.map.box;
    const shift = Math.round(nearX - (b.west + b.east) / 2);
    return { west: b.west + shift, east: b.east + shift, north: b.north, south: b.south };
  }

  // Draw one tile, or the part of a coarser one that covers it; note what should be loaded.
  paint(context, zoom, x, y, [xa, ya, xb, yb], wanted) {
    const middle = Math.hypot((xa + xb) / 2 - context.canvas.clientWidth / 2, (ya + yb) / 2 - context.canvas.clientHeight / 2);
    for (let up = 0; zoom - up >= this.map.min_zoom; up++) {
      const key = `${zoom - up}/${x >> up}/${y >> up}`;
      const tile = this.tiles.get(key);
      if (!tile) { wanted.push([key, middle + up]); continue; }
      if (tile.state === "ready") {
        const part = 256 / 2 ** up, mask = 2 ** up - 1;
        context.imageSmoothingEnabled = true;
        context.drawImage(tile.image, (x & mask) * part, (y & mask) * part, part, part, xa, ya, xb - xa, yb - ya);
        tile.used = performance.now();
        this.drawn++;
        return;
      }
    }
  }

  load(key) {
    if (this.loading >= MOST_LOADING || this.tiles.has(key)) return;
    const tile = { state: "loading", image: new Image(), used: performance.now() };
    this.tiles.set(key, tile);
    this.loading++;
    const done = (state) => { tile.state = state; this.loading--; this.onChange(); };
    tile.image.onload = () => done("ready");
    // An answer without a picture (204) comes here too: there is no such tile.
    tile.image.onerror = () => done("failed");
    tile.image.src = `/tiles/${key}?v=${this.map.version}`;
  }

  forget() {
    if (this.tiles.size <= MOST_KEPT) return;
    const old = [...this.tiles].filter(([, t]) => t.state !== "loading").sort((a, b) => a[1].used - b[1].used);
    for (const [key] of old.slice(0, this.tiles.size - MOST_KEPT)) this.tiles.delete(key);
  }
}
