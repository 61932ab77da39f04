"""What is said of a position: whether it may be used, and how far it may be off."""

import math
from typing import NamedTuple

from edge_runtime.fix import Status
from edge_runtime.geodesy import distance_m
from edge_runtime.ground_view import MAX_OFF_NADIR_DEG
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.refinement import Match
from edge_runtime.state import VehicleState
from edge_runtime.tracker import Estimate, Measurement

_MEASURED_ATTITUDE, _ASSUMED_ATTITUDE = (0.4, 0.92), (1.0, 0.25)
"""How much of an attitude error lasts and how much varies from frame to frame, as factors on its
sigma: the lasting part moves every fix alike, the varying part is noise to the tracker."""


class Verdict(NamedTuple):
    """Whether a position may be used."""

    status: Status
    reason: str
    """Why the status is not OK; empty when it is."""


def verdict(
    estimate: Estimate | None, config: LocalizerConfig, *, tracked: bool, problem: str
) -> Verdict:
    """Judge the tracker's best hypothesis.

    Args:
        estimate: of the tracker, after this frame.
        config: gives the thresholds.
        tracked: whether a position has been given before, so that it can be lost.
        problem: with this frame, if any.
    """
    if estimate is None:
        return Verdict("ABSTAIN", problem or "no match yet")
    best = estimate.best
    unsure: Status = "LOST" if tracked else "ABSTAIN"
    if best.misses >= 3 and best.since_match_s > config.lost_after_s:
        return Verdict(unsure, problem or f"no agreeing match for {best.since_match_s:.1f} s")
    believed = f"{estimate.probability:.0%}"
    if estimate.probability < 0.5:
        return Verdict(unsure, problem or f"several places fit, the best is believed {believed}")
    if estimate.probability < config.ok_probability:
        return Verdict("ABSTAIN", problem or f"believed only {estimate.probability:.1%}")
    if not estimate.confirmed:
        return Verdict("ABSTAIN", problem or "only weak agreement so far")
    if best.sigma_m > config.max_eph_m:
        return Verdict("ABSTAIN", problem or f"accuracy only {best.sigma_m:.0f} m")
    if best.misses:
        # The first frames after a jump are of this kind, so no such position is called sure.
        return Verdict("DEGRADED", problem or f"dead reckoning for {best.since_match_s:.1f} s")
    return Verdict("OK", "")


def measurement(match: Match, state: VehicleState, config: LocalizerConfig) -> Measurement:
    """A match as the tracker takes it, with its own error and the varying one of attitude."""
    varying = _attitude_shares(state)[1]
    sigma_m = math.hypot(match.sigma_m, varying * _attitude_m(match.height_m, match, config))
    return Measurement(match.lat_deg, match.lon_deg, sigma_m, match.log_evidence)


def stated_eph_m(
    estimate: Estimate, best: Match | None, state: VehicleState, config: LocalizerConfig
) -> float:
    """1-sigma horizontal error per axis as the error model has it, metres; not yet calibrated.

    Args:
        estimate: the tracker's.
        best: match of this frame, if any.
        state: at the exposure.
        config: gives the sensors' errors.
    """
    # The lasting part of attitude errors does not average out over frames: it is a floor.
    height_m = state.height_m or (best.height_m if best else 0.0)
    lasting_m = _attitude_shares(state)[0] * _attitude_m(height_m, best, config)
    return math.hypot(estimate.best.sigma_m, lasting_m)


def _attitude_m(height_m: float, match: Match | None, config: LocalizerConfig) -> float:
    """How far an error of attitude_sigma_deg moves the drone against the ground it sees."""
    off_nadir = 0.0
    if match is not None:
        reach_m = float(
            distance_m(match.lat_deg, match.lon_deg, match.look_lat_deg, match.look_lon_deg)
        )
        off_nadir = min(math.atan2(reach_m, height_m), math.radians(MAX_OFF_NADIR_DEG))
    angle = math.radians(config.attitude_sigma_deg)
    return height_m * angle / math.cos(off_nadir) ** 2


def _attitude_shares(state: VehicleState) -> tuple[float, float]:
    """Lasting and varying share of the attitude's error: an assumed attitude is wrong for good."""
    measured = state.pitch_deg is not None or state.gimbal_pitch_deg is not None
    return _MEASURED_ATTITUDE if measured else _ASSUMED_ATTITUDE
