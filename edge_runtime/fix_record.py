"""The record of one frame, made of what tracker and search say of it."""

import math
import time
from collections.abc import Sequence
from typing import Any

from edge_runtime.backends.protocol import BackendInfo
from edge_runtime.calibration import Calibration
from edge_runtime.deadline import Deadline
from edge_runtime.fix import Fix
from edge_runtime.fix_accuracy import stated_eph_m, verdict
from edge_runtime.frame_search import Searched
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.refinement import Match
from edge_runtime.stage_clock import StageClock
from edge_runtime.state import VehicleState
from edge_runtime.tracker import Estimate


class FixRecorder:
    """Numbers the records and knows whether a position has been given before."""

    def __init__(
        self,
        *,
        bundle_id: str,
        index_id: str,
        backend: BackendInfo,
        config: LocalizerConfig,
        calibration: Calibration | None,
        deadline: Deadline,
    ) -> None:
        """Take what is the same in every record.

        Args:
            bundle_id: of the encoder.
            index_id: of the map.
            backend: that runs the encoder.
            config: gives the thresholds.
            calibration: of the stated accuracy; None states it as assumed.
            deadline: says whether it was missed.
        """
        self.bundle_id, self.index_id, self.backend = bundle_id, index_id, backend
        self.config, self.calibration, self.deadline = config, calibration, deadline
        self.seq = 0
        """Number of the next record."""
        self._started_s = time.perf_counter()
        self._reported_track: int | None = None
        self._reset_counter = 0

    def snapshot(self) -> dict[str, Any]:
        """What the next record depends on, as JSON values."""
        return {
            "seq": self.seq,
            "reported_track": self._reported_track,
            "reset_counter": self._reset_counter,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Take the state that `snapshot` gave."""
        self.seq = int(snapshot["seq"])
        self._reported_track = snapshot["reported_track"]
        self._reset_counter = int(snapshot["reset_counter"])

    def record(
        self,
        frame_name: str,
        state: VehicleState,
        estimate: Estimate | None,
        searched: Searched,
        problem: str,
        clock: StageClock,
    ) -> Fix:
        """Judge a frame and write down everything about it.

        Args:
            frame_name: as its source calls it.
            state: at the exposure.
            estimate: of the tracker, after the frame.
            searched: what the search came to.
            problem: with the frame, if any.
            clock: of the frame; ends here.
        """
        matches, scope = searched.matches, searched.scope
        best = matches[0] if matches else None
        status, reason = verdict(
            estimate, self.config, tracked=self._reported_track is not None, problem=problem
        )
        usable = estimate if status in ("OK", "DEGRADED") else None
        eph_m = stated_m = None
        if usable is not None:
            stated_m = stated_eph_m(usable, best, state, self.config)
            eph_m = stated_m if self.calibration is None else self.calibration.eph_m(stated_m)
            if self._reported_track != usable.best.track_id:
                self._reset_counter += self._reported_track is not None
                self._reported_track = usable.best.track_id
        clock.mark("track")
        total_ms, info = clock.elapsed_ms(), self.backend
        fix = Fix(
            seq=self.seq,
            frame=frame_name,
            t_exposure_s=state.t_s,
            t_fix_s=round(time.perf_counter() - self._started_s, 4),
            status=status,
            mode=scope.mode,
            reason=reason,
            lat_deg=usable.best.lat_deg if usable else None,
            lon_deg=usable.best.lon_deg if usable else None,
            eph_m=eph_m,
            stated_eph_m=None if self.calibration is None else stated_m,
            yaw_deg=best.yaw_deg % 360.0 if best else None,
            look_lat_deg=best.look_lat_deg if best and usable else None,
            look_lon_deg=best.look_lon_deg if best and usable else None,
            probability=round(estimate.probability, 6) if estimate else 0.0,
            similarity=_known(best.similarity) if best else None,
            margin=_margin(matches),
            ncc=best.ncc if best else None,
            inliers=best.inliers if best else 0,
            reprojection_px=_known(best.reprojection_px) if best else None,
            tile_id=best.row if best and best.row >= 0 else None,
            prior=scope.mode == "TRACK",
            latency_ms={**clock.stages_ms, "total": total_ms},
            deadline_missed=self.deadline.missed(total_ms),
            shed=searched.shed,
            windows=searched.effort.windows,
            reset_counter=self._reset_counter,
            bundle_id=self.bundle_id,
            index_id=self.index_id,
            engine_id=info.engine or f"{info.provider}/{info.precision}",
            backend=info.name,
            fallback=info.fallback,
        )
        self.seq += 1
        return fix


def _known(value: float) -> float | None:
    """None for the NaN of what a match does not have: a tile, local features."""
    return None if math.isnan(value) else value


def _margin(matches: Sequence[Match]) -> float | None:
    if len(matches) < 2:
        return None
    return matches[0].log_evidence - matches[1].log_evidence
