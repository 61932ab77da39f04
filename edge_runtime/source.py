"""Frames with their states: a folder of photographs or a video, and its telemetry."""

import math
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.state import Telemetry, VehicleState

U8 = npt.NDArray[np.uint8]

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".m4v")

_END_MARKERS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND"}
"""How a JPEG and a PNG begin, and what a whole one has near its end."""
_TAIL_BYTES = 64 * 1024
"""Cameras may append padding and metadata after the end marker."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame and what was known when it was exposed."""

    name: str
    """File name, or the frame number of a video."""
    image: U8 | None
    """(H, W, 3) uint8 RGB; None when it could not be read."""
    state: VehicleState
    capture_ms: float
    """Time to read and decode it."""


class FolderSource:
    """Photographs of a folder in the order of their names."""

    def __init__(self, folder: Path, telemetry: Telemetry) -> None:
        """Check that every photograph can be decoded and has a state.

        Raises:
            InputError: not a folder, no photographs, one unreadable, or no telemetry for any.
        """
        if not folder.is_dir():
            msg = f"{folder} is not a folder; expected photographs or a video file"
            raise InputError(msg)
        paths = sorted(
            p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES and p.is_file()
        )
        if not paths:
            msg = (
                f"{folder} has no photographs; expected files ending in {', '.join(PHOTO_SUFFIXES)}"
            )
            raise InputError(msg)
        self._paths = [p for p in paths if p.name in telemetry.by_filename]
        if not self._paths:
            msg = (
                f"{telemetry.path} names none of the {len(paths)} photographs in {folder} "
                f"(the first is {paths[0].name}); expected its filename column to match"
            )
            raise InputError(msg)
        self.left_out = [p.name for p in paths if p.name not in telemetry.by_filename]
        """Photographs without a row of telemetry."""
        for path in self._paths:
            problem = _problem_of_photo(path)
            if problem:
                msg = f"{path} {problem}; copy it again or take it out of the folder"
                raise InputError(msg)
        self._telemetry = telemetry

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._paths)

    def __iter__(self) -> Iterator[Frame]:
        """Read the photographs one by one."""
        for path in self._paths:
            started = time.perf_counter()
            image = _read_rgb(path, cv2.IMREAD_COLOR)
            yield Frame(
                name=path.name,
                image=image,
                state=self._telemetry.at(path.name),
                capture_ms=1e3 * (time.perf_counter() - started),
            )


class VideoSource:
    """Frames of a video file, each at its own time with what else the nearest row knows."""

    def __init__(self, path: Path, telemetry: Telemetry, *, rate_hz: float | None = None) -> None:
        """Open the file.

        Args:
            path: video file.
            telemetry: rows with `t_s` counted from the first frame.
            rate_hz: frames per second to keep; None for all.

        Raises:
            InputError: not a video OpenCV can decode, telemetry of another time, or no rate.
        """
        if rate_hz is not None and not 0 < rate_hz < math.inf:
            msg = f"the rate is {rate_hz} frames per second; give a positive number to --rate-hz"
            raise InputError(msg)
        self._path, self._rate_hz = path, rate_hz
        capture = cv2.VideoCapture(str(path))
        self._fps = float(capture.get(cv2.CAP_PROP_FPS) or 0.0)
        self._count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT) or 0)
        opened = capture.isOpened()
        capture.release()
        if not opened or self._fps <= 0:
            msg = f"{path} cannot be opened as a video; expected a file that OpenCV decodes"
            raise InputError(msg)
        self._states = sorted(telemetry.rows, key=lambda s: s.t_s)
        self._times = [s.t_s for s in self._states]
        self._check_covered(telemetry)
        self.left_out: list[str] = []

    def __len__(self) -> int:
        """Number of frames that will be given, about."""
        step = 1 if self._rate_hz is None else max(1, round(self._fps / self._rate_hz))
        return -(-self._count // step)

    def __iter__(self) -> Iterator[Frame]:
        """Decode the frames one by one."""
        step = 1 if self._rate_hz is None else max(1, round(self._fps / self._rate_hz))
        capture = cv2.VideoCapture(str(self._path))
        try:
            number = 0
            while True:
                started = time.perf_counter()
                if number % step:
                    if not capture.grab():
                        return
                    number += 1
                    continue
                read, bgr = capture.read()
                if not read:
                    return
                image = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
                yield Frame(
                    name=f"{number:06d}",
                    image=image,
                    state=self._state_at(number / self._fps),
                    capture_ms=1e3 * (time.perf_counter() - started),
                )
                number += 1
        finally:
            capture.release()

    def _check_covered(self, telemetry: Telemetry) -> None:
        """Refuse rows that are all before or after the video, or that say no time."""
        expected = "expected t_s in seconds from the video's first frame"
        if not telemetry.timed:
            msg = f"telemetry {telemetry.path} has no times; {expected}"
            raise InputError(msg)
        length_s = self._count / self._fps if self._count > 0 else math.inf
        first_s, last_s = self._times[0], self._times[-1]
        if last_s < 0 or first_s > length_s:
            msg = (
                f"telemetry {telemetry.path} has times from {first_s:.1f} to {last_s:.1f} s, "
                f"{self._path} is {length_s:.1f} s long; {expected}"
            )
            raise InputError(msg)

    def _state_at(self, t_s: float) -> VehicleState:
        k = bisect_left(self._times, t_s)
        near = [i for i in (k - 1, k) if 0 <= i < len(self._times)]
        nearest = self._states[min(near, key=lambda i: abs(self._times[i] - t_s))]
        return replace(nearest, t_s=t_s)


def open_source(
    path: Path, telemetry: Telemetry, *, rate_hz: float | None = None
) -> FolderSource | VideoSource:
    """A folder of photographs or a video file.

    Raises:
        InputError: neither, or nothing usable in it.
    """
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoSource(path, telemetry, rate_hz=rate_hz)
    if not path.exists():
        msg = f"{path} does not exist; expected a folder of photographs or a video file"
        raise InputError(msg)
    return FolderSource(path, telemetry)


def _problem_of_photo(path: Path) -> str | None:
    """What is wrong with a photograph, if anything."""
    # OpenCV gives half a picture for half a JPEG, so what is cut off is found before decoding.
    try:
        with path.open("rb") as stream:
            head = stream.read(4)
            stream.seek(max(len(head), path.stat().st_size - _TAIL_BYTES))
            tail = stream.read()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if any(head.startswith(begin) and end not in tail for begin, end in _END_MARKERS.items()):
        return "is cut off before the end of the picture"
    if _read_rgb(path, cv2.IMREAD_REDUCED_COLOR_8) is None:
        return "cannot be read as an image"
    return None


def _read_rgb(path: Path, flags: int) -> U8 | None:
    """Decode a file, ignoring the rotation its EXIF asks for; None when it cannot be."""
    bgr = cv2.imread(str(path), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
