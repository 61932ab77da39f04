import importlib
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_runtime.errors import InputError
from edge_runtime.states import mavlink_link
from edge_runtime.states.boot_clock import BootClock
from edge_runtime.states.mavlink_messages import MessageReader
from edge_runtime.states.mavlink_reading import MavlinkStates, read_log
from edge_runtime.states.opening import open_states
from edge_runtime.states.recording import RecordedStates


class Said(SimpleNamespace):
    """A message as pymavlink decodes it."""

    def __init__(self, kind: str, *, system: int = 1, component: int = 1, **fields: Any) -> None:
        super().__init__(**fields)
        self._kind, self._system, self._component = kind, system, component
        self._timestamp = 0.0

    def get_type(self) -> str:
        return self._kind

    def get_srcSystem(self) -> int:  # noqa: N802 - pymavlink's name
        return self._system

    def get_srcComponent(self) -> int:  # noqa: N802 - pymavlink's name
        return self._component


def attitude(boot_ms: int, yaw_deg: float = 0.0, pitch_deg: float = 0.0, **more: int) -> Said:
    return Said(
        "ATTITUDE", time_boot_ms=boot_ms, yaw=math.radians(yaw_deg), roll=0.0,
        pitch=math.radians(pitch_deg), **more,
    )  # fmt: skip


def beam(distance_cm: int, **more: Any) -> Said:
    fields = {"orientation": 25, "min_distance": 20, "max_distance": 5000, "signal_quality": 0}
    return Said("DISTANCE_SENSOR", time_boot_ms=0, current_distance=distance_cm, **(fields | more))


def read(reader: MessageReader, message: Said, t_s: float = 0.0) -> dict[str, float]:
    sample = reader.read(message, t_s)
    if sample is None:
        return {}
    return {k: v for k, v in vars(sample.state).items() if v is not None and k != "t_s"}


def test_a_beam_is_the_height_times_the_cosine_of_the_tilt() -> None:
    reader = MessageReader()
    read(reader, attitude(0, pitch_deg=30.0))
    assert read(reader, beam(2000))["height_m"] == pytest.approx(20 * math.cos(math.radians(30)))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(beam(5000), id="at its maximum"),
        pytest.param(beam(20), id="at its minimum"),
        pytest.param(beam(0), id="zero"),
        pytest.param(beam(2000, orientation=0), id="looks ahead"),
        pytest.param(beam(2000, signal_quality=1), id="invalid"),
    ],
)
def test_a_beam_that_measures_nothing_is_no_height(wrong: Said) -> None:
    reader = MessageReader()
    read(reader, attitude(0))
    assert read(reader, wrong) == {}


def test_a_beam_without_a_tilt_or_with_much_of_it_is_no_height() -> None:
    reader = MessageReader()
    assert read(reader, beam(2000)) == {}
    read(reader, attitude(0, pitch_deg=50.0))
    assert read(reader, beam(2000)) == {}
    read(reader, attitude(0))
    assert read(reader, beam(2000), t_s=2.0) == {}


def test_poorer_sources_stand_in_for_silent_ones_alone() -> None:
    reader = MessageReader()
    hud = Said("VFR_HUD", heading=77)
    assert read(reader, hud) == {"yaw_deg": 77.0}
    read(reader, attitude(0, yaw_deg=10.0), t_s=1.0)
    assert read(reader, hud, t_s=2.0) == {}
    local = Said("LOCAL_POSITION_NED", time_boot_ms=0, z=-55.0, vx=1.0, vy=2.0)
    assert read(reader, local, t_s=2.0) == {
        "height_above_takeoff_m": 55.0,
        "velocity_north_mps": 1.0,
        "velocity_east_mps": 2.0,
    }
    position = Said(
        "GLOBAL_POSITION_INT", lat=471000000, lon=82000000, relative_alt=60_000, vx=100, vy=-200
    )
    sample = reader.read(position, 3.0)
    assert sample is not None
    assert sample.position == pytest.approx((47.1, 8.2))
    assert sample.state.height_above_takeoff_m == 60.0
    assert sample.state.velocity_east_mps == -2.0
    assert read(reader, local, t_s=4.0) == {}


@pytest.mark.parametrize(("flags", "yaw"), [(64, 90.0), (32, 100.0), (16, 90.0), (0, 100.0)])
def test_a_gimbals_yaw_is_turned_into_the_earths_frame(flags: int, yaw: float) -> None:
    from edge_runtime.states.angles import quaternion

    reader = MessageReader()
    read(reader, attitude(0, yaw_deg=10.0))
    message = Said(
        "GIMBAL_DEVICE_ATTITUDE_STATUS", flags=flags, q=list(quaternion(90.0, -45.0, 0.0))
    )
    said = read(reader, message)
    assert said["gimbal_yaw_deg"] == pytest.approx(yaw)
    assert said["gimbal_pitch_deg"] == pytest.approx(-45.0)


def test_a_clearance_below_zero_means_that_there_is_none() -> None:
    nan = math.nan
    reader = MessageReader()
    message = Said("ALTITUDE", altitude_relative=33.0, altitude_terrain=nan, bottom_clearance=-1.0)
    assert read(reader, message) == {"height_above_takeoff_m": 33.0}
    message.bottom_clearance = 12.5
    assert read(reader, message)["height_m"] == 12.5


def test_the_boot_clock_follows_the_least_delay() -> None:
    """Arrivals are late by 10 to 210 ms, drift is 20 ppm; times come out within 15 ms."""
    clock = BootClock()
    errors = []
    for k in range(20_000):
        boot_s = k * 0.02
        true_s = 1000.0 + boot_s * (1 + 20e-6)
        t_s, rebooted = clock.local_s(boot_s, true_s + 0.010 + 0.2 * ((k * 7919) % 100) / 100)
        assert not rebooted
        errors.append(t_s - true_s)
    assert max(map(abs, errors[200:])) < 0.015


def test_a_time_since_boot_that_begins_anew_is_a_reboot() -> None:
    clock = BootClock()
    clock.local_s(500.0, 1000.0)
    assert clock.local_s(499.5, 1000.0)[1] is False  # Packets overtake each other.
    t_s, rebooted = clock.local_s(1.0, 1010.0)
    assert (t_s, rebooted) == (1010.0, True)


class Wire:
    """A link whose messages and clocks the test decides."""

    def __init__(self) -> None:
        self.now_s, self.wall_s = 100.0, 1.7e9
        self.queue: list[Said | Exception] = []
        self.opened = 0
        self._turn = threading.Condition()

    def open(self, address: str) -> "Wire":
        self.opened += 1
        return self

    def recv_match(
        self, *, type: list[str] | None = None, blocking: bool = False, timeout: float | None = None
    ) -> Any:
        with self._turn:
            self._turn.notify_all()
            if not self.queue:
                self._turn.wait(0.01)
                return None
            message = self.queue.pop(0)
        if isinstance(message, Exception):
            raise message
        return message

    def close(self) -> None:
        pass

    def say(self, *messages: Said | Exception) -> None:
        """Returns when all were taken."""
        with self._turn:
            self.queue.extend(messages)
        until(lambda: not self.queue)
        with self._turn:
            assert self._turn.wait(60.0)  # The reader has come back for more.


def until(reached: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def source(wire: Wire) -> Iterator[MavlinkStates]:
    states = MavlinkStates(
        "test", open_link=wire.open, monotonic=lambda: wire.now_s, wall=lambda: wire.wall_s
    )
    yield states
    states.close()
    states.close()


HEARTBEAT = Said("HEARTBEAT", type=2, autopilot=3)


def test_a_frame_gets_what_the_autopilot_said_then(wire: Wire, source: MavlinkStates) -> None:
    wire.say(attitude(1000, 350.0))
    wire.now_s += 0.5
    wire.wall_s += 0.5
    wire.say(attitude(1500, 10.0))
    state = source.at("000001", wire.wall_s - 0.25)
    assert state.t_s == wire.wall_s - 0.25
    assert state.yaw_deg == pytest.approx(0.0, abs=1e-3)
    assert source.knows("yaw_deg")
    assert not source.knows("height_m")


def test_a_silent_autopilot_is_said_and_nothing_is_known(wire: Wire, source: MavlinkStates) -> None:
    wire.say(HEARTBEAT, attitude(1000, 90.0))
    assert source.at("a", wire.wall_s).yaw_deg == pytest.approx(90.0)
    wire.now_s += 10
    wire.wall_s += 10
    assert source.at("b", wire.wall_s).yaw_deg is None
    lines = source.events()
    assert any("no heartbeat of an autopilot on test" in line for line in lines)
    assert any("no attitude within 1 s" in line for line in lines)
    source.at("c", wire.wall_s)
    assert source.events() == []
    wire.say(HEARTBEAT, attitude(11000, 91.0))
    assert source.at("d", wire.wall_s).yaw_deg == pytest.approx(91.0)
    assert any("heartbeat is back" in line for line in source.events())


def test_a_reboot_forgets_what_was_said_before(wire: Wire, source: MavlinkStates) -> None:
    wire.say(HEARTBEAT, attitude(600_000, 90.0), attitude(500, 20.0))
    assert source.at("a", wire.wall_s).yaw_deg == pytest.approx(20.0)
    assert any("started anew" in line for line in source.events())


@pytest.mark.parametrize("step_s", [-3600.0, 86_400.0])
def test_setting_this_computers_clock_moves_no_state(
    wire: Wire, source: MavlinkStates, step_s: float
) -> None:
    wire.say(HEARTBEAT, attitude(1000, 45.0))
    wire.wall_s += step_s
    assert source.at("a", wire.wall_s).yaw_deg == pytest.approx(45.0)
    (line,) = [line for line in source.events() if "clock was set" in line]
    assert ("back" if step_s < 0 else "forward") in line


def test_other_vehicles_and_ground_stations_are_left_out(wire: Wire, source: MavlinkStates) -> None:
    wire.say(
        attitude(1, 99.0, system=255), attitude(1000, 45.0), attitude(1, 98.0, system=7),
        attitude(1, 97.0, component=197),
    )  # fmt: skip
    assert source.at("a", wire.wall_s).yaw_deg == pytest.approx(45.0)
    assert any("vehicle 7 is heard besides 1" in line for line in source.events())


def test_a_link_that_fails_is_opened_again(wire: Wire, source: MavlinkStates) -> None:
    wire.say(HEARTBEAT, OSError("gone"))
    until(lambda: wire.opened == 2)
    wire.say(HEARTBEAT, attitude(1000, 45.0))
    assert source.at("a", wire.wall_s).yaw_deg == pytest.approx(45.0)
    lines = source.events()
    assert any("test failed (gone); reopening" in line for line in lines)
    assert any("is open again" in line for line in lines)


def test_messages_with_missing_or_wild_fields_stop_nothing(
    wire: Wire, source: MavlinkStates
) -> None:
    wire.say(
        Said("ATTITUDE", time_boot_ms=1),
        Said("GLOBAL_POSITION_INT", time_boot_ms=2, lat=0, lon=0, relative_alt=None, vx=0, vy=0),
        attitude(1000, math.nan),
        attitude(1010, 45.0),
    )
    assert source.at("a", wire.wall_s).yaw_deg == pytest.approx(45.0)


def test_a_frame_without_a_date_gets_the_newest_state(wire: Wire, source: MavlinkStates) -> None:
    wire.say(HEARTBEAT, attitude(1000, 45.0))
    assert source.at("a", None).yaw_deg == pytest.approx(45.0)
    assert source.at("b", 3.0).yaw_deg == pytest.approx(45.0)
    assert len([line for line in source.events() if "has no date" in line]) == 1


def test_without_pymavlink_the_command_that_mends_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="pymavlink")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"pip install 'skyfix\[mavlink\]'"):
        mavlink_link.connect("udpin:127.0.0.1:0")


def packer() -> Any:
    """pymavlink's own packets, of vehicle 1's autopilot."""
    dialect = importlib.import_module("pymavlink.dialects.v20.common")
    return dialect.MAVLink(None, srcSystem=1, srcComponent=1)


def packets(k: int) -> Iterator[bytes]:
    """What an autopilot says at its k-th tenth of a second."""
    mav = packer()
    ms = 5000 + 100 * k
    say = [
        mav.heartbeat_encode(2, 3, 0, 0, 4),
        mav.attitude_encode(ms, 0.0, 0.0, math.radians(30 + k), 0, 0, 0),
        mav.global_position_int_encode(ms, 471000000, 82000000, 0, 80_000, 500, 0, 0, 65535),
        mav.distance_sensor_encode(ms, 20, 10_000, 7_500, 0, 0, 25, 0),
    ]
    for number, message in enumerate(say):
        mav.seq = (4 * k + number) % 256
        yield message.pack(mav)


def test_real_packets_over_a_real_socket_become_states() -> None:
    pytest.importorskip("pymavlink")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = open_states(f"mavlink:udpin:127.0.0.1:{port}", max_gap_s=60.0)
    try:
        assert isinstance(source, MavlinkStates)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for k in range(10):
                for packet in packets(k):
                    sender.sendto(packet, ("127.0.0.1", port))
                sender.sendto(b"\xfd\x00 garbage", ("127.0.0.1", port))
                time.sleep(0.01)
        until(lambda: source.knows("height_m") and source.knows("velocity_east_mps"))
        state = source.at("x", time.time())
        assert state.height_m == pytest.approx(75.0)
        assert state.height_above_takeoff_m == 80.0
        assert state.velocity_north_mps == 5.0
        assert state.yaw_deg is not None
        assert 30 <= state.yaw_deg <= 39.001
    finally:
        source.close()


def test_a_tcp_peer_that_closes_is_connected_to_again() -> None:
    pytest.importorskip("pymavlink")
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = open_states(f"mavlink:tcp:127.0.0.1:{server.getsockname()[1]}", max_gap_s=60.0)
        try:
            assert isinstance(source, MavlinkStates)
            server.accept()[0].close()
            server.settimeout(60)
            peer, _ = server.accept()
            with peer:
                for k in range(5):
                    for packet in packets(k):
                        peer.send(packet)
                until(lambda: source.knows("yaw_deg"))
            assert any("closed the connection" in line for line in source.events())
        finally:
            source.close()


def test_a_tlog_is_a_recording(tmp_path: Path) -> None:
    pytest.importorskip("pymavlink")
    begin_s = 1.7e9
    path = tmp_path / "flight.tlog"
    with path.open("wb") as log:
        for k in range(50):
            for packet in packets(k):
                log.write(struct.pack(">Q", int((begin_s + k / 10) * 1e6)) + packet)
    source = open_states(str(path))
    assert isinstance(source, RecordedStates)
    assert source.at("x", begin_s + 2.05).yaw_deg == pytest.approx(50.5, abs=0.01)
    assert source.at("x", begin_s + 2.05).height_m == pytest.approx(75.0)
    assert source.at("x", begin_s + 100).yaw_deg is None
    assert source.positions[0] == pytest.approx((47.1, 8.2))


def test_a_log_of_the_autopilot_itself_is_read(tmp_path: Path) -> None:
    """A dataflash log with its own format records, as ArduPilot writes them."""
    pytest.importorskip("pymavlink")

    def record(number: int, body: bytes) -> bytes:
        return b"\xa3\x95" + bytes([number]) + body

    def layout(number: int, length: int, name: str, kinds: str, columns: str) -> bytes:
        return record(
            128,
            struct.pack(
                "<BB4s16s64s", number, length, name.encode(), kinds.encode(), columns.encode()
            ),
        )

    path = tmp_path / "flight.bin"
    with path.open("wb") as log:
        log.write(layout(128, 89, "FMT", "BBnNZ", "Type,Length,Name,Format,Columns"))
        log.write(layout(130, 23, "ATT", "Qfff", "TimeUS,Roll,Pitch,Yaw"))
        log.write(layout(131, 27, "POS", "QLLff", "TimeUS,Lat,Lng,Alt,RelHomeAlt"))
        log.write(
            layout(132, 50, "GPS", "QBIHBcLLeffffB",
                   "TimeUS,Status,GMS,GWk,NSats,HDop,Lat,Lng,Alt,Spd,GCrs,VZ,Yaw,U")
        )  # fmt: skip
        for k in range(60):
            us = 1_000_000 + 100_000 * k
            log.write(
                record(132, struct.pack("<QBIHBhiiiffffB", us, 3, 1000 + 100 * k, 2400,
                                        12, 80, 471000000, 82000000, 50000, 0, 0, 0, 0, 1))
            )  # fmt: skip
            log.write(record(130, struct.pack("<Qfff", us, 1.0, 2.0, 40.0 + k)))
            log.write(record(131, struct.pack("<Qiiff", us, 471000000, 82000000, 500.0, 70.0)))
    recording = read_log(path)
    yaws = [s.state.yaw_deg for s in recording.samples if s.state.yaw_deg is not None]
    assert yaws == pytest.approx([40.0 + k for k in range(60)])
    heights = {s.state.height_above_takeoff_m for s in recording.samples} - {None}
    assert heights == {70.0}


def test_logs_and_addresses_that_are_none_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pymavlink")
    (tmp_path / "empty.tlog").write_bytes(b"")
    with pytest.raises(InputError, match=r"has no attitude|cannot be read"):
        open_states(str(tmp_path / "empty.tlog"))
    with pytest.raises(InputError, match="does not exist; expected"):
        open_states("mavlink:none.tlog")
    with pytest.raises(InputError, match=r"cannot be (taken|opened)"):
        open_states("mavlink:udpin:nowhere")
    with pytest.raises(InputError, match="cannot be opened"):
        open_states("mavlink:tcp:127.0.0.1:1")
