"""Lines about what happened in a source, said by any thread and taken by one."""

import threading
from collections import deque

MAX_UNREAD = 64
"""Lines kept while nobody takes them; the oldest go first."""


class Notices:
    """Collects lines for `events()`. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=MAX_UNREAD)
        self._lost = 0

    def say(self, line: str) -> None:
        """Add a line."""
        with self._lock:
            self._lost += len(self._lines) == MAX_UNREAD
            self._lines.append(line)

    def taken(self) -> list[str]:
        """The lines since the last call."""
        with self._lock:
            lines, lost = list(self._lines), self._lost
            self._lines.clear()
            self._lost = 0
        return lines if not lost else [f"{lost} earlier events were not kept", *lines]
