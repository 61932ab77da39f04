"""What the made-up flights must show, and whether rows show it."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.flight_score import FlightRow
from benchmarks.intervals import rate
from benchmarks.tables import counted, metres, percent, seconds, share
from edge_runtime.calibration import Coverage

FIRST_S, FIRST_SHARE = 5.0, 0.95
MEDIAN_M, SUCCESS_SHARE = 5.0, 0.97
LOST_S, RIGHT_S = 5.0, 15.0
COVERAGE_POINTS = 0.05
FEWEST_STARTS, FEWEST_FLIGHTS, FEWEST_MOVES = 60, 3, 6
WHOLE_S = 590.0
"""What counts as a flight of 10 minutes."""
_68, _95 = 0.6827, 0.95


@dataclass(frozen=True, kw_only=True)
class Law:
    """One demand and what was seen."""

    name: str
    required: str
    seen: str
    holds: bool | None
    """None where nothing was flown that could tell."""
    note: str = ""
    """Why the rows are too few to claim it."""


def laws(
    rows: Sequence[FlightRow],
    *,
    step_s: float = 0.5,
    left_out: Sequence[Coverage] | None = None,
) -> list[Law]:
    """Judge rows; several worlds and maps together.

    Args:
        rows: of one bundle and one choice of settings.
        step_s: time between frames.
        left_out: where the index had no calibration, what one from the other whole flights gives
            on each. What is stated without one must only not be too small.
    """
    starts = [r for r in rows if r.part == "start"]
    whole = [r for r in rows if r.part == "whole"]
    moved = [r for r in rows if r.part == "moved"]
    off = [r for r in rows if r.part == "off_map"]
    judged = [*_start_laws(starts), *_whole_laws(whole, step_s), *_moved_laws(moved)]
    return [*judged, *_off_laws(off), *_coverage_laws(whole, left_out)]


def _start_laws(rows: Sequence[FlightRow]) -> list[Law]:
    soon = rate(sum(_at_most(r.first_right_s, FIRST_S) for r in rows), len(rows))
    false = rate(sum(r.false for r in rows), sum(r.frames for r in rows))
    return [
        Law(
            name="first fix",
            required=f"within {FIRST_S:g} s in {percent(FIRST_SHARE)} of starts",
            seen=f"{share(soon)} of {soon.n}",
            holds=None if soon.share is None else soon.share >= FIRST_SHARE,
            note=_few(rows, FEWEST_STARTS, "starts"),
        ),
        Law(
            name="false fixes after a start",
            required="none",
            seen=counted(false),
            holds=None if false.share is None else false.count == 0,
        ),
    ]


def _whole_laws(rows: Sequence[FlightRow], step_s: float) -> list[Law]:
    short = [r for r in rows if r.frames * step_s < WHOLE_S]
    note = _few(rows, FEWEST_FLIGHTS, "flights")
    if short and not note:
        note = f"{len(short)} flights are shorter than 10 minutes"
    medians = [r.median_error_m for r in rows]
    worst = None if None in medians else max((m for m in medians if m is not None), default=None)
    success = [rate(r.success, r.frames) for r in rows]
    false = rate(sum(r.false for r in rows), sum(r.frames for r in rows))
    lowest = min((s.share for s in success if s.share is not None), default=None)
    return [
        Law(
            name="median error",
            required=f"below {MEDIAN_M:g} m on every flight",
            seen=f"worst flight {metres(worst)}",
            holds=None if not rows else worst is not None and worst < MEDIAN_M,
            note=note,
        ),
        Law(
            name="success at 20 m",
            required=f"{percent(SUCCESS_SHARE)} of all frames on every flight",
            seen=f"worst flight {'-' if lowest is None else percent(lowest)}",
            holds=None if lowest is None else lowest >= SUCCESS_SHARE,
            note=note,
        ),
        Law(
            name="false fixes in flight",
            required="none",
            seen=counted(false),
            holds=None if false.share is None else false.count == 0,
            note=note,
        ),
    ]


def _moved_laws(rows: Sequence[FlightRow]) -> list[Law]:
    note = _few(rows, FEWEST_MOVES, "moves")
    slowest = _slowest([r.lost_after_s for r in rows])
    again = _slowest([r.right_after_s for r in rows])
    late = [r for r in rows if r.false_after_moving and (r.silent_after_s or 0.0) > LOST_S]
    false = sum(r.false_after_moving or 0 for r in rows)
    return [
        Law(
            name="moved: LOST or right again",
            required=f"within {LOST_S:g} s",
            seen=f"slowest of {len(rows)}: {seconds(slowest)}",
            holds=None if not rows else _at_most(slowest, LOST_S),
            note=note,
        ),
        Law(
            name="moved: right again",
            required=f"within {RIGHT_S:g} s",
            seen=f"slowest of {len(rows)}: {seconds(again)}",
            holds=None if not rows else _at_most(again, RIGHT_S),
            note=note,
        ),
        Law(
            name="moved: no false fix",
            required=f"none later than {LOST_S:g} s",
            seen=f"{len(late)} of {len(rows)} moves; {false} false fixes at all",
            holds=None if not rows else not late,
            note=note,
        ),
    ]


def _off_laws(rows: Sequence[FlightRow]) -> list[Law]:
    frames = sum(r.off_frames or 0 for r in rows)
    answered = rate(sum(r.off_ok or 0 for r in rows), frames)
    false = rate(sum(r.false for r in rows), sum(r.frames for r in rows))
    return [
        Law(
            name="off the map",
            required="no fix where nothing of the map is in view",
            seen=counted(answered),
            holds=None if answered.share is None else answered.count == 0,
        ),
        Law(
            name="false fixes across the edge",
            required="none",
            seen=counted(false),
            holds=None if false.share is None else false.count == 0,
        ),
    ]


def _coverage_laws(rows: Sequence[FlightRow], left_out: Sequence[Coverage] | None) -> list[Law]:
    judged = []
    for percentage, wanted in ((68, _68), (95, _95)):
        name = f"errors within the {percentage} % radius"
        near = f"{percent(wanted)} within {100 * COVERAGE_POINTS:g} points"
        inside = [r.within_68 if percentage == 68 else r.within_95 for r in rows]
        stated = [(count, r.ok) for count, r in zip(inside, rows, strict=True)]
        if left_out is None:
            judged.append(_coverage_law(name, near, stated, wanted, wanted))
            continue
        fitted = [
            (round((c.within_68 if percentage == 68 else c.within_95) * c.answers), c.answers)
            for c in left_out
        ]
        by_others = f"{name}, calibrated on the other flights"
        least = f"at least {percent(wanted - COVERAGE_POINTS)}"
        judged.append(_coverage_law(by_others, near, fitted, wanted, wanted))
        judged.append(_coverage_law(f"{name}, without a calibration", least, stated, wanted, 1.0))
    return judged


def _coverage_law(
    name: str, required: str, flights: Sequence[tuple[int, int]], low: float, high: float
) -> Law:
    """That the share lies between two, give or take COVERAGE_POINTS.

    Args:
        name: of the law.
        required: in words.
        flights: of each the errors inside, and all.
        low: least share.
        high: largest share.
    """
    seen = rate(sum(inside for inside, _ in flights), sum(answers for _, answers in flights))
    each = [percent(inside / answers) for inside, answers in flights if answers]
    margin = COVERAGE_POINTS
    return Law(
        name=name,
        required=required,
        seen=f"{share(seen)}; flights {', '.join(each) or '-'}",
        holds=None if seen.share is None else low - margin <= seen.share <= high + margin,
        note=_few(flights, FEWEST_FLIGHTS, "flights"),
    )


def _at_most(value: float | None, most: float) -> bool:
    return value is not None and value <= most


def _slowest(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return max(known, default=None) if len(known) == len(values) else None


def _few(rows: Sequence[object], wanted: int, what: str) -> str:
    return f"{len(rows)} {what}; the claim needs {wanted}" if 0 < len(rows) < wanted else ""
