"""What an index folder holds: its files, its table of tiles, and what its manifest says of both.

Written by `export.index_build`, read by `edge_runtime.satellite_index`.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from edge_runtime.errors import InputError

VECTORS = "vectors.usearch"
"""usearch graph over the embeddings as int8, keyed by row; only in indexes that are searched by
graph."""
EMBEDDINGS = "embeddings.npy"
"""(T, D) centred, in the order of the table: float16 or float32 of unit length, or int8, each row
scaled so that its largest component is 127."""
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

VectorType = Literal["f16", "i8", "f32"]
"""How embeddings are stored."""
SearchKind = Literal["exact", "graph"]
"""How the whole map is searched. Near a prior, search is always exact."""


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """How an index is searched and what that was measured to find. `meta["search"]` as a dict."""

    kind: SearchKind = "exact"
    dtype: VectorType = "f16"
    connectivity: int | None = None
    """Neighbours of a row in the graph."""
    expansion_add: int | None = None
    """Rows kept in view while the graph was built."""
    expansion: int | None = None
    """Rows kept in view while it is searched."""
    recall_at_10: float | None = None
    """Share of the true ten nearest (of the embeddings before they were stored) that a search of
    the whole map returns; None where it was never measured."""
    queries: int = 0
    """That it was measured with."""
    min_recall: float = 0.0
    """That was asked for."""

    def __post_init__(self) -> None:
        """Refuse what is no plan."""
        if (
            self.kind not in get_args(SearchKind)
            or self.dtype not in get_args(VectorType)
            or (self.kind == "graph" and not (self.expansion and self.expansion > 0))
        ):
            msg = (
                f"search is {self.kind!r} of {self.dtype!r} with expansion {self.expansion}; "
                f"expected one of {get_args(SearchKind)}, one of {get_args(VectorType)}, and an "
                "expansion above 0 for a graph"
            )
            raise InputError(msg)


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


def search_from_json(value: dict[str, Any] | None) -> SearchPlan:
    """Inverse of `dataclasses.asdict` over a plan after a trip through JSON; None is exact search.

    Raises:
        InputError: names are unknown, or values are no plan.
    """
    try:
        return SearchPlan(**(value or {}))
    except TypeError as error:
        msg = f"no plan of a search ({error}); was the index made by another version of skyfix?"
        raise InputError(msg) from error


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
