"""Calls in stages, each with its own device work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from benchmarks.clock_cost import CLOCK_NS, ClockNs
from benchmarks.time_summary import TimeSummary, time_summary
from edge_runtime.errors import InputError

Synchronise: TypeAlias = Callable[[], object]
"""Returns when the device has finished all that it was given, as `torch.cuda.synchronize`."""


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
