"""What one frame alone can say: how right matches and chance ones differ in their evidence.

The constants of `edge_runtime/refinement.py` that turn a correlation into a likelihood ratio were
fitted to these figures on development flights; docs/accuracy.md keeps them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.flown_frames import FlownFrames
from benchmarks.intervals import Rate, rate
from benchmarks.scored_flight import read_truth
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m
from edge_runtime.localizer import Localizer
from edge_runtime.refinement import Match

QUANTILES = (1, 5, 25, 50, 75, 95, 99, 99.9)
"""Percentiles that are reported."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Matches of every frame of a flight, each frame searched on the whole map."""

    frames: int
    found: Rate
    """Frames whose right place is among the matches."""
    first: Rate
    """Frames whose right place has the strongest evidence."""
    right_excess: list[float]
    """z of right matches above the median of the frame's other windows, at QUANTILES."""
    chance_excess: list[float]
    """The same of all other matches."""
    right_evidence: list[float]
    """Log-likelihood ratio of right matches, at QUANTILES."""
    chance_evidence: list[float]
    """The same of all other matches."""


def evidence(
    localizer: Localizer,
    source: Path,
    telemetry: Path,
    truth: Path,
    *,
    tolerance_m: float,
    look: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Evidence:
    """Match every frame against the whole map and compare with the truth.

    Args:
        localizer: opened on the flight's map; its track is not used.
        source: folder of photographs.
        telemetry: CSV with what the aircraft knew.
        truth: CSV with filename, lat_deg, lon_deg (and look_lat_deg, look_lon_deg).
        tolerance_m: a match within this of the truth is right.
        look: compare where the optical axis meets the ground, not the drone's position.
        progress: told how many frames are done, of how many.

    Raises:
        InputError: inputs do not fit each other.
    """
    true = read_truth(truth)
    frames = FlownFrames(source, telemetry)
    right: list[tuple[float, float]] = []
    chance: list[tuple[float, float]] = []
    searched = found = first = 0
    for done, frame in enumerate(frames, start=1):
        progress(done, len(frames))
        if frame.name not in true or frame.image is None:
            continue
        there = true[frame.name]
        lat = there.look_lat_deg if look else there.lat_deg
        lon = there.look_lon_deg if look else there.lon_deg
        if lat is None or lon is None:
            continue
        matches = localizer.match_anywhere(frame.image, frame.state)
        searched += 1
        off_m = [_off_m(match, lat, lon, look=look) for match in matches]
        hits = [k for k, metres in enumerate(off_m) if metres <= tolerance_m]
        found += bool(hits)
        first += hits[:1] == [0]
        for k, match in enumerate(matches):
            others = [m.z for j, m in enumerate(matches) if j != k]
            excess = match.z - float(np.median(others)) if others else float("nan")
            (right if k in hits else chance).append((excess, match.log_evidence))
    if not searched:
        msg = f"{truth} names no frame of {source}; expected the same file names"
        raise InputError(msg)
    return Evidence(
        frames=searched,
        found=rate(found, searched),
        first=rate(first, searched),
        right_excess=_quantiles([e for e, _ in right]),
        chance_excess=_quantiles([e for e, _ in chance]),
        right_evidence=_quantiles([e for _, e in right]),
        chance_evidence=_quantiles([e for _, e in chance]),
    )


def _off_m(match: Match, lat: float, lon: float, *, look: bool) -> float:
    place = (match.look_lat_deg, match.look_lon_deg) if look else (match.lat_deg, match.lon_deg)
    return float(distance_m(*place, lat, lon))


def _quantiles(values: Sequence[float]) -> list[float]:
    known = np.array([v for v in values if np.isfinite(v)])
    if not len(known):
        return [float("nan")] * len(QUANTILES)
    return [round(float(v), 2) for v in np.percentile(known, QUANTILES)]


def open_localizer(bundle: Path, index: Path, camera: Path) -> Localizer:
    """A localizer on the CPU or GPU, as `skyfix run` opens it."""
    return Localizer.open(bundle, index, Camera.load(camera))
