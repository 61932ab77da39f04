"""Shares with their uncertainty, and percentiles that were really measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_runtime.errors import InputError

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How often something happened, and how sure that share is.

    The interval takes the frames as independent. Frames of one flight are not, so it is too narrow
    there: read it as the least uncertainty the number has.
    """

    count: int
    """Times it happened."""
    n: int
    """Times it could have happened."""
    share: float | None
    """count / n, 0..1; None when n is 0."""
    low: float
    """Lower end of the Wilson 95 % interval, 0..1."""
    high: float
    """Upper end of it, 0..1."""


def rate(count: int, n: int) -> Rate:
    """Count over n with its Wilson 95 % interval.

    Raises:
        InputError: count is not within 0..n.
    """
    low, high = wilson_interval(count, n)
    return Rate(count=count, n=n, share=count / n if n else None, low=low, high=high)


def wilson_interval(count: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """The score interval of a binomial share (Wilson 1927, JASA 22:209-212).

    Args:
        count: successes.
        n: trials; 0 gives the interval (0, 1).
        z: normal quantile; 95 % by default.

    Raises:
        InputError: count is not within 0..n.
    """
    if not 0 <= count <= n:
        msg = f"{count} successes in {n} trials; expected a count within 0..{n}"
        raise InputError(msg)
    if n == 0:
        return 0.0, 1.0
    p, z2 = count / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == n else min(1.0, centre + half)
    return low, high


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile: the smallest value that at least `percent` % do not exceed.

    It is always one of the values; nothing is interpolated, so a p99 is a time that was measured.

    Raises:
        InputError: no values, a value that is not finite, or a percentage outside (0, 100].
    """
    ordered = np.sort(np.asarray(values, np.float64))
    if len(ordered) == 0 or not np.isfinite(ordered).all():
        msg = f"percentile of {len(ordered)} values; expected at least one, and all finite"
        raise InputError(msg)
    if not 0 < percent <= 100:
        msg = f"percentile {percent} is outside (0, 100]"
        raise InputError(msg)
    rank = math.ceil(round(percent / 100 * len(ordered), 9))
    return float(ordered[max(rank, 1) - 1])
