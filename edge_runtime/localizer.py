"""Frame and state in, fix out: the stages of one frame, in order and within their deadline.

from edge_runtime import Localizer
localizer = Localizer.open("bundle", "index", Camera.load(Path("camera.json")))
fix = localizer.step(frame_rgb, state, frame_name="000123.jpg")
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.backends.protocol import Backend, BackendName, open_backend
from edge_runtime.bundle import Bundle, Precision
from edge_runtime.calibration import Calibration
from edge_runtime.camera import Camera
from edge_runtime.deadline import Deadline, Effort
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.fix_accuracy import measurement, stated_eph_m, verdict
from edge_runtime.frame_views import FrameView, FrameViews
from edge_runtime.geodesy import check_lat_lon, distance_m, move_lat_lon
from edge_runtime.ground_view import GroundView
from edge_runtime.index_format import TileLevel
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.pose_correction import PoseCorrection
from edge_runtime.refinement import MERGE_M, Candidate, Match, Refiner, view_centre
from edge_runtime.satellite_index import Circle, SatelliteIndex
from edge_runtime.search_scope import SearchScope, close_look, control_places, scope_of
from edge_runtime.similarity_evidence import UsualSimilarity, similarity_log_evidence
from edge_runtime.stage_clock import StageClock
from edge_runtime.state import VehicleState, finite_state
from edge_runtime.tracker import Estimate, Tracker, TrackerConfig

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_PROVEN_LOG_EVIDENCE = 3.0
"""A close look that proves this much needs no wider one, and teaches the errors of the pose."""
_SOON_S = 0.6
"""Time between frames up to which a wider look can wait for the next one."""


class Sight(NamedTuple):
    """What the newest frame showed and where it fits best, for people to look at."""

    view_rgb: U8
    """(S, S, 3) uint8, north-up ground view."""
    mask: U8
    """(S, S) uint8, 255 where the camera saw the ground."""
    size_m: float
    """Side on the ground."""
    centre_lat_deg: float | None
    """Where the view's centre lies by the best match; None without one."""
    centre_lon_deg: float | None
    yaw_correction_deg: float
    """By which the best match turns the view, clockwise."""
    scale_correction: float
    """By which the best match scales the view."""


class _Searched(NamedTuple):
    """What the search of one frame came to."""

    matches: list[Match]
    scope: SearchScope
    effort: Effort
    shed: tuple[str, ...]


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
        """
        self.bundle, self.index, self.backend, self.camera = bundle, index, backend, camera
        self.config = config or LocalizerConfig()
        tracker = tracker or TrackerConfig(view_m=index.level.size_m / 2)
        self._tracker = Tracker(index.area_m2(), tracker)
        self._refiner = Refiner(index.imagery)
        self._usual = UsualSimilarity(index)
        self.calibration = calibration
        self._views = FrameViews(camera, bundle.spec, index.levels, self.config.height_range_m)
        self._correction = PoseCorrection(self.config.yaw_sigma_deg, self.config.scale_sigma)
        self._deadline = Deadline(self.config.deadline_ms)
        self._seq = 0
        self._started_s = time.perf_counter()
        self._reported_track: int | None = None
        self._reset_counter = 0
        self._close_only = False
        self._last_t_s = 0.0
        self._since_last_s = math.inf
        self._sight: Sight | None = None
        info = backend.info
        self._engine_id = info.engine or f"{info.provider}/{info.precision}"

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
        localizer = cls(opened, satellite_index, chosen, camera, config, calibration=calibration)
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
        """Free the backend and close the index."""
        self.backend.close()
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
        self._since_last_s = state.t_s - self._last_t_s
        self._correction.predict(min(max(self._since_last_s, 0.0), 60.0))
        self._last_t_s = state.t_s
        velocity = _velocity(state)
        self._tracker.predict(state.t_s, velocity)
        before = self._tracker.estimate()
        level = self._views.level(state)
        area_m2 = self.index.area_m2()
        scope = scope_of(before, state, level, self.config, area_m2)
        if scope.near is None:
            self._correction.forget()
        views, found_problem = self._views.make(frame, state, level, self._correction)
        clock.mark("ground_view")
        searched = _Searched([], scope, Effort(0, False), ())
        if views and frame is not None:
            searched = self._search(frame, state, level, views, scope, before, effort, clock)
            clock.mark("refine")
        self._tracker.update(
            [measurement(m, state, self.config) for m in searched.matches],
            searched_m2=searched.scope.searched_m2,
            velocity_mps=velocity,
        )
        estimate = self._tracker.estimate()
        self._learn(estimate, views, searched.matches)
        self._sight = _sight(views, searched.matches)
        clock.mark("track")
        problem = (problem if frame is None else "") or found_problem
        return self._fix(frame_name, state, estimate, searched, problem, clock)

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
        scope = scope_of(None, state, level, self.config, self.index.area_m2())
        candidates, _ = self._candidates(views, level, None, None, state, StageClock(0.0))
        candidates = self._views.turned(
            frame, state, level, views, candidates, self.index.tiles["heading_deg"]
        )
        grounds = [view.ground for view in views]
        matches = self._coarse(grounds, candidates, level, scope, scope.windows)
        return self._refiner.sharpened(grounds, matches, size_m=level.size_m)

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
            "seq": self._seq,
            "reported_track": self._reported_track,
            "reset_counter": self._reset_counter,
            "close_only": self._close_only,
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
            self._seq = int(snapshot["seq"])
            self._reported_track = snapshot["reported_track"]
            self._reset_counter = int(snapshot["reset_counter"])
            self._close_only = bool(snapshot["close_only"])
            self._last_t_s = float(snapshot["last_t_s"])
        except (KeyError, TypeError, ValueError) as error:
            msg = f"the localizer's snapshot lacks or garbles {error}; expected one of this version"
            raise InputError(msg) from error

    def _search(
        self,
        frame: U8,
        state: VehicleState,
        level: TileLevel,
        views: list[FrameView],
        scope: SearchScope,
        before: Estimate | None,
        effort: Effort | None,
        clock: StageClock,
    ) -> _Searched:
        """Retrieve, then refine: close to the prediction where that proves enough, else widely."""
        candidates, usual = self._candidates(views, level, scope.near, before, state, clock)
        again, self._close_only = self._close_only, False
        close = None
        # One window is no answer where several headings or heights are possible.
        if len(views) == 1:
            close = close_look(scope, before, self._correction, self.index.area_m2(), again=again)
        candidates = self._views.turned(
            frame, state, level, views, candidates, self.index.tiles["heading_deg"]
        )
        grounds = [view.ground for view in views]
        if close is not None and (effort is None or effort.windows == close.windows):
            granted, shed = self._deadline.afford(close.windows, clock.elapsed_ms())
            granted = effort or granted
            if granted.windows:
                matches = self._coarse(grounds, candidates, level, close, granted.windows)
                matches = _with_similarity(matches, usual)
                proven = bool(matches) and matches[0].log_evidence >= _PROVEN_LOG_EVIDENCE
                # One frame in a hundred shows too little, and mostly the next one shows enough:
                # a wider look, at several times the cost, waits for that one where it comes soon.
                if proven or (not again and self._since_last_s <= _SOON_S):
                    self._close_only = not proven
                    if proven and granted.fine:
                        matches = self._refiner.sharpened(
                            grounds, matches, size_m=level.size_m, features=False
                        )
                    return _Searched(matches, close, granted, shed)
        granted, shed = self._deadline.afford(scope.windows, clock.elapsed_ms())
        granted = effort or granted
        matches = []
        if granted.windows:
            started_ms = clock.elapsed_ms()
            matches = self._coarse(grounds, candidates, level, scope, granted.windows)
            if scope.near is not None:
                matches = _with_similarity(matches, usual)
            coarse_ms = clock.elapsed_ms() - started_ms
            if granted.fine:
                matches = self._refiner.sharpened(grounds, matches, size_m=level.size_m)
            fine_ms = clock.elapsed_ms() - started_ms - coarse_ms
            self._deadline.spent(granted, coarse_ms, fine_ms)
        return _Searched(matches, scope, granted, shed)

    def _coarse(
        self,
        grounds: Sequence[GroundView],
        candidates: Sequence[Candidate],
        level: TileLevel,
        scope: SearchScope,
        windows: int,
    ) -> list[Match]:
        return self._refiner.refine(
            grounds,
            candidates,
            scope.range,
            size_m=level.size_m,
            most_windows=windows,
            controls=control_places(self.index, scope.near, self._seq),
            reach_m=scope.reach_m,
        )

    def _candidates(
        self,
        views: Sequence[FrameView],
        level: TileLevel,
        near: Circle | None,
        before: Estimate | None,
        state: VehicleState,
        clock: StageClock,
    ) -> tuple[list[Candidate], tuple[F32, F32]]:
        """Places to look at, best first: the tracker's own prediction, then what search found.

        And how similar tiles of the map usually are to each view.
        """
        embeddings = self.backend.embed(np.stack([view.image for view in views]))
        clock.mark("encode")
        # Where the heading is known, tiles with another direction up are not what was asked for.
        known = _heading_known(state) and len(level.headings_deg) > 1
        found = self.index.search(
            embeddings,
            self.config.top_k * (len(level.headings_deg) if known else 1),
            near=near,
            level=self.index.levels.index(level) if len(self.index.levels) > 1 else None,
        )
        tiles = self.index.tiles
        candidates = [
            Candidate(
                float(tiles["lat_deg"][row]),
                float(tiles["lon_deg"][row]),
                v,
                float(similarity),
                int(row),
            )
            for v in range(len(views))
            for row, similarity in zip(found.rows[v], found.similarities[v], strict=True)
            if row >= 0 and not (known and tiles["heading_deg"][row])
        ]
        candidates.sort(key=lambda c: -c.similarity)
        if near is not None and before is not None:
            ahead = [_predicted(before, v, view, candidates) for v, view in enumerate(views)]
            candidates = ahead + candidates
        usual = self._usual.spread(embeddings, level)
        clock.mark("search")
        return candidates, usual

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
        if best.log_evidence < _PROVEN_LOG_EVIDENCE:
            return
        assumed = views[best.view].ground.hypothesis
        self._correction.learn(best.yaw_deg - assumed.yaw_deg, best.height_m / assumed.height_m)

    def _fix(
        self,
        frame_name: str,
        state: VehicleState,
        estimate: Estimate | None,
        searched: _Searched,
        problem: str,
        clock: StageClock,
    ) -> Fix:
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
        total_ms = clock.elapsed_ms()
        fix = Fix(
            seq=self._seq,
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
            deadline_missed=self._deadline.missed(total_ms),
            shed=searched.shed,
            windows=searched.effort.windows,
            reset_counter=self._reset_counter,
            bundle_id=self.bundle.id,
            index_id=self.index.id,
            engine_id=self._engine_id,
            backend=self.backend.info.name,
            fallback=self.backend.info.fallback,
        )
        self._seq += 1
        return fix


def _with_similarity(matches: Sequence[Match], usual: tuple[F32, F32]) -> list[Match]:
    """Matches near a predicted place, with what their tiles' similarity adds; strongest first.

    Views that were turned to agree with a tile come after those that were embedded, and say nothing
    of their own.
    """
    median, spread = usual
    judged = []
    for match in matches:
        z = math.nan
        if match.view < len(median):
            z = float((match.similarity - median[match.view]) / spread[match.view])
        evidence = match.log_evidence + similarity_log_evidence(z)
        judged.append(replace(match, log_evidence=evidence))
    return sorted(judged, key=lambda m: -m.log_evidence)


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


def _predicted(
    before: Estimate, number: int, view: FrameView, found: Sequence[Candidate]
) -> Candidate:
    """Where a view's centre lies when the drone is where the tracker says.

    Args:
        before: of the tracker.
        number: of the view.
        view: gives the centre.
        found: candidates of search; the best one near enough to share a window lends its tile.
    """
    centre = move_lat_lon(
        before.best.lat_deg,
        before.best.lon_deg,
        view.ground.centre_east_m,
        view.ground.centre_north_m,
    )
    lat_deg, lon_deg = float(centre.lat_deg), float(centre.lon_deg)
    own = [c for c in found if c.view == number]
    apart_m = distance_m(
        lat_deg, lon_deg, np.array([c.lat_deg for c in own]), np.array([c.lon_deg for c in own])
    )
    near = np.flatnonzero(apart_m < MERGE_M)
    if not len(near):
        return Candidate(lat_deg, lon_deg, number, math.nan, -1)
    return own[int(near[0])]._replace(lat_deg=lat_deg, lon_deg=lon_deg)


def _sight(views: Sequence[FrameView], matches: Sequence[Match]) -> Sight | None:
    if not views:
        return None
    best = matches[0] if matches else None
    ground = views[best.view if best else 0].ground
    lat_deg, lon_deg = view_centre(ground, best) if best else (None, None)
    return Sight(
        view_rgb=ground.image,
        mask=ground.mask,
        size_m=ground.size_m,
        centre_lat_deg=lat_deg,
        centre_lon_deg=lon_deg,
        yaw_correction_deg=best.yaw_deg - ground.hypothesis.yaw_deg if best else 0.0,
        scale_correction=best.height_m / ground.hypothesis.height_m if best else 1.0,
    )


def _heading_known(state: VehicleState) -> bool:
    return state.yaw_deg is not None or state.gimbal_yaw_deg is not None


def _velocity(state: VehicleState) -> tuple[float, float] | None:
    if state.velocity_east_mps is None or state.velocity_north_mps is None:
        return None
    return state.velocity_east_mps, state.velocity_north_mps


def _known(value: float) -> float | None:
    """None for the NaN of what a match does not have: a tile, local features."""
    return None if math.isnan(value) else value


def _margin(matches: Sequence[Match]) -> float | None:
    if len(matches) < 2:
        return None
    return matches[0].log_evidence - matches[1].log_evidence
