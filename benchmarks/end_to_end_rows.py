"""What a comparison of speed comes to: times, ratios with their uncertainty, and the quality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from benchmarks.accuracy import FALSE_FIX_M
from benchmarks.end_to_end_contenders import Answer
from benchmarks.flight_laws import Law
from benchmarks.intervals import Rate, percentile, rate
from benchmarks.rows import Provenance
from benchmarks.scored_flight import Truth
from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m

SUCCESS_M = 20.0
FEWEST_TILES = 10_000
FIXES_PER_S, TAIL = 5.0, 2.0
IN_FLIGHT, WHOLE_MAP, PLAIN = "skyfix in flight", "skyfix whole map", "plain loop"
_RESAMPLES = 4000


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good the answers were."""

    answered: Rate
    success: Rate
    """Answers at most SUCCESS_M off, over all frames."""
    false: Rate
    """Answers more than FALSE_FIX_M off, over all frames."""
    median_error_m: float | None
    """Of answers."""
    guessed: Rate
    """Best guesses at most SUCCESS_M off, believed or not."""


class Ratio(NamedTuple):
    """How many times as fast, with its 95 % interval."""

    times: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class SpeedRow(Provenance):
    """One contender of one comparison."""

    kind: Literal["end-to-end"] = "end-to-end"
    contender: str
    source: str
    frames: int
    block: int
    """Frames in a row before the next contender works on the same ones."""
    frames_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    p99_over_p50: float
    as_fast_as_plain: Ratio
    """The plain loop's time over this one's, on the same frames."""
    quality: Quality | None
    """None without truth."""
    opencv_threads: int
    backend: str
    provider: str
    backend_threads: int | None
    tiles: int
    device: str
    cores: int
    load_before: float
    """Of the machine, last minute."""
    load_after: float
    bundle_id: str
    index_id: str


def quality_of(answers: Sequence[Answer], truths: Mapping[str, Truth]) -> Quality:
    """Score answers against the truth.

    Raises:
        InputError: a photograph has no truth.
    """
    errors: list[float] = []
    guessed = success = false = 0
    for answer in answers:
        if answer.name not in truths:
            msg = f"the truth has no {answer.name}; expected a row for every photograph"
            raise InputError(msg)
        truth = truths[answer.name]
        if answer.lat_deg is None or answer.lon_deg is None:
            continue
        apart_m = float(distance_m(answer.lat_deg, answer.lon_deg, truth.lat_deg, truth.lon_deg))
        guessed += apart_m <= SUCCESS_M
        if answer.given:
            errors.append(apart_m)
            success += apart_m <= SUCCESS_M
            false += apart_m > FALSE_FIX_M
    n = len(answers)
    return Quality(
        answered=rate(len(errors), n),
        success=rate(success, n),
        false=rate(false, n),
        median_error_m=float(np.median(errors)) if errors else None,
        guessed=rate(guessed, n),
    )


def paired_ratio(ours_ms: Sequence[float], theirs_ms: Sequence[float], *, block: int) -> Ratio:
    """Their time over ours on the same frames: above 1 where we are faster.

    The interval is a bootstrap over blocks, because times of frames next to each other are alike
    (the machine was busy, the ground was rich).

    Args:
        ours_ms: (N,) time of each frame.
        theirs_ms: (N,) of the same frames.
        block: frames that were taken in a row.

    Raises:
        InputError: not the same number of frames, or none.
    """
    if len(ours_ms) != len(theirs_ms) or not len(ours_ms):
        msg = f"{len(ours_ms)} and {len(theirs_ms)} frames; expected the same frames, at least one"
        raise InputError(msg)
    starts = np.arange(0, len(ours_ms), block)
    ours = np.add.reduceat(np.asarray(ours_ms, np.float64), starts)
    theirs = np.add.reduceat(np.asarray(theirs_ms, np.float64), starts)
    drawn = np.random.default_rng(0).integers(0, len(starts), (_RESAMPLES, len(starts)))
    ratios = theirs[drawn].sum(axis=1) / ours[drawn].sum(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Ratio(float(theirs.sum() / ours.sum()), float(low), float(high))


class Times(NamedTuple):
    """Percentiles of the times of frames."""

    frames_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


def times_of(wall_ms: Sequence[float]) -> Times:
    """Throughput and nearest-rank percentiles; nothing is clipped."""
    p50, p90, p99 = (percentile(wall_ms, q) for q in (50, 90, 99))
    return Times(1e3 * len(wall_ms) / sum(wall_ms), p50, p90, p99, max(wall_ms))


def laws(rows: Sequence[SpeedRow]) -> list[Law]:
    """Judge one comparison."""
    by_name = {row.contender: row for row in rows}
    flying, whole = by_name[IN_FLIGHT], by_name[WHOLE_MAP]
    ratio = flying.as_fast_as_plain
    few = "" if whole.tiles >= FEWEST_TILES else f"{whole.tiles} tiles; {FEWEST_TILES} are asked"
    judged = [
        Law(
            name="whole map",
            required=f">= {FIXES_PER_S:g} frames/s at {FEWEST_TILES} tiles",
            seen=f"{whole.frames_per_s:.1f} frames/s at {whole.tiles} tiles",
            holds=None if few else whole.frames_per_s >= FIXES_PER_S,
            note=few,
        )
    ]
    for row in (flying, whole):
        note = "" if row.frames >= 500 else f"p99 of only {row.frames} frames"
        judged.append(
            Law(
                name=f"tail, {row.contender}",
                required=f"p99 <= {TAIL:g} x p50",
                seen=f"{row.p99_ms:.1f} ms = {row.p99_over_p50:.2f} x {row.p50_ms:.1f} ms",
                holds=row.p99_over_p50 <= TAIL,
                note=note,
            )
        )
    judged.append(
        Law(
            name="faster than the plain loop",
            required="whole interval above 1",
            seen=f"{ratio.times:.2f} times as fast ({ratio.low:.2f} to {ratio.high:.2f})",
            holds=ratio.low > 1,
        )
    )
    return judged
