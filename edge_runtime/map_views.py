"""A trial of a map with an encoder: views of its own imagery, embedded and looked up.

They are the best that can be expected: the same imagery, moved, turned, scaled and recoloured a
little. Photographs of another day and another camera do worse.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edge_runtime.bundle import Bundle
from edge_runtime.errors import InputError
from edge_runtime.gates import Embed
from edge_runtime.geodesy import distance_m
from edge_runtime.index_format import TileLevel
from edge_runtime.index_gate import Places, embed_queries, place_queries
from edge_runtime.map_ambiguity import default_far_m, score_tiles
from edge_runtime.satellite_index import SatelliteIndex, centred
from edge_runtime.vector_search import F32, I64

Progress = Callable[[str, float], None]
VIEWS = 100


@dataclass(frozen=True, kw_only=True)
class ViewTrial:
    """What became of the views, and what the model of `map_ambiguity` says of them."""

    views: int
    likeness_p10: float
    """Cosine of a view with the nearest tile: only one view of ten is less like its ground."""
    likeness_median: float
    wrong: float
    """Share whose most similar tile lies elsewhere."""
    predicted: float
    """The model's chance of that, at the median likeness, over the same places."""


def view_trial(
    index: SatelliteIndex,
    bundle: Bundle,
    embed: Embed,
    *,
    far_m: float | None = None,
    views: int = VIEWS,
    seed: int = 0,
    progress: Progress = lambda _stage, _done: None,
) -> ViewTrial:
    """Embed views of the smallest tiles' ground and look them up on their level.

    Args:
        index: made by the bundle's encoder.
        bundle: for what the encoder takes.
        embed: the encoder.
        far_m: tiles whose centre is farther are elsewhere; by default `default_far_m`.
        views: how many.
        seed: of the views.
        progress: told the stage and the fraction done.

    Raises:
        IndexFolderError: another encoder made the index.
        ImageryError: hardly any place is covered by imagery.
        InputError: fewer than one view.
    """
    index.check_bound_to(bundle)
    if views < 1:
        msg = f"{views} views were asked for; expected at least 1"
        raise InputError(msg)
    level = index.level
    far_m = default_far_m(level) if far_m is None else far_m
    queries = place_queries(index, _places(index, level), bundle.spec, count=views, seed=seed)
    embeddings = embed_queries(embed, queries, stage="embedding views", progress=progress)
    first = index.search(embeddings, 1, level=0).rows[:, 0]
    found = index.tiles[first]
    away = distance_m(queries.lat_deg, queries.lon_deg, found["lat_deg"], found["lon_deg"])
    own = _own_tiles(index, level, queries.lat_deg.tolist(), queries.lon_deg.tolist())
    likeness = _cosines(index, embeddings, own)
    median = float(np.median(likeness))
    scores = score_tiles(
        index,
        level,
        own,
        far_m=far_m,
        likeness=float(np.clip(median, 0.01, 1.0)),
        seed=seed,
        progress=progress,
    )
    return ViewTrial(
        views=len(first),
        likeness_p10=float(np.quantile(likeness, 0.1)),
        likeness_median=median,
        wrong=float(np.mean(away > far_m)),
        predicted=float(scores.chance.mean()),
    )


def _places(index: SatelliteIndex, level: TileLevel) -> Places:
    tiles = index.tiles[level.first_row : level.row_range.stop]

    def search(embeddings: F32, k: int) -> I64:
        return index.search(embeddings, k, level=0).rows

    return Places(
        lat_deg=np.asarray(tiles["lat_deg"], np.float64),
        lon_deg=np.asarray(tiles["lon_deg"], np.float64),
        search=search,
    )


def _own_tiles(
    index: SatelliteIndex, level: TileLevel, lat_deg: list[float], lon_deg: list[float]
) -> I64:
    """(Q,) the row of the tile nearest to each place; of its turned copies the first."""
    tiles = index.tiles[level.first_row : level.row_range.stop]
    return np.array(
        [
            level.first_row + int(distance_m(lat, lon, tiles["lat_deg"], tiles["lon_deg"]).argmin())
            for lat, lon in zip(lat_deg, lon_deg, strict=True)
        ],
        np.int64,
    )


def _cosines(index: SatelliteIndex, embeddings: F32, rows: I64) -> F32:
    """(Q,) of each view with one tile, after the map's mean is taken away."""
    pairs = centred(embeddings, index.centre) * index.unit_embeddings(rows)
    return np.asarray(pairs.sum(axis=1), np.float32)
