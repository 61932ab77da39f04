"""Which level of tiles a camera at some height is matched against."""

import math
from collections.abc import Sequence

from edge_runtime.camera import Camera
from edge_runtime.geodesy import wrap_degrees
from edge_runtime.ground_view import MAX_OFF_NADIR_DEG, ViewHypothesis
from edge_runtime.index_format import TileLevel

SLACK = 1.03
"""A tile may be larger than the visible square by what heights and focal lengths are off."""


def visible_square_m(
    camera: Camera, height_m: float, *, gimbal_pitch_deg: float | None = None
) -> float:
    """Side of the largest square of flat ground, around the optical axis, that a camera sees.

    The short side of the picture at the distance of the point it looks at; beyond
    MAX_OFF_NADIR_DEG from the vertical as at that angle, since nothing farther is matched.

    Args:
        camera: its intrinsics and how it is mounted.
        height_m: above ground.
        gimbal_pitch_deg: measured pitch of the camera, in place of the mount's.
    """
    pitch_deg = camera.mount_pitch_deg if gimbal_pitch_deg is None else gimbal_pitch_deg
    off_nadir_deg = min(abs(pitch_deg + 90.0), MAX_OFF_NADIR_DEG)
    distance_m = height_m / math.cos(math.radians(off_nadir_deg))
    return distance_m * min(camera.width_px / camera.fx_px, camera.height_px / camera.fy_px)


def level_for(levels: Sequence[TileLevel], square_m: float) -> TileLevel:
    """The level of the largest tiles that a visible square covers, else that of the smallest.

    A tile larger than what the camera sees would be compared with a view that is partly empty.

    Args:
        levels: of an index, smallest tiles first.
        square_m: side of the visible square.
    """
    covered = [level for level in levels if level.size_m <= square_m * SLACK]
    return covered[-1] if covered else levels[0]


def untried_hypotheses(
    hypotheses: Sequence[ViewHypothesis], headings_deg: Sequence[float]
) -> list[ViewHypothesis]:
    """Hypotheses that turned copies of tiles do not try already.

    A view made with one heading looks like a tile with another direction up where the heading is
    wrong by that direction, so headings that lie such a turn from an earlier one add nothing.

    Args:
        hypotheses: in order.
        headings_deg: directions in which each tile was embedded.
    """
    kept: list[ViewHypothesis] = []
    for hypothesis in hypotheses:
        tried = (
            abs(float(wrap_degrees(earlier.yaw_deg + turn - hypothesis.yaw_deg))) < 1.0
            for earlier in kept
            if earlier.height_m == hypothesis.height_m
            for turn in headings_deg
        )
        if not any(tried):
            kept.append(hypothesis)
    return kept
