"""Where and how widely one frame is searched, by how much the tracker is sure of."""

import math
from dataclasses import dataclass

import numpy as np

from edge_runtime.fix import Mode
from edge_runtime.geodesy import distance_m
from edge_runtime.index_format import TileLevel
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.pose_correction import PoseCorrection
from edge_runtime.refinement import CONTROL_POOL, REACH_M, Candidate, SearchRange
from edge_runtime.satellite_index import Circle, SatelliteIndex
from edge_runtime.state import VehicleState
from edge_runtime.tracker import Estimate

CONTROLS = 3
"""Windows per frame that show what chance reaches while the position is known."""
_WIDEST_PRIOR_M = 600.0
"""A larger circle is no prior: the whole map is searched."""
_CLOSEST_M, _CLOSE_M = 12.0, REACH_M
"""Least and most reach of a close look."""
_CLOSE_PROBABILITY = 0.99


@dataclass(frozen=True, kw_only=True)
class SearchScope:
    """What one frame is compared with."""

    near: Circle | None
    """Where to search; None for the whole map."""
    windows: int
    """Windows of imagery to refine at most."""
    reach_m: float
    """How far from a window's centre."""
    range: SearchRange
    """Corrections of heading and height to try."""
    searched_m2: float
    """Ground on which a chance match can fall."""

    @property
    def mode(self) -> Mode:
        """For the record."""
        return "GLOBAL" if self.near is None else "TRACK"


def scope_of(
    estimate: Estimate | None,
    state: VehicleState,
    level: TileLevel,
    config: LocalizerConfig,
    area_m2: float,
) -> SearchScope:
    """The whole map, or a circle when the tracker is sure enough to say one."""
    # Without a heading a few windows near the prediction do not go round all headings.
    near = None if state.yaw_deg is None else _prior_circle(estimate, level)
    windows = config.global_windows if near is None else config.track_windows
    searched_m2 = area_m2 if near is None else min(area_m2, windows * (2 * REACH_M) ** 2)
    return SearchScope(
        near=near,
        windows=windows,
        reach_m=REACH_M,
        range=_full_range(state, config),
        searched_m2=searched_m2,
    )


def close_look(
    scope: SearchScope,
    estimate: Estimate | None,
    correction: PoseCorrection,
    area_m2: float,
    *,
    again: bool = False,
) -> SearchScope | None:
    """A much smaller search right at the prediction; None where too little is known for it.

    A track that has just matched knows its place to metres and the errors of heading and height, so
    one window and few warps say whether the prediction holds; the wider search comes where it does
    not.

    Args:
        scope: of the frame.
        estimate: of the tracker, before the frame.
        correction: of heading and height.
        area_m2: of the map.
        again: whether the last frame had nothing but a close look, which proved too little.
    """
    if scope.near is None or estimate is None or not correction.known:
        return None
    best = estimate.best
    reach_m = max(4.0 * best.sigma_m + 6.0, _CLOSEST_M)
    if estimate.probability < _CLOSE_PROBABILITY or reach_m > _CLOSE_M:
        return None
    if best.misses > again:
        return None
    yaw = max(1.5 * correction.yaw_sigma_deg, 2.0)
    scale = max(1.5 * correction.scale_sigma, 0.015)
    return SearchScope(
        near=scope.near,
        windows=1,
        reach_m=reach_m,
        range=SearchRange((-yaw, 0.0, yaw), (1 - scale, 1.0, 1 + scale), combined=False),
        searched_m2=min(area_m2, (2 * reach_m) ** 2),
    )


def control_places(index: SatelliteIndex, near: Circle | None, seq: int) -> list[Candidate]:
    """Tiles far from where the drone can be, other ones for the next frame.

    Near a prior all windows show much the same ground, so none says what chance reaches.

    Args:
        index: gives the tiles.
        near: where the drone can be; without one there are none.
        seq: number of the frame.
    """
    if near is None:
        return []
    tiles = index.tiles
    # Steps of the golden ratio spread evenly over the map, however few are taken.
    steps = (seq * CONTROLS + np.arange(4 * CONTROLS)) % CONTROL_POOL
    rows = ((steps * 0.6180339887) % 1.0 * len(tiles)).astype(np.int64)
    lat, lon = tiles["lat_deg"][rows], tiles["lon_deg"][rows]
    far = distance_m(near.lat_deg, near.lon_deg, lat, lon) > near.radius_m + 2 * REACH_M
    return [
        Candidate(float(lat[k]), float(lon[k]), 0, math.nan, -1)
        for k in np.flatnonzero(far)[:CONTROLS]
    ]


def _prior_circle(estimate: Estimate | None, level: TileLevel) -> Circle | None:
    if estimate is None or estimate.probability < 0.9:
        return None
    # A search near a place that is not confirmed would only ever find that place again.
    if not (estimate.confirmed or estimate.best.told):
        return None
    radius = 3.0 * estimate.best.sigma_m + REACH_M + level.size_m
    if estimate.best.misses >= 3 or radius > _WIDEST_PRIOR_M:
        return None
    return Circle(estimate.best.lat_deg, estimate.best.lon_deg, radius)


def _full_range(state: VehicleState, config: LocalizerConfig) -> SearchRange:
    if state.yaw_deg is None:
        yaw: tuple[float, ...] = (-12.0, -6.0, 0.0, 6.0, 12.0)
    else:
        step = config.yaw_sigma_deg
        yaw = tuple(step * k for k in (-2.0, -1.2, -0.6, 0.0, 0.6, 1.2, 2.0))
    step = 1.5 * config.scale_sigma if state.height_m is not None else 0.08
    return SearchRange(yaw, (1 - step, 1.0, 1 + step))
