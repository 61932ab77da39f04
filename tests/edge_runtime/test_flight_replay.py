"""A log and a recording of one flight, flown again, give the same fixes byte for byte."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import cv2
import pytest

pytest.importorskip("onnxruntime")

from edge_runtime.cli import main
from edge_runtime.deadline import Deadline, Effort
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.flight_log import RunSettings, read_log, read_settings, settings_path
from edge_runtime.recordings.reading import read_recording, segment_paths
from edge_runtime.recordings.recorder import Recorder
from edge_runtime.replaying import NOT_COMPARED, replay
from edge_runtime.run import RunOutputs, run
from edge_runtime.sources.photographs import PhotographSource

FRAMES = 12


@pytest.fixture
def settings(scene: Any, tmp_path: Path, flight_dir: Path, bundle_dir: Path, index_dir: Path) -> (
    RunSettings
):  # fmt: skip
    """A flight of twelve photographs, with a deadline."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["filename,t_s,height_m,yaw_deg,pitch_deg,roll_deg"]
    for k in range(FRAMES):
        rgb = scene.photo(-30.0 + 5 * k, 10.0 + 2 * k)
        assert cv2.imwrite(str(folder / f"{k:03d}.png"), rgb[..., ::-1])
        lines.append(f"{k:03d}.png,{0.5 * k},100,0,0,0")
    (tmp_path / "telemetry.csv").write_text("\n".join(lines) + "\n")
    return RunSettings(
        source=str(folder),
        telemetry=str(tmp_path / "telemetry.csv"),
        camera=str(flight_dir / "camera.json"),
        bundle=str(bundle_dir),
        index=str(index_dir),
        backend="ort-cpu",
        options={"threads": 1, "deadline_ms": 60_000.0},
    )


SHED: dict[int, tuple[str, ...]] = {
    2: ("refine", "candidates"),
    4: ("refine",),
    5: ("frame",),
    6: ("frame",),
    9: ("refine", "candidates"),
}
"""What the clock leaves no time for, by frame."""


@pytest.fixture
def flown(settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with the log and the recording of a flight whose deadline ran out in some frames."""
    done = [0]
    missed = Deadline.missed

    def afford(self: Deadline, windows: int, elapsed_ms: float) -> tuple[Effort, tuple[str, ...]]:
        shed = SHED.get(done[0], ())
        if "frame" in shed:
            return Effort(0, False), shed
        return Effort(1 if "candidates" in shed else windows, "refine" not in shed), shed

    def missed_and_counted(self: Deadline, elapsed_ms: float) -> bool:
        done[0] += 1
        return missed(self, elapsed_ms)

    # Four seconds a step, so that a segment of ten seconds holds three frames.
    seconds = (4.0 * k for k in range(10_000))
    assert Recorder.__init__.__kwdefaults__ is not None
    with monkeypatch.context() as patched:
        patched.setattr(Deadline, "afford", afford)
        patched.setattr(Deadline, "missed", missed_and_counted)
        patched.setitem(Recorder.__init__.__kwdefaults__, "clock", lambda: next(seconds))
        run(settings, tmp_path / "fixes.jsonl", outputs=RunOutputs(record=tmp_path / "recording"))
    return tmp_path


def compared(fixes: Sequence[Fix]) -> list[bytes]:
    """Each record as it is in a log, without what is not compared."""
    names = [f.name for f in fields(Fix) if f.name not in NOT_COMPARED]
    return [
        json.dumps({name: json.loads(fix.to_json())[name] for name in names}).encode()
        for fix in fixes
    ]


def replayed(log: Path) -> list[Fix]:
    fixes: list[Fix] = []
    summary = replay(log, watch=lambda fix, done, total: fixes.append(fix))
    assert summary.different == []
    assert summary.frames == len(fixes)
    return fixes


def test_the_flight_shed_what_it_was_to_shed(flown: Path) -> None:
    fixes = list(read_log(flown / "fixes.jsonl"))
    assert len(fixes) == FRAMES
    assert {fix.seq: fix.shed for fix in fixes if fix.shed} == SHED
    assert [fix.status for fix in fixes[4:7]] == ["OK", "DEGRADED", "DEGRADED"]
    assert fixes[-1].status == "OK"


@pytest.mark.parametrize("what", ["fixes.jsonl", "recording"])
def test_a_flight_that_shed_is_replayed_byte_for_byte(flown: Path, what: str) -> None:
    before = list(read_log(flown / "fixes.jsonl"))
    assert compared(replayed(flown / what)) == compared(before)


@pytest.mark.parametrize("what", ["fixes.jsonl", "recording"])
def test_a_computer_that_is_too_slow_replays_the_same(
    flown: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Deadline, "afford", lambda *_: (Effort(0, False), ("frame",)))
    before = list(read_log(flown / "fixes.jsonl"))
    assert compared(replayed(flown / what)) == compared(before)


def test_a_recording_needs_neither_the_photographs_nor_the_telemetry(flown: Path) -> None:
    shutil.rmtree(flown / "photos")
    (flown / "telemetry.csv").unlink()
    assert len(replayed(flown / "recording")) == FRAMES


def test_a_recording_without_a_middle_segment_replays_the_rest(flown: Path) -> None:
    parts = list(read_recording(flown / "recording"))
    assert len(parts) > 3
    gone = [record.fix.seq for record in parts[1].records()]
    parts[1].path.unlink()
    fixes: list[Fix] = []
    summary = replay(flown / "recording", watch=lambda fix, done, total: fixes.append(fix))
    assert summary.different == []
    assert [fix.seq for fix in fixes] == [k for k in range(FRAMES) if k not in gone]
    assert summary.notes == [
        f"{len(gone)} frames before {gone[-1] + 1:03d}.png are not in the recording"
    ]


def test_a_frame_altered_in_a_recording_is_refused_by_its_checksum(flown: Path) -> None:
    part = segment_paths(flown / "recording")[0]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(InputError, match="is altered"):
        replay(flown / "recording")


@pytest.fixture
def two_runs(settings: RunSettings, scene: Any, tmp_path: Path) -> Path:
    """A log of two runs: one began with a position, the other with a doubtful compass."""
    log = tmp_path / "fixes.jsonl"
    start = [*scene.position(-30.0, 10.0), 20.0]
    run(replace(settings, options={**settings.options, "start": start}), log)
    other = {**settings.options, "yaw_sigma_deg": 20.0}
    run(replace(settings, options=other), log, outputs=RunOutputs(append=True))
    return log


def test_each_run_of_a_log_is_replayed_with_its_own_settings(two_runs: Path) -> None:
    before = list(read_log(two_runs))
    assert [fix.seq for fix in before] == [*range(FRAMES)] * 2
    fixes: list[Fix] = []
    summary = replay(two_runs, watch=lambda fix, done, total: fixes.append(fix))
    assert (summary.frames, summary.different) == (2 * FRAMES, [])
    assert summary.notes == ["the log holds 2 runs; each is replayed with its own settings"]
    assert compared(fixes) == compared(before)


def test_the_two_runs_would_differ_with_each_other_s_settings(two_runs: Path) -> None:
    """Else the test above would prove nothing."""
    path = settings_path(two_runs)
    value = json.loads(path.read_text())
    newest, first = value["options"], value["earlier"][0]["options"]
    value["options"], value["earlier"][0]["options"] = first, newest
    path.write_text(json.dumps(value))
    different = replay(two_runs).different
    assert {line.split(":")[0] for line in different} == {"run 1", "run 2"}


@pytest.mark.parametrize("number", [1, 2])
def test_one_run_of_a_log_is_replayed_alone(two_runs: Path, number: int) -> None:
    before = list(read_log(two_runs))[(number - 1) * FRAMES :][:FRAMES]
    fixes: list[Fix] = []
    totals = set()

    def watch(fix: Fix, done: int, total: int | None) -> None:
        fixes.append(fix)
        totals.add(total)

    summary = replay(two_runs, run=number, watch=watch)
    assert (summary.frames, summary.different, totals) == (FRAMES, [], {FRAMES})
    assert summary.notes == [f"the log holds 2 runs; replayed is {number}"]
    assert compared(fixes) == compared(before)


@pytest.mark.parametrize("number", [-1, 0, 3])
def test_a_run_that_a_log_does_not_hold_is_refused(two_runs: Path, number: int) -> None:
    with pytest.raises(
        InputError, match=rf"holds 2 runs, so there is no --run {number}; .* 1 to 2"
    ):
        replay(two_runs, run=number)


def altered_first_run(log: Path, **values: object) -> None:
    path = settings_path(log)
    value = json.loads(path.read_text())
    value["earlier"][0] |= values
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("rtsp://192.0.2.1/main", r"is of a live source, rtsp://\S+, whose .* --record"),
        ("/not/there", r"is of /not/there, which is not there any more; put the frames back"),
    ],
)
def test_a_run_whose_frames_are_gone_is_named_before_any_is_flown(
    two_runs: Path, source: str, reason: str
) -> None:
    altered_first_run(two_runs, source=source)
    fixes: list[Fix] = []
    with pytest.raises(InputError, match=rf"run 1 of 2 in .*fixes\.jsonl {reason}.*with --run"):
        replay(two_runs, watch=lambda fix, done, total: fixes.append(fix))
    assert fixes == []
    assert replay(two_runs, run=2).different == []


def test_a_run_whose_settings_were_not_kept_is_refused_and_the_last_is_replayed(
    two_runs: Path,
) -> None:
    path = settings_path(two_runs)
    value = json.loads(path.read_text())
    path.write_text(json.dumps({k: value[k] for k in asdict(read_settings(two_runs))}))
    with pytest.raises(InputError, match=r"run 1 of 2 .* does not say what it was made of"):
        replay(two_runs)
    assert replay(two_runs, run=2).different == []


def test_a_recording_has_no_runs_to_choose_from(flown: Path) -> None:
    with pytest.raises(InputError, match=r"is a recording, .* leave --run 1 out"):
        replay(flown / "recording", run=1)


def test_the_command_replays_the_run_that_was_asked_for(
    two_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered_first_run(two_runs, source="/not/there")
    assert main(["replay", str(two_runs), "--run", "2"]) == 0
    assert f"{FRAMES} frames, every fix the same." in capsys.readouterr().out
    assert main(["replay", str(two_runs)]) == 2
    assert "skyfix: run 1 of 2 in" in capsys.readouterr().err


def test_records_that_are_missing_in_a_log_do_not_shift_the_others(
    settings: RunSettings, tmp_path: Path
) -> None:
    log = tmp_path / "fixes.jsonl"
    run(settings, log)
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:4] + lines[6:10]))
    summary = replay(log)
    assert (summary.frames, summary.different) == (8, [])
    assert summary.notes == [
        "2 records are not in the log; their frames were flown and not compared"
    ]


def test_events_may_differ(settings: RunSettings, tmp_path: Path) -> None:
    log = tmp_path / "fixes.jsonl"
    run(settings, log)
    records = [replace(fix, events=("something else",), t_fix_s=9.0) for fix in read_log(log)]
    log.write_text("".join(fix.to_json() + "\n" for fix in records))
    assert replay(log).different == []


def test_a_log_of_a_live_source_is_refused_before_anything_is_opened(
    settings: RunSettings, tmp_path: Path
) -> None:
    log = tmp_path / "fixes.jsonl"
    run(settings, log)
    text = settings_path(log).read_text().replace(settings.source, "rtsp://192.0.2.1/main")
    settings_path(log).write_text(text)
    with pytest.raises(InputError, match=r"is of a live source, .* skyfix run --record"):
        replay(log)


def test_the_password_of_a_camera_is_in_no_file(
    settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def played(uri: str, **options: object) -> PhotographSource:
        assert "secret" in uri
        return PhotographSource(Path(settings.source))

    monkeypatch.setattr("edge_runtime.flight_opening.open_frames", played)
    out = tmp_path / "out"
    run(
        replace(settings, source="rtsp://user:secret@camera/main"),
        out / "fixes.jsonl",
        outputs=RunOutputs(record=out / "recording"),
    )
    assert read_settings(out / "fixes.jsonl").source == "rtsp://***@camera/main"
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert not any(b"secret" in path.read_bytes() for path in files)
    assert len(replayed(out / "recording")) == FRAMES
