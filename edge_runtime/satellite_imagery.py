"""Satellite imagery in: any georeferenced raster that GDAL reads becomes one `imagery.mbtiles`.

The raster is warped to Web Mercator at the zoom that keeps its resolution, cut into 256 px tiles,
and averaged into coarser zooms until one tile holds the whole map.
"""

import math
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from edge_runtime.errors import ImageryError
from edge_runtime.geodesy import mercator_metres_per_unit, mercator_unit
from edge_runtime.imagery import TILE_PX, Bounds, decode_tile

U8 = npt.NDArray[np.uint8]
Progress = Callable[[str, float], None]
"""Called with a stage name and the fraction done, 0..1."""

_WORLD_M = 2 * math.pi * 6378137.0
"""Side of the EPSG:3857 square in its own metres."""
MAX_ZOOM = 22
"""0.037 m per pixel at the equator: finer than any satellite."""


@dataclass(frozen=True, kw_only=True)
class ImagerySource:
    """One georeferenced raster, as found."""

    path: Path
    crs: str
    gsd_m: float
    """Ground metres per pixel at its centre."""
    bounds: Bounds


def inspect(path: Path) -> ImagerySource:
    """Read a raster's georeference.

    Raises:
        ImageryError: unreadable, no georeference, no 8-bit RGB or grey bands (a palette is
            none), outside Web Mercator.
    """
    try:
        with warnings.catch_warnings():
            # What is missing is said below, in our own words.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = rasterio.open(path)
        with source:
            if source.crs is None or source.transform.is_identity:
                msg = (
                    f"{path} has no georeference (CRS and transform); expected a GeoTIFF or "
                    "another "
                    "raster with both. Add them with: gdal_translate -a_srs … -a_ullr …"
                )
                raise ImageryError(msg)
            if set(source.dtypes) != {"uint8"} or source.count not in (1, 2, 3, 4):
                msg = (
                    f"{path} has {source.count} bands of {sorted(set(source.dtypes))}; "
                    "expected 1 to 4 bands of uint8. Convert it with: gdal_translate -ot Byte "
                    "-scale"
                )
                raise ImageryError(msg)
            if ColorInterp.palette in source.colorinterp:
                msg = (
                    f"{path} has a colour palette; expected grey or RGB bands. Convert it with: "
                    "gdal_translate -expand rgb"
                )
                raise ImageryError(msg)
            west, south, east, north = transform_bounds(source.crs, "EPSG:4326", *source.bounds)
            if east < west:
                east += 360.0
            if not (-85.0 <= south < north <= 85.0):
                msg = f"{path} covers latitudes {south:.4f} to {north:.4f}; expected within ±85"
                raise ImageryError(msg)
            width = source.width
            metres = mercator_metres_per_unit((south + north) / 2)[0] / 360 * (east - west)
            return ImagerySource(
                path=path,
                crs=source.crs.to_string(),
                gsd_m=metres / width,
                bounds=Bounds(south, west, north, east),
            )
    except RasterioError as error:
        msg = (
            f"{path} cannot be read as satellite imagery ({error}); expected a georeferenced raster"
        )
        raise ImageryError(msg) from error


def write_mbtiles(
    sources: Sequence[Path],
    out: Path,
    *,
    jpeg_quality: int = 90,
    progress: Progress | None = None,
) -> list[ImagerySource]:
    """Write georeferenced rasters as one MBTiles file; a finer source is drawn over a coarser one.

    Args:
        sources: rasters; at least one.
        out: file to write; must not exist.
        jpeg_quality: quality of tiles that are covered whole; others are PNG with transparency.
        progress: told how far the work is.

    Returns:
        What was found in each source, coarsest first.

    Raises:
        ImageryError: a source is unusable, or nothing of it is visible.
    """
    found = sorted((inspect(path) for path in sources), key=lambda s: -s.gsd_m)
    if not found:
        msg = "no imagery was given; expected at least one georeferenced raster"
        raise ImageryError(msg)
    finest = found[-1]
    zoom = _zoom_for(finest.gsd_m, (finest.bounds.south_deg + finest.bounds.north_deg) / 2)
    db = sqlite3.connect(out)
    try:
        db.execute("PRAGMA journal_mode=OFF")
        db.execute("PRAGMA synchronous=OFF")  # The folder is flushed and renamed as a whole.
        db.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
        db.execute(
            "CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, "
            "tile_data BLOB)"
        )
        db.execute("CREATE UNIQUE INDEX tile_index ON tiles (zoom_level, tile_column, tile_row)")
        for k, source in enumerate(found):

            def report(fraction: float, k: int = k) -> None:
                if progress is not None:
                    progress("imagery", (k + fraction) / len(found))

            _cut(db, source, zoom, jpeg_quality, report)
        bottom = _add_overviews(db, zoom, jpeg_quality)
        _write_metadata(db, found, bottom, zoom)
        db.commit()
    finally:
        db.close()
    return found


def _zoom_for(gsd_m: float, lat_deg: float) -> int:
    """The zoom whose pixels are at most 20 % coarser than the source's."""
    exact = math.log2(mercator_metres_per_unit(lat_deg)[0] / (TILE_PX * gsd_m * 1.2))
    return min(max(math.ceil(exact), 0), MAX_ZOOM)


def _cut(
    db: sqlite3.Connection,
    source: ImagerySource,
    zoom: int,
    quality: int,
    report: Callable[[float], None],
) -> None:
    box = source.bounds
    x0, y0 = mercator_unit(box.north_deg, box.west_deg)
    x1, y1 = mercator_unit(box.south_deg, box.east_deg)
    n = 1 << zoom
    tx0, tx1 = math.floor(float(x0) * n), math.ceil(float(x1) * n)
    ty0, ty1 = math.floor(float(y0) * n), math.ceil(float(y1) * n)
    written = 0
    with rasterio.open(source.path) as raster:
        parts = [(tx0, tx1, 0)]
        if raster.crs.is_geographic:
            # GDAL's longitudes end at 180 degrees: each turn of the world is cut on its own.
            parts = [
                (max(tx0 - turn * n, 0), min(tx1 - turn * n, n), turn)
                for turn in range(tx0 // n, (tx1 - 1) // n + 1)
            ]
        for k, (first, last, turn) in enumerate(parts):
            a, b, c, d, e, f = raster.transform[:6]
            place = Affine(a, b, c - 360.0 * turn, d, e, f)
            strips = _strips(raster, place, zoom, range(first, last), range(ty0, ty1))
            for done, (ty, rgba) in enumerate(strips, 1):
                for tx in range(first, last):
                    tile = rgba[:, (tx - first) * TILE_PX : (tx - first + 1) * TILE_PX]
                    written += _put(db, zoom, tx % n, ty, tile, quality)
                report((k + done / (ty1 - ty0)) / len(parts))
    if not written:
        msg = f"{source.path} has no visible pixel; is everything nodata?"
        raise ImageryError(msg)


def _strips(
    raster: rasterio.DatasetReader, place: Affine, zoom: int, columns: range, rows: range
) -> Iterator[tuple[int, U8]]:
    """Warp a raster that lies at `place`; yields each row of tiles as its number and RGBA."""
    tile_m = _WORLD_M / (1 << zoom)
    step = tile_m / TILE_PX
    with WarpedVRT(
        raster,
        src_transform=place,
        crs="EPSG:3857",
        transform=Affine(
            step,
            0,
            columns.start * tile_m - _WORLD_M / 2,
            0,
            -step,
            _WORLD_M / 2 - rows.start * tile_m,
        ),
        width=len(columns) * TILE_PX,
        height=len(rows) * TILE_PX,
        resampling=Resampling.bilinear,
        add_alpha=ColorInterp.alpha not in raster.colorinterp,
    ) as vrt:
        for k, ty in enumerate(rows):
            try:
                strip = vrt.read(window=((k * TILE_PX, (k + 1) * TILE_PX), (0, vrt.width)))
            except RasterioIOError as error:
                msg = f"{raster.name} is damaged ({error}); expected a complete raster"
                raise ImageryError(msg) from error
            yield ty, _as_rgba(np.moveaxis(strip, 0, -1))


def _as_rgba(bands: U8) -> U8:
    """(H, W, 2 to 5) grey or RGB first, alpha last, whatever between them, to RGBA."""
    colour, alpha = bands[..., :-1], bands[..., -1:]
    rgb = colour[..., :3] if colour.shape[2] >= 3 else colour[..., [0, 0, 0]]
    return np.concatenate([rgb, alpha], axis=2)


def _put(db: sqlite3.Connection, zoom: int, x: int, y: int, tile: U8, quality: int) -> int:
    """Write a tile over what is there; returns 1 if anything of it is visible."""
    alpha = tile[..., 3]
    if not alpha.any():
        return 0
    key = (zoom, x, (1 << zoom) - 1 - y)
    if not alpha.all():
        row = db.execute(
            "SELECT tile_data FROM tiles WHERE zoom_level=? AND tile_column=? AND tile_row=?", key
        ).fetchone()
        if row is not None:
            below = decode_tile(row[0], f"tile {zoom}/{x}/{y}")
            tile = np.where(alpha[..., None] > 0, tile, below)
    db.execute("INSERT OR REPLACE INTO tiles VALUES (?,?,?,?)", (*key, _encode(tile, quality)))
    return 1


def _encode(tile: U8, quality: int) -> bytes:
    if (tile[..., 3] == 255).all():
        bgr = cv2.cvtColor(tile, cv2.COLOR_RGBA2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    else:
        _, data = cv2.imencode(".png", cv2.cvtColor(tile, cv2.COLOR_RGBA2BGRA))
    return bytes(data)


def _add_overviews(db: sqlite3.Connection, zoom: int, quality: int) -> int:
    """Average 2x2 tiles into coarser zooms until one tile is left; returns the coarsest zoom."""
    while zoom > 0:
        rows = db.execute(
            "SELECT tile_column, tile_row FROM tiles WHERE zoom_level=?", (zoom,)
        ).fetchall()
        parents = sorted({(x // 2, ((1 << zoom) - 1 - tms) // 2) for x, tms in rows})
        if len(rows) == 1:
            break
        for px, py in parents:
            canvas = np.zeros((2 * TILE_PX, 2 * TILE_PX, 4), np.uint8)
            for dy in range(2):
                for dx in range(2):
                    x, y = 2 * px + dx, 2 * py + dy
                    row = db.execute(
                        "SELECT tile_data FROM tiles "
                        "WHERE zoom_level=? AND tile_column=? AND tile_row=?",
                        (zoom, x, (1 << zoom) - 1 - y),
                    ).fetchone()
                    if row is not None:
                        canvas[
                            dy * TILE_PX : (dy + 1) * TILE_PX, dx * TILE_PX : (dx + 1) * TILE_PX
                        ] = decode_tile(row[0], f"tile {zoom}/{x}/{y}")
            small = cv2.resize(canvas, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
            _put(db, zoom - 1, px, py, np.asarray(small, np.uint8), quality)
        zoom -= 1
    return zoom


def _beside(box: Bounds, other: Bounds) -> Bounds:
    """The box, turned around the world to where it is nearest the other."""
    apart = (other.west_deg + other.east_deg - box.west_deg - box.east_deg) / 2
    turn = 360.0 * round(apart / 360.0)
    return box._replace(west_deg=box.west_deg + turn, east_deg=box.east_deg + turn)


def _write_metadata(
    db: sqlite3.Connection, sources: Sequence[ImagerySource], min_zoom: int, max_zoom: int
) -> None:
    # At the antimeridian one source ends beyond 180 degrees where the next begins at -180.
    boxes = [_beside(s.bounds, sources[0].bounds) for s in sources]
    west = min(box.west_deg for box in boxes)
    east = max(box.east_deg for box in boxes)
    if west < -180.0:
        west, east = west + 360.0, east + 360.0
    south = min(s.bounds.south_deg for s in sources)
    north = max(s.bounds.north_deg for s in sources)
    values = {
        "name": sources[-1].path.stem,
        "format": "jpg",
        "type": "baselayer",
        "version": "1",
        "description": "satellite imagery of a skyfix index",
        "bounds": f"{west:.9f},{south:.9f},{east:.9f},{north:.9f}",
        "center": f"{(west + east) / 2:.9f},{(south + north) / 2:.9f},{max_zoom}",
        "minzoom": str(min_zoom),
        "maxzoom": str(max_zoom),
    }
    db.executemany("INSERT INTO metadata VALUES (?,?)", values.items())
