"""Peers that listen, that are not there, that hang, and that come back."""

import json
import math
import os
import pty
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from edge_runtime.errors import BackendError, InputError
from edge_runtime.fix import Fix
from edge_runtime.outputs.live_outputs import NmeaOutput, Pace
from edge_runtime.outputs.nmea_sentences import sentence, sentences
from edge_runtime.outputs.opening import open_outbox, open_output
from edge_runtime.outputs.outbox import Outbox
from edge_runtime.outputs.ports import SerialPort, open_port

LONG_S = 60.0
"""Longer than anything here takes on the busiest machine."""
FIX = Fix(
    seq=7,
    frame="000007",
    t_exposure_s=1_777_627_800.129,
    t_fix_s=0.1,
    status="OK",
    mode="TRACK",
    reason="",
    lat_deg=-33.856784,
    lon_deg=151.2152967,
    eph_m=2.54,
    latency_ms={"total": 40.0},
)
NO_POSITION = replace(
    FIX, status="LOST", reason="no agreeing match for 5.2 s", lat_deg=None, lon_deg=None, eph_m=None
)


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def waited_for(condition: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + LONG_S
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


# --- NMEA ----------------------------------------------------------------------------------------


def fields_of(data: bytes) -> dict[str, list[str]]:
    """Sentences by name, their checksums verified the slow way."""
    found = {}
    for line in data.decode("ascii").split("\r\n")[:-1]:
        matched = re.fullmatch(r"\$([^*]+)\*([0-9A-F]{2})", line)
        assert matched, line
        assert len(line) <= 80
        checksum = 0
        for letter in matched[1]:
            checksum ^= ord(letter)
        assert f"{checksum:02X}" == matched[2]
        name, *cells = matched[1].split(",")
        found[name] = cells
    return found


def test_a_checksum_is_that_of_a_known_sentence() -> None:
    """The example of the NMEA 0183 article of Wikipedia."""
    known = "GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,"
    assert sentence(known).endswith(b"*47\r\n")


def test_a_fix_becomes_four_sentences() -> None:
    found = fields_of(sentences(FIX))
    place = ["3351.40704", "S", "15112.91780", "E"]
    assert found["GPGGA"] == ["093000.12", *place, "1", "00", "", "", "M", "", "M", "", ""]
    assert found["GPRMC"] == ["093000.12", "A", *place, "", "", "010526", "", "", "A"]
    assert found["GPGST"] == ["093000.12", "", "", "", "", "2.5", "2.5", ""]
    assert found["GPGSA"] == ["A", "2", *[""] * 15]


@pytest.mark.parametrize("status", ["LOST", "ABSTAIN"])
def test_no_position_is_sent_that_is_not_ok(status: Any) -> None:
    found = fields_of(sentences(replace(FIX, status=status)))
    assert found["GPGGA"][1:6] == ["", "", "", "", "0"]
    assert found["GPRMC"][1:6] == ["V", "", "", "", ""]
    assert found["GPRMC"][-1] == "N"
    assert found["GPGST"][5:7] == ["", ""]
    assert found["GPGSA"][1] == "1"


def test_dead_reckoning_is_called_that() -> None:
    found = fields_of(sentences(replace(FIX, status="DEGRADED")))
    assert found["GPGGA"][5] == "6"
    assert (found["GPRMC"][1], found["GPRMC"][-1]) == ("V", "E")


def test_a_fix_without_a_position_is_none_whatever_its_status() -> None:
    assert fields_of(sentences(replace(FIX, eph_m=None)))["GPGGA"][5] == "0"


def test_a_clock_that_does_not_count_from_1970_gives_no_time() -> None:
    found = fields_of(sentences(replace(FIX, t_exposure_s=12.5)))
    assert found["GPGGA"][0] == found["GPRMC"][0] == found["GPRMC"][8] == ""


@pytest.mark.parametrize(
    ("lat", "lon", "expected"),
    [
        (0.0, 0.0, ["0000.00000", "N", "00000.00000", "E"]),
        (47.99999999999, -8.99999999999, ["4800.00000", "N", "00900.00000", "W"]),
        (-1e-9, 179.5, ["0000.00000", "S", "17930.00000", "E"]),
        (89.9999999, -179.9999999, ["8959.99999", "N", "17959.99999", "W"]),
    ],
)
def test_minutes_never_reach_sixty(lat: float, lon: float, expected: list[str]) -> None:
    found = fields_of(sentences(replace(FIX, lat_deg=lat, lon_deg=lon)))
    assert found["GPGGA"][1:5] == expected


def test_another_reader_of_nmea_finds_the_same_place() -> None:
    pynmea2 = pytest.importorskip("pynmea2")
    gga, rmc, gst, gsa = (pynmea2.parse(s) for s in sentences(FIX).decode().splitlines())
    assert gga.latitude == pytest.approx(FIX.lat_deg, abs=1e-7)
    assert gga.longitude == pytest.approx(FIX.lon_deg, abs=1e-7)
    assert rmc.datetime.isoformat() == "2026-05-01T09:30:00.120000+00:00"
    assert gst.std_dev_latitude == 2.5
    assert gsa.mode_fix_type == "2"


def test_a_pace_is_kept_on_average() -> None:
    clock = Clock()
    pace = Pace(4.0, clock)
    sent = 0
    for _ in range(300):  # 10 s at 30 Hz
        clock.now_s += 1 / 30
        sent += pace.due()
    assert sent == pytest.approx(40, abs=1)
    clock.now_s += 60
    assert [pace.due() for _ in range(3)] == [True, False, False]  # no burst after a pause


# --- ports ---------------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """The far end of a serial line, and the device to open."""
    far, near = pty.openpty()
    yield far, os.ttyname(near)
    os.close(near)
    os.close(far)


def test_sentences_arrive_at_the_end_of_a_serial_line_unchanged(terminal: tuple[int, str]) -> None:
    far, device = terminal
    output = open_output(f"nmea:{device}?baud=115200")
    output.write(FIX)
    expected = sentences(FIX)
    received = b""
    while len(received) < len(expected):
        received += os.read(far, 4096)
    assert received == expected
    output.close()
    output.close()


def test_a_serial_line_sends_no_more_than_it_carries(terminal: tuple[int, str]) -> None:
    _, device = terminal
    clock = Clock()
    output = NmeaOutput("n", open_port(device, {"baud": "4800"}), clock=clock)
    sent = 0
    port: Any = output._port
    port.send = lambda data: None
    pace = output._pace
    for _ in range(600):
        clock.now_s += 0.1
        sent += pace.due()
    assert sent * len(sentences(FIX)) <= 60 * 480
    with pytest.raises(InputError, match=r"carries 1\.7 fixes a second, not 10"):
        open_output(f"nmea:{device}?baud=4800&rate_hz=10")


def test_a_line_that_takes_nothing_is_an_error_and_not_a_halt(
    terminal: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.outputs.ports.TIMEOUT_S", 0.05)
    port = open_port(terminal[1], {})
    with pytest.raises(TimeoutError, match="has taken nothing"):
        port.send(b"x" * 1_000_000)
    port.close()


def test_a_file_is_no_serial_line(tmp_path: Any) -> None:
    (tmp_path / "file").touch()
    port = open_port(str(tmp_path / "file"), {})
    with pytest.raises(OSError, match="is not a serial line"):
        port.send(b"x")
    with pytest.raises(OSError, match="No such file"):
        open_port(str(tmp_path / "absent"), {}).send(b"x")


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(LONG_S)
        yield receiver


def test_records_arrive_as_json_without_doubtful_positions(udp: socket.socket) -> None:
    output = open_output(f"udp://127.0.0.1:{udp.getsockname()[1]}")
    output.write(FIX)
    output.write(replace(FIX, status="DEGRADED"))
    assert json.loads(udp.recv(65536)) == json.loads(FIX.to_json())
    second = json.loads(udp.recv(65536))
    assert (second["status"], second["lat_deg"], second["eph_m"]) == ("DEGRADED", None, None)
    output.close()


def test_sentences_arrive_over_udp_and_tcp(udp: socket.socket) -> None:
    output = open_output(f"nmea:udp://127.0.0.1:{udp.getsockname()[1]}?talker=GN")
    output.write(FIX)
    assert udp.recv(65536) == sentences(FIX, "GN")
    output.close()
    with socket.create_server(("127.0.0.1", 0)) as server:
        output = open_output(f"nmea:tcp://127.0.0.1:{server.getsockname()[1]}")
        output.write(FIX)
        peer, _ = server.accept()
        with peer:
            peer.settimeout(LONG_S)
            assert peer.recv(65536).startswith(b"$GPGGA")
        output.close()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nmea:", "is not known"),
        ("nmea:http://host:1", "is no address"),
        ("nmea:udp://host", "is no address"),
        ("nmea:udp://host:99999", "is no address"),
        ("udp://:5", "is no address"),
        ("nmea:udp://host:1?baud=9600", "is no address"),
        ("nmea:/dev/ttyS0?baud=fast", "expected as /dev/ttyUSB0"),
        ("nmea:/dev/ttyS0?baud=12345", "cannot be set here"),
        ("nmea:udp://h:1?rate_hz=0", "expected a number from 0.01 to 1000"),
        ("nmea:udp://h:1?rate_hz=x", "expected a number from 0.01 to 1000"),
        ("nmea:udp://h:1?talker=gps", "expected two capital letters"),
        ("nmea:udp://h:1?rate=4", "no option rate; known for nmea: baud, rate_hz, talker"),
    ],
)
def test_a_peer_that_cannot_be_is_refused(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_output(uri)


# --- the outbox ----------------------------------------------------------------------------------


class Peer:
    """An output that does what a test tells it."""

    name = "peer"

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.problem: Exception | None = None
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.asked = threading.Event()
        self.closed = 0

    def write(self, fix: Fix) -> None:
        self.asked.set()
        self.open_gate.wait(LONG_S)
        if self.problem is not None:
            raise self.problem
        self.taken.append(fix.seq)

    def close(self) -> None:
        self.closed += 1
        if self.problem is not None:
            raise self.problem


def outbox(peer: Peer, **options: Any) -> Outbox:
    return Outbox(peer, **{"first_retry_s": 0.01, "last_retry_s": 0.02, **options})


def offered(box: Outbox, numbers: range) -> None:
    for seq in numbers:
        box.offer(replace(FIX, seq=seq))


def test_fixes_arrive_in_order_and_the_output_is_closed_once() -> None:
    peer = Peer()
    box = outbox(peer)
    offered(box, range(100))
    box.close()
    box.close()
    box.offer(FIX)
    assert peer.taken == list(range(100))
    assert peer.closed == 1
    assert (box.written, box.lost, box.events()) == (100, 0, [])


@pytest.mark.parametrize(
    "problem",
    [ConnectionRefusedError(111, "Connection refused"), BrokenPipeError(), ValueError("a bug")],
    ids=lambda problem: type(problem).__name__,
)
def test_a_peer_that_is_gone_and_comes_back_is_told_once_each(problem: Exception) -> None:
    peer = Peer()
    box = outbox(peer, capacity=3, steady_after_s=0.0)
    peer.problem = problem
    offered(box, range(1))
    events: list[str] = []
    assert waited_for(lambda: bool(events) or bool(events.extend(box.events())))  # type: ignore[func-returns-value]
    offered(box, range(1, 10))
    assert waited_for(lambda: box.lost >= 6)
    peer.problem = None
    assert box.flush(LONG_S)
    events += box.events()
    box.close()
    assert peer.taken[-3:] == [7, 8, 9]
    assert peer.taken == sorted(peer.taken)
    assert len(peer.taken) + box.lost == 10
    assert len(events) == 2
    assert re.match(r"output peer is gone \(.+\), trying again", events[0])
    assert re.search(rf"back after \d+ s, {box.lost} fixes lost", events[1])


def test_a_peer_that_takes_only_every_other_fix_is_told_to_be_gone_once() -> None:
    """A datagram to a port that nobody listens on is taken, and the next one refused."""
    peer = Peer()
    box = outbox(peer, capacity=3)
    for k in range(6):
        peer.problem = ConnectionRefusedError("refused") if k % 2 == 0 else None
        offered(box, range(k, k + 1))
        if peer.problem is None:
            assert box.flush(LONG_S)
        else:
            assert waited_for(lambda: peer.problem is not None and bool(box._gone_since_s))
    box.close()
    assert [event for event in box.events() if "back" in event] == []


def test_a_peer_that_hangs_holds_nothing_up_and_is_told() -> None:
    clock = Clock()
    peer = Peer()
    peer.open_gate.clear()
    box = outbox(peer, capacity=2, clock=clock)
    offered(box, range(1))
    assert peer.asked.wait(LONG_S)
    offered(box, range(1, 100))
    assert box.events() == []
    clock.now_s += 6
    assert box.events() == ["output peer has taken nothing for 6 s, still waiting"]
    assert box.events() == []
    peer.open_gate.set()
    assert box.flush(LONG_S)
    assert box.events() == ["output peer is back after 6 s, 97 fixes lost"]
    assert peer.taken == [0, 98, 99]
    box.close()


def test_closing_does_not_wait_for_a_peer_that_hangs() -> None:
    peer = Peer()
    peer.open_gate.clear()
    box = outbox(peer)
    offered(box, range(3))
    assert peer.asked.wait(LONG_S)
    box.close(timeout_s=0.05)
    assert box.lost == 3
    assert "closed with 3 fixes not handed on" in box.events()[-1]
    peer.open_gate.set()


def test_closing_does_not_wait_for_a_peer_that_is_gone() -> None:
    peer = Peer()
    peer.problem = ConnectionResetError(104, "Connection reset by peer")
    box = Outbox(peer, first_retry_s=600, last_retry_s=600)
    offered(box, range(3))
    assert waited_for(lambda: bool(box.events()))
    box.close(timeout_s=30)
    assert box.lost == 3
    assert peer.closed == 1
    assert any("did not close" in event for event in box.events())


def test_a_peer_that_is_too_slow_is_told_now_and_then() -> None:
    clock = Clock()
    peer = Peer()
    peer.open_gate.clear()
    box = outbox(peer, capacity=1, clock=clock)
    offered(box, range(1))
    assert peer.asked.wait(LONG_S)
    offered(box, range(1, 5))
    peer.open_gate.set()
    assert box.flush(LONG_S)
    assert box.events() == []
    clock.now_s += 11
    assert box.events() == ["output peer is too slow, 3 fixes lost"]
    assert box.events() == []
    box.close()


def test_a_peer_over_tcp_that_goes_and_comes_back_is_found_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    box = Outbox(
        open_output(f"nmea:tcp://127.0.0.1:{port}"),
        capacity=2,
        first_retry_s=0.01,
        last_retry_s=0.1,
        steady_after_s=0.0,
    )
    events: list[str] = []

    def told(word: str) -> bool:
        box.offer(FIX)
        events.extend(box.events())
        return any(word in event for event in events)

    assert waited_for(lambda: told("is gone (Connection refused)"))
    with socket.create_server(("127.0.0.1", port), reuse_port=False) as server:
        server.settimeout(LONG_S)
        peer, _ = server.accept()
        assert waited_for(lambda: told("is back"))
        peer.close()
    events.clear()
    assert waited_for(lambda: told("is gone"))
    box.close()


def test_nobody_at_a_udp_port_is_told() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    box = open_outbox(f"udp://127.0.0.1:{port}")
    events: list[str] = []

    def told() -> bool:
        box.offer(FIX)
        events.extend(box.events())
        return any("is gone (Connection refused)" in event for event in events)

    assert waited_for(told)
    box.close()


# --- MAVLink -------------------------------------------------------------------------------------


class Autopilot:
    """Decodes what arrives, with pymavlink's own parser."""

    def __init__(self, receiver: socket.socket) -> None:
        self.socket = receiver
        common = pytest.importorskip("pymavlink.dialects.v20.common")
        self.parser = common.MAVLink(None)

    def messages(self, count: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < count:
            found += self.parser.parse_buffer(self.socket.recv(4096)) or []
        assert len(found) == count
        return found


def mavlink(udp: socket.socket, dialect: str, clock: Clock, age_s: float = 0.06) -> Any:
    from edge_runtime.outputs.mavlink_output import MavlinkOutput

    pytest.importorskip("pymavlink")
    return MavlinkOutput(
        "autopilot",
        open_port(f"udp://127.0.0.1:{udp.getsockname()[1]}", {}),
        dialect=dialect,  # type: ignore[arg-type]
        clock=clock,
        unix_clock=lambda: FIX.t_exposure_s + age_s,
    )


def test_px4_gets_a_vision_position_with_its_accuracy_and_age(udp: socket.socket) -> None:
    pilot = Autopilot(udp)
    output = mavlink(udp, "px4", Clock())
    output.write(FIX)
    heartbeat, text, position = pilot.messages(3)
    assert heartbeat.get_type() == "HEARTBEAT"
    assert (heartbeat.get_srcSystem(), heartbeat.get_srcComponent()) == (1, 197)
    assert (heartbeat.type, heartbeat.autopilot) == (18, 8)
    assert (text.severity, text.text) == (6, "skyfix OK")
    assert position.get_msgId() == 296
    assert (position.lat, position.lon) == (-338567840, 1512152967)
    assert position.eph == pytest.approx(2.54, rel=1e-6)
    assert (position.source, position.flags, position.target_system) == (2, 0, 1)
    assert position.processing_time == pytest.approx(60_000, abs=1)
    assert position.time_usec == pytest.approx((FIX.t_exposure_s + 0.06) * 1e6, abs=1)
    assert math.isnan(position.alt)
    output.close()


def test_ardupilot_gets_a_command_with_a_wrapped_time(udp: socket.socket) -> None:
    pilot = Autopilot(udp)
    clock = Clock()
    clock.now_s = 1010.5
    output = mavlink(udp, "ardupilot", clock)
    output.write(FIX)
    *_, command = pilot.messages(3)
    assert (command.get_type(), command.command) == ("COMMAND_INT", 43003)
    assert (command.x, command.y) == (-338567840, 1512152967)
    assert command.param1 == pytest.approx(1010.5 % 240)
    assert command.param2 == pytest.approx(0.06, abs=1e-6)
    assert command.param3 == pytest.approx(2.54, rel=1e-6)
    assert math.isnan(command.z)
    output.close()


def test_a_gps_receiver_is_imitated_where_nothing_else_is_understood(udp: socket.socket) -> None:
    """GPS week and time of week of 2026-05-01T09:30:00.189 UTC, 18 leap seconds."""
    pilot = Autopilot(udp)
    output = mavlink(udp, "gps-input", Clock())
    output.write(FIX)
    *_, gps = pilot.messages(3)
    days = (date(2026, 5, 1) - date(1980, 1, 6)).days
    assert (gps.time_week, gps.time_week_ms) == (
        days // 7,
        (days % 7 * 86400 + 9 * 3600 + 30 * 60 + 18) * 1000 + 189,
    )
    assert gps.fix_type == 3
    assert gps.satellites_visible >= 6
    assert gps.hdop <= 2.5
    assert gps.horiz_accuracy == pytest.approx(2.54, rel=1e-6)
    assert gps.yaw == 0
    assert gps.ignore_flags == 1 | 4 | 8 | 16 | 32 | 128
    output.close()


@pytest.mark.parametrize("status", ["LOST", "DEGRADED", "ABSTAIN"])
@pytest.mark.parametrize("dialect", ["px4", "ardupilot", "gps-input"])
def test_autopilots_get_silence_where_the_position_is_not_ok(
    udp: socket.socket, dialect: str, status: Any
) -> None:
    pilot = Autopilot(udp)
    clock = Clock()
    output = mavlink(udp, dialect, clock)
    for _ in range(3):
        clock.now_s += 0.1
        output.write(replace(FIX, status=status, reason="x" * 100))
    clock.now_s += 1.0
    output.write(replace(FIX, status=status))
    types = [message.get_type() for message in pilot.messages(3)]
    assert types == ["HEARTBEAT", "STATUSTEXT", "HEARTBEAT"]
    output.close()


def test_changes_of_status_and_jumps_of_the_track_are_told_once(udp: socket.socket) -> None:
    pilot = Autopilot(udp)
    clock = Clock()
    output = mavlink(udp, "px4", clock)
    for fix in (FIX, FIX, NO_POSITION, NO_POSITION, replace(FIX, reset_counter=1)):
        output.write(fix)
    texts = [m for m in pilot.messages(1 + 3 + 3) if m.get_type() == "STATUSTEXT"]
    assert [(m.severity, m.text) for m in texts] == [
        (6, "skyfix OK"),
        (4, "skyfix LOST: no agreeing match for 5.2 s"),
        (6, "skyfix OK reset 1"),
    ]
    output.close()


def test_a_position_that_is_too_old_is_not_sent(udp: socket.socket) -> None:
    pilot = Autopilot(udp)
    output = mavlink(udp, "px4", Clock(), age_s=3.0)
    output.write(FIX)
    assert [m.get_type() for m in pilot.messages(2)] == ["HEARTBEAT", "STATUSTEXT"]
    output.close()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mavlink:udpout:127.0.0.1:14550", "expected px4, ardupilot, gps-input"),
        ("mavlink:udpout:127.0.0.1:14550?dialect=px5", "dialect is 'px5'"),
        ("mavlink:udpout:127.0.0.1?dialect=px4", "is no address"),
        ("mavlink:udp://h:1?dialect=px4&system=0", "from 1 to 255"),
    ],
)
def test_an_autopilot_that_cannot_be_is_refused(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_output(uri)


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pymavlink", "pymavlink.dialects.v20.common"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=r"pip install 'skyfix\[mavlink\]'"):
        open_output("mavlink:udpout:127.0.0.1:14550?dialect=px4")


def test_a_serial_autopilot_is_at_a_speed_of_its_own(terminal: tuple[int, str]) -> None:
    pytest.importorskip("pymavlink")
    output: Any = open_output(f"mavlink:{terminal[1]}?dialect=px4")
    assert isinstance(output._port, SerialPort)
    assert output._port.bytes_per_s == 92_160
    output.close()
