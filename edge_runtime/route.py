"""Routes: read from the files of mission planners, and walked in equal steps."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.geodesy import check_lat_lon, enu_offset_m, haversine_m, wrap_degrees
from edge_runtime.route_files import READERS, Vertex

F64 = npt.NDArray[np.float64]
MOST_BYTES = 64 << 20
"""A larger file is no route."""
MOST_STEPS = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Route:
    """A way over ground, from corner to corner."""

    lat_deg: F64
    """(V,)"""
    lon_deg: F64
    """(V,)"""
    height_m: F64
    """(V,) as the file writes it, whatever it is above; NaN where it does not."""

    @property
    def length_m(self) -> float:
        """Along the way."""
        return float(self.corner_at_m[-1])

    @property
    def corner_at_m(self) -> F64:
        """(V,) metres along the way to each corner."""
        steps = haversine_m(
            self.lat_deg[:-1], self.lon_deg[:-1], self.lat_deg[1:], self.lon_deg[1:]
        )
        near = steps < 50_000.0  # The ellipsoid's plane is better as long as it is nearly one.
        plane = enu_offset_m(
            self.lat_deg[:-1], self.lon_deg[:-1], self.lat_deg[1:], self.lon_deg[1:]
        )
        steps = np.where(near, np.hypot(plane.east_m, plane.north_m), steps)
        return np.concatenate([[0.0], np.cumsum(steps)])


@dataclass(frozen=True, kw_only=True)
class RoutePoints:
    """Equal steps along a route."""

    at_m: F64
    """(S,) metres from the start; the first is 0, the last the whole length."""
    lat_deg: F64
    lon_deg: F64


def read_route(path: Path) -> Route:
    """Read a route file; its ending says which kind.

    Args:
        path: .geojson or .json (one LineString), .kml (one LineString or gx:Track), .plan
            (QGroundControl; surveys by the items they were saved with), .csv (lat, lon and perhaps
            height columns).

    Raises:
        InputError: unreadable, not of its kind, fewer than two different positions.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        msg = (
            f"{path} ends in {path.suffix or 'nothing'!r}; expected a route as .geojson, .kml, "
            ".plan or .csv"
        )
        raise InputError(msg)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            msg = f"{path} has {size / 1e6:.0f} MB; expected a route of less than 64 MB"
            raise InputError(msg)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read as text ({error}); expected a route file"
        raise InputError(msg) from error
    return _route(path, reader(path, text))


def walk(route: Route, step_m: float) -> RoutePoints:
    """Positions along a route, at most so far apart, both ends included.

    Longitudes go the short way round; a leg is straight in latitude and longitude.

    Raises:
        InputError: a step that is not positive, or too many steps.
    """
    if not step_m > 0:
        msg = f"step is {step_m} m; expected more than 0"
        raise InputError(msg)
    corners = route.corner_at_m
    steps = max(1, math.ceil(corners[-1] / step_m - 1e-9))
    if steps > MOST_STEPS:
        msg = (
            f"the route is {corners[-1] / 1000:.0f} km, {steps} steps of {step_m} m; expected at "
            f"most {MOST_STEPS}. Give a larger --step-m"
        )
        raise InputError(msg)
    at = np.linspace(0.0, corners[-1], steps + 1)
    lon = np.unwrap(route.lon_deg, period=360.0)
    return RoutePoints(
        at_m=at,
        lat_deg=np.interp(at, corners, route.lat_deg),
        lon_deg=wrap_degrees(np.interp(at, corners, lon)),
    )


def _route(path: Path, vertices: list[Vertex]) -> Route:
    kept: list[Vertex] = []
    for vertex in vertices:
        if not kept or vertex[:2] != kept[-1][:2]:
            kept.append(vertex)
    if len(kept) < 2:
        msg = f"{path} has {len(kept)} different positions; expected a route of two or more"
        raise InputError(msg)
    lat = np.array([v[0] for v in kept], np.float64)
    lon = np.array([v[1] for v in kept], np.float64)
    try:
        check_lat_lon(lat, lon)
    except InputError as error:
        msg = f"{path}: {error}"
        raise InputError(msg) from error
    height = np.array([math.nan if v[2] is None else v[2] for v in kept], np.float64)
    return Route(lat_deg=lat, lon_deg=wrap_degrees(lon), height_m=height)
