// The frame, and the ground it shows beside the imagery it was matched with.

const BLINK_MS = 650;
const KINDS = ["frame", "view", "imagery"];
const part = (id) => document.getElementById(id);

export class Compare {
  constructor(pictures) {
    this.pictures = pictures;
    this.blinking = this.turn = 0;
    part("swipe").addEventListener("input", () => this.split());
    part("blink").addEventListener("click", () => this.blink());
  }

  has(row) { return Object.hasOwn(this.pictures, row); }

  blink() {
    clearInterval(this.blinking);
    const on = part("blink").getAttribute("aria-pressed") !== "true";
    part("blink").setAttribute("aria-pressed", on);
    let camera = false;
    this.blinking = on ? setInterval(() => { camera = !camera; this.split(camera ? 100 : 0); }, BLINK_MS) : 0;
    this.split(on ? 0 : undefined);
  }

  split(at) {
    const percent = at === undefined ? Number(part("swipe").value) : at;
    const whole = part("imagery").hidden;
    part("view").style.clipPath = whole ? "none" : `inset(0 ${100 - percent}% 0 0)`;
    part("divider").style.left = `${percent}%`;
    part("divider").hidden = at !== undefined || whole;
    part("tag-view").hidden = part("view").hidden || (!whole && percent < 12);
    part("tag-imagery").hidden = whole || percent > 88;
  }

  // Show the pictures of a row; `others` says where there are some, if this one has none.
  async show(row, status, none) {
    const turn = ++this.turn, own = this.has(row) ? this.pictures[row] : null;
    const kinds = own ? own.kinds : [];
    const sources = KINDS.map((kind) => kinds.includes(kind) ? embedded(`picture-${row}-${kind}`) : "");
    // All of them at once: a view over the imagery of another frame would be a lie.
    await Promise.all(sources.map(decoded));
    if (turn !== this.turn) return;
    KINDS.forEach((kind, k) => {
      const image = part(kind);
      image.hidden = !sources[k];
      if (sources[k]) image.src = sources[k]; else image.removeAttribute("src");
    });
    const [hasFrame, hasView, hasImagery] = sources.map(Boolean);
    part("pictures").classList.toggle("none", !own);
    part("frame-none").hidden = hasFrame;
    part("frame-none").textContent = own ? "this frame could not be read" : none;
    part("match-none").hidden = hasView;
    part("match-none").textContent = own ? "no ground view of this frame" : "";
    part("tag-view").textContent = hasImagery ? "camera" : "camera, nothing matched";
    part("tag-imagery").textContent = status === "OK" ? "imagery" : "imagery, best guess";
    part("swipe").hidden = !hasImagery;
    this.split(this.blinking ? 0 : undefined);
    document.documentElement.dataset.pictures = `${row}:${sources.map((s) => s ? 1 : 0).join("")}`;
  }
}

// A picture that lies in the page.
export function embedded(id) {
  const block = part(id);
  return block ? `data:image/${block.dataset.kind};base64,${block.textContent}` : "";
}

async function decoded(source) {
  if (!source) return;
  const image = new Image();
  image.src = source;
  try { await image.decode(); } catch { /* The place of a picture that is broken stays empty. */ }
}
