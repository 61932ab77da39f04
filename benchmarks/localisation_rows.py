"""How well and how fast a flight was localised, in one row, with and without a prior.

Accuracy is that of `benchmarks.accuracy`, over all attempts: every frame of the truth, whether it
was answered, abstained from, lost or never logged. Time is the log's own `total`, from asking the
source for the frame to the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from benchmarks.accuracy import FALSE_FIX_M, AccuracyRow, accuracy_row
from benchmarks.rows import Provenance, provenance
from benchmarks.scored_flight import Attempt, Flight, Score
from benchmarks.time_summary import TimeSummary, time_summary
from edge_runtime.errors import InputError
from edge_runtime.fix import STAGES, Fix
from edge_runtime.flight_log import read_settings, settings_path

Searched = Literal["all", "with a prior", "without a prior"]
"""Which attempts: all of them, or by whether what was known before limited the search."""


@dataclass(frozen=True, kw_only=True)
class LocalisationRow(Provenance):
    """One flight, or the part of it that was searched with or without a prior."""

    kind: Literal["localisation"] = "localisation"
    flight: str
    run: int = 0
    searched: Searched
    score: Score
    """What was compared with the truth."""
    frames: int
    """Attempts. Those with and those without a prior add up to all."""
    accuracy: AccuracyRow
    """Over these attempts: metres, success by distance, coverage ("answered"), abstentions, false
    fixes."""
    time: TimeSummary | None
    """Of the frames that were logged, in their order; the first one counts too. Misses are those
    that the log names. None where no frame has a time."""
    stages: dict[str, TimeSummary]
    device: str
    """Machine the log was made on, as the caller says; logs do not hold it."""
    note: str = ""


def localisation_rows(
    flight: Flight,
    *,
    score: Score = "drone",
    false_fix_m: float = FALSE_FIX_M,
    device: str = "",
    run: int = 0,
) -> list[LocalisationRow]:
    """A row of all attempts; then, where there are both, one with and one without a prior.

    Args:
        flight: a log and its truth, by `score_flight`.
        score: what it was scored by.
        false_fix_m: answers further off are false fixes.
        device: machine the log was made on, when known.
        run: which repetition of the flight.

    Raises:
        InputError: the flight has no attempt.
    """
    if not flight.attempts:
        msg = f"{flight.log} has no frame of {flight.truth}; expected a flight with its truth"
        raise InputError(msg)
    parts: list[tuple[Searched, tuple[Attempt, ...]]] = [("all", flight.attempts)]
    by_prior = _by_prior(flight.attempts)
    if all(by_prior.values()):
        parts += [(name, tuple(by_prior[name])) for name in get_args(Searched)[1:]]
    deadline_ms = _deadline_ms(flight)
    made_by = provenance()
    rows = []
    for searched, attempts in parts:
        part = replace(flight, attempts=attempts)
        absent = sum(a.fix is None for a in attempts)
        rows.append(
            LocalisationRow(
                **made_by,
                flight=flight.name,
                run=run,
                searched=searched,
                score=score,
                frames=len(attempts),
                accuracy=accuracy_row([part], score=score, false_fix_m=false_fix_m),
                time=_times(part.fixes, "total", deadline_ms),
                stages={
                    stage: found
                    for stage in STAGES
                    if stage != "total" and (found := _times(part.fixes, stage, None)) is not None
                },
                device=device,
                note=f"{absent} frames are not in the log: no answer, no time" if absent else "",
            )
        )
    return rows


def _by_prior(attempts: Sequence[Attempt]) -> dict[Searched, list[Attempt]]:
    """Attempts with and without a prior.

    A frame that the log lacks goes with the frame before it: nothing says how it would have been
    searched, and left out it would no longer count as not answered.
    """
    found: dict[Searched, list[Attempt]] = {"with a prior": [], "without a prior": []}
    searched: Searched = "without a prior"
    for attempt in attempts:
        if attempt.fix is not None:
            searched = "with a prior" if attempt.fix.prior else "without a prior"
        found[searched].append(attempt)
    return found


def _times(fixes: Sequence[Fix], stage: str, deadline_ms: float | None) -> TimeSummary | None:
    times_ms = [fix.latency_ms[stage] for fix in fixes if stage in fix.latency_ms]
    if not times_ms:
        return None
    summary = time_summary(times_ms, first_ms=times_ms[0], deadline_ms=deadline_ms)
    if stage != "total":
        return summary
    # The runtime knows when a frame was late; its clock began with the exposure.
    return replace(summary, deadline_misses=sum(fix.deadline_missed for fix in fixes))


def _deadline_ms(flight: Flight) -> float | None:
    """What the run's settings allowed a frame; None where they are not beside the log."""
    if not settings_path(flight.log).exists():
        return None
    value = read_settings(flight.log).options.get("deadline_ms")
    return float(value) if isinstance(value, int | float) else None


def in_words(row: LocalisationRow) -> str:
    """A row in one line."""
    found = row.accuracy
    within = found.success["20"].share
    median = "-" if found.median_error_m is None else f"{found.median_error_m:.2f} m"
    time = "no times" if row.time is None else f"p50 {row.time.p50_ms:.0f} ms"
    if row.time is not None:
        time += f", p99 {row.time.p99_ms:.0f} ms, {row.time.deadline_misses} late"
    return (
        f"{row.flight}, {row.searched}: {row.frames} attempts, answered "
        f"{_percent(found.answered.share)}, within 20 m {_percent(within)}, more than "
        f"{found.false_fix_m:g} m off {_percent(found.false_fixes.share)}, abstained "
        f"{_percent(found.abstained.share)}, median {median}; {time}"
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
