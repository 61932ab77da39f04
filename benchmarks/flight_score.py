"""What one part of the made-up flights came to: a row, from its fixes and the truth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from benchmarks.accuracy import FALSE_FIX_M, WITHIN_68, WITHIN_95
from benchmarks.flight_parts import FlightPart, Part
from benchmarks.intervals import percentile
from benchmarks.rows import Provenance, provenance
from edge_runtime.camera import Camera
from edge_runtime.fix import Fix
from edge_runtime.geodesy import distance_m, enu_offset_m
from edge_runtime.imagery import Bounds

SUCCESS_M = 20.0
"""An answer at most this far off is a success."""
LOST_WITHIN_S = 5.0
"""After being moved, a wrong answer is understood only for this long."""
_TILT_DEG = 5.0
"""Tilt to allow for when the ground in view is reckoned."""


class Answer(NamedTuple):
    """One fix and what was true."""

    fix: Fix
    lat_deg: float
    lon_deg: float
    height_m: float

    @property
    def ok(self) -> bool:
        """Whether it is an answer."""
        return self.fix.status == "OK" and self.fix.lat_deg is not None

    @property
    def error_m(self) -> float:
        """Distance from the truth; infinite where there is no answer."""
        if not self.ok or self.fix.lat_deg is None or self.fix.lon_deg is None:
            return math.inf
        return float(distance_m(self.fix.lat_deg, self.fix.lon_deg, self.lat_deg, self.lon_deg))


@dataclass(frozen=True, kw_only=True)
class FlightRow(Provenance):
    """One part, flown."""

    kind: Literal["flight"] = "flight"
    part: Part
    name: str
    frames: int
    ok: int
    """Frames answered."""
    lost: int
    abstained: int
    degraded: int
    first_right_s: float | None
    """Time of flight until the first answer, None if there was none or it was false."""
    median_error_m: float | None
    """Of answers."""
    p95_error_m: float | None
    max_error_m: float | None
    success: int
    """Answers at most 20 m off."""
    false: int
    """Answers more than 50 m off."""
    within_68: int
    """Answers within the 68 % radius that they state."""
    within_95: int
    """Answers within the 95 % radius that they state."""
    median_eph_m: float | None
    """Of answers."""
    lost_after_s: float | None = None
    """From being moved to the first frame that says LOST, or is right again."""
    silent_after_s: float | None = None
    """From being moved to the last false answer; 0 where there was none."""
    right_after_s: float | None = None
    """From being moved to the first answer at most 20 m off."""
    false_after_moving: int | None = None
    """False answers after being moved, at any time."""
    off_frames: int | None = None
    """Frames that see nothing of the map."""
    off_ok: int | None = None
    """Answers among them."""
    p50_ms: float
    """Of the localizer, without reading the frame."""
    p95_ms: float
    world_id: str
    bundle_id: str
    index_id: str
    settings: str
    """Everything of the localizer that is not by default, as JSON."""


def flight_row(
    part: FlightPart,
    answers: Sequence[Answer],
    *,
    camera: Camera,
    bounds: Bounds,
    world_id: str,
    settings: str,
) -> FlightRow:
    """Score a part.

    Args:
        part: what was flown.
        answers: one a step, in order.
        camera: for the ground in view.
        bounds: of the map.
        world_id: of the made-up world.
        settings: of the localizer, for the record.
    """
    errors = [a.error_m for a in answers if a.ok]
    first = next((a for a in answers if a.ok), None)
    right = first is not None and first.error_m <= FALSE_FIX_M
    times_ms = [a.fix.latency_ms["total"] - a.fix.latency_ms.get("capture", 0.0) for a in answers]
    ephs = [a.fix.eph_m for a in answers if a.ok and a.fix.eph_m is not None]
    moved = _moved(part, answers)
    off = [a for a in answers if off_map(a, camera, bounds)] if part.part == "off_map" else None
    statuses = [a.fix.status for a in answers]
    return FlightRow(
        **provenance(),
        part=part.part,
        name=part.name,
        frames=len(answers),
        ok=len(errors),
        lost=statuses.count("LOST"),
        abstained=statuses.count("ABSTAIN"),
        degraded=statuses.count("DEGRADED"),
        first_right_s=first.fix.t_exposure_s if first is not None and right else None,
        median_error_m=percentile(errors, 50) if errors else None,
        p95_error_m=percentile(errors, 95) if errors else None,
        max_error_m=max(errors, default=None),
        success=sum(e <= SUCCESS_M for e in errors),
        false=sum(e > FALSE_FIX_M for e in errors),
        within_68=sum(_within(a, WITHIN_68) for a in answers),
        within_95=sum(_within(a, WITHIN_95) for a in answers),
        median_eph_m=float(np.median(ephs)) if ephs else None,
        lost_after_s=moved.lost_after_s if moved else None,
        silent_after_s=moved.silent_after_s if moved else None,
        right_after_s=moved.right_after_s if moved else None,
        false_after_moving=moved.false if moved else None,
        off_frames=None if off is None else len(off),
        off_ok=None if off is None else sum(a.ok for a in off),
        p50_ms=percentile(times_ms, 50),
        p95_ms=percentile(times_ms, 95),
        world_id=world_id,
        bundle_id=answers[0].fix.bundle_id,
        index_id=answers[0].fix.index_id,
        settings=settings,
    )


def off_map(answer: Answer, camera: Camera, bounds: Bounds) -> bool:
    """Whether the camera sees nothing of the map."""
    corner = math.hypot(camera.width_px / 2 / camera.fx_px, camera.height_px / 2 / camera.fy_px)
    angle = math.atan(corner) + math.radians(_TILT_DEG)
    reach_m = answer.height_m * math.tan(angle)
    lat = min(max(answer.lat_deg, bounds.south_deg), bounds.north_deg)
    lon = min(max(answer.lon_deg, bounds.west_deg), bounds.east_deg)
    offset = enu_offset_m(answer.lat_deg, answer.lon_deg, lat, lon)
    return math.hypot(float(offset.east_m), float(offset.north_m)) > reach_m


class _Moved(NamedTuple):
    lost_after_s: float | None
    silent_after_s: float
    right_after_s: float | None
    false: int


def _moved(part: FlightPart, answers: Sequence[Answer]) -> _Moved | None:
    if part.moved_at is None:
        return None
    after = answers[part.moved_at :]
    # The move happened at any time since the frame before; the first frame after it counts as 0.
    start_s = part.steps[part.moved_at].t_s
    right = [a for a in after if a.error_m <= SUCCESS_M]
    noticed = [a for a in after if a.fix.status == "LOST" or a.error_m <= SUCCESS_M]
    false = [a for a in after if a.ok and a.error_m > FALSE_FIX_M]
    return _Moved(
        lost_after_s=_since(noticed, start_s),
        silent_after_s=false[-1].fix.t_exposure_s - start_s if false else 0.0,
        right_after_s=_since(right, start_s),
        false=len(false),
    )


def _since(answers: Sequence[Answer], start_s: float) -> float | None:
    return answers[0].fix.t_exposure_s - start_s if answers else None


def _within(answer: Answer, sigmas: float) -> bool:
    eph_m = answer.fix.eph_m
    return answer.ok and eph_m is not None and answer.error_m <= sigmas * eph_m
