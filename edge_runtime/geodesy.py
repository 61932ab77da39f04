"""Positions on the WGS 84 ellipsoid as plain functions. Coordinates are (lat, lon) in degrees.

Short distances go through the local tangent plane (east, north in metres), which is what ground
views, tiles and the tracker work in. Its error grows with the square of the distance: below 5 cm
at 1 km and below 2 m at 10 km for latitudes up to 70 degrees.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError

F64 = npt.NDArray[np.float64]

SEMI_MAJOR_M = 6378137.0
"""WGS 84 equatorial radius, metres (NGA.STND.0036, table 3.1)."""
ECCENTRICITY_SQUARED = 6.69437999014e-3
"""WGS 84 first eccentricity squared (NGA.STND.0036, table 3.3)."""
MEAN_RADIUS_M = 6371008.8
"""Mean Earth radius R1, metres (IUGG, Moritz 2000)."""
MERCATOR_MAX_LAT_DEG = 85.0511287798066
"""Latitude at which the Web Mercator square ends (EPSG:3857)."""


class EastNorth(NamedTuple):
    """A displacement in the local tangent plane, metres."""

    east_m: F64
    north_m: F64


class LatLon(NamedTuple):
    """WGS 84 latitude and longitude, degrees."""

    lat_deg: F64
    lon_deg: F64


def check_lat_lon(lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike) -> None:
    """Refuse what cannot be a position.

    Raises:
        InputError: a latitude outside [-90, 90], a longitude outside [-180, 360], or not finite.
    """
    lat = np.asarray(lat_deg, np.float64)
    lon = np.asarray(lon_deg, np.float64)
    bad_lat = ~(np.abs(lat) <= 90)
    if np.any(bad_lat):
        value = float(lat[bad_lat][0]) if lat.ndim else float(lat)
        msg = f"latitude {value:.6f} is outside [-90, 90] degrees; is the order (lat, lon)?"
        raise InputError(msg)
    bad_lon = ~((lon >= -180) & (lon <= 360))
    if np.any(bad_lon):
        value = float(lon[bad_lon][0]) if lon.ndim else float(lon)
        msg = f"longitude {value:.6f} is outside [-180, 360] degrees; is the order (lat, lon)?"
        raise InputError(msg)


def wrap_degrees(angle_deg: npt.ArrayLike) -> F64:
    """Wrap angles to [-180, 180) degrees."""
    return np.asarray((np.asarray(angle_deg, np.float64) + 180.0) % 360.0 - 180.0)


def radii_of_curvature_m(lat_deg: npt.ArrayLike) -> tuple[F64, F64]:
    """Meridian and prime-vertical radius of curvature of the ellipsoid, metres."""
    sin_lat = np.sin(np.radians(np.asarray(lat_deg, np.float64)))
    w2 = 1.0 - ECCENTRICITY_SQUARED * sin_lat**2
    prime_vertical = SEMI_MAJOR_M / np.sqrt(w2)
    meridian = prime_vertical * (1.0 - ECCENTRICITY_SQUARED) / w2
    return np.asarray(meridian), np.asarray(prime_vertical)


def enu_offset_m(
    origin_lat_deg: npt.ArrayLike,
    origin_lon_deg: npt.ArrayLike,
    lat_deg: npt.ArrayLike,
    lon_deg: npt.ArrayLike,
) -> EastNorth:
    """East and north of points as seen from an origin, metres, the short way round the globe.

    All arguments broadcast. Radii are taken at the mean latitude of the two points, which makes
    the offset antisymmetric: from A to B is minus from B to A (north exactly, east to 1e-8 m).
    """
    plain = _plain_floats(origin_lat_deg, origin_lon_deg, lat_deg, lon_deg)
    if plain is not None:
        return EastNorth(*map(np.asarray, _offset_of_one(*plain)))
    lat0 = np.asarray(origin_lat_deg, np.float64)
    lat1 = np.asarray(lat_deg, np.float64)
    mid = (lat0 + lat1) / 2
    meridian, prime_vertical = radii_of_curvature_m(mid)
    d_lon = wrap_degrees(np.asarray(lon_deg, np.float64) - np.asarray(origin_lon_deg, np.float64))
    east = np.radians(d_lon) * prime_vertical * np.cos(np.radians(mid))
    north = np.radians(lat1 - lat0) * meridian
    return EastNorth(np.asarray(east), np.asarray(north))


def move_lat_lon(
    lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike, east_m: npt.ArrayLike, north_m: npt.ArrayLike
) -> LatLon:
    """Move points by metres east and north: the inverse of `enu_offset_m`, to 1e-8 m at 1 km."""
    plain = _plain_floats(lat_deg, lon_deg, east_m, north_m)
    if plain is not None:
        return LatLon(*map(np.asarray, _one_moved(*plain)))
    lat0 = np.asarray(lat_deg, np.float64)
    north = np.asarray(north_m, np.float64)
    lat1 = lat0 + np.degrees(north / radii_of_curvature_m(lat0)[0])
    for _ in range(3):
        meridian, prime_vertical = radii_of_curvature_m((lat0 + lat1) / 2)
        lat1 = lat0 + np.degrees(north / meridian)
    mid_cos = np.cos(np.radians((lat0 + lat1) / 2))
    d_lon = np.degrees(np.asarray(east_m, np.float64) / (prime_vertical * mid_cos))
    lon1 = wrap_degrees(np.asarray(lon_deg, np.float64) + d_lon)
    return LatLon(np.asarray(lat1), lon1)


def distance_m(
    a_lat_deg: npt.ArrayLike,
    a_lon_deg: npt.ArrayLike,
    b_lat_deg: npt.ArrayLike,
    b_lon_deg: npt.ArrayLike,
) -> F64:
    """Horizontal distance through the local tangent plane, metres; meant for less than 50 km."""
    offset = enu_offset_m(a_lat_deg, a_lon_deg, b_lat_deg, b_lon_deg)
    return np.asarray(np.hypot(offset.east_m, offset.north_m))


# One point at a time, in plain floats: NumPy takes ten times as long for a single number, and a
# tracked frame moves some twenty points.


def _plain_floats(*values: object) -> tuple[float, ...] | None:
    """The values if all are single finite numbers: `math` raises where NumPy answers with NaN."""
    plain = []
    for value in values:
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value.item()  # What these functions return for a single point.
        if not isinstance(value, float) or not math.isfinite(value):
            return None
        plain.append(value)
    return tuple(plain)


def _radii_at(lat_deg: float) -> tuple[float, float]:
    sin_lat = math.sin(math.radians(lat_deg))
    w2 = 1.0 - ECCENTRICITY_SQUARED * sin_lat * sin_lat
    prime_vertical = SEMI_MAJOR_M / math.sqrt(w2)
    return prime_vertical * (1.0 - ECCENTRICITY_SQUARED) / w2, prime_vertical


def _offset_of_one(lat0: float, lon0: float, lat1: float, lon1: float) -> tuple[float, float]:
    mid = (lat0 + lat1) / 2
    meridian, prime_vertical = _radii_at(mid)
    d_lon = (lon1 - lon0 + 180.0) % 360.0 - 180.0
    east = math.radians(d_lon) * prime_vertical * math.cos(math.radians(mid))
    return east, math.radians(lat1 - lat0) * meridian


def _one_moved(lat0: float, lon0: float, east_m: float, north_m: float) -> tuple[float, float]:
    lat1 = lat0 + math.degrees(north_m / _radii_at(lat0)[0])
    for _ in range(3):
        meridian, prime_vertical = _radii_at((lat0 + lat1) / 2)
        lat1 = lat0 + math.degrees(north_m / meridian)
    mid_cos = math.cos(math.radians((lat0 + lat1) / 2))
    lon1 = lon0 + math.degrees(east_m / (prime_vertical * mid_cos))
    return lat1, (lon1 + 180.0) % 360.0 - 180.0


def haversine_m(
    a_lat_deg: npt.ArrayLike,
    a_lon_deg: npt.ArrayLike,
    b_lat_deg: npt.ArrayLike,
    b_lon_deg: npt.ArrayLike,
) -> F64:
    """Great-circle distance at any range, metres. A sphere is assumed: at most 0.6 % off WGS 84."""
    lat_a, lat_b = (np.radians(np.asarray(v, np.float64)) for v in (a_lat_deg, b_lat_deg))
    half_d_lon = (
        np.radians(np.asarray(b_lon_deg, np.float64) - np.asarray(a_lon_deg, np.float64)) / 2
    )
    half_d_lat = (lat_b - lat_a) / 2
    h = np.sin(half_d_lat) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin(half_d_lon) ** 2
    return np.asarray(2 * MEAN_RADIUS_M * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0))))


def mercator_unit(lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike) -> tuple[F64, F64]:
    """Web Mercator (EPSG:3857) as fractions of the world square.

    Returns:
        (x, y), each 0..1: x grows east from -180 degrees, y grows **south** from +85.05 degrees,
        the axes of XYZ map tiles.
    """
    lat = np.clip(np.asarray(lat_deg, np.float64), -MERCATOR_MAX_LAT_DEG, MERCATOR_MAX_LAT_DEG)
    x = np.asarray(lon_deg, np.float64) / 360.0 + 0.5
    y = 0.5 - np.arctanh(np.sin(np.radians(lat))) / (2 * np.pi)
    return np.asarray(x), np.asarray(y)


def from_mercator_unit(x: npt.ArrayLike, y: npt.ArrayLike) -> LatLon:
    """Inverse of `mercator_unit`; longitudes are wrapped to [-180, 180)."""
    lat = np.degrees(np.arcsin(np.tanh((0.5 - np.asarray(y, np.float64)) * 2 * np.pi)))
    lon = wrap_degrees((np.asarray(x, np.float64) - 0.5) * 360.0)
    return LatLon(np.asarray(lat), lon)


def mercator_metres_per_unit(lat_deg: float) -> tuple[float, float]:
    """Ground metres per unit of `mercator_unit` at a latitude: (along x, along y).

    The two differ by up to 0.7 % because Web Mercator applies spherical formulas to ellipsoidal
    latitudes.
    """
    meridian, prime_vertical = radii_of_curvature_m(lat_deg)
    cos_lat = float(np.cos(np.radians(lat_deg)))
    return (
        float(2 * np.pi * prime_vertical * cos_lat),
        float(2 * np.pi * meridian * cos_lat),
    )
