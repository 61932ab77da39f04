"""Where one frame fits: retrieve, look closely where it is expected, and widely where that fails.

All that costs time in a frame is called from here, and shed here when there is not enough of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.backends.protocol import Backend
from edge_runtime.deadline import Deadline, Effort
from edge_runtime.feature_agreement import PairMatcher
from edge_runtime.frame_views import FrameView, FrameViews
from edge_runtime.geodesy import distance_m, move_lat_lon
from edge_runtime.ground_view import GroundView
from edge_runtime.index_format import TileLevel
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.matches import Candidate, Match
from edge_runtime.pose_correction import PoseCorrection
from edge_runtime.refinement import MERGE_M, Refiner
from edge_runtime.satellite_index import Circle, SatelliteIndex
from edge_runtime.search_effort import effort_for, windows_wanted
from edge_runtime.search_scope import SearchScope, close_look, control_places, scope_of
from edge_runtime.similarity_evidence import UsualSimilarity, similarity_log_evidence
from edge_runtime.stage_clock import StageClock
from edge_runtime.state import VehicleState
from edge_runtime.tracker import Estimate

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

PROVEN_LOG_EVIDENCE = 3.0
"""A close look that proves this much needs no wider one, and teaches the errors of the pose."""
_SOON_S = 0.6
"""Time between frames up to which a wider look can wait for the next one."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """One frame, ready to be looked for."""

    frame: U8
    """(H, W, 3) uint8 RGB."""
    state: VehicleState
    """At its exposure."""
    level: TileLevel
    """Tiles that it is compared with."""
    views: list[FrameView]
    """One per pose hypothesis; grows by those that turned tiles need."""
    seq: int = 0
    """Number of the frame."""
    since_last_s: float = math.inf
    """Time since the frame before."""


class Searched(NamedTuple):
    """What the search of one frame came to."""

    matches: list[Match]
    """Strongest evidence first."""
    scope: SearchScope
    """What the matches were looked for in."""
    effort: Effort
    """How much was done."""
    shed: tuple[str, ...]
    """What there was no time for."""


class FrameSearch:
    """Looks for frames in one index. Not thread-safe."""

    def __init__(
        self,
        index: SatelliteIndex,
        backend: Backend,
        views: FrameViews,
        config: LocalizerConfig,
        deadline: Deadline,
        *,
        features: PairMatcher | None = None,
    ) -> None:
        """Put together what a search needs.

        Args:
            index: to look in.
            backend: runs the encoder.
            views: makes the queries' views.
            config: of the search.
            deadline: says what can be afforded.
            features: finds local features; SIFT by default.
        """
        self._index, self._backend, self._views = index, backend, views
        self._config, self._deadline = config, deadline
        self._refiner = Refiner(index.imagery, features)
        self._usual = UsualSimilarity(index)
        self.close_only = False
        """Whether the last frame had nothing but a close look, which proved too little."""

    def look(
        self,
        query: Query,
        scope: SearchScope,
        before: Estimate | None,
        correction: PoseCorrection,
        clock: StageClock,
        *,
        effort: Effort | None = None,
    ) -> Searched:
        """Retrieve, then refine: close to the prediction where that proves enough, else widely.

        Args:
            query: the frame.
            scope: where it can be.
            before: what the tracker expects.
            correction: of heading and height, as the views were made with.
            clock: of the frame; encode and search are marked on it.
            effort: how much to do, as a recorded flight did; by default what the deadline allows.
        """
        candidates, usual = self._candidates(query, scope.near, before, clock)
        again, self.close_only = self.close_only, False
        close = None
        # One window is no answer where several headings or heights are possible.
        if len(query.views) == 1:
            close = close_look(scope, before, correction, self._index.area_m2(), again=again)
        candidates = self._turned(query, candidates)
        grounds = [view.ground for view in query.views]
        size_m = query.level.size_m
        if close is not None and (effort is None or effort.windows == close.windows):
            granted, shed = self._deadline.afford(close.windows, clock.elapsed_ms())
            granted = effort or granted
            if granted.windows:
                matches = self._coarse(query, grounds, candidates, close, granted.windows)
                matches = _with_similarity(matches, usual)
                proven = bool(matches) and matches[0].log_evidence >= PROVEN_LOG_EVIDENCE
                # One frame in a hundred shows too little, and mostly the next one shows enough:
                # a wider look, at several times the cost, waits for that one where it comes soon.
                if proven or (not again and query.since_last_s <= _SOON_S):
                    self.close_only = not proven
                    if proven and granted.fine:
                        matches = self._refiner.sharpened(
                            grounds, matches, size_m=size_m, features=False
                        )
                    return Searched(matches, close, granted, shed)
        granted, shed = effort_for(scope, len(query.views), self._deadline, clock.elapsed_ms())
        granted = effort or granted
        matches = []
        if granted.windows:
            started_ms = clock.elapsed_ms()
            matches = self._coarse(query, grounds, candidates, scope, granted.windows)
            if scope.near is not None:
                matches = _with_similarity(matches, usual)
            coarse_ms = clock.elapsed_ms() - started_ms
            if granted.fine:
                matches = self._refiner.sharpened(grounds, matches, size_m=size_m)
            fine_ms = clock.elapsed_ms() - started_ms - coarse_ms
            self._deadline.spent(granted, coarse_ms, fine_ms)
        return Searched(matches, scope, granted, shed)

    def anywhere(self, query: Query) -> list[Match]:
        """Every place on the map that the frame fits, however long it takes, strongest first."""
        scope = scope_of(None, query.state, query.level, self._config, self._index.area_m2())
        candidates, _ = self._candidates(query, None, None, StageClock(0.0))
        candidates = self._turned(query, candidates)
        grounds = [view.ground for view in query.views]
        windows = windows_wanted(scope, len(query.views))
        matches = self._coarse(query, grounds, candidates, scope, windows)
        return self._refiner.sharpened(grounds, matches, size_m=query.level.size_m)

    def _turned(self, query: Query, candidates: list[Candidate]) -> list[Candidate]:
        return self._views.turned(
            query.frame,
            query.state,
            query.level,
            query.views,
            candidates,
            self._index.tiles["heading_deg"],
        )

    def _coarse(
        self,
        query: Query,
        grounds: Sequence[GroundView],
        candidates: Sequence[Candidate],
        scope: SearchScope,
        windows: int,
    ) -> list[Match]:
        return self._refiner.refine(
            grounds,
            candidates,
            scope.range,
            size_m=query.level.size_m,
            most_windows=windows,
            controls=control_places(self._index, scope.near, query.seq),
            reach_m=scope.reach_m,
        )

    def _candidates(
        self, query: Query, near: Circle | None, before: Estimate | None, clock: StageClock
    ) -> tuple[list[Candidate], tuple[F32, F32]]:
        """Places to look at, best first: the tracker's own prediction, then what search found.

        And how similar tiles of the map usually are to each view.
        """
        views, level = query.views, query.level
        embeddings = self._backend.embed(np.stack([view.image for view in views]))
        clock.mark("encode")
        # Where the heading is known, tiles with another direction up are not what was asked for.
        known = _heading_known(query.state) and len(level.headings_deg) > 1
        found = self._index.search(
            embeddings,
            self._config.top_k * (len(level.headings_deg) if known else 1),
            near=near,
            level=self._index.levels.index(level) if len(self._index.levels) > 1 else None,
        )
        tiles = self._index.tiles
        candidates = []
        for v, (rows, similarities) in enumerate(zip(found.rows, found.similarities, strict=True)):
            usable = rows >= 0
            if known:
                usable &= tiles["heading_deg"][rows] == 0
            there = rows[usable]
            fields = (tiles["lat_deg"][there], tiles["lon_deg"][there], similarities[usable], there)
            candidates += [
                Candidate(lat_deg, lon_deg, v, similarity, row)
                for lat_deg, lon_deg, similarity, row in zip(
                    *(field.tolist() for field in fields), strict=True
                )
            ]
        candidates.sort(key=lambda c: -c.similarity)
        if near is not None and before is not None:
            ahead = [_predicted(before, v, view, candidates) for v, view in enumerate(views)]
            candidates = ahead + candidates
        usual = self._usual.spread(embeddings, level)
        clock.mark("search")
        return candidates, usual


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


def _heading_known(state: VehicleState) -> bool:
    return state.yaw_deg is not None or state.gimbal_yaw_deg is not None
