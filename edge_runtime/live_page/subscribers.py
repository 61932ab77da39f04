"""Who listens to the fixes, each with a short queue of its own.

A listener that does not keep up loses its queue and is sent the whole history again, so it costs
neither memory nor the flight's time, and its page is right once it has caught up.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from edge_runtime.fix import Fix
from edge_runtime.live_page.history import History, Snapshot, Update

QUEUE = 64
"""Updates a listener may be behind: six seconds at 10 Hz."""


class TooManyListenersError(Exception):
    """As many listen as may."""


@dataclass(eq=False)
class _Listener:
    queue: deque[Update] = field(default_factory=deque)
    behind: bool = True
    """Whether it is to be sent the history before anything else."""


class Subscribers:
    """Hands fixes from the flight's thread to the threads that serve pages."""

    def __init__(self, most: int) -> None:
        """Allow `most` listeners at a time."""
        self._most = most
        self._changed = threading.Condition()
        self._listeners: list[_Listener] = []
        self._history = History()
        self._closed = False

    def add(self, fix: Fix) -> None:
        """Take one fix. Never waits for a listener."""
        with self._changed:
            update = self._history.add(fix)
            for listener in self._listeners:
                if len(listener.queue) >= QUEUE:
                    listener.queue.clear()
                    listener.behind = True
                if not listener.behind:
                    listener.queue.append(update)
            self._changed.notify_all()

    def snapshot(self) -> Snapshot:
        """Everything so far."""
        with self._changed:
            return self._history.snapshot()

    def __len__(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @contextmanager
    def listening(self, beat_s: float) -> Iterator[Iterator[Sequence[Snapshot | Update]]]:
        """Listen until the block is left or the page closes.

        Args:
            beat_s: longest wait for news.

        Yields:
            An iterator over what to send next: the history first, then updates in order, the
            history again where some were lost; nothing after `beat_s` without news.

        Raises:
            TooManyListenersError: there is no place left.
        """
        listener = _Listener()
        with self._changed:
            if len(self._listeners) >= self._most:
                raise TooManyListenersError
            self._listeners.append(listener)
        try:
            yield self._batches(listener, beat_s)
        finally:
            with self._changed:
                self._listeners.remove(listener)

    def close(self) -> None:
        """Let every listener end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _batches(self, listener: _Listener, beat_s: float) -> Iterator[Sequence[Snapshot | Update]]:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: listener.queue or listener.behind or self._closed, beat_s
                )
                if self._closed:
                    return
                batch: list[Snapshot | Update] = list(listener.queue)
                if listener.behind:
                    batch = [self._history.snapshot()]
                    listener.behind = False
                listener.queue.clear()
            yield batch
