"""How far fixes are from the truth, over all attempts: the metrics of `scored_flight`."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.intervals import Rate, percentile, rate
from benchmarks.rows import Provenance, provenance
from benchmarks.scored_flight import Attempt, Flight, Score
from edge_runtime.artefact import sha256_of
from edge_runtime.errors import InputError

SUCCESS_M = (1, 3, 5, 10, 20, 50, 100)
"""Distances at which success is counted, metres."""
FALSE_FIX_M = 50.0
"""An answer further off than this is a false fix, metres."""
WITHIN_68 = 1.515
"""Radius that holds 68.27 % of a round normal error, in 1-sigma per axis."""
WITHIN_95 = 2.448
"""Radius that holds 95 % of it."""


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


def accuracy_row(
    flights: Sequence[Flight], *, score: Score = "drone", false_fix_m: float = FALSE_FIX_M
) -> AccuracyRow:
    """Metrics of one flight, or of several together.

    Args:
        flights: scored flights, at least one.
        score: what they were scored by.
        false_fix_m: answers further off than this are false fixes.

    Raises:
        InputError: `false_fix_m` is no distance.
    """
    if not false_fix_m > 0:
        msg = f"answers more than {false_fix_m:g} m off are false; expected more than 0 m"
        raise InputError(msg)
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


def _one_or_all(values: Iterable[str]) -> str:
    """The value all share, or all that occur."""
    return ", ".join(dict.fromkeys(v for v in values if v))
