"""One segment of a recording: blocks one after another, each with its checksum.

    file    = "SKYFIXR1", START, RECORD ..., END (missing where the writer was stopped)
    block   = kind (1 byte), length of the content (4, little endian), CRC-32 (4), content
    START   = JSON: what the run was made of, and the localizer as it was before the first record
    RECORD  = length of the JSON (4), JSON of frame, state and fix, packed pixels
    END     = JSON: number of records

The checksum covers kind, length and content.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix, fix_from_json
from edge_runtime.recordings.pixels import packed, unpacked
from edge_runtime.sources.protocol import Frame
from edge_runtime.state import VehicleState

SUFFIX = ".skyrec"
SCHEMA = 1
_MAGIC = b"SKYFIXR1"
_START, _RECORD, _END = 1, 2, 3
_HEADER = struct.Struct("<BII")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One step of the localizer: what it was given and what it answered."""

    frame: Frame
    state: VehicleState
    fix: Fix


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The beginning of a segment file; its records are read when they are asked for."""

    path: Path
    snapshot: dict[str, Any]
    """The localizer before the first record: `Localizer.restore` takes it."""
    settings: dict[str, Any]
    """What the run was made of, as the recorder was told."""

    def records(self) -> Iterator[Recorded]:
        """Read and check one record after another, up to where a stopped writer was cut off.

        Raises:
            InputError: a record is altered.
        """
        with self.path.open("rb") as stream:
            blocks = _blocks(self.path, stream)
            next(blocks)
            for kind, content in blocks:
                if kind == _RECORD:
                    yield _recorded(self.path, content)

    def is_whole(self) -> bool:
        """Whether the writer has finished it. Reads and checks the file.

        Raises:
            InputError: a record is altered.
        """
        with self.path.open("rb") as stream:
            return any(kind == _END for kind, _ in _blocks(self.path, stream))


class SegmentWriter:
    """Writes one segment. Not thread-safe."""

    def __init__(self, path: Path, snapshot: dict[str, Any], settings: dict[str, Any]) -> None:
        """Begin the file.

        Raises:
            OSError: no room or the medium is gone; nothing is left behind.
        """
        self.path = path
        self.records = 0
        self.size = 0
        self._fd: int | None = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644
        )
        start = {"schema": SCHEMA, "snapshot": snapshot, "settings": settings}
        try:
            self._append(_MAGIC + _block(_START, _json(start)))
        except OSError:
            os.close(self._fd)
            self._fd = None
            path.unlink(missing_ok=True)
            raise

    def write(self, recorded: Recorded) -> None:
        """Add one record.

        Raises:
            OSError: no room or the medium is gone; the file ends with the record before.
        """
        self._append(_block(_RECORD, _record(recorded)))
        self.records += 1

    def finish(self) -> None:
        """Write the end, wait until it is on the medium and close. Safe to call twice.

        Raises:
            OSError: no room or the medium is gone; what was written before can be read.
        """
        if self._fd is None:
            return
        try:
            self._append(_block(_END, _json({"records": self.records})))
            os.fsync(self._fd)
        finally:
            fd, self._fd = self._fd, None
            os.close(fd)

    def _append(self, data: bytes) -> None:
        if self._fd is None:
            raise OSError(f"{self.path} is closed")
        view, done = memoryview(data), 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, view[done:], self.size + done)
        except OSError:
            os.ftruncate(self._fd, self.size)
            raise
        self.size += len(data)


def read_segment(path: Path) -> Segment:
    """Read the beginning of a segment.

    Raises:
        InputError: unreadable, not a segment, altered, or cut off before its first record.
    """
    try:
        with path.open("rb") as stream:
            kind, content = next(_blocks(path, stream), (_END, b""))
    except OSError as error:
        msg = f"{path} cannot be read ({error}); expected a segment written by skyfix run --record"
        raise InputError(msg) from error
    if kind != _START:
        msg = f"{path} is cut off before its first record; leave it out"
        raise InputError(msg)
    start = json.loads(content)
    if start["schema"] != SCHEMA:
        msg = f"{path} has schema {start['schema']}, this version reads {SCHEMA}; update skyfix"
        raise InputError(msg)
    return Segment(path=path, snapshot=start["snapshot"], settings=start["settings"])


def has_start(path: Path) -> bool:
    """Whether the writer got as far as the first record.

    Raises:
        InputError: not a segment.
    """
    with path.open("rb") as stream:
        return next(_blocks(path, stream), None) is not None


def _record(recorded: Recorded) -> bytes:
    frame = recorded.frame
    image = frame.image
    about = {
        "frame": {
            "name": frame.name,
            "t_s": frame.t_s,
            "capture_ms": frame.capture_ms,
            "problem": frame.problem,
            "dropped": frame.dropped,
        },
        "shape": None if image is None else image.shape,
        "state": asdict(recorded.state),
        "fix": recorded.fix.to_json(),
    }
    text = _json(about)
    return _LENGTH.pack(len(text)) + text + (b"" if image is None else packed(image))


def _recorded(path: Path, content: bytes) -> Recorded:
    try:
        (size,) = _LENGTH.unpack_from(content)
        about = json.loads(content[_LENGTH.size : _LENGTH.size + size])
        shape = about["shape"]
        pixels = content[_LENGTH.size + size :]
        image = None if shape is None else unpacked(pixels, tuple(shape))
        return Recorded(
            frame=Frame(image=image, **about["frame"]),
            state=VehicleState(**about["state"]),
            fix=fix_from_json(about["fix"]),
        )
    except (ValueError, KeyError, TypeError, struct.error) as error:
        msg = f"{path} has a record of another version ({error}); replay it with that version"
        raise InputError(msg) from error


def _json(value: Any) -> bytes:
    # NaN stays what it is: the localizer is to be given again exactly what it was given.
    return json.dumps(value, separators=(",", ":"), default=float).encode()


def _block(kind: int, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(bytes([kind]) + _LENGTH.pack(len(content))))
    return _HEADER.pack(kind, len(content), checksum) + content


def _blocks(path: Path, stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Kind and content of each block, up to the cut of a file that was not finished."""
    size = os.fstat(stream.fileno()).st_size
    magic = stream.read(len(_MAGIC))
    if magic != _MAGIC:
        if magic.strip(b"\0") and not _MAGIC.startswith(magic):
            msg = (
                f"{path} is no segment of a recording; expected a file that begins with {_MAGIC!r}"
            )
            raise InputError(msg)
        return
    while True:
        begin = stream.tell()
        header = stream.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.strip(b"\0"):
            return
        kind, length, checksum = _HEADER.unpack(header)
        end = begin + _HEADER.size + length
        if kind in (_START, _RECORD, _END) and end > size:
            return
        content = stream.read(length) if kind in (_START, _RECORD, _END) else b""
        if _block(kind, content)[: _HEADER.size] != header:
            # A power cut may leave the last block half on the medium, and zeros after it.
            if kind == _RECORD and not stream.read().strip(b"\0"):
                return
            msg = (
                f"{path} is altered at byte {begin} (its checksum {checksum:08x} is not that of "
                "its content); copy it again from the aircraft"
            )
            raise InputError(msg)
        yield kind, content
