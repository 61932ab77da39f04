"""The offset between the camera's clock and the telemetry's, by what both see: turns.

A camera that looks down sees the ground turn as fast as the drone does, the other way round. The
two rates over time are the same curve on two clocks; where they fit best is the offset.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.states.angles import turned_deg
from edge_runtime.states.sample import Sample

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

_STEP_S = 0.05
_LEAST_TURN_DEG_S = 1.5
"""RMS of the rates: below this noise decides."""
_LEAST_OVERLAP_S = 8.0
_LEAST_CORRELATION = 0.6
_LEAST_LEAD = 0.1
"""By how much the best offset must correlate better than any other."""
_SIDE_PX = 480
_LEAST_POINTS = 12
_LONGEST_STEP_S = 1.5
"""Rates over longer steps than this say little about when something turned."""


class Rates(NamedTuple):
    """How fast something turned, clockwise seen from above, at some times."""

    t_s: F64
    deg_s: F64


@dataclass(frozen=True, kw_only=True)
class TimeOffset:
    """What to add to a frame's time to get the telemetry's."""

    offset_s: float
    correlation: float
    """Of the two curves at this offset, at most 1."""
    next_correlation: float
    """Of the best offset that is another."""
    overlap_s: float
    """How long both were there at this offset."""


def measure_offset_s(
    frames: Iterable[tuple[float, U8]], samples: Sequence[Sample], *, max_offset_s: float = 30.0
) -> TimeOffset:
    """Measure the offset of two clocks.

    Args:
        frames: time in seconds and (H, W, 3) or (H, W) uint8 picture, in order, of a camera that
            looks about straight down; at least four a second.
        samples: telemetry with a heading.
        max_offset_s: largest offset to look for.

    Raises:
        InputError: too short, nothing turns, or no offset fits clearly best.
    """
    return offset_of_rates(seen_rates(frames), said_rates(samples), max_offset_s=max_offset_s)


def said_rates(samples: Sequence[Sample]) -> Rates:
    """Rates of the recorded headings, halfway between one sample and the next."""
    known = [
        (s.state.t_s, yaw)
        for s in samples
        if (yaw := s.state.gimbal_yaw_deg if s.state.yaw_deg is None else s.state.yaw_deg)
        is not None
    ]
    times, rates = [], []
    for (t0, yaw0), (t1, yaw1) in pairwise(known):
        if 0 < t1 - t0 <= _LONGEST_STEP_S:
            times.append((t0 + t1) / 2)
            rates.append(turned_deg(yaw0, yaw1) / (t1 - t0))
    return Rates(np.array(times), np.array(rates))


def seen_rates(frames: Iterable[tuple[float, U8]]) -> Rates:
    """Rates by which a camera that looks down turned, from points followed between frames."""
    times, rates = [], []
    before: tuple[float, U8] | None = None
    for t_s, image in frames:
        grey = _small_grey(image)
        if before is not None and 0 < t_s - before[0] <= _LONGEST_STEP_S:
            turned = _turned_deg(before[1], grey)
            if turned is not None:
                times.append((t_s + before[0]) / 2)
                rates.append(turned / (t_s - before[0]))
        before = t_s, grey
    return Rates(np.array(times), np.array(rates))


def offset_of_rates(seen: Rates, said: Rates, *, max_offset_s: float = 30.0) -> TimeOffset:
    """Slide one curve along the other.

    Both are brought to one grid; at each shift they are compared by normalised cross-correlation
    over what both know, and the peak is refined by the parabola through it.

    Raises:
        InputError: too short, nothing turns, or no offset fits clearly best.
    """
    for rates, whose in ((seen, "the frames"), (said, "the telemetry")):
        if len(rates.t_s) < 20 or rates.t_s[-1] - rates.t_s[0] < _LEAST_OVERLAP_S:
            msg = (
                f"{whose} give {len(rates.t_s)} turning rates, too few to measure a time offset; "
                f"expected {_LEAST_OVERLAP_S:g} s or more with a heading and several samples a "
                "second"
            )
            raise InputError(msg)
        rms = float(np.sqrt(np.mean(np.square(rates.deg_s - np.mean(rates.deg_s)))))
        if rms < _LEAST_TURN_DEG_S:
            msg = (
                f"{whose} turn by {rms:.1f} deg/s only, which shows no time offset; expected a "
                f"stretch with turns of {2 * _LEAST_TURN_DEG_S:g} deg/s and more"
            )
            raise InputError(msg)
    shifts = np.arange(-max_offset_s, max_offset_s + _STEP_S / 2, _STEP_S)
    grid = np.arange(seen.t_s[0], seen.t_s[-1], _STEP_S)
    curve = np.interp(grid, seen.t_s, seen.deg_s)
    scores = np.array([_correlation(curve, grid + shift, said)[0] for shift in shifts])
    best = int(np.argmax(scores))
    lobe = _main_lobe(scores, best)
    others = np.concatenate([scores[: lobe[0]], scores[lobe[1] :]])
    runner_up = float(others.max()) if len(others) else -1.0
    peak = float(scores[best])
    if peak < _LEAST_CORRELATION or peak - runner_up < _LEAST_LEAD:
        msg = (
            f"no time offset within {max_offset_s:g} s fits clearly (best correlation {peak:.2f}, "
            f"next {runner_up:.2f}); expected the same flight, a camera that looks down, and turns"
        )
        raise InputError(msg)
    if best in (0, len(shifts) - 1):
        msg = (
            f"the best time offset is at the end of the {max_offset_s:g} s searched; search farther"
        )
        raise InputError(msg)
    left, middle, right = scores[best - 1 : best + 2]
    bend = left - 2 * middle + right
    fine = 0.5 * (left - right) / bend if bend < 0 else 0.0
    offset_s = float(shifts[best] + fine * _STEP_S)
    return TimeOffset(
        offset_s=offset_s,
        correlation=peak,
        next_correlation=runner_up,
        overlap_s=_correlation(curve, grid + offset_s, said)[1],
    )


def _correlation(curve: F64, moments_s: F64, said: Rates) -> tuple[float, float]:
    """Normalised cross-correlation over what both know, and for how long that is."""
    inside = (moments_s >= said.t_s[0]) & (moments_s <= said.t_s[-1])
    overlap_s = float(np.count_nonzero(inside)) * _STEP_S
    if overlap_s < max(_LEAST_OVERLAP_S, 0.5 * len(curve) * _STEP_S):
        return -1.0, overlap_s
    a = curve[inside] - curve[inside].mean()
    b = np.interp(moments_s[inside], said.t_s, said.deg_s)
    b -= b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return (float(a @ b) / norm if norm > 0 else -1.0), overlap_s


def _main_lobe(scores: F64, best: int) -> tuple[int, int]:
    """Where the peak ends: below half of it, or where it rises again."""
    floor = scores[best] / 2
    first, last = best, best + 1
    while first > 0 and scores[first - 1] > floor:
        first -= 1
    while last < len(scores) and scores[last] > floor:
        last += 1
    return first, last


def _small_grey(image: U8) -> U8:
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    shrink = min(1.0, _SIDE_PX / max(grey.shape))
    size = max(1, round(grey.shape[1] * shrink)), max(1, round(grey.shape[0] * shrink))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def _turned_deg(before: U8, after: U8) -> float | None:
    """By how much the camera turned clockwise, seen from above; None where too little is seen."""
    points = cv2.goodFeaturesToTrack(before, 300, 0.01, 7)
    if before.shape != after.shape or points is None or len(points) < _LEAST_POINTS:
        return None
    # The corresponding stub asks for the array that the call makes itself.
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None)  # type: ignore[call-overload]
    kept = found.ravel() == 1
    if np.count_nonzero(kept) < _LEAST_POINTS:
        return None
    similarity, inliers = cv2.estimateAffinePartial2D(
        points[kept], moved[kept], ransacReprojThreshold=1.5
    )
    if similarity is None or np.count_nonzero(inliers) < _LEAST_POINTS:
        return None
    # The ground turns against the camera, and the camera looks at it from above: with y down, a
    # positive angle is clockwise in the picture.
    return -math.degrees(math.atan2(similarity[1, 0], similarity[0, 0]))
