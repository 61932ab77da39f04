"""Georeferenced rasters that GDAL reads: GeoTIFF, COG, VRT, JPEG 2000, a picture with a world file.

What is found out about one here is enough to see it on any other grid.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_BaseError  # GDAL's own errors, which some calls let through.
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform, transform_bounds

from edge_runtime.errors import ImageryError
from edge_runtime.geodesy import enu_offset_m
from edge_runtime.imagery import Bounds
from edge_runtime.map_sources.radiometry import (
    Bands,
    Stretch,
    as_rgba,
    choose_bands,
    expanded_palette,
    measure_stretch,
)

U8 = npt.NDArray[np.uint8]

_CACHE_BYTES = 384 << 20
"""Of GDAL's decoded blocks, which it would else keep in a twentieth of the machine's memory."""


@dataclass(frozen=True, kw_only=True)
class Raster:
    """One georeferenced raster file, as found."""

    path: Path
    crs: str
    """What PROJ knows it by."""
    place: Affine
    """From (column, row) to the CRS."""
    width: int
    height: int
    gsd_m: float
    """Ground metres per pixel at its centre, along the finer axis."""
    bounds: Bounds
    bands: Bands
    dtype: str
    stretch: Stretch = ()

    @contextmanager
    def warped(
        self, crs: str, grid: Affine, *, width: int, height: int, turn: int = 0
    ) -> Iterator[Callable[[int, int, int, int], U8]]:
        """Open it as seen on another grid.

        Args:
            crs: of the grid.
            grid: from the grid's (column, row) to its CRS.
            width: of the grid.
            height: of the grid.
            turn: turns of the world that degrees of longitude are moved west by first.

        Yields:
            A function of (top row, bottom row, left column, right column) that returns that part
            of the grid as (rows, columns, 4) uint8 RGBA.

        Raises:
            ImageryError: the raster is damaged.
        """
        with opened_raster(self.path) as first:
            name = expanded_palette(first) if self.bands.palette else None
        a, b, c, d, e, f = self.place[:6]
        with (
            opened_raster(name or self.path) as raster,
            WarpedVRT(
                raster,
                src_crs=self.crs,
                src_transform=Affine(a, b, c - 360.0 * turn, d, e, f),
                crs=crs,
                transform=grid,
                width=width,
                height=height,
                resampling=Resampling.bilinear,  # GDAL widens it over what a coarser pixel covers.
                add_alpha=self._alpha(raster.count) is None,
            ) as view,
        ):
            colour = (1, 2, 3) if name else self.bands.colour
            wanted = [*colour, self._alpha(raster.count) or view.count]

            def read(top: int, bottom: int, left: int, right: int) -> U8:
                try:
                    found = view.read(wanted, window=((top, bottom), (left, right)))
                except (RasterioIOError, CPLE_BaseError) as error:
                    msg = f"{self.path} is damaged ({error}); expected a complete raster"
                    raise ImageryError(msg) from error
                return as_rgba(found, self.stretch)

            yield read

    def _alpha(self, count: int) -> int | None:
        if self.bands.palette:
            return 4 if count == 4 else None
        return self.bands.alpha


@contextmanager
def opened_raster(name: Path | str) -> Iterator[rasterio.DatasetReader]:
    """Open a raster without GDAL's warning that it has no place."""
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        # What is missing is said in our own words, or given beside the file.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(name) as raster:
            yield raster


def find_raster(path: Path, *, crs: str | None = None, corners: Bounds | None = None) -> Raster:
    """Read a raster's georeference and which bands are its picture.

    Args:
        path: any raster that GDAL reads.
        crs: what its coordinates are where the file and its .prj do not say.
        corners: the outer edges of the picture, linear in degrees, in place of its georeference.

    Raises:
        ImageryError: unreadable, no georeference, a CRS that PROJ does not know, bands that are no
            picture, or outside Web Mercator.
    """
    try:
        with opened_raster(path) as raster:
            size = (raster.width, raster.height)
            bands, dtype = choose_bands(raster), raster.dtypes[0]
            if corners is not None:
                box = corners
                place = Affine(
                    (box.east_deg - box.west_deg) / size[0], 0.0, box.west_deg,
                    0.0, (box.south_deg - box.north_deg) / size[1], box.north_deg,
                )  # fmt: skip
                said = CRS.from_epsg(4326)
            else:
                place = raster.transform
                said = _crs_of(raster, path, crs)
    except (RasterioError, CPLE_BaseError) as error:
        msg = (
            f"{path} cannot be read as satellite imagery ({error}); expected a georeferenced raster"
        )
        raise ImageryError(msg) from error
    try:
        bounds, gsd_m = _extent(said, place, *size)
    except (CRSError, RasterioError, CPLE_BaseError, ValueError) as error:
        msg = (
            f"{path} has the coordinate system {said.to_string()[:60]!r}, which PROJ cannot bring "
            "to latitude and longitude; expected a known CRS. Name it with: gdal_translate -a_srs "
            "EPSG:…"
        )
        raise ImageryError(msg) from error
    if not -85.0 <= bounds.south_deg < bounds.north_deg <= 85.0:
        msg = (
            f"{path} covers latitudes {bounds.south_deg:.4f} to {bounds.north_deg:.4f}; expected "
            "within ±85. Cut it with gdalwarp -te, or give its coordinate system with --crs"
        )
        raise ImageryError(msg)
    return Raster(
        path=path,
        crs=said.to_string(),
        place=place,
        width=size[0],
        height=size[1],
        gsd_m=gsd_m,
        bounds=bounds,
        bands=bands,
        dtype=dtype,
    )


def _crs_of(raster: rasterio.DatasetReader, path: Path, given: str | None) -> CRS:
    """What a raster's coordinates are: its own word first, then its .prj, then the user's.

    Raises:
        ImageryError: no transform, no CRS, or one that PROJ does not know.
    """
    beside = path.with_suffix(".prj")
    if raster.transform.is_identity:
        how = (
            "is placed by control points; rectify it with: gdalwarp -t_srs EPSG:3857"
            if raster.gcps[0]
            else "has no georeference (CRS and transform); expected a GeoTIFF or another raster "
            "with both, or a world file. Add them with: gdal_translate -a_srs … -a_ullr …, or give "
            "its corners"
        )
        msg = f"{path} {how}"
        raise ImageryError(msg)
    if raster.crs:
        return raster.crs
    word, origin = given, "--crs"
    if beside.is_file():
        word, origin = beside.read_text(encoding="utf-8", errors="replace").strip(), beside.name
    if word is None:
        msg = (
            f"{path} has a place but no coordinate system; expected a CRS in the file or in "
            f"{beside.name}. Give it with: --crs EPSG:…"
        )
        raise ImageryError(msg)
    try:
        return CRS.from_user_input(word)
    except (CRSError, ValueError) as error:
        msg = (
            f"{path}: {origin} says {word[:60]!r}, a coordinate system that PROJ does not know; "
            "expected a code such as EPSG:32633. Look it up at epsg.io"
        )
        raise ImageryError(msg) from error


def _extent(crs: CRS, place: Affine, width: int, height: int) -> tuple[Bounds, float]:
    """The box a raster lies in and the size of its central pixel, metres.

    Raises:
        CRSError: PROJ knows no way from this CRS to degrees. Some come as others of rasterio's.
        ValueError: a position came out as no number.
    """
    corners = [place @ (x, y) for x in (0, width) for y in (0, height)]
    xs, ys = zip(*corners, strict=True)
    west, south, east, north = transform_bounds(
        crs, "EPSG:4326", min(xs), min(ys), max(xs), max(ys)
    )
    if east < west:
        east += 360.0
    column, row = width / 2, height / 2
    points = [place @ p for p in ((column, row), (column + 1, row), (column, row + 1))]
    lon, lat = transform(crs, "EPSG:4326", *(list(v) for v in zip(*points, strict=True)))[:2]
    if not np.isfinite([west, south, east, north, *lon, *lat]).all():
        msg = "its corners have no latitude and longitude"
        raise ValueError(msg)
    if not -90 <= lat[0] <= 90:
        return Bounds(south, west, north, east), math.inf
    steps = enu_offset_m(lat[0], lon[0], lat[1:], lon[1:])
    return Bounds(south, west, north, east), float(np.hypot(*steps).min())


def with_stretch(rasters: Sequence[Raster]) -> list[Raster]:
    """Give rasters of deep values the stretch to 8 bits that files of their kind have in common.

    Files of one type, with the same bands and the same size of pixel (to 2 %), are taken to be of
    one survey: their tones must agree where they meet.

    Raises:
        ImageryError: a file is damaged, or none of a kind has a visible pixel.
    """
    alike: dict[tuple[str, Bands, int], list[Path]] = {}
    for raster in rasters:
        if raster.bands.deep:
            alike.setdefault(_survey(raster), []).append(raster.path)
    stretches = {kind: measure_stretch(paths, kind[1]) for kind, paths in alike.items()}
    return [
        replace(raster, stretch=stretches[_survey(raster)]) if raster.bands.deep else raster
        for raster in rasters
    ]


def _survey(raster: Raster) -> tuple[str, Bands, int]:
    return raster.dtype, raster.bands, round(math.log(raster.gsd_m) / math.log(1.02))
