"""How sure the median of paired differences is: the paired bootstrap, and Holm's correction.

Which bootstrap was chosen by trying: 400 made-up experiments each of 6, 10 and 30 pairs whose
differences are as heavy-tailed as those of real runs. The 95 % interval held the truth in

    pairs                  6      10      30
    median, percentile   .94     .93     .95
    median, BCa          .93     .93     .95
    mean, percentile     .84     .89     .92
    mean, BCa            .81     .84     .89

The mean of few heavy-tailed numbers does not know what it has not seen, and BCa's correction, made
from the same numbers, makes that worse. So: the median, with percentiles (Efron and Tibshirani
1993, An Introduction to the Bootstrap, section 13.3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError

F64 = npt.NDArray[np.float64]

RESAMPLES = 20_000
"""Gives p-values down to 1e-4, which a matrix of some hundred rows asks for."""
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Median:
    """The median of differences, with its interval."""

    estimate: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    p_above: float
    """Two-sided p-value of "the median is not above the limit"; see `paired_bootstrap`."""
    p_below: float
    """The same of "the median is not below minus the limit"."""


def paired_bootstrap(differences: Sequence[float], *, limit: float = 0.0, seed: int = 0) -> Median:
    """Resample pairs with replacement and take the median each time.

    A p-value is twice the share of resampled medians on the wrong side of the limit, and never
    smaller than 2 * 2**-n: with n pairs it happens that often that all lie on one side by chance
    (the sign test), however far.

    Args:
        differences: (n,) of pairs, after minus before.
        limit: smallest difference that matters, not negative.
        seed: of the resampling.

    Raises:
        InputError: no differences, one is not finite, or the limit is negative.
    """
    values: F64 = np.asarray(differences, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or not limit >= 0:
        msg = (
            f"{values.shape} differences and a limit of {limit}; expected at least one difference, "
            "all finite, and a limit of 0 or more"
        )
        raise InputError(msg)
    medians = _resampled_medians(np.sort(values), np.random.default_rng(seed))
    low, high = np.quantile(medians, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Median(
        estimate=float(np.median(values)),
        low=float(low),
        high=float(high),
        p_above=_p_value(int((medians <= limit).sum()), len(values)),
        p_below=_p_value(int((medians >= -limit).sum()), len(values)),
    )


def least_p(pairs: int) -> float:
    """The smallest p-value that so many pairs can have."""
    return float(min(1.0, 2.0 ** (1 - pairs)))


def pairs_needed(comparisons: int, *, alpha: float = 1 - CONFIDENCE) -> int:
    """Fewest pairs with which one of so many comparisons can show a difference.

    Raises:
        InputError: fewer than one comparison, or alpha outside (0, 1).
    """
    if comparisons < 1 or not 0 < alpha < 1:
        msg = f"{comparisons} comparisons at {alpha}; expected at least one, and within (0, 1)"
        raise InputError(msg)
    pairs = 1
    while least_p(pairs) * comparisons > alpha:
        pairs += 1
    return pairs


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979, Scand. J. Statist. 6:65-70).

    The chance that any of those below 0.05 is a false alarm is at most 5 %, however the
    measurements depend on each other.
    """
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[k]))
        corrected[k] = highest
    return corrected


def _resampled_medians(ordered: F64, rng: np.random.Generator) -> F64:
    """(RESAMPLES,) medians of draws with replacement.

    Draws are sorted by rank, not by value: small integers sort seven times as fast.
    """
    n = len(ordered)
    kind = np.uint16 if n < 2**16 else np.int64
    ranks = np.sort(rng.integers(0, n, (RESAMPLES, n), dtype=kind), axis=1)
    medians: F64 = (ordered[ranks[:, (n - 1) // 2]] + ordered[ranks[:, n // 2]]) / 2
    return medians


def _p_value(wrong_side: int, pairs: int) -> float:
    # One more in both: resampled medians cannot show less than one in so many.
    return float(min(1.0, max(2 * (wrong_side + 1) / (RESAMPLES + 1), least_p(pairs))))
