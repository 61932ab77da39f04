"""Tells pictures that show nothing: black, white, of one colour, or the same again and again."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

FROZEN_AFTER = 5
"""A sensor's noise never repeats; a driver that hands out its last buffer does. Five alike are no
accident even for a stream that sends a frame twice to keep its rate."""
_BLACK_BELOW = 20
"""Video black is 16; noise and compression add a little."""
_WHITE_ABOVE = 250
_FLAT_WITHIN = 4
_IGNORED = 0.005
"""Share of the pixels at either end that does not count: dead pixels, a time stamp in a corner."""
_STEP_PX = 8


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a picture shows, if it shows nothing to match."""

    problem: str = ""
    """Why the picture is of no use; empty where it may be."""
    events: tuple[str, ...] = ()
    """What began or ended with it."""


class PictureWatch:
    """Looks at each picture of one source, in order. Not thread-safe."""

    def __init__(self, *, may_freeze: bool) -> None:
        """Start with nothing seen.

        Args:
            may_freeze: whether a picture that repeats is a fault, as it is for a camera; a file may
                well hold the same picture twice.
        """
        self._may_freeze = may_freeze
        self._before: U8 | None = None
        self._sample: U8 | None = None
        self._alike = 1
        self._size: tuple[int, int] | None = None
        self._lasting = ""

    def look(self, image: U8) -> Verdict:
        """Judge one picture.

        Args:
            image: (H, W, 3) uint8. Kept until the next call: do not write into it.

        Returns:
            Its problem, and events of changes since the picture before.
        """
        events = []
        height, width = image.shape[:2]
        if self._size is not None and (height, width) != self._size:
            was = f"{self._size[1]}x{self._size[0]}"
            events.append(f"the frames changed their size from {was} to {width}x{height}")
        self._size = (height, width)
        sample = np.ascontiguousarray(image[_STEP_PX // 2 :: _STEP_PX, _STEP_PX // 2 :: _STEP_PX])
        if sample.size == 0:
            sample = image
        alike_before = self._alike
        self._count_alike(image, sample)
        kind = _flatness(sample)
        problem = f"the picture is {kind}" if kind else ""
        if not kind and self._may_freeze and self._alike >= FROZEN_AFTER:
            kind = "frozen"
            problem = f"the camera shows the same picture for {self._alike} frames"
        if kind != self._lasting:
            if self._lasting == "frozen":
                events.append(f"the picture moves again after {alike_before} equal frames")
            elif self._lasting:
                events.append(f"the picture is no longer {self._lasting}")
            if kind:
                events.append(problem)
            self._lasting = kind
        return Verdict(problem=problem, events=tuple(events))

    def _count_alike(self, image: U8, sample: U8) -> None:
        if not self._may_freeze:
            return
        # The sample tells nearly all apart; only where it cannot, every pixel is compared.
        same = (
            self._before is not None
            and self._sample is not None
            and np.array_equal(sample, self._sample)
            and np.array_equal(image, self._before)
        )
        self._alike = self._alike + 1 if same else 1
        self._before, self._sample = image, sample


def _flatness(sample: U8) -> str:
    grey = cv2.cvtColor(sample, cv2.COLOR_BGR2GRAY)
    histogram = np.bincount(grey.ravel(), minlength=256).cumsum()
    pixels = int(histogram[-1])
    low = int(np.searchsorted(histogram, _IGNORED * pixels, side="right"))
    high = int(np.searchsorted(histogram, (1 - _IGNORED) * pixels))
    if high < _BLACK_BELOW:
        return "black"
    if low > _WHITE_ABOVE:
        return "white"
    return "of one colour" if high - low < _FLAT_WITHIN else ""
