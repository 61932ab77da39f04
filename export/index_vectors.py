"""Store embeddings for search, and measure what a search of them finds.

Memory stays bounded at any number of tiles: embeddings are read, centred and written in chunks; a
graph, where one is built, holds one byte per number.

The same embeddings give the same bytes: the graph is built on one thread, which is slower than on
all of them, and nothing of the clock is recorded.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from usearch.index import Index

from edge_runtime.errors import GateError, InputError
from edge_runtime.graph_file import open_graph
from edge_runtime.index_format import (
    CENTRE,
    EMBEDDINGS,
    VECTORS,
    SearchPlan,
    TileLevel,
    VectorType,
)
from edge_runtime.vector_search import F32, I64, VectorSearch, centred, quantised, unit, whole

Progress = Callable[[str, float], None]
Embeddings = npt.NDArray[np.float16] | npt.NDArray[np.float32]

EXACT_NUMBERS = 20_000 * 1024
"""Rows times dimensions up to which `auto` searches the whole map exactly (docs/search.md)."""
CONNECTIVITY = 16
EXPANSION_ADD = 128
EXPANSIONS = (64, 128, 256, 512, 1024, 2048, 4096)
"""Tried in this order until the recall holds."""
RECALL_QUERIES = 256
_NOISE_OF_QUERIES = 1.0
"""Length of what is added to a stored vector to make a query: cosine 0.7 to its own tile."""
_MIXED_ROWS = 64
_CENTRED_FROM_ROWS = 8
"""Fewer tiles do not say what they have in common."""
_CHUNK_NUMBERS = 1 << 22
_STORED: dict[VectorType, type] = {"f16": np.float16, "f32": np.float32, "i8": np.int8}


def write_vectors(
    folder: Path,
    embeddings: Embeddings,
    levels: Sequence[TileLevel],
    *,
    dtype: VectorType = "f16",
    kind: Literal["auto", "exact", "graph"] = "auto",
    min_recall: float = 0.99,
    progress: Progress = lambda _stage, _done: None,
) -> dict[str, Any]:
    """Write centre, embeddings and, where the map is large, a graph; measure their recall@10.

    Args:
        folder: of the index; `centre.npy`, `embeddings.npy` and perhaps `vectors.usearch` are
            written.
        embeddings: (T, D) as the encoder gave them, unit length, in the order of the table; may be
            memory-mapped, is read several times.
        levels: of the tiles.
        dtype: how embeddings are stored.
        kind: how the whole map is searched; `auto` takes a graph for large maps.
        min_recall: least recall@10 against exact search of `embeddings`; 0 accepts any.
        progress: told the stage and the fraction done.

    Returns:
        What belongs in the manifest as `meta["search"]`: `SearchPlan` as a dict.

    Raises:
        InputError: no rows, not finite, or not as many rows as the levels have.
        GateError: no search reaches `min_recall`.
    """
    rows, size = embeddings.shape
    expected = sum(level.rows for level in levels)
    if rows == 0 or rows != expected:
        msg = f"there are {rows} embeddings; expected one per tile of the levels, {expected}"
        raise InputError(msg)
    if kind == "auto":
        kind = "exact" if rows * size <= EXACT_NUMBERS else "graph"
    centre = _mean(embeddings, progress)
    np.save(folder / CENTRE, centre)
    _store(folder / EMBEDDINGS, embeddings, centre, dtype, progress)
    stored = np.load(folder / EMBEDDINGS, mmap_mode="r")
    queries, truth = _questions(embeddings, centre, progress)
    if kind == "exact":
        search = VectorSearch(stored)
        found = search.among(queries, 10, whole(0, rows, None)).rows
        recall = recall_at(truth, found)
        plan = SearchPlan(
            dtype=dtype, recall_at_10=recall, queries=len(queries), min_recall=min_recall
        )
    else:
        _write_graph(folder / VECTORS, stored, progress)
        search = VectorSearch(stored, open_graph(folder / VECTORS, rows, size))
        for expansion in EXPANSIONS:
            search.expand(expansion)
            recall = recall_at(truth, search.by_graph(queries, 10).rows)
            if recall >= min_recall:
                break
        plan = SearchPlan(
            kind="graph",
            dtype=dtype,
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            expansion=expansion,
            recall_at_10=recall,
            queries=len(queries),
            min_recall=min_recall,
        )
    progress("measuring recall", 1.0)
    if recall < min_recall:
        remedy = {
            ("graph", "f16"): "search it exactly",
            ("graph", "f32"): "search it exactly",
            ("graph", "i8"): "search it exactly or store f16",
            ("exact", "i8"): "store f16",
        }.get((kind, dtype), "store f32")
        msg = (
            f"{kind} search of {rows} tiles as {dtype} finds {recall:.2%} of the true ten nearest; "
            f"expected {min_recall:.2%}: {remedy}, or accept a lower recall"
        )
        raise GateError(msg)
    return asdict(plan)


def recall_at(truth: I64, found: I64) -> float:
    """Mean share of each query's true rows (N, K) that are among those found (N, any)."""
    hit = (truth[:, :, None] == found[:, None, :]).any(axis=2)
    return float(np.mean(hit))


def _chunks(rows: int, size: int) -> list[slice]:
    step = max(1, _CHUNK_NUMBERS // size)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _mean(embeddings: Embeddings, progress: Progress) -> F32:
    """The map's mean embedding; refuses what is not finite."""
    rows, size = embeddings.shape
    total = np.zeros(size, np.float64)
    for chunk in _chunks(rows, size):
        part = np.asarray(embeddings[chunk], np.float32)
        sums = part.sum(axis=0, dtype=np.float64)
        if not np.isfinite(sums).all():
            bad = chunk.start + int(np.flatnonzero(~np.isfinite(part).all(axis=1))[0])
            msg = (
                f"the embedding of tile {bad} is not finite; expected finite numbers. Run skyfix "
                "doctor on the bundle, or embed with another backend"
            )
            raise InputError(msg)
        total += sums
        progress("centring", chunk.stop / rows)
    if rows < _CENTRED_FROM_ROWS:
        return np.zeros(size, np.float32)
    return np.asarray(total / rows, np.float32)


def _store(
    path: Path, embeddings: Embeddings, centre: F32, dtype: VectorType, progress: Progress
) -> None:
    rows, size = embeddings.shape
    with path.open("wb") as stream:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(_STORED[dtype])),
            "fortran_order": False,
            "shape": (rows, size),
        }
        np.lib.format.write_array_header_1_0(stream, header)
        for chunk in _chunks(rows, size):
            vectors = centred(np.asarray(embeddings[chunk], np.float32), centre)
            lowered = quantised(vectors) if dtype == "i8" else vectors.astype(_STORED[dtype])
            stream.write(np.ascontiguousarray(lowered).data)
            progress("storing", chunk.stop / rows)


def _write_graph(path: Path, stored: npt.NDArray[Any], progress: Progress) -> None:
    rows, size = stored.shape
    graph = Index(
        ndim=size,
        metric="cos",
        dtype="i8",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        enable_key_lookups=False,
    )
    for chunk in _chunks(rows, size):
        part = stored[chunk]
        vectors = np.asarray(part) if part.dtype == np.int8 else quantised(unit(part))
        keys = np.arange(chunk.start, chunk.stop, dtype=np.uint64)
        graph.add(keys, vectors, threads=1)  # More threads give another graph each time.
        progress("building the graph", chunk.stop / rows)
    graph.save(str(path))


def _questions(embeddings: Embeddings, centre: F32, progress: Progress) -> tuple[F32, I64]:
    """Queries like those of photographs not seen before, and the ten rows truly nearest to each.

    A query is a tile's vector plus as much again of a random mixture of other tiles' vectors: off
    the tile, but in directions that the map's vectors take, unlike plain noise, which no vector
    of a map comes near.
    """
    rows, size = embeddings.shape
    rng = np.random.default_rng(0)
    own = np.sort(rng.choice(rows, min(RECALL_QUERIES, rows), replace=False))
    others = np.sort(rng.choice(rows, min(_MIXED_ROWS, rows), replace=False))
    vectors, mixed = (
        centred(np.asarray(embeddings[some], np.float32), centre) for some in (own, others)
    )
    noise = rng.normal(size=(len(own), len(others))).astype(np.float32) @ mixed
    noise *= _NOISE_OF_QUERIES / np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), 1e-12)
    queries = vectors + noise
    queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
    best = np.zeros((len(own), 0), np.float32)
    best_rows = np.zeros((len(own), 0), np.int64)
    for chunk in _chunks(rows, size):
        part = centred(np.asarray(embeddings[chunk], np.float32), centre)
        cosines = np.concatenate([best, queries @ part.T], axis=1)
        here = np.broadcast_to(np.arange(chunk.start, chunk.stop), (len(own), len(part)))
        all_rows = np.concatenate([best_rows, here], axis=1)
        top = np.argpartition(-cosines, min(10, cosines.shape[1]) - 1, axis=1)[:, :10]
        best = np.take_along_axis(cosines, top, axis=1)
        best_rows = np.take_along_axis(all_rows, top, axis=1)
        progress("measuring recall", chunk.stop / rows * 0.9)
    return queries, best_rows
