// Figures and reasons in words.

export const GLYPHS = ["●", "◐", "○", "✕"];

const EXPLAINED = [
  [/^several places fit/, "The frame looks like more than one place on the map, and none was believed by more than half. More frames, or a starting position, would decide."],
  [/^believed only/, "One place fits best, but chance could do this too, so no position was given: a wrong one is worse than none."],
  [/^only weak agreement/, "The best place is the only one left, but every match so far was weak, so no position was given."],
  [/^accuracy only/, "The frame agrees with too wide an area to be of use as a position."],
  [/^no agreeing match/, "For a while nothing in view has matched where the drone was thought to be, so that place is no longer believed."],
  [/^dead reckoning/, "This frame did not match; the position was carried on from the last one that did."],
  [/^frame has no contrast/, "The frame shows nothing: darkness, fog, sky, or a covered lens."],
  [/^frame (cannot be read|is empty)/, "The source gave no picture."],
  [/^too little ground in view/, "By the heights and angles known, the camera saw too little ground: it looked to the horizon, or the drone was too low."],
];

export const explained = (reason) => (EXPLAINED.find(([pattern]) => pattern.test(reason)) || [null, ""])[1];

export const figure = (value, digits, unit = "") => value === null || value === undefined ? "–" : value.toFixed(digits) + unit;

export const milliseconds = (ms) => ms === null ? "–" : `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;

// Never rounded up to certain.
export function believed(p) {
  if (p === null) return "–";
  if (p >= 1) return "100 %";
  return p > 0.99 ? `${(Math.floor(p * 10000) / 100).toFixed(2)} %` : `${Math.floor(p * 100)} %`;
}

const UNIX_FROM_S = 1e9, UNIX_TO_S = 1e11;
export const isUnix = (t) => t >= UNIX_FROM_S && t < UNIX_TO_S;

// A frame's time: UTC where its clock counts from 1970, else minutes and seconds of that clock.
export function clock(t, { day = false, tenths = true } = {}) {
  if (t !== t || t === null || Math.abs(t) === Infinity) return "no time";
  if (isUnix(t)) {
    const text = new Date(t * 1000).toISOString();
    return (day ? `${text.slice(0, 10)} ` : "") + text.slice(11, tenths && t % 1 ? 21 : 19);
  }
  const s = Math.abs(t), sign = t < 0 ? "−" : "", rest = tenths ? (s % 60).toFixed(1).padStart(4, "0") : String(Math.floor(s % 60)).padStart(2, "0");
  return s < 3600 ? `${sign}${Math.floor(s / 60)}:${rest}` : `${sign}${Math.floor(s / 3600)}:${String(Math.floor(s / 60) % 60).padStart(2, "0")}:${rest}`;
}

export function duration(s) {
  if (s < 100) return `${+s.toFixed(1)} s`;
  return s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`;
}
