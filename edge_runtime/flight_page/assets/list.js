// The list of frames: only the rows that can be seen are there, however long the flight was.

import { firstNotBelow, STATUSES } from "./flight.js";
import { embedded } from "./compare.js";
import { clock, figure, GLYPHS } from "./words.js";

// As many rows as a page may hold are 12 million pixels: browsers take 17 (Firefox) to 33.
const ROW_PX = 58, BEYOND = 4;

export class FrameList {
  constructor(box, rows, flight, { pictured, onSelect }) {
    Object.assign(this, { box, inner: rows, flight, pictured, onSelect });
    this.row = 0;
    box.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(box);
    rows.addEventListener("click", (e) => {
      const item = e.target.closest("[data-row]");
      if (item) onSelect(Number(item.dataset.row));
    });
    this.changed();
  }

  // The filter is another.
  changed() {
    this.rows = this.flight.rows();
    this.inner.style.height = `${this.rows.length * ROW_PX}px`;
    this.drawn = "";
    this.draw();
  }

  select(row) {
    this.row = row;
    const at = firstNotBelow(this.rows, row), top = at * ROW_PX;
    if (this.rows[at] === row) {
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      else if (top + ROW_PX > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW_PX - this.box.clientHeight;
    }
    this.drawn = "";
    this.draw();
  }

  draw() {
    const tall = this.box.clientHeight;
    if (!tall) return;
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW_PX) - BEYOND);
    const after = Math.min(this.rows.length, first + Math.ceil(tall / ROW_PX) + 2 * BEYOND);
    const key = `${first} ${after}`;
    if (key === this.drawn) return;
    this.drawn = key;
    const items = [];
    for (let k = first; k < after; k++) items.push(this.item(k));
    this.inner.replaceChildren(...items);
    if (this.rows[firstNotBelow(this.rows, this.row)] === this.row) this.box.setAttribute("aria-activedescendant", `row-${this.row}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  item(k) {
    const { flight } = this, row = this.rows[k], status = flight.c.status[row];
    const item = element("div", "row");
    Object.assign(item.dataset, { row, status: STATUSES[status] });
    item.id = `row-${row}`;
    const name = flight.names[row], t = flight.c.t_exposure_s[row];
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", row === this.row);
    item.setAttribute("aria-posinset", k + 1);
    item.setAttribute("aria-setsize", this.rows.length);
    item.title = [name, flight.reason(row)].filter(Boolean).join(": ");
    item.style.transform = `translateY(${k * ROW_PX}px)`;
    const thumb = element("span", "thumb"), source = this.pictured(row) ? embedded(`picture-${row}-frame`) : "";
    if (source) {
      const image = element("img");
      image.src = source;
      image.alt = "";
      image.decoding = "async";
      thumb.append(image);
    }
    const words = element("span", "words"), title = element("span", "title"), why = element("span", "why");
    const glyph = element("span", "glyph", GLYPHS[status]);
    title.append(glyph, element("b", "", name), element("span", "quiet", ` ${clock(t)}`));
    const eph = flight.number("eph_m", row), inliers = flight.c.inliers[row];
    const evidence = [eph === null ? "" : `±${figure(eph, 1)} m`, inliers ? `${inliers} inliers` : ncc(flight, row)].filter(Boolean).join(" · ");
    why.textContent = flight.reason(row) || evidence;
    words.append(title, why);
    if (flight.reason(row) && evidence) words.append(element("span", "quiet small", evidence));
    item.append(thumb, words);
    return item;
  }
}

const ncc = (flight, row) => flight.number("ncc", row) === null ? "" : `correlation ${figure(flight.number("ncc", row), 2)}`;

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
