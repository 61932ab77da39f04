"""From a camera frame to a north-up, metric picture of the ground below.

The ground is taken as flat at the height the state gives. The view is centred where the optical
axis meets it, pulled nearer for oblique cameras, and has the same size in metres as the index's
tiles, so an encoder compares like with like.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.camera import Camera, ground_to_image, optical_to_ned
from edge_runtime.errors import InputError
from edge_runtime.reduced_frames import ReducedFrames
from edge_runtime.state import VehicleState

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
B1 = npt.NDArray[np.bool_]

MAX_OFF_NADIR_DEG = 60.0
"""Ground farther off the vertical is seen too flat to be matched from above."""
MIN_COVERAGE = 0.35
"""Below this visible fraction a view says too little of the place."""


class ViewHypothesis(NamedTuple):
    """What is assumed about the pose where the state does not know it."""

    yaw_deg: float
    height_m: float


@dataclass(frozen=True, kw_only=True)
class GroundView:
    """A north-up patch of ground as the camera saw it."""

    image: U8
    """(S, S, 3) uint8, RGB, north up; unseen ground is filled with the mean colour."""
    mask: U8
    """(S, S) uint8, 255 where the camera saw the ground, else 0."""
    size_m: float
    """Side of the patch on the ground."""
    centre_east_m: float
    """Patch centre, east of the point below the drone."""
    centre_north_m: float
    """Patch centre, north of the point below the drone."""
    look_east_m: float
    """Where the optical axis meets the ground, east of the point below the drone."""
    look_north_m: float
    """The same, north."""
    hypothesis: ViewHypothesis
    """Heading and height this view was made with."""

    @property
    def coverage(self) -> float:
        """Visible fraction of the patch, 0..1."""
        return float(np.count_nonzero(self.mask)) / self.mask.size


def view_hypotheses(
    state: VehicleState, *, height_range_m: tuple[float, float] | None = None
) -> list[ViewHypothesis]:
    """Every heading and height worth trying: one where both are known.

    A measured gimbal yaw stands in for an unknown heading. Otherwise unknown headings are tried
    every 30 degrees, unknown heights over `height_range_m` in steps of 25 %.

    Raises:
        InputError: no height in the state and no range to search, or a range that is not one.
    """
    heading_deg = _known_heading_deg(state)
    yaws = [heading_deg] if heading_deg is not None else [30.0 * k for k in range(12)]
    if state.height_m is not None:
        heights = [state.height_m]
    elif height_range_m is not None:
        low, high = height_range_m
        if not 0 < low <= high < math.inf:
            msg = f"height range is {low} to {high} m; give 0 < LOW <= HIGH to --height-range-m"
            raise InputError(msg)
        steps = max(1, math.ceil(math.log(high / low) / math.log(1.25)))
        heights = [low * (high / low) ** (k / steps) for k in range(steps + 1)]
    else:
        msg = (
            "the state has no height above ground; give telemetry with height_m, "
            "or a range to search with --height-range-m LOW HIGH"
        )
        raise InputError(msg)
    return [ViewHypothesis(yaw, height) for yaw in yaws for height in heights]


def _known_heading_deg(state: VehicleState) -> float | None:
    return state.gimbal_yaw_deg if state.yaw_deg is None else state.yaw_deg


def ground_view(
    frame: U8 | ReducedFrames,
    camera: Camera,
    state: VehicleState,
    hypothesis: ViewHypothesis,
    *,
    size_m: float,
    size_px: int,
) -> GroundView | None:
    """Project a frame to the ground.

    Args:
        frame: (H, W, 3) uint8, RGB, distorted as the lens made it; as `ReducedFrames` where
            several views are made of it.
        camera: calibrated for this frame size or another of the same aspect ratio.
        state: attitude of the airframe and gimbal.
        hypothesis: heading and height to use.
        size_m: side of the ground square.
        size_px: side of the returned image.

    Returns:
        A fresh view, or None when the camera sees too little ground (MIN_COVERAGE) or looks above
        the horizon.
    """
    if hypothesis.height_m <= 1.0:
        return None
    frames = frame if isinstance(frame, ReducedFrames) else ReducedFrames(frame)
    camera = camera.scaled_to(frames.frame.shape[1], frames.frame.shape[0])
    gimbal_yaw_deg, heading_deg = state.gimbal_yaw_deg, _known_heading_deg(state)
    if gimbal_yaw_deg is not None and heading_deg is not None:
        # The camera turns with the aircraft by what the hypothesis corrects.
        gimbal_yaw_deg += hypothesis.yaw_deg - heading_deg
    ned_from_optical = optical_to_ned(
        camera,
        yaw_deg=hypothesis.yaw_deg,
        pitch_deg=state.pitch_deg or 0.0,
        roll_deg=state.roll_deg or 0.0,
        gimbal_pitch_deg=state.gimbal_pitch_deg,
        gimbal_roll_deg=state.gimbal_roll_deg,
        gimbal_yaw_deg=gimbal_yaw_deg,
    )
    look = _look_point_m(ned_from_optical[:, 2], hypothesis.height_m)
    if look is None:
        return None
    centre_east, centre_north = _pulled_nearer(*look, hypothesis.height_m, size_m)

    step_m = size_m / size_px
    patch_to_ground = np.array(
        [
            [step_m, 0.0, centre_east - size_m / 2 + step_m / 2],
            [0.0, -step_m, centre_north + size_m / 2 - step_m / 2],
            [0.0, 0.0, 1.0],
        ]
    )
    patch_to_image = (
        ground_to_image(camera, ned_from_optical, hypothesis.height_m) @ patch_to_ground
    )
    image, mask = _sample(frames, camera, patch_to_image, size_px)
    view = GroundView(
        image=image,
        mask=mask,
        size_m=size_m,
        centre_east_m=centre_east,
        centre_north_m=centre_north,
        look_east_m=look[0],
        look_north_m=look[1],
        hypothesis=hypothesis,
    )
    return view if view.coverage >= MIN_COVERAGE else None


def _look_point_m(axis_ned: F64, height_m: float) -> tuple[float, float] | None:
    """Where the optical axis meets the ground (east, north); None at or above the horizon."""
    down = float(axis_ned[2])
    if down < math.cos(math.radians(85.0)):
        return None
    return float(axis_ned[1]) / down * height_m, float(axis_ned[0]) / down * height_m


def _pulled_nearer(
    east_m: float, north_m: float, height_m: float, size_m: float
) -> tuple[float, float]:
    """Keep the far edge of the patch within MAX_OFF_NADIR_DEG of the vertical."""
    reach_m = math.hypot(east_m, north_m)
    limit_m = max(height_m * math.tan(math.radians(MAX_OFF_NADIR_DEG)) - size_m / 2, 0.0)
    if reach_m <= limit_m or reach_m == 0.0:
        return east_m, north_m
    factor = limit_m / reach_m
    return east_m * factor, north_m * factor


def _sample(
    frames: ReducedFrames, camera: Camera, patch_to_image: F64, size_px: int
) -> tuple[U8, U8]:
    """Warp the frame into the patch without aliasing, undoing the lens on the way."""
    frame = frames.reduced(_patch_scale(patch_to_image, size_px))
    height, width = frame.shape[:2]
    sx, sy = width / camera.width_px, height / camera.height_px
    shrink = np.array([[sx, 0.0, (sx - 1) / 2], [0.0, sy, (sy - 1) / 2], [0.0, 0.0, 1.0]])
    patch_to_rays = np.linalg.inv(camera.matrix()) @ patch_to_image
    # OpenCV's undistortion takes any invertible matrix for the rotation it undoes.
    map_x, map_y = cv2.initUndistortRectifyMap(
        shrink @ camera.matrix(),
        np.asarray(camera.distortion, np.float64),
        np.linalg.inv(patch_to_rays),
        np.eye(3),
        (size_px, size_px),
        cv2.CV_32FC1,
    )
    inside = (map_x >= 0) & (map_x <= width - 1) & (map_y >= 0) & (map_y <= height - 1)
    inside &= _before_the_lens(camera, patch_to_rays, size_px)
    image = cv2.remap(frame, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = inside.view(np.uint8) * np.uint8(255)
    if not inside.all() and inside.any():
        image[~inside] = np.round(cv2.mean(image, mask)[:3])
    return np.asarray(image, np.uint8), mask


def _before_the_lens(camera: Camera, patch_to_rays: F64, size_px: int) -> B1:
    """(S, S) bool: where the lens model holds. Behind the camera and beyond the fold it does not.

    A strong lens polynomial turns back at some distance from the axis: what lies farther out is
    not in the picture, though the model puts it there.
    """
    steps = np.arange(size_px, dtype=np.float32)
    x, y, w = (
        np.float32(column) * steps + (np.float32(row) * steps + np.float32(first))[:, None]
        for column, row, first in patch_to_rays
    )
    ahead = w > 0
    if camera.distortion:
        ahead &= x * x + y * y <= np.square(np.float32(_reach_of_lens(camera)) * w)
    return np.asarray(ahead, np.bool_)


def _reach_of_lens(camera: Camera) -> float:
    """How far from the axis the lens model holds, as the tangent of the angle to it."""
    reach = 1.5 * math.hypot(
        camera.width_px / camera.fx_px / 2, camera.height_px / camera.fy_px / 2
    )
    k1, k2, _, _, k3, k4, k5, k6 = (*camera.distortion, *(0.0,) * 8)[:8]
    r = np.linspace(0.0, reach, 1000)
    r2 = r * r
    numerator = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    imaged = r * numerator / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    turning = np.flatnonzero(np.diff(imaged) <= 0)
    return float(r[turning[0]]) if len(turning) else reach


def _patch_scale(patch_to_image: F64, size_px: int) -> float:
    """How much smaller a frame is as fine as the patch: warping itself does not anti-alias."""
    middle = (size_px - 1) / 2
    corners = np.array([[middle, middle, 1], [middle + 1, middle, 1], [middle, middle + 1, 1]]).T
    xyw = patch_to_image @ corners
    if np.any(xyw[2] <= 0):
        return 1.0
    x, y = xyw[:2] / xyw[2]
    pixels_per_step = math.sqrt(abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])))
    return min(1.0, 1.0 / max(pixels_per_step, 1e-6))
