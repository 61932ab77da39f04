"""What the page wants to know of one frame beside its fix."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]


class Sight(Protocol):
    """A frame as it was compared with the imagery. Its arrays are never written to again."""

    @property
    def view_rgb(self) -> U8:
        """(S, S, 3) uint8 RGB, the ground view with the heading that was assumed up north."""
        ...

    @property
    def mask(self) -> U8:
        """(S, S) uint8, 255 where the camera saw the ground, else 0."""
        ...

    @property
    def size_m(self) -> float:
        """Side of the view on the ground, with the height that was assumed."""
        ...

    @property
    def centre_lat_deg(self) -> float | None:
        """Where the view's centre lies by the best match; None without one."""
        ...

    @property
    def centre_lon_deg(self) -> float | None:
        """The same, longitude."""
        ...

    @property
    def yaw_correction_deg(self) -> float:
        """Added to the assumed heading by the best match, clockwise; 0 without one."""
        ...

    @property
    def scale_correction(self) -> float:
        """Factor on the assumed height by the best match; 1 without one."""
        ...
