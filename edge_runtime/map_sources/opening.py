"""Sorts out what each given path is."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edge_runtime.errors import ImageryError
from edge_runtime.imagery import Bounds
from edge_runtime.map_sources.corner_tables import corner_bounds, read_corner_table
from edge_runtime.map_sources.pyramids import pyramid_source
from edge_runtime.map_sources.raster_layers import RasterLayer
from edge_runtime.map_sources.raster_provenance import raster_provenance
from edge_runtime.map_sources.rasters import Raster, find_raster, with_stretch
from edge_runtime.map_sources.source import (
    UNKNOWN,
    ImagerySource,
    Kind,
    Provenance,
    union,
)
from edge_runtime.map_sources.tile_archives import MbtilesArchive, PmtilesArchive
from edge_runtime.map_sources.tile_folders import TileFolder, is_tile_folder

_RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".img", ".vrt")
_WORLD_FILES = {".png": ".pgw", ".jpg": ".jgw", ".jpeg": ".jgw", ".webp": ".wld"}


def open_sources(
    paths: Sequence[Path],
    *,
    crs: str | None = None,
    corners: Sequence[float] | None = None,
    tms: bool | None = None,
    captured: str | None = None,
    attribution: str | None = None,
    licence: str | None = None,
) -> list[ImagerySource]:
    """Find out what map sources are: rasters, corner tables, tile folders, MBTiles, PMTiles.

    Args:
        paths: files and folders. A folder holds map tiles, or rasters that make one source.
        crs: of rasters that do not say it themselves, such as a picture with a world file.
        corners: of the one picture given: upper left lat, lon, lower right lat, lon.
        tms: rows of tile folders are counted from the south; None finds out.
        captured: when the imagery was taken, in place of what the sources say.
        attribution: who is to be named, in place of what the sources say.
        licence: of the imagery, in place of what the sources say.

    Returns:
        The sources in the order given.

    Raises:
        ImageryError: nothing was given, or a source cannot be used; the message says which.
        InputError: the corners are none.
    """
    if not paths:
        msg = "no imagery was given; expected at least one georeferenced raster, map or tile folder"
        raise ImageryError(msg)
    box = None if corners is None else corner_bounds(corners)
    if box is not None and (len(paths) > 1 or paths[0].is_dir()):
        msg = f"corners were given for {len(paths)} paths, {paths[0]} first; expected one picture"
        raise ImageryError(msg)
    given = Provenance(
        captured=captured or UNKNOWN,
        attribution=attribution or UNKNOWN,
        licence=licence or UNKNOWN,
    )
    sources: list[ImagerySource | tuple[Path, Kind, list[Raster]]] = []
    for path in paths:
        sources.append(_sorted_out(path, crs, box, tms))
    # All rasters at once: files of one survey share their stretch however they were given.
    bare = [raster for found in sources if isinstance(found, tuple) for raster in found[2]]
    stretched = iter(with_stretch(bare))
    out: list[ImagerySource] = []
    for found in sources:
        if isinstance(found, tuple):
            path, kind, rasters = found
            source = _raster_source(path, kind, [next(stretched) for _ in rasters])
        else:
            source = found
        out.append(_with_provenance(source, given))
    return out


def _sorted_out(
    path: Path, crs: str | None, box: Bounds | None, tms: bool | None
) -> ImagerySource | tuple[Path, Kind, list[Raster]]:
    """A pyramid, or the rasters that make one source."""
    if path.is_dir():
        if is_tile_folder(path):
            return pyramid_source(TileFolder(path, tms=tms))
        return path, "rasters", [find_raster(file, crs=crs) for file in _rasters_in(path)]
    match path.suffix.lower():
        case ".mbtiles":
            return pyramid_source(MbtilesArchive(path))
        case ".pmtiles":
            return pyramid_source(PmtilesArchive(path))
        case ".csv" | ".json":
            placed = read_corner_table(path)
            rasters = [find_raster(picture.path, corners=picture.bounds) for picture in placed]
            return path, "corner table", rasters
    return path, "raster", [find_raster(path, crs=crs, corners=box)]


def _rasters_in(folder: Path) -> list[Path]:
    """Rasters of a folder, and pictures that have a world file.

    Raises:
        ImageryError: there is none.
    """
    files = sorted(folder.iterdir())
    names = {file.name.lower() for file in files}
    found = []
    for file in files:
        suffix = file.suffix.lower()
        worlds = {_WORLD_FILES.get(suffix), ".wld"}
        placed = any(world and f"{file.stem}{world}".lower() in names for world in worlds)
        if suffix in _RASTER_SUFFIXES or (suffix in _WORLD_FILES and placed):
            found.append(file)
    if not found:
        msg = (
            f"{folder} holds neither map tiles (z/x/y.jpg or z_x_y.jpg) nor georeferenced rasters "
            f"({', '.join(_RASTER_SUFFIXES)}, pictures with a world file). Give the files by name"
        )
        raise ImageryError(msg)
    return found


def _raster_source(path: Path, kind: Kind, rasters: Sequence[Raster]) -> ImagerySource:
    finest = min(rasters, key=lambda raster: raster.gsd_m)
    said = Provenance()
    for raster in rasters:
        if not said.unknown():
            break
        said = said.or_else(raster_provenance(raster.path))
    return ImagerySource(
        path=path,
        kind=kind,
        crs=finest.crs,
        gsd_m=finest.gsd_m,
        bounds=union([raster.bounds for raster in rasters]),
        provenance=said,
        stretch=finest.stretch,
        layers=tuple(RasterLayer(raster=raster) for raster in rasters),
    )


def _with_provenance(source: ImagerySource, given: Provenance) -> ImagerySource:
    return replace(source, provenance=given.or_else(source.provenance))
