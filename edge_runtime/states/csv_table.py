"""Telemetry as a table: our own column names, and those of logs that say their units.

Understood besides ours: AirData exports of DJI logs (units in the names, feet or metres) and the
photo tables of wildnav. Columns whose meaning no source settles are not used: a lone `Altitude` or
`height` may be above the sea, and what UAV-VisLoc's Omega, Kappa and Phi turn about is not said.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from edge_runtime.errors import InputError
from edge_runtime.state import VehicleState
from edge_runtime.states.recording import Recording
from edge_runtime.states.sample import FIELDS, Sample

_FOOT_M = 0.3048
_MILE_PER_HOUR_MPS = 0.44704

COLUMNS: dict[str, tuple[tuple[str, float], ...]] = {
    "filename": (("filename", 1), ("image", 1), ("frame", 1)),
    "t_s": (
        ("t_s", 1),
        ("timestamp_s", 1),
        ("timestamp_seconds", 1),
        ("time(millisecond)", 1e-3),
    ),
    "time": (("time_utc", 1), ("time_local", 1), ("datetime(utc)", 1)),
    "height_m": (
        ("height_m", 1),
        ("height_above_ground_m", 1),
        ("height_above_ground_at_drone_location(meters)", 1),
        ("height_above_ground_at_drone_location(feet)", _FOOT_M),
    ),
    "height_above_takeoff_m": (
        ("height_above_takeoff_m", 1),
        ("alt_rel_m", 1),
        ("rel_alt_m", 1),
        ("height_above_takeoff(meters)", 1),
        ("height_above_takeoff(feet)", _FOOT_M),
    ),
    "yaw_deg": (
        ("yaw_deg", 1),
        ("heading_deg", 1),
        ("compass_heading(degrees)", 1),
        ("flight_yaw", 1),
    ),
    "pitch_deg": (("pitch_deg", 1), ("pitch(degrees)", 1), ("flight_pitch", 1)),
    "roll_deg": (("roll_deg", 1), ("roll(degrees)", 1), ("flight_roll", 1)),
    "gimbal_yaw_deg": (("gimbal_yaw_deg", 1), ("gimbal_heading(degrees)", 1), ("gimball_yaw", 1)),
    "gimbal_pitch_deg": (
        ("gimbal_pitch_deg", 1),
        ("gimbal_pitch(degrees)", 1),
        ("gimball_pitch", 1),
    ),
    "gimbal_roll_deg": (
        ("gimbal_roll_deg", 1),
        ("gimbal_roll(degrees)", 1),
        ("gimball_roll", 1),
    ),
    "velocity_east_mps": (
        ("velocity_east_mps", 1),
        ("yspeed(m/s)", 1),
        ("yspeed(mph)", _MILE_PER_HOUR_MPS),
    ),
    "velocity_north_mps": (
        ("velocity_north_mps", 1),
        ("xspeed(m/s)", 1),
        ("xspeed(mph)", _MILE_PER_HOUR_MPS),
    ),
    "lat_deg": (("lat_deg", 1), ("latitude", 1), ("lat", 1), ("drone_lat", 1)),
    "lon_deg": (("lon_deg", 1), ("longitude", 1), ("lon", 1), ("drone_lon", 1)),
}
"""Names understood, in small letters and with what makes SI of them; the preferred one first."""


@dataclass(frozen=True, kw_only=True)
class _Column:
    header: str
    factor: float


def read_csv(path: Path, *, ignore: frozenset[str] = frozenset()) -> Recording:
    """Read a CSV with a header line.

    Empty cells, NaN and infinity mean not known; only the time must be there. Gimbal columns that
    are zero in every row mean "not recorded", for a camera held at exactly the horizon cannot be
    used anyway.

    Args:
        path: the file.
        ignore: fields of VehicleState whose columns are not even read.

    Raises:
        InputError: unreadable, nothing that says which frame or time a row is for, a row cut
            short, a value that is not a number, a row without its time, two rows for one frame,
            no rows, or no column of use.
    """
    header, rows = _table(path)
    columns = {
        name: _Column(header=header[small], factor=factor)
        for name, aliases in COLUMNS.items()
        if name not in ignore
        for small, factor in [next(((a, f) for a, f in aliases if a in header), ("", 0.0))]
        if small
    }
    names = list(header.values())
    if not {"filename", "t_s", "time"} & set(columns):
        msg = (
            f"telemetry {path} has columns {names}; expected filename or t_s to say which frame "
            "a row is for"
        )
        raise InputError(msg)
    if not set(columns) & {*FIELDS, "lat_deg"}:
        msg = (
            f"telemetry {path} has columns {names}; expected height_m (above ground), "
            "height_above_takeoff_m or yaw_deg, at least one of them"
        )
        raise InputError(msg)
    samples: list[Sample] = []
    line_of: dict[str, int] = {}
    first_time: datetime | None = None
    for line, row in rows:
        if None in row.values():
            msg = f"telemetry {path} line {line} is cut short; expected {len(header)} cells"
            raise InputError(msg)
        moment: datetime | None = None
        if "time" in columns:
            moment = _moment(path, line, row[columns["time"].header])
            first_time = first_time or moment
        samples.append(
            Sample(
                state=_state(
                    path,
                    line,
                    row,
                    columns,
                    _time_s(path, line, row, columns, moment, first_time, len(samples)),
                ),
                position=_position(path, line, row, columns),
                name=_name(path, line, row, columns, line_of),
            )
        )
    _check_order(path, samples)
    return Recording(
        path=path,
        samples=tuple(_without_unrecorded_gimbal(samples)),
        timed=bool({"t_s", "time"} & set(columns)),
        starts_unix_s=_starts_unix_s(first_time, samples[0].state.t_s),
    )


def _check_order(path: Path, samples: list[Sample]) -> None:
    """Refuse positions that are exchanged throughout; single wrong ones are left out later."""
    positions = [s.position for s in samples if s.position is not None]
    beyond = [lat for lat, _ in positions if 90 < abs(lat) <= 180]
    if 2 * len(beyond) > len(positions):
        msg = (
            f"telemetry {path} has latitudes beyond 90 degrees, as {beyond[0]}; is the order "
            "(lat, lon)?"
        )
        raise InputError(msg)


def _table(path: Path) -> tuple[dict[str, str], list[tuple[int, dict[str, str]]]]:
    """Header as small letters to its spelling, and the rows with their lines."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            names = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = names
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"telemetry {path} cannot be read ({error}); expected a CSV file with a header line"
        raise InputError(msg) from error
    if not rows:
        msg = f"telemetry {path} has no rows; expected one row a frame below the header"
        raise InputError(msg)
    return {name.lower(): name for name in names}, rows


def _state(
    path: Path,
    line: int,
    row: Mapping[str, str],
    columns: Mapping[str, _Column],
    t_s: float,
) -> VehicleState:
    values: dict[str, float | None] = {
        name: _number(path, line, columns[name], row) for name in FIELDS if name in columns
    }
    return VehicleState(t_s=t_s, **values)


def _time_s(
    path: Path,
    line: int,
    row: Mapping[str, str],
    columns: Mapping[str, _Column],
    moment: datetime | None,
    first: datetime | None,
    number: int,
) -> float:
    if "t_s" in columns:
        t_s = _number(path, line, columns["t_s"], row)
        if t_s is None:
            msg = f"telemetry {path} line {line} has no {columns['t_s'].header}; expected seconds"
            raise InputError(msg)
        return t_s
    if moment is None or first is None:
        return float(number)
    try:
        return (moment - first).total_seconds()
    except TypeError as error:
        msg = (
            f"telemetry {path} line {line}: the time {moment} and the first one {first} do not "
            "both have a time zone; give all times with one, or none"
        )
        raise InputError(msg) from error


def _number(path: Path, line: int, column: _Column, row: Mapping[str, str]) -> float | None:
    text = row[column.header]
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError as error:
        msg = (
            f"telemetry {path} line {line}: {column.header} is {text!r}; expected a number or an "
            "empty cell"
        )
        raise InputError(msg) from error
    return value * column.factor if math.isfinite(value) else None


def _moment(path: Path, line: int, text: str) -> datetime:
    try:
        # Python 3.10 reads no Z.
        return datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as error:
        msg = (
            f"telemetry {path} line {line}: time is {text!r}; expected ISO 8601, as "
            "2024-10-30T10:05:15"
        )
        raise InputError(msg) from error


def _name(
    path: Path,
    line: int,
    row: Mapping[str, str],
    columns: Mapping[str, _Column],
    line_of: dict[str, int],
) -> str:
    if "filename" not in columns:
        return ""
    name = row[columns["filename"].header].strip()
    if name and line_of.setdefault(name, line) != line:
        msg = (
            f"telemetry {path} line {line}: frame {name!r} has line {line_of[name]} already; "
            "expected one row a frame"
        )
        raise InputError(msg)
    return name


def _position(
    path: Path, line: int, row: Mapping[str, str], columns: Mapping[str, _Column]
) -> tuple[float, float] | None:
    if "lat_deg" not in columns or "lon_deg" not in columns:
        return None
    lat = _number(path, line, columns["lat_deg"], row)
    lon = _number(path, line, columns["lon_deg"], row)
    return None if lat is None or lon is None else (lat, lon)


def _starts_unix_s(first: datetime | None, first_t_s: float) -> float | None:
    """The date at which t_s is 0; a date without a zone is taken as UTC."""
    if first is None:
        return None
    aware = first if first.tzinfo is not None else first.replace(tzinfo=timezone.utc)
    return aware.timestamp() - first_t_s


def _without_unrecorded_gimbal(samples: list[Sample]) -> list[Sample]:
    names = ("gimbal_yaw_deg", "gimbal_pitch_deg", "gimbal_roll_deg")
    if any(getattr(s.state, name) not in (0.0, None) for s in samples for name in names):
        return samples
    return [
        replace(
            s,
            state=replace(
                s.state, gimbal_yaw_deg=None, gimbal_pitch_deg=None, gimbal_roll_deg=None
            ),
        )
        for s in samples
    ]
