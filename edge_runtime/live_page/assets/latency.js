// The last minute's latencies: a bar per frame, stacked by stage, with the deadline across.

export const STAGES = [
  ["capture", "#8d99a6"], ["ground_view", "#56b4e9"], ["encode", "#2f7fc1"],
  ["search", "#00a37a"], ["refine", "#e69f00"], ["track", "#cc79a7"],
]; // Okabe and Ito 2008: told apart by colour-blind eyes too.
const SPAN_S = 60;

export function paintLatency(canvas, times, deadlineMs) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return null;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const c = canvas.getContext("2d"), style = getComputedStyle(canvas);
  const ink = style.getPropertyValue("--ink"), line = style.getPropertyValue("--line"), bad = style.getPropertyValue("--lost");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  const totals = times.map((t) => t.stages.total || 0).sort((a, b) => a - b);
  const at = (share) => totals[Math.min(totals.length - 1, Math.floor(share * totals.length))];
  const top = niceAbove(Math.max(deadlineMs ? deadlineMs * 1.15 : 0, (totals.length ? at(0.98) : 0) * 1.1, 10));
  const left = 38, bottom = 14, tall = height - bottom - 2, y = (ms) => 2 + tall * (1 - Math.min(ms, top) / top);
  c.font = "11px system-ui, sans-serif";
  c.fillStyle = ink;
  c.strokeStyle = line;
  c.lineWidth = 1;
  c.textAlign = "right";
  c.textBaseline = "middle";
  for (const ms of [0, top / 2, top]) {
    c.fillText(`${+ms.toPrecision(3)}`, left - 5, Math.max(7, y(ms)));
    c.beginPath(); c.moveTo(left, Math.round(y(ms)) + 0.5); c.lineTo(width, Math.round(y(ms)) + 0.5); c.stroke();
  }
  c.textBaseline = "alphabetic";
  c.fillText("now", width, height - 2);
  c.textAlign = "left";
  c.fillText("−60 s", left, height - 2);
  const end = times.length ? times.at(-1).t : 0, perS = (width - left) / SPAN_S;
  times.forEach(({ t, stages, missed }, k) => {
    const x = left + (t - end + SPAN_S) * perS;
    const gap = k ? Math.min(2, t - times[k - 1].t) : 0.5;
    const wide = Math.max(1, gap * perS - (gap * perS > 3 ? 1 : 0));
    let sum = 0;
    for (const [name, colour] of STAGES) {
      const ms = stages[name] || 0;
      c.fillStyle = colour;
      c.fillRect(x - wide, y(sum + ms), wide, y(sum) - y(sum + ms));
      sum += ms;
    }
    if (missed) { c.fillStyle = bad; c.fillRect(x - wide, 0, Math.max(wide, 2), 4); }
  });
  if (deadlineMs) {
    c.setLineDash([6, 4]);
    c.lineWidth = 2; c.strokeStyle = bad;
    c.beginPath(); c.moveTo(left, y(deadlineMs)); c.lineTo(width, y(deadlineMs)); c.stroke();
    c.setLineDash([]);
    const words = `deadline ${+deadlineMs.toPrecision(4)} ms`;
    c.lineWidth = 4; c.strokeStyle = style.getPropertyValue("--panel"); c.lineJoin = "round";
    c.strokeText(words, left + 5, y(deadlineMs) - 4);
    c.fillStyle = bad; c.fillText(words, left + 5, y(deadlineMs) - 4);
  }
  return totals.length ? { p50: at(0.5), p99: at(0.99), count: totals.length } : null;
}

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 6, 8, 10].map((m) => m * power).find((m) => m >= value);
}
