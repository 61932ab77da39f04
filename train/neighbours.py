"""Neighbour tables for hard-negative sampling: near on the ground, or near in the encoder's eyes.

Both give the K tiles that are hardest to tell from a location or a photo, hardest first.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from edge_runtime.errors import InputError
from edge_runtime.geodesy import check_lat_lon
from train.exact_similarity import QUERY_BLOCK, Hidden, Leaders, Similarities
from train.tile_overlap import TileExclusions, sphere_points

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

GpsMode = Literal["metres", "published"]
"""metres: distance on the ground. published: degrees taken for radians, as the scripts behind the
paper's CVUSA and VIGOR figures do, to reproduce those; few such neighbours are near each other."""


def gps_neighbours(lat_deg: F64, lon_deg: F64, k: int, *, mode: GpsMode = "metres") -> I32:
    """The K geographically nearest other locations of each, nearest first.

    Chord length on the unit sphere orders points exactly as great-circle distance does, so a
    k-d tree in three dimensions finds them without any distance matrix. The same holds for the
    haversine of any two numbers taken for latitude and longitude, which is all the published mode
    is.

    Args:
        lat_deg: (T,) latitudes.
        lon_deg: (T,) longitudes.
        k: neighbours wanted; with fewer than k + 1 locations, all others are given.
        mode: which distance.

    Returns:
        (T, min(k, T - 1)) int32, equally near ones in the order of the locations.

    Raises:
        InputError: fewer than two locations, or one that cannot be.
    """
    count = len(lat_deg)
    if count < 2:
        msg = f"{count} location(s); GPS sampling needs at least 2"
        raise InputError(msg)
    check_lat_lon(lat_deg, lon_deg)
    _check_wanted(k)
    k = min(k, count - 1)
    lat, lon = np.asarray(lat_deg, np.float64), np.asarray(lon_deg, np.float64)
    if mode == "metres":
        lat, lon = np.radians(lat), np.radians(lon)
    points = sphere_points(lat, lon)
    apart, found = cKDTree(points).query(points, k=k + 1, workers=-1)
    # The tree finds equally near ones in no order.
    found = np.take_along_axis(found, np.lexsort((found, apart), axis=1), axis=1)
    return _without_self(found.astype(np.int32), k)


def similarity_neighbours(
    queries: F32,
    references: F32,
    k: int,
    *,
    tile_of_query: I64,
    excluded: TileExclusions | None = None,
    rows: slice | None = None,
) -> I32:
    """The K references most similar to each query, its own left out, most similar first.

    Works in blocks of rows and columns, so the query x reference matrix never exists, and exactly
    (`train.exact_similarity`), so the table does not depend on which `rows` a process computes.

    Args:
        queries: (P, D) embeddings of photos.
        references: (T, D) embeddings of tiles.
        k: neighbours wanted; fewer are given where the query with most tiles to leave out has
            fewer left.
        tile_of_query: (P,) row of each query's own tile.
        excluded: tiles that may not be each other's negatives: they are left out too.
        rows: only these queries; all by default.

    Returns:
        (P or length of rows, K) int32 tile rows, equally similar ones in the order of the tiles.

    Raises:
        InputError: shapes do not fit, an embedding is not finite, or no tile is left for a query.
    """
    tiles = np.asarray(tile_of_query, np.int64)
    count = len(references)
    _check_wanted(k)
    if tiles.shape != queries.shape[:1] or (
        len(tiles) and not 0 <= tiles.min() <= tiles.max() < count
    ):
        msg = f"own tiles {tiles.shape} of queries {queries.shape} do not fit"
        raise InputError(f"{msg}; expected one of {count} references for each query")
    if excluded is not None and len(excluded) != count:
        msg = f"exclusions among {len(excluded)} tiles, but {count} references; expected as many"
        raise InputError(msg)
    # Taken over all queries and not over `rows`, so that all parts of a table are as wide.
    most_excluded = int(excluded.counts()[tiles].max(initial=0)) if excluded is not None else 0
    k = min(k, count - 1 - most_excluded)
    if k < 1:
        msg = (
            f"{count} tiles leave no negative for a query whose own and {most_excluded} others "
            "may not be; similarity sampling needs more tiles or fewer exclusions"
        )
        raise InputError(msg)
    part = slice(None) if rows is None else rows
    asked = tiles[part]
    similarities = Similarities(queries[part], references)
    out = np.empty((len(asked), k), np.int32)
    for start in range(0, len(asked), QUERY_BLOCK):
        own = asked[start : start + QUERY_BLOCK]
        leaders = Leaders(len(own), k)
        hidden = _own_and_excluded(own, excluded)
        for column, scores in similarities.blocks(np.arange(start, start + len(own)), hidden):
            leaders.add(scores, column)
        out[start : start + QUERY_BLOCK] = leaders.ranked()[1]
    return out


def _own_and_excluded(own: I64, excluded: TileExclusions | None) -> Hidden:
    places = np.arange(len(own))
    if excluded is None:
        return Hidden(places, own)
    more, tiles = excluded.pairs_of(own)
    return Hidden(np.concatenate([places, more]), np.concatenate([own, tiles]))


def _check_wanted(k: int) -> None:
    if k < 1:
        msg = f"{k} neighbours wanted; expected at least 1"
        raise InputError(msg)


def _without_self(found: I32, k: int) -> I32:
    """Drop each row's own index, which coinciding points may have pushed off first place."""
    own = found == np.arange(len(found))[:, None]
    own[~own.any(axis=1), -1] = True
    return np.asarray(found[~own].reshape(len(found), k), np.int32)
