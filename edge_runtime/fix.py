"""The fix record: everything the runtime says about one frame, as one JSON object."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from edge_runtime.errors import InputError

Status = Literal["OK", "ABSTAIN", "LOST", "DEGRADED"]
"""OK: a position to use. DEGRADED: dead reckoning, no recent match. ABSTAIN: not sure enough yet.
LOST: was sure and is no longer."""
Mode = Literal["TRACK", "GLOBAL"]
"""TRACK: searched near the last position. GLOBAL: searched the whole map."""

STAGES = ("capture", "ground_view", "encode", "search", "refine", "track", "total")
"""Keys of `latency_ms`."""


@dataclass(frozen=True, kw_only=True)
class Fix:
    """One frame's answer. None means that there is none, never zero."""

    seq: int
    """Frame number, from 0."""
    frame: str
    """File name or frame number in the source."""
    t_exposure_s: float
    """When the frame was exposed, on the state's clock."""
    t_fix_s: float
    """When the answer was ready, seconds since the run began (monotonic)."""
    status: Status
    mode: Mode
    reason: str
    """Why the status is not OK; empty when it is."""
    lat_deg: float | None = None
    lon_deg: float | None = None
    eph_m: float | None = None
    """1-sigma horizontal error per axis: 68 % of errors lie within 1.51 eph, 95 % within 2.45."""
    stated_eph_m: float | None = None
    """The same before calibration, by the error model alone; None where there is no calibration."""
    yaw_deg: float | None = None
    """Heading with the correction that fits the imagery best."""
    look_lat_deg: float | None = None
    """Where the optical axis meets the ground, by this frame's match."""
    look_lon_deg: float | None = None
    probability: float = 0.0
    """That the position is right, by the tracker."""
    similarity: float | None = None
    """Cosine similarity of the best match's tile."""
    margin: float | None = None
    """Log evidence of the best match over the second best."""
    ncc: float | None = None
    """Gradient correlation of the best match."""
    inliers: int = 0
    """Local features that agree with the best match."""
    reprojection_px: float | None = None
    tile_id: int | None = None
    """Row of the index's tile table that led to the match."""
    prior: bool = False
    """Whether the search was limited by what was known before."""
    latency_ms: dict[str, float] = field(default_factory=dict)
    deadline_missed: bool = False
    shed: tuple[str, ...] = ()
    """What was left out to keep the deadline."""
    windows: int = 0
    """Windows of imagery that were looked at; replays look at as many."""
    dropped: int = 0
    """Frames the source threw away before this one because a newer one had come."""
    events: tuple[str, ...] = ()
    """What happened since the record before: a camera that was reopened, telemetry that stopped, an
    output that is gone. One line each."""
    reset_counter: int = 0
    """Grows each time the position jumps to a new track."""
    bundle_id: str = ""
    index_id: str = ""
    engine_id: str = ""
    """What embedded: backend, provider and precision."""
    backend: str = ""
    fallback: str = ""
    """Why a faster backend does not run; empty where the best one does."""

    def to_json(self) -> str:
        """One line of JSON; values that are not finite become null."""
        return json.dumps(
            {name: _finite(value) for name, value in asdict(self).items()}, allow_nan=False
        )


def fix_from_json(line: str) -> Fix:
    """Inverse of `Fix.to_json`.

    Raises:
        InputError: not a fix record.
    """
    try:
        value = json.loads(line)
        for name in ("shed", "events"):
            value[name] = tuple(value[name])
        if odd := set(value) ^ {f.name for f in fields(Fix)}:
            raise KeyError(sorted(odd))
        for name, known in (("status", get_args(Status)), ("mode", get_args(Mode))):
            if value[name] not in known:
                raise ValueError(f"{name} is {value[name]!r}, not one of {', '.join(known)}")
        return Fix(**value)
    except (ValueError, KeyError, TypeError) as error:
        msg = f"not a fix record ({error}); expected one JSON object per line as skyfix run writes"
        raise InputError(msg) from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(round(v, 3)) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
