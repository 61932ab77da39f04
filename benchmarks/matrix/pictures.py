"""The pictures that quality is measured on, and how they get to the process that needs them.

Made by `benchmarks.matrix.flight_pictures`. Needs numpy alone: what a measuring process imports is
memory that it holds.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]


class Pictures(NamedTuple):
    """Queries and tiles, with where they are."""

    queries: U8
    """(Q, H, W, 3) uint8 RGB."""
    tiles: U8
    """(T, H, W, 3)"""
    query_places: F64
    """(Q, 2) latitude and longitude of the views' true centres, degrees."""
    tile_places: F64
    """(T, 2) of the tiles' centres."""
    data: str


def save_pictures(found: Pictures, folder: Path) -> None:
    """Write them for the processes that measure; read back by `load_pictures`."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "queries.npy", found.queries)
    np.save(folder / "tiles.npy", found.tiles)
    np.save(folder / "query_places.npy", found.query_places)
    np.save(folder / "tile_places.npy", found.tile_places)
    (folder / "data.txt").write_text(found.data)


def load_pictures(folder: Path) -> Pictures:
    """Read them back; pictures stay in the file until they are used."""
    return Pictures(
        queries=np.load(folder / "queries.npy", mmap_mode="r"),
        tiles=np.load(folder / "tiles.npy", mmap_mode="r"),
        query_places=np.load(folder / "query_places.npy"),
        tile_places=np.load(folder / "tile_places.npy"),
        data=(folder / "data.txt").read_text(),
    )
