"""Two encoders timed against each other on this machine's CPU, in turns."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

_NARROW = 0.06
"""Of the interval of the ratio: enough to tell five percent from none."""


@dataclass(frozen=True, kw_only=True)
class PairedLatency:
    """How long one takes beside the other. Inside the clock: array in to array out, batch 1."""

    base_ms: float
    """Median of the first."""
    other_ms: float
    """Median of the second."""
    ratio: float
    """Median over the rounds of second by first: below one, the second is faster."""
    ratio_low: float
    """Lower end of the 95 % interval of that median."""
    ratio_high: float
    """Upper end."""
    rounds: int
    """Calls of each, in turns."""
    threads: int
    """CPU threads each may use."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return asdict(self)


def paired_latency(
    base: Callable[[], object],
    other: Callable[[], object],
    *,
    threads: int,
    rounds: int = 60,
    max_rounds: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> PairedLatency:
    """Time two calls in turns, so that a machine that slows down slows both.

    Who goes first changes every round. The interval of the median needs no assumption about the
    distribution: it lies between two of the sorted ratios (binomial, normal approximation).

    Args:
        base: one inference of the first.
        other: one inference of the second.
        threads: what both were given; recorded.
        rounds: calls of each, at least 8; an eighth more are made first and not counted.
        max_rounds: on a busy machine rounds are doubled up to this many, until the interval is
            narrower than 0.06; by default eight times as many.
        clock: seconds.

    Returns:
        Medians and the ratio with its spread.
    """
    for warmup in range(max(rounds // 8, 2)):
        for call in (base, other) if warmup % 2 else (other, base):
            call()
    most = 8 * rounds if max_rounds is None else max_rounds
    took: list[list[float]] = []
    while True:
        for n in range(len(took), max(rounds, 2 * len(took))):
            pair = [0.0, 0.0]
            for which in (0, 1) if n % 2 else (1, 0):
                began_s = clock()
                (base, other)[which]()
                pair[which] = clock() - began_s
            took.append(pair)
        found = summarise(np.array(took), threads=threads)
        if found.ratio_high - found.ratio_low < _NARROW or 2 * len(took) > most:
            return found


def summarise(took_s: F64, *, threads: int) -> PairedLatency:
    """Medians of paired times.

    Args:
        took_s: (R, 2) seconds of the first and the second, round by round.
        threads: recorded.
    """
    rounds = len(took_s)
    ratios = np.sort(took_s[:, 1] / took_s[:, 0])
    reach = 1.96 * math.sqrt(rounds) / 2
    low = max(math.floor(rounds / 2 - reach) - 1, 0)
    high = min(math.ceil(rounds / 2 + reach), rounds - 1)
    base_ms, other_ms = np.median(took_s, axis=0) * 1e3
    return PairedLatency(
        base_ms=float(base_ms),
        other_ms=float(other_ms),
        ratio=float(np.median(ratios)),
        ratio_low=float(ratios[low]),
        ratio_high=float(ratios[high]),
        rounds=rounds,
        threads=threads,
    )
