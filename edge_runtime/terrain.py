"""Height of the ground by a terrain model: SRTM tiles, or any raster that rasterio reads.

A height above take-off becomes one above the ground by the difference of two heights of the model,
so neither its datum nor the autopilot's matters.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError

_HGT_NAME = re.compile(r"([NS])(\d\d)([EW])(\d{3})", re.IGNORECASE)
_HGT_VOID = -32768
_HGT_SIDES = {2 * side * side: side for side in (1201, 3601)}
"""Samples along a side by the file's size: three and one second of arc (SRTM, version 3)."""
_MIN_M, _MAX_M = -500.0, 9000.0
"""Heights there are on land."""

Grid = Callable[[float, float], tuple[npt.NDArray[np.float64], float, float] | None]
"""The (2, 2) samples around a position, and how far it is down and right between them."""


class Terrain:
    """Heights at positions. Not thread-safe."""

    def __init__(self, around: Grid, close: Callable[[], None]) -> None:
        """Use `open`."""
        self._around, self._close = around, close

    @classmethod
    def open(cls, path: Path) -> "Terrain":
        """Open a terrain model.

        Args:
            path: an SRTM .hgt tile, a folder of them, or a raster with a georeference (GeoTIFF,
                VRT) that holds heights in metres.

        Raises:
            InputError: nothing there, no tile in the folder, a tile cut off, or a raster that
                cannot be read.
        """
        if path.is_dir():
            tiles = [p for p in sorted(path.iterdir()) if p.suffix.lower() == ".hgt"]
            if not tiles:
                msg = f"terrain folder {path} has no .hgt tiles; expected names like N47E008.hgt"
                raise InputError(msg)
            return cls(_tiles(tiles), lambda: None)
        if not path.is_file():
            msg = f"terrain {path} does not exist; expected .hgt tiles or a GeoTIFF"
            raise InputError(msg)
        if path.suffix.lower() == ".hgt":
            return cls(_tiles([path]), lambda: None)
        return cls(*_raster(path))

    def height_m(self, lat_deg: float, lon_deg: float) -> float:
        """Height of the ground, bilinear between the samples; NaN off the model or in a void."""
        if not (math.isfinite(lat_deg) and math.isfinite(lon_deg) and abs(lat_deg) <= 90):
            return math.nan
        found = self._around(lat_deg, lon_deg)
        if found is None:
            return math.nan
        samples, down, right = found
        weights = np.outer((1 - down, down), (1 - right, right))
        # A void with no weight does not matter, but NaN times zero is NaN.
        used = weights > 1e-6
        height = float(np.sum(samples[used] * weights[used]))
        return height if _MIN_M <= height <= _MAX_M else math.nan

    def close(self) -> None:
        """Close the files."""
        self._close()


class TakeoffTerrain:
    """How much higher the ground below lies than the place of take-off."""

    def __init__(self, terrain: Terrain, lat_deg: float, lon_deg: float) -> None:
        """Look up the place of take-off.

        Raises:
            InputError: the model knows no height there.
        """
        self._terrain = terrain
        self._takeoff_m = terrain.height_m(lat_deg, lon_deg)
        if math.isnan(self._takeoff_m):
            msg = (
                f"the terrain has no height at the place of take-off, {lat_deg:.5f}, "
                f"{lon_deg:.5f}; give a model that covers the flight"
            )
            raise InputError(msg)
        self._last_rise_m = 0.0
        self.known = True
        """Whether the model knew the ground at the last position asked for."""

    def rise_m(self, lat_deg: float, lon_deg: float) -> float:
        """For `state.with_ground_height`; the last one known where the model has a void."""
        rise_m = self._terrain.height_m(lat_deg, lon_deg) - self._takeoff_m
        self.known = math.isfinite(rise_m)
        if self.known:
            self._last_rise_m = rise_m
        return self._last_rise_m


def _tiles(paths: list[Path]) -> Grid:
    tiles: dict[tuple[int, int], tuple[Path, int]] = {}
    for path in paths:
        name = _HGT_NAME.search(path.stem)
        side = _HGT_SIDES.get(path.stat().st_size)
        if name is None or side is None:
            msg = (
                f"terrain tile {path} has {path.stat().st_size} bytes; expected "
                f"{' or '.join(map(str, _HGT_SIDES))} in a file named like N47E008.hgt"
            )
            raise InputError(msg)
        south = int(name[2]) * (-1 if name[1].upper() == "S" else 1)
        west = int(name[4]) * (-1 if name[3].upper() == "W" else 1)
        tiles[south, west] = path, side
    opened: dict[tuple[int, int], npt.NDArray[np.int16]] = {}

    def around(
        lat_deg: float, lon_deg: float
    ) -> tuple[npt.NDArray[np.float64], float, float] | None:
        lon_deg = (lon_deg + 180.0) % 360.0 - 180.0
        # Tiles share their edges: a position on one may be in either.
        for corner in dict.fromkeys(
            (math.floor(lat_deg - d), math.floor(lon_deg - e)) for d in (0, 1e-9) for e in (0, 1e-9)
        ):
            if corner not in tiles:
                continue
            path, side = tiles[corner]
            if corner not in opened:
                opened[corner] = np.memmap(path, ">i2", "r", shape=(side, side))
            row = (corner[0] + 1 - lat_deg) * (side - 1)
            column = (lon_deg - corner[1]) * (side - 1)
            top, left = min(int(row), side - 2), min(int(column), side - 2)
            samples = np.asarray(opened[corner][top : top + 2, left : left + 2], np.float64)
            return np.where(samples == _HGT_VOID, np.nan, samples), row - top, column - left
        return None

    return around


def _raster(path: Path) -> tuple[Grid, Callable[[], None]]:
    try:
        import rasterio
        from rasterio.errors import RasterioError
        from rasterio.warp import transform
        from rasterio.windows import Window
    except ImportError as error:
        msg = (
            f"terrain {path} needs {error.name}, which is not installed; install it with: "
            "pip install 'skyfix[maps]', or give SRTM .hgt tiles"
        )
        raise InputError(msg) from error
    try:
        raster: Any = rasterio.open(path)
    except RasterioError as error:
        msg = f"terrain {path} cannot be read ({error}); expected a .hgt tile or a GeoTIFF"
        raise InputError(msg) from error
    if raster.crs is None or raster.count < 1 or min(raster.width, raster.height) < 2:
        raster.close()
        msg = f"terrain {path} has no georeference; expected a GeoTIFF with heights in metres"
        raise InputError(msg)
    to_pixel = ~raster.transform

    def around(
        lat_deg: float, lon_deg: float
    ) -> tuple[npt.NDArray[np.float64], float, float] | None:
        xs, ys = transform("EPSG:4326", raster.crs, [lon_deg], [lat_deg])[:2]
        if not (math.isfinite(xs[0]) and math.isfinite(ys[0])):
            return None
        # A sample stands for the middle of its cell.
        column = to_pixel.a * xs[0] + to_pixel.b * ys[0] + to_pixel.c - 0.5
        row = to_pixel.d * xs[0] + to_pixel.e * ys[0] + to_pixel.f - 0.5
        if not (-0.5 <= row <= raster.height - 0.5 and -0.5 <= column <= raster.width - 0.5):
            return None
        row = min(max(row, 0.0), raster.height - 1.0)
        column = min(max(column, 0.0), raster.width - 1.0)
        top, left = min(int(row), raster.height - 2), min(int(column), raster.width - 2)
        try:
            samples = raster.read(1, window=Window(left, top, 2, 2), masked=True)
        except RasterioError:
            return None
        return samples.astype(np.float64).filled(np.nan), row - top, column - left

    return around, raster.close
