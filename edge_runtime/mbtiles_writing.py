"""Layers of imagery become one MBTiles 1.3 file (github.com/mapbox/mbtiles-spec).

Each layer is drawn at its own zoom, so fine imagery keeps its resolution and coarse imagery is not
blown up: `ImageryStore` enlarges it where nothing finer is there. Coarser zooms are averages of
finer ones, down to the zoom at which one tile holds the whole map.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ImageryError, InputError
from edge_runtime.imagery import TILE_PX, Bounds, decode_tile, painted_over
from edge_runtime.map_sources.crop_area import CropArea
from edge_runtime.map_sources.source import (
    UNKNOWN,
    CutTile,
    ImagerySource,
    Layer,
    beside,
    union,
)

U8 = npt.NDArray[np.uint8]
Progress = Callable[[str, float], None]
"""Called with a stage name and the fraction done, 0..1."""
ImageFormat = Literal["jpeg", "webp"]

DEFAULT_QUALITY = 90
_APPLICATION_ID = 0x4D504258
"""Marks an SQLite file as MBTiles (specification 1.3, "Database")."""
_MAGIC: dict[ImageFormat, bytes] = {"jpeg": b"\xff\xd8\xff", "webp": b"RIFF"}
_OVERVIEWS = 1 / 3
"""Work on coarser zooms, of that on the deepest: 1/4 + 1/16 + …"""


class TileWriter:
    """Writes tiles of one MBTiles file, over what is there."""

    def __init__(
        self, db: sqlite3.Connection, *, quality: int | None, image_format: ImageFormat
    ) -> None:
        """Make the tables.

        Args:
            db: an empty database.
            quality: 1 to 100; None keeps compressed tiles as they are where they can be.
            image_format: of tiles.
        """
        self._db = db
        self._format = image_format
        self._quality = DEFAULT_QUALITY if quality is None else quality
        self._keeps = quality is None
        db.execute("PRAGMA journal_mode=OFF")
        db.execute("PRAGMA synchronous=OFF")  # The folder is flushed and renamed as a whole.
        db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        db.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
        db.execute(
            "CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, "
            "tile_data BLOB)"
        )
        db.execute("CREATE UNIQUE INDEX tile_index ON tiles (zoom_level, tile_column, tile_row)")

    def draw(self, zoom: int, tile: CutTile, area: CropArea | None = None) -> bool:
        """Draw a tile over what is there; returns whether anything of it is visible."""
        rgba, data = tile.rgba, tile.data
        if area is not None:
            covered = area.covers(zoom, tile.x, tile.y)
            if covered == "none":
                return False
            if covered == "part":
                inside = area.mask(zoom, tile.x, tile.y)
                if not inside.all():
                    rgba, data = np.where(inside[..., None], rgba, np.uint8(0)), None
        alpha = rgba[..., 3]
        if not alpha.any():
            return False
        if not alpha.all() or (alpha < 255).any():
            below = self.read(zoom, tile.x, tile.y)
            if below is not None:
                rgba, data = painted_over(rgba, below), None
        kept = data is not None and self._keeps and data.startswith(_MAGIC[self._format])
        written = data if kept else self._encoded(rgba)
        key = (zoom, tile.x, (1 << zoom) - 1 - tile.y)
        self._db.execute("INSERT OR REPLACE INTO tiles VALUES (?,?,?,?)", (*key, written))
        return True

    def read(self, zoom: int, x: int, y: int) -> U8 | None:
        """(256, 256, 4) RGBA of a tile; None where there is none."""
        row = self._db.execute(
            "SELECT tile_data FROM tiles WHERE zoom_level=? AND tile_column=? AND tile_row=?",
            (zoom, x, (1 << zoom) - 1 - y),
        ).fetchone()
        return None if row is None else decode_tile(row[0], f"tile {zoom}/{x}/{y}")

    def add_overviews(self, zoom: int, done: Callable[[float], None]) -> int:
        """Average a zoom's tiles into the next coarser one, over what is there; returns how many.

        Args:
            zoom: the finer one.
            done: told the fraction done.
        """
        self._db.execute("CREATE TEMP TABLE parents (x INTEGER, tms INTEGER)")
        self._db.execute(
            "INSERT INTO parents SELECT DISTINCT tile_column >> 1, tile_row >> 1 FROM tiles "
            "WHERE zoom_level=? ORDER BY 1, 2",
            (zoom,),
        )
        (count,) = self._db.execute("SELECT COUNT(*) FROM parents").fetchone()
        rows = self._db.execute("SELECT x, tms FROM parents ORDER BY rowid")
        for k, (x, tms) in enumerate(rows, 1):
            y = (1 << (zoom - 1)) - 1 - int(tms)
            self.draw(zoom - 1, CutTile(x, y, self._average(zoom, x, y), None))
            if k % 64 == 0:
                done(k / count)
        self._db.execute("DROP TABLE parents")
        return int(count)

    def _average(self, zoom: int, x: int, y: int) -> U8:
        """Four tiles as one, each colour weighed by how much of it is visible."""
        canvas = np.zeros((2 * TILE_PX, 2 * TILE_PX, 4), np.uint8)
        for j in range(2):
            for i in range(2):
                tile = self.read(zoom, 2 * x + i, 2 * y + j)
                if tile is not None:
                    rows = slice(j * TILE_PX, (j + 1) * TILE_PX)
                    canvas[rows, i * TILE_PX : (i + 1) * TILE_PX] = tile
        size = (TILE_PX, TILE_PX)
        if (canvas[..., 3] == 255).all():
            return np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.uint8)
        weighed = canvas.astype(np.float32)
        weighed[..., :3] *= weighed[..., 3:] / 255
        small = np.asarray(cv2.resize(weighed, size, interpolation=cv2.INTER_AREA), np.float32)
        small[..., :3] *= 255 / np.maximum(small[..., 3:], 1e-3)
        return np.clip(np.round(small), 0, 255).astype(np.uint8)

    def _encoded(self, rgba: U8) -> bytes:
        if self._format == "webp":
            options, suffix = [cv2.IMWRITE_WEBP_QUALITY, self._quality], ".webp"
        elif (rgba[..., 3] == 255).all():
            options, suffix = [cv2.IMWRITE_JPEG_QUALITY, self._quality], ".jpg"
        else:
            options, suffix = [], ".png"  # JPEG knows no transparency.
        whole = (rgba[..., 3] == 255).all()
        image = cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGR if whole else cv2.COLOR_RGBA2BGRA)
        _, data = cv2.imencode(suffix, image, options)
        return bytes(data)


def write_sources(
    sources: Sequence[ImagerySource],
    out: Path,
    *,
    quality: int | None = None,
    image_format: ImageFormat = "jpeg",
    area: CropArea | None = None,
    progress: Progress | None = None,
) -> list[ImagerySource]:
    """Write map sources as one MBTiles file; where they overlap the finest is seen.

    The file is the same, byte for byte, for the same sources. Memory does not grow with the map.

    Args:
        sources: at least one.
        out: file to write; must not exist.
        quality: of the tiles' compression, 1 to 100. None is 90, and tiles that are map tiles of
            the same format already are kept as they are.
        image_format: "webp" is smaller and slower to read; tiles that are covered in part are
            PNG with transparency where the format is JPEG.
        area: what lies outside is left out.
        progress: told how far the work is, as "imagery".

    Returns:
        The sources that were drawn: all, without those that lie outside the area.

    Raises:
        ImageryError: a source is damaged or nothing of it is visible; nothing lies in the area.
        InputError: a quality that is none, or the file is there.
    """
    if out.exists():
        msg = f"{out} is there already; expected a new file. Give another name"
        raise InputError(msg)
    if quality is not None and not 1 <= quality <= 100:
        msg = f"the quality of tiles is {quality}; expected 1 to 100"
        raise InputError(msg)
    tell = _Telling(sum(layer.tiles for s in sources for layer in s.layers), progress)
    try:
        with closing(sqlite3.connect(out)) as db:
            writer = TileWriter(db, quality=quality, image_format=image_format)
            drawn, zooms = _draw_all(db, writer, sources, area, tell)
            _write_metadata(db, drawn, area, image_format, zooms)
            db.commit()
    except BaseException:
        out.unlink(missing_ok=True)  # Half a map must not be taken for one.
        raise
    tell.end()
    return drawn


def _draw_all(
    db: sqlite3.Connection,
    writer: TileWriter,
    sources: Sequence[ImagerySource],
    area: CropArea | None,
    tell: "_Telling",
) -> tuple[list[ImagerySource], tuple[int, int]]:
    """Draw every layer at its zoom, from the deepest up.

    Returns:
        The sources of which something is visible, and the coarsest and the deepest zoom.
    """
    seen: set[int] = set()
    layers = [(layer, k) for k, source in enumerate(sources) for layer in source.layers]
    deepest = zoom = max(layer.zoom for layer, _ in layers)
    while True:
        here = [(layer, k) for layer, k in layers if layer.zoom == zoom]
        for layer, k in sorted(here, key=lambda pair: -pair[0].gsd_m):  # Stable among equals.
            if _draw(writer, layer, area, tell):
                seen.add(k)
        with tell.overviews():
            if zoom < deepest:
                writer.add_overviews(zoom + 1, tell.part)
        (count,) = db.execute("SELECT COUNT(*) FROM tiles WHERE zoom_level=?", (zoom,)).fetchone()
        if zoom == 0 or (count <= 1 and not any(layer.zoom < zoom for layer, _ in layers)):
            break
        zoom -= 1
    for k, source in enumerate(sources):
        if k not in seen and area is None:
            msg = f"{source.path} has no visible pixel; is everything nodata?"
            raise ImageryError(msg)
    if not seen:
        msg = f"no imagery lies inside {area.path if area else 'the area'}; expected an overlap"
        raise ImageryError(f"{msg}. Is it longitude before latitude?")
    return [source for k, source in enumerate(sources) if k in seen], (zoom, deepest)


def _draw(writer: TileWriter, layer: Layer, area: CropArea | None, tell: "_Telling") -> bool:
    visible = False
    for tile in layer.cut(area, tell.tiles):
        visible |= writer.draw(layer.zoom, tile, area)
    return visible


class _Telling:
    """Fractions that rise: layers by their tiles, coarser zooms by how many there should be."""

    def __init__(self, tiles: int, progress: Progress | None) -> None:
        self._progress = progress
        self._whole = max(tiles, 1) * (1 + _OVERVIEWS)
        self._done = 0.0
        self._share = 0.0
        self._base = 0.0

    def tiles(self, count: int) -> None:
        self._done += count
        self._say()

    @contextmanager
    def overviews(self) -> Iterator[None]:
        """The next zoom's averages: three quarters of the work left of that kind."""
        left = self._whole * _OVERVIEWS / (1 + _OVERVIEWS) - self._base
        self._share = 0.75 * left
        start = self._done
        yield
        self._done = start + self._share
        self._base += self._share
        self._say()

    def part(self, fraction: float) -> None:
        if self._progress is not None:
            self._progress("imagery", min((self._done + fraction * self._share) / self._whole, 1.0))

    def end(self) -> None:
        if self._progress is not None:
            self._progress("imagery", 1.0)

    def _say(self) -> None:
        if self._progress is not None:
            self._progress("imagery", min(self._done / self._whole, 1.0))


def _write_metadata(
    db: sqlite3.Connection,
    sources: Sequence[ImagerySource],
    area: CropArea | None,
    image_format: ImageFormat,
    zooms: tuple[int, int],
) -> None:
    box = union([source.bounds for source in sources])
    if area is not None:
        box = _common(box, area)
    west, south, east, north = box.west_deg, box.south_deg, box.east_deg, box.north_deg
    named = dict.fromkeys(source.provenance.attribution for source in sources)
    values = {
        "name": sources[-1].path.stem,
        "format": "webp" if image_format == "webp" else "jpg",
        "type": "baselayer",
        "version": "1",
        "description": "satellite imagery of a skyfix index",
        "attribution": "; ".join(name for name in named if name != UNKNOWN) or UNKNOWN,
        "bounds": f"{west:.9f},{south:.9f},{east:.9f},{north:.9f}",
        "center": f"{(west + east) / 2:.9f},{(south + north) / 2:.9f},{zooms[1]}",
        "minzoom": str(zooms[0]),
        "maxzoom": str(zooms[1]),
        "sources": json.dumps([source.to_json() for source in sources], ensure_ascii=False),
    }
    db.executemany("INSERT INTO metadata VALUES (?,?)", values.items())


def _common(box: Bounds, area: CropArea) -> Bounds:
    """The part of a box that lies in the area's boxes."""
    parts = []
    for other in (beside(b, box) for b in area.boxes):
        part = Bounds(
            max(box.south_deg, other.south_deg),
            max(box.west_deg, other.west_deg),
            min(box.north_deg, other.north_deg),
            min(box.east_deg, other.east_deg),
        )
        if part.south_deg < part.north_deg and part.west_deg < part.east_deg:
            parts.append(part)
    return union(parts) if parts else box
