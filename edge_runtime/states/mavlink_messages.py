"""What MAVLink messages and ArduPilot's log records say of a vehicle's state.

Field meanings: MAVLink common message set (mavlink.io/en/messages/common.html) and ArduPilot's log
messages (ardupilot.org/copter/docs/logmessages.html).
"""

import math
from collections.abc import Callable
from typing import Protocol

from edge_runtime.state import VehicleState
from edge_runtime.states.angles import euler_deg
from edge_runtime.states.sample import Sample

_DOWN = 25
"""MAV_SENSOR_ROTATION_PITCH_270."""
_YAW_IN_VEHICLE_FRAME, _YAW_IN_EARTH_FRAME, _YAW_LOCK = 32, 64, 16
"""GIMBAL_DEVICE_FLAGS."""
_SUPERSEDED_S = 3.0
"""A poorer source of a value is used when the better one was silent for this long."""
_ATTITUDE_HOLDS_S = 0.5
_INVALID_QUALITY = 1
_MAX_TILT_DEG = 45.0
"""Beyond this a beam along the airframe says little of the height."""


class Message(Protocol):
    """A decoded message: its fields are attributes."""

    def get_type(self) -> str:
        """Name of the message."""
        ...


Said = tuple[dict[str, float | None], tuple[float, float] | None]


class MessageReader:
    """Turns messages into samples. Remembers the attitude, which others are measured against."""

    def __init__(self) -> None:
        self._attitude: tuple[float, float, float] | None = None
        self._attitude_s = -math.inf
        self._heard_s: dict[str, float] = {}
        self._readers: dict[str, Callable[[Message, float], Said]] = {
            "ATTITUDE": self._attitude_message,
            "ATTITUDE_QUATERNION": self._attitude_quaternion,
            "GLOBAL_POSITION_INT": self._global_position,
            "LOCAL_POSITION_NED": self._local_position,
            "ALTITUDE": self._altitude,
            "VFR_HUD": self._hud,
            "DISTANCE_SENSOR": self._distance_sensor,
            "MOUNT_ORIENTATION": self._mount_orientation,
            "GIMBAL_DEVICE_ATTITUDE_STATUS": self._gimbal_device,
            "ATT": self._log_attitude,
            "POS": self._log_position,
            "RFND": self._log_rangefinder,
            "XKF1": self._log_filter,
        }

    @property
    def types(self) -> frozenset[str]:
        """Messages that say something of use."""
        return frozenset(self._readers)

    def read(self, message: Message, t_s: float) -> Sample | None:
        """What a message says; None for nothing of use."""
        reader = self._readers.get(message.get_type())
        if reader is None:
            return None
        values, position = reader(message, t_s)
        if not values and position is None:
            return None
        return Sample(state=VehicleState(t_s=t_s, **values), position=position)

    def forget(self) -> None:
        """Forget what was heard, as after a reboot."""
        self._attitude, self._attitude_s = None, -math.inf
        self._heard_s.clear()

    def _attitude_message(self, m: Message, t_s: float) -> Said:
        yaw, pitch, roll = (math.degrees(_value(m, n)) for n in ("yaw", "pitch", "roll"))
        return self._attitude_of(yaw, pitch, roll, t_s)

    def _attitude_quaternion(self, m: Message, t_s: float) -> Said:
        w, x, y, z = (_value(m, n) for n in ("q1", "q2", "q3", "q4"))
        if not 0.9 < w * w + x * x + y * y + z * z < 1.1:
            return {}, None
        return self._attitude_of(*euler_deg((w, x, y, z)), t_s)

    def _attitude_of(self, yaw: float, pitch: float, roll: float, t_s: float) -> Said:
        if all(map(math.isfinite, (yaw, pitch, roll))):
            self._attitude, self._attitude_s = (yaw, pitch, roll), t_s
        self._heard_s["yaw"] = t_s
        return {"yaw_deg": yaw, "pitch_deg": pitch, "roll_deg": roll}, None

    def _global_position(self, m: Message, t_s: float) -> Said:
        self._heard_s["takeoff"] = self._heard_s["velocity"] = t_s
        values: dict[str, float | None] = {
            "height_above_takeoff_m": _value(m, "relative_alt") / 1e3,
            "velocity_north_mps": _value(m, "vx") / 1e2,
            "velocity_east_mps": _value(m, "vy") / 1e2,
        }
        return values, (_value(m, "lat") / 1e7, _value(m, "lon") / 1e7)

    def _local_position(self, m: Message, t_s: float) -> Said:
        values: dict[str, float | None] = {}
        if self._silent("velocity", t_s):
            values = {
                "velocity_north_mps": _value(m, "vx"),
                "velocity_east_mps": _value(m, "vy"),
            }
        if self._silent("takeoff", t_s):
            # Its origin is where the filter began, which is the place of take-off as a rule.
            values["height_above_takeoff_m"] = -_value(m, "z")
        return values, None

    def _altitude(self, m: Message, t_s: float) -> Said:
        values: dict[str, float | None] = {}
        if self._silent("takeoff", t_s):
            values["height_above_takeoff_m"] = _value(m, "altitude_relative")
        clearance = _value(m, "bottom_clearance")
        if self._silent("beam", t_s) and clearance > 0:
            values["height_m"] = clearance
        return values, None

    def _hud(self, m: Message, t_s: float) -> Said:
        heading = _value(m, "heading")
        known = self._silent("yaw", t_s) and 0 <= heading <= 360
        return ({"yaw_deg": heading} if known else {}), None

    def _distance_sensor(self, m: Message, t_s: float) -> Said:
        if _value(m, "orientation") != _DOWN or _value(m, "signal_quality") == _INVALID_QUALITY:
            return {}, None
        distance, low, high = (
            _value(m, n) / 1e2 for n in ("current_distance", "min_distance", "max_distance")
        )
        return self._beam(distance, t_s) if low < distance < high else ({}, None)

    def _beam(self, distance_m: float, t_s: float) -> Said:
        """Height above the ground from the length of a beam along the airframe's down axis."""
        if self._attitude is None or t_s - self._attitude_s > _ATTITUDE_HOLDS_S:
            return {}, None
        _, pitch, roll = self._attitude
        upright = math.cos(math.radians(pitch)) * math.cos(math.radians(roll))
        if upright < math.cos(math.radians(_MAX_TILT_DEG)):
            return {}, None
        self._heard_s["beam"] = t_s
        return {"height_m": distance_m * upright}, None

    def _mount_orientation(self, m: Message, t_s: float) -> Said:
        yaw = _value(m, "yaw_absolute")
        return _gimbal(
            yaw if math.isfinite(yaw) else None, _value(m, "pitch"), _value(m, "roll")
        ), None

    def _gimbal_device(self, m: Message, t_s: float) -> Said:
        w, x, y, z = (float(v) for v in m.q)  # type: ignore[attr-defined]
        flags = int(_value(m, "flags"))
        if not 0.9 < w * w + x * x + y * y + z * z < 1.1:
            return {}, None
        yaw, pitch, roll = euler_deg((w, x, y, z))
        in_earth_frame = bool(flags & _YAW_IN_EARTH_FRAME) or (
            not flags & _YAW_IN_VEHICLE_FRAME and bool(flags & _YAW_LOCK)
        )
        if in_earth_frame:
            return _gimbal(yaw, pitch, roll), None
        heading = (
            self._attitude[0]
            if t_s - self._attitude_s <= _ATTITUDE_HOLDS_S and self._attitude
            else None
        )
        return _gimbal(None if heading is None else heading + yaw, pitch, roll), None

    def _log_attitude(self, m: Message, t_s: float) -> Said:
        return self._attitude_of(_value(m, "Yaw"), _value(m, "Pitch"), _value(m, "Roll"), t_s)

    def _log_position(self, m: Message, t_s: float) -> Said:
        self._heard_s["takeoff"] = t_s
        return {"height_above_takeoff_m": _value(m, "RelHomeAlt")}, (
            _value(m, "Lat"),
            _value(m, "Lng"),
        )

    def _log_rangefinder(self, m: Message, t_s: float) -> Said:
        good = _value(m, "Orient") == _DOWN and _value(m, "Stat") == 4
        return self._beam(_value(m, "Dist"), t_s) if good else ({}, None)

    def _log_filter(self, m: Message, t_s: float) -> Said:
        if _value(m, "C") != 0:
            return {}, None
        return {
            "velocity_north_mps": _value(m, "VN"),
            "velocity_east_mps": _value(m, "VE"),
        }, None

    def _silent(self, what: str, t_s: float) -> bool:
        return t_s - self._heard_s.get(what, -math.inf) > _SUPERSEDED_S


def _gimbal(yaw: float | None, pitch: float, roll: float) -> dict[str, float | None]:
    return {"gimbal_yaw_deg": yaw, "gimbal_pitch_deg": pitch, "gimbal_roll_deg": roll}


def _value(message: Message, name: str) -> float:
    """A field as a number; NaN where this version of the message lacks it."""
    return float(getattr(message, name, math.nan))
