import math
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.camera import Camera, ground_to_image, optical_to_ned
from edge_runtime.errors import InputError
from edge_runtime.ground_view import ViewHypothesis, ground_view
from edge_runtime.state import VehicleState
from train.simulated_camera import Exposure, exposure, relief, seen_ground
from train.simulated_config import SimulationConfig

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
SIZE_M, SIZE_PX = 60.0, 64
NO_ERROR = SimulationConfig(
    heading_sigma_deg=0, scale_sigma=0, tilt_sigma_deg=0, lens_sigma=0, height_m=(80.0, 120.0)
)
CAMERAS = [
    pytest.param(Camera.from_hfov(1600, 900, 69.0), id="straight down"),
    pytest.param(Camera.from_hfov(1600, 900, 69.0, mount_pitch_deg=-81.5), id="leaning"),
    pytest.param(Camera.from_hfov(960, 540, 71.0, mount_pitch_deg=-45.0), id="oblique"),
]


def drawn(config: SimulationConfig, seed: int = 0, size_px: int = SIZE_PX) -> Exposure:
    rng = np.random.default_rng(seed)
    return exposure(config, rng, size_m=SIZE_M, size_px=size_px, encoder_size_m=SIZE_M / 1.25)


def grid_m() -> tuple[F64, F64]:
    """East and north of each pixel of a view from its centre, by a loop."""
    step = SIZE_M / SIZE_PX
    east = np.empty((SIZE_PX, SIZE_PX))
    north = np.empty((SIZE_PX, SIZE_PX))
    for row in range(SIZE_PX):
        for column in range(SIZE_PX):
            east[row, column] = (column + 0.5) * step - SIZE_M / 2
            north[row, column] = SIZE_M / 2 - (row + 0.5) * step
    return east, north


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("seed", range(3))
def test_a_perfect_pose_shows_the_ground_where_it_is(camera: Camera, seed: int) -> None:
    seen = seen_ground(drawn(replace(NO_ERROR, camera=camera), seed))
    east, north = grid_m()
    assert np.abs(seen.east_m - east).max() < 1e-3
    assert np.abs(seen.north_m - north).max() < 1e-3


def test_a_wrong_heading_turns_the_view_about_the_point_looked_at() -> None:
    exposed = drawn(NO_ERROR)
    yaw_deg = exposed.believed.hypothesis.yaw_deg
    turned = replace(exposed, rotation=optical_to_ned(exposed.camera, yaw_deg=yaw_deg + 7))
    seen = seen_ground(turned)
    east, north = grid_m()
    # Clockwise by 7 degrees: what was believed due north lies 7 degrees east of it.
    c, s = math.cos(math.radians(7)), math.sin(math.radians(7))
    assert np.allclose(seen.east_m, c * east + s * north, atol=1e-3)
    assert np.allclose(seen.north_m, -s * east + c * north, atol=1e-3)


def test_higher_than_believed_shows_more_ground() -> None:
    exposed = drawn(NO_ERROR)
    seen = seen_ground(replace(exposed, height_m=1.1 * exposed.believed.hypothesis.height_m))
    east, north = grid_m()
    assert np.allclose(seen.east_m, 1.1 * east, atol=1e-3)
    assert np.allclose(seen.north_m, 1.1 * north, atol=1e-3)


def test_an_unknown_lean_spreads_the_far_side_as_tangents_say() -> None:
    exposed = drawn(NO_ERROR)
    height_m, yaw_deg = exposed.believed.hypothesis.height_m, 0.0
    believed = ground_view(
        np.zeros((90, 160, 3), np.uint8),
        exposed.camera,
        VehicleState(t_s=0, height_m=height_m, yaw_deg=yaw_deg),
        ViewHypothesis(yaw_deg, height_m),
        size_m=SIZE_M,
        size_px=SIZE_PX,
    )
    assert believed is not None
    leaning = replace(exposed.camera, mount_pitch_deg=-82.0)
    rotation = optical_to_ned(leaning, yaw_deg=yaw_deg)
    seen = seen_ground(replace(exposed, believed=believed, rotation=rotation))
    _, north = grid_m()
    ahead_m = north[:, SIZE_PX // 2]
    lean = math.radians(8.0)
    true_m = height_m * (np.tan(np.arctan(ahead_m / height_m) + lean) - math.tan(lean))
    assert np.allclose(seen.north_m[:, SIZE_PX // 2], true_m, atol=0.05)


def test_what_stands_up_hides_ground_behind_it_in_proportion_to_its_distance() -> None:
    exposed = drawn(NO_ERROR)
    flat = seen_ground(exposed)
    tall = seen_ground(exposed, np.full((SIZE_PX, SIZE_PX), 10, np.float32))
    share = 1 - 10 / exposed.height_m
    # Straight down, so the view's centre is the point below the camera.
    assert np.allclose(tall.east_m, flat.east_m * share, atol=1e-3)
    assert np.allclose(tall.north_m, flat.north_m * share, atol=1e-3)


def test_a_lens_that_is_not_as_calibrated_moves_only_what_is_off_the_axis() -> None:
    exposed = drawn(NO_ERROR, size_px=65)
    flat, bent = seen_ground(exposed), seen_ground(replace(exposed, k1=0.05))
    radius = np.hypot(flat.east_m, flat.north_m)
    moved = np.hypot(bent.east_m, bent.north_m) - radius
    tangent = radius / exposed.height_m
    assert np.allclose(moved, 0.05 * radius * tangent**2, atol=1e-3)


def smooth_ground(side_px: int) -> U8:
    noise = np.random.default_rng(5).standard_normal((side_px, side_px, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.asarray(np.clip(128 + soft / soft.std() * 40, 0, 255), np.uint8)


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_frame_of_the_true_pose_through_the_runtimes_view_shows_the_same_ground(
    camera: Camera,
) -> None:
    """The slow way: photograph the ground, then let the runtime make its view of the frame."""
    config = replace(
        NO_ERROR, camera=camera, heading_sigma_deg=5, scale_sigma=0.06, tilt_sigma_deg=2
    )
    exposed = drawn(config, seed=3)
    view = exposed.believed
    gsd_m, side_px = 0.5, 1200
    ground = smooth_ground(side_px)
    # Ground pixels around the point below the drone, north up.
    to_pixel = np.array(
        [
            [1 / gsd_m, 0, (side_px - 1) / 2],
            [0, -1 / gsd_m, (side_px - 1) / 2],
            [0, 0, 1],
        ]
    )
    to_image = ground_to_image(camera, exposed.rotation, exposed.height_m)
    frame = cv2.warpPerspective(
        ground,
        np.linalg.inv(to_image @ np.linalg.inv(to_pixel)),
        (camera.width_px, camera.height_px),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    state = VehicleState(t_s=0, height_m=view.hypothesis.height_m, yaw_deg=view.hypothesis.yaw_deg)
    through = ground_view(
        np.asarray(frame, np.uint8), camera, state, view.hypothesis, size_m=SIZE_M, size_px=SIZE_PX
    )
    assert through is not None
    seen = seen_ground(exposed)
    axis = exposed.rotation[:, 2] / exposed.rotation[2, 2] * exposed.height_m
    east = seen.east_m + axis[1] + view.centre_east_m - view.look_east_m
    north = seen.north_m + axis[0] + view.centre_north_m - view.look_north_m
    direct = cv2.remap(
        ground,
        (to_pixel[0, 0] * east + to_pixel[0, 2]).astype(np.float32),
        (to_pixel[1, 1] * north + to_pixel[1, 2]).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    inside = cv2.erode(view.mask, np.ones((5, 5), np.uint8)) > 0
    assert inside.mean() > 0.3
    difference = np.abs(direct.astype(float) - through.image)[inside]
    assert difference.mean() < 2.0
    assert np.array_equal(seen.mask, through.mask)


def test_errors_have_the_spread_they_are_given() -> None:
    config = replace(NO_ERROR, heading_sigma_deg=5, scale_sigma=0.08, tilt_sigma_deg=3)
    headings, scales, tilts = [], [], []
    for seed in range(400):
        exposed = drawn(config, seed, size_px=16)
        believed = optical_to_ned(exposed.camera, yaw_deg=exposed.believed.hypothesis.yaw_deg)
        # Of a camera that looks down, the axis tells the tilt and the image's top the heading.
        tilts.append(math.degrees(math.acos(exposed.rotation[2, 2])))
        up = -exposed.rotation[:2, 1], -believed[:2, 1]
        turn = math.atan2(up[0][1], up[0][0]) - math.atan2(up[1][1], up[1][0])
        headings.append((math.degrees(turn) + 180) % 360 - 180)
        scales.append(math.log(exposed.height_m / exposed.believed.hypothesis.height_m))
    assert np.std(headings) == pytest.approx(5, rel=0.15)
    assert np.std(scales) == pytest.approx(0.08, rel=0.15)
    # Two Gaussians of 3 degrees at right angles.
    assert np.sqrt(np.mean(np.square(tilts)) / 2) == pytest.approx(3, rel=0.15)


def test_relief_stays_within_its_height_and_is_partly_flat() -> None:
    heights = np.stack(
        [relief(12, np.random.default_rng(seed), size_px=64, step_m=1.0) for seed in range(20)]
    )
    assert heights.min() == 0
    assert heights.max() <= 12
    assert 0.2 < np.mean(heights == 0) < 0.8


def test_a_camera_that_sees_too_little_is_refused() -> None:
    with pytest.raises(InputError, match="give the height it will fly at"):
        drawn(SimulationConfig(height_m=(5.0, 6.0)))
