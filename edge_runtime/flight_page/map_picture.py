"""The map of a flight as one picture: the imagery around it, stitched in Web Mercator."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.flight_page.picture_files import PictureFile, jpeg_picture
from edge_runtime.geodesy import from_mercator_unit, mercator_metres_per_unit, mercator_unit
from edge_runtime.imagery import TILE_PX, Bounds, decode_tile, painted_over
from edge_runtime.live_page.map_tiles import MapTiles

U8 = npt.NDArray[np.uint8]

LONGEST_PX = 2048
MARGIN_M = 120.0
"""At least so much ground around the flight, so that what its cameras saw is on the map."""
_MARGIN_SHARE = 0.12
_MOST_HALVINGS = 4
"""Coarsest picture, in zooms below the coarsest of the file."""
_ROUNDING_PX = 0.01
_NO_IMAGERY = (36, 43, 51)
"""As the page's map is where there is none."""


class Box(NamedTuple):
    """A box of the world square: x east, y south. `east` may exceed 1 across the antimeridian."""

    west: float
    north: float
    east: float
    south: float

    def bounds(self) -> Bounds:
        """The same in degrees."""
        north_west = from_mercator_unit(self.west, self.north)
        south_east = from_mercator_unit(self.east, self.south)
        return Bounds(
            float(south_east.lat_deg),
            float(north_west.lon_deg),
            float(north_west.lat_deg),
            float(north_west.lon_deg) + 360.0 * (self.east - self.west),
        )


class MapPicture(NamedTuple):
    """The map of a page."""

    picture: PictureFile
    bounds: Bounds
    """Of the picture's outer edges."""
    zoom: float
    """Zoom at which one pixel of it is one pixel of the map."""


def box_around(places: Sequence[tuple[float, float]]) -> Box | None:
    """The box of places (lat, lon) with a margin; None without places."""
    if not places:
        return None
    lat, lon = np.asarray(places, np.float64).T
    # The way around the antimeridian is taken where it is the shorter one.
    lon = lon[0] + (lon - lon[0] + 180.0) % 360.0 - 180.0
    x, y = mercator_unit(lat, lon)
    per_m = 1 / mercator_metres_per_unit(float(lat.mean()))[0]
    span = max(float(np.ptp(x)), float(np.ptp(y)))
    margin = max(_MARGIN_SHARE * span, MARGIN_M * per_m)
    west, north = float(x.min()) - margin, max(float(y.min()) - margin, 0.0)
    east, south = float(x.max()) + margin, min(float(y.max()) + margin, 1.0)
    return Box(west, north, east, south)


def map_picture(imagery: Path, around: Box | None) -> MapPicture | None:
    """Stitch the imagery of a box, or all of it, at the finest zoom that LONGEST_PX takes.

    Args:
        imagery: an MBTiles file.
        around: what to show; None for everything.

    Returns:
        The picture; None where the file has no imagery there.

    Raises:
        ImageryError: the imagery cannot be read.
        OSError: the same, while it is read.
    """
    tiles = MapTiles(imagery)
    try:
        box = _cut(tiles.bounds, around)
        if box is None:
            return None
        longest = max(box.east - box.west, box.south - box.north)
        zoom = math.floor(math.log2(LONGEST_PX / TILE_PX / longest))
        zoom = max(min(zoom, tiles.max_zoom), tiles.min_zoom - _MOST_HALVINGS, 0)
        return _stitched(tiles, box, zoom)
    finally:
        tiles.close()


def _cut(bounds: Bounds, around: Box | None) -> Box | None:
    """What of a box lies within the imagery's bounds."""
    west, north = (float(v) for v in mercator_unit(bounds.north_deg, bounds.west_deg))
    south = float(mercator_unit(bounds.south_deg, bounds.west_deg)[1])
    whole = Box(west, north, west + (bounds.east_deg - bounds.west_deg) / 360.0, south)
    if around is None:
        return whole
    shift = round((around.west + around.east - whole.west - whole.east) / 2)
    box = Box(
        max(around.west, whole.west + shift),
        max(around.north, whole.north),
        min(around.east, whole.east + shift),
        min(around.south, whole.south),
    )
    return box if box.west < box.east and box.north < box.south else None


def _stitched(tiles: MapTiles, box: Box, zoom: int) -> MapPicture | None:
    world_px = TILE_PX << zoom
    # Bounds are rounded: where they are a tile's edge they must not reach into the next one.
    x0, y0 = (math.floor(v * world_px + _ROUNDING_PX) for v in (box.west, box.north))
    x1, y1 = (math.ceil(v * world_px - _ROUNDING_PX) for v in (box.east, box.south))
    out = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    out[:] = _NO_IMAGERY
    # Below the file's coarsest zoom each of its tiles fills a part of one.
    halvings = max(0, tiles.min_zoom - zoom)
    side, of_file = TILE_PX >> halvings, zoom + halvings
    found = False
    for ty in range(y0 // side, (y1 - 1) // side + 1):
        for tx in range(x0 // side, (x1 - 1) // side + 1):
            tile = _tile(tiles, of_file, tx % (1 << of_file), ty)
            if tile is None:
                continue
            found = True
            if side < TILE_PX:
                tile = np.asarray(cv2.resize(tile, (side, side), interpolation=cv2.INTER_AREA))
            left, top = tx * side, ty * side
            xa, xb = max(x0, left), min(x1, left + side)
            ya, yb = max(y0, top), min(y1, top + side)
            part = tile[ya - top : yb - top, xa - left : xb - left]
            where = np.s_[ya - y0 : yb - y0, xa - x0 : xb - x0]
            out[where] = _over(part, out[where])
    if not found:
        return None
    edges = Box(x0 / world_px, y0 / world_px, x1 / world_px, y1 / world_px)
    return MapPicture(jpeg_picture(out), edges.bounds(), float(zoom))


def _tile(tiles: MapTiles, zoom: int, x: int, y: int) -> U8 | None:
    """(256, 256, 4) RGBA of a tile, what it lacks taken from the coarser ones; None without any."""
    if zoom < tiles.min_zoom:
        return None
    stored = tiles.tile(zoom, x, y)
    own = None if stored is None else decode_tile(stored.data, f"map tile {zoom}/{x}/{y}")
    if own is not None and (own[..., 3] == 255).all():
        return own
    coarse = _tile(tiles, zoom - 1, x // 2, y // 2)
    if coarse is None:
        return own
    half = TILE_PX // 2
    quarter = coarse[y % 2 * half :, x % 2 * half :][:half, :half]
    below = cv2.resize(quarter, (TILE_PX, TILE_PX), interpolation=cv2.INTER_LINEAR)
    return np.asarray(below) if own is None else painted_over(own, np.asarray(below))


def _over(tile: U8, below: U8) -> U8:
    """A tile over a plain colour."""
    share = tile[..., 3:].astype(np.float32) / 255
    return np.rint(tile[..., :3] * share + below * (1 - share)).astype(np.uint8)
