"""Whole lines or none, and beside them what the run was made of."""

import json
import os
from pathlib import Path

import pytest

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.flight_log import FlightLog, RunSettings, read_log, read_settings, settings_path

SETTINGS = RunSettings(
    source="/flights/7",
    telemetry="/flights/7/états.csv",
    camera="/camera.json",
    bundle="/bundle",
    index="/index",
    backend="ort-cpu",
    options={"start": [47.5, 8.3, 20.0], "ignore": ["yaw_deg"], "deadline_ms": 50.0},
)


def fix(seq: int) -> Fix:
    return Fix(
        seq=seq,
        frame=f"{seq:03d}.jpg",
        t_exposure_s=0.1 * seq,
        t_fix_s=0.1 * seq + 0.02,
        status="OK",
        mode="TRACK",
        reason="",
        lat_deg=47.123456789012345,
        lon_deg=8.3,
        eph_m=1.5,
        latency_ms={"total": 20.0},
        shed=("candidates",),
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "fixes.jsonl"
    with FlightLog(path, SETTINGS) as flight_log:
        for seq in range(5):
            flight_log.write(fix(seq))
    return path


def test_a_log_gives_back_what_was_written(log: Path) -> None:
    assert list(read_log(log)) == [fix(seq) for seq in range(5)]


def test_every_line_of_a_log_is_a_json_object(log: Path) -> None:
    lines = log.read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(5))


def test_a_line_is_in_the_file_before_the_next_frame(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    with FlightLog(path) as flight_log:
        for seq in range(3):
            flight_log.write(fix(seq))
            assert len(list(read_log(path))) == seq + 1


def test_a_crash_in_the_middle_of_a_run_keeps_the_finished_frames(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"

    def crash() -> None:
        with FlightLog(path) as flight_log:
            flight_log.write(fix(0))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash()
    assert list(read_log(path)) == [fix(0)]


@pytest.mark.parametrize("cut_bytes", [1, 2, 40, 200])
def test_a_last_line_that_was_cut_off_is_left_out(log: Path, cut_bytes: int) -> None:
    log.write_bytes(log.read_bytes()[:-cut_bytes])
    assert list(read_log(log)) == [fix(seq) for seq in range(4)]


def test_what_a_power_cut_leaves_behind_the_last_line_is_left_out(log: Path) -> None:
    """Journalling file systems may fill a block that was never written with zeros."""
    with log.open("ab") as stream:
        stream.write(bytes(100))
    assert list(read_log(log)) == [fix(seq) for seq in range(5)]


def test_an_empty_log_has_no_records(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    with FlightLog(path):
        pass
    assert list(read_log(path)) == []


@pytest.mark.parametrize("bad", ["", "{", "[]", "null", "{}", '{"seq": 2}'])
def test_a_bad_line_in_the_middle_is_named_by_its_number(log: Path, bad: str) -> None:
    lines = log.read_text().split("\n")
    lines[2] = bad
    log.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"fixes\.jsonl line 3: not a fix record"):
        list(read_log(log))


def test_a_log_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.jsonl cannot be read .* skyfix run"):
        list(read_log(tmp_path / "absent.jsonl"))


def test_a_log_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    path.write_bytes(b"\xff\xfe\x00\n" * 3)
    with pytest.raises(InputError, match=r"fixes\.jsonl"):
        list(read_log(path))


def test_settings_come_back_as_they_were(log: Path) -> None:
    assert read_settings(log) == SETTINGS
    assert settings_path(log) == log.with_name("fixes.run.json")


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"source": "x"}', '{"more": 1}'])
def test_settings_that_are_missing_or_odd_are_refused(log: Path, text: str | None) -> None:
    path = settings_path(log)
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError, match=r"fixes\.run\.json cannot be read .* replay needs"):
        read_settings(log)


def test_settings_that_are_not_text_are_refused(log: Path) -> None:
    settings_path(log).write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"fixes\.run\.json cannot be read"):
        read_settings(log)


def test_a_new_log_replaces_an_old_one(log: Path) -> None:
    with FlightLog(log, SETTINGS) as flight_log:
        flight_log.write(fix(9))
    assert list(read_log(log)) == [fix(9)]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "flights" / "7" / "fixes.jsonl"
    with FlightLog(path):
        pass
    assert path.exists()


def test_a_place_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written .*; choose another --out"):
        FlightLog(tmp_path)


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written .*; choose another --out"):
        FlightLog(tmp_path / "file" / "fixes.jsonl", SETTINGS)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_place_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match=r"cannot be written .*; choose another --out"):
            FlightLog(tmp_path / "fixes.jsonl")
    finally:
        tmp_path.chmod(0o700)
