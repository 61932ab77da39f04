"""What was said over time, made fit to use: wrong values left out, gaps known, values in between.

Every source of states fills one and asks it. Positions never leave it but as a heading and a
velocity, and these only when asked for.
"""

import math
from collections.abc import Mapping
from typing import Literal, get_args

from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m
from edge_runtime.state import VehicleState
from edge_runtime.states.angles import angle_between_deg, attitude_between_deg
from edge_runtime.states.channel import Channel, Values, farthest, linear
from edge_runtime.states.occurrences import Occurrences
from edge_runtime.states.sample import FIELDS, GROUPS, Sample
from edge_runtime.states.track_heading import Track

HeadingFrom = Literal["telemetry", "track", "track-held"]
"""telemetry: as recorded. track: heading and velocity from the positions while it moves.
track-held: the same, and at rest the last heading."""

LIMITS: dict[str, tuple[float, float]] = {
    "height_m": (-100.0, 20_000.0),
    "height_above_takeoff_m": (-1_000.0, 20_000.0),
    "pitch_deg": (-180.0, 180.0),
    "roll_deg": (-360.0, 360.0),
    "yaw_deg": (-360.0, 720.0),
    "gimbal_pitch_deg": (-180.0, 180.0),
    "gimbal_roll_deg": (-360.0, 360.0),
    "gimbal_yaw_deg": (-720.0, 720.0),
    "velocity_east_mps": (-150.0, 150.0),
    "velocity_north_mps": (-150.0, 150.0),
}
"""Outside of these no drone is."""
_CLIMB_MPS = 30.0
_HEIGHT_SLACK_M = 10.0
"""A rangefinder sees trees and roofs come and go."""
_ACCELERATION_MPS2 = 40.0
_VELOCITY_SLACK_MPS = 10.0
_SPEED_MPS = 150.0
_POSITION_SLACK_M = 50.0

_UNITS = {
    "height": "m",
    "takeoff": "m",
    "velocity": "m/s",
    "attitude": "deg",
    "gimbal": "deg",
    "position": "deg",
}
_WORDS = {
    "height": "height above ground",
    "takeoff": "height above take-off",
    "attitude": "attitude",
    "gimbal": "gimbal",
    "velocity": "velocity",
    "position": "position",
}


class Timeline:
    """Samples in, states out. Not thread-safe: the owner locks."""

    def __init__(
        self,
        said: Occurrences,
        *,
        max_gap_s: float = 1.0,
        ignore: frozenset[str] = frozenset(),
        heading: HeadingFrom = "telemetry",
        keep: int | None = None,
    ) -> None:
        """Nothing known yet.

        Args:
            said: where events go.
            max_gap_s: farthest a sample holds.
            ignore: fields of VehicleState to leave out.
            heading: see HeadingFrom.
            keep: samples remembered at least; None for all.

        Raises:
            InputError: a gap that is no time, a field or a heading that there is not.
        """
        check_options(max_gap_s=max_gap_s, ignore=ignore, heading=heading)
        self._said, self._max_gap_s, self._heading = said, max_gap_s, heading
        # A height from take-off is a height too: who ignores heights wants neither.
        self._ignore = ignore | (
            {"height_above_takeoff_m"} if "height_m" in ignore else frozenset[str]()
        )
        self._channels = {
            "height": _height_channel(keep),
            "takeoff": _height_channel(keep),
            "attitude": Channel(_attitude_between, keep=keep),
            "gimbal": Channel(_attitude_between, keep=keep),
            "velocity": Channel(
                linear,
                keep=keep,
                distance=farthest,
                per_second=_ACCELERATION_MPS2,
                slack=_VELOCITY_SLACK_MPS,
            ),
        }
        self._positions = Channel(
            linear,
            keep=keep,
            distance=_apart_m,
            per_second=_SPEED_MPS,
            slack=_POSITION_SLACK_M,
        )
        self._track = Track(keep=keep)
        self._held_heading_deg: float | None = None
        self._last_s = -math.inf

    @property
    def last_s(self) -> float:
        """Time of the newest sample; minus infinity before there is one."""
        return self._last_s

    def clear(self) -> None:
        """Forget every sample, as after a clock was set."""
        for channel in self._channels.values():
            channel.clear()
        self._positions.clear()
        self._track.clear()
        self._last_s = -math.inf

    def knows(self, field: str) -> bool:
        """Whether any believed sample says something about this field's group."""
        group = next(name for name, names in GROUPS.items() if field in names)
        return self._channels[group].span_s is not None

    def add(self, sample: Sample) -> None:
        """Take a sample that is not older than the last one. Wrong values are left out and said."""
        t_s = sample.state.t_s
        self._last_s = max(self._last_s, t_s)
        for group, names in GROUPS.items():
            values = tuple(
                None if name in self._ignore else self._usable(name, sample.state, t_s)
                for name in names
            )
            if any(value is not None for value in values):
                self._hear(group, self._channels[group], t_s, values)
        if sample.position is not None:
            self._add_position(t_s, *sample.position)

    def state_at(self, t_s: float, *, stamp_s: float | None = None) -> VehicleState:
        """The state at a time of this timeline, stamped with another clock's time if given."""
        known: dict[str, float | None] = {}
        for group, names in GROUPS.items():
            values = self._channels[group].at(t_s, self._max_gap_s)
            self._mind_gap(group, t_s, missing=values is None)
            if values is not None:
                known.update(zip(names, values, strict=True))
        if self._heading != "telemetry":
            known |= self._from_track(t_s)
        return VehicleState(t_s=t_s if stamp_s is None else stamp_s, **known)

    def _usable(self, name: str, state: VehicleState, t_s: float) -> float | None:
        value: float | None = getattr(state, name)
        if value is None:
            return None
        low, high = LIMITS[name]
        if math.isfinite(value) and low <= value <= high:
            self._said.ended(name)
            return value
        self._said.began(
            name, f"telemetry: {name} is {value} at {t_s:.2f} s, which no drone has; not used"
        )
        return None

    def _hear(self, group: str, channel: Channel, t_s: float, values: Values) -> None:
        before = channel.last()
        outcome = channel.add(t_s, values)
        kind, word, unit = f"jump of {group}", _WORDS[group], _UNITS[group]
        if outcome == "jump":
            self._said.began(
                kind,
                f"telemetry: {word} jumps from {_shown(before)} to {_shown(values)} {unit} at "
                f"{t_s:.2f} s; not believed until the next samples confirm it",
            )
        elif outcome == "confirmed":
            self._said.ended(kind, f"telemetry: {word} {_shown(values)} {unit} is confirmed")
        elif outcome == "back":
            self._said.ended(kind, f"telemetry: {word} is back at {_shown(values)} {unit}")

    def _add_position(self, t_s: float, lat_deg: float, lon_deg: float) -> None:
        if not (math.isfinite(lat_deg) and math.isfinite(lon_deg)):
            return
        if (abs(lat_deg) < 1e-6 and abs(lon_deg) < 1e-6) or abs(lat_deg) > 90 or abs(lon_deg) > 180:
            self._said.began(
                "no position",
                f"telemetry: the position is {lat_deg}, {lon_deg} at {t_s:.2f} s, which means that "
                "there is none; not used",
            )
            return
        self._said.ended("no position", "telemetry: there are positions again")
        self._hear("position", self._positions, t_s, (lat_deg, lon_deg))
        if self._positions.last() == (lat_deg, lon_deg):
            self._track.add(t_s, lat_deg, lon_deg)

    def _from_track(self, t_s: float) -> Mapping[str, float | None]:
        velocity = self._track.velocity(t_s)
        heading = None if velocity is None else velocity.heading_deg
        if heading is not None:
            self._held_heading_deg = heading
        elif self._heading == "track-held":
            heading = self._held_heading_deg
        found = {
            "yaw_deg": heading,
            "velocity_east_mps": None if velocity is None else velocity.east_mps,
            "velocity_north_mps": None if velocity is None else velocity.north_mps,
        }
        return {name: value for name, value in found.items() if name not in self._ignore}

    def _mind_gap(self, group: str, t_s: float, *, missing: bool) -> None:
        if self._channels[group].span_s is None:
            return
        kind, word = f"gap of {group}", _WORDS[group]
        if missing:
            self._said.began(
                kind,
                f"telemetry: no {word} within {self._max_gap_s:g} s of {t_s:.2f} s; taken as "
                "unknown",
            )
        else:
            self._said.ended(kind, f"telemetry: {word} is known again at {t_s:.2f} s")


def check_options(*, max_gap_s: float, ignore: frozenset[str], heading: str) -> None:
    """Refuse what no timeline can do.

    Raises:
        InputError: a gap that is no time, a field or a heading that there is not.
    """
    if not 0 < max_gap_s < math.inf:
        msg = f"the largest gap is {max_gap_s} s; give a positive number to --max-gap-s"
        raise InputError(msg)
    if unknown := sorted(ignore - set(FIELDS)):
        msg = f"telemetry fields to ignore are {unknown}; known: {sorted(FIELDS)}"
        raise InputError(msg)
    if heading not in get_args(HeadingFrom):
        msg = f"heading is {heading!r}; expected one of {', '.join(get_args(HeadingFrom))}"
        raise InputError(msg)


def _height_channel(keep: int | None) -> Channel:
    return Channel(
        linear, keep=keep, distance=farthest, per_second=_CLIMB_MPS, slack=_HEIGHT_SLACK_M
    )


def _attitude_between(a: Values, b: Values, share: float) -> Values:
    if None in a or None in b:
        return tuple(
            (y if x is None else x) if x is None or y is None else angle_between_deg(x, y, share)
            for x, y in zip(a, b, strict=True)
        )
    first, second = tuple(v or 0.0 for v in a), tuple(v or 0.0 for v in b)
    return attitude_between_deg(
        (first[0], first[1], first[2]), (second[0], second[1], second[2]), share
    )


def _apart_m(a: Values, b: Values) -> float:
    return float(distance_m(*(v or 0.0 for v in a), *(v or 0.0 for v in b)))


def _shown(values: Values | None) -> str:
    return ", ".join("none" if v is None else f"{v:.6g}" for v in values or ())
