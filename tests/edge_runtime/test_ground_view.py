import math
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.ground_view import (
    MAX_OFF_NADIR_DEG,
    MIN_COVERAGE,
    GroundView,
    ViewHypothesis,
    ground_view,
    view_hypotheses,
)
from edge_runtime.state import VehicleState

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]

CAMERA = Camera.from_hfov(320, 240, 70.0)
HEIGHT_M = 60.0
SIZE_M, SIZE_PX = 50.0, 100


def ground_colour(east_m: F64, north_m: F64) -> F64:
    """A made-up ground without symmetries: waves of 9 to 40 m, another in every channel."""
    red = 120 + 60 * np.sin(east_m / 3.1 + 0.4) + 40 * np.sin(north_m / 6.3)
    green = 130 + 55 * np.sin((north_m + 0.5 * east_m) / 2.7) + 30 * np.cos(east_m / 5.0)
    blue = 125 + 70 * np.sin((north_m - east_m) / 4.1 + 1.0) + 30 * np.sin(north_m / 1.9)
    return np.stack([red, green, blue], axis=-1)


def turned(vector: F64, about: F64, angle_deg: float) -> F64:
    """Rodrigues' rotation, right-handed."""
    a = math.radians(angle_deg)
    return np.asarray(
        vector * math.cos(a)
        + np.cross(about, vector) * math.sin(a)
        + about * (about @ vector) * (1 - math.cos(a))
    )


def camera_axes_ned(yaw: float, pitch: float, roll: float) -> tuple[F64, F64, F64]:
    """Forward, right and down of something flown by yaw, then pitch, then roll."""
    forward, right, down = np.eye(3)
    forward, right = turned(forward, down, yaw), turned(right, down, yaw)
    forward, down = turned(forward, right, pitch), turned(down, right, pitch)
    return forward, turned(right, forward, roll), turned(down, forward, roll)


def without_lens(distorted: F64, distortion: tuple[float, ...]) -> F64:
    """Invert Brown's lens model (k1, k2, p1, p2, k3, as OpenCV writes it) step by step."""
    k1, k2, p1, p2, k3 = (*distortion, 0.0, 0.0, 0.0, 0.0, 0.0)[:5]
    x, y = distorted.T
    for _ in range(80 if distortion else 1):
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        dx = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        dy = p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        x, y = (distorted[:, 0] - dx) / radial, (distorted[:, 1] - dy) / radial
    return np.stack([x, y], axis=1)


def photographed(camera: Camera, axes: tuple[F64, F64, F64], height_m: float) -> U8:
    """Render the made-up ground ray by ray; 2x2 rays a pixel, black above the horizon."""
    forward, right, down = axes
    sub = np.array([-0.25, 0.25])
    u = (np.arange(camera.width_px)[:, None] + sub).ravel()
    v = (np.arange(camera.height_px)[:, None] + sub).ravel()
    x, y = np.meshgrid((u - camera.cx_px) / camera.fx_px, (v - camera.cy_px) / camera.fy_px)
    seen = without_lens(np.stack([x.ravel(), y.ravel()], axis=1), camera.distortion)
    ray = forward + seen[:, :1] * right + seen[:, 1:] * down
    with np.errstate(divide="ignore", invalid="ignore"):
        colour = ground_colour(ray[:, 1] / ray[:, 2] * height_m, ray[:, 0] / ray[:, 2] * height_m)
    colour[ray[:, 2] <= 0.02] = 0
    shape = (camera.height_px, 2, camera.width_px, 2, 3)
    return np.asarray(np.clip(colour.reshape(shape).mean(axis=(1, 3)), 0, 255).round(), np.uint8)


def expected_picture(view: GroundView) -> F64:
    """The ground as it is: column 0 lies half a step east of the west edge."""
    step = view.size_m / len(view.image)
    along = (np.arange(len(view.image)) + 0.5) * step - view.size_m / 2
    east, north = np.meshgrid(view.centre_east_m + along, view.centre_north_m - along)
    return ground_colour(east, north)


def view_of(
    frame: U8, camera: Camera, state: VehicleState, yaw: float, *, size_m: float = SIZE_M
) -> GroundView | None:
    hypothesis = ViewHypothesis(yaw, HEIGHT_M)
    return ground_view(frame, camera, state, hypothesis, size_m=size_m, size_px=SIZE_PX)


def assert_shows_the_ground(view: GroundView | None, *, within: float) -> None:
    assert view is not None
    seen = cv2.erode(view.mask, np.ones((3, 3), np.uint8)) > 0
    error = np.abs(view.image - expected_picture(view))[seen]
    assert error.mean() < within
    assert np.percentile(error, 99) < 4 * within


STATE = VehicleState(t_s=0.0)


@pytest.mark.parametrize("yaw", [0.0, 90.0, 180.0, 270.0, 33.0])
def test_north_is_up_whatever_the_heading(yaw: float) -> None:
    frame = photographed(CAMERA, camera_axes_ned(yaw, -90.0, 0.0), HEIGHT_M)
    view = view_of(frame, CAMERA, STATE, yaw)
    assert_shows_the_ground(view, within=1.5)
    assert view is not None
    assert (view.centre_east_m, view.centre_north_m) == pytest.approx((0.0, 0.0), abs=1e-9)


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"), [(20.0, 8.0, 0.0), (200.0, 0.0, 12.0), (310.0, -7.0, -9.0)]
)
def test_a_fixed_cameras_roll_and_pitch_are_undone(yaw: float, pitch: float, roll: float) -> None:
    camera = replace(CAMERA, stabilised=False)
    forward, right, down = camera_axes_ned(yaw, pitch, roll)
    # Mounted straight down: the optical axis is the airframe's down, image up is its nose.
    frame = photographed(camera, (down, right, -forward), HEIGHT_M)
    state = VehicleState(t_s=0.0, pitch_deg=pitch, roll_deg=roll)
    assert_shows_the_ground(view_of(frame, camera, state, yaw), within=1.5)


@pytest.mark.parametrize("pitch", [-75.0, -50.0])
def test_an_oblique_gimbal_camera_gives_a_plan(pitch: float) -> None:
    frame = photographed(CAMERA, camera_axes_ned(70.0, pitch, 3.0), HEIGHT_M)
    state = VehicleState(t_s=0.0, gimbal_pitch_deg=pitch, gimbal_roll_deg=3.0)
    assert_shows_the_ground(view_of(frame, CAMERA, state, 70.0), within=2.5)


@pytest.mark.parametrize(
    "distortion", [(-0.18, 0.04, 0.0, 0.0), (0.1, 0.0, 0.003, -0.002), (-0.2, 0.06, 0.0, 0.0, 0.0)]
)
def test_the_lens_is_undone(distortion: tuple[float, ...]) -> None:
    camera = replace(CAMERA, distortion=distortion, cx_px=165.0, cy_px=116.0)
    frame = photographed(camera, camera_axes_ned(45.0, -90.0, 0.0), HEIGHT_M)
    assert_shows_the_ground(view_of(frame, camera, STATE, 45.0), within=1.5)


def test_a_frame_of_half_the_size_gives_the_same_view() -> None:
    big = photographed(CAMERA, camera_axes_ned(10.0, -90.0, 0.0), HEIGHT_M)
    small = np.asarray(cv2.resize(big, (160, 120), interpolation=cv2.INTER_AREA), np.uint8)
    assert_shows_the_ground(view_of(small, CAMERA, STATE, 10.0), within=2.5)


def test_detail_finer_than_the_patch_is_averaged_and_not_sampled() -> None:
    """A checkerboard of single pixels is grey from afar; sampled, it would be stripes."""
    rows, columns = np.indices((960, 1280))
    board = np.where((rows + columns) % 2, 255, 0).astype(np.uint8)
    frame = np.repeat(board[..., None], 3, axis=2)
    view = view_of(frame, Camera.from_hfov(1280, 960, 70.0), STATE, 17.0)
    assert view is not None
    inner = view.image[view.mask > 0].astype(float)
    assert inner.mean() == pytest.approx(127.5, abs=2)
    assert inner.std() < 12


def test_unseen_ground_is_masked_and_filled_with_the_mean_colour() -> None:
    frame = np.full((240, 320, 3), (200, 100, 50), np.uint8)
    view = view_of(frame, CAMERA, STATE, 0.0, size_m=80.0)
    assert view is not None
    width_m = 2 * HEIGHT_M * math.tan(math.radians(35))
    assert view.coverage == pytest.approx(width_m * 0.75 / 80.0, abs=0.03)
    rows = np.flatnonzero(view.mask.any(axis=1))
    assert rows[0] + rows[-1] == SIZE_PX - 1  # Unseen strips lie above and below, alike.
    assert set(np.unique(view.mask)) == {0, 255}
    assert np.all(np.abs(view.image.astype(int) - (200, 100, 50)) <= 1)


def test_too_little_visible_ground_gives_no_view() -> None:
    frame = np.full((240, 320, 3), 90, np.uint8)
    width_m = 2 * HEIGHT_M * math.tan(math.radians(35))
    at_limit_m = math.sqrt(width_m * width_m * 0.75 / MIN_COVERAGE)
    assert view_of(frame, CAMERA, STATE, 0.0, size_m=at_limit_m * 0.95) is not None
    assert view_of(frame, CAMERA, STATE, 0.0, size_m=at_limit_m * 1.05) is None


@pytest.mark.parametrize("pitch", [-4.0, 0.0, 30.0])
def test_a_camera_at_or_above_the_horizon_gives_no_view(pitch: float) -> None:
    frame = np.full((240, 320, 3), 90, np.uint8)
    state = VehicleState(t_s=0.0, gimbal_pitch_deg=pitch)
    assert view_of(frame, CAMERA, state, 0.0) is None


@pytest.mark.parametrize("height", [1.0, 0.0, -20.0])
def test_a_drone_on_the_ground_gives_no_view(height: float) -> None:
    frame = np.full((240, 320, 3), 90, np.uint8)
    hypothesis = ViewHypothesis(0.0, height)
    assert ground_view(frame, CAMERA, STATE, hypothesis, size_m=5.0, size_px=32) is None


def test_an_oblique_view_is_pulled_nearer_than_where_the_axis_meets_the_ground() -> None:
    frame = photographed(CAMERA, camera_axes_ned(90.0, -32.0, 0.0), HEIGHT_M)
    state = VehicleState(t_s=0.0, gimbal_pitch_deg=-32.0)
    view = view_of(frame, CAMERA, state, 90.0)
    assert view is not None
    assert view.look_east_m == pytest.approx(HEIGHT_M / math.tan(math.radians(32)))
    far_edge_m = HEIGHT_M * math.tan(math.radians(MAX_OFF_NADIR_DEG))
    assert view.centre_east_m + SIZE_M / 2 == pytest.approx(far_edge_m)
    assert (view.look_north_m, view.centre_north_m) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert_shows_the_ground(view, within=4.0)


def test_ground_beyond_a_lens_polynomials_fold_is_not_seen() -> None:
    """k1 = -0.25 turns back at r = 1.15; what is farther out must not come back into the mask."""
    camera = replace(Camera.from_hfov(320, 240, 85.0), distortion=(-0.25, 0.0, 0.0, 0.0))
    frame = np.full((240, 320, 3), 90, np.uint8)
    view = view_of(frame, camera, STATE, 0.0, size_m=2 * 1.5 * HEIGHT_M)
    assert view is not None
    along = ((np.arange(SIZE_PX) + 0.5) / SIZE_PX - 0.5) * 3.0
    beyond = np.hypot(*np.meshgrid(along, along)) > 1.2
    assert not view.mask[beyond].any()


def test_a_frame_of_another_shape_is_refused() -> None:
    frame = np.zeros((180, 320, 3), np.uint8)
    with pytest.raises(InputError, match="give the camera file of this mode"):
        view_of(frame, CAMERA, STATE, 0.0)


def test_a_known_pose_is_the_only_hypothesis() -> None:
    state = VehicleState(t_s=0.0, yaw_deg=12.0, height_m=80.0)
    assert view_hypotheses(state, height_range_m=(10.0, 500.0)) == [(12.0, 80.0)]


def test_unknown_headings_are_tried_all_round() -> None:
    found = view_hypotheses(VehicleState(t_s=0.0, height_m=80.0))
    assert [h.yaw_deg for h in found] == [30.0 * k for k in range(12)]


def test_a_measured_gimbal_yaw_needs_no_search_of_the_heading() -> None:
    state = VehicleState(t_s=0.0, height_m=80.0, gimbal_yaw_deg=40.0, gimbal_pitch_deg=-90.0)
    assert view_hypotheses(state) == [(40.0, 80.0)]


@pytest.mark.parametrize("heading", [None, 10.0])
def test_a_corrected_hypothesis_turns_a_view_made_with_the_gimbals_yaw(
    heading: float | None,
) -> None:
    """The gimbal says 40 degrees, the camera really looks to 46: the compass is 6 degrees off."""
    frame = photographed(CAMERA, camera_axes_ned(46.0, -90.0, 0.0), HEIGHT_M)
    state = VehicleState(
        t_s=0.0, height_m=HEIGHT_M, yaw_deg=heading, gimbal_yaw_deg=40.0, gimbal_pitch_deg=-90.0
    )
    (hypothesis,) = view_hypotheses(state)
    view = view_of(frame, CAMERA, state, hypothesis.yaw_deg + 6.0)
    assert_shows_the_ground(view, within=1.5)


@pytest.mark.parametrize(
    "bounds", [(0.0, 100.0), (-5.0, 50.0), (200.0, 100.0), (math.nan, 100.0), (10.0, math.inf)]
)
def test_a_range_of_heights_that_is_none_is_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"0 < LOW <= HIGH to --height-range-m"):
        view_hypotheses(VehicleState(t_s=0.0, yaw_deg=0.0), height_range_m=bounds)


@pytest.mark.parametrize("bounds", [(50.0, 200.0), (50.0, 50.0), (50.0, 55.0)])
def test_unknown_heights_span_the_range_in_steps_of_a_quarter(bounds: tuple[float, float]) -> None:
    state = VehicleState(t_s=0.0, yaw_deg=0.0)
    heights = [h.height_m for h in view_hypotheses(state, height_range_m=bounds)]
    assert (heights[0], heights[-1]) == pytest.approx(bounds)
    steps = np.array(heights[1:]) / heights[:-1]
    assert np.all(steps <= 1.25 + 1e-9)
    assert np.allclose(steps, steps[0])


def test_no_height_at_all_is_refused_with_what_to_give() -> None:
    with pytest.raises(InputError, match="--height-range-m LOW HIGH"):
        view_hypotheses(VehicleState(t_s=0.0, yaw_deg=0.0))
