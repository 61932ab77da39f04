"""The report's section on accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.accuracy import within
from benchmarks.report_text import DASH, NO_BREAK
from benchmarks.scored_flight import Flight
from benchmarks.tables import accuracy_lines
from train.svg_plots import Curve, Observed, error_distribution, reliability

if TYPE_CHECKING:
    from benchmarks.report import ReportData

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6827, 0.8, 0.9, 0.95, 0.99)
"""Confidences at which claimed accuracy is compared with errors."""


def accuracy_section(data: ReportData) -> str:
    """How far off, how honest, and all metrics."""
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
