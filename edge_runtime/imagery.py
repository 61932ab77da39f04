"""The satellite imagery carried on board: an MBTiles file, and the one function that cuts it.

Everything that looks at the map (embedding, refinement, pages) gets its pixels from
`ImageryStore.patch`: north up, in metres, RGB. MBTiles 1.3 is SQLite with Web Mercator tiles, so
QGIS and any web map open the same file. Where imagery is coarser than the deepest zoom of the file
the deepest tile that is there is enlarged.
"""

import math
import sqlite3
from collections import OrderedDict
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ImageryError
from edge_runtime.geodesy import (
    from_mercator_unit,
    mercator_metres_per_unit,
    mercator_unit,
)

U8 = npt.NDArray[np.uint8]

TILE_PX = 256
"""Side of a map tile."""
CACHED_TILES = 128
"""Decoded tiles kept, at 256 KiB each: 32 MiB."""


class Patch(NamedTuple):
    """A north-up square of imagery."""

    image: U8
    """(S, S, 3) uint8, RGB; black where there is no imagery."""
    mask: U8
    """(S, S) uint8, 255 where there is imagery."""


class Bounds(NamedTuple):
    """A box of latitudes and longitudes, degrees. `east` may exceed 180 across the antimeridian."""

    south_deg: float
    west_deg: float
    north_deg: float
    east_deg: float


class ImageryStore:
    """An opened `imagery.mbtiles`. Not thread-safe; one per thread."""

    def __init__(self, path: Path, *, cached_tiles: int = CACHED_TILES) -> None:
        """Open for reading.

        Args:
            path: of the file.
            cached_tiles: decoded tiles to keep, at 256 KiB each.

        Raises:
            ImageryError: missing, not MBTiles, or empty.
        """
        self.path = path
        with ExitStack() as on_failure:
            try:
                uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
                self._db = on_failure.enter_context(closing(sqlite3.connect(uri, uri=True)))
                self.metadata: dict[str, str] = dict(
                    self._db.execute("SELECT name, value FROM metadata").fetchall()
                )
                low, high = self._db.execute(
                    "SELECT MIN(zoom_level), MAX(zoom_level) FROM tiles"
                ).fetchone()
            except sqlite3.Error as error:
                msg = (
                    f"{path} is not an MBTiles file ({error}). Make one with: python -m export "
                    "index"
                )
                raise ImageryError(msg) from error
            if low is None:
                msg = f"{path} holds no tiles. Make it again with: python -m export index"
                raise ImageryError(msg)
            on_failure.pop_all()
        self.min_zoom, self.max_zoom = int(low), int(high)
        # All cached tiles lie in one piece of memory that is taken once: hours of tiles that are
        # allocated and freed one by one leave holes that let a process grow.
        self._pixels = np.empty((max(cached_tiles, 1), TILE_PX, TILE_PX, 4), np.uint8)
        self._slots: OrderedDict[tuple[int, int, int], tuple[int, bool]] = OrderedDict()

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        self._db.close()
        self._slots.clear()

    @property
    def bounds(self) -> Bounds:
        """The box the imagery lies in, from the file's metadata.

        Raises:
            ImageryError: the metadata has no bounds, or not four numbers.
        """
        found = self.metadata.get("bounds", "")
        try:
            west, south, east, north = (float(v) for v in found.split(","))
        except ValueError as error:
            msg = (
                f"{self.path} has bounds {found!r} in its metadata; expected 'west,south,east,"
                "north' in degrees. Make it again with: python -m export index"
            )
            raise ImageryError(msg) from error
        return Bounds(south, west, north, east)

    def gsd_m(self, lat_deg: float) -> float:
        """Ground metres per pixel of the finest zoom at a latitude."""
        return mercator_metres_per_unit(lat_deg)[0] / (TILE_PX << self.max_zoom)

    def gsd_at_m(self, lat_deg: float, lon_deg: float) -> float | None:
        """Ground metres per pixel of the deepest tile at a place; None where there is none.

        Which part of that tile is visible is not looked at.
        """
        x, y = (float(v) for v in mercator_unit(lat_deg, lon_deg))
        for zoom in range(self.max_zoom, self.min_zoom - 1, -1):
            n = 1 << zoom
            row = min(max(math.floor(y * n), 0), n - 1)
            if self._tile(zoom, math.floor(x * n) % n, row) is not None:
                return mercator_metres_per_unit(lat_deg)[0] / (TILE_PX << zoom)
        return None

    def patch(self, lat_deg: float, lon_deg: float, *, size_m: float, size_px: int) -> Patch:
        """Cut a north-up square.

        Args:
            lat_deg: latitude of its centre.
            lon_deg: longitude of its centre.
            size_m: side on the ground.
            size_px: side of the returned image.

        Returns:
            Fresh arrays. Pixel (row, column) is centred (column + 0.5) * size_m / size_px metres
            east of the west edge and (row + 0.5) * size_m / size_px south of the north edge.
        """
        metres_x, metres_y = mercator_metres_per_unit(lat_deg)
        step_m = size_m / size_px
        zoom = self._zoom_for(step_m, metres_x)
        world_px = float(TILE_PX << zoom)
        px_per_m_x, px_per_m_y = world_px / metres_x, world_px / metres_y
        centre_x, centre_y = (float(v) * world_px for v in mercator_unit(lat_deg, lon_deg))
        left = centre_x - size_m / 2 * px_per_m_x
        top = centre_y - size_m / 2 * px_per_m_y
        x0, y0 = math.floor(left) - 2, math.floor(top) - 2
        x1 = math.ceil(left + size_m * px_per_m_x) + 2
        y1 = math.ceil(top + size_m * px_per_m_y) + 2
        mosaic = self._mosaic(zoom, x0, y0, x1, y1)
        scale_x, scale_y = step_m * px_per_m_x, step_m * px_per_m_y
        # Pixel centres: patch column c at left + (c + 0.5) * scale, mosaic pixel j at x0 + j + 0.5.
        to_mosaic = np.array(
            [
                [scale_x, 0.0, left - x0 + scale_x / 2 - 0.5],
                [0.0, scale_y, top - y0 + scale_y / 2 - 0.5],
            ]
        )
        cut = cv2.warpAffine(
            mosaic, to_mosaic, (size_px, size_px), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        mask = np.where(cut[..., 3] >= 250, 255, 0).astype(np.uint8)
        return Patch(np.ascontiguousarray(cut[..., :3]), mask)

    def _zoom_for(self, step_m: float, metres_per_unit: float) -> int:
        """The coarsest zoom that is still at least as fine as the patch (within 5 %)."""
        exact = math.log2(metres_per_unit / (TILE_PX * step_m * 1.05))
        return min(max(math.ceil(exact), self.min_zoom), self.max_zoom)

    def _mosaic(self, zoom: int, x0: int, y0: int, x1: int, y1: int) -> U8:
        """(y1 - y0, x1 - x0, 4) RGBA pixels of the world image at a zoom; wraps around in x."""
        out = np.zeros((y1 - y0, x1 - x0, 4), np.uint8)
        for ty in range(y0 // TILE_PX, (y1 - 1) // TILE_PX + 1):
            for tx in range(x0 // TILE_PX, (x1 - 1) // TILE_PX + 1):
                tile = self._tile(zoom, tx % (1 << zoom), ty)
                if tile is None:
                    continue
                left, top = tx * TILE_PX, ty * TILE_PX
                xa, xb = max(x0, left), min(x1, left + TILE_PX)
                ya, yb = max(y0, top), min(y1, top + TILE_PX)
                out[ya - y0 : yb - y0, xa - x0 : xb - x0] = tile[
                    ya - top : yb - top, xa - left : xb - left
                ]
        if zoom > self.min_zoom and (out[..., 3] < 255).any():
            return painted_over(out, self._enlarged(zoom, x0, y0, x1, y1))
        return out

    def _enlarged(self, zoom: int, x0: int, y0: int, x1: int, y1: int) -> U8:
        """The same pixels as `_mosaic`, from the next coarser zoom."""
        left, top = x0 // 2 - 1, y0 // 2 - 1
        coarse = self._mosaic(zoom - 1, left, top, -(-x1 // 2) + 1, -(-y1 // 2) + 1)
        # Pixel centres: (x0 + i + 0.5) / 2 of the coarser world is its pixel j at left + j + 0.5.
        place = np.array([[0.5, 0.0, x0 / 2 - left - 0.25], [0.0, 0.5, y0 / 2 - top - 0.25]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(coarse, place, (x1 - x0, y1 - y0), flags=flags), np.uint8)

    def _tile(self, zoom: int, x: int, y: int) -> U8 | None:
        """(256, 256, 4) RGBA of one XYZ tile; None where the file has none.

        To be read before the next call, which may put another tile in its place.
        """
        key = (zoom, x, y)
        if key in self._slots:
            self._slots.move_to_end(key)
        else:
            row = self._db.execute(
                "SELECT tile_data FROM tiles WHERE zoom_level=? AND tile_column=? AND tile_row=?",
                (zoom, x, (1 << zoom) - 1 - y),
            ).fetchone()
            # Decoded before a slot is taken: a tile that is broken takes none.
            tile = None if row is None else decode_tile(row[0], f"{self.path} tile {zoom}/{x}/{y}")
            full = len(self._slots) == len(self._pixels)
            slot = self._slots.popitem(last=False)[1][0] if full else len(self._slots)
            if tile is not None:
                self._pixels[slot] = tile
            self._slots[key] = slot, tile is not None
        slot, there = self._slots[key]
        return self._pixels[slot] if there else None


def painted_over(above: U8, below: U8) -> U8:
    """One RGBA image over another, both (H, W, 4); colours are not multiplied by alpha.

    The "over" of Porter and Duff 1984.
    """
    seen = above[..., 3]
    if (seen == 255).all():
        return above
    out = np.where(seen[..., None] == 255, above, below)
    mixed = (seen > 0) & (seen < 255)
    if mixed.any():
        top, bottom = above[mixed].astype(np.float64), below[mixed].astype(np.float64)
        share_top = top[:, 3:] / 255
        share_bottom = bottom[:, 3:] / 255 * (1 - share_top)
        alpha = share_top + share_bottom
        colour = (top[:, :3] * share_top + bottom[:, :3] * share_bottom) / alpha
        out[mixed] = np.round(np.concatenate([colour, 255 * alpha], axis=1)).astype(np.uint8)
    return np.asarray(out, np.uint8)


def decode_tile(data: bytes, name: str) -> U8:
    """Decode a JPEG, PNG or WebP tile to (256, 256, 4) RGBA.

    Raises:
        ImageryError: not an 8-bit image of that size.
    """
    image = decode_image(data)
    if image is None or image.shape[:2] != (TILE_PX, TILE_PX):
        msg = f"{name} is not a {TILE_PX}x{TILE_PX} px image of 8 bits. Copy the index folder again"
        raise ImageryError(msg)
    return image


def decode_image(data: bytes) -> U8 | None:
    """Decode a JPEG, PNG or WebP to (H, W, 4) RGBA; None where it is no image of 8 bits."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None or image.dtype != np.uint8:
        return None
    conversion = {2: cv2.COLOR_GRAY2RGBA, 3: cv2.COLOR_BGR2RGBA, 4: cv2.COLOR_BGRA2RGBA}
    channels = 2 if image.ndim == 2 else image.shape[2]
    return np.asarray(cv2.cvtColor(image, conversion[channels]), np.uint8)


def tile_bounds(zoom: int, x: int, y: int) -> Bounds:
    """The box of an XYZ tile."""
    n = float(1 << zoom)
    north_west = from_mercator_unit(x / n, y / n)
    south_east = from_mercator_unit((x + 1) / n, (y + 1) / n)
    return Bounds(
        float(south_east.lat_deg),
        float(north_west.lon_deg),
        float(north_west.lat_deg),
        float(north_west.lon_deg) + 360.0 / n,
    )
