"""A file that grows and is complete at any moment: its last lines are written anew each time."""

import os
import time
from contextlib import suppress
from pathlib import Path

_SYNC_EVERY_S = 5.0


class TailedFile:
    """A body that grows and a tail that closes it. Costs the new part and the tail, not the file.

    Body and tail go to the system in one write, so a process that is killed leaves the file as it
    was before or after; a write that fails half-way is undone. Not thread-safe.
    """

    def __init__(self, path: Path, head: str, tail: str) -> None:
        """Begin the file; an older one is replaced.

        Raises:
            OSError: it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd: int | None = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644
        )
        self._body_end = 0
        self._tail = b""
        self._synced_s = time.monotonic()
        try:
            self.append(head, tail)
        except OSError:
            self.close()
            raise

    def append(self, body: str, tail: str) -> None:
        """Add to the body and close it with a new tail.

        Raises:
            OSError: no room or the medium is gone; the file is as it was, as far as the medium
                lets it.
        """
        if self._fd is None:
            raise OSError("the file is closed")
        grown, closing = body.encode(), tail.encode()
        # Blanks instead of cutting the file, which would be a second step: both formats allow them.
        closing = closing.ljust(len(self._tail) - len(grown))
        data = grown + closing
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], self._body_end + done)
        except OSError:
            with suppress(OSError):
                os.pwrite(self._fd, self._tail, self._body_end)
                os.ftruncate(self._fd, self._body_end + len(self._tail))
            raise
        self._body_end += len(grown)
        self._tail = closing
        if time.monotonic() - self._synced_s >= _SYNC_EVERY_S:
            self._synced_s = time.monotonic()
            os.fsync(self._fd)

    def close(self) -> None:
        """Wait until it is on the medium, and close. Safe to call twice."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            with suppress(OSError):
                os.fsync(fd)
        finally:
            os.close(fd)
