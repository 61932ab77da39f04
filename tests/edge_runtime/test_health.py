"""Health that says what is so, to a file, over HTTP and to systemd."""

import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.health import Health, HealthFile, HealthServer, memory_rss_mib
from edge_runtime.service_notify import ServiceNotifier

LONG_S = 60.0
"""Longer than anything here takes on the busiest machine."""
FIX = Fix(
    seq=0,
    frame="000000",
    t_exposure_s=1_777_627_800.0,
    t_fix_s=0.1,
    status="OK",
    mode="TRACK",
    reason="",
    lat_deg=47.5,
    lon_deg=8.25,
    eph_m=2.5,
    latency_ms={"total": 20.0},
)


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(stalled_after_s=3.0, clock=clock, unix_clock=clock)


def fly(health: Health, clock: Clock, steps: int, *, every_s: float = 0.1) -> None:
    for seq in range(steps):
        clock.now_s += every_s
        total_ms = 10.0 * (1 + seq % 10)
        health.advanced(replace(FIX, seq=seq, latency_ms={"total": total_ms}), has_image=True)


# --- what it says --------------------------------------------------------------------------------


def test_frames_do_not_flow_before_the_first(health: Health) -> None:
    report = health.report()
    assert report["flowing"] is False
    assert report["last_fix"] is report["frame_age_s"] is report["latency_p50_ms"] is None
    assert health.health_json()[0] == 503
    assert health.status_line() == "no frame yet, no frames come, 0 frames"


def test_a_flight_is_reported_with_its_rate_ages_and_latencies(
    health: Health, clock: Clock
) -> None:
    fly(health, clock, 300)
    clock.now_s += 0.5
    report = health.report()
    assert report["flowing"] is True
    assert report["frames"] == 300
    assert report["rate_hz"] == pytest.approx(10.0, abs=0.01)
    assert report["frame_age_s"] == report["step_age_s"] == 0.5
    assert report["latency_p50_ms"] in (50.0, 60.0)
    assert report["latency_p95_ms"] == 100.0
    assert report["uptime_s"] == 30.5
    assert report["last_fix"]["lat_deg"] == 47.5
    assert report["pid"] == os.getpid()
    assert health.status_line() == "OK, eph 2.5 m, 10.0 Hz, 300 frames"


def test_counts_add_up(health: Health) -> None:
    health.advanced(replace(FIX, deadline_missed=True, shed=("refine",)), has_image=True)
    health.advanced(replace(FIX, status="LOST", dropped=3), has_image=True)
    health.advanced(replace(FIX, status="LOST", dropped=2), has_image=False)
    report = health.report()
    assert report["statuses"] == {"OK": 1, "LOST": 2}
    assert report["deadlines_missed"] == report["steps_that_shed"] == 1
    assert report["frames_dropped"] == 5
    assert report["frames"] == 2


def test_a_loop_that_turns_without_frames_is_stalled(health: Health, clock: Clock) -> None:
    fly(health, clock, 10)
    for _ in range(4):
        clock.now_s += 1.0
        health.advanced(replace(FIX, status="LOST"), has_image=False)
    report = health.report()
    assert report["flowing"] is False
    assert (report["frame_age_s"], report["step_age_s"]) == (4.0, 0.0)
    clock.now_s += 0.1
    health.advanced(FIX, has_image=True)
    assert health.flowing()


def test_no_position_is_reported_that_is_not_ok(health: Health) -> None:
    health.advanced(replace(FIX, status="DEGRADED"), has_image=True)
    assert health.report()["last_fix"]["lat_deg"] is None
    assert "eph" not in health.status_line()


def test_the_newest_events_are_kept_and_no_more(health: Health) -> None:
    for k in range(100):
        health.advanced(replace(FIX, events=(f"frame {k}",)), has_image=True, events=["more"])
    events = [event["event"] for event in health.report()["events"]]
    assert events[-2:] == ["frame 99", "more"]
    assert len(events) == 32


def test_memory_is_that_of_this_process() -> None:
    before = memory_rss_mib()
    if before is None:
        pytest.skip("this system does not say")
    filled = bytearray(os.urandom(1 << 20)) * 64
    after = memory_rss_mib()
    assert after is not None
    assert after - before == pytest.approx(len(filled) / 2**20, abs=16)


# --- file and endpoint ---------------------------------------------------------------------------


def waited_for(condition: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + LONG_S
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


def test_the_file_follows_the_loop_and_sees_it_stand_still(
    tmp_path: Path, health: Health, clock: Clock
) -> None:
    path = tmp_path / "run" / "health.json"
    file = HealthFile(health, path, every_s=0.01)
    assert json.loads(path.read_text())["frames"] == 0
    fly(health, clock, 5)
    assert waited_for(lambda: json.loads(path.read_text())["flowing"])
    clock.now_s += 60
    assert waited_for(lambda: not json.loads(path.read_text())["flowing"])
    file.close()
    file.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["health.json"]


def test_a_file_that_cannot_be_written_for_a_while_is_told_once(
    tmp_path: Path, health: Health
) -> None:
    folder = tmp_path / "run"
    file = HealthFile(health, folder / "health.json", every_s=0.01)
    folder.rename(tmp_path / "away")
    events: list[str] = []

    def told(count: int) -> bool:
        events.extend(file.events())
        return len(events) == count

    assert waited_for(lambda: told(1))
    (tmp_path / "away").rename(folder)
    assert waited_for(lambda: told(2))
    assert "cannot be written" in events[0]
    assert "written again" in events[1]
    file.close()


def test_an_event_that_comes_while_events_are_taken_is_told_next(
    tmp_path: Path, health: Health
) -> None:
    file = HealthFile(health, tmp_path / "health.json", every_s=LONG_S)
    # What the thread has in hand when another thread's turn comes.
    add = file._events.append
    add("first")
    assert file.events() == ["first"]
    add("second")
    assert file.events() == ["second"]
    file.close()


def test_a_file_that_can_never_be_written_is_refused(tmp_path: Path, health: Health) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"health file .* choose another place"):
        HealthFile(health, tmp_path / "file" / "health.json")


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    opened = HealthServer(health, port=0)
    yield opened
    opened.close()


def asked(server: HealthServer, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONG_S)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


def test_the_endpoint_says_200_while_frames_flow_and_503_when_not(
    server: HealthServer, health: Health, clock: Clock
) -> None:
    assert asked(server, "/health")[0] == 503
    fly(health, clock, 3)
    status, body = asked(server, "/health")
    assert (status, body["frames"]) == (200, 3)
    clock.now_s += 3.1
    status, body = asked(server, "/health?x=1")
    assert (status, body["flowing"]) == (503, False)
    assert asked(server, "/other")[0] == 404


def test_a_port_that_is_taken_is_refused(server: HealthServer, health: Health) -> None:
    with pytest.raises(InputError, match=r"cannot be opened .* choose another port"):
        HealthServer(health, port=server.port)


# --- systemd -------------------------------------------------------------------------------------


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self.socket.setblocking(False)

    def told(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@skyfix-{os.getpid()}"
    opened = Manager(address)
    yield opened
    opened.socket.close()


def test_systemd_is_told_ready_then_that_it_lives_and_that_it_stops(
    manager: Manager, clock: Clock
) -> None:
    notifier = ServiceNotifier(manager.address, watchdog_s=4.0, clock=clock)
    notifier.ready("waiting\nfor frames")
    assert manager.told() == ["READY=1\nSTATUS=waiting for frames"]
    for _ in range(40):
        clock.now_s += 0.1
        notifier.advanced()
    assert manager.told() == ["WATCHDOG=1"] * 4
    notifier.status("OK")
    notifier.status("OK")
    assert manager.told() == ["STATUS=OK"]
    notifier.stopping()
    assert manager.told() == ["STOPPING=1"]
    notifier.close()
    notifier.close()
    notifier.status("late")
    assert manager.told() == []


def test_a_loop_that_stands_still_is_not_said_to_live(manager: Manager, clock: Clock) -> None:
    notifier = ServiceNotifier(manager.address, watchdog_s=2.0, clock=clock)
    notifier.ready()
    notifier.status("standing still")
    clock.now_s += 10
    assert "WATCHDOG=1" not in manager.told()
    notifier.advanced()
    assert manager.told() == ["WATCHDOG=1"]
    notifier.close()


@pytest.mark.parametrize(
    ("environment", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "our own"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_the_environment_says_how_often(
    environment: dict[str, str], watchdog_s: float | None
) -> None:
    """As in sd_watchdog_enabled(3)."""
    environment = {
        name: value.replace("our own", str(os.getpid())) for name, value in environment.items()
    }
    notifier = ServiceNotifier.from_environment(environment)
    assert notifier.watchdog_s == watchdog_s
    assert not notifier.active
    notifier.ready()
    notifier.advanced()
    notifier.stopping()


def test_a_manager_that_is_gone_or_reads_nothing_holds_nothing_up(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    notifier = ServiceNotifier(manager.address, watchdog_s=1e-9)
    for _ in range(2000):
        notifier.advanced()
    assert notifier.failed > 0
    manager.socket.close()
    notifier.stopping()
    notifier.close()
