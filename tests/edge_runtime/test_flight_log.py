"""Whole lines or none, and beside them what the run was made of."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.flight_log import FlightLog, RunSettings, read_log, read_settings, settings_path
from edge_runtime.outputs.line_file import SystemDisk, parts_of

LONG_S = 60.0
"""Longer than anything here takes on the busiest machine."""
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


def test_a_line_is_in_the_file_once_it_is_flushed(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    with FlightLog(path) as flight_log:
        for seq in range(3):
            flight_log.write(fix(seq))
            assert flight_log.flush(LONG_S)
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


# --- rotation ------------------------------------------------------------------------------------


def seqs(path: Path) -> list[int]:
    return [fix.seq for fix in read_log(path)]


def written_one_by_one(log: FlightLog, numbers: range) -> None:
    for seq in numbers:
        log.write(fix(seq))
        assert log.flush(LONG_S)


LINE_BYTES = max(len(fix(seq).to_json()) + 1 for seq in range(10, 30))


def test_a_rotating_log_is_read_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    with FlightLog(path, rotate_bytes=3 * LINE_BYTES) as flight_log:
        written_one_by_one(flight_log, range(10, 30))
    assert seqs(path) == list(range(10, 30))
    assert [part.name for part in parts_of(path)] == [
        f"fixes.part{k:04d}.jsonl" for k in range(1, 7)
    ]
    assert all(part.stat().st_size <= 3 * LINE_BYTES for part in (*parts_of(path), path))


def test_only_the_newest_parts_are_kept_if_asked(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    with FlightLog(path, rotate_bytes=LINE_BYTES, keep_parts=2) as flight_log:
        written_one_by_one(flight_log, range(10, 20))
    assert seqs(path) == [17, 18, 19]
    assert [part.name for part in parts_of(path)] == [
        "fixes.part0008.jsonl",
        "fixes.part0009.jsonl",
    ]


def test_parts_are_read_by_number_and_not_by_name(tmp_path: Path) -> None:
    for number, seq in ((9999, 1), (10000, 2)):
        (tmp_path / f"fixes.part{number}.jsonl").write_text(fix(seq).to_json() + "\n")
    (tmp_path / "fixes.jsonl").write_text(fix(3).to_json() + "\n")
    assert seqs(tmp_path / "fixes.jsonl") == [1, 2, 3]


def test_a_new_log_replaces_the_old_parts_and_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    others = [tmp_path / name for name in ("fixes.2024.jsonl", "my.part0001.jsonl", "fixes.part1")]
    for other in others:
        other.write_text("mine")
    with FlightLog(path, rotate_bytes=LINE_BYTES) as flight_log:
        written_one_by_one(flight_log, range(10, 15))
    with FlightLog(path) as flight_log:
        flight_log.write(fix(9))
    assert seqs(path) == [9]
    assert all(other.read_text() == "mine" for other in others)


def test_a_log_that_is_gone_on_with_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    for start in (10, 15, 20):
        with FlightLog(path, rotate_bytes=2 * LINE_BYTES, append=True) as flight_log:
            written_one_by_one(flight_log, range(start, start + 5))
    assert seqs(path) == list(range(10, 25))


@pytest.mark.parametrize(
    "wrong", [{"buffer_records": 0}, {"rotate_bytes": -1}, {"keep_parts": -1}], ids=str
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected at least 1, 1 and 0"):
        FlightLog(tmp_path / "fixes.jsonl", None, **wrong)  # type: ignore[arg-type]


# --- crashes -------------------------------------------------------------------------------------


def test_a_log_cut_at_any_byte_keeps_every_earlier_line_and_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cache is enough for who reads it again at once.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    path = tmp_path / "fixes.jsonl"
    whole = "".join(fix(seq).to_json() + "\n" for seq in range(2)).encode()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        complete = whole[:size].count(b"\n")
        assert seqs(path) == list(range(complete))
        with FlightLog(path, append=True) as flight_log:
            flight_log.write(fix(7))
        assert seqs(path) == [*range(complete), 7]


def test_a_block_of_zeros_costs_only_its_own_records(tmp_path: Path) -> None:
    """A power cut may lose a block and keep a later one."""
    path = tmp_path / "fixes.jsonl"
    whole = bytearray("".join(fix(seq).to_json() + "\n" for seq in range(6)).encode())
    begin = whole.index(b"\n") + 40
    whole[begin : begin + 512] = bytes(512)
    path.write_bytes(whole)
    assert seqs(path)[0] == 0
    assert seqs(path)[-1] == 5


CHILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from edge_runtime.fix import Fix
    from edge_runtime.flight_log import FlightLog
    log = FlightLog(Path(sys.argv[1]), append=True, rotate_bytes=20_000)
    for seq in range(int(sys.argv[2]), 10**9):
        log.write(Fix(seq=seq, frame="", t_exposure_s=0.0, t_fix_s=0.0, status="LOST",
                      mode="GLOBAL", reason=""))
        if seq % 16 == 0:
            assert log.flush(60)
            print(seq, flush=True)
    """
)


def test_a_killed_process_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    begin = 0
    for after_lines in (3, 20, 40):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(begin)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            acknowledged = [int(child.stdout.readline()) for _ in range(after_lines)][-1]
            child.send_signal(signal.SIGKILL)
        found = seqs(path)
        assert found == list(range(len(found)))
        assert len(found) > acknowledged
        begin = len(found)
    assert parts_of(path)


# --- media that fail -----------------------------------------------------------------------------


class FailingDisk(SystemDisk):
    """Fails while told to; writes half of what it is given first, as a disk that fills up does."""

    def __init__(self) -> None:
        self.failure: int | None = None
        self.only: str | None = None

    def _check(self, call: str) -> None:
        if self.failure is not None and self.only in (None, call):
            raise OSError(self.failure, os.strerror(self.failure))

    def open(self, path: Path) -> int:
        self._check("open")
        return super().open(path)

    def write(self, fd: int, data: bytes, offset: int) -> int:
        if self.failure is not None and self.only in (None, "write") and len(data) > 1:
            return super().write(fd, data[: len(data) // 2], offset)
        self._check("write")
        return super().write(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        if self.failure != errno.ENOSPC:
            self._check("truncate")
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        self._check("sync")
        super().sync(fd)

    def rename(self, old: Path, new: Path) -> None:
        self._check("rename")
        super().rename(old, new)


def told(log: FlightLog, *parts: str) -> str:
    """Wait until there was an event with each of these in it; the last event."""
    events: list[str] = []
    end_s = time.monotonic() + LONG_S
    while time.monotonic() < end_s:
        events += log.events()
        if all(any(part in event for event in events) for part in parts):
            return events[-1]
        time.sleep(0.01)
    raise AssertionError(f"expected {parts}, the events are {events}")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_records_wait_while_the_medium_fails_and_are_all_written_after(
    tmp_path: Path, code: int
) -> None:
    path = tmp_path / "fixes.jsonl"
    disk = FailingDisk()
    with FlightLog(path, disk=disk, retry_s=0.01, rotate_bytes=3 * LINE_BYTES) as flight_log:
        written_one_by_one(flight_log, range(10, 12))
        disk.failure = code
        for seq in range(12, 20):
            flight_log.write(fix(seq))
        assert os.strerror(code) in told(flight_log, "cannot be written")
        assert flight_log.events() == []  # told once, however often it is tried
        disk.failure = None
        assert flight_log.flush(LONG_S)
        assert "0 records lost" in told(flight_log, "written again")
    assert seqs(path) == list(range(10, 20))
    assert flight_log.lost == 0


def test_of_what_does_not_fit_in_memory_the_newest_is_kept_and_the_rest_counted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fixes.jsonl"
    disk = FailingDisk()
    with FlightLog(path, disk=disk, retry_s=0.01, buffer_records=3) as flight_log:
        written_one_by_one(flight_log, range(2))
        disk.failure = errno.ENOSPC
        for seq in range(2, 10):
            flight_log.write(fix(seq))
        told(flight_log, "oldest are lost", "cannot be written")
        disk.failure = None
        assert flight_log.flush(LONG_S)
        assert "5 records lost" in told(flight_log, "written again")
    assert seqs(path) == [0, 1, 7, 8, 9]
    assert flight_log.lost == 5


def test_a_log_that_closes_on_a_full_disk_says_how_many_records_it_lost(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    disk = FailingDisk()
    with FlightLog(path, disk=disk, retry_s=0.01) as flight_log:
        written_one_by_one(flight_log, range(2))
        disk.failure = errno.ENOSPC
        for seq in range(2, 6):
            flight_log.write(fix(seq))
    assert flight_log.lost == 4
    assert "closed with 4 records not written" in flight_log.events()[-1]
    assert seqs(path) == [0, 1]


@pytest.mark.parametrize("call", ["rename", "sync"])
def test_where_no_part_can_begin_the_old_one_grows(tmp_path: Path, call: str) -> None:
    path = tmp_path / "fixes.jsonl"
    disk = FailingDisk()
    disk.failure, disk.only = errno.EACCES, call
    with FlightLog(path, disk=disk, rotate_bytes=LINE_BYTES) as flight_log:
        written_one_by_one(flight_log, range(10, 14))
        disk.failure = None
        written_one_by_one(flight_log, range(14, 16))
    assert seqs(path) == list(range(10, 16))
    assert len(parts_of(path)) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_full_device_does_not_stop_a_log(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    path.symlink_to("/dev/full")
    with FlightLog(path, retry_s=0.01) as flight_log:
        flight_log.write(fix(0))
        assert "No space left" in told(flight_log, "cannot be written")
    assert flight_log.lost == 1


LIMITED = textwrap.dedent(
    """
    import resource, sys, time
    from pathlib import Path
    from edge_runtime.fix import Fix
    from edge_runtime.flight_log import FlightLog
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    log = FlightLog(Path(sys.argv[1]), retry_s=0.01)
    for seq in range(60):
        log.write(Fix(seq=seq, frame="", t_exposure_s=0.0, t_fix_s=0.0, status="LOST",
                      mode="GLOBAL", reason=""))
    events = []
    while not events:
        assert not log.flush(0.01)
        events = log.events()
    assert any("cannot be written (File too large)" in event for event in events)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert log.flush(60)
    log.close()
    assert log.lost == 0
    """
)


def test_a_real_limit_cuts_no_line_and_loses_nothing_once_it_is_lifted(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    subprocess.run([sys.executable, "-c", LIMITED, str(path)], check=True, timeout=60)
    assert seqs(path) == list(range(60))


FULL = textwrap.dedent(
    """
    set -e
    mount -t tmpfs -o size=64k none "$1"
    head -c 61440 /dev/zero > "$1/other"
    "$2" - "$1" <<'PYTHON'
    import sys
    from pathlib import Path
    from edge_runtime.fix import Fix
    from edge_runtime.flight_log import FlightLog, read_log
    folder = Path(sys.argv[1])
    log = FlightLog(folder / "fixes.jsonl", retry_s=0.01)
    for seq in range(60):
        log.write(Fix(seq=seq, frame="", t_exposure_s=0.0, t_fix_s=0.0, status="LOST",
                      mode="GLOBAL", reason=""))
    events = []
    while not events:
        assert not log.flush(0.01)
        events = log.events()
    assert any("No space left on device" in event for event in events)
    before = [fix.seq for fix in read_log(folder / "fixes.jsonl")]
    assert before == list(range(len(before))), before
    (folder / "other").unlink()
    assert log.flush(60)
    log.close()
    assert [fix.seq for fix in read_log(folder / "fixes.jsonl")] == list(range(60))
    print("whole")
    PYTHON
    """
)


def test_a_file_system_that_is_full_and_then_is_not_loses_nothing(tmp_path: Path) -> None:
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine lets nobody mount a small file system")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL, "sh", str(tmp_path), sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "whole\n", done.stderr


class HangingDisk(SystemDisk):
    """Takes no byte until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def write(self, fd: int, data: bytes, offset: int) -> int:
        self.released.wait(2 * LONG_S)
        return super().write(fd, data, offset)


def test_a_medium_that_hangs_holds_up_neither_the_loop_nor_the_end(tmp_path: Path) -> None:
    path = tmp_path / "fixes.jsonl"
    disk = HangingDisk()
    flight_log = FlightLog(path, disk=disk)
    done = threading.Event()

    def fly(write: Callable[[Fix], None]) -> None:
        for seq in range(100):
            write(fix(seq))
        flight_log.close(timeout_s=0.1)
        done.set()

    threading.Thread(target=fly, args=(flight_log.write,), daemon=True).start()
    assert done.wait(LONG_S)
    assert flight_log.lost == 100
    disk.released.set()
