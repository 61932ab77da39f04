// The imagery: one picture, in place of the live page's tiles.

export class TileLayer {
  constructor(onChange) {
    this.onChange = onChange;
    this.map = null;
    this.drawn = 0;
  }

  // `map` as MapView takes it; `image` is the picture of its bounds, or null.
  use(map) { this.map = map; }

  draw(context, view) {
    this.drawn = 0;
    if (!this.map || !this.map.image) return;
    const { box, image } = this.map, scale = view.scale;
    const shift = Math.round(view.x - (box.west + box.east) / 2);
    const x = view.width / 2 + (box.west + shift - view.x) * scale, y = view.height / 2 + (box.north - view.y) * scale;
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(image, x, y, (box.east - box.west) * scale, (box.south - box.north) * scale);
    this.drawn = 1;
  }
}
