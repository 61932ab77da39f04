"""The area that a map is cut to: polygons of a GeoJSON file (RFC 7946)."""

import json
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rasterio.features import rasterize
from rasterio.transform import Affine

from edge_runtime.errors import InputError
from edge_runtime.geodesy import mercator_unit
from edge_runtime.imagery import TILE_PX, Bounds

Bool = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]
Coverage = Literal["none", "part", "all"]

_DENSE_DEG = 0.01
"""Longest step in latitude along an edge: GeoJSON's edges are straight in degrees, and Web Mercator
bends them by less than 5 cm over this (up to 65 degrees)."""
_BLOCK = 6
"""Zooms between a tile and the block whose tiles are sorted in one go: 64 x 64 tiles."""


class CropArea:
    """Polygons on the map. Edges go the short way round the world. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Read a GeoJSON file of polygons in degrees.

        Raises:
            InputError: not GeoJSON, no polygon, not degrees, or a polygon around a pole.
        """
        self.path = path
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            msg = f"{path} is not a GeoJSON file ({error}); expected polygons in degrees"
            raise InputError(msg) from error
        polygons = [self._unrolled(rings) for rings in _polygons(document)]
        if not polygons:
            msg = f"{path} has no polygon; expected a GeoJSON Polygon or MultiPolygon to crop to"
            raise InputError(msg)
        self.boxes = [
            Bounds(*(float(v) for v in (*ring.min(0)[::-1], *ring.max(0)[::-1])))
            for ring, *_ in polygons
        ]
        # Three worlds side by side, so that every polygon lies on the map wherever it crosses.
        turned = [
            [ring + np.array([360.0 * turn, 0.0]) for ring in rings]
            for rings in polygons
            for turn in (-1, 0, 1)
        ]
        self._polygons = [
            [_projected(ring) for ring in rings]
            for rings in turned
            if rings[0][:, 0].max() > -180.0 and rings[0][:, 0].min() < 180.0
        ]
        self._sorted = lru_cache(maxsize=64)(self._sort_block)

    def covers(self, zoom: int, x: int, y: int) -> Coverage:
        """Whether an XYZ tile lies outside, across the edge, or inside."""
        up = min(_BLOCK, zoom)
        edge, inside = self._sorted(zoom, x >> up, y >> up)
        row, column = y & ((1 << up) - 1), x & ((1 << up) - 1)
        if edge[row, column]:
            return "part"
        return "all" if inside[row, column] else "none"

    def mask(self, zoom: int, x: int, y: int) -> Bool:
        """(256, 256) whether the centre of each pixel of a tile is inside."""
        shapes = [{"type": "Polygon", "coordinates": rings} for rings in self._polygons]
        return self._burnt(shapes, zoom, x, y, TILE_PX, all_touched=False)

    def _sort_block(self, zoom: int, block_x: int, block_y: int) -> tuple[Bool, Bool]:
        """By tile of a block: whether the edge runs through it, whether its centre is inside."""
        up = min(_BLOCK, zoom)
        lines = [
            {"type": "LineString", "coordinates": ring}
            for rings in self._polygons
            for ring in rings
        ]
        areas = [{"type": "Polygon", "coordinates": rings} for rings in self._polygons]
        side = 1 << up
        edge = self._burnt(lines, zoom - up, block_x, block_y, side, all_touched=True)
        inside = self._burnt(areas, zoom - up, block_x, block_y, side, all_touched=False)
        return edge, inside

    @staticmethod
    def _burnt(
        shapes: Sequence[dict[str, Any]], zoom: int, x: int, y: int, side: int, *, all_touched: bool
    ) -> Bool:
        """(side, side) shapes drawn over one XYZ tile."""
        step = 1.0 / (1 << zoom) / side
        place = Affine(step, 0.0, x * step * side, 0.0, step, y * step * side)
        if not shapes:
            return np.zeros((side, side), np.bool_)
        burnt = rasterize(
            shapes, out_shape=(side, side), transform=place, all_touched=all_touched, dtype="uint8"
        )
        return np.asarray(burnt > 0)

    def _unrolled(self, rings: Sequence[Any]) -> list[F64]:
        """(V, 2) longitudes that count on across the antimeridian and latitudes, by ring.

        Raises:
            InputError: too few points, not degrees, or around a pole.
        """
        out: list[F64] = []
        for ring in rings:
            try:
                points = np.asarray([point[:2] for point in ring], np.float64)
            except (TypeError, ValueError) as error:
                msg = f"{self.path} has a ring that is no list of positions; expected GeoJSON"
                raise InputError(msg) from error
            if points.ndim != 2 or len(points) < 4 or not np.isfinite(points).all():
                msg = f"{self.path} has a ring of {len(points)} points; expected at least 4, closed"
                raise InputError(msg)
            if np.abs(points[:, 1]).max() > 90 or np.abs(points[:, 0]).max() > 540:
                worst = points[np.argmax(np.abs(points).max(axis=1))]
                msg = (
                    f"{self.path} has the position {worst[0]:g}, {worst[1]:g}; expected longitude "
                    "and latitude in degrees. Reproject it with: ogr2ogr -t_srs EPSG:4326"
                )
                raise InputError(msg)
            steps = np.diff(points[:, 0])
            steps = np.where(np.abs(steps) < 360, steps - 360 * np.round(steps / 360), steps)
            lon = points[0, 0] + np.concatenate([[0.0], np.cumsum(steps)])
            if abs(lon[-1] - lon[0]) > 1:
                msg = f"{self.path} has a polygon around a pole; expected one within ±85 degrees"
                raise InputError(msg)
            if out:  # A hole lies in its polygon, whatever turn of the world it is written in.
                apart = (out[0][:, 0].min() + out[0][:, 0].max() - lon.min() - lon.max()) / 2
                lon = lon + 360.0 * round(apart / 360.0)
            else:
                lon = lon - 360.0 * math.floor((lon.min() + 180.0) / 360.0)
            out.append(np.stack([lon, points[:, 1]], axis=1))
        return out


def _polygons(node: Any) -> Iterator[list[Any]]:
    """The rings of every polygon of a GeoJSON object."""
    if not isinstance(node, dict):
        return
    for part in node.get("features") or node.get("geometries") or []:
        yield from _polygons(part)
    match node.get("type"):
        case "Feature":
            yield from _polygons(node.get("geometry"))
        case "Polygon":
            yield node.get("coordinates") or []
        case "MultiPolygon":
            yield from node.get("coordinates") or []


def _projected(ring: F64) -> list[tuple[float, float]]:
    """The ring on the unit square of `mercator_unit`, with more points along its edges."""
    points = [ring[:1]]
    for start, end in pairwise(ring):
        steps = max(math.ceil(abs(end[1] - start[1]) / _DENSE_DEG), 1)
        points.append(start + (end - start) * (np.arange(1, steps + 1) / steps)[:, None])
    dense = np.concatenate(points)
    x, y = mercator_unit(dense[:, 1], dense[:, 0])
    return list(zip(x.tolist(), y.tolist(), strict=True))
