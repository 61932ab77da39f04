"""Frames of a file made ready on a thread, a few ahead, in their order."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator

from edge_runtime.sources.at_exit import close_at_exit
from edge_runtime.sources.protocol import Frame

_JOIN_S = 1.0


class ReadAhead:
    """Runs an iterator of frames on a thread so that decoding overlaps with matching.

    Nothing is lost and the order stays. An exception of the iterator comes out at the reader.
    """

    def __init__(self, make: Callable[[], Generator[Frame, None, None]], *, frames: int) -> None:
        """Prepare; the thread starts with the first frame asked for.

        Args:
            make: starts the iterator, on the thread.
            frames: how many may lie ready.
        """
        self._make, self._room = make, frames
        self._changed = threading.Condition()
        self._ready: deque[Frame] = deque()
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="frames read ahead", daemon=True)

    def frames(self) -> Iterator[Frame]:
        """Give each frame; ends with the iterator, or when closed."""
        self._thread.start()
        close_at_exit(self)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._ended or self._stopped)
                if self._stopped:
                    return
                if not self._ready:
                    if self._error is not None:
                        raise self._error
                    return
                frame = self._ready.popleft()
                self._changed.notify_all()
            yield frame
            # A frame must not stay alive while the next one is waited for.
            del frame

    def close(self) -> bool:
        """Stop the thread; False when it hangs in a read and is left to itself."""
        with self._changed:
            self._stopped = True
            self._ready.clear()
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)
        return not self._thread.is_alive()

    def _work(self) -> None:
        frames = self._make()
        try:
            for frame in frames:
                if not self._put(frame):
                    return
                del frame
        except BaseException as error:  # noqa: BLE001
            self._error = error
        finally:
            frames.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, frame: Frame) -> bool:
        with self._changed:
            # Room is waited for before the next frame is made, so that no more than `frames` and
            # the one in the making are ever alive.
            self._ready.append(frame)
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._ready) < self._room or self._stopped)
            return not self._stopped
