"""Frames in, honest positions out, whatever the camera and the sensors deliver."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.bundle import Bundle
from edge_runtime.calibration import Calibration, Coverage
from edge_runtime.camera import Camera
from edge_runtime.deadline import Effort
from edge_runtime.errors import IndexFolderError, InputError
from edge_runtime.fix import STAGES, Fix, fix_from_json
from edge_runtime.geodesy import distance_m
from edge_runtime.localizer import Localizer
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.refinement import REACH_M
from edge_runtime.satellite_index import Circle, SatelliteIndex
from edge_runtime.search_scope import control_places
from edge_runtime.state import VehicleState

U8 = npt.NDArray[np.uint8]

HEIGHT_M = 100.0


def state(t_s: float = 0.0, **known: Any) -> VehicleState:
    """Everything a nadir flight knows, unless it is said otherwise."""
    values = {"height_m": HEIGHT_M, "yaw_deg": 0.0, "pitch_deg": 0.0, "roll_deg": 0.0} | known
    return VehicleState(t_s=t_s, **values)


@pytest.fixture
def index(index_dir: Path, bundle: Bundle) -> Iterator[SatelliteIndex]:
    opened = SatelliteIndex.open(index_dir, bundle)
    yield opened
    opened.close()


@pytest.fixture
def make_localizer(
    bundle: Bundle, index: SatelliteIndex, fake_backend: Any, scene: Any
) -> Callable[..., Localizer]:
    def make(camera: Camera | None = None, **config: Any) -> Localizer:
        return Localizer(
            bundle, index, fake_backend, camera or scene.camera, LocalizerConfig(**config)
        )

    return make


@pytest.fixture
def localizer(make_localizer: Callable[..., Localizer]) -> Localizer:
    return make_localizer()


def apart_m(one: tuple[float, float], lat_deg: float | None, lon_deg: float | None) -> float:
    assert lat_deg is not None
    assert lon_deg is not None
    return float(distance_m(one[0], one[1], lat_deg, lon_deg))


def error_m(fix: Fix, scene: Any, east_m: float, north_m: float) -> float:
    return apart_m(scene.position(east_m, north_m), fix.lat_deg, fix.lon_deg)


def start(localizer: Localizer, place: tuple[float, float], sigma_m: float = 20.0) -> None:
    localizer.start_at(place[0], place[1], sigma_m)


def honest(fix: Fix) -> bool:
    """A position has finite numbers, and no position has none."""
    numbers = (fix.lat_deg, fix.lon_deg, fix.eph_m)
    if fix.status in ("OK", "DEGRADED"):
        return all(n is not None and math.isfinite(n) for n in numbers)
    return numbers == (None, None, None)


def abstains(fix: Fix) -> bool:
    """Says no position, and why."""
    silent = fix.lat_deg is fix.lon_deg is fix.eph_m is fix.look_lat_deg is fix.look_lon_deg is None
    return fix.status == "ABSTAIN" and silent and bool(fix.reason)


# --- finding ---------------------------------------------------------------------------------


def test_a_flight_from_nothing_is_followed_to_the_metre(localizer: Localizer, scene: Any) -> None:
    for t in range(6):
        east, north, yaw = -60.0 + 12 * t, 30.0 - 6 * t, 10.0 + 3 * t
        photo = scene.photo(east, north, yaw_deg=yaw, pitch_deg=5, roll_deg=-3)
        # Heading and height are a little wrong, as they are in flight.
        known = state(t, height_m=102.0, yaw_deg=yaw - 2, pitch_deg=5.0, roll_deg=-3.0)
        fix = localizer.step(photo, known, frame_name=f"{t}.jpg")
        assert fix.status == "OK"
        assert fix.mode == ("TRACK" if t else "GLOBAL")
        assert error_m(fix, scene, east, north) < 1
        assert fix.yaw_deg == pytest.approx(yaw, abs=1)
        assert (fix.seq, fix.frame, fix.reset_counter) == (t, f"{t}.jpg", 0)


def test_every_field_of_a_good_fix_is_filled(localizer: Localizer, scene: Any) -> None:
    photo = scene.photo(20, -30)
    fix = localizer.step(photo, state(12.5), frame_name="a.jpg", capture_ms=3.0)
    assert (fix.seq, fix.frame, fix.t_exposure_s) == (0, "a.jpg", 12.5)
    assert (fix.status, fix.mode, fix.reason, fix.prior) == ("OK", "GLOBAL", "", False)
    missing = [field.name for field in fields(Fix) if getattr(fix, field.name) is None]
    assert missing == ["stated_eph_m"]
    assert fix.t_fix_s > 0
    assert fix.eph_m is not None
    assert 0.5 < fix.eph_m < 5
    assert 0.995 < fix.probability <= 1
    assert fix.similarity is not None
    assert 0.5 < fix.similarity <= 1
    assert fix.ncc is not None
    assert 0.5 < fix.ncc <= 1
    assert fix.inliers >= 8
    assert fix.reprojection_px is not None
    assert 0 <= fix.reprojection_px < 1
    assert fix.margin is not None
    assert fix.margin > 0
    assert set(fix.latency_ms) == set(STAGES)
    parts = sum(ms for stage, ms in fix.latency_ms.items() if stage != "total")
    assert fix.latency_ms["total"] == pytest.approx(parts, abs=1.0)
    assert fix.latency_ms["capture"] == 3.0
    assert (fix.shed, fix.deadline_missed) == ((), False)
    assert fix.bundle_id == localizer.bundle.id
    assert fix.index_id == localizer.index.id
    assert (fix.engine_id, fix.backend) == ("numpy/fp32", "fake")


def test_a_calibration_says_what_the_error_model_should_have(
    bundle: Bundle, index: SatelliteIndex, fake_backend: Any, scene: Any
) -> None:
    coverage = Coverage(flights=1, answers=9, independent=3.0, within_68=0.7, within_95=0.95)
    calibration = Calibration(
        index_id=index.id,
        bundle_id=bundle.id,
        factor=0.5,
        floor_m=2.0,
        truth="flights",
        fitted=coverage,
        unseen=None,
    )
    plain = Localizer(bundle, index, fake_backend, scene.camera)
    stated = Localizer(bundle, index, fake_backend, scene.camera, calibration=calibration)
    photo = scene.photo(20, -30)
    assumed, said = plain.step(photo, state()), stated.step(photo, state())
    assert assumed.eph_m is not None
    assert said.stated_eph_m == assumed.eph_m
    assert said.eph_m == pytest.approx(math.hypot(2.0, 0.5 * assumed.eph_m))


def test_the_tile_of_a_fix_is_the_one_under_the_drone(localizer: Localizer, scene: Any) -> None:
    fix = localizer.step(scene.photo(20, -30), state())
    assert fix.tile_id is not None
    tile = localizer.index.tiles[fix.tile_id]
    centre = float(tile["lat_deg"]), float(tile["lon_deg"])
    assert apart_m(scene.position(20, -30), *centre) < localizer.index.level.stride_m


@pytest.mark.parametrize(("pitch_deg", "roll_deg"), [(20.0, 0.0), (-10.0, -10.0)])
def test_a_tilted_camera_tells_where_it_looks_from_where_it_is(
    localizer: Localizer, scene: Any, pitch_deg: float, roll_deg: float
) -> None:
    photo = scene.photo(0, 0, yaw_deg=40, pitch_deg=pitch_deg, roll_deg=roll_deg)
    known = state(yaw_deg=40.0, pitch_deg=pitch_deg, roll_deg=roll_deg)
    fix = localizer.step(photo, known)
    assert fix.status == "OK"
    assert error_m(fix, scene, 0, 0) < 2
    off_nadir = math.acos(math.cos(math.radians(pitch_deg)) * math.cos(math.radians(roll_deg)))
    look_m = apart_m(scene.position(0, 0), fix.look_lat_deg, fix.look_lon_deg)
    assert look_m == pytest.approx(HEIGHT_M * math.tan(off_nadir), abs=2)


def test_headings_are_reported_from_0_to_360(localizer: Localizer, scene: Any) -> None:
    fix = localizer.step(scene.photo(0, 0, yaw_deg=-7), state(yaw_deg=-6.0))
    assert fix.yaw_deg == pytest.approx(353, abs=1)


def test_a_position_less_accurate_than_asked_for_is_not_given(
    make_localizer: Callable[..., Localizer], scene: Any
) -> None:
    fix = make_localizer(max_eph_m=0.5).step(scene.photo(0, 0), state())
    assert abstains(fix)
    assert fix.reason == "accuracy only 2 m"


def test_an_unknown_heading_is_searched(localizer: Localizer, scene: Any) -> None:
    for t, yaw in enumerate((77.0, 80.0, 83.0)):
        photo = scene.photo(10.0 * t, 0, yaw_deg=yaw)
        fix = localizer.step(photo, state(t, yaw_deg=None))
    assert fix.status == "OK"
    assert error_m(fix, scene, 20, 0) < 2
    assert fix.yaw_deg == pytest.approx(83, abs=2)


def test_an_unknown_height_is_searched_in_its_range(
    make_localizer: Callable[..., Localizer], scene: Any
) -> None:
    localizer = make_localizer(height_range_m=(60.0, 160.0))
    for t in range(3):
        fix = localizer.step(scene.photo(10.0 * t, 0), state(t, height_m=None))
    assert fix.status == "OK"
    assert error_m(fix, scene, 20, 0) < 2


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_a_resized_frame_is_located_all_the_same(
    localizer: Localizer, scene: Any, scale: float
) -> None:
    camera = scene.camera.scaled_to(int(240 * scale), int(180 * scale))
    fix = localizer.step(scene.photo(20, -30, camera=camera), state())
    assert fix.status == "OK"
    assert error_m(fix, scene, 20, -30) < 2


def test_the_same_frames_give_the_same_fixes(
    make_localizer: Callable[..., Localizer], scene: Any
) -> None:
    photos = [scene.photo(8.0 * t, -5.0 * t) for t in range(3)]
    runs = []
    for localizer in (make_localizer(), make_localizer()):
        fixes = [localizer.step(photo, state(t)) for t, photo in enumerate(photos)]
        runs.append([replace(fix, latency_ms={}, t_fix_s=0.0).to_json() for fix in fixes])
    assert runs[0] == runs[1]


# --- a prior ---------------------------------------------------------------------------------


def test_a_prior_limits_the_first_search(localizer: Localizer, scene: Any) -> None:
    start(localizer, scene.position(30, -20))
    fix = localizer.step(scene.photo(20, -30), state())
    assert (fix.status, fix.mode, fix.prior) == ("OK", "TRACK", True)
    assert error_m(fix, scene, 20, -30) < 2


@pytest.mark.parametrize("place", [(48.0, 8.3), (47.5, 9.0), (-47.5, 8.3)])
def test_a_prior_off_the_map_is_refused(localizer: Localizer, place: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"not on the map, .*; give a position on the map"):
        start(localizer, place)


def test_a_prior_with_swapped_coordinates_is_refused_with_a_hint(
    localizer: Localizer, scene: Any
) -> None:
    lat, lon = scene.position(0, 0)
    with pytest.raises(InputError, match=r"not on the map, .* is the order \(lat, lon\)\?"):
        localizer.start_at(lon, lat, 20.0)


@pytest.mark.parametrize("place", [(95.0, 8.3), (math.nan, 8.3), (47.5, 400.0)])
def test_a_prior_that_is_no_position_is_refused(
    localizer: Localizer, place: tuple[float, float]
) -> None:
    with pytest.raises(InputError, match=r"is the order \(lat, lon\)\?"):
        start(localizer, place)


@pytest.mark.parametrize("sigma_m", [0.0, -5.0, math.nan, math.inf])
def test_a_prior_without_a_usable_error_is_refused(
    localizer: Localizer, scene: Any, sigma_m: float
) -> None:
    with pytest.raises(InputError, match="sigma"):
        start(localizer, scene.position(0, 0), sigma_m)


# --- what cameras deliver ----------------------------------------------------------------------


def noise(height_px: int, width_px: int) -> U8:
    return np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), np.uint8)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (None, "frame cannot be read"),
        (np.zeros((180, 240, 3), np.uint8), "no contrast"),
        (np.full((180, 240, 3), 255, np.uint8), "no contrast"),
    ],
    ids=["none", "black", "white"],
)
def test_a_frame_that_shows_nothing_is_abstained_from(
    localizer: Localizer, frame: U8 | None, reason: str
) -> None:
    fix = localizer.step(frame, state())
    assert abstains(fix)
    assert reason in fix.reason


@pytest.mark.parametrize(
    "frame",
    [
        noise(180, 240),
        noise(12, 16),
        noise(240, 180),
        noise(1, 1),
        noise(0, 0),
    ],
    ids=lambda f: f"{f.shape[0]}x{f.shape[1]}",
)
def test_no_frame_of_whatever_size_stops_the_flight(localizer: Localizer, frame: U8) -> None:
    assert abstains(localizer.step(frame, state()))


def test_a_cropped_frame_is_abstained_from_with_the_reason(
    localizer: Localizer, scene: Any
) -> None:
    cropped = np.ascontiguousarray(scene.photo(20, -30)[:, :180])
    fix = localizer.step(cropped, state())
    assert abstains(fix)
    assert "aspect ratio" in fix.reason


def test_one_bad_frame_does_not_end_a_track(localizer: Localizer, scene: Any) -> None:
    for t in range(5):
        photo = None if t == 3 else scene.photo(10.0 * t, 0)
        fix = localizer.step(photo, state(t))
    assert fix.status == "OK"
    assert error_m(fix, scene, 40, 0) < 2
    assert fix.reset_counter == 0


# --- what sensors deliver ----------------------------------------------------------------------

FLYING = {"velocity_east_mps": 0.0, "velocity_north_mps": 0.0}
BROKEN = [(field.name, value) for field in fields(VehicleState) for value in (math.nan, math.inf)]


@pytest.mark.parametrize(("name", "value"), BROKEN)
def test_a_broken_sensor_stops_neither_the_flight_nor_what_follows(
    make_localizer: Callable[..., Localizer], scene: Any, name: str, value: float
) -> None:
    localizer = make_localizer(track_windows=1)
    start(localizer, scene.position(5, 5))
    photo = scene.photo(0, 0)
    localizer.step(photo, state(0, **FLYING))
    broken = localizer.step(photo, replace(state(1, **FLYING), **{name: value}))
    assert honest(broken)
    assert fix_from_json(broken.to_json()).seq == 1
    fix = localizer.step(photo, state(2, **FLYING))
    assert fix.status == "OK"
    assert error_m(fix, scene, 0, 0) < 5


@pytest.mark.parametrize("height_m", [0.0, -10.0, 1.0, 1e-9])
def test_a_height_on_or_below_the_ground_is_abstained_from(
    localizer: Localizer, scene: Any, height_m: float
) -> None:
    fix = localizer.step(scene.photo(0, 0), state(height_m=height_m))
    assert abstains(fix)


def test_no_height_and_no_range_is_abstained_from_with_the_remedy(
    localizer: Localizer, scene: Any
) -> None:
    fix = localizer.step(scene.photo(0, 0), state(height_m=None))
    assert abstains(fix)
    assert "--height-range-m" in fix.reason


@pytest.mark.parametrize("pitch_deg", [90.0, 110.0, 180.0, 88.0])
def test_a_camera_that_looks_at_the_sky_is_abstained_from(
    localizer: Localizer, scene: Any, pitch_deg: float
) -> None:
    fix = localizer.step(scene.photo(0, 0), state(pitch_deg=pitch_deg))
    assert abstains(fix)
    assert fix.reason == "too little ground in view"


def test_a_clock_that_stands_still_stops_nothing(localizer: Localizer, scene: Any) -> None:
    for _ in range(4):
        fix = localizer.step(scene.photo(0, 0), state(5.0))
    assert fix.status == "OK"
    assert error_m(fix, scene, 0, 0) < 2


def test_what_is_not_known_is_none_and_never_nan(localizer: Localizer, scene: Any) -> None:
    for t in range(4):
        fix = localizer.step(scene.photo(10.0 * t, 0), state(t))
        numbers = [v for v in vars(fix).values() if isinstance(v, float)]
        assert all(math.isfinite(v) for v in numbers)


# --- the deadline ----------------------------------------------------------------------------


def test_a_deadline_that_cannot_be_kept_sheds_the_frame_and_is_missed(
    make_localizer: Callable[..., Localizer], scene: Any
) -> None:
    fix = make_localizer(deadline_ms=0.01).step(scene.photo(0, 0), state())
    assert fix.shed == ("frame",)
    assert fix.windows == 0
    assert fix.deadline_missed
    assert abstains(fix)


def test_a_warm_localizer_answers_as_a_cold_one(
    make_localizer: Callable[..., Localizer], scene: Any
) -> None:
    warm, cold = make_localizer(), make_localizer()
    warm.warm_up()
    photo = scene.photo(20, -30)
    answers = [one.step(photo, state()) for one in (warm, cold)]
    assert len({replace(fix, latency_ms={}, t_fix_s=0.0).to_json() for fix in answers}) == 1


def test_an_effort_that_was_recorded_is_made_again(
    make_localizer: Callable[..., Localizer], scene: Any
) -> None:
    photo = scene.photo(0, 0)
    fix = make_localizer(deadline_ms=60_000.0).step(photo, state(), effort=Effort(1, False))
    assert (fix.windows, fix.inliers) == (1, 0)


def test_a_localizer_goes_on_from_its_snapshot_as_if_nothing_had_happened(
    make_localizer: Callable[..., Localizer], scene: Any
) -> None:
    flown, resumed = make_localizer(), make_localizer()
    photos = [scene.photo(8.0 * t, -5.0 * t) for t in range(6)]
    for t in range(3):
        flown.step(photos[t], state(t))
    resumed.restore(json.loads(json.dumps(flown.snapshot())))
    for t in range(3, 6):
        one, other = flown.step(photos[t], state(t)), resumed.step(photos[t], state(t))
        assert replace(one, latency_ms={}, t_fix_s=0.0) == replace(
            other, latency_ms={}, t_fix_s=0.0
        )


def test_a_snapshot_of_something_else_is_refused(localizer: Localizer) -> None:
    with pytest.raises(InputError, match="snapshot lacks or garbles 'tracker'"):
        localizer.restore({"seq": 1})


def test_a_generous_deadline_sheds_nothing(
    make_localizer: Callable[..., Localizer], scene: Any
) -> None:
    fix = make_localizer(deadline_ms=60_000.0).step(scene.photo(0, 0), state())
    assert (fix.status, fix.shed, fix.deadline_missed) == ("OK", (), False)


def test_capture_counts_towards_the_deadline(
    make_localizer: Callable[..., Localizer], scene: Any
) -> None:
    localizer = make_localizer(deadline_ms=60_000.0)
    fix = localizer.step(scene.photo(0, 0), state(), capture_ms=60_001.0)
    assert fix.deadline_missed
    assert "frame" in fix.shed


# --- losing and finding again ------------------------------------------------------------------


def test_a_lost_track_is_said_to_be_degraded_then_lost_and_is_found_again(
    localizer: Localizer, scene: Any
) -> None:
    for t in range(3):
        assert localizer.step(scene.photo(0, 0), state(t)).status == "OK"
    statuses = []
    black = np.zeros((180, 240, 3), np.uint8)
    for t in range(3, 12):
        fix = localizer.step(black, state(t))
        statuses.append(fix.status)
    assert statuses[:2] == ["DEGRADED", "DEGRADED"]
    assert statuses[-1] == "LOST"
    assert fix.lat_deg is None
    assert fix.reason
    for t in range(12, 15):
        fix = localizer.step(scene.photo(50, 50), state(t))
    assert fix.status == "OK"
    assert error_m(fix, scene, 50, 50) < 2


def test_one_frame_that_shows_little_costs_no_wider_look(
    localizer: Localizer, scene: Any, coloured_noise: Callable[..., U8]
) -> None:
    for t in range(4):
        usual = localizer.step(scene.photo(0, 0), state(t / 2))
    assert usual.windows == 1
    first = localizer.step(coloured_noise((180, 240), 1), state(2.0))
    second = localizer.step(coloured_noise((180, 240), 2), state(2.5))
    assert first.windows == 1
    assert second.windows > 1
    assert "OK" not in (first.status, second.status)


def test_where_frames_are_rare_a_wider_look_comes_at_once(
    localizer: Localizer, scene: Any, coloured_noise: Callable[..., U8]
) -> None:
    for t in range(4):
        localizer.step(scene.photo(0, 0), state(t / 2))
    assert localizer.step(coloured_noise((180, 240), 1), state(2.5)).windows > 1


def test_a_close_look_that_fails_is_followed_by_one_that_holds(
    localizer: Localizer, scene: Any, coloured_noise: Callable[..., U8]
) -> None:
    for t in range(4):
        localizer.step(scene.photo(0, 0), state(t / 2))
    localizer.step(coloured_noise((180, 240), 1), state(2.0))
    again = localizer.step(scene.photo(0, 0), state(2.5))
    assert again.status == "OK"
    assert again.windows == 1


def test_a_kidnapped_drone_counts_a_reset(localizer: Localizer, scene: Any) -> None:
    for t in range(4):
        fix = localizer.step(scene.photo(-110, 0), state(t, **FLYING))
    assert fix.reset_counter == 0
    for t in range(4, 16):
        fix = localizer.step(scene.photo(110, 60), state(t, **FLYING))
        # On the way it may be unsure, but never sure of a place where it is not.
        if fix.status == "OK" and t > 6:
            assert error_m(fix, scene, 110, 60) < 5
    assert fix.status == "OK"
    assert fix.reset_counter == 1


def test_another_place_altogether_is_not_found_on_this_map(
    localizer: Localizer, coloured_noise: Callable[..., U8]
) -> None:
    for t in range(6):
        assert abstains(localizer.step(coloured_noise((180, 240), 100 + t), state(t)))


# --- opening ---------------------------------------------------------------------------------


def test_opening_refuses_an_index_of_another_encoder(
    make_bundle: Callable[..., Path], index_dir: Path, tmp_path: Path, scene: Any
) -> None:
    other = make_bundle(tmp_path / "bundle", weights_sha256="cd" * 32)
    with pytest.raises(IndexFolderError, match="was made by encoder"):
        Localizer.open(other, index_dir, scene.camera)


def test_an_opened_localizer_flies_and_closes(
    bundle_dir: Path, index_dir: Path, scene: Any
) -> None:
    pytest.importorskip("onnxruntime")
    localizer = Localizer.open(str(bundle_dir), str(index_dir), scene.camera, backend="ort-cpu")
    fix = localizer.step(scene.photo(20, -30), state())
    assert fix.status == "OK"
    assert fix.backend == "ort-cpu"
    assert fix.engine_id == "CPUExecutionProvider/fp32"
    localizer.close()
    localizer.close()


def test_windows_that_show_chance_are_far_from_where_the_drone_can_be(
    localizer: Localizer, scene: Any
) -> None:
    fix = localizer.step(scene.photo(0, 0), state(0))
    assert fix.lat_deg is not None
    assert fix.lon_deg is not None
    near = Circle(fix.lat_deg, fix.lon_deg, 1.0)
    far = control_places(localizer.index, near, 7)
    away_m = [float(distance_m(near.lat_deg, near.lon_deg, c.lat_deg, c.lon_deg)) for c in far]
    assert all(metres > REACH_M for metres in away_m)
    assert control_places(localizer.index, None, 0) == []
