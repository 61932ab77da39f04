"""The library as its page shows it, and the ROS 2 example without ROS."""

import importlib.util
import math
import re
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from edge_runtime.camera import rotation_ned
from edge_runtime.flight_log import read_log
from edge_runtime.geodesy import distance_m
from edge_runtime.localizer import Localizer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "library.md"
NODE = ROOT / "examples" / "ros2_node.py"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="docs and examples are not here")


@pytest.fixture
def here(
    tmp_path: Path, flight_dir: Path, bundle_dir: Path, index_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:  # fmt: skip
    """A folder with everything that the page's examples name."""
    shutil.copytree(flight_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "bundle").symlink_to(bundle_dir)
    (tmp_path / "index").symlink_to(index_dir)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_first_example_locates_every_photograph_as_it_is_printed(
    here: Path, capsys: pytest.CaptureFixture[str], scene: Any
) -> None:
    example = examples()[0]
    assert sum(bool(line.strip()) for line in example.splitlines()) <= 15
    exec(compile(example, str(PAGE), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    for k, line in enumerate(lines):
        found = re.fullmatch(rf"00{k}\.png (\d+\.\d{{6}}) (\d+\.\d{{6}}) \+- \d+\.\d m", line)
        assert found is not None
        lat_deg, lon_deg = scene.position(-30.0 + 12 * k, 10.0 + 5 * k)
        assert distance_m(lat_deg, lon_deg, float(found[1]), float(found[2])) < 5


def test_the_second_example_flies_as_it_is_printed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(examples()[1], str(PAGE), "exec"), {})
    assert capsys.readouterr().out.splitlines() == [f"00{k}.png OK" for k in range(4)]
    assert [fix.status for fix in read_log(here / "fixes.jsonl")] == ["OK"] * 4
    assert (here / "track.geojson").is_file()


# --- the ROS 2 example -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def ros() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ros2_node_example", NODE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("yaw", [0.0, 37.0, 200.0, 359.0])
@pytest.mark.parametrize(("pitch", "roll"), [(0.0, 0.0), (12.0, -7.0), (-30.0, 25.0)])
def test_a_ros_quaternion_is_the_same_rotation_by_aerospace_rules(
    ros: ModuleType, yaw: float, pitch: float, roll: float
) -> None:
    """REP 103: forward-left-up into east-north-up; ours: forward-right-down into NED."""
    ned_from_frd = rotation_ned(yaw, pitch, roll)
    enu_from_ned = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    m = enu_from_ned @ ned_from_frd @ np.diag([1.0, -1.0, -1.0])
    w = math.sqrt(max(0.0, 1 + np.trace(m))) / 2
    if w > 0.1:
        x, y, z = (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1])
        quaternion = (x / (4 * w), y / (4 * w), z / (4 * w), w)
    else:
        values, vectors = np.linalg.eigh((m + m.T) / 2)
        x, y, z = vectors[:, int(np.argmax(values))]
        turn = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
        sign = 1.0 if turn @ (x, y, z) >= 0 else -1.0
        half = math.sqrt(1 - w * w)
        quaternion = (sign * x * half, sign * y * half, sign * z * half, w)
    got = ros.attitude_deg(*quaternion)
    assert (got[0] - yaw + 180) % 360 - 180 == pytest.approx(0.0, abs=1e-6)
    assert got[1:] == pytest.approx((pitch, roll), abs=1e-6)
    # Ten metres a second forward, two to the left, one up.
    east, north, _ = m @ (10.0, 2.0, 1.0)
    assert ros.velocity_mps(quaternion, 10.0, 2.0, 1.0) == pytest.approx((east, north))


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
def test_images_of_every_usual_encoding_become_rgb(ros: ModuleType, encoding: str) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (4, 5, 3), np.uint8)
    if encoding == "mono8":
        rgb[..., 1] = rgb[..., 2] = rgb[..., 0]
    stored = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "rgba8": np.dstack([rgb, rgb[..., :1]]),
        "bgra8": np.dstack([rgb[..., ::-1], rgb[..., :1]]),
        "mono8": rgb[..., :1],
    }[encoding]
    rows = stored.reshape(4, -1)
    padded = np.pad(rows, ((0, 0), (0, 7)))
    found = ros.rgb_of(encoding, 4, 5, padded.shape[1], padded.tobytes())
    assert np.array_equal(found, rgb)


def test_an_encoding_that_is_not_understood_gives_no_image(ros: ModuleType) -> None:
    assert ros.rgb_of("bayer_rggb8", 4, 5, 5, bytes(20)) is None


def test_the_node_publishes_positions_with_covariance_and_no_doubtful_ones(
    ros: ModuleType, bundle_dir: Path, index_dir: Path, scene: Any
) -> None:
    published: list[Any] = []
    node = SimpleNamespace(get_logger=lambda: SimpleNamespace(warning=lambda line: None))
    localizer = Localizer.open(bundle_dir, index_dir, scene.camera, backend="ort-cpu", threads=1)
    skyfix = ros.SkyfixNode(
        node,
        localizer,
        lambda: SimpleNamespace(status=SimpleNamespace(status=None)),
        SimpleNamespace(publish=published.append),
    )
    xyz = SimpleNamespace
    for k in range(4):
        header = xyz(stamp=xyz(sec=100, nanosec=int(k * 2e8)))
        # Nose to the north: a quarter turn against the clock from east.
        q = xyz(x=0.0, y=0.0, z=math.sqrt(0.5), w=math.sqrt(0.5))
        pose = xyz(orientation=q, position=xyz(z=70.0))
        twist = xyz(twist=xyz(linear=xyz(x=0.0, y=0.0, z=0.0)))
        skyfix.on_odometry(xyz(header=header, pose=xyz(pose=pose), twist=twist))
        skyfix.on_range(xyz(header=header, min_range=0.1, max_range=200.0, range=100.0))
        image = scene.photo(5.0, 5.0) if k < 3 else np.zeros((180, 240, 3), np.uint8)
        skyfix.on_image(
            xyz(header=header, encoding="rgb8", height=180, width=240, step=720, data=image.data)
        )
    localizer.close()
    *good, dark = published
    lat_deg, lon_deg = scene.position(5.0, 5.0)
    for message in good:
        assert message.status.status == 0
        assert distance_m(lat_deg, lon_deg, message.latitude, message.longitude) < 5
        east, north = message.position_covariance[0], message.position_covariance[4]
        assert east == north > 0
        assert math.isnan(message.altitude)
    assert dark.status.status == -1
    assert math.isnan(dark.latitude)
    assert dark.position_covariance_type == 0


def test_the_example_names_nothing_of_ros_before_it_runs() -> None:
    head = NODE.read_text().split("def main")[0]
    assert not re.search(r"^\s*(import|from) (rclpy|sensor_msgs|nav_msgs)", head, re.MULTILINE)
