"""How much ground the tiles of an index cover, and the holes in it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from edge_runtime.geodesy import enu_offset_m, move_lat_lon
from edge_runtime.index_format import TileLevel

_MOST_CELLS = 4096
"""On the longer side of the grid."""


class Hole(NamedTuple):
    """Ground without tiles."""

    area_m2: float
    lat_deg: float
    lon_deg: float
    """A place in it."""


class Coverage(NamedTuple):
    """Ground that is in some tile's square, on a grid."""

    covered_m2: float
    outline_m2: float
    """Within the outline: the convex hull of what is covered."""
    holes: tuple[Hole, ...]
    """Within the outline, largest first."""
    cell_m: float
    """Side of the grid's squares: finer holes are not seen."""

    @property
    def share(self) -> float:
        """Covered part of the outline, 0..1."""
        return self.covered_m2 / self.outline_m2


def coverage(tiles: np.ndarray, level: TileLevel) -> Coverage:
    """Measure the ground that a level's tiles cover.

    Args:
        tiles: (T,) TILE_DTYPE, the level's rows, at least one.
        level: for the size of the squares.
    """
    lat, lon = tiles["lat_deg"], tiles["lon_deg"]
    # From the first tile, the short way round: a map across the antimeridian stays in one piece.
    rough = enu_offset_m(lat[0], lon[0], lat, lon)
    middle = move_lat_lon(
        lat[0], lon[0], float(np.median(rough.east_m)), float(np.median(rough.north_m))
    )
    east, north = enu_offset_m(middle.lat_deg, middle.lon_deg, lat, lon)
    half = level.size_m / 2
    west, south = float(east.min()) - half, float(north.min()) - half
    extent = max(float(np.ptp(east)), float(np.ptp(north))) + level.size_m
    cell = max(level.stride_m / 4, extent / _MOST_CELLS)
    width, height = (math.ceil((float(np.ptp(v)) + level.size_m) / cell) for v in (east, north))
    left, right = (np.rint((east + d - west) / cell).astype(np.int64) for d in (-half, half))
    low, high = (np.rint((north + d - south) / cell).astype(np.int64) for d in (-half, half))
    # How many squares lie over each cell: their corners' signs, summed both ways.
    corners = np.zeros((height + 2, width + 2), np.int32)
    for rows, columns, sign in (
        (low, left, 1),
        (low, right, -1),
        (high, left, -1),
        (high, right, 1),
    ):
        np.add.at(corners, (rows, columns), sign)
    over = (
        corners.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)[:height, :width] > 0
    )
    covered = over.astype(np.uint8)
    points = cv2.findNonZero(covered)
    outline = np.zeros_like(covered)
    cv2.fillConvexPoly(outline, cv2.convexHull(points), 1)
    open_ground = ((outline > 0) & ~over).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(open_ground, connectivity=4)
    holes = []
    for label in sorted(range(1, count), key=lambda k: -int(stats[k, cv2.CC_STAT_AREA]))[:20]:
        x, y, w, h = (int(v) for v in stats[label, : cv2.CC_STAT_AREA])
        row, column = _deepest(labels[y : y + h, x : x + w] == label)
        row, column = row + y, column + x
        place = move_lat_lon(
            middle.lat_deg, middle.lon_deg, west + (column + 0.5) * cell, south + (row + 0.5) * cell
        )
        area = float(stats[label, cv2.CC_STAT_AREA]) * cell**2
        holes.append(Hole(area, float(place.lat_deg), float(place.lon_deg)))
    return Coverage(
        covered_m2=float(np.count_nonzero(over)) * cell**2,
        outline_m2=float(np.count_nonzero(outline | covered)) * cell**2,
        holes=tuple(holes),
        cell_m=cell,
    )


def resolution_shares(
    tiles: np.ndarray, sources: Sequence[Mapping[str, Any]]
) -> tuple[tuple[float, float], ...]:
    """How much of the ground the sources show how finely: of two over one place the finer.

    By the boxes of the sources: where one has holes, a coarser one may be what is there.

    Args:
        tiles: (T,) TILE_DTYPE.
        sources: of the manifest; those with `gsd_m` and `bounds` (west, south, east, north, in
            degrees) count.

    Returns:
        Metres per pixel and the share of tiles centred in such imagery, finest first; empty where
        no source says where it lies.
    """
    known = [s for s in sources if "gsd_m" in s and len(s.get("bounds") or ()) == 4]
    lat, lon = tiles["lat_deg"], tiles["lon_deg"]
    left = np.ones(len(tiles), np.bool_)
    shares: dict[float, float] = {}
    for source in sorted(known, key=lambda s: float(s["gsd_m"])):
        west, south, east, north = (float(v) for v in source["bounds"])
        inside = left & (lat >= south) & (lat <= north) & ((lon - west) % 360.0 <= east - west)
        gsd_m = float(source["gsd_m"])
        shares[gsd_m] = shares.get(gsd_m, 0.0) + float(inside.mean())
        left &= ~inside
    return tuple((gsd_m, share) for gsd_m, share in shares.items() if share > 0)


def _deepest(inside: np.ndarray) -> tuple[int, int]:
    """Row and column of the cell farthest from the edge: a centroid may lie outside."""
    padded = np.pad(inside.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row), int(column)
