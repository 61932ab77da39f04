"""A place for one frame: the newest wins, and what it replaces is counted."""

import threading
from dataclasses import replace

from edge_runtime.sources.protocol import Frame


class NewestFrame:
    """Between the thread that reads a camera and the one that matches. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._replaced = 0
        self._closed = False
        self._finished = False
        self.dropped = 0
        """Frames thrown away since the start."""

    def put(self, frame: Frame) -> None:
        """Lay down a frame in place of what lies there."""
        with self._changed:
            if self._closed:
                return
            if self._frame is not None:
                self._replaced += 1
                self.dropped += 1
            self._frame = frame
            self._changed.notify()

    def take(self, timeout_s: float) -> Frame | None:
        """Wait for a frame; None when none came in time or the place was closed."""
        with self._changed:
            self._changed.wait_for(self._worth_waking, timeout_s)
            if self._frame is None or self._closed:
                return None
            frame, self._frame = self._frame, None
            replaced, self._replaced = self._replaced, 0
        return replace(frame, dropped=replaced) if replaced else frame

    def finish(self) -> None:
        """Say that no frame comes any more; the last one can still be taken."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """Wake who waits and keep nothing."""
        with self._changed:
            self._closed = True
            self._frame = None
            self._changed.notify_all()

    def _worth_waking(self) -> bool:
        return self._frame is not None or self._closed or self._finished
