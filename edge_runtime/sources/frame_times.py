"""When a frame was exposed: from a kernel's, a stream's or a file's time stamps, or its arrival."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge_runtime.sources.capture import Stamps

Say = Callable[[str], None]

_KERNEL_OLDEST_S = 5.0
"""A buffer waits no longer than this to be read; an older stamp is of another clock."""
_KERNEL_AHEAD_S = 0.05
_STREAM_WINDOW_S = 20.0
"""Over how long the quickest frame is looked for: long against a burst of late packets, short
against the drift of a camera's clock (50 ppm make 1 ms)."""
_STREAM_JUMP_S = 5.0
_CLOCK_SET_S = 0.1
_SMALLEST_STEP_S = 1e-4


@dataclass(frozen=True)
class Clock:
    """The machine's two clocks."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds that never go back. On Linux the clock V4L2 drivers stamp buffers with."""
    unix: Callable[[], float] = time.time
    """Seconds since 1970, which somebody may set."""


class LiveTimes:
    """Exposure times of a live source on the machine's Unix clock. Not thread-safe.

    Times grow strictly while the machine's clock is not set back. When it is, they follow it, so
    that frames and telemetry stamped on arrival stay on one clock.
    """

    def __init__(
        self, stamps: Stamps, say: Say, *, latency_s: float = 0.0, clock: Clock | None = None
    ) -> None:
        """Start before the first frame of a capture.

        Args:
            stamps: what the capture's own times are.
            say: told when they cannot be trusted, and when the machine's clock was set.
            latency_s: from exposure to the time stamp, or to arrival where there is none.
            clock: the machine's.
        """
        self._stamps, self._say, self._latency_s = stamps, say, latency_s
        self._clock = clock or Clock()
        self._quickest: deque[tuple[float, float]] = deque()
        self._stream_before_s = -math.inf
        self._last_s = -math.inf
        self._ahead_s: float | None = None

    def restarted(self) -> None:
        """A capture was opened: its stream counts from a new start."""
        self._quickest.clear()
        self._stream_before_s = -math.inf

    def exposed_s(self, capture_s: float) -> float:
        """Unix time at which the frame that has just come was exposed.

        Args:
            capture_s: the capture's own time of it, NaN if it has none.
        """
        now_s, unix_s = self._clock.monotonic(), self._clock.unix()
        match self._stamps:
            case "kernel":
                stamped_s = self._of_kernel(capture_s, now_s)
            case "stream":
                stamped_s = self._of_stream(capture_s, now_s)
            case _:
                stamped_s = now_s
        self._last_s = max(stamped_s, self._last_s + _SMALLEST_STEP_S)
        ahead_s = unix_s - now_s
        if self._ahead_s is not None and abs(ahead_s - self._ahead_s) > _CLOCK_SET_S:
            self._say(f"this machine's clock was set by {ahead_s - self._ahead_s:+.1f} s")
        self._ahead_s = ahead_s
        return self._last_s + ahead_s - self._latency_s

    def _of_kernel(self, capture_s: float, now_s: float) -> float:
        if -_KERNEL_AHEAD_S <= now_s - capture_s <= _KERNEL_OLDEST_S:
            return min(capture_s, now_s)
        self._distrust("are not of this machine's monotonic clock")
        return now_s

    def _of_stream(self, capture_s: float, now_s: float) -> float:
        """The sender's time, laid so that the quickest frame of the last while took no time.

        Frames are delayed on their way by different amounts, never by less than nothing: the
        smallest difference between arrival and stamp is the one with the least waiting in it.
        """
        if not math.isfinite(capture_s):
            self._distrust("are missing")
            return now_s
        if not 0 < capture_s - self._stream_before_s < _STREAM_JUMP_S:
            # A sender that does not count, or counts anew, has no past to lay times by.
            self._quickest.clear()
        self._stream_before_s = capture_s
        difference_s = now_s - capture_s
        while self._quickest and self._quickest[-1][1] >= difference_s:
            self._quickest.pop()
        self._quickest.append((now_s, difference_s))
        while self._quickest[0][0] < now_s - _STREAM_WINDOW_S:
            self._quickest.popleft()
        return capture_s + self._quickest[0][1]

    def _distrust(self, why: str) -> None:
        self._say(f"the camera's time stamps {why}; the time of arrival is used")
        self._stamps = "none"


class FileTimes:
    """Times of a file's frames from its container, repaired to grow. Not thread-safe."""

    def __init__(self, fps: float, say: Say) -> None:
        """Start before the first frame.

        Args:
            fps: frames per second by the container's head, for frames without a time.
            say: told once when times had to be repaired.
        """
        self._step_s = 1.0 / fps if 0 < fps < 1000 else 1 / 30
        self._say = say
        self._last_s: float | None = None
        self._first_s = 0.0
        self._repaired = False

    def at_s(self, container_s: float) -> float:
        """Seconds from the first frame.

        Args:
            container_s: the container's time of the next frame, NaN if it has none.
        """
        if self._last_s is None:
            self._first_s = container_s if math.isfinite(container_s) else 0.0
            self._last_s = 0.0
            return 0.0
        t_s = container_s - self._first_s
        if not t_s > self._last_s:
            t_s = self._last_s + self._step_s
            if not self._repaired:
                self._repaired = True
                self._say(
                    f"the file's time stamps do not grow after {self._last_s:.3f} s; "
                    "the frame rate is used where they do not"
                )
        self._last_s = t_s
        return t_s

    def skipped_s(self) -> float:
        """Seconds from the first frame to one that could not be read, by the frame rate."""
        self._last_s = 0.0 if self._last_s is None else self._last_s + self._step_s
        return self._last_s

    @property
    def end_s(self) -> float:
        """When the next frame would come."""
        return 0.0 if self._last_s is None else self._last_s + self._step_s
