"""A folder of photographs as frames, in the order of their names."""

import re
import time
from collections.abc import Container, Generator, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.sources.notices import Notices
from edge_runtime.sources.picture_watch import PictureWatch
from edge_runtime.sources.protocol import Frame
from edge_runtime.sources.read_ahead import ReadAhead

U8 = npt.NDArray[np.uint8]

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")

_END_MARKERS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}
"""How a JPEG and a PNG begin, and what a whole one has near its end."""
_TAIL_BYTES = 64 * 1024
"""Cameras may append padding and metadata after the end marker."""
_READY_FRAMES = 2
"""Photographs are large."""


class PhotographSource:
    """Photographs of a folder. A `FrameSource`."""

    live = False

    def __init__(
        self, folder: Path, *, names: Container[str] | None = None, loop: bool = False
    ) -> None:
        """Look at every photograph's head and tail.

        Args:
            folder: with files as they came from the camera.
            names: photographs to give; None for all.
            loop: begin again at the end, for ever.

        Raises:
            InputError: not a folder, no photographs, none that is named, one cut off or no picture.
        """
        if not folder.is_dir():
            msg = f"{folder} is not a folder; expected photographs or a video file"
            raise InputError(msg)
        paths = sorted(
            (p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES and p.is_file()),
            key=lambda p: natural_order(p.name),
        )
        if not paths:
            msg = (
                f"{folder} has no photographs; expected files ending in {', '.join(PHOTO_SUFFIXES)}"
            )
            raise InputError(msg)
        self._paths = [p for p in paths if names is None or p.name in names]
        if not self._paths:
            msg = (
                f"the telemetry names none of the {len(paths)} photographs in {folder} (the first "
                f"is {paths[0].name}); expected its filename column to match"
            )
            raise InputError(msg)
        self.left_out: Sequence[str] = [
            p.name for p in paths if names is not None and p.name not in names
        ]
        for path in self._paths:
            problem = _problem_before_decoding(path)
            if problem:
                msg = f"{path} {problem}; copy it again or take it out of the folder"
                raise InputError(msg)
        self._loop = loop
        self._notices = Notices()
        self._running: list[ReadAhead] = []

    def frames(self) -> Iterator[Frame]:
        """Give each photograph; begins with the first each time it is called."""
        ahead = ReadAhead(self._decoded, frames=_READY_FRAMES)
        self._running.append(ahead)
        try:
            yield from ahead.frames()
        finally:
            self._running.remove(ahead)
            ahead.close()

    def count(self) -> int | None:
        """Number of photographs; None for ever."""
        return None if self._loop else len(self._paths)

    def events(self) -> list[str]:
        """What happened since the last call, one line each."""
        return self._notices.taken()

    def close(self) -> None:
        """Stop reading."""
        for ahead in list(self._running):
            if not ahead.close():
                self._notices.say("reading a photograph hangs; it is left to itself")

    def _decoded(self) -> Generator[Frame, None, None]:
        watch = PictureWatch(may_freeze=False)
        while True:
            for path in self._paths:
                yield self._read(path, watch)
            if not self._loop:
                return

    def _read(self, path: Path, watch: PictureWatch) -> Frame:
        started_s = time.perf_counter()
        problem = _problem_before_decoding(path)
        image = None
        if not problem:
            # The camera's calibration holds for the pixels as they were read from the sensor, so
            # the rotation that EXIF asks for is not made.
            bgr = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            if bgr is None:
                problem = "cannot be read as an image"
            else:
                verdict = watch.look(np.asarray(bgr, np.uint8))
                problem = verdict.problem
                for line in verdict.events:
                    self._notices.say(f"{path.name}: {line}")
                if not problem:
                    image = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        return Frame(
            name=path.name,
            image=image,
            t_s=_taken_s(path),
            capture_ms=1e3 * (time.perf_counter() - started_s),
            problem=problem,
        )


def _taken_s(path: Path) -> float | None:
    """Unix time of the exposure by the photograph's own EXIF; None where it says none."""
    if path.suffix.lower() not in {".jpg", ".jpeg"}:
        return None
    from edge_runtime.states.exif import read_exif

    try:
        return read_exif(path).taken_unix_s
    except InputError:
        return None


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts DJI_2 before DJI_10; capitals do not matter but between equals."""
    parts = re.split(r"([0-9]+)", Path(name).stem)
    key = [
        (1, int(part), part) if k % 2 else (2, 0, part.casefold())
        for k, part in enumerate(parts)
        if part
    ]
    return [*key, (0, 0, name)]


def _problem_before_decoding(path: Path) -> str:
    """What head and tail of a file say is wrong with it, if anything."""
    # OpenCV gives half a picture for half a JPEG, so what is cut off is found before decoding.
    try:
        with path.open("rb") as stream:
            head = stream.read(4)
            stream.seek(max(len(head), path.stat().st_size - _TAIL_BYTES))
            tail = stream.read()
        readable = cv2.haveImageReader(str(path))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if any(head.startswith(begin) and end not in tail for begin, end in _END_MARKERS.items()):
        return "is cut off before the end of the picture"
    return "" if readable else "cannot be read as an image"
