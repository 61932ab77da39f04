"""What a series of timed calls comes to: percentiles, first call, jitter, drift, misses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.intervals import percentile
from edge_runtime.errors import InputError

_LEAST_FOR_DRIFT = 20
"""Calls below which a first and a last window say nothing."""


@dataclass(frozen=True, kw_only=True)
class TimeSummary:
    """Times of calls that followed each other. Nothing is clipped; percentiles were measured."""

    n: int
    """Timed calls."""
    warmup: int
    """Calls before them that do not count."""
    first_ms: float | None
    """The very first call, warm-up or not; None where it was not timed."""
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    mean_ms: float
    jitter_ms: float
    """Median difference between a call and the next, without its sign."""
    drift: float | None
    """Median of the last quarter over that of the first; None for fewer than 20 calls."""
    deadline_ms: float | None
    deadline_misses: int
    """Calls that took longer than the deadline; 0 without one."""
    throughput_per_s: float
    """Items a second while calls ran one after the other."""
    percentiles_ms: tuple[float, ...]
    """101 nearest-rank percentiles, the least time first: the whole distribution, for plots."""


def time_summary(
    times_ms: Sequence[float],
    *,
    warmup: int = 0,
    first_ms: float | None = None,
    items_per_call: float = 1.0,
    wall_s: float | None = None,
    deadline_ms: float | None = None,
) -> TimeSummary:
    """Sum up the times of calls, in the order in which they were made.

    Args:
        times_ms: of every timed call.
        warmup: calls before them.
        first_ms: of the very first call.
        items_per_call: images or frames in each.
        wall_s: from the first timed call's start to the last one's end; the sum of the calls
            where it is not given.
        deadline_ms: what a call may take.

    Raises:
        InputError: no call, or a time that is negative or not finite.
    """
    times = np.asarray(times_ms, np.float64)
    if not len(times) or not np.isfinite(times).all() or (times < 0).any():
        msg = f"{len(times)} times, {list(times[:3])}…; expected at least one, none below 0 ms"
        raise InputError(msg)
    quarter = len(times) // 4
    drift = None
    if len(times) >= _LEAST_FOR_DRIFT:
        first, last = float(np.median(times[:quarter])), float(np.median(times[-quarter:]))
        drift = last / first if first > 0 else None
    total_s = wall_s if wall_s is not None else float(times.sum()) / 1e3
    return TimeSummary(
        n=len(times),
        warmup=warmup,
        first_ms=first_ms,
        p50_ms=percentile(times_ms, 50),
        p90_ms=percentile(times_ms, 90),
        p95_ms=percentile(times_ms, 95),
        p99_ms=percentile(times_ms, 99),
        max_ms=float(times.max()),
        mean_ms=float(times.mean()),
        jitter_ms=float(np.median(np.abs(np.diff(times)))) if len(times) > 1 else 0.0,
        drift=drift,
        deadline_ms=deadline_ms,
        deadline_misses=0 if deadline_ms is None else int((times > deadline_ms).sum()),
        throughput_per_s=len(times) * items_per_call / max(total_s, 1e-9),
        percentiles_ms=(float(times.min()), *(percentile(times_ms, q) for q in range(1, 101))),
    )
