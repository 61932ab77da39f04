"""Video files: every frame in order, for ever if asked, or at their own pace like a camera."""

import math
import time
from collections.abc import Generator, Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.sources.capture import (
    Capture,
    CaptureSpec,
    NoMoreFrames,
    OpenCapture,
    open_with_opencv,
)
from edge_runtime.sources.frame_times import Clock, FileTimes, Say
from edge_runtime.sources.notices import Notices
from edge_runtime.sources.picture_watch import PictureWatch
from edge_runtime.sources.protocol import Frame
from edge_runtime.sources.read_ahead import ReadAhead

U8 = npt.NDArray[np.uint8]

_READY_FRAMES = 3
_BROKEN = "the frame cannot be decoded"
_BROKEN_AT_MOST = 300
"""Frames that cannot be read in a row before a file counts as cut off."""
_BROKEN_OF_UNKNOWN = 8
_ENDS_EARLY = 0.98
_TOLERANCE_S = 1e-3
"""Containers round times to a millisecond."""


class VideoFile:
    """The frames of a file, broken ones included, and its end. A `Capture`.

    OpenCV says the same of a broken frame and of the end; what tells them apart is whether a frame
    comes after.
    """

    def __init__(
        self, spec: CaptureSpec, open_capture: OpenCapture, say: Say, *, loop: bool = False
    ) -> None:
        """Open the file.

        Raises:
            InputError: not a video that OpenCV can decode.
        """
        self._spec, self._open_capture, self._say, self._loop = spec, open_capture, say, loop
        self._capture = self._opened()
        self.fps, self.frames = self._capture.length()
        self._times = FileTimes(self.fps, say)
        self._start_s = 0.0
        self._t_s = math.nan
        self._given = 0
        self._broken_before_good = 0
        self._good_waits = False
        self._broken = False
        self.passes = 0
        """How often the file was begun again."""

    def grab(self) -> bool:
        """Go to the next frame.

        Raises:
            NoMoreFrames: the file is at its end and does not loop.
        """
        if not self._broken_before_good and not self._good_waits and not self._seek_good():
            self._end()
        self._given += 1
        self._broken = self._broken_before_good > 0
        if self._broken:
            self._broken_before_good -= 1
            self._t_s = self._start_s + self._times.skipped_s()
        else:
            self._good_waits = False
            self._t_s = self._start_s + self._times.at_s(self._capture.time_s())
        return True

    def retrieve(self) -> U8 | None:
        """Decode the frame."""
        return None if self._broken else self._capture.retrieve()

    def time_s(self) -> float:
        """Seconds from the first frame of the first pass."""
        return self._t_s

    def length(self) -> tuple[float, int]:
        """Frames per second and number of frames that the file says it has."""
        return self.fps, self.frames

    def differences(self) -> list[str]:
        """Nothing was asked."""
        return []

    def release(self) -> None:
        """Close the file."""
        self._capture.release()

    def _opened(self) -> Capture:
        capture = self._open_capture(self._spec)
        # What can be opened but never gives a frame is no video either.
        if capture is None or not (capture.length()[0] > 0 or capture.length()[1] > 0):
            if capture is not None:
                capture.release()
            msg = (
                f"{self._spec.shown} cannot be opened as a video; expected a file that OpenCV "
                "decodes"
            )
            raise InputError(msg)
        return capture

    def _seek_good(self) -> bool:
        left = self.frames - self._given if self.frames else _BROKEN_OF_UNKNOWN
        for broken in range(min(max(left, 1), _BROKEN_AT_MOST)):
            if self._capture.grab():
                self._broken_before_good, self._good_waits = broken, True
                return True
        return False

    def _end(self) -> None:
        if self.passes == 0 and self._given < int(_ENDS_EARLY * self.frames):
            self._say(
                f"{self._spec.shown} ends after {self._given} of {self.frames} frames; is it cut "
                "off?"
            )
        if not self._loop or self._given == 0:
            raise NoMoreFrames
        self._capture.release()
        try:
            self._capture = self._opened()
        except InputError as error:
            self._say(str(error))
            raise NoMoreFrames from error
        self.passes += 1
        self._given = 0
        self._start_s += self._times.end_s
        self._times = FileTimes(self.fps, lambda _: None)
        if not self._seek_good():
            raise NoMoreFrames


class PacedFile:
    """A video file that gives its frames when they are due, as a camera would. A `Capture`."""

    def __init__(self, file: VideoFile, clock: Clock) -> None:
        self._file, self._clock = file, clock
        self._began_s: float | None = None

    def grab(self) -> bool:
        """Wait until the next frame is due.

        Raises:
            NoMoreFrames: the file is at its end.
        """
        self._file.grab()
        now_s, t_s = self._clock.monotonic(), self._file.time_s()
        if self._began_s is None:
            self._began_s = now_s - t_s
        early_s = self._began_s + t_s - now_s
        if early_s > 0:
            time.sleep(min(early_s, 1.0))
        return True

    def retrieve(self) -> U8 | None:
        """Decode the frame."""
        return self._file.retrieve()

    def time_s(self) -> float:
        """Seconds from the first frame of the first pass."""
        return self._file.time_s()

    def length(self) -> tuple[float, int]:
        """Frames per second and number of frames that the file says it has."""
        return self._file.length()

    def differences(self) -> list[str]:
        """Nothing was asked."""
        return []

    def release(self) -> None:
        """Close the file."""
        self._file.release()


class VideoSource:
    """Frames of a video file in their order, none left out. A `FrameSource`."""

    live = False

    def __init__(
        self,
        spec: CaptureSpec,
        *,
        rate_hz: float | None = None,
        loop: bool = False,
        open_capture: OpenCapture = open_with_opencv,
    ) -> None:
        """Check that the file is a video.

        Args:
            spec: the file.
            rate_hz: frames per second to give, by the file's own times; None for all.
            loop: begin again at the end, for ever; times and numbers go on growing.
            open_capture: opens it.

        Raises:
            InputError: not a video OpenCV can decode.
        """
        self._spec, self._rate_hz, self._loop = spec, rate_hz, loop
        self._open_capture = open_capture
        self._notices = Notices()
        self._running: list[ReadAhead] = []
        file = self._file()
        self.fps, self.file_frames = file.length()
        file.release()
        self.left_out: Sequence[str] = ()

    @property
    def length_s(self) -> float | None:
        """Length of one pass, by the container's head; None when it does not say."""
        return self.file_frames / self.fps if self.fps > 0 and self.file_frames > 0 else None

    def frames(self) -> Iterator[Frame]:
        """Give each frame; begins at the start each time it is called."""
        ahead = ReadAhead(self._decoded, frames=_READY_FRAMES)
        self._running.append(ahead)
        try:
            yield from ahead.frames()
        finally:
            self._running.remove(ahead)
            ahead.close()

    def count(self) -> int | None:
        """Frames that will be given, about; None for ever."""
        if self._loop or self.file_frames <= 0:
            return None
        if self._rate_hz is None or self.fps <= self._rate_hz:
            return self.file_frames
        length_s = (self.file_frames - 1) / self.fps
        return int((length_s + _TOLERANCE_S) * self._rate_hz) + 1

    def events(self) -> list[str]:
        """What happened since the last call, one line each."""
        return self._notices.taken()

    def close(self) -> None:
        """Stop reading."""
        for ahead in list(self._running):
            if not ahead.close():
                self._notices.say(f"{self._spec.shown} hangs in a read; it is left to itself")

    def _file(self) -> VideoFile:
        return VideoFile(self._spec, self._open_capture, self._notices.say, loop=self._loop)

    def _decoded(self) -> Generator[Frame, None, None]:
        file = self._file()
        watch = PictureWatch(may_freeze=False)
        number, due_s, broken = -1, 0.0, 0
        try:
            while True:
                started_s = time.perf_counter()
                try:
                    file.grab()
                except NoMoreFrames:
                    return
                number += 1
                if self._rate_hz is not None:
                    if file.time_s() < due_s - _TOLERANCE_S:
                        continue
                    due_s = next_due_s(due_s, file.time_s(), 1 / self._rate_hz)
                image, problem = self._look(file.retrieve(), watch)
                broken = self._count_broken(number, before=broken, is_broken=problem == _BROKEN)
                yield Frame(
                    name=f"{number:06d}",
                    image=image,
                    t_s=file.time_s(),
                    capture_ms=1e3 * (time.perf_counter() - started_s),
                    problem=problem,
                )
                del image
        finally:
            file.release()

    def _count_broken(self, number: int, *, before: int, is_broken: bool) -> int:
        if is_broken and not before:
            self._notices.say(f"{self._spec.shown}: frame {number:06d} cannot be decoded")
        elif before and not is_broken:
            self._notices.say(f"frames can be decoded again after {before} that could not")
        return before + 1 if is_broken else 0

    def _look(self, bgr: U8 | None, watch: PictureWatch) -> tuple[U8 | None, str]:
        if bgr is None:
            return None, _BROKEN
        verdict = watch.look(bgr)
        for line in verdict.events:
            self._notices.say(line)
        if verdict.problem:
            return None, verdict.problem
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), ""


def next_due_s(due_s: float, t_s: float, period_s: float) -> float:
    """When the frame after one at `t_s` is due, so that the rate holds on average.

    From the time the frame was due, not the time it came; after a gap, from the time it came.
    """
    next_s = due_s + period_s
    return next_s if next_s > t_s else t_s + period_s
