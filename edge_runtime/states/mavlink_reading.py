"""States from an autopilot while it flies, and from its logs."""

import math
import struct
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from edge_runtime.errors import InputError
from edge_runtime.state import VehicleState
from edge_runtime.states.boot_clock import BootClock
from edge_runtime.states.mavlink_link import Connect, Link, Received, connect, open_log
from edge_runtime.states.mavlink_messages import MessageReader
from edge_runtime.states.occurrences import Occurrences
from edge_runtime.states.recording import UNIX_FROM_S, RecordedStates, Recording
from edge_runtime.states.sample import Sample
from edge_runtime.states.timeline import HeadingFrom, Timeline, check_options

_AUTOPILOT = 1
"""MAV_COMP_ID_AUTOPILOT1."""
_GROUND_STATIONS = 240
"""Vehicles have lower numbers than ground stations, as a rule of the protocol's users."""
_GIMBALS = frozenset({"MOUNT_ORIENTATION", "GIMBAL_DEVICE_ATTITUDE_STATUS", "DISTANCE_SENSOR"})
"""Messages that come from other parts of a vehicle than its autopilot."""
_HEARTBEAT_LOST_S = 3.0
_REOPEN_AFTER_S = 1.0
_BROKEN_AFTER = 50
"""So many messages in a row that cannot be read are a link that is broken."""
_KEEP_SAMPLES = 3000
"""A minute at 50 Hz."""
_CLOCK_STEP_S = 0.5


def open_mavlink(
    address: str,
    *,
    ignore: frozenset[str] = frozenset(),
    time_offset_s: float = 0.0,
    max_gap_s: float = 1.0,
    heading: HeadingFrom = "telemetry",
) -> "MavlinkStates | RecordedStates":
    """Listen to an autopilot, or read its log where the address is a file.

    Raises:
        InputError: no pymavlink, an address it cannot take, a log without states.
    """
    path = Path(address)
    if path.is_file():
        return RecordedStates(
            read_log(path),
            ignore=ignore,
            time_offset_s=time_offset_s,
            max_gap_s=max_gap_s,
            heading=heading,
        )
    if path.suffix.lower() in (".tlog", ".bin"):
        msg = f"log {path} does not exist; expected a MAVLink .tlog or ArduPilot .bin"
        raise InputError(msg)
    return MavlinkStates(
        address,
        ignore=ignore,
        time_offset_s=time_offset_s,
        max_gap_s=max_gap_s,
        heading=heading,
    )


class MavlinkStates:
    """Listens on a thread of its own. A `StateSource`.

    Times are kept on the monotonic clock, so that setting this computer's clock moves nothing.
    """

    live = True

    def __init__(
        self,
        address: str,
        *,
        ignore: frozenset[str] = frozenset(),
        time_offset_s: float = 0.0,
        max_gap_s: float = 1.0,
        heading: HeadingFrom = "telemetry",
        open_link: Connect = connect,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Open the link and begin to listen.

        Args:
            address: as pymavlink takes it.
            ignore: fields of VehicleState to leave out.
            time_offset_s: added to a frame's time to get the time of the states.
            max_gap_s: farthest a sample holds.
            heading: where headings and velocities come from.
            open_link: opens the address; again after it failed.
            monotonic: seconds that never step.
            wall: Unix seconds, the clock frames are stamped by.

        Raises:
            InputError: options that make no sense, no pymavlink, an address it cannot take, or
                nobody there at the start.
        """
        check_options(max_gap_s=max_gap_s, ignore=ignore, heading=heading)
        self._address, self._open, self._offset_s = address, open_link, time_offset_s
        self._monotonic, self._wall = monotonic, wall
        self._unix_s = wall() - monotonic()
        self._said = Occurrences()
        self._timeline = Timeline(
            self._said, max_gap_s=max_gap_s, ignore=ignore, heading=heading, keep=_KEEP_SAMPLES
        )
        self._clock, self._reader = BootClock(), MessageReader()
        self._system: int | None = None
        self._heartbeat_s: float | None = None
        self._began_s = monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        try:
            link = open_link(address)
        except OSError as error:
            msg = (
                f"MAVLink address {address!r} cannot be opened ({error}); check the port and that "
                "the autopilot is there"
            )
            raise InputError(msg) from error
        self._thread = threading.Thread(
            target=self._listen, args=(link,), name="mavlink states", daemon=True
        )
        self._thread.start()

    def at(self, frame_name: str, t_s: float | None) -> VehicleState:
        """The state at a time; the newest where the frame has none."""
        now_s = self._monotonic()
        with self._lock:
            self._mind_clock(now_s)
            self._mind_heartbeat(now_s)
            known = t_s is not None and math.isfinite(t_s) and t_s > UNIX_FROM_S
            if not known or t_s is None:
                self._said.began(
                    "frames without dates",
                    f"telemetry: frame {frame_name} has no date, so it gets the newest state; a "
                    "live source of states wants a live source of frames",
                )
                return self._timeline.state_at(
                    now_s, stamp_s=now_s + self._unix_s if t_s is None else t_s
                )
            return self._timeline.state_at(t_s - self._unix_s + self._offset_s, stamp_s=t_s)

    def knows(self, field: str) -> bool:
        """Whether any message said something about this field of VehicleState so far."""
        with self._lock:
            return self._timeline.knows(field)

    def events(self) -> list[str]:
        """What happened since the last call, one line each."""
        with self._lock:
            self._mind_heartbeat(self._monotonic())
            return self._said.taken()

    def close(self) -> None:
        """Stop listening and give the port back. Safe to call twice."""
        self._stop.set()
        self._thread.join(timeout=5.0)

    def _listen(self, link: Link | None) -> None:
        unreadable = 0
        while not self._stop.is_set():
            try:
                if link is None:
                    link = self._open(self._address)
                    self._ended("link", f"telemetry: {self._address} is open again")
                message = link.recv_match(blocking=True, timeout=0.2)
                if message is not None:
                    self._hear(message)
                unreadable = 0
            except (OSError, InputError) as error:  # pyserial's errors are OSErrors.
                self._began("link", f"telemetry: {self._address} failed ({error}); reopening")
                _close(link)
                link = None
                self._stop.wait(_REOPEN_AFTER_S)
            except (ValueError, TypeError, AttributeError, IndexError) as error:
                self._began("garbage", f"telemetry: a message cannot be read ({error}); left out")
                unreadable += 1
                if unreadable >= _BROKEN_AFTER:
                    _close(link)
                    link, unreadable = None, 0
                    self._stop.wait(_REOPEN_AFTER_S)
        _close(link)

    def _hear(self, message: Received) -> None:
        arrival_s = self._monotonic()
        kind = message.get_type()
        system, component = message.get_srcSystem(), message.get_srcComponent()
        if system >= _GROUND_STATIONS or system == 0 or kind == "BAD_DATA":
            return
        with self._lock:
            if component == _AUTOPILOT:
                self._system = self._system or system
            if system != self._system:
                if self._system is not None:
                    self._said.began(
                        "others",
                        f"telemetry: vehicle {system} is heard besides {self._system}; left out",
                    )
                return
            if kind == "HEARTBEAT" and component == _AUTOPILOT:
                self._heartbeat_s = arrival_s
                self._said.ended("heartbeat", "telemetry: the autopilot's heartbeat is back")
            if component != _AUTOPILOT and kind not in _GIMBALS:
                return
            self._take(message, kind, arrival_s, from_autopilot=component == _AUTOPILOT)

    def _take(
        self, message: Received, kind: str, arrival_s: float, *, from_autopilot: bool
    ) -> None:
        t_s = arrival_s
        boot_s = _boot_s(message)
        if boot_s is not None and from_autopilot:
            t_s, rebooted = self._clock.local_s(boot_s, arrival_s)
            if rebooted:
                self._said.happened(
                    "reboot",
                    "telemetry: the autopilot started anew; what it said before is left out",
                )
                self._timeline.clear()
                self._reader.forget()
        sample = self._reader.read(message, t_s) if kind in self._reader.types else None
        if sample is not None:
            self._timeline.add(sample)

    def _mind_clock(self, now_s: float) -> None:
        unix_s = self._wall() - now_s
        step_s = unix_s - self._unix_s
        if abs(step_s) > _CLOCK_STEP_S:
            self._said.happened(
                "clock",
                f"telemetry: this computer's clock was set {'forward' if step_s > 0 else 'back'} "
                f"by {abs(step_s):.1f} s; states follow it",
            )
        self._unix_s = unix_s

    def _mind_heartbeat(self, now_s: float) -> None:
        since_s = now_s - (self._began_s if self._heartbeat_s is None else self._heartbeat_s)
        if since_s > _HEARTBEAT_LOST_S:
            self._said.began(
                "heartbeat",
                f"telemetry: no heartbeat of an autopilot on {self._address} for "
                f"{_HEARTBEAT_LOST_S:g} s",
            )

    def _began(self, kind: str, line: str) -> None:
        with self._lock:
            self._said.began(kind, line)

    def _ended(self, kind: str, line: str) -> None:
        with self._lock:
            self._said.ended(kind, line)


def read_log(path: Path) -> Recording:
    """Read a .tlog (times of the computer that wrote it) or a .bin (times of the autopilot).

    Raises:
        InputError: no pymavlink, unreadable, or no message of use.
    """
    reader, clock = MessageReader(), BootClock()
    samples: list[Sample] = []
    notes: list[str] = []
    system: int | None = None
    for message in _messages(path, sorted(reader.types), notes):
        if hasattr(message, "get_srcSystem"):  # Logs of the autopilot itself name no sender.
            sender = message.get_srcSystem()
            if sender >= _GROUND_STATIONS or sender != (system or sender):
                continue
            system = sender
        t_s = float(message._timestamp)
        boot_s = _boot_s(message)
        if boot_s is not None:
            t_s, rebooted = clock.local_s(boot_s, t_s)
            if rebooted:
                notes.append(f"the autopilot started anew at {t_s:.2f} s")
                reader.forget()
        try:
            sample = reader.read(message, t_s)
        except (TypeError, ValueError, AttributeError):
            continue  # A message of another version of the protocol.
        if sample is not None:
            samples.append(sample)
    if not samples:
        msg = (
            f"log {path} has no attitude, height or velocity; expected messages such as ATTITUDE "
            "and GLOBAL_POSITION_INT, or ATT and POS"
        )
        raise InputError(msg)
    samples.sort(key=lambda s: s.state.t_s)
    return Recording(path=path, samples=tuple(samples), notes=tuple(notes))


def _messages(path: Path, types: list[str], notes: list[str]) -> list[Received]:
    """The log's messages of these types up to its end, or up to where it cannot be read."""
    messages: list[Received] = []
    # pymavlink prints a line for every part of a log that it cannot read.
    with redirect_stdout(StringIO()) as printed:
        log = open_log(path)
        try:
            while (message := log.recv_match(type=types)) is not None:
                messages.append(message)
        except (OSError, ValueError, TypeError, IndexError, KeyError, struct.error) as error:
            notes.append(f"{path.name} ends in something unreadable ({error}); read up to there")
        finally:
            log.close()
    if skipped := printed.getvalue().count("\n"):
        notes.append(f"{path.name} has {skipped} places that cannot be read; left out")
    return messages


def _boot_s(message: Received) -> float | None:
    """When the autopilot made it, seconds since it started, where it says so."""
    boot_ms = getattr(message, "time_boot_ms", None)
    return None if boot_ms is None else boot_ms / 1e3


def _close(link: Link | None) -> None:
    if link is not None:
        try:
            link.close()
        except OSError:
            return
