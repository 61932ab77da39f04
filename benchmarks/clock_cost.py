"""What reading the clock costs, and when a row has to say so."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.intervals import percentile
from edge_runtime.errors import InputError

ClockNs: TypeAlias = Callable[[], int]
"""A monotonic clock, nanoseconds."""

CLOCK_NS: ClockNs = time.perf_counter_ns
WORTH_SAYING = 0.01
"""Share of a median above which a row says what its clock costs."""


@dataclass(frozen=True, kw_only=True)
class ClockCost:
    """What reading the clock takes: every time that it measures is too long by about one read."""

    p50_ns: float
    """Median time between two reads in a row."""
    p99_ns: float
    resolution_ns: int
    """Smallest step seen that is not zero."""

    def note(self, p50_ms: float) -> str:
        """A sentence for a row; empty where the clock is too cheap or fine to matter.

        Args:
            p50_ms: median of what was timed.
        """
        cost_ns = max(self.p50_ns, float(self.resolution_ns))
        if cost_ns <= WORTH_SAYING * p50_ms * 1e6:
            return ""
        return (
            f"reading the clock takes {self.p50_ns:.0f} ns (p99 {self.p99_ns:.0f}, steps of "
            f"{self.resolution_ns}), more than {WORTH_SAYING:.0%} of the median"
        )


def clock_cost_ns(*, reads: int = 10_000, clock_ns: ClockNs = CLOCK_NS) -> ClockCost:
    """Read the clock again and again, now and here.

    Args:
        reads: how often, at least 2.
        clock_ns: the clock, nanoseconds.

    Raises:
        InputError: the clock stands still or goes backwards.
    """
    times = [clock_ns() for _ in range(max(reads, 2))]
    steps = [after - before for before, after in itertools.pairwise(times)]
    if min(steps) < 0 or max(steps) == 0:
        msg = (
            f"{len(times)} reads of the clock are {min(steps)} to {max(steps)} ns apart; "
            "expected a monotonic clock that runs"
        )
        raise InputError(msg)
    return ClockCost(
        p50_ns=percentile(steps, 50),
        p99_ns=percentile(steps, 99),
        resolution_ns=min(step for step in steps if step > 0),
    )
