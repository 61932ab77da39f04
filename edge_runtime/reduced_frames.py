"""A frame at the resolutions its ground views need, each made once."""

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

_CLOSE_ENOUGH = 0.9
"""A frame that is at most this much finer than needed is taken as it is."""
_LEAST_PX = 16
"""No side becomes shorter than this."""


class ReducedFrames:
    """Area averages of one frame. Not thread-safe.

    Averaging takes longer than all else of a ground view, and views of one frame, for other
    headings or sizes, mostly need the same resolution. Going there by halves would be several times
    as fast, but blurs a little more: on real photographs local features then agree less often.
    """

    def __init__(self, frame: U8) -> None:
        """Take a frame of (H, W, 3) uint8."""
        self.frame = frame
        self._made: dict[tuple[int, int], U8] = {}

    def reduced(self, factor: float) -> U8:
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
            small = cv2.resize(self.frame, size, interpolation=cv2.INTER_AREA)
            self._made[size] = np.asarray(small, np.uint8)
        return self._made[size]
