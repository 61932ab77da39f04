"""Neighbour tables for hard-negative sampling: near on the ground, or near in the encoder's eyes.

Both give, for each of T locations, the K others that are hardest to tell from it, hardest first.
"""

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from edge_runtime.errors import InputError

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_BLOCK = 1024


def gps_neighbours(lat_deg: F64, lon_deg: F64, k: int) -> I64:
    """The K geographically nearest other locations of each, nearest first.

    Chord length on the unit sphere orders points exactly as great-circle distance does, so a
    k-d tree in three dimensions finds them without any distance matrix.

    Args:
        lat_deg: (T,) latitudes.
        lon_deg: (T,) longitudes.
        k: neighbours wanted; with fewer than k + 1 locations, all others are given.

    Returns:
        (T, min(k, T - 1)) int64, ties in the order of the locations.

    Raises:
        InputError: fewer than two locations.
    """
    count = len(lat_deg)
    if count < 2:
        msg = f"{count} location(s); GPS sampling needs at least 2"
        raise InputError(msg)
    k = min(k, count - 1)
    lat, lon = np.radians(lat_deg), np.radians(lon_deg)
    points = np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    _, found = cKDTree(points).query(points, k=k + 1)
    return _without_self(np.asarray(found, np.int64), k)


def similarity_neighbours(queries: F32, references: F32, k: int) -> I64:
    """The K references most similar to each query, its own left out, most similar first.

    Works in blocks of rows, so the full query x reference matrix never exists.

    Args:
        queries: (T, D) unit-length embeddings; row i belongs to location i.
        references: (T, D) unit-length embeddings; row i is the true match of query i.
        k: neighbours wanted; with fewer than k + 1 locations, all others are given.

    Returns:
        (T, min(k, T - 1)) int64.

    Raises:
        InputError: shapes differ, or an embedding is not finite.
    """
    if queries.shape != references.shape or len(queries) < 2:
        msg = f"queries {queries.shape} and references {references.shape}; expected the same (T, D)"
        raise InputError(f"{msg} with T >= 2")
    if not (np.isfinite(queries).all() and np.isfinite(references).all()):
        msg = "an embedding is not finite; similarity sampling would choose at random"
        raise InputError(msg)
    count = len(queries)
    k = min(k, count - 1)
    out = np.empty((count, k), np.int64)
    for start in range(0, count, _BLOCK):
        block = queries[start : start + _BLOCK] @ references.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf
        top = np.argpartition(-block, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(block, top, axis=1), axis=1, kind="stable")
        out[start : start + _BLOCK] = np.take_along_axis(top, order, axis=1)
    return out


def _without_self(found: I64, k: int) -> I64:
    """Drop each row's own index, which coinciding points may have pushed off first place."""
    own = found == np.arange(len(found))[:, None]
    own[~own.any(axis=1), -1] = True
    return np.asarray(found[~own].reshape(len(found), k), np.int64)
