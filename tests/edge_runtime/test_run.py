"""A whole flight into a log, and the same flight out of it again."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runtime.errors import InputError, SkyfixError
from edge_runtime.fix import Fix
from edge_runtime.flight_log import RunSettings, read_log, read_settings, settings_path
from edge_runtime.geodesy import distance_m
from edge_runtime.localizer import Localizer
from edge_runtime.replaying import differing_fields, replay
from edge_runtime.run import run

pytest.importorskip("onnxruntime")

FRAMES = ["000.png", "001.png", "002.png", "003.png"]


@pytest.fixture
def settings(flight_dir: Path, bundle_dir: Path, index_dir: Path) -> RunSettings:
    return RunSettings(
        source=str(flight_dir / "photos"),
        telemetry=str(flight_dir / "telemetry.csv"),
        camera=str(flight_dir / "camera.json"),
        bundle=str(bundle_dir),
        index=str(index_dir),
        backend="ort-cpu",
        options={"threads": 1},
    )


@pytest.fixture
def own_flight(settings: RunSettings, flight_dir: Path, tmp_path: Path) -> RunSettings:
    """The same flight in a folder that may be altered."""
    own = shutil.copytree(flight_dir, tmp_path / "flight")
    return replace(
        settings,
        source=str(own / "photos"),
        telemetry=str(own / "telemetry.csv"),
        camera=str(own / "camera.json"),
    )


# --- running ---------------------------------------------------------------------------------


def test_a_flight_is_located_and_logged_frame_by_frame(
    settings: RunSettings, tmp_path: Path, scene: Any
) -> None:
    log = tmp_path / "fixes.jsonl"
    told: list[tuple[str, int, int | None]] = []
    summary = run(
        settings, log, watch=lambda fix, done, total: told.append((fix.frame, done, total))
    )
    fixes = list(read_log(log))
    assert log.read_text().count("\n") == 4
    assert [fix.frame for fix in fixes] == FRAMES
    assert [fix.seq for fix in fixes] == [0, 1, 2, 3]
    assert [fix.t_exposure_s for fix in fixes] == [0.0, 0.5, 1.0, 1.5]
    assert [fix.status for fix in fixes] == ["OK"] * 4
    for k, fix in enumerate(fixes):
        assert fix.lat_deg is not None
        assert fix.lon_deg is not None
        lat_deg, lon_deg = scene.position(-30.0 + 12 * k, 10.0 + 5 * k)
        assert distance_m(lat_deg, lon_deg, fix.lat_deg, fix.lon_deg) < 1
    assert told == [(name, k + 1, 4) for k, name in enumerate(FRAMES)]
    assert (summary.frames, summary.ok, summary.left_out) == (4, 4, 0)
    assert (summary.abstained, summary.lost, summary.degraded) == (0, 0, 0)
    assert summary.provider == "CPUExecutionProvider"
    assert summary.median_ms > 0
    assert read_settings(log) == settings


def test_a_prior_in_the_settings_is_used(settings: RunSettings, tmp_path: Path, scene: Any) -> None:
    options = {**settings.options, "start": [*scene.position(-30, 10), 20.0]}
    run(replace(settings, options=options), tmp_path / "fixes.jsonl")
    assert next(read_log(tmp_path / "fixes.jsonl")).mode == "TRACK"


def test_the_precision_that_is_asked_for_flies_or_nothing_does(
    settings: RunSettings, tmp_path: Path
) -> None:
    options = {**settings.options, "precision": "fp32"}
    run(replace(settings, options=options), tmp_path / "fixes.jsonl")
    assert {fix.engine_id for fix in read_log(tmp_path / "fixes.jsonl")} == {
        "CPUExecutionProvider/fp32"
    }
    options = {**settings.options, "precision": "int8"}
    with pytest.raises(SkyfixError, match="no int8 encoder"):
        run(replace(settings, options=options), tmp_path / "other.jsonl")


def test_photographs_without_telemetry_are_counted(own_flight: RunSettings, tmp_path: Path) -> None:
    table = Path(own_flight.telemetry)
    table.write_text("\n".join(table.read_text().splitlines()[:3]) + "\n")
    summary = run(own_flight, tmp_path / "fixes.jsonl")
    assert (summary.frames, summary.left_out) == (2, 2)


def test_a_frame_of_another_aspect_does_not_end_the_run(
    own_flight: RunSettings, tmp_path: Path
) -> None:
    cropped = np.random.default_rng(0).integers(0, 256, (180, 120, 3), np.uint8)
    assert cv2.imwrite(str(Path(own_flight.source) / "001.png"), cropped)
    summary = run(own_flight, tmp_path / "fixes.jsonl")
    assert (summary.frames, summary.lost) == (4, 0)
    matched = [fix.ncc is not None for fix in read_log(tmp_path / "fixes.jsonl")]
    assert matched == [True, False, True, True]


def test_a_video_is_flown_like_a_folder(settings: RunSettings, tmp_path: Path, scene: Any) -> None:
    video = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 2.0, (240, 180))
    for k in range(4):
        writer.write(scene.photo(-30.0 + 12 * k, 10.0 + 5 * k)[..., ::-1].copy())
    writer.release()
    telemetry = tmp_path / "telemetry.csv"
    rows = "".join(f"{0.5 * k},100,0,0,0\n" for k in range(4))
    telemetry.write_text("t_s,height_m,yaw_deg,pitch_deg,roll_deg\n" + rows)
    flight = replace(settings, source=str(video), telemetry=str(telemetry))
    summary = run(flight, tmp_path / "fixes.jsonl")
    assert (summary.frames, summary.ok) == (4, 4)


# --- refusing --------------------------------------------------------------------------------

REFUSED: dict[str, Callable[[RunSettings], RunSettings]] = {
    "no source": lambda s: replace(s, source=s.source + "x"),
    "no telemetry": lambda s: replace(s, telemetry=s.telemetry + "x"),
    "no camera": lambda s: replace(s, camera=s.camera + "x"),
    "no bundle": lambda s: replace(s, bundle=s.bundle + "x"),
    "no index": lambda s: replace(s, index=s.index + "x"),
    "no such backend": lambda s: replace(s, backend="tpu"),
    "no such option": lambda s: replace(s, options={"speed": 1}),
    "a prior off the map": lambda s: replace(s, options={"start": [10.0, 10.0, 5.0]}),
    "heights the wrong way round": lambda s: replace(
        s, options={"height_range_m": [200.0, 100.0], "ignore": ["height_m"]}
    ),
}


def without_height(settings: RunSettings) -> RunSettings:
    return replace(settings, options={"ignore": ["height_m"]})


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(make, id=name)
        for name, make in {**REFUSED, "no height at all": without_height}.items()
    ],
)
def test_nothing_is_written_when_an_input_is_wrong(
    settings: RunSettings, tmp_path: Path, wrong: Callable[[RunSettings], RunSettings]
) -> None:
    with pytest.raises(SkyfixError):
        run(wrong(settings), tmp_path / "out" / "fixes.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_what_was_opened_is_closed_when_the_prior_is_refused(
    settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Localizer] = []
    original = Localizer.close

    def counted(self: Localizer) -> None:
        closed.append(self)
        original(self)

    monkeypatch.setattr(Localizer, "close", counted)
    with pytest.raises(InputError):
        run(REFUSED["a prior off the map"](settings), tmp_path / "fixes.jsonl")
    assert len(closed) == 1


def test_an_older_log_survives_a_wrong_input(settings: RunSettings, tmp_path: Path) -> None:
    log = tmp_path / "fixes.jsonl"
    log.write_text("older")
    with pytest.raises(SkyfixError):
        run(replace(settings, index="/nowhere"), log)
    assert log.read_text() == "older"
    assert not settings_path(log).exists()


@pytest.fixture
def with_positions(settings: RunSettings, tmp_path: Path) -> Callable[..., RunSettings]:
    def make(*positions: tuple[float, float]) -> RunSettings:
        header, *rows = Path(settings.telemetry).read_text().splitlines()
        places = [positions[k % len(positions)] for k in range(len(rows))]
        lines = [f"{row},{lat},{lon}" for row, (lat, lon) in zip(rows, places, strict=True)]
        path = tmp_path / "positions.csv"
        path.write_text("\n".join([f"{header},lat_deg,lon_deg", *lines]))
        return replace(settings, telemetry=str(path))

    return make


def test_telemetry_that_is_on_the_map_only_when_swapped_is_refused(
    with_positions: Callable[..., RunSettings], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"8\.30000, 47\.50000.*is the order \(lat, lon\)\?"):
        run(with_positions((60.0, 20.0), (8.3, 47.5)), tmp_path / "fixes.jsonl")


@pytest.mark.parametrize("elsewhere", [(47.5, 8.3), (-33.9, 18.4), (0.0, 0.0)])
def test_telemetry_that_says_another_place_or_the_right_one_is_flown(
    with_positions: Callable[..., RunSettings], tmp_path: Path, elsewhere: tuple[float, float]
) -> None:
    assert run(with_positions(elsewhere), tmp_path / "fixes.jsonl").ok == 4


def test_no_height_is_refused_with_the_remedy(settings: RunSettings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no height_m; add the column, or .* --height-range-m"):
        run(without_height(settings), tmp_path / "fixes.jsonl")


# --- replaying -------------------------------------------------------------------------------


@pytest.fixture
def log(own_flight: RunSettings, tmp_path: Path) -> Path:
    path = tmp_path / "fixes.jsonl"
    run(own_flight, path)
    return path


def test_a_replay_gives_every_fix_again(log: Path) -> None:
    before = log.read_bytes()
    summary = replay(log)
    assert (summary.frames, summary.different) == (4, [])
    assert log.read_bytes() == before


def test_a_replay_names_the_frame_whose_photograph_changed(log: Path) -> None:
    photo = log.parent / "flight" / "photos" / "003.png"
    pixels = cv2.imread(str(photo))
    assert pixels is not None
    assert cv2.imwrite(str(photo), np.roll(pixels, 9, axis=1))
    summary = replay(log)
    assert summary.frames == 4
    assert len(summary.different) == 1
    assert summary.different[0].startswith("003.png: ")
    assert "lon_deg" in summary.different[0]


def test_a_replay_says_which_frames_are_gone(log: Path) -> None:
    (log.parent / "flight" / "photos" / "003.png").unlink()
    summary = replay(log)
    assert summary.frames == 3
    assert summary.different == ["1 frames of the log are not in the source any more"]


def test_a_log_cut_off_by_a_crash_replays_as_far_as_it_goes(log: Path) -> None:
    log.write_bytes(log.read_bytes()[:-20])
    summary = replay(log)
    assert (summary.frames, summary.different) == (3, [])


def test_a_replay_without_settings_is_refused(log: Path) -> None:
    settings_path(log).unlink()
    with pytest.raises(InputError, match=r"fixes\.run\.json cannot be read .* replay needs"):
        replay(log)


def test_a_replay_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read .* skyfix run"):
        replay(tmp_path / "fixes.jsonl")


def test_a_replay_of_an_altered_bundle_is_refused(log: Path, tmp_path: Path) -> None:
    settings = read_settings(log)
    own = shutil.copytree(settings.bundle, tmp_path / "bundle")
    text = settings_path(log).read_text().replace(settings.bundle, str(own))
    settings_path(log).write_text(text)
    model = own / "encoder.fp32.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    with pytest.raises(SkyfixError, match=r"encoder\.fp32\.onnx"):
        replay(log)


# --- comparing -------------------------------------------------------------------------------


def fix(**changed: Any) -> Fix:
    values: dict[str, Any] = {
        "seq": 0,
        "frame": "a",
        "t_exposure_s": 0.0,
        "t_fix_s": 0.1,
        "status": "OK",
        "mode": "TRACK",
        "reason": "",
    }
    return Fix(**{**values, **changed})


def test_times_are_not_compared() -> None:
    slow = fix(t_fix_s=9.0, latency_ms={"total": 900.0}, deadline_missed=True)
    assert differing_fields(fix(), slow) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("status", "LOST"), ("lat_deg", 47.0), ("inliers", 3), ("shed", ("refine",)), ("prior", True)],
)
def test_everything_else_is_compared(name: str, value: Any) -> None:
    assert differing_fields(fix(), fix(**{name: value})) == [name]


def test_none_and_not_a_number_are_the_same_in_a_log() -> None:
    assert differing_fields(fix(similarity=None), fix(similarity=float("nan"))) == []
