"""Energy from power that is read again and again: the integral over time, by trapezoids."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from edge_runtime.errors import InputError


class Consumed(NamedTuple):
    """What a meter counted between start and stop."""

    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds


def joules_of(times_s: Sequence[float], watts: Sequence[float]) -> float:
    """Integral of power over time, taken as straight between samples."""
    steps = zip(times_s[:-1], times_s[1:], watts[:-1], watts[1:], strict=True)
    return sum((end - start) * (first + last) / 2 for start, end, first, last in steps)


class Repeater:
    """Calls something every so often in a thread, from start to stop, and at both ends."""

    def __init__(self, call: Callable[[], None], *, every_s: float) -> None:
        """Prepare; nothing is called yet."""
        self._call, self._every_s = call, every_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: OSError | ValueError | None = None

    def start(self) -> None:
        """Call once here, then start the thread."""
        self._call()
        self._failure = None
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, then call once more here.

        Raises:
            OSError: a call in the thread failed.
            ValueError: likewise.
        """
        if self._thread is None:
            msg = "the meter was stopped before it was started"
            raise InputError(msg)
        self._stopping.set()
        self._thread.join()
        self._thread = None
        if self._failure is not None:
            raise self._failure
        self._call()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self._call()
            except (OSError, ValueError) as error:
                self._failure = error
                return


class SampledPower:
    """A meter for sensors that give power and not energy."""

    def __init__(
        self,
        read_watts: Callable[[], float],
        *,
        source: str,
        every_s: float,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Prepare a meter.

        Args:
            read_watts: the power now; OSError or ValueError where it cannot be read.
            source: name for the row.
            every_s: between two samples.
            clock_s: a monotonic clock, seconds.
        """
        self.source = source
        self.least_s = 20 * every_s
        self._read_watts, self._clock_s = read_watts, clock_s
        self._times_s: list[float] = []
        self._watts: list[float] = []
        self._repeater = Repeater(self._sample, every_s=every_s)

    def start(self) -> None:
        """Forget earlier samples and begin."""
        self._times_s, self._watts = [], []
        self._repeater.start()

    def stop(self) -> Consumed:
        """End, and give what was consumed since start."""
        self._repeater.stop()
        return Consumed(
            joules=joules_of(self._times_s, self._watts),
            seconds=self._times_s[-1] - self._times_s[0],
        )

    def _sample(self) -> None:
        watts = self._read_watts()
        self._times_s.append(self._clock_s())
        self._watts.append(watts)
