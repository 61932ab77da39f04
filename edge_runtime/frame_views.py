"""One frame as the encoder and the refiner see it: north-up views for each pose worth trying."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.ground_view import GroundView, ViewHypothesis, ground_view, view_hypotheses
from edge_runtime.index_format import TileLevel
from edge_runtime.pose_correction import PoseCorrection
from edge_runtime.preprocess import EncoderSpec
from edge_runtime.reduced_frames import ReducedFrames
from edge_runtime.refinement import FINE_GSD_M, VIEW_MARGIN, Candidate
from edge_runtime.state import VehicleState
from edge_runtime.tile_levels import level_for, untried_hypotheses, visible_square_m

U8 = npt.NDArray[np.uint8]

_LEAST_CONTRAST = 2.0
"""Grey levels of standard deviation below which a frame shows nothing."""


class FrameView(NamedTuple):
    """What one pose hypothesis makes of a frame."""

    image: U8
    """(H, W, 3) uint8 RGB, as the encoder takes it: the ground of one tile."""
    ground: GroundView
    """Larger and at the refiner's resolution."""


class FrameViews:
    """Makes the views of frames for one camera, encoder and choice of tiles."""

    def __init__(
        self,
        camera: Camera,
        spec: EncoderSpec,
        levels: Sequence[TileLevel],
        height_range_m: tuple[float, float] | None,
    ) -> None:
        self._camera, self._spec, self._levels = camera, spec, levels
        self._height_range_m = height_range_m

    def level(self, state: VehicleState) -> TileLevel:
        """The tiles to compare with, by what the camera sees from this height."""
        heights_m = self._height_range_m if state.height_m is None else (state.height_m,)
        if len(self._levels) == 1 or not heights_m or min(heights_m) <= 0:
            return self._levels[0]
        height_m = math.sqrt(heights_m[0] * heights_m[-1])
        square_m = visible_square_m(self._camera, height_m, gimbal_pitch_deg=state.gimbal_pitch_deg)
        return level_for(self._levels, square_m)

    def make(
        self,
        frame: U8 | None,
        state: VehicleState,
        level: TileLevel,
        correction: PoseCorrection | None = None,
    ) -> tuple[list[FrameView], str]:
        """The views for each heading and height worth trying.

        Args:
            frame: (H, W, 3) uint8 RGB, or None.
            state: what is known of the pose.
            level: tiles to be compared with.
            correction: of heading and height, where a track has learned it.

        Returns:
            The views, and why there are none; empty where there are.
        """
        problem = _problem(frame)
        if problem or frame is None:
            return [], problem
        views = []
        # A source may fill the same array again, so nothing made of it outlives its call.
        frames = ReducedFrames(frame)
        try:
            hypotheses = view_hypotheses(state, height_range_m=self._height_range_m)
            for hypothesis in untried_hypotheses(hypotheses, level.headings_deg):
                corrected = _corrected(hypothesis, correction)
                view = self._view(frames, state, corrected, level)
                if view is not None:
                    views.append(view)
        except InputError as error:
            return [], str(error)
        return views, "" if views else "too little ground in view"

    def turned(
        self,
        frame: U8,
        state: VehicleState,
        level: TileLevel,
        views: list[FrameView],
        candidates: Sequence[Candidate],
        headings_deg: npt.NDArray[np.float32],
    ) -> list[Candidate]:
        """Candidates with the view that agrees with the direction of their tile.

        A view like a tile with heading h up was taken with a heading h more than assumed. Views
        that this needs are added to `views`.

        Args:
            frame: as the views were made of.
            state: the same.
            level: the same.
            views: of the frame; grows.
            candidates: from search.
            headings_deg: direction that is up, of each row of the tile table.
        """
        if len(level.headings_deg) == 1:
            return list(candidates)
        frames = ReducedFrames(frame)
        added: dict[tuple[int, float], int | None] = {}
        agreeing = []
        for candidate in candidates:
            turn = float(headings_deg[candidate.row]) if candidate.row >= 0 else 0.0
            key = (candidate.view, turn)
            if turn and key not in added:
                image, ground = views[candidate.view]
                yaw_deg = (ground.hypothesis.yaw_deg + turn) % 360.0
                hypothesis = ground.hypothesis._replace(yaw_deg=yaw_deg)
                wide = self._wide(frames, state, hypothesis, level)
                added[key] = None if wide is None else len(views)
                if wide is not None:
                    views.append(FrameView(image, wide))
            number = added[key] if turn else candidate.view
            if number is not None:
                agreeing.append(candidate._replace(view=number))
        return agreeing

    def _view(
        self,
        frame: ReducedFrames,
        state: VehicleState,
        hypothesis: ViewHypothesis,
        level: TileLevel,
    ) -> FrameView | None:
        wide = self._wide(frame, state, hypothesis, level)
        if wide is None:
            return None
        embedded = ground_view(
            frame,
            self._camera,
            state,
            hypothesis,
            size_m=level.size_m,
            size_px=self._spec.width_px,
        )
        return None if embedded is None else FrameView(embedded.image, wide)

    def _wide(
        self,
        frame: ReducedFrames,
        state: VehicleState,
        hypothesis: ViewHypothesis,
        level: TileLevel,
    ) -> GroundView | None:
        """The view that is refined: at the refiner's resolution, larger than a tile."""
        side_px = 2 * math.ceil(level.size_m * VIEW_MARGIN / FINE_GSD_M / 2)
        return ground_view(
            frame, self._camera, state, hypothesis, size_m=side_px * FINE_GSD_M, size_px=side_px
        )


def _problem(frame: U8 | None) -> str:
    if frame is None:
        return "frame cannot be read"
    if frame.size == 0:
        return "frame is empty"
    if float(np.std(frame[::8, ::8])) < _LEAST_CONTRAST:
        return "frame has no contrast"
    return ""


def _corrected(hypothesis: ViewHypothesis, correction: PoseCorrection | None) -> ViewHypothesis:
    if correction is None:
        return hypothesis
    return ViewHypothesis(
        (hypothesis.yaw_deg + correction.yaw_deg) % 360.0, hypothesis.height_m * correction.scale
    )
