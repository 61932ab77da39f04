"""A flight over time: what became of every frame, how far off it was, and where its time went."""

from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from benchmarks.accuracy import FALSE_FIX_M, WITHIN_95
from benchmarks.intervals import percentile
from benchmarks.report_map import STATUS_NAMES, status_css
from benchmarks.results_page.figure import Figure, spaced, tick
from benchmarks.results_page.written import plural, significant
from benchmarks.scored_flight import read_log, score_flight
from edge_runtime.errors import InputError
from edge_runtime.fix import STAGES, Fix
from train.svg_plots import Axis, Mark, error_over_time

_STATUS_CSS = {"OK": "s-ok", "DEGRADED": "s-degraded", "ABSTAIN": "s-abstain", "LOST": "s-lost"}
_TALLEST = 1.5
"""The picture of times ends at so many 99th percentiles; higher bars are cut and numbered."""
_MOST_NUMBERS = 6


class TimedFrame(NamedTuple):
    """One frame of a flight."""

    t_s: float
    """Since the first one."""
    css: str
    """Class of its status."""
    error_m: float | None
    radius_95_m: float | None
    latency_ms: dict[str, float]
    late: bool


class TimedFlight(NamedTuple):
    """A flight to draw."""

    name: str
    frames: Sequence[TimedFrame]
    truth: bool
    """Whether errors are known."""


def read_flight(log: Path, truth: Path | None) -> TimedFlight:
    """Read a log, and score it where there is a truth.

    Raises:
        InputError: unreadable, or it holds no frame.
    """
    name = log.name.removesuffix(".jsonl")
    if truth is None:
        fixes = read_log(log)
        frames = [_frame(fix, fix.t_exposure_s, _STATUS_CSS[fix.status], None) for fix in fixes]
    else:
        frames = [
            _frame(a.fix, a.t_s, status_css(a, FALSE_FIX_M), a.error_m)
            for a in score_flight(log, truth).attempts
        ]
    if not frames:
        msg = f"{log} holds no frame; expected the log of a flight"
        raise InputError(msg)
    start = frames[0].t_s
    return TimedFlight(name, [f._replace(t_s=f.t_s - start) for f in frames], truth is not None)


def flight_figures(flight: TimedFlight) -> str:
    """Heading, error, time per stage, and what the colours mean."""
    marks = [Mark(f.t_s, f.error_m, f.radius_95_m, f.css) for f in flight.frames]
    what = "Error" if flight.truth else "Stated 95 % radius"
    legend = "".join(
        f'<li><i class="key {css}"></i>{escape(name)} '
        f"<small>{sum(f.css == css for f in flight.frames)}</small></li>"
        for css, name in STATUS_NAMES.items()
        if any(f.css == css for f in flight.frames)
    )
    errors = _both(
        lambda width: error_over_time(
            marks, title=f"{what} over time, {flight.name}", width_px=width
        )
    )
    explained = "Band: the 95 % radius that the fix claims. Strip: the status of every frame."
    if not flight.truth:
        explained += " Without a truth there are no errors to draw."
    timed = [f for f in flight.frames if "total" in f.latency_ms]
    times = ""
    if timed:
        stages = _stages(timed)
        keys = "".join(
            f'<li><i class="key {_css(s)}"></i>{escape(s.replace("_", " "))}</li>' for s in stages
        )
        late = sum(f.late for f in timed)
        missed = f" {plural(late, 'frame')} missed the deadline, marked on top." if late else ""
        totals = [f.latency_ms["total"] for f in timed]
        numbers = (
            f"{significant(percentile(totals, 50))}, 99 % {significant(percentile(totals, 99))}"
        )

        def draw(width_px: int) -> str:
            title = f"Time per frame, {flight.name}"
            return stage_times(timed, title=title, width_px=width_px)

        times = (
            f"<figure>{_both(draw)}"
            f"<figcaption><ul class='legend'>{keys}</ul>Time of a frame by its stages; where there "
            "are more frames than room, the slowest of its neighbours. Median "
            f"{numbers}, slowest {significant(max(totals))} ms of {len(timed):,} frames.{missed}"
            "</figcaption></figure>"
        )
    return (
        f"<h3>{escape(flight.name.replace('_', ' '))}</h3><figure>{errors}<figcaption>"
        f"<ul class='legend'>{legend}</ul>{explained}</figcaption></figure>{times}"
    )


def stage_times(timed: Sequence[TimedFrame], *, title: str, width_px: int) -> str:
    """Bars over time, each frame's stages upon each other; no slow frame is lost in the drawing."""
    height, left, right, top = 240, 46, 38, 26
    bottom = height - 44
    room = width_px - left - right
    shown = _slowest_of_neighbours(timed, most=room // 2)
    totals = [f.latency_ms["total"] for f in timed]
    high = min(max(totals), _TALLEST * percentile(totals, 99)) * 1.05 or 1.0
    y = Axis(low=0, high=high, start_px=bottom, end_px=top)
    first, last = timed[0].t_s, timed[-1].t_s
    pad = 0.01 * (last - first) or 1.0
    x = Axis(low=first - pad, high=last + pad, start_px=left, end_px=width_px - right)
    figure = Figure(width_px, height, title)
    for value in y.ticks(5):
        figure.line("grid", left, y(value), x.end_px, y(value))
        figure.text(left - 6, y(value) + 4, tick(value), anchor="end")
    figure.text(0, 12, "time of a frame, ms")
    stages = _stages(timed)
    width = max(min(room / max(len(shown), 1) * 0.9, 12.0), 1.0)
    cut = []
    for frame in shown:
        total = frame.latency_ms["total"]
        parts = [(_css(s), frame.latency_ms.get(s, 0.0)) for s in stages if s != "other"]
        if "other" in stages:
            parts.append((_css("other"), max(total - sum(ms for _, ms in parts), 0.0)))
        start = 0.0
        for css, ms in parts:
            if ms > 0 and start < high:
                upper = y(start + ms)
                figure.box(f"f {css}", x(frame.t_s) - width / 2, upper, width, y(start) - upper)
            start += ms
        if frame.late:
            figure.box("late", x(frame.t_s) - width / 2, top - 5, max(width, 2), 4)
        if total > high:
            cut.append(frame)
    cut = sorted(cut, key=lambda f: -f.latency_ms["total"])[:_MOST_NUMBERS]
    for t_s in spaced(x, sorted(f.t_s for f in cut), 44):
        ms = next(f.latency_ms["total"] for f in cut if f.t_s == t_s)
        figure.text(x(t_s), top - 8, f"{ms:,.0f} ms", anchor="middle", css="strong")
    for value in x.ticks(8 if width_px > 600 else 4):
        figure.text(x(value), bottom + 18, tick(value), anchor="middle")
    figure.text((left + x.end_px) / 2, height - 4, "time, s", anchor="middle")
    return figure.svg(
        f"{len(timed)} frames, median {significant(percentile(totals, 50))} ms, slowest "
        f"{significant(max(totals))} ms."
    )


def _frame(fix: Fix | None, t_s: float | None, css: str, error_m: float | None) -> TimedFrame:
    eph = None if fix is None else fix.eph_m
    return TimedFrame(
        t_s=t_s or 0.0,
        css=css,
        error_m=error_m,
        radius_95_m=None if eph is None else WITHIN_95 * eph,
        latency_ms={} if fix is None else fix.latency_ms,
        late=fix is not None and fix.deadline_missed,
    )


def _slowest_of_neighbours(timed: Sequence[TimedFrame], most: int) -> list[TimedFrame]:
    if len(timed) <= most:
        return list(timed)
    edges = [len(timed) * k // most for k in range(most + 1)]
    return [max(timed[a:b], key=lambda f: f.latency_ms["total"]) for a, b in pairwise(edges)]


def _stages(timed: Sequence[TimedFrame]) -> list[str]:
    found = [s for s in STAGES if s != "total" and any(f.latency_ms.get(s) for f in timed)]
    parts = sum(f.latency_ms.get(s, 0.0) for f in timed for s in found)
    rest = sum(f.latency_ms["total"] for f in timed) - parts
    return [*found, "other"] if rest > 0.01 * parts else found


def _css(stage: str) -> str:
    return f"g-{stage.replace('_', '-')}"


def _both(draw: Callable[[int], str]) -> str:
    """A picture for wide pages and one for narrow ones."""
    sizes = (("wide", 1140), ("narrow", 420))
    return "".join(f'<div class="{css}">{draw(width)}</div>' for css, width in sizes)
