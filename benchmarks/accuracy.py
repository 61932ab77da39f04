"""How far fixes are from the truth, over all attempts.

Every frame of the truth is an attempt. An answer counts only with status OK: abstentions, dead
reckoning, lost frames and frames missing from the log are no success, and neither is a position
that is not finite.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.intervals import Rate, percentile, rate
from benchmarks.rows import Provenance, provenance
from edge_runtime import flight_log
from edge_runtime.artefact import sha256_of
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.geodesy import check_lat_lon, distance_m

Score = Literal["drone", "look"]
"""drone: the position of the drone. look: where its optical axis meets the ground."""

SUCCESS_M = (1, 3, 5, 10, 20, 50, 100)
"""Distances at which success is counted, metres."""
FALSE_FIX_M = 50.0
"""An answer further off than this is a false fix, metres."""
WITHIN_68 = 1.515
"""Radius that holds 68.27 % of a round normal error, in 1-sigma per axis."""
WITHIN_95 = 2.448
"""Radius that holds 95 % of it."""


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


@dataclass(frozen=True, kw_only=True)
class AccuracyRow(Provenance):
    """Accuracy of one flight, or of several together."""

    kind: Literal["accuracy"] = "accuracy"
    flight: str
    """Name of the log; "all" for several together."""
    score: Score
    """What was compared."""
    frames: int
    """Attempts: frames of the truth."""
    median_error_m: float | None
    """Of answers; None when there is none."""
    p95_error_m: float | None
    max_error_m: float | None
    success: dict[str, Rate]
    """By distance in metres: answers that are at most so far off, over all attempts."""
    answered: Rate
    """Status OK with a position."""
    abstained: Rate
    lost: Rate
    degraded: Rate
    """Dead reckoning: a position, but no success."""
    missing: Rate
    """Frames of the truth that the log does not have."""
    false_fix_m: float
    """Answers further off than this are false fixes."""
    false_fixes: Rate
    """Over all attempts."""
    first_ok_s: float | None
    """Seconds from the first frame to the first answer; for several flights the slowest; None if
    any had none."""
    within_68: Rate | None
    """Share of answers whose error is within 1.515 eph: 0.68 when the accuracy is honest. None for
    look points, which `eph_m` does not describe."""
    within_95: Rate | None
    """The same within 2.448 eph: 0.95 when honest."""
    logs_sha256: tuple[str, ...]
    bundle_id: str
    index_id: str
    engine_id: str
    """Provider that really ran and precision, as the log says."""
    backend: str


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


def accuracy_row(
    flights: Sequence[Flight], *, score: Score = "drone", false_fix_m: float = FALSE_FIX_M
) -> AccuracyRow:
    """Metrics of one flight, or of several together.

    Args:
        flights: scored flights, at least one.
        score: what they were scored by.
        false_fix_m: answers further off than this are false fixes.
    """
    attempts = [a for flight in flights for a in flight.attempts]
    errors = [a.ok_error_m for a in attempts if a.answered]
    fixes = [fix for flight in flights for fix in flight.fixes]
    n = len(attempts)

    def with_status(status: str) -> Rate:
        return rate(sum(f.status == status for f in fixes), n)

    firsts = [first_ok_s(flight) for flight in flights]
    return AccuracyRow(
        **provenance(),
        flight=flights[0].name if len(flights) == 1 else "all",
        score=score,
        frames=n,
        median_error_m=percentile(errors, 50) if errors else None,
        p95_error_m=percentile(errors, 95) if errors else None,
        max_error_m=max(errors, default=None),
        success={str(d): rate(sum(e <= d for e in errors), n) for d in SUCCESS_M},
        answered=rate(len(errors), n),
        abstained=with_status("ABSTAIN"),
        lost=with_status("LOST"),
        degraded=with_status("DEGRADED"),
        missing=rate(sum(a.fix is None for a in attempts), n),
        false_fix_m=false_fix_m,
        false_fixes=rate(sum(e > false_fix_m for e in errors), n),
        first_ok_s=None if None in firsts else max(f for f in firsts if f is not None),
        within_68=within(attempts, WITHIN_68) if score == "drone" else None,
        within_95=within(attempts, WITHIN_95) if score == "drone" else None,
        logs_sha256=tuple(sha256_of(flight.log) for flight in flights),
        bundle_id=_one_or_all(fix.bundle_id for fix in fixes),
        index_id=_one_or_all(fix.index_id for fix in fixes),
        engine_id=_one_or_all(fix.engine_id for fix in fixes),
        backend=_one_or_all(fix.backend for fix in fixes),
    )


def within(attempts: Sequence[Attempt], sigmas: float) -> Rate:
    """Share of answers whose error is at most `sigmas` times their eph; none without an eph."""
    answers = [a for a in attempts if a.answered]
    inside = sum(
        a.fix is not None
        and a.fix.eph_m is not None
        and math.isfinite(a.fix.eph_m)
        and a.ok_error_m <= sigmas * a.fix.eph_m
        for a in answers
    )
    return rate(inside, len(answers))


def first_ok_s(flight: Flight) -> float | None:
    """Seconds of flight from the first logged frame to the first answer; None when none came."""
    times = [a.fix.t_exposure_s for a in flight.attempts if a.answered and a.fix is not None]
    return min(times) - min(f.t_exposure_s for f in flight.fixes) if times else None


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


def _one_or_all(values: Iterable[str]) -> str:
    """The value all share, or all that occur."""
    return ", ".join(dict.fromkeys(v for v in values if v))
