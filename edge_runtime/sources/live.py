"""Cameras and streams: the newest frame, and news when there is none."""

import itertools
import threading
from collections.abc import Iterator, Sequence
from functools import partial

from edge_runtime.errors import InputError
from edge_runtime.sources.at_exit import close_at_exit
from edge_runtime.sources.capture import CaptureSpec, OpenCapture, open_with_opencv
from edge_runtime.sources.capture_thread import CaptureThread
from edge_runtime.sources.frame_times import Clock
from edge_runtime.sources.newest import NewestFrame
from edge_runtime.sources.notices import Notices
from edge_runtime.sources.protocol import Frame

_MOST_ABANDONED = 3
"""Threads that hang in a driver; more would not free the device either."""
_JOIN_S = 1.0
_HANG_GRACE_S = 1.0
_OPENING_GRACE_S = 5.0


class LiveSource:
    """A camera or stream, read on a thread of its own and opened again whenever it ends.

    A `FrameSource`. `frames` is for one reader; `close` and `events` for any thread.
    """

    live = True

    def __init__(
        self,
        spec: CaptureSpec,
        *,
        stall_s: float = 2.0,
        rate_hz: float | None = None,
        latency_s: float = 0.0,
        open_s: float = 10.0,
        open_capture: OpenCapture = open_with_opencv,
        back_off_s: tuple[float, float] = (0.1, 5.0),
        is_file: bool = False,
        notices: Notices | None = None,
        clock: Clock | None = None,
        seed: int = 0,
    ) -> None:
        """Open the capture.

        Args:
            spec: what to open.
            stall_s: without a frame for this long a record says so.
            rate_hz: frames per second to decode; None for all. The others are not counted as lost.
            latency_s: from exposure to the capture's time stamp, or to arrival without one.
            open_s: for how long it is tried at first.
            open_capture: opens it.
            back_off_s: first and longest pause between two tries to open it again.
            is_file: a file plays the camera's part: frames have the file's own times.
            notices: where events go; None for a place of its own.
            clock: the machine's.
            seed: of the jitter of the pauses.

        Raises:
            InputError: it could not be opened within `open_s`.
        """
        self._spec, self._stall_s, self._clock = spec, stall_s, clock or Clock()
        self._newest, self._notices = NewestFrame(), notices or Notices()
        self._numbers = itertools.count()
        self._closed = threading.Event()
        self._abandoned: list[CaptureThread] = []
        self._opens_before = 0
        self._frame_before_s = self._clock.monotonic()
        self._stalled = False
        self.stalls = 0
        """How often no frame came for `stall_s`."""
        self.left_out: Sequence[str] = ()
        self._make = partial(
            CaptureThread,
            spec,
            open_capture,
            self._newest,
            self._notices,
            self._numbers,
            rate_hz=rate_hz,
            latency_s=latency_s,
            back_off_s=back_off_s,
            is_file=is_file,
            clock=self._clock,
            seed=seed,
        )
        self._thread = self._make()
        self._thread.start()
        close_at_exit(self)
        if not self._thread.opened_once.wait(open_s):
            hangs = not self._thread.tried.is_set()
            self.close()
            why = "does not answer" if hangs else "cannot be opened"
            msg = (
                f"{spec.shown} {why} within {open_s:g} s; is it there, sending, and not in use by "
                "another program? With ?open_s=60 it is waited for longer"
            )
            raise InputError(msg)

    @property
    def dropped(self) -> int:
        """Frames thrown away since the start because a newer one had come."""
        return self._newest.dropped

    @property
    def reopened(self) -> int:
        """How often the capture was opened again."""
        return self._opens_before + self._thread.opens - 1

    def frames(self) -> Iterator[Frame]:
        """Give the newest frame as soon as there is one, and a record for each stall time-out."""
        while not self._closed.is_set():
            frame = self._newest.take(self._stall_s)
            if self._closed.is_set():
                return
            if frame is None:
                if self._thread.over.is_set():
                    return
                frame = self._news()
                if frame is None:
                    continue
            else:
                self._came()
            yield frame
            # A frame must not stay alive while the next one is waited for.
            del frame

    def count(self) -> int | None:
        """None: a camera has no end."""
        return None

    def events(self) -> list[str]:
        """What happened since the last call, one line each."""
        return self._notices.taken()

    def close(self) -> None:
        """Stop the thread and give the device back, or leave both behind if the driver hangs."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._newest.close()
        self._thread.stop()
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            self._notices.say(f"{self._spec.shown} hangs in its driver; it is left to itself")

    def _came(self) -> None:
        now_s = self._clock.monotonic()
        if self._stalled:
            self._stalled = False
            silent_s = now_s - self._frame_before_s
            self._notices.say(f"{self._spec.shown} gives frames again after {silent_s:.1f} s")
        self._frame_before_s = now_s

    def _news(self) -> Frame | None:
        """A record that no frame came, or None while frames come that are not due."""
        now_s = self._clock.monotonic()
        grabbed_s = self._thread.grabbed_s
        if grabbed_s is not None and now_s - grabbed_s < self._stall_s:
            return None
        silent_s = now_s - max(self._frame_before_s, grabbed_s or -1.0)
        problem = f"no frame from {self._spec.shown} for {silent_s:.1f} s"
        if not self._stalled:
            self._stalled = True
            self.stalls += 1
            self._notices.say(problem)
        self._supervise(now_s)
        return Frame(
            name=f"{next(self._numbers):06d}",
            image=None,
            t_s=self._clock.unix(),
            capture_ms=0.0,
            problem=problem,
        )

    def _supervise(self, now_s: float) -> None:
        """Start another thread where the one there is hangs or has died."""
        thread = self._thread
        # Reads end by their own limit, so only what is well beyond it hangs.
        patience_s = 2 * self._stall_s + _HANG_GRACE_S
        if not thread.opened.is_set():
            patience_s = self._spec.open_timeout_s + _OPENING_GRACE_S
        if thread.is_alive() and now_s - thread.busy_since_s < patience_s:
            return
        self._abandoned = [other for other in self._abandoned if other.is_alive()]
        if len(self._abandoned) >= _MOST_ABANDONED:
            return
        thread.stop()
        why = "its reader ended by an error"
        if thread.is_alive():
            self._abandoned.append(thread)
            why = "hangs in its driver"
        self._opens_before += thread.opens
        self._notices.say(f"{self._spec.shown} {why}; it is opened anew beside it")
        self._thread = self._make()
        self._thread.start()
