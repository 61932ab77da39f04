"""Plots as SVG text: small, sharp on any screen, coloured by the page's style sheet.

Every function returns one `<svg>` with a title and a description for readers who cannot see it.
Colours are CSS classes (`s-ok`, `s-abstain`, `c0`...), so light and dark follow the page. Marks are
zero-length strokes that do not scale, so they stay visible when a figure shrinks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

FONT_PX = 13
"""Size of labels at the width a figure is drawn for."""
_MOST_DOTS = 30
"""Up to so many points of a line chart's curve are shown as dots too."""


class Curve(NamedTuple):
    """A named line."""

    name: str
    css: str
    """CSS class of its colour."""
    points: Sequence[tuple[float, float]]


class Mark(NamedTuple):
    """One frame in a plot over time."""

    t_s: float
    error_m: float | None
    """None where there is nothing to draw but the status."""
    radius_95_m: float | None
    """95 % radius that the record claims."""
    css: str
    """CSS class of its status."""


class StackedBar(NamedTuple):
    """A bar made of parts."""

    label: str
    parts: Sequence[tuple[str, float]]
    """(CSS class, length), in order."""
    text: str
    """Written at its end."""


class Observed(NamedTuple):
    """How often something held that should hold with some probability."""

    claimed: float
    share: float
    low: float
    high: float


class Level(NamedTuple):
    """A value that a chart's curves are compared with."""

    value: float
    label: str
    above: bool = False
    """Named above the right end of its line, not below the left."""


class Stretch(NamedTuple):
    """A part of the strip under a chart."""

    css: str
    """CSS class of its colour."""
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Maps values to pixels, linearly or by logarithm; values beyond its ends are put on them."""

    low: float
    high: float
    start_px: float
    end_px: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        clamped = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(clamped / self.low) / math.log(self.high / self.low)
        else:
            share = (clamped - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start_px + share * (self.end_px - self.start_px), 1)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values within the axis, at most about `most`."""
        if self.log and self.high >= 10 * self.low:
            # Powers of ten alone would leave a short axis almost bare.
            between = (1,) if self.high >= 100 * self.low else (1, 2, 5)
            powers = range(math.floor(math.log10(self.low)), 20)
            values = [m * 10.0**k for k in powers for m in between]
            within = self.low * (1 - 1e-9), self.high * (1 + 1e-9)
            return [v for v in values if within[0] <= v <= within[1]]
        span = (self.high - self.low) or 1.0
        raw = span / most
        magnitude = 10.0 ** math.floor(math.log10(raw))
        step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]


def error_over_time(marks: Sequence[Mark], *, title: str, width_px: int) -> str:
    """Error of every frame over time on a logarithmic scale, above a strip with every status.

    The band reaches up to the 95 % radius the records claim; lines mark 5, 20 and 50 m.
    """
    height, left, right, top, strip = 300, 46, 38, 10, 10
    bottom = height - 52
    errors = [m.error_m for m in marks if m.error_m is not None]
    radii = [m.radius_95_m for m in marks if m.radius_95_m is not None]
    highest = max([100.0, *(1.3 * e for e in errors), *radii])
    lowest = min([0.5, *(max(e, 0.05) for e in errors)])
    low = 10.0 ** math.floor(math.log10(lowest))
    y = Axis(low=low, high=highest, start_px=bottom, end_px=top, log=True)
    t0, t1 = min(m.t_s for m in marks), max(m.t_s for m in marks)
    pad = 0.01 * (t1 - t0) or 1.0
    x = Axis(low=t0 - pad, high=t1 + pad, start_px=left, end_px=width_px - right)
    end = x.end_px
    parts = [_band(marks, x, y)]
    for value in y.ticks():
        parts.append(_line("grid", left, y(value), end, y(value)))
        parts.append(_text(left - 6, y(value) + 4, _number(value), anchor="end"))
    for value in (5.0, 20.0, 50.0):
        parts.append(_line("ref", left, y(value), end, y(value)))
        parts.append(_text(end + 5, y(value) + 4, f"{value:g} m", css="ref-label"))
    strip_top = bottom + 6
    half = (end - left) / max(len(marks), 1) / 2
    for css, first, last in _runs(marks):
        x1, x2 = x(first.t_s) - half, x(last.t_s) + half
        parts.append(
            f'<rect class="f {css}" x="{x1:.1f}" y="{strip_top}" '
            f'width="{max(x2 - x1, 1.5):.1f}" height="{strip}"/>'
        )
    for css in dict.fromkeys(m.css for m in marks):
        dots = "".join(
            f"M{x(m.t_s)} {y(m.error_m)}h0" for m in marks if m.css == css and m.error_m is not None
        )
        if dots:
            parts.append(f'<path class="dots {css}" d="{dots}"/>')
    for value in x.ticks(8 if width_px > 600 else 4):
        parts.append(_text(x(value), bottom + 32, _number(value), anchor="middle"))
    parts.append(_text((left + end) / 2, height - 3, "time, s", anchor="middle"))
    parts.append(_text(-(top + bottom) / 2, 12, "error, m", anchor="middle", turn=True))
    kinds = ", ".join(
        f"{sum(m.css == css for m in marks)} {css.removeprefix('s-')}"
        for css in dict.fromkeys(m.css for m in marks)
    )
    return _svg(width_px, height, title, f"{len(marks)} frames: {kinds}.", parts)


def error_distribution(curves: Sequence[Curve], *, title: str, width_px: int = 480) -> str:
    """Share of all frames that are answered with at most some error; unanswered ones never are.

    Args:
        curves: (error in metres, share of all frames 0..1), ascending.
        title: of the figure.
        width_px: it is drawn for.
    """
    height, left, right, top = 320, 62, 16, 10
    bottom = height - 44
    ends = [p[0] for c in curves for p in c.points]
    high = 10.0 ** math.ceil(math.log10(max([100.0, *ends])) - 1e-9)
    x = Axis(low=0.1, high=high, start_px=left, end_px=width_px - right, log=True)
    y = Axis(low=0, high=1, start_px=bottom, end_px=top)
    parts = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_line("grid", left, y(value), x.end_px, y(value)))
        parts.append(_text(left - 6, y(value) + 4, f"{100 * value:.0f} %", anchor="end"))
    for value in x.ticks():
        parts.append(_line("grid", x(value), top, x(value), bottom))
        parts.append(_text(x(value), bottom + 18, _number(value), anchor="middle"))
    for value in (5.0, 20.0, 50.0):
        parts.append(_line("ref", x(value), top, x(value), bottom))
        parts.append(_text(x(value) + 3, bottom - 5, f"{value:g}", css="ref-label"))
    for curve in curves:
        path = f"M{x.start_px} {y(0)}"
        for error, reached in curve.points:
            path += f"H{x(error)}V{y(reached)}"
        parts.append(f'<path class="line {curve.css}" d="{path}H{x.end_px}"/>')
    parts.append(_text((left + x.end_px) / 2, height - 4, "error, m", anchor="middle"))
    parts.append(_text(-(top + bottom) / 2, 12, "share of all frames", anchor="middle", turn=True))
    said = " ".join(
        f"{c.name}: {100 * (c.points[-1][1] if c.points else 0):.0f} % answered." for c in curves
    )
    return _svg(width_px, height, title, said, parts)


def reliability(observed: Sequence[Observed], *, title: str, width_px: int = 480) -> str:
    """How often errors lie within each confidence's radius; honest accuracy is the diagonal."""
    height, left, right, top = 320, 62, 16, 10
    bottom = height - 44
    x = Axis(low=0, high=1, start_px=left, end_px=width_px - right)
    y = Axis(low=0, high=1, start_px=bottom, end_px=top)
    parts = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_line("grid", left, y(value), x.end_px, y(value)))
        parts.append(_line("grid", x(value), top, x(value), bottom))
        parts.append(_text(left - 6, y(value) + 4, f"{100 * value:.0f} %", anchor="end"))
        parts.append(_text(x(value), bottom + 18, f"{100 * value:.0f} %", anchor="middle"))
    parts.append(_line("ref", x(0), y(0), x(1), y(1)))
    if observed:
        upper = [f"{x(o.claimed)} {y(o.high)}" for o in observed]
        lower = [f"{x(o.claimed)} {y(o.low)}" for o in reversed(observed)]
        parts.append(f'<path class="band" d="M{"L".join(upper + lower)}Z"/>')
        line = "L".join(f"{x(o.claimed)} {y(o.share)}" for o in observed)
        parts.append(f'<path class="line c0" d="M{line}"/>')
        named = [o for o in observed if round(o.claimed, 2) in (0.68, 0.95)]
        cautious = all(o.share >= o.claimed for o in named)
        for k, o in enumerate(named):
            parts.append(f'<path class="dots c0" d="M{x(o.claimed)} {y(o.share)}h0"/>')
            label = f"{100 * o.claimed:.0f} % radius: {100 * o.share:.0f} % of errors"
            at, anchor = (x.end_px - 10, "end") if cautious else (left + 10, "start")
            row = bottom - 34 + 20 * k if cautious else top + 22 + 20 * k
            parts.append(_text(at, row, label, anchor=anchor, css="strong"))
    parts.append(_text((left + x.end_px) / 2, height - 4, "claimed confidence", anchor="middle"))
    parts.append(
        _text(-(top + bottom) / 2, 12, "errors within its radius", anchor="middle", turn=True)
    )
    said = " ".join(
        f"{100 * o.share:.0f} % of errors lie within the {100 * o.claimed:.0f} % radius."
        for o in observed
        if round(o.claimed, 2) in (0.68, 0.95)
    )
    return _svg(width_px, height, title, said, parts)


def line_chart(
    curves: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_span: tuple[float, float],
    y_span: tuple[float, float],
    log: bool = False,
    tick: Callable[[float], str] | None = None,
    levels: Sequence[Level] = (),
    strip: Sequence[Stretch] = (),
    to_come: float | None = None,
    width_px: int = 480,
    height_px: int = 270,
) -> str:
    """Curves over epochs or steps.

    Args:
        curves: points ascending in x; one that is not finite interrupts the line. Curves of few
            points show each; a class `faint` beside the colour keeps a curve in the background.
        title: of the figure.
        x_label: what the horizontal axis counts, in whole numbers where it spans more than a few.
        y_label: what the vertical axis shows, with its unit.
        x_span: ends of the horizontal axis.
        y_span: ends of the vertical axis; above 0 where it is logarithmic.
        log: whether the vertical axis is logarithmic.
        tick: how its values are written.
        levels: drawn as dashed lines.
        strip: colours under the chart.
        to_come: from here on there is nothing yet, and it looks so.
        width_px: it is drawn for.
        height_px: without the strip.
    """
    tick = tick or _number
    left, right, top = 68, 14, 12
    height = height_px + (14 if strip else 0)
    bottom = height_px - 44
    x = Axis(low=x_span[0], high=x_span[1], start_px=left, end_px=width_px - right)
    y = Axis(low=y_span[0], high=y_span[1], start_px=bottom, end_px=top, log=log)
    end = x.end_px
    parts = []
    for value in y.ticks(5):
        parts.append(_line("grid", left, y(value), end, y(value)))
        parts.append(_text(left - 6, y(value) + 4, tick(value), anchor="end"))
    if to_come is not None and to_come < x.high:
        start = x(to_come)
        parts.append(
            f'<rect class="to-come" x="{start}" y="{top}" width="{end - start:.1f}" '
            f'height="{bottom - top}"/>'
        )
        if end - start > 5 * FONT_PX:
            middle = (start + end) / 2
            parts.append(_text(middle, (top + bottom) / 2, "to come", anchor="middle"))
    for level in levels:
        parts.append(_line("ref", left, y(level.value), end, y(level.value)))
    for curve in curves:
        d = _path(curve.points, x, y)
        parts.append(f'<path class="line {curve.css}" d="{d}"/>' if d else "")
        finite = [p for p in curve.points if math.isfinite(p[1])]
        if len(finite) <= _MOST_DOTS and "faint" not in curve.css.split():
            dots = "".join(f"M{x(a)} {y(b)}h0" for a, b in finite)
            parts.append(f'<path class="dots {curve.css}" d="{dots}"/>' if dots else "")
    for level in levels:
        at, anchor, down = (end - 4, "end", -5) if level.above else (left + 6, "start", 14)
        parts.append(_text(at, y(level.value) + down, level.label, anchor=anchor, css="on-top"))
    for stretch in strip:
        x1, x2 = x(stretch.low), x(stretch.high)
        # The gap shows where one stretch ends and another of the same colour begins.
        parts.append(
            f'<rect class="f {stretch.css}" x="{x1}" y="{bottom + 5}" '
            f'width="{max(x2 - x1 - 1.2, 0.8):.1f}" height="9"/>'
        )
    ticks = x.ticks(10 if width_px > 600 else 6)
    if x.high - x.low > 3:
        ticks = [value for value in ticks if value == round(value)]
    for value in ticks:
        parts.append(
            _text(x(value), bottom + (32 if strip else 18), _number(value), anchor="middle")
        )
    parts.append(_text((left + end) / 2, height - 4, x_label, anchor="middle"))
    parts.append(_text(-(top + bottom) / 2, 12, y_label, anchor="middle", turn=True))
    said = " ".join(
        f"{c.name}: {tick(known[0])} at first, {tick(known[-1])} at last."
        for c in curves
        if (known := [v for _, v in c.points if math.isfinite(v)])
    )
    said += "".join(f" {level.label}." for level in levels)
    return _svg(width_px, height, title, said, parts)


def thinned(points: Sequence[tuple[float, float]], most: int = 800) -> list[tuple[float, float]]:
    """At most about so many of the points, with every lowest and highest value along the way.

    A curve of a hundred thousand steps is drawn on a thousand pixels: each pixel keeps the ends of
    what happened in it, so no spike is lost.
    """
    if len(points) <= most:
        return list(points)
    kept = []
    buckets = most // 2
    for k in range(buckets):
        first, last = len(points) * k // buckets, len(points) * (k + 1) // buckets
        rows = range(first, last)
        ends = {min(rows, key=lambda n: points[n][1]), max(rows, key=lambda n: points[n][1])}
        kept += [points[n] for n in sorted(ends)]
    return kept


def stacked_bars(bars: Sequence[StackedBar], *, title: str, width_px: int = 480) -> str:
    """Horizontal bars made of parts, on one scale from zero."""
    row, left, right, top = 40, 48, 74, 4
    height = top + row * len(bars) + 40
    longest = max((sum(v for _, v in bar.parts) for bar in bars), default=1.0) or 1.0
    x = Axis(low=0, high=longest, start_px=left, end_px=width_px - right)
    bottom = top + row * len(bars)
    parts = []
    for value in x.ticks(4):
        parts.append(_line("grid", x(value), top, x(value), bottom))
        parts.append(_text(x(value), bottom + 16, _number(value), anchor="middle"))
    for k, bar in enumerate(bars):
        y = top + row * k + 7
        parts.append(_text(left - 8, y + 18, bar.label, anchor="end"))
        start = 0.0
        for css, length in bar.parts:
            parts.append(
                f'<rect class="f {css}" x="{x(start)}" y="{y}" '
                f'width="{max(x(start + length) - x(start), 0):.1f}" height="26"/>'
            )
            start += length
        parts.append(_text(x(start) + 7, y + 18, bar.text, css="strong"))
    parts.append(_text((left + x.end_px) / 2, height - 4, "ms", anchor="middle"))
    said = " ".join(f"{bar.label}: {bar.text}." for bar in bars)
    return _svg(width_px, height, title, said, parts)


def _runs(marks: Sequence[Mark]) -> list[tuple[str, Mark, Mark]]:
    """Stretches of equal status: (CSS class, first, last)."""
    runs: list[tuple[str, Mark, Mark]] = []
    for mark in marks:
        if runs and runs[-1][0] == mark.css:
            runs[-1] = (mark.css, runs[-1][1], mark)
        else:
            runs.append((mark.css, mark, mark))
    return runs


def _band(marks: Sequence[Mark], x: Axis, y: Axis) -> str:
    """The claimed 95 % radius, one area per run of frames that have one."""
    runs: list[list[Mark]] = [[]]
    for mark in marks:
        if mark.radius_95_m is None:
            runs.append([])
        else:
            runs[-1].append(mark)
    path = ""
    for run in runs:
        if run:
            top = "L".join(f"{x(m.t_s)} {y(m.radius_95_m or 0)}" for m in run)
            path += f"M{x(run[0].t_s)} {y.start_px}L{top}L{x(run[-1].t_s)} {y.start_px}Z"
    return f'<path class="band" d="{path}"/>' if path else ""


def _svg(width_px: float, height_px: float, title: str, said: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width_px:g} {height_px:g}" role="img" '
        f'aria-label="{escape(f"{title}. {said}", quote=True)}" font-size="{FONT_PX}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _line(css: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="{css}" d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", css: str = "", turn: bool = False
) -> str:
    turned = ' transform="rotate(-90)"' if turn else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}"{turned}>'
        f"{escape(text)}</text>"
    )


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """A line through the points, interrupted where one is not finite."""
    path, pen = "", "M"
    for at, value in points:
        if math.isfinite(value):
            path += f"{pen}{x(at)} {y(value)}"
            pen = "L"
        else:
            pen = "M"
    return path


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"
