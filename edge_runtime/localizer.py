"""Frame and state in, fix out: the stages of one frame, in order and within their deadline.

from edge_runtime import Localizer
localizer = Localizer.open("bundle", "index", Camera.load(Path("camera.json")))
fix = localizer.step(frame_rgb, state, frame_name="000123.jpg")
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.backends.protocol import Backend, BackendName, open_backend
from edge_runtime.bundle import Bundle, Precision
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix, Mode, Status
from edge_runtime.geodesy import check_lat_lon, distance_m, move_lat_lon
from edge_runtime.ground_view import (
    MAX_OFF_NADIR_DEG,
    GroundView,
    ViewHypothesis,
    ground_view,
    view_hypotheses,
)
from edge_runtime.index_format import TileLevel
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.refinement import (
    FINE_GSD_M,
    REACH_M,
    VIEW_MARGIN,
    Candidate,
    Match,
    Refiner,
    SearchRange,
)
from edge_runtime.satellite_index import Circle, SatelliteIndex
from edge_runtime.stage_clock import StageClock
from edge_runtime.state import VehicleState, finite_state
from edge_runtime.tile_levels import level_for, untried_hypotheses, visible_square_m
from edge_runtime.tracker import Estimate, Measurement, Tracker, TrackerConfig

U8 = npt.NDArray[np.uint8]

_CONTROLS = 3
"""Windows per frame that show what chance reaches while the position is known."""
_MEASURED_ATTITUDE, _ASSUMED_ATTITUDE = (0.4, 0.92), (1.0, 0.25)
"""How much of an attitude error lasts and how much varies from frame to frame, as factors on its
sigma: the lasting part moves every fix alike, the varying part is noise to the tracker."""


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
    ) -> None:
        """Put opened parts together; `Localizer.open` opens them from folders."""
        self.bundle, self.index, self.backend, self.camera = bundle, index, backend, camera
        self.config = config or LocalizerConfig()
        tracker = tracker or TrackerConfig(view_m=index.level.size_m / 2)
        self._tracker = Tracker(index.area_m2(), tracker)
        self._refiner = Refiner(index.imagery)
        self._seq = 0
        self._started_s = time.perf_counter()
        self._reported_track: int | None = None
        self._reset_counter = 0
        self._last_t_s = 0.0
        self._window_ms = 8.0
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

        Raises:
            SkyfixError: anything is missing, altered, or does not belong together.
        """
        opened = Bundle.open(Path(bundle))
        satellite_index = SatelliteIndex.open(Path(index), opened)
        chosen = open_backend(opened, backend, precision=precision, threads=threads)
        return cls(opened, satellite_index, chosen, camera, config)

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

    def step(
        self,
        frame: U8 | None,
        state: VehicleState,
        *,
        frame_name: str = "",
        capture_ms: float = 0.0,
    ) -> Fix:
        """Turn one frame into a fix. Never raises for what a camera or sensor may deliver.

        Args:
            frame: (H, W, 3) uint8 RGB, or None where the source could not read it.
            state: what else is known at the exposure.
            frame_name: for the record.
            capture_ms: time the source needed, for the record.
        """
        clock = StageClock(capture_ms)
        state = finite_state(state, last_t_s=self._last_t_s)
        self._last_t_s = state.t_s
        velocity = _velocity(state)
        self._tracker.predict(state.t_s, velocity)
        before = self._tracker.estimate()
        # Without a heading a few windows near the prediction do not go round all headings.
        level, known = self._level(state), _heading_known(state)
        near = None if state.yaw_deg is None else self._prior_circle(before, level)
        mode: Mode = "GLOBAL" if near is None else "TRACK"
        views, problem = self._views(frame, state, level)
        clock.mark("ground_view")
        matches: list[Match] = []
        shed: list[str] = []
        if views and frame is not None:
            candidates = self._candidates(views, level, near, before, known, clock)
            candidates = self._turned(frame, state, level, views, candidates)
            windows = self.config.global_windows if near is None else self.config.track_windows
            windows = self._affordable(windows, clock, shed)
            if windows:
                started_ms = clock.elapsed_ms()
                controls = self._controls(near)
                matches = self._refined(views, candidates, state, level, windows, controls)
                spent = (clock.elapsed_ms() - started_ms) / windows
                self._window_ms += 0.2 * (spent - self._window_ms)
            clock.mark("refine")
        self._tracker.update(
            [self._measurement(m, state) for m in matches],
            searched_m2=self._searched_m2(near),
            velocity_mps=velocity,
        )
        clock.mark("track")
        return self._fix(frame_name, state, mode, matches, problem, clock, shed)

    def match_anywhere(self, frame: U8, state: VehicleState) -> list[Match]:
        """Every place on the map that one frame fits, the strongest evidence first.

        Neither uses nor moves the track: this is what one frame alone can say, for evaluation.

        Args:
            frame: (H, W, 3) uint8 RGB.
            state: what else is known at the exposure.
        """
        level, known = self._level(state), _heading_known(state)
        views, _ = self._views(frame, state, level)
        if not views:
            return []
        candidates = self._candidates(views, level, None, None, known, StageClock(0.0))
        candidates = self._turned(frame, state, level, views, candidates)
        return self._refined(views, candidates, state, level, self.config.global_windows)

    def _level(self, state: VehicleState) -> TileLevel:
        """The tiles to compare with, by what the camera sees from this height."""
        heights_m = self.config.height_range_m if state.height_m is None else (state.height_m,)
        if len(self.index.levels) == 1 or not heights_m or min(heights_m) <= 0:
            return self.index.level
        height_m = math.sqrt(heights_m[0] * heights_m[-1])
        square_m = visible_square_m(self.camera, height_m, gimbal_pitch_deg=state.gimbal_pitch_deg)
        return level_for(self.index.levels, square_m)

    def _refined(
        self,
        views: Sequence[tuple[U8, GroundView]],
        candidates: Sequence[Candidate],
        state: VehicleState,
        level: TileLevel,
        windows: int,
        controls: Sequence[Candidate] = (),
    ) -> list[Match]:
        return self._refiner.refine(
            [view for _, view in views],
            candidates,
            self._search_range(state),
            size_m=level.size_m,
            most_windows=windows,
            controls=controls,
        )

    def _controls(self, near: Circle | None) -> list[Candidate]:
        """Tiles far from where the drone can be, other ones for every frame.

        Near a prior all windows show much the same ground, so none says what chance reaches.
        """
        if near is None:
            return []
        tiles = self.index.tiles
        # Steps of the golden ratio spread evenly over the map and do not repeat.
        steps = self._seq * _CONTROLS + np.arange(4 * _CONTROLS)
        rows = ((steps * 0.6180339887) % 1.0 * len(tiles)).astype(np.int64)
        lat, lon = tiles["lat_deg"][rows], tiles["lon_deg"][rows]
        far = distance_m(near.lat_deg, near.lon_deg, lat, lon) > near.radius_m + 2 * REACH_M
        return [
            Candidate(float(lat[k]), float(lon[k]), 0, math.nan, -1)
            for k in np.flatnonzero(far)[:_CONTROLS]
        ]

    def _views(
        self, frame: U8 | None, state: VehicleState, level: TileLevel
    ) -> tuple[list[tuple[U8, GroundView]], str]:
        """For each heading and height worth trying, the encoder's input and the refiner's view."""
        if frame is None:
            return [], "frame cannot be read"
        if frame.size == 0:
            return [], "frame is empty"
        if float(np.std(frame[::8, ::8])) < 2.0:
            return [], "frame has no contrast"
        spec, size_m = self.bundle.spec, level.size_m
        views = []
        try:
            hypotheses = view_hypotheses(state, height_range_m=self.config.height_range_m)
            for hypothesis in untried_hypotheses(hypotheses, level.headings_deg):
                embedded = self._ground_view(frame, state, hypothesis, size_m, spec.width_px)
                refined = self._wide_view(frame, state, hypothesis, level)
                if embedded is not None and refined is not None:
                    views.append((embedded.image, refined))
        except InputError as error:
            return [], str(error)
        return views, "" if views else "too little ground in view"

    def _turned(
        self,
        frame: U8,
        state: VehicleState,
        level: TileLevel,
        views: list[tuple[U8, GroundView]],
        candidates: Sequence[Candidate],
    ) -> list[Candidate]:
        """Candidates with the view that agrees with the direction of their tile.

        A view like a tile with heading h up was taken with a heading h more than assumed. Views
        that this needs are added to `views`.
        """
        if len(level.headings_deg) == 1:
            return list(candidates)
        headings = self.index.tiles["heading_deg"]
        added: dict[tuple[int, float], int | None] = {}
        agreeing = []
        for candidate in candidates:
            turn = float(headings[candidate.row]) if candidate.row >= 0 else 0.0
            key = (candidate.view, turn)
            if turn and key not in added:
                image, view = views[candidate.view]
                yaw_deg = (view.hypothesis.yaw_deg + turn) % 360.0
                hypothesis = view.hypothesis._replace(yaw_deg=yaw_deg)
                wide = self._wide_view(frame, state, hypothesis, level)
                added[key] = None if wide is None else len(views)
                if wide is not None:
                    views.append((image, wide))
            number = added[key] if turn else candidate.view
            if number is not None:
                agreeing.append(candidate._replace(view=number))
        return agreeing

    def _wide_view(
        self, frame: U8, state: VehicleState, hypothesis: ViewHypothesis, level: TileLevel
    ) -> GroundView | None:
        """The view that is refined: at the refiner's resolution, larger than a tile."""
        side_px = 2 * math.ceil(level.size_m * VIEW_MARGIN / FINE_GSD_M / 2)
        return self._ground_view(frame, state, hypothesis, side_px * FINE_GSD_M, side_px)

    def _ground_view(
        self, frame: U8, state: VehicleState, hypothesis: ViewHypothesis, size_m: float, px: int
    ) -> GroundView | None:
        return ground_view(frame, self.camera, state, hypothesis, size_m=size_m, size_px=px)

    def _candidates(
        self,
        views: Sequence[tuple[U8, GroundView]],
        level: TileLevel,
        near: Circle | None,
        before: Estimate | None,
        heading_known: bool,
        clock: StageClock,
    ) -> list[Candidate]:
        """Places to look at, best first: the tracker's own prediction, then what search found."""
        embeddings = self.backend.embed(np.stack([image for image, _ in views]))
        clock.mark("encode")
        # Where the heading is known, tiles with another direction up are not what was asked for.
        known = heading_known and len(level.headings_deg) > 1
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
            ahead = []
            for v, (_, view) in enumerate(views):
                centre = move_lat_lon(
                    before.best.lat_deg,
                    before.best.lon_deg,
                    view.centre_east_m,
                    view.centre_north_m,
                )
                ahead.append(
                    Candidate(float(centre.lat_deg), float(centre.lon_deg), v, math.nan, -1)
                )
            candidates = ahead + candidates
        clock.mark("search")
        return candidates

    def _prior_circle(self, estimate: Estimate | None, level: TileLevel) -> Circle | None:
        """Where to search, when the tracker is sure enough to say."""
        if estimate is None or estimate.probability < 0.9:
            return None
        radius = 3.0 * estimate.best.sigma_m + REACH_M + level.size_m
        if estimate.best.misses >= 3 or radius > 600.0:
            return None
        return Circle(estimate.best.lat_deg, estimate.best.lon_deg, radius)

    def _searched_m2(self, near: Circle | None) -> float:
        if near is None:
            return self.index.area_m2()
        return min(self.index.area_m2(), self.config.track_windows * (2 * REACH_M) ** 2)

    def _search_range(self, state: VehicleState) -> SearchRange:
        if state.yaw_deg is None:
            yaw: tuple[float, ...] = (-12.0, -6.0, 0.0, 6.0, 12.0)
        else:
            step = self.config.yaw_sigma_deg
            yaw = tuple(step * k for k in (-2.0, -1.2, -0.6, 0.0, 0.6, 1.2, 2.0))
        step = 1.5 * self.config.scale_sigma if state.height_m is not None else 0.08
        return SearchRange(yaw, (1 - step, 1.0, 1 + step))

    def _affordable(self, windows: int, clock: StageClock, shed: list[str]) -> int:
        """Windows that fit in what is left of the deadline; says what was shed."""
        if self.config.deadline_ms is None:
            return windows
        left_ms = self.config.deadline_ms - clock.elapsed_ms() - 2.0
        affordable = int(left_ms / max(self._window_ms, 0.1))
        if affordable >= windows:
            return windows
        if affordable < 1:
            shed.append("refine")
            return 0
        shed.append("candidates")
        return affordable

    def _measurement(self, match: Match, state: VehicleState) -> Measurement:
        varying = _attitude_shares(state)[1]
        sigma_m = math.hypot(match.sigma_m, varying * self._attitude_m(match.height_m, match))
        return Measurement(match.lat_deg, match.lon_deg, sigma_m, match.log_evidence)

    def _attitude_m(self, height_m: float, match: Match | None) -> float:
        """How far an error of attitude_sigma_deg moves the drone against the ground it sees."""
        off_nadir = 0.0
        if match is not None:
            reach_m = float(
                distance_m(match.lat_deg, match.lon_deg, match.look_lat_deg, match.look_lon_deg)
            )
            off_nadir = min(math.atan2(reach_m, height_m), math.radians(MAX_OFF_NADIR_DEG))
        angle = math.radians(self.config.attitude_sigma_deg)
        return height_m * angle / math.cos(off_nadir) ** 2

    def _fix(
        self,
        frame_name: str,
        state: VehicleState,
        mode: Mode,
        matches: Sequence[Match],
        problem: str,
        clock: StageClock,
        shed: Sequence[str],
    ) -> Fix:
        estimate = self._tracker.estimate()
        best = matches[0] if matches else None
        status, reason = self._status(estimate, problem)
        usable = estimate is not None and status in ("OK", "DEGRADED")
        eph_m = None
        if usable and estimate is not None:
            # The lasting part of attitude errors does not average out over frames: it is a floor.
            height_m = state.height_m or (best.height_m if best else 0.0)
            lasting_m = _attitude_shares(state)[0] * self._attitude_m(height_m, best)
            eph_m = math.hypot(estimate.best.sigma_m, lasting_m)
            if self._reported_track != estimate.best.track_id:
                self._reset_counter += self._reported_track is not None
                self._reported_track = estimate.best.track_id
        clock.mark("track")
        total_ms = clock.elapsed_ms()
        fix = Fix(
            seq=self._seq,
            frame=frame_name,
            t_exposure_s=state.t_s,
            t_fix_s=round(time.perf_counter() - self._started_s, 4),
            status=status,
            mode=mode,
            reason=reason,
            lat_deg=estimate.best.lat_deg if usable and estimate else None,
            lon_deg=estimate.best.lon_deg if usable and estimate else None,
            eph_m=eph_m,
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
            prior=mode == "TRACK",
            latency_ms={**clock.stages_ms, "total": total_ms},
            deadline_missed=self.config.deadline_ms is not None
            and total_ms > self.config.deadline_ms,
            shed=tuple(shed),
            reset_counter=self._reset_counter,
            bundle_id=self.bundle.id,
            index_id=self.index.id,
            engine_id=self._engine_id,
            backend=self.backend.info.name,
        )
        self._seq += 1
        return fix

    def _status(self, estimate: Estimate | None, problem: str) -> tuple[Status, str]:
        if estimate is None:
            return "ABSTAIN", problem or "no match yet"
        best = estimate.best
        tracked = self._reported_track is not None
        if best.misses >= 3 and best.since_match_s > self.config.lost_after_s:
            reason = problem or f"no agreeing match for {best.since_match_s:.1f} s"
            return ("LOST" if tracked else "ABSTAIN"), reason
        if estimate.probability < 0.5:
            reason = (
                problem or f"several places fit, the best is believed {estimate.probability:.0%}"
            )
            return ("LOST" if tracked else "ABSTAIN"), reason
        if estimate.probability < self.config.ok_probability:
            return "ABSTAIN", problem or f"believed only {estimate.probability:.1%}"
        if best.sigma_m > self.config.max_eph_m:
            return "ABSTAIN", problem or f"accuracy only {best.sigma_m:.0f} m"
        if best.misses >= 3:
            return "DEGRADED", problem or f"dead reckoning for {best.since_match_s:.1f} s"
        return "OK", ""


def _attitude_shares(state: VehicleState) -> tuple[float, float]:
    """Lasting and varying share of the attitude's error: an assumed attitude is wrong for good."""
    measured = state.pitch_deg is not None or state.gimbal_pitch_deg is not None
    return _MEASURED_ATTITUDE if measured else _ASSUMED_ATTITUDE


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
