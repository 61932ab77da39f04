"""What outputs may say of a fix: a position only where it is to be used, a date only if known."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from edge_runtime.fix import Fix

_UNIX_FROM_S = 1e9
"""September 2001. Clocks that count from the start of a flight or a computer stay below."""
_UNIX_TO_S = 1e11
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Position(NamedTuple):
    """Where the aircraft is, by a fix that is OK."""

    lat_deg: float
    lon_deg: float
    eph_m: float
    """1-sigma per axis."""


def position_of(fix: Fix) -> Position | None:
    """The position of a fix that is OK; None for every other status."""
    if fix.status != "OK" or fix.lat_deg is None or fix.lon_deg is None or fix.eph_m is None:
        return None
    return Position(fix.lat_deg, fix.lon_deg, fix.eph_m)


def without_doubtful_position(fix: Fix) -> Fix:
    """The same record, with no position unless it is OK."""
    if position_of(fix) is not None:
        return fix
    return replace(
        fix, lat_deg=None, lon_deg=None, eph_m=None, look_lat_deg=None, look_lon_deg=None
    )


def utc_of(fix: Fix) -> datetime | None:
    """When the frame was exposed, if its clock counts from 1970; None for other clocks."""
    if not _UNIX_FROM_S <= fix.t_exposure_s < _UNIX_TO_S:
        return None
    return _EPOCH + timedelta(seconds=fix.t_exposure_s)


def iso_utc_of(fix: Fix) -> str | None:
    """`utc_of` as 2026-05-01T09:30:00.125Z."""
    moment = utc_of(fix)
    if moment is None:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
