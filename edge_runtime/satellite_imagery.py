"""Satellite imagery in: whatever a team's imagery comes as becomes one `imagery.mbtiles`.

What each source is is found out in `edge_runtime.map_sources`; how it is written, in
`edge_runtime.mbtiles_writing`.
"""

from collections.abc import Sequence
from pathlib import Path

from edge_runtime.map_sources.crop_area import CropArea
from edge_runtime.map_sources.opening import open_sources
from edge_runtime.map_sources.source import ImagerySource, Provenance
from edge_runtime.mbtiles_writing import ImageFormat, Progress, write_sources

__all__ = [
    "CropArea",
    "ImageFormat",
    "ImagerySource",
    "Progress",
    "Provenance",
    "inspect",
    "open_sources",
    "write_mbtiles",
]


def inspect(path: Path) -> ImagerySource:
    """What one source is, as `open_sources` finds it.

    Raises:
        ImageryError: it cannot be used.
    """
    return open_sources([path])[0]


def write_mbtiles(
    sources: Sequence[Path | ImagerySource],
    out: Path,
    *,
    quality: int | None = None,
    image_format: ImageFormat = "jpeg",
    crop: Path | None = None,
    crs: str | None = None,
    corners: Sequence[float] | None = None,
    tms: bool | None = None,
    captured: str | None = None,
    attribution: str | None = None,
    licence: str | None = None,
    progress: Progress | None = None,
) -> list[ImagerySource]:
    """Write map sources as one MBTiles file; a finer source is drawn over a coarser one.

    Args:
        sources: paths as `open_sources` takes them, or what it returned; at least one.
        out: file to write; must not exist.
        quality: of the tiles' compression, 1 to 100. None is 90, and tiles that are map tiles of
            the same format already are kept as they are.
        image_format: "jpeg" or "webp".
        crop: GeoJSON polygons in degrees; what lies outside is left out.
        crs: as in `open_sources`, like all that follow, for sources given as paths.
        corners: see there.
        tms: see there.
        captured: see there.
        attribution: see there.
        licence: see there.
        progress: told how far the work is.

    Returns:
        What was found in each source, coarsest first, without those outside the crop.

    Raises:
        ImageryError: a source is unusable, or nothing of it is visible.
        InputError: an option is none.
    """
    area = CropArea(crop) if crop is not None else None
    paths = [source for source in sources if isinstance(source, Path)]
    found = [source for source in sources if isinstance(source, ImagerySource)]
    if paths or not found:
        found += open_sources(
            paths,
            crs=crs,
            corners=corners,
            tms=tms,
            captured=captured,
            attribution=attribution,
            licence=licence,
        )
    found.sort(key=lambda source: -source.gsd_m)
    return write_sources(
        found,
        out,
        quality=quality,
        image_format=image_format,
        area=area,
        progress=progress,
    )
