"""What is around a flight breaks: media, peers, ports, folders, signals. The flight goes on."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edge_runtime
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.flight import Flight
from edge_runtime.flight_log import FlightLog, RunSettings, read_log
from edge_runtime.flight_opening import opened
from edge_runtime.health import HealthFile
from edge_runtime.outputs.opening import open_outbox
from edge_runtime.outputs.outbox import Outbox
from edge_runtime.recordings.reading import read_recording
from edge_runtime.recordings.recorder import Recorder
from edge_runtime.run import RunOutputs, run
from edge_runtime.terminal_progress import TerminalProgress

LONG_S = 60.0


class Medium:
    """The folder of the flight, on a medium that takes nothing more while it is full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.full = False
        self.met = threading.Event()
        """Set when something could not be written."""
        self._pwrite = os.pwrite

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if self.full and path.is_relative_to(self.folder):
            self.met.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return self._pwrite(fd, data, offset)


@pytest.fixture
def medium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Medium:
    made = Medium(tmp_path / "medium")
    made.folder.mkdir()
    monkeypatch.setattr(os, "pwrite", made.pwrite)
    return made


@pytest.fixture
def flight(photographs: RunSettings) -> Iterator[Flight]:
    with opened(photographs) as flight:
        yield flight


def until(true: Callable[[], object]) -> None:
    end_s = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.005)


# --- a medium that fills up ------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files are read from /proc")
def test_a_full_medium_costs_the_log_nothing_once_there_is_room(
    flight: Flight, medium: Medium, flown: Any, events: Callable[[Sequence[Fix]], str]
) -> None:
    path = medium.folder / "fixes.jsonl"
    with FlightLog(path, retry_s=0.01) as log:

        def watch(fix: Fix, done: int, total: int | None) -> None:
            if done == 4:
                assert log.flush(LONG_S)
                medium.full = True
            if done == 6:
                assert medium.met.wait(LONG_S)
                assert not log.flush(0.0)
            if done == 9:
                medium.full = False
                assert log.flush(LONG_S)

        summary = flight.fly(log, watch=watch)
    fixes = list(read_log(path))
    assert [fix.seq for fix in fixes] == list(range(len(flown.images)))
    assert [fix.status for fix in fixes] == ["OK"] * len(fixes)
    assert summary.lost_records == 0
    assert "log fixes.jsonl cannot be written (No space left on device)" in events(fixes)
    assert "log fixes.jsonl is written again" in events(fixes)


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files are read from /proc")
@pytest.mark.parametrize("kind", ["csv", "geojson", "kml", "gpx"])
def test_a_full_medium_costs_a_map_file_nothing_once_there_is_room(
    flight: Flight,
    medium: Medium,
    tmp_path: Path,
    flown: Any,
    events: Callable[[Sequence[Fix]], str],
    kind: str,
) -> None:
    out = medium.folder / f"track.{kind}"
    box = open_outbox(str(out))
    flight.outboxes = (box,)

    def watch(fix: Fix, done: int, total: int | None) -> None:
        if done == 4:
            assert box.flush(LONG_S)
            medium.full = True
        if done == 6:
            assert medium.met.wait(LONG_S)
            assert not box.flush(0.0)
        if done == 9:
            medium.full = False
            assert box.flush(LONG_S)

    with FlightLog(tmp_path / "fixes.jsonl") as log:
        flight.fly(log, watch=watch)
    fixes = list(read_log(tmp_path / "fixes.jsonl"))
    assert (box.written, box.lost) == (len(flown.images), 0)
    assert [fix.status for fix in fixes] == ["OK"] * len(flown.images)
    assert f"output {out} is gone (No space left on device), trying again" in events(fixes)
    if kind == "csv":
        assert len(out.read_text().splitlines()) == 1 + len(fixes)


@pytest.mark.skipif(sys.platform != "linux", reason="names of open files are read from /proc")
def test_a_full_medium_costs_the_recording_only_what_did_not_fit(
    flight: Flight,
    medium: Medium,
    tmp_path: Path,
    flown: Any,
    events: Callable[[Sequence[Fix]], str],
) -> None:
    now_s = [0.0]
    recorder = Recorder(
        medium.folder,
        max_bytes=1 << 30,
        min_free_bytes=0,
        queue_frames=64,
        clock=lambda: now_s[0],
    )
    flight.recorder = recorder

    def watch(fix: Fix, done: int, total: int | None) -> None:
        now_s[0] += 1.0
        assert recorder.flush(LONG_S)
        medium.full = 4 <= done < 6

    with FlightLog(tmp_path / "fixes.jsonl") as log:
        flight.fly(log, watch=watch)
    fixes = list(read_log(tmp_path / "fixes.jsonl"))
    assert [fix.status for fix in fixes] == ["OK"] * len(flown.images)
    assert "recording medium stopped (No space left on device), trying again" in events(fixes)
    assert "recording medium goes on" in events(fixes)
    kept = [r.fix.seq for part in read_recording(medium.folder) for r in part.records()]
    assert kept[:4] == [0, 1, 2, 3]
    assert kept[-1] == len(flown.images) - 1
    assert {4, 5}.isdisjoint(kept)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_records_that_are_lost_for_good_end_the_run_with_1_and_a_line(
    photographs: RunSettings, tmp_path: Path
) -> None:
    """A real limit of the system: no file may grow beyond 4 KiB."""
    out = tmp_path / "fixes.jsonl"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    done = subprocess.run(
        [*arguments(photographs, out, first=limit), "--output", str(tmp_path / "track.csv")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(edge_runtime.__file__).parent.parent,
    )
    fixes = list(read_log(out))
    lost = 14 - len(fixes)
    assert 0 < len(fixes) < 14
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"skyfix: {lost} of 14 records are not in the log {out}; its medium was full or gone, so "
        "give --out on another one"
    )
    assert "14 frames: 14 OK" in done.stdout
    assert f"After the last record: log fixes.jsonl: closed with {lost} records not" in done.stdout
    assert "log fixes.jsonl cannot be written (File too large)" in done.stderr + done.stdout


# --- peers -----------------------------------------------------------------------------------


def test_a_peer_that_is_gone_and_comes_back_is_in_the_log(
    flight: Flight, tmp_path: Path, flown: Any, events: Callable[[Sequence[Fix]], str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    from edge_runtime.outputs.live_outputs import NmeaOutput
    from edge_runtime.outputs.ports import open_port

    place = f"nmea:tcp://127.0.0.1:{port}"
    output = NmeaOutput(place, open_port(f"tcp://127.0.0.1:{port}", {}))
    box = Outbox(output, capacity=2, first_retry_s=0.01, last_retry_s=0.02, steady_after_s=0.0)
    flight.outboxes = (box,)
    heard = []

    def watch(fix: Fix, done: int, total: int | None) -> None:
        if done == 3:
            # Nobody has listened so far.
            until(lambda: box._gone_since_s is not None)
            assert not box.flush(0.0)
        if done == 6:
            listening = socket.create_server(("127.0.0.1", port))
            listening.settimeout(LONG_S)
            connection, _ = listening.accept()
            heard.extend([listening, connection])
            assert box.flush(LONG_S)

    with FlightLog(tmp_path / "fixes.jsonl") as log:
        flight.fly(log, watch=watch)
    fixes = list(read_log(tmp_path / "fixes.jsonl"))
    assert [fix.status for fix in fixes] == ["OK"] * len(flown.images)
    assert f"output {place} is gone (Connection refused), trying again" in events(fixes)
    assert f"output {place} is back after" in events(fixes)
    assert heard[1].recv(6) == b"$GPGGA"
    for opened_socket in heard:
        opened_socket.close()


def test_a_peer_that_hangs_holds_nothing_up_and_is_in_the_log(
    flight: Flight, tmp_path: Path, flown: Any, events: Callable[[Sequence[Fix]], str]
) -> None:
    quit_ = threading.Event()

    class Hanging:
        name = "serial"

        def write(self, fix: Fix) -> None:
            quit_.wait(LONG_S)

        def close(self) -> None:
            """Nothing is held."""

    now_s = [0.0]
    box = Outbox(Hanging(), capacity=2, clock=lambda: now_s[0])
    flight.outboxes = (box,)
    began_s = time.monotonic()
    with FlightLog(tmp_path / "fixes.jsonl") as log:
        summary = flight.fly(
            log, watch=lambda fix, done, total: now_s.__setitem__(0, now_s[0] + 1.0)
        )
    assert time.monotonic() - began_s < LONG_S / 2
    quit_.set()
    fixes = list(read_log(tmp_path / "fixes.jsonl"))
    assert [fix.status for fix in fixes] == ["OK"] * len(flown.images)
    assert "output serial has taken nothing for" in events(fixes)
    assert "output serial was closed with 3 fixes not handed on" in summary.last_events


# --- ports and folders -----------------------------------------------------------------------


@pytest.mark.parametrize("part", ["live page", "health endpoint"])
def test_a_port_that_is_taken_is_said_and_flown_without(
    photographs: RunSettings,
    tmp_path: Path,
    events: Callable[[Sequence[Fix]], str],
    part: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outputs = (
            RunOutputs(serve=("127.0.0.1", port))
            if part == "live page"
            else RunOutputs(health_port=port)
        )
        summary = run(photographs, tmp_path / "fixes.jsonl", outputs=outputs)
    assert summary.ok == summary.frames == 14
    assert f"flown without the {part}: " in events(list(read_log(tmp_path / "fixes.jsonl"))[:1])
    assert f"flown without the {part}: " in capfd.readouterr().err


@pytest.mark.parametrize(
    "outputs", [RunOutputs(serve=("127.0.0.1", 99999)), RunOutputs(health_port=99999)], ids=str
)
def test_a_port_that_cannot_be_is_the_users_mistake(
    photographs: RunSettings, tmp_path: Path, outputs: RunOutputs
) -> None:
    with pytest.raises(InputError, match="port"):
        run(photographs, tmp_path / "log" / "fixes.jsonl", outputs=outputs)
    assert not (tmp_path / "log").exists()


def test_a_health_file_whose_folder_goes_and_comes_back(
    photographs: RunSettings,
    tmp_path: Path,
    events: Callable[[Sequence[Fix]], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run" / "skyfix"
    path = folder / "health.json"
    writes: list[bool] = []
    write = HealthFile._write

    def noted(file: HealthFile) -> None:
        try:
            write(file)
        except OSError:
            writes.append(False)
            raise
        writes.append(True)

    assert HealthFile.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(HealthFile.__init__.__kwdefaults__, "every_s", 0.01)
    monkeypatch.setattr(HealthFile, "_write", noted)

    def watch(fix: Fix, done: int, total: int | None) -> None:
        if done == 3:
            gone = False
            while not gone:
                # The thread may write between the two steps.
                for file in folder.iterdir():
                    file.unlink(missing_ok=True)
                with suppress(OSError):
                    folder.rmdir()
                    gone = True
            # At the second, the first has been told.
            until(lambda: writes[-2:] == [False, False])
        if done == 6:
            folder.mkdir()
            until(lambda: writes[-2:] == [True, True])

    run(
        photographs,
        tmp_path / "fixes.jsonl",
        outputs=RunOutputs(health_file=path),
        watch=watch,
    )
    fixes = list(read_log(tmp_path / "fixes.jsonl"))
    assert [fix.status for fix in fixes] == ["OK"] * 14
    assert f"health file {path} cannot be written" in events(fixes)
    assert f"health file {path} is written again" in events(fixes)
    assert json.loads(path.read_text())["frames"] == 14


# --- signals ---------------------------------------------------------------------------------


def arguments(settings: RunSettings, out: Path, *, first: str) -> list[str]:
    """`skyfix run` in a process that does something first.

    It does so itself: Python is not to be forked where threads run.
    """
    code = f"{first}; import runpy; runpy.run_module('edge_runtime', run_name='__main__')"
    return [
        *(sys.executable, "-c", code, "run"),
        *("--bundle", settings.bundle, "--index", settings.index, "--source", settings.source),
        *("--telemetry", settings.telemetry, "--camera", settings.camera, "--out", str(out)),
        *("--backend", "ort-cpu", "--threads", "1"),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_a_run_with_every_finished_frame_in_every_file(
    photographs: RunSettings, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    out, track = tmp_path / "fixes.jsonl", tmp_path / "track.csv"
    # Tests that a shell runs in the background have inherited SIGINT as ignored.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = subprocess.Popen(
        [*arguments(photographs, out, first=heed), "--loop", "--output", str(track)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(edge_runtime.__file__).parent.parent,
    )
    try:
        until(lambda: out.exists() and out.read_text().count("\n") >= 5)
        process.send_signal(number)
        said, wrong = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
        process.wait()
    fixes = list(read_log(out))
    assert process.returncode == status
    assert wrong.splitlines()[-1] == "skyfix: stopped; the log holds every finished frame"
    assert "Traceback" not in wrong
    assert [fix.seq for fix in fixes] == list(range(len(fixes)))
    assert out.read_text().endswith("\n")
    assert f"{len(fixes)} frames: " in said
    assert len(track.read_text().splitlines()) == 1 + len(fixes)


def test_an_interrupted_flight_has_all_its_records(
    photographs: RunSettings, tmp_path: Path
) -> None:
    def watch(fix: Fix, done: int, total: int | None) -> None:
        if done == 5:
            raise KeyboardInterrupt

    track = tmp_path / "track.csv"
    summary = run(
        replace(photographs), tmp_path / "fixes.jsonl", outputs=RunOutputs(uris=(str(track),)),
        watch=watch,
    )  # fmt: skip
    assert (summary.stopped, summary.frames, summary.lost_records) == (True, 5, 0)
    assert [fix.seq for fix in read_log(tmp_path / "fixes.jsonl")] == list(range(5))
    assert len(track.read_text().splitlines()) == 6


def test_nobody_needs_to_watch(
    photographs: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal is closed, or whoever read the pipe has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        summary = run(photographs, tmp_path / "fixes.jsonl", watch=TerminalProgress())
        monkeypatch.undo()
        with suppress(OSError):
            gone.close()
    assert summary.ok == summary.frames == 14
