"""What frames are grabbed from: OpenCV's captures, behind a protocol that tests can play."""

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

Engine = Literal["v4l2", "ffmpeg", "gstreamer"]
"""Libraries behind OpenCV's captures."""
Stamps = Literal["kernel", "stream", "container", "none"]
"""What a capture's own time is. kernel: the machine's monotonic clock, when the buffer was filled.
stream: the sender's clock from some start. container: seconds of a file. none: not known."""

_LOG_FATAL = 1
_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_given_options: set[str] = set()
"""What this module put there; anything else is the user's."""
_opening = threading.Lock()
_LONGEST_TURN_S = 1.0
_APIS = {"v4l2": cv2.CAP_V4L2, "ffmpeg": cv2.CAP_FFMPEG, "gstreamer": cv2.CAP_GSTREAMER}


@dataclass(frozen=True, kw_only=True)
class CaptureSpec:
    """Everything needed to open a camera, a stream or a video file, and to open it again."""

    shown: str
    """As the user gave it, without passwords: for messages and logs."""
    target: str
    """Device, address, file or pipeline, as the engine takes it."""
    engine: Engine
    stamps: Stamps
    width_px: int | None = None
    height_px: int | None = None
    fps: float | None = None
    fourcc: str | None = None
    """Pixel format asked of a V4L2 device, as MJPG or YUYV."""
    buffers: int | None = None
    """Kernel buffers of a V4L2 device; None for the driver's own number."""
    ffmpeg_options: str | None = None
    """Of FFmpeg for this capture, as OpenCV takes them; None for OpenCV's own."""
    open_timeout_s: float = 10.0
    read_timeout_s: float = 2.0


class NoMoreFrames(Exception):  # noqa: N818
    """A capture that has an end is at it."""


class Capture(Protocol):
    """One open device or stream. Not thread-safe; every call may block for ever."""

    def grab(self) -> bool:
        """Wait for the next frame; False when it did not come, or came broken.

        Raises:
            NoMoreFrames: this was the end, and opening it again would not help.
        """
        ...

    def retrieve(self) -> U8 | None:
        """Decode the frame grabbed last.

        Returns:
            (H, W, 3) uint8, BGR, a fresh array; None when it cannot be decoded.
        """
        ...

    def time_s(self) -> float:
        """The capture's own time of the frame grabbed last, seconds; NaN when it has none."""
        ...

    def differences(self) -> list[str]:
        """What the device gives other than was asked of it, one line each."""
        ...

    def length(self) -> tuple[float, int]:
        """Frames per second and number of frames that a file says it has; 0 where not known."""
        ...

    def release(self) -> None:
        """Give the device back."""
        ...


OpenCapture = Callable[[CaptureSpec], Capture | None]
"""Opens a capture; None when there is nothing to open now. May block."""


class OpenCvCapture:
    """A `cv2.VideoCapture` whose failures are answers, not exceptions."""

    def __init__(self, capture: cv2.VideoCapture, spec: CaptureSpec) -> None:
        self._capture, self._spec = capture, spec

    def grab(self) -> bool:
        """Wait for the next frame."""
        try:
            return bool(self._capture.grab())
        except cv2.error:
            return False

    def retrieve(self) -> U8 | None:
        """Decode the frame grabbed last."""
        try:
            read, image = self._capture.retrieve()
        except cv2.error:
            return None
        if not read or image is None or image.size == 0 or image.dtype != np.uint8:
            return None
        if image.ndim == 2 or image.shape[2] == 1:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        elif image.shape[2] == 4:
            image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
        return np.asarray(image, np.uint8)

    def time_s(self) -> float:
        """The capture's own time of the frame grabbed last."""
        if self._spec.stamps == "none":
            return math.nan
        try:
            return 1e-3 * float(self._capture.get(cv2.CAP_PROP_POS_MSEC))
        except cv2.error:
            return math.nan

    def differences(self) -> list[str]:
        """What the device gives other than was asked of it."""
        asked: list[tuple[str, int, float | None]] = [
            ("width", cv2.CAP_PROP_FRAME_WIDTH, self._spec.width_px),
            ("height", cv2.CAP_PROP_FRAME_HEIGHT, self._spec.height_px),
            ("fps", cv2.CAP_PROP_FPS, self._spec.fps),
        ]
        lines = []
        for name, number, value in asked:
            given = self._number(number)
            if value is not None and given > 0 and abs(given - value) > 0.01 * value:
                lines.append(f"{name} {value:g} was asked, {given:g} is given")
        if self._spec.fourcc is not None:
            code = int(self._number(cv2.CAP_PROP_FOURCC))
            given_code = bytes((code >> shift) & 0xFF for shift in (0, 8, 16, 24))
            if code > 0 and given_code != self._spec.fourcc.encode():
                shown = given_code.decode("ascii", "replace")
                lines.append(f"fourcc {self._spec.fourcc} was asked, {shown} is given")
        return lines

    def length(self) -> tuple[float, int]:
        """Frames per second and number of frames that a file says it has."""
        fps = self._number(cv2.CAP_PROP_FPS)
        frames = self._number(cv2.CAP_PROP_FRAME_COUNT)
        return (fps if 0 < fps < math.inf else 0.0), int(frames) if 0 < frames < 1e9 else 0

    def release(self) -> None:
        """Give the device back."""
        with contextlib.suppress(cv2.error):
            self._capture.release()

    def _number(self, number: int) -> float:
        try:
            return float(self._capture.get(number))
        except cv2.error:
            return -1.0


def open_with_opencv(spec: CaptureSpec) -> Capture | None:
    """Open a device, stream, file or pipeline with the library the spec names.

    Returns:
        The capture; None when it cannot be opened now.
    """
    # The limits go in as the capture is opened: set later, they do not hold for the opening. V4L2
    # knows none and refuses what it does not know; its limit is OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT.
    limits: list[int] = []
    if spec.engine != "v4l2":
        limits = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, math.ceil(1e3 * spec.open_timeout_s)),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, math.ceil(1e3 * spec.read_timeout_s)),
        ]
    try:
        with _ffmpeg_options(spec.ffmpeg_options):
            capture = cv2.VideoCapture(spec.target, _APIS[spec.engine], limits)
        if not capture.isOpened():
            capture.release()
            return None
        if spec.engine == "v4l2":
            _ask(capture, spec)
        if spec.stamps == "container":
            # The camera's calibration holds for the pixels as they were read from the sensor.
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    except cv2.error:
        return None
    return OpenCvCapture(capture, spec)


def has_gstreamer() -> bool:
    """Whether this OpenCV was built with GStreamer."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))


def has_ffmpeg() -> bool:
    """Whether this OpenCV was built with FFmpeg."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG))


@contextlib.contextmanager
def _ffmpeg_options(options: str | None) -> Iterator[None]:
    """FFmpeg's options for one opening; what the user has set stays.

    OpenCV reads them from the environment alone, as it begins to open. A stream's would cost a file
    its first frames, so openings take turns; one that takes long is past its beginning.
    """
    in_turn = _opening.acquire(timeout=_LONGEST_TURN_S)
    ours = os.environ.get(_FFMPEG_OPTIONS) in {None, *_given_options}
    if ours:
        os.environ.pop(_FFMPEG_OPTIONS, None)
    if ours and options is not None:
        _given_options.add(options)
        os.environ[_FFMPEG_OPTIONS] = options
    try:
        yield
    finally:
        if ours:
            os.environ.pop(_FFMPEG_OPTIONS, None)
        if in_turn:
            _opening.release()


def prepare_opencv(*, stall_s: float) -> None:
    """Set what OpenCV takes from the environment alone, before the first capture is opened.

    What the user has set stays. It holds for the whole process: OpenCV has no other way in.

    Args:
        stall_s: how long a V4L2 device may give nothing (10 s without this, one second at least).
    """
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(max(1, math.ceil(stall_s))))
    # A camera that is gone is tried for hours; each try would print a line of the library's own.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if "OPENCV_LOG_LEVEL" not in os.environ:
        # OpenCV 5 moved it.
        set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
        set_level(_LOG_FATAL)


def _ask(capture: cv2.VideoCapture, spec: CaptureSpec) -> None:
    # The pixel format first: sizes and rates depend on it.
    if spec.fourcc is not None:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*spec.fourcc))
    wishes: list[tuple[int, float | None]] = [
        (cv2.CAP_PROP_FRAME_WIDTH, spec.width_px),
        (cv2.CAP_PROP_FRAME_HEIGHT, spec.height_px),
        (cv2.CAP_PROP_FPS, spec.fps),
        (cv2.CAP_PROP_BUFFERSIZE, spec.buffers),
    ]
    for number, value in wishes:
        if value is not None:
            capture.set(number, value)
