"""Time calls one by one: warm-up, first call, device work that has really finished.

What is inside the clock: the call and, where a `synchronise` hook is given, waiting for the work
that the call left on a device. Python's garbage collector stays on, as in flight; a call's result
is freed outside the clock. Every timed call counts: nothing is clipped, trimmed or averaged.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.clock_cost import CLOCK_NS, ClockNs
from benchmarks.stage_times import Synchronise
from benchmarks.time_summary import TimeSummary, time_summary
from edge_runtime.errors import InputError

Call: TypeAlias = Callable[[int], object]
"""What is timed. It gets the number of the call, warm-up included, to take other data each time."""


@dataclass(frozen=True, kw_only=True)
class TimedCalls:
    """Times of calls that followed each other, in order."""

    first_ms: float
    """The very first call, warm-up or not."""
    warmup: int
    """Calls before the timed ones."""
    calls_ms: tuple[float, ...]
    """Every timed call."""
    wall_s: float
    """From the start of the first timed call to the end of the last."""

    def summary(
        self, *, items_per_call: float = 1.0, deadline_ms: float | None = None
    ) -> TimeSummary:
        """Percentiles and the rest; see `time_summary`."""
        return time_summary(
            self.calls_ms,
            warmup=self.warmup,
            first_ms=self.first_ms,
            items_per_call=items_per_call,
            wall_s=self.wall_s,
            deadline_ms=deadline_ms,
        )


def timed_calls(
    call: Call,
    *,
    calls: int,
    warmup: int = 10,
    warmup_s: float = 0.0,
    synchronise: Synchronise | None = None,
    clock_ns: ClockNs = CLOCK_NS,
) -> TimedCalls:
    """Time a number of calls.

    Args:
        call: gets 0, 1, 2, … over warm-up and timed calls.
        calls: timed ones, at least 1.
        warmup: calls before them, at least so many; 0 counts the first call among the timed.
        warmup_s: seconds before them, at least so many.
        synchronise: called after each call, inside the clock.
        clock_ns: a monotonic clock, nanoseconds.

    Raises:
        InputError: no call, or a warm-up below zero.
    """
    return timed_for(
        call,
        seconds=0.0,
        least_calls=calls,
        warmup=warmup,
        warmup_s=warmup_s,
        synchronise=synchronise,
        clock_ns=clock_ns,
    )


def timed_for(
    call: Call,
    *,
    seconds: float,
    least_calls: int = 1,
    warmup: int = 10,
    warmup_s: float = 0.0,
    synchronise: Synchronise | None = None,
    clock_ns: ClockNs = CLOCK_NS,
) -> TimedCalls:
    """Time calls until a duration has passed and a number is reached, whichever comes later.

    The call that crosses the end counts: leaving it out would favour the short ones.

    Args:
        call: gets 0, 1, 2, … over warm-up and timed calls.
        seconds: from the start of the first timed call.
        least_calls: timed ones, at least 1.
        warmup: calls before them, at least so many; 0 counts the first call among the timed.
        warmup_s: seconds before them, at least so many.
        synchronise: called after each call, inside the clock.
        clock_ns: a monotonic clock, nanoseconds.

    Raises:
        InputError: no call, a warm-up below zero, or a duration that is negative or not finite.
    """
    if least_calls < 1 or warmup < 0:
        msg = f"{least_calls} calls after {warmup} for warm-up; expected at least 1 after 0 or more"
        raise InputError(msg)
    for name, value in (("seconds", seconds), ("warmup_s", warmup_s)):
        if not (math.isfinite(value) and value >= 0):
            msg = f"{name} is {value}; expected a number of seconds, 0 or more"
            raise InputError(msg)
    clock = _CallClock(call, synchronise, clock_ns)
    before = _run(clock, least=warmup, seconds=warmup_s) if warmup or warmup_s else []
    timed = _run(clock, least=least_calls, seconds=seconds)
    spans = [*before, *timed]
    return TimedCalls(
        first_ms=_ms(spans[0]),
        warmup=len(before),
        calls_ms=tuple(_ms(span) for span in timed),
        wall_s=(timed[-1][1] - timed[0][0]) / 1e9,
    )


class _CallClock:
    """Makes the next call and says when it started and ended."""

    def __init__(self, call: Call, synchronise: Synchronise | None, clock_ns: ClockNs) -> None:
        self._call, self._synchronise, self._clock_ns = call, synchronise, clock_ns
        self._number = 0
        if synchronise is not None:
            synchronise()  # Work from before does not belong to the first call.

    def next(self) -> tuple[int, int]:
        """(start, end) of the call, nanoseconds."""
        call, synchronise, clock_ns = self._call, self._synchronise, self._clock_ns
        number = self._number
        self._number += 1
        start_ns = clock_ns()
        result = call(number)
        if synchronise is not None:
            synchronise()
        end_ns = clock_ns()
        del result  # Freeing it is not the call's work.
        return start_ns, end_ns


def _run(clock: _CallClock, *, least: int, seconds: float) -> list[tuple[int, int]]:
    spans = [clock.next()]
    while len(spans) < least or spans[-1][1] - spans[0][0] < seconds * 1e9:
        spans.append(clock.next())
    return spans


def _ms(span: tuple[int, int]) -> float:
    return (span[1] - span[0]) / 1e6
