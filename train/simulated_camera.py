"""Where on the ground each pixel of a simulated view was really seen.

The runtime turns a frame into a north-up ground view with the pose it believes. Here a frame is
taken with another, true pose, over ground that is not flat, and goes through that same ground view.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.camera import Camera, ground_to_image, optical_to_ned
from edge_runtime.errors import InputError
from edge_runtime.ground_view import ViewHypothesis, ground_view
from edge_runtime.state import VehicleState
from train.simulated_config import SimulationConfig
from train.simulated_fields import smooth_field

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_COVERS = 1.1
"""Without a height the shorter side of the frame is this many times the encoder's view."""
_ATTEMPTS = 20


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


def seen_ground(
    config: SimulationConfig,
    rng: np.random.Generator,
    *,
    size_m: float,
    size_px: int,
    encoder_size_m: float,
) -> SeenGround:
    """Draw a pose, believed and true, and follow each pixel of the view to the ground.

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
    believed = None
    for _ in range(_ATTEMPTS):
        yaw_deg, height_m = float(rng.uniform(0, 360)), float(rng.uniform(low, high))
        believed = ground_view(
            _blank(camera),
            camera,
            VehicleState(t_s=0.0, height_m=height_m, yaw_deg=yaw_deg),
            ViewHypothesis(yaw_deg, height_m),
            size_m=size_m,
            size_px=size_px,
        )
        if believed is not None:
            break
    if believed is None:
        msg = (
            f"from {low:g} to {high:g} m this camera sees too little of {size_m:g} m of ground; "
            "give the height it will fly at, or a smaller ground size"
        )
        raise InputError(msg)

    rotation = optical_to_ned(camera, yaw_deg=yaw_deg)
    true_rotation = _turned(rotation, config, rng)
    true_height_m = height_m * math.exp(config.scale_sigma * rng.standard_normal())
    step_m = size_m / size_px
    along = ((np.arange(size_px) + 0.5) * step_m - size_m / 2).astype(np.float64)
    east, north = np.meshgrid(believed.centre_east_m + along, believed.centre_north_m - along)
    x, y = _through(ground_to_image(camera, rotation, height_m), east, north)
    k1 = config.lens_sigma * rng.standard_normal()
    u, v = (x - camera.cx_px) / camera.fx_px, (y - camera.cy_px) / camera.fy_px
    # Beyond the frame the polynomial means nothing; those pixels are masked.
    factor = 1 + k1 * np.minimum(u * u + v * v, 1.0)
    x, y = camera.cx_px + factor * u * camera.fx_px, camera.cy_px + factor * v * camera.fy_px
    to_true_ground = np.asarray(
        np.linalg.inv(ground_to_image(camera, true_rotation, true_height_m)), np.float64
    )
    east, north = _through(to_true_ground, x, y)

    if config.relief_m:
        # What stands z high at p is seen where the ray over it meets the ground: p h / (h - z).
        lean = np.minimum(_relief(config.relief_m, rng, size_px, step_m) / true_height_m, 0.5)
        east, north = east * (1 - lean), north * (1 - lean)
    axis = true_rotation[:, 2]
    offset = config.offset_sigma_m * rng.standard_normal(2)
    east -= axis[1] / axis[2] * true_height_m + believed.centre_east_m - believed.look_east_m
    north -= axis[0] / axis[2] * true_height_m + believed.centre_north_m - believed.look_north_m
    return SeenGround(
        (east + offset[0]).astype(np.float32), (north + offset[1]).astype(np.float32), believed.mask
    )


def _blank(camera: Camera) -> U8:
    """A small frame of this camera's shape: only the mask of its ground view is wanted."""
    shrink = min(1.0, 160 / max(camera.width_px, camera.height_px))
    size = (round(camera.height_px * shrink), round(camera.width_px * shrink), 3)
    return np.zeros(size, np.uint8)


def _turned(rotation: F64, config: SimulationConfig, rng: np.random.Generator) -> F64:
    """The true rotation: heading turns about the vertical, tilt about the image's own axes."""
    heading = math.radians(config.heading_sigma_deg * rng.standard_normal())
    tilt = np.radians(config.tilt_sigma_deg) * rng.standard_normal(2)
    about_down, _ = cv2.Rodrigues(np.array([0.0, 0.0, heading]))
    in_image, _ = cv2.Rodrigues(np.array([tilt[0], tilt[1], 0.0]))
    return np.asarray(about_down @ rotation @ in_image, np.float64)


def _through(homography: F64, x: F64, y: F64) -> tuple[F64, F64]:
    a, b, c = (row[0] * x + row[1] * y + row[2] for row in homography)
    # Rays near or above the horizon meet no ground: they are kept finite and lie outside the mask.
    sign = np.where(c < 0, -1.0, 1.0)
    c = np.where(np.abs(c) < 1e-9, sign * 1e-9, c)
    return a / c, b / c


def _relief(relief_m: float, rng: np.random.Generator, size_px: int, step_m: float) -> F32:
    """(S, S) heights, metres: plateaus the size of houses and trees on flat ground."""
    bumps = smooth_field(size_px, rng, wavelength_px=rng.uniform(12, 40) / step_m)
    return np.asarray(np.clip(bumps * 2, 0, 1) * rng.uniform(0, relief_m), np.float32)
