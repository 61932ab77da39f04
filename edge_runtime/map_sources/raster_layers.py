"""A raster as map tiles: warped to Web Mercator at the zoom that keeps its resolution.

It is read in blocks of a few megabytes, in an order that decodes each part of it once.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.transform import Affine

from edge_runtime.geodesy import mercator_metres_per_unit, mercator_unit
from edge_runtime.imagery import TILE_PX
from edge_runtime.map_sources.crop_area import CropArea
from edge_runtime.map_sources.rasters import Raster
from edge_runtime.map_sources.source import CutTile

U8 = npt.NDArray[np.uint8]

MAX_ZOOM = 22
"""0.037 m per pixel at the equator: finer than any satellite."""
_WORLD_M = 2 * math.pi * 6378137.0
"""Side of the EPSG:3857 square in its own metres."""
_BLOCK_TILES = 32
"""Tiles warped at once, side by side: 8 MB of RGBA, whatever the size of the raster."""
_BAND_TILES = 256
"""Width of what is cut row by row: the raster's blocks under two rows of it fit GDAL's cache."""


@dataclass(frozen=True, kw_only=True)
class RasterLayer:
    """A raster, cut at the zoom that keeps its resolution."""

    raster: Raster

    @property
    def gsd_m(self) -> float:
        """Ground metres per pixel."""
        return self.raster.gsd_m

    @property
    def zoom(self) -> int:
        """The zoom whose pixels are at most 20 % coarser than the raster's."""
        box = self.raster.bounds
        metres = mercator_metres_per_unit((box.south_deg + box.north_deg) / 2)[0]
        exact = math.log2(metres / (TILE_PX * self.raster.gsd_m * 1.2))
        return min(max(math.ceil(exact), 0), MAX_ZOOM)

    @property
    def tiles(self) -> int:
        """Of its box."""
        columns, rows = self._grid()
        return len(columns) * len(rows)

    def _grid(self) -> tuple[range, range]:
        """Columns, which count on across the antimeridian, and rows of its box."""
        box, n = self.raster.bounds, 1 << self.zoom
        x0, y0 = mercator_unit(box.north_deg, box.west_deg)
        x1, y1 = mercator_unit(box.south_deg, box.east_deg)
        rows = range(max(math.floor(float(y0) * n), 0), min(math.ceil(float(y1) * n), n))
        return range(math.floor(float(x0) * n), math.ceil(float(x1) * n)), rows

    def cut(self, area: CropArea | None, done: Callable[[int], None]) -> Iterator[CutTile]:
        """Yield its visible tiles, row by row within bands.

        Raises:
            ImageryError: the raster is damaged.
        """
        columns, rows = self._grid()
        n = 1 << self.zoom
        parts = [(columns, 0)]
        if CRS.from_user_input(self.raster.crs).is_geographic:
            # GDAL's longitudes end at 180 degrees: each turn of the world is cut on its own.
            parts = [
                (range(max(columns.start - turn * n, 0), min(columns.stop - turn * n, n)), turn)
                for turn in range(columns.start // n, (columns.stop - 1) // n + 1)
            ]
        tile_m = _WORLD_M / n
        step = tile_m / TILE_PX
        for part, turn in parts:
            left, top = part.start * tile_m - _WORLD_M / 2, _WORLD_M / 2 - rows.start * tile_m
            with self.raster.warped(
                "EPSG:3857",
                Affine(step, 0, left, 0, -step, top),
                width=len(part) * TILE_PX,
                height=len(rows) * TILE_PX,
                turn=turn,
            ) as read:
                for y, block in _in_bands(part, rows):
                    yield from self._block(read, block, y, part, rows, area)
                    done(len(block))

    def _block(
        self,
        read: Callable[[int, int, int, int], U8],
        block: range,
        y: int,
        columns: range,
        rows: range,
        area: CropArea | None,
    ) -> Iterator[CutTile]:
        n = 1 << self.zoom
        if area is not None and all(area.covers(self.zoom, x % n, y) == "none" for x in block):
            return
        top, left = (y - rows.start) * TILE_PX, (block.start - columns.start) * TILE_PX
        strip = read(top, top + TILE_PX, left, left + len(block) * TILE_PX)
        for k, x in enumerate(block):
            tile = strip[:, k * TILE_PX : (k + 1) * TILE_PX]
            if tile[..., 3].any():
                yield CutTile(x % n, y, np.ascontiguousarray(tile), None)


def _in_bands(columns: range, rows: range) -> Iterator[tuple[int, range]]:
    """Rows and columns of blocks of tiles, in an order that reads a raster's own blocks once."""
    for band in range(columns.start, columns.stop, _BAND_TILES):
        stop = min(band + _BAND_TILES, columns.stop)
        for y in rows:
            for start in range(band, stop, _BLOCK_TILES):
                yield y, range(start, min(start + _BLOCK_TILES, stop))
