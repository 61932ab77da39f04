"""What `skyfix run` can be told of the camera, the ground and its files; and `skyfix convert`."""

import json
import math
import re
import struct
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from edge_runtime.camera import Camera
from edge_runtime.cli import main
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.flight_camera import camera_of, find_camera
from edge_runtime.flight_log import RunSettings, read_log, read_settings
from edge_runtime.localizer import Localizer
from edge_runtime.outputs.line_file import parts_of
from edge_runtime.recordings.reading import segment_paths
from edge_runtime.replaying import replay
from edge_runtime.run import RunOutputs, run

FRAMES = 8
TAKEOFF = (47.9, 8.3)


def with_focal_length(jpeg: bytes, focal_35mm_mm: int) -> bytes:
    """A JPEG with FocalLengthIn35mmFilm in an EXIF directory (CIPA DC-008-2019, 4.6.5)."""
    exif = struct.pack("<HHHIHH", 1, 0xA405, 3, 1, focal_35mm_mm, 0) + bytes(4)
    tiff = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x8769, 4, 1, 26) + bytes(4) + exif
    content = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


@pytest.fixture
def photos(scene: Any, tmp_path: Path) -> Path:
    """Photographs that know their focal length: 21 mm, so 79 degrees; the true field is 80."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(FRAMES):
        bgr = scene.photo(-20.0 + 5 * k, 10.0 + 2 * k)[..., ::-1]
        ok, data = cv2.imencode(".jpg", np.ascontiguousarray(bgr), [cv2.IMWRITE_JPEG_QUALITY, 97])
        assert ok
        (folder / f"{k:03d}.jpg").write_bytes(with_focal_length(data.tobytes(), 21))
    return folder


@pytest.fixture
def settings(photos: Path, flight_dir: Path, bundle_dir: Path, index_dir: Path) -> Callable[
    ..., RunSettings
]:  # fmt: skip
    def make(height: str = "height_m", metres: float = 100.0, **options: Any) -> RunSettings:
        table = photos.parent / f"{height}.csv"
        rows = "".join(f"{k:03d}.jpg,{0.5 * k},{metres},0,0,0\n" for k in range(FRAMES))
        table.write_text(f"filename,t_s,{height},yaw_deg,pitch_deg,roll_deg\n{rows}")
        return RunSettings(
            source=str(photos),
            telemetry=str(table),
            camera=options.pop("camera", str(flight_dir / "camera.json")),
            bundle=str(bundle_dir),
            index=str(index_dir),
            backend="ort-cpu",
            options={"threads": 1, **options},
        )

    return make


# --- the camera --------------------------------------------------------------------------------


def test_photographs_are_flown_with_the_camera_that_their_exif_says(
    settings: Callable[..., RunSettings], tmp_path: Path
) -> None:
    summary = run(settings(camera=""), tmp_path / "fixes.jsonl")
    assert summary.ok == FRAMES
    assert summary.notes[0].startswith("camera: field of view 79.0 +- 3.0 degrees by EXIF: 21 mm")
    # 3 degrees of 79 are 0.052 / sin 79 = 5.3 % of the height, beside the 4 % there always are.
    assert "heights may be 5.3% off" in summary.notes[0]
    kept = read_settings(tmp_path / "fixes.jsonl").options
    assert kept["scale_sigma"] == pytest.approx(math.hypot(0.0533, 0.04), abs=2e-4)
    assert replay(tmp_path / "fixes.jsonl").different == []


def test_a_camera_that_was_found_is_kept_for_the_replay(
    settings: Callable[..., RunSettings], photos: Path
) -> None:
    found = find_camera(settings(camera="")).settings
    for path in photos.iterdir():
        path.unlink()
    again = find_camera(RunSettings(**json.loads(json.dumps(vars(found)))))
    assert camera_of(again.settings) == camera_of(found)
    assert again.settings.options["scale_sigma"] == found.options["scale_sigma"]


def test_a_field_of_view_makes_a_camera_for_the_frames_there_are(
    settings: Callable[..., RunSettings], scene: Any, tmp_path: Path
) -> None:
    flight = settings(camera="", hfov_deg=80.0)
    camera = camera_of(find_camera(flight).settings)
    assert camera == Camera.from_hfov(240, 180, 80.0)
    assert run(flight, tmp_path / "fixes.jsonl").ok == FRAMES


def test_the_mounting_may_be_said_beside_a_camera_file(
    settings: Callable[..., RunSettings], scene: Any
) -> None:
    flight = settings(mount_pitch_deg=-60.0, mount_yaw_deg=180.0, mount_roll_deg=2.0)
    camera = camera_of(flight)
    assert camera == scene.camera.mounted(pitch_deg=-60.0, yaw_deg=180.0, roll_deg=2.0)
    assert camera_of(settings()) == scene.camera


@pytest.mark.parametrize(
    ("options", "source", "match"),
    [
        ({"hfov_deg": 80.0}, None, "both say a field of view; give one"),
        ({"camera": ""}, "rtsp://camera/main", "is no folder of JPEG photographs.*give --camera"),
        ({"camera": "", "hfov_deg": 80.0}, "rtsp://camera/main", "not rtsp://camera/main; give"),
        ({"camera": "", "hfov_deg": 999.0}, None, r"outside \[1, 170\]"),
    ],
)
def test_a_camera_that_cannot_be_settled_is_refused(
    settings: Callable[..., RunSettings], options: Any, source: str | None, match: str
) -> None:
    flight = settings(**options)
    if source is not None:
        flight = RunSettings(**{**vars(flight), "source": source})
    with pytest.raises(InputError, match=match):
        find_camera(flight)


# --- the ground --------------------------------------------------------------------------------


@pytest.fixture
def terrain(tmp_path: Path) -> Path:
    """A tile at three seconds of arc: 500 m high around the map, 530 m at the take-off."""
    heights = np.full((1201, 1201), 500, ">i2")
    heights[:300] = 530
    path = tmp_path / "N47E008.hgt"
    path.write_bytes(heights.tobytes())
    return path


def test_heights_above_take_off_need_the_terrain_where_the_ground_is_not_flat(
    settings: Callable[..., RunSettings], terrain: Path, tmp_path: Path
) -> None:
    """The drone is 70 m above the place of take-off, and 100 m above the ground below."""
    takeoff = {"height": "height_above_takeoff_m", "metres": 70.0}
    flat = run(settings(**takeoff), tmp_path / "flat.jsonl")
    assert flat.ok == 0
    known = settings(**takeoff, terrain=str(terrain), takeoff=list(TAKEOFF))
    assert run(known, tmp_path / "known.jsonl").ok == FRAMES
    assert replay(tmp_path / "known.jsonl").different == []


@pytest.mark.parametrize(
    "options", [{"terrain": "N47E008.hgt"}, {"takeoff": list(TAKEOFF)}], ids=str
)
def test_terrain_and_take_off_go_together(
    settings: Callable[..., RunSettings], tmp_path: Path, options: Any
) -> None:
    with pytest.raises(InputError, match="heights need both"):
        run(settings(**options), tmp_path / "fixes.jsonl")


# --- files and ports ---------------------------------------------------------------------------


def test_the_log_is_split_and_only_so_many_parts_are_kept(
    settings: Callable[..., RunSettings], tmp_path: Path
) -> None:
    log = tmp_path / "fixes.jsonl"

    def watch(fix: Fix, done: int, total: int | None) -> None:
        # Records that wait for a busy medium are written together, into one part.
        end_s = time.monotonic() + 60
        while not (log.exists() and fix.frame in log.read_text()):
            assert time.monotonic() < end_s
            time.sleep(0.002)

    outputs = RunOutputs(log_part_bytes=2048, log_keep_parts=2)
    run(settings(), log, outputs=outputs, watch=watch)
    assert len(parts_of(log)) == 2
    fixes = list(read_log(log))
    assert [fix.seq for fix in fixes] == list(range(fixes[0].seq, FRAMES))
    assert fixes[0].seq > 0
    # What is left is still compared frame by frame.
    summary = replay(log)
    assert (summary.frames, summary.different) == (len(fixes), [])


def test_health_is_answered_while_the_flight_goes_on(
    settings: Callable[..., RunSettings], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answers: list[Any] = []

    def watch(fix: Fix, done: int, total: int | None) -> None:
        if done == 3:
            found = re.search(r"Health: (http://127\.0\.0\.1:\d+/health)", capfd.readouterr().err)
            assert found is not None
            with urllib.request.urlopen(found[1], timeout=30) as answer:
                answers.append(json.load(answer))

    run(settings(), tmp_path / "fixes.jsonl", outputs=RunOutputs(health_port=0), watch=watch)
    assert [(answer["frames"], answer["flowing"]) for answer in answers] == [(3, True)]


def test_a_recording_keeps_no_more_than_it_was_told(
    settings: Callable[..., RunSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_runtime.recordings.recorder import Recorder

    seconds = (6.0 * k for k in range(10_000))
    assert Recorder.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Recorder.__init__.__kwdefaults__, "clock", lambda: next(seconds))
    for name, record_seconds in (("all", None), ("some", 20.0)):
        outputs = RunOutputs(record=tmp_path / name, record_seconds=record_seconds)
        run(settings(), tmp_path / "fixes.jsonl", outputs=outputs)
    assert 0 < len(segment_paths(tmp_path / "some")) < len(segment_paths(tmp_path / "all"))


def test_a_camera_is_opened_last(
    settings: Callable[..., RunSettings], photos: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from edge_runtime.sources.photographs import PhotographSource

    opened: list[object] = []
    original = Localizer.open

    def localizer(*args: Any, **options: Any) -> Localizer:
        opened.append("localizer")
        return original(*args, **options)

    def frames(uri: str, **options: Any) -> PhotographSource:
        opened.append((uri, options.get("rate_hz")))
        return PhotographSource(photos)

    monkeypatch.setattr(Localizer, "open", localizer)
    monkeypatch.setattr("edge_runtime.flight_opening.open_frames", frames)
    run(settings(), tmp_path / "fixes.jsonl")
    assert opened == [(str(photos), None), "localizer"]
    opened.clear()
    live = RunSettings(**{**vars(settings(rate_hz=2.0)), "source": "csi://0"})
    run(live, tmp_path / "fixes.jsonl")
    assert opened == ["localizer", ("csi://0", 2.0)]


def test_every_option_of_the_command_reaches_the_run(
    settings: Callable[..., RunSettings], terrain: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    flight = settings("height_above_takeoff_m", 70.0)
    out, recording = tmp_path / "out" / "fixes.jsonl", tmp_path / "out" / "recording"
    arguments = [
        *("run", "--bundle", flight.bundle, "--index", flight.index, "--source", flight.source),
        *("--telemetry", flight.telemetry, "--hfov-deg", "80", "--mount-pitch-deg", "-89.5"),
        *("--mount-yaw-deg", "0.5", "--mount-roll-deg", "-0.5", "--terrain", str(terrain)),
        *("--takeoff", str(TAKEOFF[0]), str(TAKEOFF[1]), "--out", str(out), "--health-port", "0"),
        *("--log-part-mib", "0.002", "--log-keep-parts", "50", "--record", str(recording)),
        *("--record-seconds", "900", "--serve", "0", "--serve-title", "drone 7"),
        *("--backend", "ort-cpu", "--threads", "1"),
    ]
    assert main(arguments) == 0
    said = capfd.readouterr()
    assert "Live page: http://127.0.0.1:" in said.err
    assert parts_of(out)
    options = read_settings(out).options
    assert options["takeoff"] == list(TAKEOFF)
    assert options["terrain"] == str(terrain)
    assert (options["mount_pitch_deg"], options["camera"]["width_px"]) == (-89.5, 240)
    assert main(["replay", str(out)]) == 0
    assert main(["replay", str(recording)]) == 0


# --- convert -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "geojson", "kml", "gpx"])
def test_a_log_becomes_the_file_that_the_flight_would_have_written(
    settings: Callable[..., RunSettings], tmp_path: Path, kind: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    log, live, later = tmp_path / "fixes.jsonl", tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    # Two parts of a log, as after hours of flight.
    run(settings(), log, outputs=RunOutputs(uris=(str(live),), log_part_bytes=5000))
    assert main(["convert", str(log), str(later)]) == 0
    assert later.read_bytes() == live.read_bytes()
    assert capfd.readouterr().out == f"8 records, 8 with a position, written to {later}\n"


@pytest.mark.parametrize(
    ("log", "out", "match"),
    [
        ("fixes.jsonl", "track.xyz", "is not known; expected KIND:PLACE"),
        ("fixes.jsonl", "mavlink:udpout:127.0.0.1:14550", "is a peer that listens in flight"),
        ("absent.jsonl", "track.kml", "cannot be read"),
        ("empty.jsonl", "track.kml", "has no records"),
    ],
)
def test_what_cannot_be_converted_is_refused_and_replaces_nothing(
    settings: Callable[..., RunSettings], tmp_path: Path, log: str, out: str, match: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run(settings(), tmp_path / "fixes.jsonl")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "track.kml").write_text("older")
    place = out if ":" in out else str(tmp_path / out)
    assert main(["convert", str(tmp_path / log), place]) == 2
    assert match in capfd.readouterr().err
    assert (tmp_path / "track.kml").read_text() == "older"
