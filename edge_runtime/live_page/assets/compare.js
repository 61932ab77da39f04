// The frame, and the ground it shows beside the imagery it was matched with.

const SHORTEST_MS = 400, BLINK_MS = 650;
const byId = (id) => document.getElementById(id);

export class Compare {
  constructor(onShown) {
    this.onShown = onShown;
    this.held = this.busy = false;
    this.lastMs = -SHORTEST_MS;
    this.shown = this.seq = null;
    this.blinking = 0;
    this.swipe = byId("swipe");
    this.swipe.addEventListener("input", () => this.split());
    byId("blink").addEventListener("click", () => this.blink());
    byId("freeze").addEventListener("click", () => this.hold());
    this.split();
  }

  hold() {
    this.held = !this.held;
    byId("freeze").setAttribute("aria-pressed", this.held);
    if (!this.held) this.refresh();
  }

  blink() {
    clearInterval(this.blinking);
    const on = byId("blink").getAttribute("aria-pressed") !== "true";
    byId("blink").setAttribute("aria-pressed", on);
    let camera = false;
    this.blinking = on ? setInterval(() => { camera = !camera; this.split(camera ? 100 : 0); }, BLINK_MS) : 0;
    this.split(on ? 0 : undefined);
  }

  split(at) {
    const percent = at === undefined ? Number(this.swipe.value) : at;
    byId("view").style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
    byId("divider").style.left = `${percent}%`;
    byId("divider").hidden = at !== undefined || byId("imagery").hidden;
    const whole = byId("imagery").hidden;
    byId("tag-view").hidden = byId("view").hidden || (!whole && percent < 12);
    byId("tag-imagery").hidden = whole || percent > 88;
    if (whole) byId("view").style.clipPath = "none";
  }

  // Get newer pictures, if anybody can see them and the last ones are not too young.
  async refresh() {
    if (this.held || this.busy || document.hidden || performance.now() - this.lastMs < SHORTEST_MS) return;
    this.busy = true;
    this.lastMs = performance.now();
    try {
      const answer = await fetch("/pictures.json");
      if (!answer.ok) return;
      const shot = await answer.json();
      const key = `${shot.seq}/${shot.kinds}`;
      if (key === this.shown) return;
      const images = await Promise.all(["frame", "view", "imagery"].map((kind) => loaded(shot, kind)));
      if (!this.held) { this.show(shot, images); this.shown = key; this.seq = shot.seq; }
    } catch {
      // The connection says by itself that it is gone.
    } finally {
      this.busy = false;
    }
  }

  show(shot, images) {
    ["frame", "view", "imagery"].forEach((id, k) => {
      const old = byId(id), image = images[k];
      if (image) { image.id = id; image.alt = old.alt; image.style.cssText = old.style.cssText; old.replaceWith(image); }
      else old.hidden = true;
    });
    byId("frame-name").textContent = shot.name;
    byId("frame-none").hidden = Boolean(images[0]);
    byId("frame-none").textContent = "this frame could not be read";
    byId("match-none").hidden = Boolean(images[1]);
    byId("match-none").textContent = "no ground view of this frame";
    byId("tag-view").textContent = images[2] ? "camera" : "camera, no match";
    this.swipe.hidden = !images[2];
    this.split(this.blinking ? 0 : undefined);
    this.onShown(shot, images.map(Boolean));
  }
}

async function loaded(shot, kind) {
  if (!shot.kinds.includes(kind)) return null;
  const image = new Image();
  image.src = `/${kind}.jpg?seq=${shot.seq}`;
  try {
    await image.decode();
  } catch {
    return null;
  }
  return image;
}
