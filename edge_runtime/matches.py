"""Where a view could have been taken, where it fits, and the geometry between the two.

A view's centre, the point below the drone and the point the camera looks at lie apart; a correction
of heading and height turns and stretches what lies between them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edge_runtime.correlation import Peak, Warp
from edge_runtime.geodesy import distance_m, move_lat_lon
from edge_runtime.ground_view import GroundView

_SAME_PLACE_M = 8.0
"""Matches nearer than this to each other name the same place."""


class Candidate(NamedTuple):
    """A place where a view could have been taken, from search or from the tracker."""

    lat_deg: float
    """Where the view's centre would lie."""
    lon_deg: float
    view: int
    """Which of the views."""
    similarity: float
    """Cosine similarity of its tile; NaN for a candidate that did not come from search."""
    row: int
    """Row of the tile table; -1 for one that did not come from search."""


class SearchRange(NamedTuple):
    """Corrections to heading and height that are tried."""

    yaw_deg: tuple[float, ...]
    scale: tuple[float, ...]
    combined: bool = True
    """Whether headings are tried with every scale; else one of them is wrong at a time."""

    def warps(self) -> list[Warp]:
        """Every correction, the smallest first."""
        pairs = [
            (y, s)
            for y in self.yaw_deg
            for s in self.scale
            if self.combined or y == 0.0 or s == 1.0
        ]
        pairs.sort(key=lambda p: abs(p[0]) + 100 * abs(p[1] - 1))
        return [Warp(yaw_deg=y, scale=s) for y, s in pairs]


@dataclass(frozen=True, kw_only=True)
class Match:
    """One place where the view fits, and how well."""

    lat_deg: float
    """Position of the drone."""
    lon_deg: float
    look_lat_deg: float
    """Where the optical axis meets the ground."""
    look_lon_deg: float
    yaw_deg: float
    """Heading with the correction that fits best."""
    height_m: float
    """Height with the correction that fits best."""
    similarity: float
    row: int
    view: int
    ncc: float
    """Correlation at the finest resolution it was looked at."""
    z: float
    """Correlation in standard deviations of what chance gives here."""
    inliers: int
    """Local features that agree; 0 where they were not used."""
    reprojection_px: float
    """Root mean square error of these features, NaN without them."""
    log_evidence: float
    """Logarithm of how much more likely this agreement is at the right place than at a wrong
    one."""
    sigma_m: float
    """1-sigma error of the match itself, without the attitude's share."""


def placed(
    view: GroundView, candidate: Candidate, peak: Peak, *, gsd_m: float, sigma_m: float
) -> Match:
    """Turn a peak into positions: the view's centre, then the drone and the optical axis.

    Args:
        view: that was correlated.
        candidate: whose window it was correlated with.
        peak: where it fits, in pixels from the window's centre.
        gsd_m: ground metres per pixel of view and window.
        sigma_m: 1-sigma error of such a peak.

    Returns:
        A match that no features were asked about and whose evidence is not weighed: 0.
    """
    centre = move_lat_lon(
        candidate.lat_deg, candidate.lon_deg, peak.column * gsd_m, -peak.row * gsd_m
    )
    east, north = turned_offset(view.centre_east_m, view.centre_north_m, peak.warp)
    drone = move_lat_lon(centre.lat_deg, centre.lon_deg, -east, -north)
    east, north = turned_offset(view.look_east_m, view.look_north_m, peak.warp)
    look = move_lat_lon(drone.lat_deg, drone.lon_deg, east, north)
    return Match(
        lat_deg=float(drone.lat_deg),
        lon_deg=float(drone.lon_deg),
        look_lat_deg=float(look.lat_deg),
        look_lon_deg=float(look.lon_deg),
        yaw_deg=view.hypothesis.yaw_deg + peak.warp.yaw_deg,
        height_m=view.hypothesis.height_m * peak.warp.scale,
        similarity=candidate.similarity,
        row=candidate.row,
        view=candidate.view,
        ncc=peak.ncc,
        z=peak.z,
        inliers=0,
        reprojection_px=math.nan,
        log_evidence=0.0,
        sigma_m=sigma_m,
    )


def correction(view: GroundView, match: Match) -> Warp:
    """What a match says of the heading and height that the view was made with."""
    return Warp(
        yaw_deg=match.yaw_deg - view.hypothesis.yaw_deg,
        scale=match.height_m / view.hypothesis.height_m,
    )


def turned_offset(east_m: float, north_m: float, warp: Warp) -> tuple[float, float]:
    """An offset from the drone after correcting its heading (clockwise) and height."""
    angle = math.radians(warp.yaw_deg)
    cos, sin = math.cos(angle) * warp.scale, math.sin(angle) * warp.scale
    return east_m * cos + north_m * sin, north_m * cos - east_m * sin


def view_centre(view: GroundView, match: Match) -> tuple[float, float]:
    """Where the centre of the view lies on the map according to a match."""
    east, north = turned_offset(view.centre_east_m, view.centre_north_m, correction(view, match))
    centre = move_lat_lon(match.lat_deg, match.lon_deg, east, north)
    return float(centre.lat_deg), float(centre.lon_deg)


def distinct(matches: Sequence[Match]) -> list[Match]:
    """Keep the strongest of matches that name the same place."""
    kept: list[Match] = []
    for match in matches:
        apart = (
            float(distance_m(k.lat_deg, k.lon_deg, match.lat_deg, match.lon_deg)) > _SAME_PLACE_M
            for k in kept
        )
        if all(apart):
            kept.append(match)
    return kept
