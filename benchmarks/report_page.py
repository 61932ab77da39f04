"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from benchmarks.accuracy import WITHIN_95
from benchmarks.intervals import percentile
from benchmarks.report_accuracy import accuracy_section
from benchmarks.report_latency import latency_section, stage_times_ms
from benchmarks.report_map import STATUS_NAMES, jpeg_uri, status_css
from benchmarks.report_style import STYLE
from benchmarks.report_text import DASH, join, plural
from benchmarks.scored_flight import Flight
from benchmarks.tables import counted, metres, milliseconds, percent, seconds
from train.svg_plots import Mark, error_over_time

if TYPE_CHECKING:
    from benchmarks.report import ReportData
    from benchmarks.report_examples import Example


def page(data: ReportData) -> str:
    """The whole page."""
    parts = [
        _header(data),
        _tiles(data),
        *(_flight(data, k) for k in range(len(data.flights))),
        accuracy_section(data),
        _examples(data.examples),
        latency_section(data),
        _provenance(data),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(data.title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{join(parts)}\n</body>\n</html>\n"
    )


def _header(data: ReportData) -> str:
    frames = data.overall.frames
    flights = len(data.flights)
    what = "drone positions" if data.score == "drone" else "look points"
    return (
        f"<header><h1>{escape(data.title)}</h1>"
        f"<p>{plural(flights, 'flight')}, {plural(frames, 'frame')}, each answered from its "
        f"picture and the satellite imagery on board, without GNSS. Errors are those of {what}. "
        f"Every frame counts: an abstention is no success.</p></header><main>"
    )


def _tiles(data: ReportData) -> str:
    row = data.overall
    total = [t for f in data.flights if (t := stage_times_ms(f.fixes, "total"))]
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
        facts.append(plural(fix.inliers, "inlier"))
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


def _interval(value: Any) -> str:
    return f"{100 * value.low:.0f}{DASH}{100 * value.high:.0f} %"
