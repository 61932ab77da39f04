import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import accuracy_row
from benchmarks.accuracy_cli import add_localisation
from benchmarks.compare.metrics import METRICS
from benchmarks.localisation_rows import in_words, localisation_rows
from benchmarks.rows import append_rows, read_rows
from benchmarks.scored_flight import score_flight
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix

MakeFix = Callable[..., Fix]
WriteFile = Callable[..., Path]


@pytest.fixture
def flight_files(
    make_fix: MakeFix, write_log: WriteFile, write_truth: WriteFile
) -> tuple[Path, Path]:
    """Twelve frames: two searched everywhere, ten near the last; frames 5 and 6 were not logged."""
    fixes = [
        make_fix(0, status="ABSTAIN"),
        make_fix(1, east_m=3.0),
        *(make_fix(k, east_m=1.0, prior=True) for k in (2, 3, 4)),
        make_fix(7, east_m=60.0, prior=True, deadline_missed=True),
        *(make_fix(k, east_m=1.0, prior=True) for k in (8, 9, 10)),
        make_fix(11, status="LOST", prior=True),
    ]
    return write_log(fixes), write_truth(12)


def test_attempts_with_and_without_a_prior_add_up_to_all(flight_files: tuple[Path, Path]) -> None:
    rows = localisation_rows(score_flight(*flight_files), device="a drone", run=2)
    assert [row.searched for row in rows] == ["all", "with a prior", "without a prior"]
    # Frames 5 and 6 are missing and go with frame 4.
    assert [row.frames for row in rows] == [12, 10, 2]
    for name in ("answered", "abstained", "lost", "missing", "false_fixes"):
        counts = [getattr(row.accuracy, name).count for row in rows]
        assert counts[0] == counts[1] + counts[2], name
    assert {(row.run, row.device, row.flight) for row in rows} == {(2, "a drone", "flight_1")}


def test_every_frame_of_the_truth_is_an_attempt(flight_files: tuple[Path, Path]) -> None:
    everything, near, far = (row.accuracy for row in localisation_rows(score_flight(*flight_files)))
    assert (everything.answered.count, everything.answered.n) == (8, 12)
    assert everything.success["20"].share == pytest.approx(7 / 12)
    assert everything.false_fixes.count == near.false_fixes.count == 1
    assert (near.missing.count, near.answered.n) == (2, 10)
    assert (far.abstained.count, far.answered.share) == (1, 0.5)
    assert far.median_error_m == pytest.approx(3.0, abs=0.01)


def test_the_numbers_are_those_of_accuracy(flight_files: tuple[Path, Path]) -> None:
    flight = score_flight(*flight_files)
    row = localisation_rows(flight, false_fix_m=10.0)[0]
    expected = accuracy_row([flight], false_fix_m=10.0)
    assert replace(row.accuracy, measured_utc="") == replace(expected, measured_utc="")


def test_times_are_the_log_s_and_so_are_the_frames_that_were_late(
    flight_files: tuple[Path, Path],
) -> None:
    everything, near, far = localisation_rows(score_flight(*flight_files))
    assert everything.time is not None
    assert near.time is not None
    assert far.time is not None
    # A frame's total is 26 ms and its number.
    assert (everything.time.n, everything.time.first_ms, everything.time.max_ms) == (10, 26, 37)
    assert (near.time.deadline_misses, far.time.deadline_misses) == (1, 0)
    assert set(everything.stages) == {"encode", "refine"}
    assert everything.stages["encode"].p99_ms == 5.0
    assert everything.note.startswith("2 frames are not in the log")


def test_a_flight_that_was_searched_in_one_way_only_has_one_row(
    make_fix: MakeFix, write_log: WriteFile, write_truth: WriteFile
) -> None:
    log = write_log([make_fix(k) for k in range(4)])
    rows = localisation_rows(score_flight(log, write_truth(4)))
    assert [row.searched for row in rows] == ["all"]
    assert rows[0].note == ""


def test_a_log_without_times_has_none(
    make_fix: MakeFix, write_log: WriteFile, write_truth: WriteFile
) -> None:
    log = write_log([make_fix(k, latency_ms={}) for k in range(4)])
    row = localisation_rows(score_flight(log, write_truth(4)))[0]
    assert row.time is None
    assert "no times" in in_words(row)


def test_the_deadline_is_the_one_that_the_run_was_given(flight_files: tuple[Path, Path]) -> None:
    log, _ = flight_files
    settings = (
        '{"source": "", "telemetry": "", "camera": "", "bundle": "", "index": "", '
        '"backend": "auto", "options": {"deadline_ms": 30}}'
    )
    log.with_suffix(".run.json").write_text(settings)
    row = localisation_rows(score_flight(*flight_files))[0]
    assert row.time is not None
    assert row.time.deadline_ms == 30
    assert row.time.deadline_misses == 1, "the log's word, not ours"


def test_compare_finds_its_numbers_in_the_rows(
    flight_files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "rows.jsonl"
    append_rows(out, localisation_rows(score_flight(*flight_files)))
    row = read_rows(out, kind="localisation")[0]
    # Rows are rounded to six digits.
    for name, expected in (("p50", 30.0), ("success_20m", 7 / 12), ("false_fixes", 1 / 12)):
        assert METRICS[name].of(row) == pytest.approx(expected, abs=1e-6)
    assert METRICS["answered"].of(row) == pytest.approx(8 / 12, abs=1e-6)
    assert METRICS["median_error"].of(row) == pytest.approx(1.0, abs=0.01)


def run_command(*arguments: str | Path) -> None:
    parser = argparse.ArgumentParser()
    add_localisation(parser.add_subparsers())
    args = parser.parse_args(["localisation", *map(str, arguments)])
    args.run(args)


def test_the_command_takes_single_logs_and_folders_of_them(
    flight_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, truth = flight_files
    folder = tmp_path / "logs"
    folder.mkdir()
    for name in ("start_01", "start_02"):
        (folder / f"{name}.jsonl").write_bytes(log.read_bytes())
        (folder / f"{name}.truth.csv").write_bytes(truth.read_bytes())
    out = tmp_path / "rows.jsonl"
    run_command("--log", log, "--truth", truth, "--logs", folder, "--out", out)
    flights: list[Any] = [row["flight"] for row in read_rows(out)]
    assert flights == ["flight_1"] * 3 + ["start_01"] * 3 + ["start_02"] * 3
    printed = capsys.readouterr().out
    assert "start_02, with a prior: 10 attempts" in printed
    assert "within 20 m 58.3%, more than 50 m off 8.3%" in printed


def test_a_log_without_its_truth_is_refused(flight_files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="1 logs and 0 truths"):
        run_command("--log", flight_files[0])
