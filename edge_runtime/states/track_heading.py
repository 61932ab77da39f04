"""Heading and velocity from a track of positions, for logs that carry neither."""

import math
from typing import NamedTuple

from edge_runtime.geodesy import enu_offset_m
from edge_runtime.states.angles import angle_between_deg
from edge_runtime.states.channel import Channel, Values

MOVING_MPS = 2.0
"""Below this a track gives no heading: GNSS noise turns it at will."""
COARSEST_M = 2.0
"""Positions written in coarser steps than this give no velocity over a window this short."""
_WINDOW_S = 1.0
"""To either side. Long enough for 0.1 m steps to matter little, short enough for a turn."""
_GAP_S = 2.5
"""Positions farther apart than this say nothing of what is between."""
_REPEATED_S = 1.0
"""A position repeated for less than this is a slow receiver, for longer a drone at rest."""


class TrackVelocity(NamedTuple):
    """Velocity over the ground, and its direction where there is one."""

    east_mps: float
    north_mps: float
    heading_deg: float | None
    """Clockwise from north; None below MOVING_MPS."""


class Track:
    """Positions in time order. Repeats of the last fix are left out."""

    def __init__(self, *, keep: int | None = None) -> None:
        """No position yet.

        Args:
            keep: positions remembered at least; None for all.
        """
        self._fixes = Channel(_position_between, keep=keep)
        self._repeated_since_s: float | None = None

    def clear(self) -> None:
        """Forget everything."""
        self._fixes.clear()
        self._repeated_since_s = None

    def add(self, t_s: float, lat_deg: float, lon_deg: float) -> None:
        """Take a position that is not older than the last one."""
        if (lat_deg, lon_deg) != self._fixes.last():
            self._repeated_since_s = None
        elif self._repeated_since_s is None:
            self._repeated_since_s = t_s
            return
        elif t_s - self._repeated_since_s < _REPEATED_S:
            return
        self._fixes.add(t_s, (lat_deg, lon_deg))

    def velocity(self, t_s: float) -> TrackVelocity | None:
        """Velocity around a time; None where there are no positions around it."""
        span = self._fixes.span_s
        if span is None or not span[0] - _WINDOW_S <= t_s <= span[1] + _WINDOW_S:
            return None
        end = min(t_s + _WINDOW_S, span[1])
        start = max(min(t_s, end) - _WINDOW_S, span[0])
        if end - start < _WINDOW_S / 2:
            end = min(start + _WINDOW_S, span[1])
        a, b = self._fixes.at(start, _GAP_S), self._fixes.at(end, _GAP_S)
        if a is None or b is None or end - start < _WINDOW_S / 2:
            return None
        moved = enu_offset_m(*(v or 0.0 for v in a), *(v or 0.0 for v in b))
        east, north = float(moved.east_m) / (end - start), float(moved.north_m) / (end - start)
        moving = math.hypot(east, north) >= MOVING_MPS
        heading = math.degrees(math.atan2(east, north)) % 360.0 if moving else None
        return TrackVelocity(east, north, heading)


def _position_between(a: Values, b: Values, share: float) -> Values:
    """Across the antimeridian too."""
    (lat0, lon0), (lat1, lon1) = ((v[0] or 0.0, v[1] or 0.0) for v in (a, b))
    return lat0 + share * (lat1 - lat0), angle_between_deg(lon0, lon1, share)
