"""Positions for autopilots over MAVLink 2: PX4, ArduPilot, or a GPS receiver as a last resort.

* PX4: GLOBAL_POSITION_SENSOR (296), source vision, fused by EKF2.
* ArduPilot: COMMAND_INT with MAV_CMD_EXTERNAL_POSITION_ESTIMATE (43003).
* `gps-input`: GPS_INPUT (232), for autopilots that take neither.

Only fixes that are OK are sent; a silence is what tells an autopilot that there is no position.
"""

import math
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Literal, get_args

from edge_runtime.errors import BackendError, InputError
from edge_runtime.fix import Fix
from edge_runtime.outputs.live_outputs import Pace
from edge_runtime.outputs.ports import Port, open_port
from edge_runtime.outputs.reported import Position, position_of, utc_of

Dialect = Literal["px4", "ardupilot", "gps-input"]

COMPONENT_ID = 197
"""MAV_COMP_ID_VISUAL_INERTIAL_ODOMETRY."""
DEFAULT_BAUD = 921_600
_HEARTBEAT_EVERY_S = 1.0
_STALE_AFTER_S = 2.0
"""A position older than this is not sent: no autopilot asks for one that old."""
_SEVERITY = {"OK": 6, "DEGRADED": 5, "ABSTAIN": 5, "LOST": 4}
"""MAV_SEVERITY: info, notice, warning."""
_STATUSTEXT_BYTES = 50
_ARDUPILOT_WRAP_S = 240.0
"""The command's time is a 32 bit float: wrapped below 250 s it keeps 15 microseconds."""
_GPS_EPOCH_S = 315_964_800
_LEAP_S = 18
"""Between UTC and GPS time since 2017."""
_WEEK_S = 604_800
_IGNORED = 1 | 4 | 8 | 16 | 32 | 128
"""GPS_INPUT_IGNORE_FLAGS of altitude, vdop, both velocities, speed and vertical accuracy. An hdop
is given although there are no satellites, for ArduPilot checks it."""


class MavlinkOutput:
    """One autopilot at the end of a port."""

    def __init__(
        self,
        name: str,
        port: Port,
        *,
        dialect: Dialect,
        system: int = 1,
        rate_hz: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """Send to a port.

        Args:
            name: for messages.
            port: owned from now on.
            dialect: what the autopilot understands.
            system: its system id, which is the sender's as well.
            rate_hz: positions a second at most.
            clock: seconds, monotonic.
            unix_clock: seconds since 1970.

        Raises:
            BackendError: pymavlink is not installed, or is too old.
        """
        try:
            common: Any = import_module("pymavlink.dialects.v20.common")
        except ImportError as error:
            msg = (
                f"output {name} needs 'pymavlink', which is not installed. "
                "Install it with: pip install 'skyfix[mavlink]'"
            )
            raise BackendError(msg) from error
        if not hasattr(common, "MAVLINK_MSG_ID_GLOBAL_POSITION_SENSOR"):
            msg = (
                f"output {name}: the pymavlink here does not know GLOBAL_POSITION_SENSOR; expected "
                "2.4.50 or newer. Install it with: pip install -U 'skyfix[mavlink]'"
            )
            raise BackendError(msg)
        self.name = name
        self._port = port
        self._dialect = dialect
        self._system = system
        self._mavlink = common
        self._packer: Any = common.MAVLink(None, srcSystem=system, srcComponent=COMPONENT_ID)
        self._clock = clock
        self._unix_clock = unix_clock
        self._pace = Pace(rate_hz, clock)
        self._heartbeat_s = -math.inf
        self._told: tuple[str, int] | None = None

    def write(self, fix: Fix) -> None:
        """Send a heartbeat if one is due, news of the status, and the position if it is OK.

        Raises:
            OSError: the peer is gone.
        """
        now_s = self._clock()
        if now_s - self._heartbeat_s >= _HEARTBEAT_EVERY_S:
            # An onboard controller (18) that is no autopilot (8), active (4).
            self._send(self._packer.heartbeat_encode(18, 8, 0, 0, 4))
            self._heartbeat_s = now_s
        news = (fix.status, fix.reset_counter)
        if news != self._told:
            self._send(self._packer.statustext_encode(_SEVERITY[fix.status], self._news(fix)))
            self._told = news
        position = position_of(fix)
        age_s = self._age_s(fix)
        if position is None or age_s > _STALE_AFTER_S or not self._pace.due():
            return
        self._send(self._position_message(position, age_s))

    def close(self) -> None:
        """Close the port."""
        self._port.close()

    def _send(self, message: Any) -> None:
        self._port.send(bytes(message.pack(self._packer)))
        self._packer.seq = (self._packer.seq + 1) % 256

    def _news(self, fix: Fix) -> bytes:
        text = f"skyfix {fix.status}"
        if self._told is not None and self._told[1] != fix.reset_counter:
            text += f" reset {fix.reset_counter}"
        if fix.reason:
            text += f": {fix.reason}"
        return text.encode("ascii", "replace")[:_STATUSTEXT_BYTES]

    def _age_s(self, fix: Fix) -> float:
        """From exposure to now; by what the fix says it took where the clocks are not the same."""
        taken_s = fix.latency_ms.get("total", 0.0) / 1000
        if utc_of(fix) is None:
            return taken_s
        return max(taken_s, self._unix_clock() - fix.t_exposure_s)

    def _position_message(self, position: Position, age_s: float) -> Any:
        lat_e7, lon_e7 = round(position.lat_deg * 1e7), round(position.lon_deg * 1e7)
        unix_s = self._unix_clock()
        match self._dialect:
            case "px4":
                return self._packer.global_position_sensor_encode(
                    target_system=self._system,
                    target_component=0,
                    id=0,
                    time_usec=round(unix_s * 1e6),
                    processing_time=round(age_s * 1e6),
                    source=self._mavlink.GLOBAL_POSITION_SRC_VISION,
                    flags=0,
                    lat=lat_e7,
                    lon=lon_e7,
                    alt_ellipsoid=math.nan,
                    alt=math.nan,
                    eph=position.eph_m,
                    epv=math.nan,
                )
            case "ardupilot":
                return self._packer.command_int_encode(
                    self._system,
                    1,
                    self._mavlink.MAV_FRAME_GLOBAL,
                    self._mavlink.MAV_CMD_EXTERNAL_POSITION_ESTIMATE,
                    0,
                    0,
                    self._clock() % _ARDUPILOT_WRAP_S,
                    age_s,
                    position.eph_m,
                    0.0,
                    lat_e7,
                    lon_e7,
                    math.nan,
                )
            case "gps-input":
                gps_s = unix_s - _GPS_EPOCH_S + _LEAP_S
                return self._packer.gps_input_encode(
                    time_usec=round(unix_s * 1e6),
                    gps_id=0,
                    ignore_flags=_IGNORED,
                    time_week_ms=round(gps_s % _WEEK_S * 1000),
                    time_week=int(gps_s // _WEEK_S),
                    fix_type=3,
                    lat=lat_e7,
                    lon=lon_e7,
                    alt=0.0,
                    hdop=1.0,
                    vdop=1.0,
                    vn=0.0,
                    ve=0.0,
                    vd=0.0,
                    speed_accuracy=0.0,
                    horiz_accuracy=position.eph_m,
                    vert_accuracy=0.0,
                    satellites_visible=10,
                    yaw=0,
                )


def open_mavlink(
    uri: str, place: str, options: Mapping[str, str], *, rate_hz: float | None
) -> MavlinkOutput:
    """Make an output from `udpout:host:port`, `udp://host:port`, `tcp://…` or a serial line.

    Raises:
        InputError: not such a place, or an option that cannot be.
        BackendError: pymavlink is not installed.
    """
    port: Port
    if place.startswith("udpout:"):
        port = open_port(f"udp://{place.removeprefix('udpout:')}", {})
    else:
        line = {name: value for name, value in options.items() if name == "baud"}
        port = open_port(place, line, default_baud=DEFAULT_BAUD)
    dialect, system = options.get("dialect", ""), options.get("system", "1")
    if dialect not in get_args(Dialect):
        msg = f"output {uri}: dialect is {dialect!r}; expected {', '.join(get_args(Dialect))}"
        raise InputError(msg)
    if not system.isascii() or not system.isdigit() or not 1 <= int(system) <= 255:
        msg = f"output {uri}: system is {system!r}; expected the autopilot's id, from 1 to 255"
        raise InputError(msg)
    return MavlinkOutput(uri, port, dialect=dialect, system=int(system), rate_hz=rate_hz)  # type: ignore[arg-type]
