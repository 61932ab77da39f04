"""Web Mercator tiles that are already cut: folders, MBTiles and PMTiles, at their deepest zooms.

Tiles that lie in place are taken as they are, without another loss. A zoom above the deepest one is
an overview where deeper tiles are there, and imagery where they are not.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ImageryError
from edge_runtime.geodesy import from_mercator_unit, mercator_metres_per_unit
from edge_runtime.imagery import TILE_PX, Bounds, decode_image
from edge_runtime.map_sources.crop_area import CropArea
from edge_runtime.map_sources.source import (
    CutTile,
    ImagerySource,
    Kind,
    Layer,
    Provenance,
    union,
)

U8 = npt.NDArray[np.uint8]

_SHALLOWER = 4
"""Zooms above the deepest that may still be imagery; a base map of the world is not."""
_PLAIN = 4
"""A quarter of a tile whose values differ by less, with no tile below it, is fill and no ground."""


class TilePyramid(Protocol):
    """Compressed map tiles by zoom, column and row of the XYZ scheme. May be opened many times."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        ...

    @property
    def kind(self) -> Kind:
        """What it is."""
        ...

    @property
    def provenance(self) -> Provenance:
        """What it says of itself."""
        ...

    def zooms(self) -> list[int]:
        """The zooms that have tiles, ascending."""
        ...

    def keys(self, zoom: int) -> Iterator[tuple[int, int]]:
        """Column and row of every tile of a zoom, in a fixed order."""
        ...

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """One compressed image; None where there is none."""
        ...


class _Extent(NamedTuple):
    tiles: int
    columns: set[int]
    first_row: int
    last_row: int


def pyramid_source(pyramid: TilePyramid) -> ImagerySource:
    """What a pyramid holds.

    Raises:
        ImageryError: it holds no tile, or its tiles are no square images of 256 or 512 px.
    """
    zooms = pyramid.zooms()
    if not zooms:
        msg = f"{pyramid.path} holds no map tiles; expected images by zoom, column and row"
        raise ImageryError(msg)
    deepest = zooms[-1]
    x, y = next(pyramid.keys(deepest))
    side = _decoded(pyramid, deepest, x, y, pyramid.tile(deepest, x, y)).shape[0]
    layers: list[Layer] = []
    boxes: list[Bounds] = []
    for zoom in reversed(zooms):
        if zoom < deepest - _SHALLOWER:
            break
        found = _extent(pyramid, zoom, whole=zoom == deepest)
        if found is None:
            continue
        box = _box(zoom, found)
        boxes.append(box)
        metres = mercator_metres_per_unit((box.south_deg + box.north_deg) / 2)[0]
        gsd_m = metres / (side << zoom)
        layers.append(
            PyramidLayer(
                pyramid=pyramid,
                own_zoom=zoom,
                tile_px=side,
                gsd_m=gsd_m,
                own_tiles=found.tiles,
                deepest=zoom == deepest,
            )
        )
    return ImagerySource(
        path=pyramid.path,
        kind=pyramid.kind,
        crs="EPSG:3857",
        gsd_m=layers[0].gsd_m,
        bounds=union(boxes),
        provenance=pyramid.provenance,
        layers=tuple(layers),
    )


def _extent(pyramid: TilePyramid, zoom: int, *, whole: bool) -> _Extent | None:
    tiles, columns = 0, set()
    first, last = 1 << zoom, -1
    for x, y in pyramid.keys(zoom):
        if not (0 <= x < 1 << zoom and 0 <= y < 1 << zoom):
            msg = (
                f"{pyramid.path} has a tile {zoom}/{x}/{y}, which lies outside the map; expected "
                f"columns and rows below {1 << zoom} at zoom {zoom}"
            )
            raise ImageryError(msg)
        if not whole and len(_below(pyramid, zoom, x, y)) == 4:
            continue
        tiles += 1
        columns.add(x)
        first, last = min(first, y), max(last, y)
    return _Extent(tiles, columns, first, last) if tiles else None


def _below(pyramid: TilePyramid, zoom: int, x: int, y: int) -> list[tuple[int, int]]:
    """(row, column) 0 or 1 of the quarters that have a deeper tile."""
    return [
        (j, i)
        for j in range(2)
        for i in range(2)
        if pyramid.tile(zoom + 1, 2 * x + i, 2 * y + j) is not None
    ]


def _box(zoom: int, found: _Extent) -> Bounds:
    """Around the tiles; across the antimeridian where the widest gap lies elsewhere."""
    n = 1 << zoom
    columns = sorted(found.columns)
    gaps = np.diff([*columns, columns[0] + n])
    widest = int(np.argmax(gaps))
    start = columns[(widest + 1) % len(columns)]
    across = n - int(gaps[widest]) + 1
    north, south = (
        float(from_mercator_unit(0.5, row / n).lat_deg)
        for row in (found.first_row, found.last_row + 1)
    )
    west = start / n * 360 - 180
    return Bounds(south, west, north, west + across / n * 360)


def _decoded(pyramid: TilePyramid, zoom: int, x: int, y: int, data: bytes | None) -> U8:
    image = decode_image(data) if data else None
    if image is None or image.shape[0] != image.shape[1] or image.shape[0] not in (256, 512):
        size = "no image of 8 bits" if image is None else f"{image.shape[1]}x{image.shape[0]} px"
        msg = (
            f"{pyramid.path} tile {zoom}/{x}/{y} is {size}; expected a JPEG, PNG or WebP of "
            "256x256 or 512x512 px. Fetch or cut that tile again"
        )
        raise ImageryError(msg)
    return image


@dataclass(frozen=True, kw_only=True)
class PyramidLayer:
    """One zoom of a pyramid."""

    pyramid: TilePyramid
    own_zoom: int
    tile_px: int
    gsd_m: float
    own_tiles: int
    deepest: bool

    @property
    def zoom(self) -> int:
        """A tile of 512 px is four of the next zoom."""
        return self.own_zoom + int(math.log2(self.tile_px // TILE_PX))

    @property
    def tiles(self) -> int:
        """Tiles it yields, at most."""
        return self.own_tiles * (self.tile_px // TILE_PX) ** 2

    def cut(self, area: CropArea | None, done: Callable[[int], None]) -> Iterator[CutTile]:
        """Yield its tiles in the pyramid's order.

        Raises:
            ImageryError: a tile is damaged.
        """
        for x, y in self.pyramid.keys(self.own_zoom):
            below = [] if self.deepest else _below(self.pyramid, self.own_zoom, x, y)
            if len(below) == 4:
                continue
            if area is None or area.covers(self.own_zoom, x, y) != "none":
                yield from self._tiles_of(x, y, below)
            done((self.tile_px // TILE_PX) ** 2)

    def _tiles_of(self, x: int, y: int, below: list[tuple[int, int]]) -> Iterator[CutTile]:
        data = self.pyramid.tile(self.own_zoom, x, y)
        image = _decoded(self.pyramid, self.own_zoom, x, y, data)
        if image.shape[0] != self.tile_px:
            msg = (
                f"{self.pyramid.path} tile {self.own_zoom}/{x}/{y} is {image.shape[0]} px wide and "
                f"others are {self.tile_px}; expected one size"
            )
            raise ImageryError(msg)
        if not self.deepest:
            half = self.tile_px // 2
            for j in range(2):
                for i in range(2):
                    quarter = image[j * half : (j + 1) * half, i * half : (i + 1) * half]
                    if (j, i) in below or int(np.ptp(quarter[..., :3], axis=(0, 1)).max()) < _PLAIN:
                        quarter[...] = 0
                        data = None
        across = self.tile_px // TILE_PX
        for j in range(across):
            for i in range(across):
                tile = image[j * TILE_PX : (j + 1) * TILE_PX, i * TILE_PX : (i + 1) * TILE_PX]
                if tile[..., 3].any():
                    whole = data if across == 1 else None
                    yield CutTile(across * x + i, across * y + j, np.ascontiguousarray(tile), whole)
