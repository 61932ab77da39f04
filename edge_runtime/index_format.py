"""What an index folder holds: its files, its table of tiles, and what its manifest says of both.

Written by `export.index_build`, read by `edge_runtime.satellite_index`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_runtime.errors import InputError

VECTORS = "vectors.usearch"
"""usearch graph over the embeddings; only in indexes that are searched by graph."""
EMBEDDINGS = "embeddings.npy"
"""(T, D) centred, of unit length, in the order of the table."""
TILES = "tiles.npy"
"""(T,) `TILE_DTYPE`."""
CENTRE = "centre.npy"
"""(D,) float32: the map's mean embedding, taken away before anything is compared."""
IMAGERY = "imagery.mbtiles"

TILE_DTYPE = np.dtype(
    [("lat_deg", "<f8"), ("lon_deg", "<f8"), ("heading_deg", "<f4"), ("marks", "<u1")]
)
"""One row per embedding: the tile's centre, the direction that is up in the picture that was
embedded (clockwise from north, 0 for north-up), and `MARK_…` bits.

Rows are grouped by level, and within a level along a Hilbert curve: tiles near each other on the
ground are near each other on disk. Turned copies of a tile follow each other."""
MARK_FEATURELESS = 1
"""Hardly any detail: water, snow, one field."""
MARK_PARTIAL = 2
"""Part of the square has no imagery."""


@dataclass(frozen=True, kw_only=True)
class TileLevel:
    """How the imagery was cut into tiles of one size."""

    size_m: float
    """Side of a tile on the ground."""
    stride_m: float
    """Distance between the centres of neighbouring tiles."""
    headings_deg: tuple[float, ...] = (0.0,)
    """Directions that each tile was embedded in."""
    first_row: int = 0
    """Of the table of tiles."""
    rows: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no level."""
        if not 0 < self.stride_m <= self.size_m or not self.headings_deg:
            msg = (
                f"tiles of {self.size_m} m every {self.stride_m} m in {len(self.headings_deg)} "
                "directions; expected 0 < stride <= size and at least one direction"
            )
            raise InputError(msg)

    @property
    def row_range(self) -> range:
        """Rows of the table that are this level's."""
        return range(self.first_row, self.first_row + self.rows)


def levels_from_json(value: list[dict[str, Any]]) -> tuple[TileLevel, ...]:
    """Inverse of `dataclasses.asdict` over levels after a trip through JSON.

    Raises:
        InputError: names are missing or unknown, there are none, or they are not one after the
            other.
    """
    try:
        levels = tuple(TileLevel(**(v | {"headings_deg": tuple(v["headings_deg"])})) for v in value)
    except (KeyError, TypeError) as error:
        msg = f"not levels of tiles ({error}); was the index made by another version of skyfix?"
        raise InputError(msg) from error
    next_row = 0
    for level in levels:
        if level.first_row != next_row:
            msg = f"a level begins at row {level.first_row}; expected {next_row}"
            raise InputError(msg)
        next_row += level.rows
    if not levels:
        msg = "the index has no level of tiles; expected at least one"
        raise InputError(msg)
    return levels
