"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.accuracy import WITHIN_95, Flight, within
from benchmarks.intervals import percentile
from benchmarks.latency import device_of
from benchmarks.report_map import STATUS_NAMES, jpeg_uri, status_css
from benchmarks.report_style import STYLE
from benchmarks.tables import (
    accuracy_lines,
    counted,
    metres,
    milliseconds,
    percent,
    seconds,
)
from edge_runtime.fix import STAGES, Fix
from train.svg_plots import (
    Curve,
    Mark,
    Observed,
    StackedBar,
    error_distribution,
    error_over_time,
    reliability,
    stacked_bars,
)

if TYPE_CHECKING:
    from benchmarks.report import ReportData
    from benchmarks.report_examples import Example

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6827, 0.8, 0.9, 0.95, 0.99)
"""Confidences at which claimed accuracy is compared with errors."""
DASH = "\N{EN DASH}"
NO_BREAK = "\N{NO-BREAK SPACE}"
STAGE_NAMES = {
    "capture": "capture",
    "ground_view": "ground view",
    "encode": "encode",
    "search": "search",
    "refine": "refine",
    "track": "track",
    "other": "other",
}


def page(data: ReportData) -> str:
    """The whole page."""
    parts = [
        _header(data),
        _tiles(data),
        *(_flight(data, k) for k in range(len(data.flights))),
        _accuracy(data),
        _examples(data.examples),
        _latency(data),
        _provenance(data),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(data.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{_join(parts)}\n</body>\n</html>\n"
    )


def _header(data: ReportData) -> str:
    frames = data.overall.frames
    flights = len(data.flights)
    what = "drone positions" if data.score == "drone" else "look points"
    return (
        f"<header><h1>{escape(data.title)}</h1>"
        f"<p>{_plural(flights, 'flight')}, {_plural(frames, 'frame')}, each answered from its "
        f"picture and the satellite imagery on board, without GNSS. Errors are those of {what}. "
        f"Every frame counts: an abstention is no success.</p></header><main>"
    )


def _tiles(data: ReportData) -> str:
    row = data.overall
    total = [t for f in data.flights if (t := _times(f.fixes, "total"))]
    total_ms = [t for times in total for t in times]
    tiles = []
    if data.retrieval is not None:
        tiles.append(
            (
                "Held-out R@1",
                percent(data.retrieval.r_at_1),
                f"first tile is right, of {data.retrieval.gallery:,} tiles",
            )
        )
    else:
        tiles.append(
            (
                "Answered",
                percent(row.answered.share or 0.0),
                f"{row.answered.count} of {row.frames} frames",
            )
        )
    tiles.append(("Median error", metres(row.median_error_m), "of answered frames"))
    tiles += [
        (
            f"Within {d} m",
            percent(row.success[d].share or 0.0),
            f"of all frames; 95 %: {_interval(row.success[d])}",
        )
        for d in ("5", "20", "50")
    ]
    tiles += [
        (
            "Abstained",
            percent(row.abstained.share or 0.0),
            f"{row.abstained.count} of {row.frames} frames; lost {row.lost.count}, "
            f"dead reckoning {row.degraded.count}",
        ),
        (
            "False fixes",
            str(row.false_fixes.count),
            f"answers > {row.false_fix_m:g} m off; at most "
            f"{100 * row.false_fixes.high:.1f} % by 95 % interval",
        ),
    ]
    if total_ms:
        tiles.append(
            (
                "Time per frame",
                f"{milliseconds(percentile(total_ms, 50))} ms",
                f"median; p99 {milliseconds(percentile(total_ms, 99))} ms",
            )
        )
    cells = "".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd><b>{escape(value)}</b>'
        f"<span>{escape(note)}</span></dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _flight(data: ReportData, k: int) -> str:
    flight, row = data.flights[k], data.rows[k]
    marks = _marks(flight, data)
    shown = [css for css in STATUS_NAMES if any(m.css == css for m in marks)]
    legend = "".join(
        f'<li><i class="key {css}"></i>{escape(STATUS_NAMES[css])} '
        f"<small>{sum(m.css == css for m in marks)}</small></li>"
        for css in shown
    )
    circle = '<li><i class="key circle"></i>95 % accuracy</li>' if data.score == "drone" else ""
    band = (
        "The band reaches to the 95 % radius that the fix claims. " if data.score == "drone" else ""
    )
    plots = "".join(
        f'<div class="{css}">'
        + error_over_time(marks, title=f"Error over time, {flight.name}", width_px=width)
        + "</div>"
        for css, width in (("wide", 1040), ("narrow", 420))
    )
    lead = (
        f"Median error {metres(row.median_error_m)}, 95th percentile {metres(row.p95_error_m)}; "
        f"{row.answered.count} of {row.frames} frames answered, the first after "
        f"{seconds(row.first_ok_s)}; false fixes: {counted(row.false_fixes)}."
    )
    heading = escape(flight.name.replace("_", " ").capitalize())
    return (
        f"<section><h2>{heading}</h2><p>{escape(lead)}</p>"
        f"<figure>{data.maps[k]}<figcaption><ul class='legend'>"
        f'<li><i class="key line"></i>true track</li>{legend}{circle}</ul></figcaption></figure>'
        f"<figure>{plots}<figcaption>Error of every position, on a logarithmic scale. {band}The "
        "strip under it shows the status of every frame, with the colours of the "
        "map.</figcaption></figure></section>"
    )


def _accuracy(data: ReportData) -> str:
    several = len(data.flights) > 1
    curves = [
        Curve(flight.name, f"c{k % 6 + 1}" if several else "c0", _distribution(flight))
        for k, flight in enumerate(data.flights)
    ]
    names = "".join(
        f'<li><i class="key line {c.css}"></i>{escape(c.name.replace("_", " "))}</li>'
        for c in curves
    )
    legend = f"<ul class='legend'>{names}</ul>" if several else ""
    distribution = (
        f"<figure><h3>How far off</h3>{error_distribution(curves, title='Errors of all frames')}"
        f"<figcaption>{legend}Share of all frames answered with at most this error. What is "
        "missing to 100 % was not answered.</figcaption></figure>"
    )
    observed = _observed(data.flights) if data.score == "drone" else []
    if observed:
        calibration = (
            "<figure><h3>Is the accuracy honest?</h3>"
            f"{reliability(observed, title='Claimed and observed accuracy')}"
            f"<figcaption>Above the dashed line the claimed accuracy is cautious, below it is too "
            f"bold. Band: Wilson 95 % interval over {data.overall.answered.count} answers."
            "</figcaption></figure>"
        )
    else:
        calibration = ""
    head = "".join(f'<th scope="col">{escape(r.flight)}</th>' for r in data.rows)
    body = "".join(
        f'<tr><th scope="row">{escape(name.replace(" m", NO_BREAK + "m"))}</th>'
        + "".join(f"<td>{_cell(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, cells in accuracy_lines(data.rows)
    )
    table = (
        '<div class="scroll" tabindex="0"><table><caption>All metrics. Shares are over all frames, '
        "with their Wilson 95 % interval, which takes frames as independent; those of one flight "
        f"are not, so it is the least uncertainty there is.</caption><thead><tr><td></td>{head}"
        f"</tr></thead><tbody>{body}</tbody></table></div>"
    )
    if not calibration and not several:
        return f'<section><h2>Accuracy</h2><div class="pair">{distribution}{table}</div></section>'
    return (
        f'<section><h2>Accuracy</h2><div class="pair">{distribution}{calibration}</div>'
        f"{table}</section>"
    )


def _examples(shown: Sequence[Example]) -> str:
    if not shown:
        return ""
    cards = "".join(_card(example) for example in shown)
    return (
        "<section><h2>Matches</h2><p>Left what the camera saw, right the satellite imagery where "
        "it was found, turned to the same heading. Ring: where it was found; cross: the truth.</p>"
        f'<div class="cards">{cards}</div></section>'
    )


def _card(example: Example) -> str:
    attempt, fix = example.attempt, example.attempt.fix
    facts = []
    if attempt.error_m is not None:
        facts.append(f"error {metres(attempt.error_m)}")
    if fix is not None:
        if fix.ncc is not None:
            facts.append(f"correlation {fix.ncc:.2f}")
        facts.append(_plural(fix.inliers, "inlier"))
        facts.append(f"status {fix.status}" + (f": {fix.reason}" if fix.reason else ""))
    frame = attempt.truth.frame
    where = "at the true place" if example.at_truth else "at the place found"
    height, width = example.frame.shape[:2]
    size = f'width="{width}" height="{height}" loading="lazy"'
    north = (
        f'<svg class="north small" viewBox="-20 -20 40 40" aria-hidden="true">'
        f'<path transform="rotate({-example.heading_deg:.0f})" d="M0 -15L8 10L0 5L-8 10Z"/></svg>'
    )
    return (
        f'<figure class="card"><div class="two"><div><img {size} '
        f'alt="Camera frame {escape(frame, quote=True)}" src="{jpeg_uri(example.frame, 80)}"></div>'
        f'<div class="map"><img {size} alt="Satellite imagery {where}" '
        f'src="{jpeg_uri(example.imagery, 80)}">{north}</div></div>'
        f"<figcaption><b>{escape(example.what.capitalize())}</b> "
        f"{escape(', '.join(facts))}. <small>{escape(example.flight)}, {escape(frame)}"
        f"{'; imagery shown at the true place' if example.at_truth else ''}</small></figcaption>"
        "</figure>"
    )


def _latency(data: ReportData) -> str:
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
        late = f" {_plural(missed, 'frame')} missed the deadline." if missed else ""
        rows = "".join(
            f'<tr><th scope="row">{escape(STAGE_NAMES.get(s, s))}</th>'
            + "".join(
                f"<td>{milliseconds(percentile(times, p))}</td>"
                for times in [_times(timed, s)]
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
            f"{_plural(len(timed), 'frame')}, by nearest rank, nothing left out. Percentiles of "
            f"stages do not add up to those of the total.</caption><thead><tr><td></td>{head}</tr>"
            f"</thead><tbody>{rows}</tbody></table></div></div>"
        )
    if data.latency:
        blocks.append(_backend_table(data.latency))
    return f"<section><h2>Latency</h2>{_join(blocks)}</section>"


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


def _provenance(data: ReportData) -> str:
    row = data.overall
    entries = [
        ("Encoder bundle", row.bundle_id or "unknown"),
        ("Index", f"{data.index.id}, {data.tiles:,} tiles, made {data.index.created_utc}"),
        ("Ran on", ", ".join(t for t in (row.backend, row.engine_id) if t) or "unknown"),
        (
            "Logs",
            "; ".join(
                f"{r.flight} (sha256 {r.logs_sha256[0][:12]})"
                for r in data.rows[: len(data.flights)]
            ),
        ),
        (
            "Scored",
            f"{data.score} positions against the truth, false fix beyond {data.false_fix_m:g} m",
        ),
        (
            "Made by",
            f"skyfix {row.skyfix_version}, commit {row.git_commit or 'unknown'}, "
            f"{row.measured_utc}",
        ),
    ]
    listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in entries)
    command = f"<pre><code>{escape(data.command_line)}</code></pre>" if data.command_line else ""
    return f"</main><footer><h2>Where this comes from</h2><dl>{listed}</dl>{command}</footer>"


_RANKS = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("max", 100.0))


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


def _times(fixes: Iterable[Fix], stage: str) -> list[float]:
    return [fix.latency_ms[stage] for fix in fixes if stage in fix.latency_ms]


def _marks(flight: Flight, data: ReportData) -> list[Mark]:
    first = next((a.t_s for a in flight.attempts if a.t_s is not None), 0.0) or 0.0
    marks = []
    for k, attempt in enumerate(flight.attempts):
        claims = attempt.fix is not None and attempt.error_m is not None and data.score == "drone"
        eph = attempt.fix.eph_m if claims and attempt.fix else None
        marks.append(
            Mark(
                t_s=float(k) if attempt.t_s is None else attempt.t_s - first,
                error_m=attempt.error_m,
                radius_95_m=None if eph is None else WITHIN_95 * eph,
                css=status_css(attempt, data.false_fix_m),
            )
        )
    return marks


def _distribution(flight: Flight) -> list[tuple[float, float]]:
    """(error, share of all frames) at no more than 300 errors."""
    errors = np.sort([a.ok_error_m for a in flight.attempts if a.answered])
    if len(errors) == 0:
        return []
    ranks = np.unique(np.linspace(1, len(errors), min(len(errors), 300)).round().astype(int))
    n = len(flight.attempts)
    return [(float(errors[r - 1]), float(r / n)) for r in ranks]


def _observed(flights: Sequence[Flight]) -> list[Observed]:
    attempts = [a for flight in flights for a in flight.attempts]
    observed = []
    for level in LEVELS:
        found = within(attempts, math.sqrt(-2 * math.log(1 - level)))
        if found.share is None:
            return []
        observed.append(Observed(level, found.share, found.low, found.high))
    return observed


def _interval(value: Any) -> str:
    return f"{100 * value.low:.0f}{DASH}{100 * value.high:.0f} %"


def _cell(text: str) -> str:
    """Terminal text as a table cell: the interval set smaller, with a typographer's dash."""
    if text == "-":
        return DASH
    value, _, interval = text.partition(" (")
    if not interval:
        return escape(value)
    return f"{escape(value)} <small>{escape(_typeset(interval))}</small>"


def _typeset(interval: str) -> str:
    return interval.rstrip(")").replace("-", DASH).replace("at most ", "\N{LESS-THAN OR EQUAL TO} ")


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _join(parts: Iterable[str]) -> str:
    return "\n".join(part for part in parts if part)
