"""Frame and state in, fix out: the stages of one frame, in order and within their deadline.

from edge_runtime import Localizer
localizer = Localizer.open("bundle", "index", Camera.load(Path("camera.json")))
fix = localizer.step(frame_rgb, state, frame_name="000123.jpg")
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.backends.protocol import Backend, BackendName, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.calibration import Calibration
from edge_runtime.camera import Camera
from edge_runtime.deadline import Deadline, Effort
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.fix_accuracy import measurement
from edge_runtime.fix_record import FixRecorder
from edge_runtime.frame_search import PROVEN_LOG_EVIDENCE, FrameSearch, Query, Searched
from edge_runtime.frame_views import FrameView, FrameViews
from edge_runtime.geodesy import check_lat_lon, distance_m
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.matcher_opening import ResilientMatcher, open_matcher
from edge_runtime.pose_correction import PoseCorrection
from edge_runtime.precision import Precision
from edge_runtime.refinement import FEATURE_REACH_M, FINE_GSD_M, Match
from edge_runtime.satellite_index import SatelliteIndex
from edge_runtime.search_scope import scope_of
from edge_runtime.sight import Sight, sight_of
from edge_runtime.stage_clock import StageClock
from edge_runtime.state import VehicleState, finite_state
from edge_runtime.tracker import Estimate, Tracker, TrackerConfig

U8 = npt.NDArray[np.uint8]


class Localizer:
    """Everything needed to turn frames into fixes. Not thread-safe; one per camera."""

    def __init__(
        self,
        bundle: Bundle,
        index: SatelliteIndex,
        backend: Backend,
        camera: Camera,
        config: LocalizerConfig | None = None,
        tracker: TrackerConfig | None = None,
        calibration: Calibration | None = None,
        matcher: ResilientMatcher | None = None,
    ) -> None:
        """Put opened parts together; `Localizer.open` opens them from folders.

        Args:
            bundle: the encoder's.
            index: made with it.
            backend: runs the encoder.
            camera: that takes the frames.
            config: of the search and refinement.
            tracker: how matches are weighed over time.
            calibration: of the stated accuracy; None states it as assumed.
            matcher: finds local features in place of SIFT.
        """
        self.bundle, self.index, self.backend, self.camera = bundle, index, backend, camera
        self.config = config or LocalizerConfig()
        tracker = tracker or TrackerConfig(view_m=index.level.size_m / 2)
        self._tracker = Tracker(index.area_m2(), tracker)
        self._views = FrameViews(camera, bundle.spec, index.levels, self.config.height_range_m)
        self._correction = PoseCorrection(self.config.yaw_sigma_deg, self.config.scale_sigma)
        deadline = Deadline(self.config.deadline_ms)
        self.matcher = matcher
        self._search = FrameSearch(
            index, backend, self._views, self.config, deadline, features=matcher
        )
        self._recorder = FixRecorder(
            bundle_id=bundle.id,
            index_id=index.id,
            backend=backend.info,
            config=self.config,
            calibration=calibration,
            deadline=deadline,
        )
        self._last_t_s = 0.0
        self._sight: Sight | None = None

    @classmethod
    def open(
        cls,
        bundle: Path | str,
        index: Path | str,
        camera: Camera,
        *,
        backend: BackendName = "auto",
        config: LocalizerConfig | None = None,
        precision: Precision | None = None,
        threads: int | None = None,
        calibrated: bool = True,
        false_fix_rate: float | None = None,
        matcher: Path | str | None = None,
    ) -> "Localizer":
        """Open and verify a bundle and its index, and prove the backend on the probes.

        Args:
            bundle: encoder folder.
            index: satellite index folder made with it.
            camera: that takes the frames.
            backend: what runs the encoder.
            config: of the search and refinement.
            precision: which of the bundle's encoders; by default the backend's own choice.
            threads: CPU threads of the encoder; by default all.
            calibrated: whether the index's calibration is used, where it has one.
            false_fix_rate: largest share of answered stretches of flight that may be false; the
                calibration says which belief that takes, in place of the config's.
            matcher: ONNX file that finds local features in place of SIFT (docs/matcher.md).

        Raises:
            SkyfixError: anything is missing, altered, or does not belong together.
        """
        config = config or LocalizerConfig()
        opened = Bundle.open(Path(bundle))
        satellite_index = SatelliteIndex.open(Path(index), opened)
        calibration = None
        if calibrated:
            calibration = Calibration.open(
                Path(index), index_id=satellite_index.id, bundle_id=opened.id
            )
        if false_fix_rate is not None:
            config = _abstaining(config, calibration, false_fix_rate)
        chosen = open_backend(opened, backend, precision=precision, threads=threads)
        features = None
        if matcher is not None:
            features = open_matcher(
                Path(matcher),
                chosen.info,
                sides_px=sorted({round(v.size_m / FINE_GSD_M) for v in satellite_index.levels}),
                reach_px=FEATURE_REACH_M / FINE_GSD_M,
                threads=threads,
            )
        localizer = cls(
            opened,
            satellite_index,
            chosen,
            camera,
            config,
            calibration=calibration,
            matcher=features,
        )
        localizer.warm_up()
        return localizer

    def start_at(self, lat_deg: float, lon_deg: float, sigma_m: float) -> None:
        """Give a position prior with its 1-sigma error per axis.

        Raises:
            InputError: not a position, or one that is not on the map, or sigma_m is no error.
        """
        check_lat_lon(lat_deg, lon_deg)
        if not 0 < sigma_m < math.inf:
            msg = (
                f"the start position's 1-sigma error is {sigma_m} m; expected a positive number, "
                "as 50"
            )
            raise InputError(msg)
        if not self.index.contains(lat_deg, lon_deg):
            swapped = abs(lon_deg) <= 90 and self.index.contains(lon_deg, lat_deg)
            hint = "is the order (lat, lon)?" if swapped else "give a position on the map"
            b = self.index.imagery.bounds
            msg = (
                f"start position {lat_deg:.5f}, {lon_deg:.5f} is not on the map, which covers "
                f"latitudes {b.south_deg:.5f} to {b.north_deg:.5f} and longitudes "
                f"{b.west_deg:.5f} to {b.east_deg:.5f}; {hint}"
            )
            raise InputError(msg)
        self._tracker.start_at(lat_deg, lon_deg, sigma_m)

    def close(self) -> None:
        """Free the backend and the matcher and close the index."""
        self.backend.close()
        if self.matcher is not None:
            self.matcher.close()
        self.index.close()

    def place(self) -> tuple[float, float] | None:
        """Most probable position (lat, lon), degrees, however little it is believed."""
        estimate = self._tracker.estimate()
        return None if estimate is None else (estimate.best.lat_deg, estimate.best.lon_deg)

    @property
    def sight(self) -> Sight | None:
        """What the newest frame showed; None when it showed no ground. Not to be written to."""
        return self._sight

    def step(
        self,
        frame: U8 | None,
        state: VehicleState,
        *,
        frame_name: str = "",
        capture_ms: float = 0.0,
        problem: str = "",
        effort: Effort | None = None,
    ) -> Fix:
        """Turn one frame into a fix. Never raises for what a camera or sensor may deliver.

        Args:
            frame: (H, W, 3) uint8 RGB, or None where the source could not read it.
            state: what else is known at the exposure.
            frame_name: for the record.
            capture_ms: time the source needed, for the record.
            problem: why there is no frame, where the source knows it.
            effort: how much to do, as a recorded flight did; by default what the deadline allows.
        """
        clock = StageClock(capture_ms)
        state = finite_state(state, last_t_s=self._last_t_s)
        since_last_s, self._last_t_s = state.t_s - self._last_t_s, state.t_s
        self._correction.predict(min(max(since_last_s, 0.0), 60.0))
        velocity = _velocity(state)
        self._tracker.predict(state.t_s, velocity)
        before = self._tracker.estimate()
        level = self._views.level(state)
        scope = scope_of(before, state, level, self.config, self.index.area_m2())
        if scope.near is None:
            self._correction.forget()
        views, found_problem = self._views.make(frame, state, level, self._correction)
        clock.mark("ground_view")
        searched = Searched([], scope, Effort(0, False), ())
        if views and frame is not None:
            query = Query(
                frame=frame,
                state=state,
                level=level,
                views=views,
                seq=self._recorder.seq,
                since_last_s=since_last_s,
            )
            searched = self._search.look(
                query, scope, before, self._correction, clock, effort=effort
            )
            clock.mark("refine")
        self._tracker.update(
            [measurement(m, state, self.config) for m in searched.matches],
            searched_m2=searched.scope.searched_m2,
            velocity_mps=velocity,
        )
        estimate = self._tracker.estimate()
        self._learn(estimate, views, searched.matches)
        self._sight = sight_of(views, searched.matches)
        clock.mark("track")
        problem = (problem if frame is None else "") or found_problem
        return self._recorder.record(frame_name, state, estimate, searched, problem, clock)

    def match_anywhere(self, frame: U8, state: VehicleState) -> list[Match]:
        """Every place on the map that one frame fits, the strongest evidence first.

        Neither uses nor moves the track: this is what one frame alone can say, for evaluation.

        Args:
            frame: (H, W, 3) uint8 RGB.
            state: what else is known at the exposure.
        """
        level = self._views.level(state)
        views, _ = self._views.make(frame, state, level)
        if not views:
            return []
        return self._search.anywhere(Query(frame=frame, state=state, level=level, views=views))

    def warm_up(self) -> None:
        """Go every way of a frame once, so that none is slow or takes new memory in flight.

        The track knows nothing of it.
        """
        camera, size_m = self.camera, self.index.level.size_m
        frame = np.random.default_rng(0).integers(
            0, 256, (camera.height_px, camera.width_px, 3), np.uint8
        )
        # From where a tile fills the picture; an oblique camera sees as much from lower down.
        tangent = min(camera.width_px / camera.fx_px, camera.height_px / camera.fy_px)
        self.match_anywhere(frame, VehicleState(t_s=0.0, height_m=size_m / tangent, yaw_deg=0.0))

    def snapshot(self) -> dict[str, Any]:
        """Everything that the next fix depends on besides its frame and state, as JSON values."""
        return {
            "tracker": self._tracker.snapshot(),
            "correction": self._correction.snapshot(),
            "recorder": self._recorder.snapshot(),
            "close_only": self._search.close_only,
            "last_t_s": self._last_t_s,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from where `snapshot` was taken.

        Raises:
            InputError: not a snapshot of this version.
        """
        try:
            self._tracker.restore(snapshot["tracker"])
            self._correction.restore(snapshot["correction"])
            self._recorder.restore(snapshot["recorder"])
            self._search.close_only = bool(snapshot["close_only"])
            self._last_t_s = float(snapshot["last_t_s"])
        except (KeyError, TypeError, ValueError) as error:
            msg = f"the localizer's snapshot lacks or garbles {error}; expected one of this version"
            raise InputError(msg) from error

    def _learn(
        self, estimate: Estimate | None, views: Sequence[FrameView], matches: Sequence[Match]
    ) -> None:
        """Take the heading and height of a match that the track believes in."""
        if estimate is None or not matches or estimate.probability < self.config.ok_probability:
            return
        best, hypothesis = matches[0], estimate.best
        apart_m = distance_m(best.lat_deg, best.lon_deg, hypothesis.lat_deg, hypothesis.lon_deg)
        if hypothesis.misses or apart_m > 3 * hypothesis.sigma_m + 3:
            return
        if best.log_evidence < PROVEN_LOG_EVIDENCE:
            return
        assumed = views[best.view].ground.hypothesis
        self._correction.learn(best.yaw_deg - assumed.yaw_deg, best.height_m / assumed.height_m)


def _abstaining(
    config: LocalizerConfig, calibration: Calibration | None, false_fix_rate: float
) -> LocalizerConfig:
    """The config with the belief that keeps false fixes at a rate.

    Raises:
        InputError: the calibration does not prove any such belief.
    """
    if calibration is None:
        msg = (
            f"a false-fix rate of {false_fix_rate} was asked for and the index has no calibration; "
            "make one: python -m benchmarks calibrate"
        )
        raise InputError(msg)
    abstain = calibration.ok_probability(false_fix_rate)
    if not abstain.proven:
        msg = (
            f"a false-fix rate of {false_fix_rate} was asked for and the calibration proves "
            f"{abstain.at_most:.4f} at best; ask for no less, or calibrate on more flights"
        )
        raise InputError(msg)
    return replace(config, ok_probability=abstain.ok_probability)


def _velocity(state: VehicleState) -> tuple[float, float] | None:
    if state.velocity_east_mps is None or state.velocity_north_mps is None:
        return None
    return state.velocity_east_mps, state.velocity_north_mps
