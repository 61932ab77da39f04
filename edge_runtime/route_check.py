"""Where along a route the drone cannot be found on a map."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edge_runtime.geodesy import F64, enu_offset_m
from edge_runtime.index_format import TileLevel
from edge_runtime.map_ambiguity import I64, TileScores
from edge_runtime.map_places import GroundClass, classes_of
from edge_runtime.route import Route, RoutePoints
from edge_runtime.satellite_index import SatelliteIndex

GroundOfRoute = GroundClass | Literal["off the map"]
LOST: frozenset[str] = frozenset({"off the map", "featureless", "ambiguous"})
"""Ground on which a single view is more likely to be placed wrongly than rightly, or not at all."""
_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A part of a route over ground of one class."""

    ground: GroundOfRoute
    start_m: float
    """From the start of the route."""
    end_m: float
    start_lat_deg: float
    start_lon_deg: float
    end_lat_deg: float
    end_lon_deg: float
    chance_mean: float | None
    """Of a wrong first answer; None off the map."""

    @property
    def length_m(self) -> float:
        """Along the route."""
        return self.end_m - self.start_m


@dataclass(frozen=True, kw_only=True)
class RouteReport:
    """What a route flies over, one stretch after another."""

    length_m: float
    step_m: float
    height_m: tuple[float, float] | None
    """Lowest and highest, as the file writes them."""
    stretches: tuple[Stretch, ...]
    metres: dict[str, float]
    """Of each class of ground."""
    lost_m: float
    """Off the map, featureless or ambiguous, altogether."""
    longest_lost_m: float
    """Without any better ground between."""
    longest_lost_start_m: float | None

    @property
    def lost_share(self) -> float:
        """Of the route, 0..1."""
        return self.lost_m / self.length_m


def tiles_below(index: SatelliteIndex, level: TileLevel, points: RoutePoints) -> I64:
    """(S,) the row of the tile nearest to every point; -1 where the point is in no tile's square.

    Of a tile's turned copies the first is taken.
    """
    tiles = index.tiles[level.first_row : level.row_range.stop]
    lat = np.asarray(tiles["lat_deg"], np.float64)
    lon = np.asarray(tiles["lon_deg"], np.float64)
    half = level.size_m / 2
    found = np.full(len(points.at_m), -1, np.int64)
    for first in range(0, len(found), _CHUNK):
        part = slice(first, first + _CHUNK)
        here_lat, here_lon = points.lat_deg[part], points.lon_deg[part]
        middle = len(here_lat) // 2
        span = enu_offset_m(here_lat[middle], here_lon[middle], here_lat, here_lon)
        # Much of a large map is left out by latitude, which is quick, before the rest.
        reach_m = float(np.hypot(span.east_m, span.north_m).max()) * 1.01 + 1.5 * level.size_m
        band = np.flatnonzero(np.abs(lat - here_lat[middle]) <= reach_m / 110_000.0)
        away = enu_offset_m(here_lat[middle], here_lon[middle], lat[band], lon[band])
        near = band[np.hypot(away.east_m, away.north_m) <= reach_m]
        if len(near) == 0:
            continue
        apart = enu_offset_m(here_lat[:, None], here_lon[:, None], lat[near], lon[near])
        square = apart.east_m**2 + apart.north_m**2
        best = square.argmin(axis=1)
        one = np.arange(len(best))
        inside = np.maximum(np.abs(apart.east_m[one, best]), np.abs(apart.north_m[one, best]))
        found[part] = np.where(inside <= half, near[best] + level.first_row, -1)
    return found


def route_report(route: Route, points: RoutePoints, below: I64, scores: TileScores) -> RouteReport:
    """Join steps over the same class of ground.

    A step's ground holds from halfway to the step before it until halfway to the next.

    Args:
        route: the whole.
        points: its steps.
        below: (S,) the tile below each, -1 for none.
        scores: of at least the tiles in `below`.
    """
    place = {int(row): n for n, row in enumerate(scores.rows)}
    classes = classes_of(scores)
    at = [place[int(row)] if row >= 0 else -1 for row in below]
    ground: list[GroundOfRoute] = [classes[n] if n >= 0 else "off the map" for n in at]
    chance = np.array([scores.chance[n] if n >= 0 else np.nan for n in at])
    edges = np.concatenate(
        [points.at_m[:1], (points.at_m[1:] + points.at_m[:-1]) / 2, points.at_m[-1:]]
    )
    edge_lat, edge_lon = (_along(points, edges, v) for v in ("lat_deg", "lon_deg"))
    changes = [k for k in range(1, len(ground)) if ground[k] != ground[k - 1]]
    stretches = tuple(
        Stretch(
            ground=ground[start],
            start_m=float(edges[start]),
            end_m=float(edges[stop]),
            start_lat_deg=float(edge_lat[start]),
            start_lon_deg=float(edge_lon[start]),
            end_lat_deg=float(edge_lat[stop]),
            end_lon_deg=float(edge_lon[stop]),
            chance_mean=None
            if ground[start] == "off the map"
            else float(chance[start:stop].mean()),
        )
        for start, stop in zip([0, *changes], [*changes, len(ground)], strict=True)
    )
    metres: dict[str, float] = {}
    for stretch in stretches:
        metres[stretch.ground] = metres.get(stretch.ground, 0.0) + stretch.length_m
    longest, longest_start = _longest_lost(stretches)
    known = route.height_m[np.isfinite(route.height_m)]
    return RouteReport(
        length_m=float(points.at_m[-1]),
        step_m=float(points.at_m[1] - points.at_m[0]),
        height_m=(float(known.min()), float(known.max())) if len(known) else None,
        stretches=stretches,
        metres=metres,
        lost_m=sum(s.length_m for s in stretches if s.ground in LOST),
        longest_lost_m=longest,
        longest_lost_start_m=longest_start,
    )


def route_geojson(report: RouteReport, points: RoutePoints) -> dict[str, Any]:
    """Every stretch as a line, for QGIS or any web map (RFC 7946)."""
    features = []
    for s in report.stretches:
        inside = (points.at_m > s.start_m) & (points.at_m < s.end_m)
        lat = [s.start_lat_deg, *points.lat_deg[inside].tolist(), s.end_lat_deg]
        lon = [s.start_lon_deg, *points.lon_deg[inside].tolist(), s.end_lon_deg]
        lon = np.unwrap(lon, period=360.0).tolist()
        features.append(
            {
                "type": "Feature",
                "geometry": {
                    "type": "LineString",
                    "coordinates": [
                        [round(x, 7), round(y, 7)] for x, y in zip(lon, lat, strict=True)
                    ],
                },
                "properties": {
                    "ground": s.ground,
                    "lost": s.ground in LOST,
                    "start_m": round(s.start_m, 1),
                    "end_m": round(s.end_m, 1),
                    "chance_mean": None if s.chance_mean is None else round(s.chance_mean, 4),
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _along(points: RoutePoints, at_m: F64, name: Literal["lat_deg", "lon_deg"]) -> F64:
    values = np.unwrap(getattr(points, name), period=360.0)
    return np.asarray(np.interp(at_m, points.at_m, values))


def _longest_lost(stretches: tuple[Stretch, ...]) -> tuple[float, float | None]:
    longest, longest_start = 0.0, None
    start = None
    for s in stretches:
        start = (s.start_m if start is None else start) if s.ground in LOST else None
        if start is not None and s.end_m - start > longest:
            longest, longest_start = s.end_m - start, start
    return longest, longest_start
