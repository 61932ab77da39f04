"""Which measurements share a figure, and what is written under it."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from benchmarks.measurement import MeasurementRow, Quality
from benchmarks.results_page.columns import runtime_name
from benchmarks.results_page.plots import (
    PLOT_BOTTOM_PX,
    PLOT_TOP_PX,
    Point,
    Times,
    distribution,
    over_time,
    pareto,
)
from benchmarks.results_page.sources import Measured, machine_name
from benchmarks.results_page.style import SHAPES, runtime_css, sample
from benchmarks.results_page.written import cosine, percent, significant
from train.svg_plots import Axis

_LEAST_COSINE_LOSS = 1e-6
"""Rows hold six digits, so nothing below can be told from 0."""


def distributions(measured: Sequence[Measured]) -> str:
    """One figure for each machine, encoder, size, batch and protocol: a curve for each runtime."""
    names = [m.row.runtime for m in measured]
    several = len({machine_name(m.row.machine) for m in measured}) > 1
    groups: dict[tuple[Any, ...], list[Measured]] = {}
    for m in measured:
        row = m.row
        key = (machine_name(row.machine), row.encoder, row.height_px, row.width_px, row.batch)
        groups.setdefault((*key, row.protocol), []).append(m)
    figures = []
    for (machine, encoder, height, width, batch, protocol), found in groups.items():
        curves, items = [], []
        for m in found:
            row, t = m.row, m.row.time
            name = _name(row, found)
            css = f"{runtime_css(row.runtime, names)} {row.precision}"
            curves.append(Times(name, css, t.percentiles_ms, t.first_ms))
            first = "" if t.first_ms is None else f", first call {significant(t.first_ms)}"
            items.append(
                f"<li>{sample(css, SHAPES.get(row.precision, 'circle'))}<b>{escape(name)}</b> "
                f"{significant(t.p50_ms)}, slowest {significant(t.max_ms)}{first}</li>"
            )
        of = f"{encoder}, {height} \N{MULTIPLICATION SIGN} {width} px, batch {batch}"
        of += "" if protocol == "latency" else f", {protocol}"
        where = f"<br><small>{escape(machine)}</small>" if several else ""
        title = f"Times of calls of {of}"
        figures.append(
            f"<figure><h3>{escape(of)}{where}</h3>{distribution(curves, title=title)}"
            f'<figcaption><ul class="numbers">{"".join(items)}</ul></figcaption></figure>'
        )
    return f'<div class="pair">{"".join(figures)}</div>'


def qualities(measured: Sequence[Measured]) -> str:
    """Quality over time: one figure for each measure that some row has; empty where none has."""
    single = [m for m in measured if m.row.quality and m.row.batch == 1 and not m.row.fallback]
    figures = []
    for group in _by_data(single):
        quality = group[0].row.quality
        assert quality is not None
        about = f"{quality.data}; {quality.pictures} pictures, {quality.gallery:,} tiles"
        of_share: tuple[tuple[str, Callable[[Quality], float | None]], ...] = (
            ("Most similar tile within 20 m of the truth", lambda q: q.success_20m),
            ("Most similar tile is the right one", lambda q: q.recall_at_1),
        )
        for name, of in of_share:
            if any(of(m.row.quality) is not None for m in group if m.row.quality):
                figures.append(_shares(group, name, of, about))
        figures.append(_cosines(group, about))
    if not figures:
        return ""
    keys = _legend(single)
    return f'{keys}<div class="pair">{"".join(figures)}</div>'


def searches(rows: Sequence[dict[str, Any]]) -> str:
    """Recall over time of searches: one figure for each size of map and task."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("recall_at_10") is not None:
            key = (row["tiles"], row["dimensions"], row["task"], row["queries_per_call"])
            groups.setdefault(key, []).append(row)
    contenders = sorted({str(row["contender"]) for row in rows})
    figures = []
    for (tiles, dimensions, task, batch), found in groups.items():
        points = [
            Point(
                x=row["p50_ms"],
                y=row["recall_at_10"],
                label=str(row["contender"]),
                said=f"{row['contender']}, {str(row['stored_as']).partition(', {')[0]}: "
                f"{significant(row['p50_ms'])} ms, recall@10 {percent(row['recall_at_10'])}",
                css=f"r{contenders.index(str(row['contender'])) % 8 + 1}",
                line=str(row["contender"]),
            )
            for row in found
        ]
        title = f"{str(task).capitalize()}, {tiles:,} tiles of {dimensions} numbers"
        title += f", {batch} queries a call" if batch > 1 else ""
        y, ticks = _share_axis([p.y for p in points])
        picture = over_time(
            points, title=title, y_label="recall@10", y=y, y_ticks=ticks, front=pareto(points)
        )
        figures.append(f"<figure><h3>{escape(title)}</h3>{picture}</figure>")
    return f'<div class="pair">{"".join(figures)}</div>' if figures else ""


def _by_data(measured: Sequence[Measured]) -> list[list[Measured]]:
    """Rows whose qualities can be compared: one machine, the same pictures and tiles."""
    groups: dict[tuple[Any, ...], list[Measured]] = {}
    for m in measured:
        if (q := m.row.quality) is not None:
            key = (machine_name(m.row.machine), q.data, q.pictures, q.gallery, m.row.protocol)
            groups.setdefault(key, []).append(m)
    return list(groups.values())


def _shares(
    group: Sequence[Measured], name: str, of: Callable[[Quality], float | None], about: str
) -> str:
    points = []
    for m in group:
        value = None if m.row.quality is None else of(m.row.quality)
        if value is not None:
            points.append(_point(m, group, value, percent(value)))
    y, ticks = _share_axis([p.y for p in points])
    picture = over_time(
        points, title=name, y_label="share of queries", y=y, y_ticks=ticks, front=pareto(points)
    )
    return _figure(name, picture, f"{about}. Dashed: what no other row beats in both.")


def _cosines(group: Sequence[Measured], about: str) -> str:
    """Distance from the reference, turned over, so that better is up here too."""
    name = "Nearness to the reference"
    points = []
    for m in group:
        assert m.row.quality is not None
        value = m.row.quality.min_cosine
        said = f"worst cosine {cosine(value)}"
        points.append(_point(m, group, max(1 - value, _LEAST_COSINE_LOSS), said))
    highest = max(*(p.y for p in points), 10 * _LEAST_COSINE_LOSS)
    y = Axis(
        low=_LEAST_COSINE_LOSS / 1.5,
        high=10.0 ** math.ceil(math.log10(highest) - 1e-9),
        start_px=PLOT_TOP_PX,
        end_px=PLOT_BOTTOM_PX,
        log=True,
    )
    powers = range(round(math.log10(_LEAST_COSINE_LOSS)), round(math.log10(y.high)) + 1)
    ticks = [(10.0**k, f"{10.0**k:g}" if k > -4 else f"1e{k}") for k in powers]
    picture = over_time(
        points, title=name, y_label="1 \N{MINUS SIGN} cosine, worst picture", y=y, y_ticks=ticks
    )
    references = sorted({m.row.quality.reference for m in group if m.row.quality})
    return _figure(name, picture, f"To {', '.join(references)}; 1e-6 and less at the top. {about}.")


def _point(m: Measured, group: Sequence[Measured], value: float, said: str) -> Point:
    row = m.row
    about = f"{row.encoder}, {runtime_name(row)} {row.precision}"
    return Point(
        x=row.time.p50_ms,
        y=value,
        label=row.encoder,
        said=f"{about}: {significant(row.time.p50_ms)} ms, {said}",
        css=runtime_css(row.runtime, [o.row.runtime for o in group]),
        shape=SHAPES.get(row.precision, "circle"),
    )


def _share_axis(shares: Sequence[float]) -> tuple[Axis, list[tuple[float, str]]]:
    """From a round share below all of them to all; differences near 1 stay visible."""
    room = next(
        r for r in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if 1 - min(shares) <= 0.9 * r or r == 1
    )
    y = Axis(low=1 - room, high=1, start_px=PLOT_BOTTOM_PX, end_px=PLOT_TOP_PX)
    return y, [(1 - room * k / 5, f"{100 * (1 - room * k / 5):.4g} %") for k in range(6)]


def _legend(measured: Sequence[Measured]) -> str:
    runtimes = list(dict.fromkeys(m.row.runtime for m in measured))
    keys = "".join(
        f'<li><i class="key {runtime_css(name, runtimes)}"></i>{escape(name)}</li>'
        for name in runtimes
    )
    precisions = list(dict.fromkeys(m.row.precision for m in measured))
    marks = "".join(
        f"<li>{sample('r1 ' + p, SHAPES.get(p, 'circle'))}{escape(p)}</li>" for p in precisions
    )
    return f'<ul class="legend">{keys}{marks}</ul>'


def _figure(name: str, picture: str, caption: str) -> str:
    said = f"<figcaption>{escape(caption)}</figcaption>"
    return f"<figure><h3>{escape(name)}</h3>{picture}{said}</figure>"


def _name(row: MeasurementRow, among: Sequence[Measured]) -> str:
    """A runtime and what tells it from the others of its figure."""
    parts = [row.runtime, row.precision]
    if len({m.row.threads for m in among if m.row.runtime == row.runtime}) > 1:
        parts.append(f"{row.threads} threads")
    if len({m.row.git_commit for m in among}) > 1 and row.git_commit:
        parts.append(row.git_commit)
    if row.note and sum(m.row.runtime == row.runtime for m in among) > 1:
        parts.append(row.note)
    if row.fallback:
        parts.append("(something else ran)")
    return " ".join(parts)
