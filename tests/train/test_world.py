import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.warp import transform

from edge_runtime.camera import Camera, ground_to_image, optical_to_ned
from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m, enu_offset_m, wrap_degrees
from train.world import WorldConfig, make_world
from train.world.flight import flight_poses, footprint_m, measured, random_poses
from train.world.georeference import Georeference
from train.world.make import georeferences

F64 = npt.NDArray[np.float64]

SMALL = WorldConfig(
    seed=3,
    train_size_m=300,
    train_photos=16,
    held_out_size_m=320,
    flights=1,
    frames_per_flight=6,
    min_height_m=50,
    max_height_m=70,
    photo_width_px=320,
    photo_height_px=240,
    threads=2,
)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "world"
    make_world(out, SMALL)
    return out


def test_a_world_has_every_file(world: Path) -> None:
    assert json.loads((world / "world.json").read_text())["config"]["seed"] == 3
    for ground, photos, count in (("train", "photos", 16), ("held_out/flight_1", "frames", 6)):
        names = [f"{k:06d}.jpg" for k in range(count)]
        assert sorted(p.name for p in (world / ground / photos).iterdir()) == names
        for table in ("telemetry.csv", "truth.csv"):
            assert [row["filename"] for row in rows(world / ground / table)] == names
    assert Camera.load(world / "train/camera.json") == SMALL.camera()
    assert Camera.load(world / "held_out/camera.json") == SMALL.camera()
    assert [p.name for p in world.parent.iterdir()] == ["world"], "no temporary folder is left"


def test_telemetry_has_no_position(world: Path) -> None:
    for table in world.rglob("telemetry.csv"):
        columns = table.read_text().splitlines()[0].split(",")
        assert not any(word in name for name in columns for word in ("lat", "lon", "look", "x_m"))


def test_same_seed_same_bytes_whatever_the_threads(world: Path, tmp_path: Path) -> None:
    make_world(tmp_path / "again", replace(SMALL, threads=1))
    assert digests(tmp_path / "again") == digests(world)


def test_another_seed_is_another_world(world: Path, tmp_path: Path) -> None:
    make_world(tmp_path / "other", replace(SMALL, seed=4, flights=0, train_photos=1))
    here, there = (folder / "train/imagery.tif" for folder in (world, tmp_path / "other"))
    with rasterio.open(here) as a, rasterio.open(there) as b:
        difference = np.abs(a.read().astype(int) - b.read().astype(int))
    assert difference.mean() > 10


def test_the_first_corner_lies_where_the_config_says(world: Path) -> None:
    with rasterio.open(world / "train/imagery.tif") as imagery:
        assert imagery.crs.to_epsg() == 32633
        assert (imagery.width, imagery.height, imagery.count) == (600, 600, 3)
        assert imagery.res == (0.5, 0.5)
        bounds = imagery.bounds
    last_x, last_y = bounds.right - 0.25, bounds.bottom + 0.25
    lon, lat = transform("EPSG:32633", "EPSG:4326", [bounds.left, last_x], [bounds.top, last_y])[:2]
    assert distance_m(lat[0], lon[0], SMALL.centre_lat_deg, SMALL.centre_lon_deg) < 71
    offset = enu_offset_m(lat[0], lon[0], lat[1], lon[1])
    # Last pixel's centre: 299.75 m of grid, true metres differ by 0.04 % and 0.15 degrees.
    assert offset.east_m == pytest.approx(299.75, abs=1.0)
    assert offset.north_m == pytest.approx(-299.75, abs=1.0)


def test_grid_and_true_metres_differ_by_the_projection_only() -> None:
    place = Georeference(origin_east_m=515_000, origin_north_m=5_272_000)
    jacobian = place.enu_per_xy(np.array([[500.0, 700.0]]))[0]
    # Scale 0.9996 at the central meridian; convergence (15.2 - 15) * sin(47.6) = 0.15 degrees.
    assert np.linalg.det(jacobian) == pytest.approx(-1 / 0.9996**2, abs=5e-5)
    grid_north = -jacobian[:, 1]
    assert np.degrees(np.arctan2(*grid_north)) == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize("folder", ["train", "held_out/flight_1"])
def test_the_look_point_lands_on_the_principal_point(world: Path, folder: str) -> None:
    camera = SMALL.camera()
    for row in rows(world / folder / "truth.csv"):
        value = {name: float(text) for name, text in row.items() if name != "filename"}
        rotation = optical_to_ned(
            camera,
            yaw_deg=value["yaw_deg"],
            pitch_deg=value["pitch_deg"],
            roll_deg=value["roll_deg"],
        )
        look = enu_offset_m(
            value["lat_deg"], value["lon_deg"], value["look_lat_deg"], value["look_lon_deg"]
        )
        homography = ground_to_image(camera, rotation, value["height_m"])
        u, v, w = homography @ np.array([look.east_m, look.north_m, 1.0])
        assert (u / w, v / w) == pytest.approx((camera.cx_px, camera.cy_px), abs=0.05)


def test_every_photo_is_wholly_on_its_map() -> None:
    config = replace(SMALL, frames_per_flight=200, train_photos=300)
    camera = config.camera()
    place = georeferences(config)[1]
    grounds = (
        (random_poses(config, np.random.default_rng(1)), config.train_size_m),
        (flight_poses(config, place, np.random.default_rng(2)), config.held_out_size_m),
    )
    for poses, size_m in grounds:
        for k in range(len(poses.t_s)):
            rotation = optical_to_ned(
                camera,
                yaw_deg=float(poses.yaw_deg[k]),
                pitch_deg=float(poses.pitch_deg[k]),
                roll_deg=float(poses.roll_deg[k]),
            )
            seen = footprint_m(camera, rotation, float(poses.height_m[k]))
            on_map = poses.xy_m[k] + seen * np.array([1, -1])
            assert on_map.min() >= 0
            assert on_map.max() <= size_m


def test_a_flight_is_smooth_and_keeps_its_speed() -> None:
    config = WorldConfig()
    place = georeferences(config)[1]
    poses = flight_poses(config, place, np.random.default_rng(5))
    speed = np.hypot(*poses.velocity_mps.T)
    assert np.all(np.abs(speed - 12) < 1.2)
    assert np.abs(wrap_degrees(np.diff(poses.yaw_deg))).max() < 12
    assert np.ptp(np.unwrap(np.radians(poses.yaw_deg))) > 1.0, "there are turns"
    start, end = place.lat_lon(poses.xy_m[:1]), place.lat_lon(poses.xy_m[1:2])
    moved = enu_offset_m(start.lat_deg, start.lon_deg, end.lat_deg, end.lon_deg)
    assert moved.east_m / 0.5 == pytest.approx(poses.velocity_mps[0, 0], abs=1.0)
    assert moved.north_m / 0.5 == pytest.approx(poses.velocity_mps[0, 1], abs=1.0)


@pytest.mark.parametrize("one_flight", [False, True])
def test_sensor_errors_have_the_stated_size(one_flight: bool) -> None:
    config = WorldConfig(train_photos=100)
    truth = random_poses(config, np.random.default_rng(1))
    errors: list[F64] = []
    for run in range(40):
        found = measured(truth, config, np.random.default_rng([2, run]), one_flight=one_flight)
        yaw = wrap_degrees(found.yaw_deg - truth.yaw_deg)
        height = found.height_m / truth.height_m - 1
        pitch, roll = found.pitch_deg - truth.pitch_deg, found.roll_deg - truth.roll_deg
        velocity = found.velocity_mps[:, 0] - truth.velocity_mps[:, 0]
        errors.append(np.stack([yaw, height, pitch, roll, velocity]))
    sigma = np.sqrt(np.mean(np.square(errors), axis=(0, 2)))
    assert 4.0 < sigma[0] < 6.0
    assert 0.015 < sigma[1] < 0.027
    assert 0.65 < sigma[2] < 0.95
    assert 0.65 < sigma[3] < 0.95
    assert 0.45 < sigma[4] < 0.65
    bias = np.std(np.mean(errors, axis=2), axis=0)
    assert (bias[0] > 2) == one_flight, "only a flight keeps its compass bias"


def test_the_grounds_share_no_pixel_and_no_look(world: Path) -> None:
    paths = (world / ground / "imagery.tif" for ground in ("train", "held_out"))
    with rasterio.open(next(paths)) as a, rasterio.open(next(paths)) as b:
        assert a.bounds.right + 1000 < b.bounds.left
        here = a.read()[:, :600, :600].astype(float)
        there = b.read()[:, :600, :600].astype(float)
    assert abs(np.corrcoef(here.ravel(), there.ravel())[0, 1]) < 0.5
    truths = {
        name: [(float(r["look_lat_deg"]), float(r["look_lon_deg"])) for r in rows(world / name)]
        for name in ("train/truth.csv", "held_out/flight_1/truth.csv")
    }
    train, held_out = (np.array(places) for places in truths.values())
    apart = distance_m(train[:, None, 0], train[:, None, 1], held_out[:, 0], held_out[:, 1])
    assert apart.min() > 2000


def structure(gray: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Smoothed gradient magnitude: what season and light change least."""
    soft = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 2)
    size = np.hypot(cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1))
    return np.asarray(np.sqrt(size), np.float32)


def test_a_photo_resembles_the_satellite_at_its_place_most(world: Path) -> None:
    camera = SMALL.camera()
    with rasterio.open(world / "train/imagery.tif") as imagery:
        satellite = cv2.cvtColor(imagery.read().transpose(1, 2, 0), cv2.COLOR_RGB2GRAY)
        bounds = imagery.bounds
    reference = structure(np.asarray(satellite, np.uint8))
    misses_m = []
    for row in rows(world / "train/truth.csv"):
        value = {name: float(text) for name, text in row.items() if name != "filename"}
        photo = cv2.imread(str(world / "train/photos" / row["filename"]), cv2.IMREAD_GRAYSCALE)
        assert photo is not None
        rotation = optical_to_ned(
            camera,
            yaw_deg=value["yaw_deg"],
            pitch_deg=value["pitch_deg"],
            roll_deg=value["roll_deg"],
        )
        homography = ground_to_image(camera, rotation, value["height_m"])
        # A north-up view of 46 m around the look point at the satellite's resolution.
        look = enu_offset_m(
            value["lat_deg"], value["lon_deg"], value["look_lat_deg"], value["look_lon_deg"]
        )
        view_to_ground = np.array(
            [[0.5, 0, look.east_m - 22.75], [0, -0.5, look.north_m + 22.75], [0, 0, 1]]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        soft = cv2.GaussianBlur(photo, (0, 0), 0.8)
        view = cv2.warpPerspective(soft, homography @ view_to_ground, (92, 92), flags=flags)
        score = cv2.matchTemplate(
            reference, structure(np.asarray(view, np.uint8)), cv2.TM_CCOEFF_NORMED
        )
        y, x = np.unravel_index(int(score.argmax()), score.shape)
        east, north = transform(
            "EPSG:4326", "EPSG:32633", [value["look_lon_deg"]], [value["look_lat_deg"]]
        )[:2]
        true_x, true_y = (east[0] - bounds.left) / 0.5, (bounds.top - north[0]) / 0.5
        misses_m.append(0.5 * np.hypot(x + 46 - true_x, y + 46 - true_y))
    # Fields that changed and turned shadows fool this simple matcher now and then.
    assert np.median(misses_m) < 2.0, misses_m
    assert np.mean(np.array(misses_m) < 4.0) >= 0.6, misses_m


def test_a_folder_with_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="give a new folder"):
        make_world(tmp_path, SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failed_world_leaves_nothing(tmp_path: Path) -> None:
    def stop(_stage: str, _share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_world(tmp_path / "world", SMALL, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_names_stages_and_ends_at_one(tmp_path: Path) -> None:
    seen: dict[str, list[float]] = {}
    config = replace(SMALL, train_photos=1, flights=0)
    (tmp_path / "empty").mkdir()
    make_world(
        tmp_path / "empty",
        config,
        progress=lambda stage, share: seen.setdefault(stage, []).append(share),
    )
    assert set(seen) == {"training ground", "training photos", "held-out ground"}
    for shares in seen.values():
        assert shares == sorted(shares)
        assert shares[-1] == 1.0


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        pytest.param({"seed": -1}, "give 0 or more", id="negative seed"),
        pytest.param({"train_size_m": 50}, "larger ground", id="ground smaller than a photo"),
        pytest.param({"held_out_size_m": 150}, "larger ground", id="no room to fly"),
        pytest.param({"min_height_m": 90}, "lower one first", id="heights swapped"),
        pytest.param({"satellite_gsd_m": 0}, "must be positive", id="no resolution"),
        pytest.param({"centre_lon_deg": 3.0}, "UTM zone 33", id="another zone"),
        pytest.param({"hfov_deg": 150.0}, "horizon", id="sees the horizon"),
    ],
)
def test_a_config_that_cannot_be_made_is_refused(change: dict[str, float], remedy: str) -> None:
    with pytest.raises(InputError, match=remedy):
        replace(SMALL, **change)  # type: ignore[arg-type]
