"""Where on the ground each pixel of a simulated view was really seen.

The runtime turns a frame into a north-up ground view with the pose it believes. Here the frame was
taken with another, true pose, over ground that is not flat, and goes through that ground view.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.camera import Camera, ground_to_image, optical_to_ned
from edge_runtime.errors import InputError
from edge_runtime.ground_view import GroundView, ViewHypothesis, ground_view
from edge_runtime.state import VehicleState
from train.simulated_config import SimulationConfig
from train.simulated_fields import smooth_field

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_COVERS = 1.1
"""Without a height the shorter side of the frame covers this many times the encoder's view."""
_BLANK_PX = 160
_ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """The pose a view is made with and the one its photograph was taken with."""

    camera: Camera
    believed: GroundView
    """Of a blank frame: its mask and where its centre lies. Its hypothesis is the believed pose."""
    rotation: F64
    """(3, 3) true rotation from optical axes to north-east-down."""
    height_m: float
    """True height above ground, the error of the focal length included."""
    k1: float
    """Radial lens term that the calibration missed."""


class SeenGround(NamedTuple):
    """Ground seen by the pixels of a view."""

    east_m: F32
    """(S, S) metres east of the view's place."""
    north_m: F32
    """(S, S) metres north of it."""
    mask: U8
    """(S, S) uint8, 255 inside the camera's frame."""


def default_camera() -> Camera:
    """Straight down, as wide as most drones' cameras."""
    return Camera.from_hfov(1600, 900, 70.0)


def exposure(
    config: SimulationConfig,
    rng: np.random.Generator,
    *,
    size_m: float,
    size_px: int,
    encoder_size_m: float,
) -> Exposure:
    """Draw a believed pose at any heading, and the true one.

    Args:
        config: the camera and its errors.
        rng: the only source of randomness.
        size_m: side of the view, with margin.
        size_px: the same in pixels.
        encoder_size_m: side without margin: what the camera has to cover.

    Raises:
        InputError: the camera does not see enough ground from these heights.
    """
    camera = config.camera or default_camera()
    shorter = min(camera.height_px / camera.fy_px, camera.width_px / camera.fx_px)
    low, high = config.height_m or (encoder_size_m * _COVERS / shorter,) * 2
    shrink = min(1.0, _BLANK_PX / max(camera.width_px, camera.height_px))
    shape = (round(camera.height_px * shrink), round(camera.width_px * shrink), 3)
    for _ in range(_ATTEMPTS):
        yaw_deg, height_m = float(rng.uniform(0, 360)), float(rng.uniform(low, high))
        believed = ground_view(
            np.zeros(shape, np.uint8),
            camera,
            VehicleState(t_s=0.0, height_m=height_m, yaw_deg=yaw_deg),
            ViewHypothesis(yaw_deg, height_m),
            size_m=size_m,
            size_px=size_px,
        )
        if believed is not None:
            break
    else:
        msg = (
            f"from {low:g} to {high:g} m this camera sees too little of {size_m:g} m of ground; "
            "give the height it will fly at, or a smaller ground size"
        )
        raise InputError(msg)
    heading = math.radians(config.heading_sigma_deg * rng.standard_normal())
    tilt = math.radians(config.tilt_sigma_deg) * rng.standard_normal(2)
    about_down, _ = cv2.Rodrigues(np.array([0.0, 0.0, heading]))
    in_image, _ = cv2.Rodrigues(np.array([tilt[0], tilt[1], 0.0]))
    rotation = about_down @ optical_to_ned(camera, yaw_deg=yaw_deg) @ in_image
    return Exposure(
        camera=camera,
        believed=believed,
        rotation=np.asarray(rotation, np.float64),
        height_m=height_m * math.exp(config.scale_sigma * rng.standard_normal()),
        k1=float(config.lens_sigma * rng.standard_normal()),
    )


def seen_ground(exposed: Exposure, heights_m: F32 | float = 0.0) -> SeenGround:
    """Follow each pixel of the view through the believed camera and the true one to the ground.

    Distances are from where the view's centre truly lies: as far from the point the camera truly
    looks at as the runtime believes.

    Args:
        exposed: the poses.
        heights_m: (S, S) what stands on the ground there, or one height for all.
    """
    camera, view = exposed.camera, exposed.believed
    size_px, step_m = view.mask.shape[0], view.size_m / view.mask.shape[0]
    along = (np.arange(size_px) + 0.5) * step_m - view.size_m / 2
    east, north = np.meshgrid(view.centre_east_m + along, view.centre_north_m - along)
    believed_rotation = optical_to_ned(camera, yaw_deg=view.hypothesis.yaw_deg)
    to_image = ground_to_image(camera, believed_rotation, view.hypothesis.height_m)
    x, y = _through(to_image, east, north)
    u, v = (x - camera.cx_px) / camera.fx_px, (y - camera.cy_px) / camera.fy_px
    # Beyond 45 degrees the polynomial means nothing; few cameras see that far.
    factor = 1 + exposed.k1 * np.minimum(u * u + v * v, 1.0)
    x, y = camera.cx_px + factor * u * camera.fx_px, camera.cy_px + factor * v * camera.fy_px
    to_ground = np.linalg.inv(ground_to_image(camera, exposed.rotation, exposed.height_m))
    east, north = _through(np.asarray(to_ground, np.float64), x, y)
    # What stands z high at p is seen where the ray over it meets the ground: p h / (h - z).
    lean = np.minimum(np.asarray(heights_m) / exposed.height_m, 0.5)
    down = exposed.rotation[2, 2]
    look_north_m, look_east_m = exposed.rotation[:2, 2] / down * exposed.height_m
    east = east * (1 - lean) - look_east_m - (view.centre_east_m - view.look_east_m)
    north = north * (1 - lean) - look_north_m - (view.centre_north_m - view.look_north_m)
    return SeenGround(east.astype(np.float32), north.astype(np.float32), view.mask)


def relief(relief_m: float, rng: np.random.Generator, *, size_px: int, step_m: float) -> F32:
    """(S, S) heights, metres: plateaus the size of houses and trees on flat ground."""
    bumps = smooth_field(size_px, rng, wavelength_px=rng.uniform(12, 40) / step_m)
    return np.asarray(np.clip(bumps * 2, 0, 1) * rng.uniform(0, relief_m), np.float32)


def _through(homography: F64, x: F64, y: F64) -> tuple[F64, F64]:
    a, b, c = (row[0] * x + row[1] * y + row[2] for row in homography)
    # Rays near or above the horizon meet no ground: they stay finite, far off, outside the mask.
    sign = np.where(c < 0, -1.0, 1.0)
    c = np.where(np.abs(c) < 1e-9, sign * 1e-9, c)
    return a / c, b / c
