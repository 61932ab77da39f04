"""The thread that reads one live capture, and opens it again when it ends."""

import itertools
import math
import random
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np

from edge_runtime.sources.capture import Capture, CaptureSpec, NoMoreFrames, OpenCapture
from edge_runtime.sources.frame_times import Clock, LiveTimes
from edge_runtime.sources.newest import NewestFrame
from edge_runtime.sources.notices import Notices
from edge_runtime.sources.picture_watch import PictureWatch
from edge_runtime.sources.protocol import Frame

_GRABS_THAT_MAY_FAIL = 3
"""A signal or one broken packet ends a grab; what fails this often in a row is opened again."""
_BROKEN_IN_A_ROW = 60
_PAUSE_S = 0.02
_JITTER = 0.25
_EARLY = 0.1
"""Share of the period by which a frame may come too early and still be taken."""


class CaptureThread(threading.Thread):
    """Grabs every frame, decodes those that are due, and lays them down as the newest.

    Grabbing alone keeps a camera's queue empty; decoding happens here so that it overlaps with the
    matching of the frame before. A driver that hangs keeps this thread for itself: whoever
    supervises it calls `stop` and starts another.
    """

    def __init__(
        self,
        spec: CaptureSpec,
        open_capture: OpenCapture,
        newest: NewestFrame,
        notices: Notices,
        numbers: Iterator[int],
        *,
        rate_hz: float | None,
        latency_s: float,
        back_off_s: tuple[float, float],
        is_file: bool,
        clock: Clock,
        seed: int,
    ) -> None:
        """Prepare the thread; `start` opens the capture.

        Args:
            spec: what to open.
            open_capture: opens it.
            newest: where frames go.
            notices: where events go.
            numbers: of the frames; shared with the threads before and after.
            rate_hz: frames per second to decode; None for all.
            latency_s: from exposure to time stamp.
            back_off_s: first and longest pause between two tries to open.
            is_file: a file plays the camera's part: frames have the file's own times, and may
                repeat.
            clock: the machine's.
            seed: of the jitter of the pauses.
        """
        super().__init__(name=f"frames of {spec.shown}", daemon=True)
        self._spec, self._open_capture = spec, open_capture
        self._newest, self._notices, self._numbers = newest, notices, numbers
        self._period_s = None if rate_hz is None else 1.0 / rate_hz
        self._due_s = -math.inf
        self._back_off_s = back_off_s
        self._is_file = is_file
        self._clock = clock
        self._random = random.Random(seed)
        self._stopped = threading.Event()
        self._times = LiveTimes(spec.stamps, notices.say, latency_s=latency_s, clock=clock)
        self._watch = PictureWatch(may_freeze=not is_file)
        self._broken = 0
        self.opened = threading.Event()
        """Set while a capture is open."""
        self.opened_once = threading.Event()
        """Set when a capture was opened for the first time."""
        self.tried = threading.Event()
        """Set when the first try to open is over."""
        self.opens = 0
        """How often a capture was opened."""
        self.busy_since_s = clock.monotonic()
        """When the call that may hang began."""
        self.grabbed_s: float | None = None
        """When the last frame came."""
        self.over = threading.Event()
        """Set when the capture said that nothing will come any more."""

    def stop(self) -> None:
        """Ask the thread to end; it does when the call it is in comes back."""
        self._stopped.set()

    def run(self) -> None:
        """Open, read until the capture ends, and open again, until stopped."""
        while not self._stopped.is_set():
            capture = self._opened_capture()
            if capture is None:
                return
            try:
                self._read(capture)
            except NoMoreFrames:
                self.over.set()
                self._newest.finish()
                return
            finally:
                self.opened.clear()
                self.busy_since_s = self._clock.monotonic()
                capture.release()
                del capture
            if not self._stopped.is_set():
                self._notices.say(f"{self._spec.shown} gives no more frames; it is opened again")
                self._pause(self._back_off_s[0])

    def _opened_capture(self) -> Capture | None:
        started_s = self._clock.monotonic()
        for tries in itertools.count(1):
            if self._stopped.is_set():
                return None
            self.busy_since_s = self._clock.monotonic()
            capture = self._open_capture(self._spec)
            if capture is not None and not self._stopped.is_set():
                self._say_opened(capture, tries, started_s)
                return capture
            self.tried.set()
            if capture is not None:
                capture.release()
                return None
            shortest_s, longest_s = self._back_off_s
            self._pause(min(longest_s, shortest_s * 2 ** min(tries - 1, 20)))
        return None

    def _say_opened(self, capture: Capture, tries: int, started_s: float) -> None:
        shown = self._spec.shown
        self.opens += 1
        if self.opens > 1:
            took_s = self._clock.monotonic() - started_s
            how_often = "1 try" if tries == 1 else f"{tries} tries"
            self._notices.say(f"{shown} is open again after {took_s:.1f} s and {how_often}")
        for line in capture.differences():
            self._notices.say(f"{shown}: {line}")
        self._times.restarted()
        self.opened.set()
        self.opened_once.set()
        self.tried.set()

    def _read(self, capture: Capture) -> None:
        failures = 0
        while not self._stopped.is_set():
            self.busy_since_s = self._clock.monotonic()
            if not capture.grab():
                failures += 1
                if failures == _GRABS_THAT_MAY_FAIL:
                    return
                self._pause(_PAUSE_S)
                continue
            if self._stopped.is_set():
                return
            failures = 0
            self.grabbed_s = self._clock.monotonic()
            number = next(self._numbers)
            capture_s = capture.time_s()
            t_s = capture_s if self._is_file else self._times.exposed_s(capture_s)
            if self._due(t_s):
                self._decode(capture, number, t_s)
                if self._broken >= _BROKEN_IN_A_ROW:
                    self._broken = 0
                    return

    def _decode(self, capture: Capture, number: int, t_s: float) -> None:
        started_s = time.perf_counter()
        bgr = capture.retrieve()
        problem = ""
        image = None
        if bgr is None:
            problem = "the frame cannot be decoded"
            self._broken += 1
            if self._broken == 1:
                self._notices.say(f"{self._spec.shown}: frames come that cannot be decoded")
        else:
            if self._broken:
                self._notices.say(
                    f"frames can be decoded again after {self._broken} that could not"
                )
                self._broken = 0
            verdict = self._watch.look(bgr)
            problem = verdict.problem
            for line in verdict.events:
                self._notices.say(line)
            if not problem:
                image = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        if self._stopped.is_set():
            return
        self._newest.put(
            Frame(
                name=f"{number:06d}",
                image=image,
                t_s=t_s,
                capture_ms=1e3 * (time.perf_counter() - started_s),
                problem=problem,
            )
        )

    def _due(self, t_s: float) -> bool:
        if self._period_s is None:
            return True
        if not -2 * self._period_s < self._due_s - t_s < 2 * self._period_s:
            self._due_s = t_s  # the first frame, one after a stall, or the clock was set
        if t_s < self._due_s - _EARLY * self._period_s:
            return False
        # From the time it was due, not the time it came, so that the rate holds on average.
        self._due_s += self._period_s
        return True

    def _pause(self, seconds: float) -> None:
        self.busy_since_s = self._clock.monotonic() + seconds
        self._stopped.wait(seconds * (1 + _JITTER * (2 * self._random.random() - 1)))
