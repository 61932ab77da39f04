"""What a page of results draws of measurements: distributions, and quality over time."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.results_page.figure import Figure, log_axis
from benchmarks.results_page.written import significant
from train.svg_plots import FONT_PX, Axis

_SHARES = (0.0, 0.5, 0.9, 0.99, 1.0)
_FAR = 3.0
"""Times the slowest call: the axis shows no first call that is further off."""
_LETTER_PX = 0.55 * FONT_PX
"""Mean width of a letter, for labels that keep out of each other's way."""


class Times(NamedTuple):
    """The calls of one measurement."""

    name: str
    css: str
    """Class of its colour, and of its dashes."""
    percentiles_ms: Sequence[float]
    """101, the least first."""
    first_ms: float | None


class Point(NamedTuple):
    """One measurement among others of its kind."""

    x: float
    """Time of a call, ms."""
    y: float
    label: str
    said: str
    """All about it."""
    css: str
    shape: str = "circle"
    line: str = ""
    """Points with the same name here are joined, in the order of x."""


def distribution(curves: Sequence[Times], *, title: str, width_px: int = 470) -> str:
    """Share of calls that took no longer than some time, its tail stretched out.

    From 90 to 99 % is as high as from 0 to 90 %: one call in a hundred is what a flight waits for.
    Diamonds on the axis are the very first calls, at its end where they took far longer than all
    others; dots at the top are the slowest ones.
    """
    height, left, right, top = 300, 58, 18, 14
    bottom = height - 56
    ends = [v for c in curves for v in c.percentiles_ms if v > 0] or [1.0]
    # A first call that compiles for a minute must not press the others into a line.
    first = [c.first_ms for c in curves if c.first_ms and c.first_ms < _FAR * max(ends)]
    x = log_axis([*ends, *first], left, width_px - right)
    y = Axis(low=0, high=_tail(1.0), start_px=bottom, end_px=top)
    figure = Figure(width_px, height, title)
    figure.milliseconds(x, top, bottom, "time of a call, ms")
    for share in _SHARES:
        at = y(_tail(share))
        figure.line("grid", left, at, x.end_px, at)
        text = "slowest" if share == 1 else f"{100 * share:.0f} %"
        figure.text(left - 6, at + 4, text, anchor="end")
    for curve in curves:
        points = [(max(v, x.low), k / 100) for k, v in enumerate(curve.percentiles_ms)]
        d = "L".join(f"{x(ms)} {y(_tail(share))}" for ms, share in points)
        figure.path(f"line {curve.css}", f"M{d}")
    for curve in curves:
        slowest = curve.percentiles_ms[-1]
        said = f"{curve.name}: slowest call {significant(slowest)} ms"
        figure.mark(curve.css, "circle", x(slowest), y(_tail(1.0)), said, 4)
        if curve.first_ms:
            said = f"{curve.name}: first call {significant(curve.first_ms)} ms"
            beyond = curve.first_ms > x.high
            shape = "arrow" if beyond else "diamond"
            figure.mark(curve.css, shape, x.end_px if beyond else x(curve.first_ms), bottom, said)
    return figure.svg(
        " ".join(
            f"{c.name}: median {significant(c.percentiles_ms[50])} ms, 99 % within "
            f"{significant(c.percentiles_ms[99])} ms, slowest "
            f"{significant(c.percentiles_ms[-1])} ms."
            for c in curves
        )
    )


def over_time(
    points: Sequence[Point],
    *,
    title: str,
    y_label: str,
    y: Axis,
    y_ticks: Sequence[tuple[float, str]],
    front: Sequence[Point] = (),
    width_px: int = 470,
) -> str:
    """Something over the time of a call, on a logarithmic axis of time.

    Args:
        points: to draw.
        title: of the figure.
        y_label: what the vertical axis shows, written above it.
        y: its ends are from pixel 300 (bottom) to 30 (top).
        y_ticks: its values and how they are written.
        front: points that no other beats in both, joined by a line.
        width_px: it is drawn for.
    """
    left, right = 62, 18
    bottom, top = PLOT_BOTTOM_PX, PLOT_TOP_PX
    x = log_axis([p.x for p in points if p.x > 0] or [1.0], left, width_px - right)
    figure = Figure(width_px, bottom + 50, title)
    figure.milliseconds(x, top, bottom, "median time of a call, ms")
    figure.text(0, 12, y_label)
    for value, text in y_ticks:
        figure.line("grid", left, y(value), x.end_px, y(value))
        figure.text(left - 6, y(value) + 4, text, anchor="end")
    if len(front) > 1:
        figure.path("front", "M" + "L".join(f"{x(p.x)} {y(p.y)}" for p in front))
    for name in dict.fromkeys(p.line for p in points if p.line):
        joined = sorted((p for p in points if p.line == name), key=lambda p: p.x)
        figure.path(f"line {joined[0].css}", "M" + "L".join(f"{x(p.x)} {y(p.y)}" for p in joined))
    for p in points:
        figure.mark(p.css, p.shape, x(p.x), y(p.y), p.said)
    _labels(figure, points, front, x, y)
    best = " ".join(f"{p.said}." for p in (front or points))
    return figure.svg(f"{len(points)} measurements. {best}")


PLOT_BOTTOM_PX, PLOT_TOP_PX = 300, 30
"""Ends of the vertical axis of `over_time`."""


def pareto(points: Sequence[Point]) -> list[Point]:
    """Points that no other is faster and better than, by time; the quality grows with y."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def _labels(
    figure: Figure, points: Sequence[Point], front: Sequence[Point], x: Axis, y: Axis
) -> None:
    """Names beside points, the best ones first, where they meet neither points nor each other."""
    taken = [(x(p.x) - 6, y(p.y) - 6, x(p.x) + 6, y(p.y) + 6) for p in points]
    written: set[str] = set()
    for p in (*front, *points):
        if p.label in written:
            continue
        width = len(p.label) * _LETTER_PX
        for dx, dy, anchor in (
            (9, 4, "start"),
            (-9, 4, "end"),
            (0, -10, "middle"),
            (0, 19, "middle"),
        ):
            start = x(p.x) + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (start, y(p.y) + dy - 11, start + width, y(p.y) + dy + 3)
            inside = box[0] >= x.start_px and box[2] <= figure.width_px and box[1] > 14
            inside = inside and box[3] < PLOT_BOTTOM_PX
            if inside and not any(_meet(box, other) for other in taken):
                figure.text(x(p.x) + dx, y(p.y) + dy, p.label, anchor=anchor, css="on-top")
                taken.append(box)
                written.add(p.label)
                break


Box = tuple[float, float, float, float]


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _tail(share: float) -> float:
    """Height of a share: every nine as high as the one before, all of them a bit above the last."""
    return -math.log10(max(1 - share, 10**-2.4))
