"""How good a row's answers are: beside the same weights in torch, and on the ground."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.matrix.pictures import Pictures
from benchmarks.measurement import Quality
from edge_runtime.geodesy import distance_m
from edge_runtime.satellite_index import centred

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

SUCCESS_M = 20.0


class Embedded(NamedTuple):
    """Embeddings of the pictures by one runtime."""

    queries: F32
    """(Q, D)"""
    tiles: F32
    """(T, D)"""


def embed_all(embed: Callable[[U8], F32], found: Pictures, batch: int) -> Embedded:
    """Embed queries and tiles in calls of `batch`; the last one of each may be smaller."""

    def by_batch(images: U8) -> F32:
        parts = [
            embed(np.ascontiguousarray(images[k : k + batch])) for k in range(0, len(images), batch)
        ]
        return np.concatenate(parts)

    return Embedded(by_batch(found.queries), by_batch(found.tiles))


def quality(
    found: Embedded, reference: Embedded, pictures: Pictures, *, by: str, trained: bool
) -> Quality:
    """Compare embeddings with the reference's, and the places they find with the truth.

    Queries are compared with tiles as in flight: after the tiles' mean was taken from both. A tile
    that is not finite is never found, and a query that is not finite finds none.

    Args:
        found: by the runtime of the row, queries and tiles both.
        reference: by the reference.
        pictures: with the truth.
        by: name of the reference.
        trained: for finding places; otherwise recall says nothing and is None.
    """
    cosines = np.concatenate([_cosines(a, b) for a, b in zip(found, reference, strict=True)])
    first, wanted = _first(found), _first(reference)
    recall = success = None
    data = pictures.data
    if trained:
        recall, success = _on_the_ground(first, pictures)
    else:
        data += "; no recall: the weights are not trained for finding places"
    return Quality(
        pictures=len(cosines),
        reference=by,
        min_cosine=float(cosines.min()),
        median_cosine=float(np.median(cosines)),
        top1_agreement=float(np.mean((first == wanted) & (wanted >= 0))),
        recall_at_1=recall,
        success_20m=success,
        gallery=len(pictures.tiles),
        data=data,
    )


def _cosines(found: F32, reference: F32) -> npt.NDArray[np.float64]:
    """(N,) row by row; -1, the worst there is, where one is not finite or has no length."""
    a, b = found.astype(np.float64), reference.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.where(np.isfinite(cosines), np.clip(cosines, -1, 1), -1.0)


def _first(found: Embedded) -> I64:
    """(Q,) the most similar tile of each query; -1 where none is."""
    sound = np.asarray(np.isfinite(found.tiles).all(axis=1))
    if not sound.any():
        return np.full(len(found.queries), -1, np.int64)
    centre = found.tiles[sound].mean(axis=0)
    tiles = centred(np.where(sound[:, None], found.tiles, centre), centre)
    whole = np.asarray(np.isfinite(found.queries).all(axis=1))
    queries = centred(np.where(whole[:, None], found.queries, centre), centre)
    similarity = np.where(sound[None, :], queries @ tiles.T, -np.inf)
    return np.where(whole, similarity.argmax(axis=1), -1).astype(np.int64)


def _on_the_ground(first: I64, pictures: Pictures) -> tuple[float, float]:
    """recall@1 and success@20 m, shares of all queries."""
    right = near = 0
    for k, (lat, lon) in enumerate(pictures.query_places):
        apart = np.asarray(
            distance_m(lat, lon, pictures.tile_places[:, 0], pictures.tile_places[:, 1])
        )
        right += first[k] >= 0 and int(first[k]) == int(apart.argmin())
        near += first[k] >= 0 and bool(apart[first[k]] <= SUCCESS_M)
    return right / len(first), near / len(first)
