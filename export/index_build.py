"""Imagery in, satellite index out: cut, embed, order, seal.

Runs through a backend, so a laptop without torch can make an index for the field.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index

from edge_runtime.artefact import writing_artefact
from edge_runtime.backends.protocol import Backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ImageryError, InputError
from edge_runtime.geodesy import enu_offset_m, move_lat_lon
from edge_runtime.imagery import Bounds, ImageryStore
from edge_runtime.index_format import (
    CENTRE,
    EMBEDDINGS,
    IMAGERY,
    TILE_DTYPE,
    TILES,
    VECTORS,
    TileLevel,
)
from edge_runtime.satellite_imagery import Progress, write_mbtiles
from edge_runtime.satellite_index import centred, hilbert_order

MIN_TILE_COVERAGE = 0.9
"""Tiles with less imagery than this are left out."""
_BATCH = 32


def build_index(
    imagery: Sequence[Path],
    out: Path,
    bundle: Bundle,
    backend: Backend,
    *,
    size_m: float,
    stride_m: float,
    jpeg_quality: int = 90,
    progress: Progress = lambda _stage, _done: None,
) -> int:
    """Write an index folder.

    Args:
        imagery: georeferenced rasters.
        out: index folder; an older index there is replaced whole.
        bundle: the encoder, which the index is bound to.
        backend: where the encoder runs.
        size_m: side of a tile on the ground.
        stride_m: distance between neighbouring tile centres.
        jpeg_quality: of the imagery kept in the index.
        progress: told the stage and the fraction done.

    Returns:
        Number of tiles.

    Raises:
        ImageryError: unusable imagery, or no tile of this size fits on it.
        InputError: sizes that make no sense.
    """
    if not 0 < stride_m <= size_m:
        msg = f"stride is {stride_m} m and tile size {size_m} m; expected 0 < stride <= size"
        raise InputError(msg)
    spec = bundle.spec
    if spec.height_px != spec.width_px:
        msg = f"encoder input is {spec.height_px}x{spec.width_px} px; an index needs a square one"
        raise InputError(msg)
    meta: dict[str, Any] = {
        "weights_sha256": bundle.weights_sha256,
        "preprocessing_sha256": spec.preprocessing_hash(),
        "architecture": spec.architecture,
        "embedded_by": {
            "provider": backend.info.provider,
            "precision": backend.info.precision,
            "library": backend.info.library,
        },
    }
    with writing_artefact(out, "index", meta) as folder:
        found = write_mbtiles(
            imagery, folder / IMAGERY, jpeg_quality=jpeg_quality, progress=progress
        )
        meta["sources"] = [
            {"name": s.path.name, "crs": s.crs, "gsd_m": round(s.gsd_m, 4)} for s in found
        ]
        store = ImageryStore(folder / IMAGERY)
        try:
            tiles, embeddings = _embed_tiles(
                store, backend, spec.width_px, size_m, stride_m, progress
            )
        finally:
            store.close()
        if len(tiles) == 0:
            msg = (
                f"no {size_m:.0f} m tile fits on the imagery with {MIN_TILE_COVERAGE:.0%} "
                "coverage; "
                "give more imagery or a smaller --tile-m"
            )
            raise ImageryError(msg)
        meta["tiles"] = len(tiles)
        meta["levels"] = [asdict(TileLevel(size_m=size_m, stride_m=stride_m, rows=len(tiles)))]
        _write_vectors(folder, tiles, embeddings)
    return len(tiles)


def grid_positions(bounds: Bounds, size_m: float, stride_m: float) -> np.ndarray:
    """Tile centres on a regular grid in metres that starts half a tile inside the box.

    Returns:
        (T,) TILE_DTYPE, row by row from the south-west.
    """
    height_m = float(
        enu_offset_m(bounds.south_deg, bounds.west_deg, bounds.north_deg, bounds.west_deg).north_m
    )
    rows = []
    for north_m in _steps(height_m, size_m, stride_m):
        lat = float(move_lat_lon(bounds.south_deg, bounds.west_deg, 0.0, north_m).lat_deg)
        # enu_offset_m goes the short way round: measure half of a wide box and double it.
        half_deg = (bounds.east_deg - bounds.west_deg) / 2
        width_m = 2 * float(
            enu_offset_m(lat, bounds.west_deg, lat, bounds.west_deg + half_deg).east_m
        )
        for east_m in _steps(width_m, size_m, stride_m):
            lon = float(move_lat_lon(lat, bounds.west_deg, east_m, 0.0).lon_deg)
            rows.append((lat, lon, 0.0, 0))
    return np.array(rows, TILE_DTYPE)


def _steps(extent_m: float, size_m: float, stride_m: float) -> list[float]:
    """Centres along one axis: half a tile from both edges, at most `stride_m` apart."""
    free = extent_m - size_m
    if free < 0:
        return [extent_m / 2] if extent_m >= MIN_TILE_COVERAGE * size_m else []
    count = max(1, math.ceil(free / stride_m)) + 1
    return [size_m / 2 + free * k / (count - 1) for k in range(count)]


def _embed_tiles(
    store: ImageryStore,
    backend: Backend,
    size_px: int,
    size_m: float,
    stride_m: float,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    grid = grid_positions(store.bounds, size_m, stride_m)
    if len(grid):
        grid = grid[hilbert_order(grid["lat_deg"], grid["lon_deg"])]
    kept, parts, batch = [], [], []
    for n, tile in enumerate(grid):
        patch = store.patch(tile["lat_deg"], tile["lon_deg"], size_m=size_m, size_px=size_px)
        if np.count_nonzero(patch.mask) >= MIN_TILE_COVERAGE * patch.mask.size:
            kept.append(n)
            batch.append(patch.image)
        if batch and (len(batch) == _BATCH or n == len(grid) - 1):
            parts.append(backend.embed(np.stack(batch)))
            batch = []
        progress("embedding", (n + 1) / len(grid))
    embeddings = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    return grid[kept], embeddings


def _write_vectors(folder: Path, tiles: np.ndarray, embeddings: np.ndarray) -> None:
    centre = embeddings.mean(axis=0).astype(np.float32)
    if len(tiles) < 8:
        centre = np.zeros_like(centre)  # Too few tiles to say what they have in common.
    vectors = centred(embeddings, centre).astype(np.float16)
    np.save(folder / TILES, tiles)
    np.save(folder / CENTRE, centre)
    np.save(folder / EMBEDDINGS, vectors)
    graph = Index(ndim=vectors.shape[1], metric="cos", dtype="f16")
    graph.add(np.arange(len(vectors), dtype=np.uint64), vectors, threads=1)  # Reproducible.
    graph.save(str(folder / VECTORS))
