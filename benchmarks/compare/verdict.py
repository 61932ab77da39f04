"""What two files of measurements say: slower, faster, no difference shown, or too few runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.compare.bootstrap import CONFIDENCE, Median, holm, least_p, paired_bootstrap
from benchmarks.compare.bootstrap import pairs_needed as pairs_for
from benchmarks.compare.metrics import Metric
from benchmarks.compare.pairing import Paired, Pairs, label_of
from benchmarks.rows import Provenance, provenance
from edge_runtime.errors import InputError

Verdict = Literal["slower", "faster", "worse", "better", "no difference shown", "too few runs"]
ALPHA = 1 - CONFIDENCE
LEAST_PAIRS = 6
"""Five pairs lie on one side once in 16 times by chance: no rule makes more of them."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """The smallest differences that matter."""

    ratio: float = 0.02
    """Of times, rates and sizes: 0.02 is 2 %."""
    difference: float = 0.01
    """Of shares and cosines: 0.01 is one in a hundred."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, value in (("tolerance", self.ratio), ("quality tolerance", self.difference)):
            if not 0 <= value < 1:
                msg = f"{name} is {value}; expected 0 or more and less than 1, as 0.02 for 2 %"
                raise InputError(msg)

    def of(self, metric: Metric) -> float:
        """On the scale on which pairs are subtracted."""
        return math.log1p(self.ratio) if metric.scale == "ratio" else self.difference


@dataclass(frozen=True, kw_only=True)
class ComparisonRow(Provenance):
    """One metric of one key, before and after."""

    kind: Literal["comparison"] = "comparison"
    what: str
    """That was measured."""
    metric: str
    scale: Literal["ratio", "difference"]
    pairs: int
    unpaired: int
    pairs_needed: int
    """To show a difference among so many comparisons."""
    before: float
    """Median over the pairs."""
    after: float
    change: float
    """Median over the pairs of after / before, or of after - before."""
    low: float
    """Lower end of its 95 % interval, for this comparison alone."""
    high: float
    tolerance: float
    comparisons: int
    """Made at a time; p_value is corrected for them (Holm)."""
    p_value: float | None
    """Of "the change is within the tolerance"; None with too few pairs to take part."""
    verdict: Verdict
    notes: tuple[str, ...]

    @property
    def regression(self) -> bool:
        """Whether it got worse."""
        return self.verdict in ("slower", "worse")


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A comparison before its verdict."""

    pairs: Pairs
    metric: Metric
    before: tuple[float, ...]
    after: tuple[float, ...]
    differences: Median

    @property
    def p_value(self) -> float:
        """The smaller one of both directions; each is two-sided already."""
        return min(self.differences.p_above, self.differences.p_below)


def compare(
    paired: Paired, metrics: Sequence[Metric], *, tolerance: Tolerance | None = None, seed: int = 0
) -> list[ComparisonRow]:
    """Judge every metric of every key.

    A change counts when it is beyond the tolerance with a p-value below 0.05 after Holm's
    correction for all comparisons that have enough pairs to take part.

    Args:
        paired: matched rows.
        metrics: to compare; keys whose rows lack one are left out of it.
        tolerance: smallest differences that matter.
        seed: of the bootstrap.

    Raises:
        InputError: no row has any of the metrics.
    """
    tolerance = tolerance or Tolerance()
    found = [
        one
        for pairs in paired.pairs
        for metric in metrics
        if (one := _candidate(pairs, metric, tolerance.of(metric), seed)) is not None
    ]
    if not found:
        names = ", ".join(metric.name for metric in metrics)
        msg = f"no pair of rows has {names}; compare something that was measured (--metric)"
        raise InputError(msg)
    judged = [k for k, one in enumerate(found) if len(one.before) >= LEAST_PAIRS]
    p_values = dict(zip(judged, holm([found[k].p_value for k in judged]), strict=True))
    made_by = provenance()
    return [
        _row(one, tolerance, made_by, p_value=p_values.get(k), comparisons=max(1, len(judged)))
        for k, one in enumerate(found)
    ]


def _candidate(pairs: Pairs, metric: Metric, limit: float, seed: int) -> _Candidate | None:
    both: list[tuple[float, float]] = []
    for old, new in zip(pairs.before, pairs.after, strict=True):
        before, after = metric.of(old), metric.of(new)
        if before is None or after is None:
            continue
        if metric.scale == "ratio" and not (before > 0 and after > 0):
            continue  # A time of 0 was not measured.
        both.append((before, after))
    if not both:
        return None
    ratio = metric.scale == "ratio"
    apart = [math.log(after / before) if ratio else after - before for before, after in both]
    return _Candidate(
        pairs=pairs,
        metric=metric,
        before=tuple(before for before, _ in both),
        after=tuple(after for _, after in both),
        differences=paired_bootstrap(apart, limit=limit, seed=seed),
    )


def _row(
    one: _Candidate,
    tolerance: Tolerance,
    made_by: dict[str, Any],
    *,
    p_value: float | None,
    comparisons: int,
) -> ComparisonRow:
    metric, found = one.metric, one.differences
    back = math.exp if metric.scale == "ratio" else float
    n = len(one.before)
    unused = len(one.pairs.before) - n
    lacking = (f"{unused} pairs without {metric.name}",) if unused else ()
    return ComparisonRow(
        **made_by,
        what=label_of(one.pairs.key),
        metric=metric.name,
        scale=metric.scale,
        pairs=n,
        unpaired=one.pairs.unpaired,
        pairs_needed=max(LEAST_PAIRS, pairs_for(comparisons)),
        before=float(np.median(one.before)),
        after=float(np.median(one.after)),
        change=back(found.estimate),
        low=back(found.low),
        high=back(found.high),
        tolerance=tolerance.ratio if metric.scale == "ratio" else tolerance.difference,
        comparisons=comparisons,
        p_value=p_value,
        verdict=_verdict(one, p_value, comparisons),
        notes=(*one.pairs.notes, *lacking),
    )


def _verdict(one: _Candidate, p_value: float | None, comparisons: int) -> Verdict:
    if p_value is None:
        return "too few runs"
    if p_value >= ALPHA:
        able = least_p(len(one.before)) * comparisons <= ALPHA
        return "no difference shown" if able else "too few runs"
    higher = one.differences.p_above <= one.differences.p_below
    if higher == one.metric.lower_is_better:
        return "slower" if one.metric.speed else "worse"
    return "faster" if one.metric.speed else "better"
