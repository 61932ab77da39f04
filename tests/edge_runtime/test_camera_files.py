import json
import math
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.camera import Camera
from edge_runtime.errors import InputError

cv2 = pytest.importorskip("cv2")

MATRIX = np.array([[500.0, 0, 320.5], [0, 501.0, 240.25], [0, 0, 1]])
LENS = (-0.1, 0.02, 0.001, -0.002, 0.003)
ROS = """image_width: 640
image_height: 480
camera_name: belly
camera_matrix:
  rows: 3
  cols: 3
  data: [500.0, 0, 320.5, 0, 501, 240.25,
         0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.1, 0.02, 0.001, -0.002, 0.003]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
"""
EXPECTED = Camera(
    width_px=640,
    height_px=480,
    fx_px=500.0,
    fy_px=501.0,
    cx_px=320.5,
    cy_px=240.25,
    distortion=LENS,
)


def opencv_file(path: Path, lens: tuple[float, ...] = LENS, **more: float) -> Path:
    """As OpenCV's calibration programs write it, by OpenCV."""
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.write("camera_matrix", MATRIX)
    storage.write("distortion_coefficients", np.array([lens]))
    for name, value in more.items():
        storage.write(name, value)
    storage.release()
    return path


@pytest.mark.parametrize("suffix", ["yaml", "yml", "xml", "json"])
def test_what_opencv_writes_is_read(tmp_path: Path, suffix: str) -> None:
    path = opencv_file(tmp_path / f"camera.{suffix}", avg_reprojection_error=0.2)
    assert Camera.load(path) == EXPECTED


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_what_ros_writes_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "camera.yaml"
    path.write_bytes(ROS.replace("\n", ending).encode())
    assert Camera.load(path) == EXPECTED


@pytest.mark.parametrize("count", [4, 5, 8, 12, 14])
def test_every_polynomial_lens_of_opencv_is_kept(tmp_path: Path, count: int) -> None:
    lens = tuple(0.001 * (k + 1) for k in range(count))
    camera = Camera.load(opencv_file(tmp_path / "camera.yaml", lens))
    assert camera.distortion == pytest.approx(lens)


def test_a_lens_without_distortion_has_none(tmp_path: Path) -> None:
    assert Camera.load(opencv_file(tmp_path / "c.yaml", (0.0,) * 5)).distortion == ()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(("plumb_bob", "equidistant"), "equidistant lens; only .* undistort", id="ROS"),
        pytest.param(("camera_matrix:", "matrix:"), "no camera_matrix of 3x3", id="no matrix"),
        pytest.param(("image_width: 640\n", ""), "with image_width", id="no width"),
        pytest.param(("0.02, ", ""), r"expected 4, 5, 8, 12, 14|fits", id="three or four terms"),
        pytest.param(("500.0", ".nan"), "not finite|focal lengths", id="not finite"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    path = tmp_path / "camera.yaml"
    text = ROS.replace(*change)
    if "terms" in expected or change[0] == "0.02, ":
        text = text.replace("0.001, -0.002, 0.003", "0.001")
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        Camera.load(path)


def test_a_fisheye_calibration_of_opencv_is_refused(tmp_path: Path) -> None:
    path = opencv_file(tmp_path / "camera.yaml", LENS[:4], fisheye_model=1)
    with pytest.raises(InputError, match="fisheye lens; only"):
        Camera.load(path)


@pytest.mark.parametrize(
    "text", ["", "not: [a, calibration", "<opencv_storage><x>", "\x00\x01", "%YAML:1.0\n---\n- 1\n"]
)
@pytest.mark.parametrize("suffix", ["yaml", "xml"])
def test_what_is_no_calibration_is_refused(tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"camera.{suffix}"
    path.write_text(text)
    with pytest.raises(InputError, match=r"camera file .*expected"):
        Camera.load(path)


def test_our_own_json_is_still_ours(tmp_path: Path) -> None:
    path = tmp_path / "camera.json"
    path.write_text(json.dumps({"width_px": 640, "height_px": 480, "hfov_deg": 90.0}))
    assert Camera.load(path).fx_px == pytest.approx(320.0)


def test_mounting_changes_what_is_given_and_keeps_the_rest() -> None:
    tilted = EXPECTED.mounted(pitch_deg=-45.0, stabilised=False)
    assert (tilted.mount_pitch_deg, tilted.stabilised) == (-45.0, False)
    assert (tilted.mount_yaw_deg, tilted.distortion) == (0.0, LENS)
    assert tilted.mounted() == tilted
    with pytest.raises(InputError, match="mount_yaw_deg is nan"):
        EXPECTED.mounted(yaw_deg=math.nan)
