"""A file of lines that rotates, and that a crash or a full disk cannot damage.

The file being written is `fixes.jsonl`; when it is full it becomes `fixes.part0001.jsonl`, then
`fixes.part0002.jsonl`, and so on, so parts in the order of their numbers and then the file itself
are the whole. Nothing here buffers: what `append` returned from is with the operating system.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Protocol

_PART_DIGITS = 4
_TAIL_BYTES = 1 << 16


class Disk(Protocol):
    """The system calls the file is made of, so that tests can let them fail."""

    def open(self, path: Path) -> int:
        """Open for reading and writing, made if missing."""
        ...

    def write(self, fd: int, data: bytes, offset: int) -> int:
        """Write some of `data` at `offset`; bytes written."""
        ...

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        ...

    def sync(self, fd: int) -> None:
        """Wait until the file is on the medium."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name in its folder, durably."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file."""
        ...

    def close(self, fd: int) -> None:
        """Close."""
        ...


class SystemDisk:
    """The real ones."""

    def open(self, path: Path) -> int:
        """Open for reading and writing, made if missing."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        _sync_folder(path.parent)
        return fd

    def write(self, fd: int, data: bytes, offset: int) -> int:
        """Write some of `data` at `offset`; bytes written."""
        return os.pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Wait until the file is on the medium."""
        os.fsync(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name in its folder, durably."""
        old.rename(new)
        _sync_folder(new.parent)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink(missing_ok=True)

    def close(self, fd: int) -> None:
        """Close."""
        os.close(fd)


def parts_of(path: Path) -> list[Path]:
    """The full parts of a rotating file, oldest first, without the file itself."""
    pattern = re.compile(
        rf"{re.escape(path.stem)}\.part(\d{{{_PART_DIGITS},}}){re.escape(path.suffix)}"
    )
    numbered = []
    if path.parent.is_dir():
        for entry in path.parent.iterdir():
            if found := pattern.fullmatch(entry.name):
                numbered.append((int(found[1]), entry))
    return [entry for _, entry in sorted(numbered)]


def last_line(path: Path) -> bytes | None:
    """The last whole line of a rotating file, its newline included; None where it has none.

    Raises:
        OSError: the file or its newest part cannot be read.
    """
    for place in (path, *reversed(parts_of(path))):
        # A crash may have come between the end of a part and the beginning of the next.
        if not place.exists():
            continue
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            end = _end_of_last_line(fd)
            if end:
                begin = _end_of_last_line(fd, before=end - 1)
                return os.pread(fd, end - begin, begin)
        finally:
            os.close(fd)
    return None


class LineFile:
    """One writer's rotating file. Not thread-safe."""

    def __init__(
        self,
        path: Path,
        *,
        append: bool,
        rotate_bytes: int | None,
        keep_parts: int | None,
        disk: Disk,
    ) -> None:
        """Open the file; a line that a crash cut off is removed from its end.

        Args:
            path: the file.
            append: go on with the file and its parts; else they are replaced.
            rotate_bytes: begin a new part before the file grows beyond this; None never does.
            keep_parts: full parts kept, the oldest go; None keeps all.
            disk: the system calls.

        Raises:
            OSError: the file cannot be opened.
        """
        self.path = path
        self._rotate_bytes = rotate_bytes
        self._keep_parts = keep_parts
        self._disk = disk
        self._fd: int | None = disk.open(path)
        self._torn = False
        parts = parts_of(path)
        if append:
            self._end = _end_of_last_line(self._fd)
        else:
            self._end = 0
            for part in parts:
                disk.remove(part)
            parts = []
        self._part = _number_of(parts[-1]) if parts else 0
        # A device, as /dev/full is for tests, has no size to cut.
        if os.fstat(self._fd).st_size != self._end:
            disk.truncate(self._fd, self._end)

    def append(self, lines: bytes) -> None:
        """Write whole lines, or nothing that stays.

        Args:
            lines: each ends in a newline.

        Raises:
            OSError: no room, medium gone. The same lines may be given again later.
        """
        if (
            self._rotate_bytes is not None
            and self._fd is not None
            and self._end > 0
            and self._end + len(lines) > self._rotate_bytes
        ):
            # Where no new part can begin, a part that grows too long is better than none.
            with suppress(OSError):
                self._rotate()
        if self._fd is None:
            self._fd = self._disk.open(self.path)
            self._end = 0
        if self._torn:
            self._disk.truncate(self._fd, self._end)
            self._torn = False
        done = 0
        while done < len(lines):
            self._torn = True
            done += self._disk.write(self._fd, lines[done:], self._end + done)
        self._torn = False
        self._end += len(lines)

    def sync(self) -> None:
        """Wait until everything appended is on the medium.

        Raises:
            OSError: it may not be.
        """
        if self._fd is not None:
            self._disk.sync(self._fd)

    def close(self) -> None:
        """Cut off what an append that failed has left, and close. Safe to call twice."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            if self._torn:
                self._disk.truncate(fd, self._end)
        finally:
            self._disk.close(fd)

    def _rotate(self) -> None:
        if self._fd is None:
            return
        if self._torn:
            self._disk.truncate(self._fd, self._end)
            self._torn = False
        # The next part must not reach the medium before this one has.
        self._disk.sync(self._fd)
        name = f"{self.path.stem}.part{self._part + 1:0{_PART_DIGITS}d}{self.path.suffix}"
        self._disk.rename(self.path, self.path.with_name(name))
        self._part += 1
        fd, self._fd = self._fd, None
        self._disk.close(fd)
        if self._keep_parts is not None:
            parts = parts_of(self.path)
            for part in parts[: max(0, len(parts) - self._keep_parts)]:
                self._disk.remove(part)


def _sync_folder(folder: Path) -> None:
    """Make names durable; file systems that cannot are left as they are."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _number_of(part: Path) -> int:
    return int(part.stem.rpartition(".part")[2])


def _end_of_last_line(fd: int, before: int | None = None) -> int:
    """Bytes up to and with the last newline, of the whole file or of what is before a place."""
    end = os.fstat(fd).st_size if before is None else before
    while end > 0:
        begin = max(0, end - _TAIL_BYTES)
        found = os.pread(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
