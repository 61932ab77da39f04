"""A long run is judged by its memory, its frame numbers and its outputs; and a short one is run."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.random_checkpoint import random_checkpoint
from benchmarks.soak import SoakPlan, judge, read_samples, sample, soak, write_samples
from benchmarks.soak_check import (
    Completeness,
    Sample,
    completeness,
    growth_of,
    laws,
    seqs_of_csv,
    seqs_of_geojson,
)
from benchmarks.start_up import StartUpPlan, drop_from_cache, import_s, measure
from benchmarks.start_up import laws as start_laws
from edge_runtime.backends.protocol import open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from export.bundle_export import export_bundle
from export.index_build import build_index
from export.index_plan import PlanOptions, TileSize
from train.world import WorldConfig, make_world

MakeFix = Callable[..., Fix]
KIB_OF_MB = 1e6 / 1024


def samples(
    grow_mb_per_hour: float, *, spike_mb: float = 0.0, noise_mb: float = 0.0
) -> list[Sample]:
    """An hour, every 10 s; the first minutes fill up by 80 MB."""
    rng = np.random.default_rng(1)
    found = []
    for k in range(361):
        t_s = 10.0 * k
        rss_mb = 270 - 80 * np.exp(-t_s / 60) + grow_mb_per_hour * t_s / 3600
        rss_mb += spike_mb * (k == 200) + noise_mb * rng.uniform(-1, 1)
        found.append(Sample(t_s, rss_mb * KIB_OF_MB, rss_mb * KIB_OF_MB / 2, 15, 14))
    return found


def complete(**values: int) -> Completeness:
    counts = {"records": 10, "dropped": 0, "missing": 0, "repeated": 0} | values
    return Completeness(**counts, wanting={"csv": 0}, surplus={"csv": 0})


def verdict(found: list[Sample], name: str = "memory") -> bool | None:
    judged = laws(growth_of(found), complete(), seconds=found[-1].t_s)
    return next(law.holds for law in judged if law.name == name)


def test_filling_up_in_the_first_minutes_is_no_growth() -> None:
    assert verdict(samples(0.0, noise_mb=0.3)) is True


def test_a_slow_leak_is_growth() -> None:
    found = growth_of(samples(8.0))
    assert found.by_line_mb == pytest.approx(8.0 * 3300 / 3600, rel=0.05)
    assert verdict(samples(8.0)) is False


def test_one_moment_above_the_limit_is_growth_though_the_line_is_flat() -> None:
    found = samples(0.0, spike_mb=6.0)
    assert growth_of(found).by_line_mb < 0.6
    assert verdict(found) is False


def test_more_open_files_at_the_end_fail_the_run() -> None:
    found = samples(0.0)
    leaking = [s._replace(files=s.files + k // 60) for k, s in enumerate(found)]
    assert verdict(leaking, "threads and open files") is False
    assert verdict(found, "threads and open files") is True


def test_a_run_that_had_no_time_to_settle_claims_nothing_of_memory() -> None:
    found = samples(8.0)[:4]
    growth = growth_of(found, settled_s=5.0)
    memory = laws(growth, complete(), seconds=30.0, settled_s=5.0)[0]
    assert memory.holds is None
    assert "an hour is asked" in memory.note


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(InputError, match="run for longer"):
        growth_of(samples(0.0)[:30])


def test_frames_dropped_and_told_are_not_missing(make_fix: MakeFix) -> None:
    records = [
        make_fix(0, frame="000002", dropped=2),
        make_fix(1, frame="000003"),
        make_fix(2, frame="000006", dropped=2),
    ]
    found = completeness(records, {"csv": [0, 1, 2]})
    assert (found.records, found.dropped, found.missing, found.repeated) == (3, 4, 0, 0)


def test_a_frame_that_nobody_speaks_of_is_missing(make_fix: MakeFix) -> None:
    records = [make_fix(0, frame="000000"), make_fix(1, frame="000003", dropped=1)]
    found = completeness(records, {})
    assert found.missing == 1
    judged = {law.name: law.holds for law in laws(growth_of(samples(0)), found, seconds=3600)}
    assert judged["frames"] is False


def test_a_frame_that_comes_twice_is_out_of_order(make_fix: MakeFix) -> None:
    records = [make_fix(0, frame="000000"), make_fix(1, frame="000000")]
    assert completeness(records, {}).repeated == 1


def test_every_output_is_held_to_its_own_part_of_the_log(make_fix: MakeFix) -> None:
    records = [
        make_fix(0, frame="0"),
        make_fix(1, frame="1", status="ABSTAIN"),
        make_fix(2, frame="2"),
    ]
    outputs = {"csv": [0, 1, 2], "positions geojson": [0, 2], "udp": [0, 0, 2]}
    found = completeness(records, outputs)
    assert found.wanting == {"csv": 0, "positions geojson": 0, "udp": 1}
    assert found.surplus == {"csv": 0, "positions geojson": 0, "udp": 1}


def test_photographs_without_numbers_are_refused(make_fix: MakeFix) -> None:
    with pytest.raises(InputError, match="no number"):
        completeness([make_fix(0, frame="DJI_1.JPG")], {})


def test_samples_come_back_from_their_file(tmp_path: Path) -> None:
    write_samples(tmp_path / "samples.csv", samples(1.0)[:5])
    assert read_samples(tmp_path / "samples.csv") == samples(1.0)[:5]


def test_this_process_uses_memory_threads_and_files() -> None:
    found = sample(os.getpid(), 0.0)
    assert found.rss_kib > found.anonymous_kib > 1000
    assert found.threads >= 1
    with Path("/dev/null").open():
        assert sample(os.getpid(), 0.0).files == found.files + 1


@pytest.mark.parametrize("read", [seqs_of_csv, seqs_of_geojson, read_samples])
def test_a_file_that_is_something_else_is_refused(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    (tmp_path / "file").write_text("nothing\nof use\n")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "file")


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle, index, camera, a video of two seconds and its telemetry."""
    root = tmp_path_factory.mktemp("soak")
    config = WorldConfig(
        seed=3,
        train_size_m=300,
        train_photos=0,
        held_out_size_m=400,
        flights=1,
        frames_per_flight=20,
        min_height_m=50,
        max_height_m=70,
        photo_width_px=320,
        photo_height_px=240,
        threads=1,
    )
    make_world(root / "world", config)
    random_checkpoint("test_resnet", 64, root / "checkpoint")
    export_bundle(root / "checkpoint", root / "bundle", precisions=("fp32",))
    bundle = Bundle.open(root / "bundle")
    backend = open_backend(bundle, "ort-cpu", threads=1)
    imagery = root / "world" / "held_out" / "imagery.tif"
    options = PlanOptions(sizes=(TileSize(48.0, 24.0),))
    build_index([imagery], root / "index", bundle, backend, options)
    backend.close()
    frames = sorted((root / "world" / "held_out" / "flight_1" / "frames").iterdir())
    video = cv2.VideoWriter(
        str(root / "loop.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 240)
    )
    for path in frames:
        picture = cv2.imread(str(path))
        assert picture is not None
        video.write(picture)
    video.release()
    lines = [f"{0.1 * k:.1f},60,0,0,0" for k in range(len(frames))]
    rows = "\n".join(["t_s,height_m,yaw_deg,pitch_deg,roll_deg", *lines])
    (root / "telemetry.csv").write_text(rows + "\n")
    return root


@pytest.mark.slow
def test_a_run_on_a_looped_video_is_watched_ended_and_judged(flight: Path, tmp_path: Path) -> None:
    plan = SoakPlan(
        bundle=flight / "bundle",
        index=flight / "index",
        source=flight / "loop.mp4",
        telemetry=flight / "telemetry.csv",
        camera=flight / "world" / "held_out" / "camera.json",
        folder=tmp_path / "run",
        minutes=0.2,
        every_s=1.0,
        options=("--backend", "ort-cpu", "--threads", "1"),
    )
    row = soak(plan)
    assert row.exit_status in (0, 2)
    assert row.complete.records > 20
    assert row.complete.missing == row.complete.repeated == 0
    # A peer is told of newer fixes only where the machine had no time for it.
    assert row.complete.wanting | {"udp": 0} == dict.fromkeys(row.complete.wanting, 0)
    assert row.complete.wanting["udp"] <= 3
    assert not any(row.complete.surplus.values()), row.complete
    assert row.rss_peak_mib > 50
    assert judge(plan.folder, exit_status=row.exit_status) == row
    with pytest.raises(InputError, match="another --folder"):
        soak(plan)


@pytest.mark.slow
def test_a_video_that_would_be_thinned_out_is_refused(flight: Path, tmp_path: Path) -> None:
    plan = SoakPlan(
        bundle=flight / "bundle",
        index=flight / "index",
        source=flight / "loop.mp4",
        telemetry=flight / "telemetry.csv",
        camera=flight / "world" / "held_out" / "camera.json",
        folder=tmp_path / "run",
        hz=5.0,
    )
    with pytest.raises(InputError, match=r"10 frames/s; expected a video of at most --hz 5"):
        soak(plan)


@pytest.mark.slow
def test_a_run_that_ends_by_itself_is_told_with_its_last_words(
    flight: Path, tmp_path: Path
) -> None:
    plan = SoakPlan(
        bundle=flight / "bundle",
        index=flight / "bundle",
        source=flight / "loop.mp4",
        telemetry=flight / "telemetry.csv",
        camera=flight / "world" / "held_out" / "camera.json",
        folder=tmp_path / "run",
        minutes=1,
    )
    with pytest.raises(InputError, match=r"ended by itself .* status 2: .*index"):
        soak(plan)


@pytest.mark.slow
def test_a_start_has_its_first_record_before_or_with_its_first_fix(flight: Path) -> None:
    held_out = flight / "world" / "held_out"
    plan = StartUpPlan(
        bundle=flight / "bundle",
        index=flight / "index",
        source=str(held_out / "flight_1" / "frames"),
        telemetry=held_out / "flight_1" / "telemetry.csv",
        camera=held_out / "camera.json",
        backends=("ort-cpu",),
        runs=2,
        caches=("cold",),
    )
    (row,) = measure(plan)
    assert 0 < row.import_s < row.first_record_s
    assert row.first_ok_s is None or row.first_ok_s >= row.first_record_s
    assert [law.holds is not None for law in start_laws([row])] == [True, True]
    assert json.loads(json.dumps(row.__dict__))["runs"] == 2


@pytest.mark.slow
def test_a_start_that_fails_says_why(flight: Path) -> None:
    held_out = flight / "world" / "held_out"
    plan = StartUpPlan(
        bundle=flight / "bundle",
        index=flight / "index",
        source=str(flight / "nothing"),
        telemetry=held_out / "flight_1" / "telemetry.csv",
        camera=held_out / "camera.json",
        backends=("ort-cpu",),
        caches=("warm",),
    )
    with pytest.raises(InputError, match=r"no record .*nothing does not exist"):
        measure(plan)


def test_the_import_takes_some_time_in_a_process_of_its_own() -> None:
    assert 0 < import_s() < 20


def test_dropping_files_from_the_cache_leaves_them_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    drop_from_cache([tmp_path / "file", tmp_path / "missing"])
    assert (tmp_path / "file").read_bytes() == b"bytes"
