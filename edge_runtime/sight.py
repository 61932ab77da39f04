"""What the newest frame showed and where it fits best, for people to look at."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.frame_views import FrameView
from edge_runtime.refinement import Match, view_centre

U8 = npt.NDArray[np.uint8]


class Sight(NamedTuple):
    """What the newest frame showed and where it fits best, for people to look at."""

    view_rgb: U8
    """(S, S, 3) uint8, north-up ground view."""
    mask: U8
    """(S, S) uint8, 255 where the camera saw the ground."""
    size_m: float
    """Side on the ground."""
    centre_lat_deg: float | None
    """Where the view's centre lies by the best match; None without one."""
    centre_lon_deg: float | None
    yaw_correction_deg: float
    """By which the best match turns the view, clockwise."""
    scale_correction: float
    """By which the best match scales the view."""


def sight_of(views: Sequence[FrameView], matches: Sequence[Match]) -> Sight | None:
    """What a frame's views and matches are to an eye; None without a view."""
    if not views:
        return None
    best = matches[0] if matches else None
    ground = views[best.view if best else 0].ground
    lat_deg, lon_deg = view_centre(ground, best) if best else (None, None)
    return Sight(
        view_rgb=ground.image,
        mask=ground.mask,
        size_m=ground.size_m,
        centre_lat_deg=lat_deg,
        centre_lon_deg=lon_deg,
        yaw_correction_deg=best.yaw_deg - ground.hypothesis.yaw_deg if best else 0.0,
        scale_correction=best.height_m / ground.hypothesis.height_m if best else 1.0,
    )
