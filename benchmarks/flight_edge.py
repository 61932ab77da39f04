"""A map that ends in the middle of the flights: an index of the western half of the ground."""

import json
import os
from pathlib import Path

from edge_runtime.backends.protocol import Backend
from edge_runtime.bundle import Bundle
from edge_runtime.satellite_index import SatelliteIndex
from export.index_build import build_index
from export.index_imagery import ImageryOptions
from export.index_plan import PlanOptions, TileSize
from export.index_preparation import BuildOptions


def middle_lon_deg(index: SatelliteIndex) -> float:
    """Eastern edge of the western half of a map."""
    bounds = index.imagery.bounds
    return (bounds.west_deg + bounds.east_deg) / 2


def build_western_half(
    imagery: Path, out: Path, bundle: Bundle, backend: Backend, whole: SatelliteIndex
) -> None:
    """Build an index of the western half of a map's ground, with tiles like the map's.

    Args:
        imagery: raster of the whole ground.
        out: index folder to write.
        bundle: the encoder.
        backend: where it runs.
        whole: the index of all of it.

    Raises:
        SkyfixError: as python -m export index.
    """
    b = whole.imagery.bounds
    east = middle_lon_deg(whole)
    corners = [(b.west_deg, b.south_deg), (east, b.south_deg), (east, b.north_deg)]
    ring = [*corners, (b.west_deg, b.north_deg), (b.west_deg, b.south_deg)]
    crop = out.with_name(f".{out.name}.{os.getpid()}.geojson")
    out.parent.mkdir(parents=True, exist_ok=True)
    crop.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    sizes = tuple(TileSize(level.size_m, level.stride_m) for level in whole.levels)
    try:
        build_index(
            [imagery],
            out,
            bundle,
            backend,
            PlanOptions(sizes=sizes, headings=len(whole.level.headings_deg)),
            BuildOptions(imagery=ImageryOptions(crop=crop), keep_embeddings=False, restart=True),
        )
    finally:
        crop.unlink(missing_ok=True)
