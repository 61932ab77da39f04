"""A flight's log beside its truth: how far off each frame was.

Every frame of the truth is an attempt. An answer counts only with status OK: abstentions, dead
reckoning, lost frames and frames missing from the log are no answer, and neither is a position
that is not finite.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_runtime import flight_log
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.geodesy import check_lat_lon, distance_m

Score = Literal["drone", "look"]
"""drone: the position of the drone. look: where its optical axis meets the ground."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Where one frame was really taken."""

    frame: str
    """File name."""
    lat_deg: float
    lon_deg: float
    t_s: float | None = None
    height_m: float | None = None
    yaw_deg: float | None = None
    look_lat_deg: float | None = None
    look_lon_deg: float | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One frame of the truth and what the log says about it."""

    truth: Truth
    fix: Fix | None
    """None when the log has no record of the frame."""
    error_m: float | None
    """Distance of the record's position from the truth, whatever its status; None without one."""

    @property
    def answered(self) -> bool:
        """Whether there is a position with status OK."""
        return self.fix is not None and self.fix.status == "OK" and self.error_m is not None

    @property
    def ok_error_m(self) -> float:
        """The error of an answer; infinite when there is none."""
        return self.error_m if self.answered and self.error_m is not None else math.inf

    @property
    def t_s(self) -> float | None:
        """When the frame was exposed, seconds."""
        return self.truth.t_s if self.fix is None else self.fix.t_exposure_s


@dataclass(frozen=True, kw_only=True)
class Flight:
    """One log, scored."""

    name: str
    log: Path
    truth: Path
    attempts: tuple[Attempt, ...]
    """In the order of time."""
    untrue_frames: int
    """Frames of the log that the truth does not name; left out of every number."""

    @property
    def fixes(self) -> list[Fix]:
        """The records that were scored."""
        return [a.fix for a in self.attempts if a.fix is not None]


def read_log(path: Path) -> list[Fix]:
    """Read a log: one fix record per line.

    Raises:
        InputError: unreadable, empty, a line is not a fix record or holds no position on Earth.
    """
    fixes = []
    for number, fix in enumerate(flight_log.read_log(path), start=1):
        for lat, lon in ((fix.lat_deg, fix.lon_deg), (fix.look_lat_deg, fix.look_lon_deg)):
            # A literal NaN is no position, and so no success.
            if lat is not None and lon is not None and math.isfinite(lat + lon):
                try:
                    check_lat_lon(lat, lon)
                except InputError as error:
                    msg = f"log {path} line {number}: {error}"
                    raise InputError(msg) from error
        fixes.append(fix)
    if not fixes:
        msg = f"log {path} is empty; expected one fix record per line, as skyfix run writes them"
        raise InputError(msg)
    return fixes


def read_truth(path: Path) -> dict[str, Truth]:
    """Read a truth table (CSV): `filename`, `lat_deg`, `lon_deg` and what else it has.

    Raises:
        InputError: unreadable, a column is missing, a value is not a number or not on Earth, or a
            frame appears twice.
    """
    try:
        with path.open(newline="") as stream:
            reader = csv.DictReader(stream)
            columns, records = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"truth {path} cannot be read ({error}); expected CSV with filename, lat_deg, lon_deg"
        raise InputError(msg) from error
    lacking = [name for name in ("filename", "lat_deg", "lon_deg") if name not in columns]
    if lacking:
        msg = (
            f"truth {path} has no column {', '.join(lacking)}; it has {', '.join(columns)}. "
            "Expected filename, lat_deg, lon_deg (degrees)"
        )
        raise InputError(msg)
    truths: dict[str, Truth] = {}
    for number, record in enumerate(records, start=2):
        try:
            truth = _truth_from(record)
        except ValueError as error:
            msg = f"truth {path} line {number}: {error}"
            raise InputError(msg) from error
        if truth.frame in truths:
            msg = f"truth {path} line {number}: frame {truth.frame} appears twice; keep one line"
            raise InputError(msg)
        truths[truth.frame] = truth
    return truths


def score_flight(
    log: Path, truth: Path, *, score: Score = "drone", logged_only: bool = False, name: str = ""
) -> Flight:
    """Match a log with its truth and measure every frame's error.

    Args:
        log: a .jsonl of fix records.
        truth: its truth table.
        score: compare drone positions or look points.
        logged_only: leave out frames of the truth that the log does not have, for logs made from
            every n-th frame.
        name: of the flight; the log's file name by default.

    Raises:
        InputError: either cannot be read, they have no frame in common, a frame is logged twice,
            or the truth has no look points and they are asked for.
    """
    fixes, truths = read_log(log), read_truth(truth)
    by_frame: dict[str, Fix] = {}
    for fix in fixes:
        if fix.frame in by_frame and fix.frame in truths:
            msg = f"log {log} has frame {fix.frame} twice; expected the log of one run. Split it"
            raise InputError(msg)
        by_frame[fix.frame] = fix
    known = [fix for fix in fixes if fix.frame in truths]
    if not known:
        msg = (
            f"no frame of {log} (first: {fixes[0].frame!r}) is in {truth} (first: "
            f"{next(iter(truths), 'none')!r}); is it the truth of another flight?"
        )
        raise InputError(msg)
    logged = [
        Attempt(truth=truths[fix.frame], fix=fix, error_m=_error_m(fix, truths[fix.frame], score))
        for fix in known
    ]
    missing = [
        Attempt(truth=t, fix=None, error_m=None)
        for t in truths.values()
        if t.frame not in by_frame and not logged_only
    ]
    attempts = logged + missing
    if missing and all(a.t_s is not None for a in attempts):
        attempts.sort(key=lambda a: a.t_s or 0.0)
    return Flight(
        name=name or log.name.removesuffix(".jsonl"),
        log=log,
        truth=truth,
        attempts=tuple(attempts),
        untrue_frames=len(fixes) - len(known),
    )


def _error_m(fix: Fix, truth: Truth, score: Score) -> float | None:
    if score == "drone":
        found, true = (fix.lat_deg, fix.lon_deg), (truth.lat_deg, truth.lon_deg)
    elif truth.look_lat_deg is None or truth.look_lon_deg is None:
        msg = (
            f"the truth of frame {truth.frame} has no look_lat_deg, look_lon_deg; use --score drone"
        )
        raise InputError(msg)
    else:
        found = (fix.look_lat_deg, fix.look_lon_deg)
        true = (truth.look_lat_deg, truth.look_lon_deg)
    if found[0] is None or found[1] is None:
        return None
    error_m = float(distance_m(found[0], found[1], *true))
    return error_m if math.isfinite(error_m) else None


def _truth_from(record: dict[str, str | None]) -> Truth:
    def number(name: str) -> float | None:
        text = (record.get(name) or "").strip()
        try:
            return float(text) if text else None
        except ValueError as error:
            msg = f"{name} is {text!r}; expected a number"
            raise InputError(msg) from error

    lat, lon = number("lat_deg"), number("lon_deg")
    if not record["filename"] or lat is None or lon is None:
        msg = "filename, lat_deg or lon_deg is empty; give all three, or remove the line"
        raise InputError(msg)
    check_lat_lon(lat, lon)
    look = number("look_lat_deg"), number("look_lon_deg")
    if look[0] is not None and look[1] is not None:
        check_lat_lon(*look)  # type: ignore[arg-type]
    return Truth(
        frame=record["filename"],
        lat_deg=lat,
        lon_deg=lon,
        t_s=number("t_s"),
        height_m=number("height_m"),
        yaw_deg=number("yaw_deg"),
        look_lat_deg=look[0],
        look_lon_deg=look[1],
    )
