"""The report's section on latency."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from benchmarks.intervals import percentile
from benchmarks.latency import device_of
from benchmarks.report_text import DASH, join, plural
from benchmarks.tables import milliseconds
from edge_runtime.fix import STAGES, Fix
from train.svg_plots import StackedBar, stacked_bars

if TYPE_CHECKING:
    from benchmarks.report import ReportData

STAGE_NAMES = {
    "capture": "capture",
    "ground_view": "ground view",
    "encode": "encode",
    "search": "search",
    "refine": "refine",
    "track": "track",
    "other": "other",
}
_RANKS = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("max", 100.0))


def latency_section(data: ReportData) -> str:
    """Where a frame's time goes, and the encoder by itself; empty where neither is known."""
    fixes = [fix for flight in data.flights for fix in flight.fixes]
    timed = sorted(
        (f for f in fixes if "total" in f.latency_ms), key=lambda f: f.latency_ms["total"]
    )
    if not timed and not data.latency:
        return ""
    blocks = []
    if timed:
        stages = [s for s in STAGES if s != "total" and any(s in f.latency_ms for f in timed)]
        bars = [_bar(label, timed, p, stages) for label, p in _RANKS]
        legend = "".join(
            f'<li><i class="key {_stage_css(s)}"></i>{escape(STAGE_NAMES[s])}</li>' for s in stages
        )
        missed = sum(f.deadline_missed for f in timed)
        late = f" {plural(missed, 'frame')} missed the deadline." if missed else ""
        rows = "".join(
            f'<tr><th scope="row">{escape(STAGE_NAMES.get(s, s))}</th>'
            + "".join(
                f"<td>{milliseconds(percentile(times, p))}</td>"
                for times in [stage_times_ms(timed, s)]
                for _, p in _RANKS
            )
            + "</tr>"
            for s in [*stages, "total"]
        )
        head = "".join(f'<th scope="col">{label}</th>' for label, _ in _RANKS)
        blocks.append(
            '<div class="pair"><figure><h3>Where the time goes</h3>'
            f"{stacked_bars(bars, title='Stages of a frame')}"
            f"<figcaption><ul class='legend'>{legend}</ul>Each bar is one real frame: the one at "
            f"that rank of the total time.{late}</figcaption></figure>"
            '<div class="scroll" tabindex="0"><table><caption>Milliseconds per stage over '
            f"{plural(len(timed), 'frame')}, by nearest rank, nothing left out. Percentiles of "
            f"stages do not add up to those of the total.</caption><thead><tr><td></td>{head}</tr>"
            f"</thead><tbody>{rows}</tbody></table></div></div>"
        )
    if data.latency:
        blocks.append(_backend_table(data.latency))
    return f"<section><h2>Latency</h2>{join(blocks)}</section>"


def _backend_table(rows: Sequence[dict[str, Any]]) -> str:
    body = ""
    for r in rows:
        time, machine = r["time"], r["machine"]
        said = [f"something else ran than was asked for: {r['fallback']}"] if r["fallback"] else []
        said += [r["note"]] if r["note"] else []
        note = "".join(f"<br><small>{escape(str(text))}</small>" for text in said)
        device = device_of(r["provider"], machine["cpu"], machine["gpu"])
        body += (
            f'<tr><th scope="row">{escape(str(r["provider"]).removesuffix("ExecutionProvider"))} '
            f"{escape(str(r['precision']))}{note}</th><td>{r['batch']}</td>"
            f"<td>{r['width_px']} by {r['height_px']}</td>"
            + "".join(
                f"<td>{DASH if time[name] is None else milliseconds(float(time[name]))}</td>"
                for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms", "first_ms")
            )
            + f"<td>{time['n']}</td><td class='text'>{escape(str(device))}, "
            f"{escape(str(r['library']))}, {r['threads'] or DASH} threads</td></tr>"
        )
    names = ("batch", "input px", "p50", "p90", "p99", "max", "first", "calls", "on")
    head = "".join(f'<th scope="col">{n}</th>' for n in names)
    return (
        '<div class="scroll" tabindex="0"><table><caption>The encoder by itself, milliseconds '
        "per call: from pixels in host memory to embeddings in host memory, copies included."
        "</caption>"
        f'<thead><tr><th scope="col">backend</th>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


def _bar(label: str, timed: Sequence[Fix], percent_: float, stages: Sequence[str]) -> StackedBar:
    """The frame at a percentile of total time, cut into its stages."""
    rank = max(math.ceil(round(percent_ / 100 * len(timed), 9)), 1)
    fix = timed[rank - 1]
    total = fix.latency_ms["total"]
    parts = [(_stage_css(s), fix.latency_ms.get(s, 0.0)) for s in stages]
    rest = total - sum(v for _, v in parts)
    if rest > 0.01 * total:
        parts.append(("g-other", rest))
    return StackedBar(label, parts, f"{milliseconds(total)} ms")


def _stage_css(stage: str) -> str:
    return f"g-{stage.replace('_', '-')}"


def stage_times_ms(fixes: Iterable[Fix], stage: str) -> list[float]:
    """Of the frames that had it."""
    return [fix.latency_ms[stage] for fix in fixes if stage in fix.latency_ms]
