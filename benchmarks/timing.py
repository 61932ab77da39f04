"""Time calls one by one: warm-up, first call, stages, device work that has really finished.

What is inside the clock: the call and, where a `synchronise` hook is given, waiting for the work
that the call left on a device. Python's garbage collector stays on, as in flight; a call's result
is freed outside the clock. Every timed call counts: nothing is clipped, trimmed or averaged.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.intervals import percentile
from benchmarks.time_summary import TimeSummary, time_summary
from edge_runtime.errors import InputError

ClockNs: TypeAlias = Callable[[], int]
"""A monotonic clock, nanoseconds."""
Synchronise: TypeAlias = Callable[[], object]
"""Returns when the device has finished all that it was given, as `torch.cuda.synchronize`."""
Call: TypeAlias = Callable[[int], object]
"""What is timed. It gets the number of the call, warm-up included, to take other data each time."""

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


class StageTimes:
    """Splits calls into stages. Not thread-safe; stages do not nest.

    With a `synchronise` hook each boundary waits for the device, so a stage holds its own device
    work and no other's. That takes the overlap of host and device away: calls with stages are
    slower than calls without, so a row's total is timed without them.

    A stage's time starts after the boundary's clock read and ends before the next one, all of them
    whole nanoseconds of one clock, so stages never add up to more than their call.

        stages = StageTimes(synchronise=torch.cuda.synchronize)
        with stages.call():
            with stages.stage("host-to-device"):
                images = images.cuda()
            with stages.stage("GPU"):
                embeddings = model(images)
    """

    def __init__(
        self, *, synchronise: Synchronise | None = None, clock_ns: ClockNs = CLOCK_NS
    ) -> None:
        """Prepare to time.

        Args:
            synchronise: called inside the clock at each boundary.
            clock_ns: a monotonic clock, nanoseconds.
        """
        self._synchronise, self._clock_ns = synchronise, clock_ns
        self._open: dict[str, int] | None = None
        self._in_stage = ""
        self.calls_ns: list[int] = []
        """Total of every call, in order."""
        self.stages_ns: list[dict[str, int]] = []
        """Time of every stage, call by call; a stage that came twice in a call has the sum."""

    @contextmanager
    def call(self) -> Iterator[None]:
        """One call, within which stages are timed. A call that raises is not kept."""
        if self._open is not None:
            msg = "a call is being timed already; expected calls one after the other"
            raise InputError(msg)
        self._open = {}
        try:
            self._wait()  # Work from before does not belong to this call.
            start_ns = self._clock_ns()
            yield
            self._wait()
            total_ns = self._clock_ns() - start_ns
            self.calls_ns.append(total_ns)
            self.stages_ns.append(self._open)
        finally:
            self._open = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One stage of the call.

        Raises:
            InputError: outside of a call, or within another stage.
        """
        if self._open is None or self._in_stage:
            where = f"within stage {self._in_stage!r}" if self._in_stage else "outside of a call"
            msg = f"stage {name!r} begins {where}; expected it within a call, after other stages"
            raise InputError(msg)
        self._in_stage = name
        try:
            self._wait()  # What was begun before this stage is not its work.
            start_ns = self._clock_ns()
            yield
            self._wait()
            spent_ns = self._clock_ns() - start_ns
            self._open[name] = self._open.get(name, 0) + spent_ns
        finally:
            self._in_stage = ""

    def clear(self) -> None:
        """Forget all calls, as after a warm-up."""
        self.calls_ns.clear()
        self.stages_ns.clear()

    def summaries(self, *, warmup: int = 0) -> dict[str, TimeSummary]:
        """Each stage over the calls that had it, in order of appearance, then "total".

        Args:
            warmup: calls before those that are kept.

        Raises:
            InputError: no call was timed.
        """
        names = dict.fromkeys(name for call in self.stages_ns for name in call)
        times = {
            name: [call[name] / 1e6 for call in self.stages_ns if name in call] for name in names
        }
        times["total"] = [ns / 1e6 for ns in self.calls_ns]
        return {name: time_summary(found, warmup=warmup) for name, found in times.items()}

    def _wait(self) -> None:
        if self._synchronise is not None:
            self._synchronise()


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
