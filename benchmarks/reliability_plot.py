"""Stated against real accuracy as one offline page, before and after calibration."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from benchmarks.accuracy import WITHIN_68, WITHIN_95
from benchmarks.calibration_fit import LEVELS, Errors, RadiusFit, independent_errors
from benchmarks.intervals import wilson_interval
from benchmarks.report_style import STYLE
from edge_runtime.calibration import Abstain, Calibration
from train.svg_plots import Curve, Level, Observed, line_chart, reliability

_CLAIMS = np.arange(1, 100) / 100
_BINS = 8


def reliability_page(
    flights: Sequence[Errors],
    fits: Sequence[RadiusFit],
    calibration: Calibration,
    *,
    abstain: Abstain | None,
) -> str:
    """An HTML page.

    Args:
        flights: with truth.
        fits: one each, of the other flights where there are several.
        calibration: of all of them.
        abstain: threshold that was chosen, if any.
    """
    plain = RadiusFit(factor=1.0, floor_m=0.0)
    before = reliability(
        observed(flights, [plain] * len(flights)), title="As the error model states it"
    )
    after = reliability(observed(flights, fits), title="After calibration, on flights not fitted")
    unseen = calibration.unseen or calibration.fitted
    rows = "".join(
        f"<tr><td>{escape(f.name)}</td><td>{len(f.right.error_m)}</td>"
        f"<td>{_share(f, plain, 0)}</td><td>{_share(f, plain, 1)}</td>"
        f"<td>{_share(f, fit, 0)}</td><td>{_share(f, fit, 1)}</td></tr>"
        for f, fit in zip(flights, fits, strict=True)
    )
    beliefs = "".join(
        f"<tr><td>{step.ok_probability:g}</td><td>{step.trials}</td><td>{step.false}</td>"
        f"<td>{100 * step.at_most:.2f} %</td></tr>"
        for step in calibration.belief
    )
    chosen = ""
    if abstain is not None:
        chosen = (
            f"<p>Chosen threshold: {abstain.ok_probability:g}; false answers are at most "
            f"{100 * abstain.at_most:.2f} % of stretches"
            f"{'' if abstain.proven else ', which is more than was asked for: fly more'}.</p>"
        )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Stated accuracy</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{STYLE}
.pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 2rem; }}
h2, table + p {{ margin-top: 2rem; }}
</style></head><body><main>
<h1>Stated accuracy of index {escape(calibration.index_id)}</h1>
<p>eph = hypot({calibration.floor_m:g} m, {calibration.factor:g} &times; stated), fitted to
{calibration.fitted.answers} answers of {calibration.fitted.flights} flights
({escape(calibration.truth)};
about {calibration.fitted.independent:.0f} independent errors). On flights it was not fitted to,
{100 * unseen.within_68:.1f} % of errors lie within the 68 % radius and
{100 * unseen.within_95:.1f} % within the 95 % radius. Bands: 95 % interval of that many
independent errors.</p>
<div class="pair"><figure>{before}<figcaption>Before</figcaption></figure>
<figure>{after}<figcaption>After, each flight with the fit of the others</figcaption></figure>
<figure><ul class="legend"><li><span class="key c0"></span>68 %</li>
<li><span class="key c2"></span>95 %</li></ul>
{_by_stated(flights, fits)}<figcaption>Real radii by stated accuracy; honest ones lie on the
dashed level 1</figcaption></figure></div>
<h2>By flight</h2>
<table><thead><tr><th>flight</th><th>answers</th><th>68 % before</th><th>95 % before</th>
<th>68 % after</th><th>95 % after</th></tr></thead><tbody>{rows}</tbody></table>
<h2>By belief</h2>
<p>Stretches of flight with an answer, and those with a false one (more than 50 m off).</p>
<table><thead><tr><th>threshold</th><th>answered</th><th>false</th><th>at most (95 %)</th></tr>
</thead><tbody>{beliefs}</tbody></table>{chosen}
</main></body></html>
"""


def observed(flights: Sequence[Errors], fits: Sequence[RadiusFit]) -> list[Observed]:
    """Share of errors within the radius of every confidence, with a binomial band.

    The radius of confidence p of a round normal error is sqrt(-2 ln(1 - p)) in 1-sigma per axis.
    The band is that of independent errors, of which there are fewer than frames.
    """
    kept = [f.right for f in flights]
    scores = np.concatenate(
        [f.error_m / fit.eph_m(f.stated_m) for f, fit in zip(kept, fits, strict=True)]
    )
    independent = max(round(sum(independent_errors(f) for f in kept)), 1)
    claims = sorted({0.6827, *(c for c in _CLAIMS.tolist() if round(c, 2) != 0.68)})
    found = []
    for claim in claims:
        share = float(np.mean(scores <= math.sqrt(-2 * math.log(1 - claim))))
        low, high = wilson_interval(round(share * independent), independent)
        found.append(Observed(claim, share, min(low, share), max(high, share)))
    return found


def _by_stated(flights: Sequence[Errors], fits: Sequence[RadiusFit]) -> str:
    """Quantiles of error over calibrated radius, along the stated accuracy."""
    kept = [f.right for f in flights]
    eph = np.concatenate([fit.eph_m(f.stated_m) for f, fit in zip(kept, fits, strict=True)])
    error = np.concatenate([f.error_m for f in kept])
    order = np.argsort(eph, kind="stable")
    groups = [g for g in np.array_split(order, _BINS) if len(g)]
    curves = []
    for css, name, (share, sigmas) in (
        ("c0", "68 %", (LEVELS[0][0], WITHIN_68)),
        ("c2", "95 %", (LEVELS[1][0], WITHIN_95)),
    ):
        points = [
            (float(np.median(eph[g])), float(np.quantile(error[g] / eph[g], share) / sigmas))
            for g in groups
        ]
        curves.append(Curve(name, css, points))
    ends = float(np.median(eph[groups[0]])), float(np.median(eph[groups[-1]]))
    top = max(2.0, *(y for c in curves for _, y in c.points))
    return line_chart(
        curves,
        title="Real over stated radius, 68 % and 95 %",
        x_label="stated 1-sigma error, m",
        y_label="real over stated radius",
        x_span=(ends[0], max(ends[1], ends[0] + 0.1)),
        y_span=(0.0, top),
        levels=[Level(1.0, "honest")],
    )


def _share(flight: Errors, fit: RadiusFit, level: int) -> str:
    right = flight.right
    if not len(right.error_m):
        return "-"
    inside = right.error_m <= LEVELS[level][1] * fit.eph_m(right.stated_m)
    return f"{100 * float(np.mean(inside)):.1f} %"
