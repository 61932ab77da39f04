"""What the aircraft knows of itself when a frame is taken, and its reader for CSV telemetry."""

import csv
import math
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path

from edge_runtime.errors import InputError
from edge_runtime.geodesy import check_lat_lon

_ALIASES: dict[str, tuple[str, ...]] = {
    "filename": ("filename", "image", "frame"),
    "t_s": ("t_s", "timestamp_s", "timestamp_seconds"),
    "time": ("time_utc", "time_local"),
    "height_m": ("height_m", "height_above_ground_m", "alt_rel_m", "rel_alt_m"),
    "yaw_deg": ("yaw_deg", "heading_deg"),
    "pitch_deg": ("pitch_deg",),
    "roll_deg": ("roll_deg",),
    "gimbal_yaw_deg": ("gimbal_yaw_deg",),
    "gimbal_pitch_deg": ("gimbal_pitch_deg",),
    "gimbal_roll_deg": ("gimbal_roll_deg",),
    "velocity_east_mps": ("velocity_east_mps",),
    "velocity_north_mps": ("velocity_north_mps",),
}
"""Column names understood, the preferred one first."""


@dataclass(frozen=True, kw_only=True)
class VehicleState:
    """Everything known at one exposure. None means not known, never zero."""

    t_s: float
    """Exposure time, seconds on the telemetry's clock."""
    height_m: float | None = None
    """Above the ground below, as measured or given. Where it is known it wins over the next one."""
    height_above_takeoff_m: float | None = None
    """Above the place of take-off, as a barometer says. `with_ground_height` makes of it a height
    above the ground where there is no better one."""
    yaw_deg: float | None = None
    """Heading of the airframe, clockwise from north."""
    pitch_deg: float | None = None
    """Airframe pitch, nose up positive."""
    roll_deg: float | None = None
    """Airframe roll, right side down positive."""
    gimbal_yaw_deg: float | None = None
    """Camera yaw clockwise from north."""
    gimbal_pitch_deg: float | None = None
    """Camera pitch relative to the horizon, -90 straight down."""
    gimbal_roll_deg: float | None = None
    """Camera roll relative to the horizon."""
    velocity_east_mps: float | None = None
    """Ground speed towards east."""
    velocity_north_mps: float | None = None
    """Ground speed towards north."""


def finite_state(state: VehicleState, *, last_t_s: float) -> VehicleState:
    """Take values that are not finite for not known, and such a time for the last one."""
    wrong = [f.name for f in fields(state) if not math.isfinite(getattr(state, f.name) or 0.0)]
    if not wrong:
        return state
    values: dict[str, float | None] = dict.fromkeys(wrong)
    if "t_s" in values:
        values["t_s"] = last_t_s
    return replace(state, **values)  # type: ignore[arg-type]


def with_ground_height(state: VehicleState, *, ground_above_takeoff_m: float = 0.0) -> VehicleState:
    """Fill `height_m` from the height above take-off where nothing measured it.

    The one rule: a measured height above the ground wins; else the height above take-off less
    what the ground below lies higher than the place of take-off.

    Args:
        state: any state.
        ground_above_takeoff_m: by a terrain model (`terrain.TakeoffTerrain`); 0 takes the ground as
            flat, and a value that is not finite says nothing, so it counts as 0.
    """
    if state.height_m is not None or state.height_above_takeoff_m is None:
        return state
    rise_m = ground_above_takeoff_m if math.isfinite(ground_above_takeoff_m) else 0.0
    return replace(state, height_m=state.height_above_takeoff_m - rise_m)


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """States by file name, or in time order when the rows name no files."""

    path: Path
    by_filename: dict[str, VehicleState]
    rows: list[VehicleState]
    timed: bool = True
    """False where the file has no times, and `t_s` counts rows."""
    positions: tuple[tuple[float, float], ...] = ()
    """(lat, lon) where the file has them: to check their order, never to localise."""

    def at(self, filename: str) -> VehicleState:
        """State of one frame.

        Raises:
            InputError: no row for this file.
        """
        state = self.by_filename.get(filename)
        if state is None:
            msg = (
                f"{self.path} has no row for frame {filename}; it has {len(self.by_filename)} rows"
            )
            raise InputError(msg)
        return state


def read_telemetry_csv(path: Path, *, ignore: frozenset[str] = frozenset()) -> Telemetry:
    """Read a CSV with a header: `filename` or `t_s`, and any of the names of `VehicleState`.

    Empty cells and NaN mean not known; the time alone must be there. Gimbal columns that are zero
    in every row mean "not recorded" (as DJI writes them for unsupported gimbals), for a camera
    held at exactly the horizon cannot be used anyway.

    Args:
        path: the file.
        ignore: names of `VehicleState` to leave out even where the file has them.

    Raises:
        InputError: unreadable, columns missing, a row cut short, a value that is not a number, no
            time where there is a column for it, two rows for one frame, a position column whose
            latitude cannot be one, no rows, a name to ignore that there is not.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            raw = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"telemetry {path} cannot be read ({error}); expected a CSV file with a header line"
        raise InputError(msg) from error
    if unknown := sorted(ignore - set(_ALIASES)):
        msg = f"telemetry columns to ignore are {unknown}; known: {sorted(_ALIASES)}"
        raise InputError(msg)
    columns = {
        name: found
        for name, aliases in _ALIASES.items()
        if name not in ignore and (found := next((a for a in aliases if a in header), None))
    }
    if not raw:
        msg = f"telemetry {path} has no rows; expected one row a frame below the header"
        raise InputError(msg)
    if "filename" not in columns and "t_s" not in columns:
        msg = (
            f"telemetry {path} has columns {header}; expected filename or t_s to say which frame "
            "a row is for"
        )
        raise InputError(msg)
    if not {"height_m", "yaw_deg"} & set(columns):
        msg = (
            f"telemetry {path} has columns {header}; expected height_m (above ground) and "
            "yaw_deg, at least one of them"
        )
        raise InputError(msg)
    states: list[VehicleState] = []
    positions: list[tuple[float, float]] = []
    line_of: dict[str, int] = {}
    first_time: datetime | None = None
    for line, row in raw:
        if None in row.values():
            msg = f"telemetry {path} line {line} is cut short; expected {len(header)} cells"
            raise InputError(msg)
        position = _position(path, line, row)
        if position is not None:
            positions.append(position)
        values = {
            name: _number(path, line, column, row[column])
            for name, column in columns.items()
            if name not in ("filename", "time")
        }
        t_s: float | None = float(len(states))
        if "t_s" in columns:
            t_s = values.pop("t_s")
        elif "time" in columns:
            moment = _moment(path, line, row[columns["time"]])
            first_time = first_time or moment
            t_s = _seconds_since(first_time, moment, path, line)
        if t_s is None:
            msg = f"telemetry {path} line {line} has no {columns['t_s']}; expected seconds"
            raise InputError(msg)
        states.append(VehicleState(t_s=t_s, **values))
        if "filename" in columns:
            name = row[columns["filename"]].strip()
            if name in line_of:
                msg = (
                    f"telemetry {path} line {line}: frame {name!r} has line {line_of[name]} "
                    "already; expected one row a frame"
                )
                raise InputError(msg)
            line_of[name] = line
    states = _without_unrecorded_gimbal(states)
    return Telemetry(
        path=path,
        by_filename=dict(zip(line_of, states, strict=False)),
        rows=states,
        timed=bool({"t_s", "time"} & set(columns)),
        positions=tuple(positions),
    )


def _number(path: Path, line: int, column: str, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError as error:
        msg = (
            f"telemetry {path} line {line}: {column} is {text!r}; expected a number or an empty "
            "cell"
        )
        raise InputError(msg) from error
    return value if math.isfinite(value) else None


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


def _seconds_since(first: datetime, moment: datetime, path: Path, line: int) -> float:
    try:
        return (moment - first).total_seconds()
    except TypeError as error:
        msg = (
            f"telemetry {path} line {line}: the time {moment} and the first one {first} do not "
            "both have a time zone; give all times with one, or none"
        )
        raise InputError(msg) from error


def _position(path: Path, line: int, row: dict[str, str]) -> tuple[float, float] | None:
    if "lat_deg" not in row or "lon_deg" not in row:
        return None
    lat = _number(path, line, "lat_deg", row["lat_deg"])
    lon = _number(path, line, "lon_deg", row["lon_deg"])
    if lat is None or lon is None:
        return None
    try:
        check_lat_lon(lat, lon)
    except InputError as error:
        msg = f"telemetry {path} line {line}: {error}"
        raise InputError(msg) from error
    return lat, lon


def _without_unrecorded_gimbal(states: list[VehicleState]) -> list[VehicleState]:
    angles = [
        angle
        for state in states
        for angle in (state.gimbal_yaw_deg, state.gimbal_pitch_deg, state.gimbal_roll_deg)
    ]
    if any(angle not in (0.0, None) for angle in angles):
        return states
    return [
        replace(state, gimbal_yaw_deg=None, gimbal_pitch_deg=None, gimbal_roll_deg=None)
        for state in states
    ]
