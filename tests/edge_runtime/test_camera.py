import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.camera import Camera, ground_to_image, optical_to_ned, rotation_ned
from edge_runtime.errors import InputError

F64 = npt.NDArray[np.float64]
ANGLE = st.floats(-180, 180)
CAMERA = Camera.from_hfov(640, 480, 70.0)
RIGHT, DOWN, FORWARD = np.eye(3)
NORTH, EAST, BELOW = np.eye(3)


def pixel_slowly(
    camera: Camera, ned_from_optical: F64, height_m: float, east_m: float, north_m: float
) -> tuple[float, float]:
    """One ground point through the camera, coordinate by coordinate."""
    point_ned = (north_m, east_m, height_m)
    x, y, z = (
        sum(ned_from_optical[row][axis] * point_ned[row] for row in range(3)) for axis in range(3)
    )
    return camera.fx_px * x / z + camera.cx_px, camera.fy_px * y / z + camera.cy_px


def look_point_m(ned_from_optical: F64, height_m: float) -> tuple[float, float]:
    """East and north of where the optical axis meets the ground."""
    north, east, down = ned_from_optical @ FORWARD
    return east / down * height_m, north / down * height_m


@given(ANGLE, st.floats(-90, 90), ANGLE)
def test_every_rotation_keeps_lengths_and_handedness(yaw: float, pitch: float, roll: float) -> None:
    r = rotation_ned(yaw, pitch, roll)
    assert np.allclose(r @ r.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(r) == pytest.approx(1.0)


@given(ANGLE, st.floats(-120, -60), st.floats(-20, 20), st.floats(-30, 30), st.floats(-30, 30))
def test_the_homography_agrees_with_a_ray_traced_by_hand(
    yaw: float, pitch: float, roll: float, east: float, north: float
) -> None:
    r = optical_to_ned(CAMERA, yaw_deg=yaw, gimbal_pitch_deg=pitch, gimbal_roll_deg=roll)
    u, v, w = ground_to_image(CAMERA, r, 80.0) @ [east, north, 1.0]
    expected = pixel_slowly(CAMERA, r, 80.0, east, north)
    assert (u / w, v / w) == pytest.approx(expected, abs=1e-6)


@given(ANGLE)
def test_a_nadir_camera_looks_down_with_the_heading_up(yaw: float) -> None:
    r = optical_to_ned(CAMERA, yaw_deg=yaw)
    assert r @ FORWARD == pytest.approx(BELOW, abs=1e-12)
    heading = [math.cos(math.radians(yaw)), math.sin(math.radians(yaw)), 0.0]
    assert r @ -DOWN == pytest.approx(heading, abs=1e-12)


@given(st.floats(20, 100), st.floats(20, 100))
def test_the_horizontal_field_of_view_comes_back_from_the_focal_length(
    hfov: float, height_m: float
) -> None:
    """At nadir the picture's width on the ground is 2 h tan(hfov / 2)."""
    camera = Camera.from_hfov(640, 480, hfov)
    to_image = ground_to_image(camera, optical_to_ned(camera, yaw_deg=0.0), height_m)
    edge_m = height_m * math.tan(math.radians(hfov / 2))
    u, _, w = to_image @ [edge_m, 0.0, 1.0]
    assert u / w == pytest.approx(639.5, abs=1e-6)  # The outer edge of the last pixel.


@pytest.mark.parametrize("size", [(1280, 960), (320, 240), (64, 48), (641, 480)])
def test_a_resized_picture_shows_the_same_rays(size: tuple[int, int]) -> None:
    """A point at a fraction of the picture, edges counted, stays at this fraction."""
    camera = replace(CAMERA, cx_px=300.0, cy_px=250.0)
    scaled = camera.scaled_to(*size)
    r = optical_to_ned(camera, yaw_deg=20.0, gimbal_pitch_deg=-70.0)
    point = np.array([5.0, 12.0, 1.0])
    u0, v0, w0 = ground_to_image(camera, r, 60.0) @ point
    u1, v1, w1 = ground_to_image(scaled, r, 60.0) @ point
    assert (u1 / w1 + 0.5) / size[0] == pytest.approx((u0 / w0 + 0.5) / 640)
    assert (v1 / w1 + 0.5) / size[1] == pytest.approx((v0 / w0 + 0.5) / 480)


@pytest.mark.parametrize(
    ("heading", "east", "north"), [(0, 0, -1), (90, -1, 0), (180, 0, 1), (270, 1, 0)]
)
def test_what_lies_behind_is_at_the_bottom_of_a_nadir_picture(
    heading: float, east: float, north: float
) -> None:
    to_image = ground_to_image(CAMERA, optical_to_ned(CAMERA, yaw_deg=heading), 50.0)
    u, v, w = to_image @ [10 * east, 10 * north, 1.0]
    assert u / w == pytest.approx(CAMERA.cx_px)
    assert v / w > CAMERA.cy_px + 50


def test_a_camera_pitched_45_degrees_looks_as_far_ahead_as_it_is_high() -> None:
    r = optical_to_ned(CAMERA, yaw_deg=90.0, gimbal_pitch_deg=-45.0)
    assert look_point_m(r, 120.0) == pytest.approx((120.0, 0.0), abs=1e-9)
    mounted = replace(CAMERA, mount_pitch_deg=-45.0)
    assert optical_to_ned(mounted, yaw_deg=90.0) == pytest.approx(r)


def test_rolling_right_turns_a_nadir_camera_to_the_left() -> None:
    """Right wing down swings the belly, and what it looks at, to the left."""
    fixed = replace(CAMERA, stabilised=False)
    r = optical_to_ned(fixed, yaw_deg=0.0, roll_deg=10.0)
    east, north = look_point_m(r, 100.0)
    assert east == pytest.approx(-100 * math.tan(math.radians(10)))
    assert north == pytest.approx(0.0, abs=1e-9)


def test_nose_up_makes_a_nadir_camera_look_ahead() -> None:
    fixed = replace(CAMERA, stabilised=False)
    r = optical_to_ned(fixed, yaw_deg=0.0, pitch_deg=10.0)
    assert look_point_m(r, 100.0) == pytest.approx((0.0, 100 * math.tan(math.radians(10))))


def test_a_stabilised_camera_ignores_the_airframes_attitude() -> None:
    level = optical_to_ned(CAMERA, yaw_deg=33.0)
    assert optical_to_ned(CAMERA, yaw_deg=33.0, pitch_deg=20.0, roll_deg=-30.0) == pytest.approx(
        level
    )


def test_a_mount_turned_right_adds_to_the_heading() -> None:
    turned = replace(CAMERA, mount_yaw_deg=90.0)
    assert optical_to_ned(turned, yaw_deg=10.0) == pytest.approx(
        optical_to_ned(CAMERA, yaw_deg=100.0)
    )


def test_measured_gimbal_angles_replace_mount_and_heading() -> None:
    turned = replace(CAMERA, mount_yaw_deg=50.0, mount_pitch_deg=-30.0, mount_roll_deg=4.0)
    measured = optical_to_ned(
        turned, yaw_deg=10.0, gimbal_pitch_deg=-80.0, gimbal_roll_deg=2.0, gimbal_yaw_deg=77.0
    )
    expected = rotation_ned(77.0, -80.0, 2.0)
    assert measured @ FORWARD == pytest.approx(expected[:, 0])
    assert measured @ RIGHT == pytest.approx(expected[:, 1])


def test_ground_behind_the_camera_has_a_negative_third_coordinate() -> None:
    r = optical_to_ned(CAMERA, yaw_deg=0.0, gimbal_pitch_deg=0.0)
    to_image = ground_to_image(CAMERA, r, 50.0)
    assert (to_image @ [0.0, 100.0, 1.0])[2] > 0
    assert (to_image @ [0.0, -100.0, 1.0])[2] < 0


def test_a_right_angle_of_view_has_a_focal_length_of_half_the_width() -> None:
    camera = Camera.from_hfov(1000, 800, 90.0)
    assert (camera.fx_px, camera.cx_px, camera.cy_px) == pytest.approx((500.0, 499.5, 399.5))


def write(path: Path, values: Any) -> Path:
    path.write_text(json.dumps(values))
    return path


def test_a_camera_written_is_the_camera_read(tmp_path: Path) -> None:
    camera = replace(CAMERA, distortion=(-0.1, 0.02, 0.001, -0.002, 0.0), mount_yaw_deg=90.0)
    (tmp_path / "camera.json").write_text(camera.to_json())
    assert Camera.load(tmp_path / "camera.json") == camera


def test_a_camera_file_may_give_the_field_of_view(tmp_path: Path) -> None:
    values = {"width_px": 640, "height_px": 480, "hfov_deg": 70, "stabilised": False}
    assert Camera.load(write(tmp_path / "c.json", values)) == replace(CAMERA, stabilised=False)


SOUND = {"width_px": 640, "height_px": 480, "hfov_deg": 70}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([1, 2], "holds a list; expected an object", id="a list"),
        pytest.param(SOUND | {"fov": 70}, r"unknown names \['fov'\]; known: .*hfov_deg", id="typo"),
        pytest.param({"width_px": 640, "hfov_deg": 70}, "height_px.*; give", id="no height"),
        pytest.param({"width_px": 640, "height_px": 480}, "fx_px.*; give", id="no focal length"),
        pytest.param(SOUND | {"fx_px": 500}, "fx_px.*; give", id="focal length twice"),
        pytest.param(SOUND | {"hfov_deg": 0}, r"outside \[1, 170\]", id="no field of view"),
        pytest.param(SOUND | {"hfov_deg": math.nan}, r"outside \[1, 170\]", id="NaN"),
        pytest.param(SOUND | {"hfov_deg": "70"}, "give width_px", id="text for a number"),
        pytest.param(SOUND | {"width_px": 8}, "too small", id="tiny"),
        pytest.param(
            SOUND | {"distortion": [0.1, 0.2]}, "expected 0, 4, 5, 8, 12 or 14", id="two terms"
        ),
        pytest.param(
            SOUND | {"distortion": 0.1},
            "distortion",
            id="distortion not a list",
        ),
        pytest.param(
            SOUND | {"distortion": ["a", 0, 0, 0]},
            "distortion",
            id="distortion of text",
        ),
        pytest.param(
            {**json.loads(CAMERA.to_json()), "cx_px": math.nan},
            "cx_px",
            id="principal point NaN",
        ),
    ],
)
def test_a_wrong_camera_file_is_refused_with_what_to_give(
    tmp_path: Path, values: Any, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        Camera.load(write(tmp_path / "camera.json", values))


def test_a_missing_or_broken_camera_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json cannot be read .*expected JSON"):
        Camera.load(tmp_path / "none.json")
    (tmp_path / "torn.json").write_text('{"width_px": 64')
    with pytest.raises(InputError, match=r"torn\.json cannot be read .*expected JSON"):
        Camera.load(tmp_path / "torn.json")


def test_another_aspect_ratio_is_refused_as_a_crop() -> None:
    with pytest.raises(InputError, match=r"640x360 px but .* 640x480 px.*give the camera file"):
        CAMERA.scaled_to(640, 360)


@pytest.mark.parametrize("focal", [0.0, -100.0, math.nan])
def test_a_focal_length_that_is_not_positive_is_refused(focal: float) -> None:
    with pytest.raises(InputError, match="must be positive"):
        replace(CAMERA, fx_px=focal)
