"""A frame at the resolutions its ground views need, each made once."""

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

_CLOSE_ENOUGH = 0.9
"""A frame that is at most this much finer than needed is taken as it is."""
_LEAST_PX = 16
"""No side becomes shorter than this."""


class FramePyramid:
    """Area averages of one frame. Not thread-safe.

    Views of one frame, for other headings or tile sizes, mostly need the same resolution. Halving
    takes a twentieth of the time of any other reduction by area in OpenCV, so halves come first
    and the rest is a reduction of a small picture.
    """

    def __init__(self, frame: U8) -> None:
        """Take a frame of (H, W, 3) uint8."""
        self.frame = frame
        self._halves = [frame]
        self._made: dict[tuple[int, int], U8] = {}

    def shrunk(self, factor: float) -> U8:
        """The frame at about `factor` times its resolution, (h, w, 3) uint8.

        Exactly the same field of view, corner to corner. Not to be written to.

        Args:
            factor: above 0; from 0.9 on the frame itself is given.
        """
        height, width = self.frame.shape[:2]
        factor = max(factor, _LEAST_PX / min(height, width))
        if factor > _CLOSE_ENOUGH:
            return self.frame
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        if size not in self._made:
            source = self._half(size)
            self._made[size] = (
                source
                if source.shape[1::-1] == size
                else np.asarray(cv2.resize(source, size, interpolation=cv2.INTER_AREA), np.uint8)
            )
        return self._made[size]

    def _half(self, size: tuple[int, int]) -> U8:
        """The smallest picture by halving that is no smaller than a size (width, height)."""
        for level in range(64):
            if level == len(self._halves):
                height, width = self._halves[-1].shape[:2]
                if height % 2 or width % 2:
                    # Half a pixel has no place in a picture that must stay corner to corner.
                    break
                half = cv2.resize(
                    self._halves[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA
                )
                self._halves.append(np.asarray(half, np.uint8))
            height, width = self._halves[level].shape[:2]
            if width < size[0] or height < size[1]:
                return self._halves[level - 1]
        return self._halves[-1]
