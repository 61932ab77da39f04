"""Find the most similar vectors among stored ones: exactly, or through a graph with re-ranking.

**Exact.** Every stored row of the given blocks is compared by numkong (usearch's own kernels: SIMD
on x86 and ARM, no copy, no conversion), one dot product per pair, so a result never depends on
what else is in the batch. Without numkong NumPy does the same work, slower.

**By graph.** usearch's HNSW graph holds the vectors as int8, each row scaled by its own largest
component, which halves the bytes that a walk reads. It proposes several times k rows.

Both end alike: the best few are compared again in float32 with the stored rows and put in order,
best first, equal similarities by row.
"""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from usearch.index import Index

F32 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int8]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Stored = npt.NDArray[np.float16] | npt.NDArray[np.float32] | npt.NDArray[np.int8]

BLOCK_ROWS = 1 << 14
"""Rows compared at a time."""
_QUERIES = 64
"""Queries compared at a time; with the block it bounds the matrix of similarities at 4 MiB."""
_RESCORED = 8
"""How many more than k are compared again in float32."""
PROPOSED = 4
"""A graph proposes this many times k rows."""
_MOST_PROPOSED = 4096
"""Beyond it a filtered search through the graph is given up for an exact one."""


class SearchResult(NamedTuple):
    """The most similar tiles of each query, best first."""

    rows: I64
    """(N, K) rows of the tile table; -1 where there are fewer than K tiles."""
    similarities: F32
    """(N, K) cosine similarity; -inf where there are fewer."""


class RowBlock(NamedTuple):
    """Some rows to compare: runs that follow each other, and which of their rows count."""

    runs: list[tuple[int, int]]
    """First row and the one after the last; ascending, apart."""
    keep: Mask | None
    """(R,) over the rows of all runs; None for all."""


class VectorSearch:
    """Searches stored unit vectors. Not thread-safe; one per thread."""

    def __init__(
        self, stored: Stored, graph: "Index | None" = None, *, expansion: int = 64
    ) -> None:
        """Search these vectors.

        Args:
            stored: (T, D) float16 or float32 of unit length, or int8 of any length; may be
                memory-mapped.
            graph: over the same rows as int8; None for exact search alone.
            expansion: how many rows a walk of the graph keeps in view.
        """
        self.stored = stored
        self.graph = graph
        self._lowered, self._compare = _kernels(stored.dtype)
        self.expand(expansion)

    def expand(self, expansion: int) -> None:
        """Set how many rows a walk of the graph keeps in view."""
        if self.graph is not None:
            self.graph.expansion_search = expansion  # type: ignore[misc]  # Its setter is unnamed.

    def among(self, queries: F32, k: int, blocks: Iterable[RowBlock]) -> SearchResult:
        """Compare with every row of the blocks.

        Args:
            queries: (N, D) unit length.
            k: results per query.
            blocks: ascending, apart; consumed once.
        """
        width = k + _RESCORED
        lowered = self._lowered(queries)
        best = np.full((len(queries), 0), -np.inf, np.float32)
        best_rows = np.zeros((len(queries), 0), np.int64)
        for block in blocks:
            rows = np.concatenate([np.arange(*run) for run in block.runs])
            if block.keep is not None:
                rows = rows[block.keep]
            parts = []
            parts_rows = []
            for start in range(0, len(queries), _QUERIES):
                some = slice(start, start + _QUERIES)
                few = lowered[some]
                cosines = np.empty((len(few), sum(b - a for a, b in block.runs)), np.float32)
                filled = 0
                for a, b in block.runs:
                    self._compare(few, self.stored[a:b], cosines[:, filled : filled + b - a])
                    filled += b - a
                if block.keep is not None:
                    cosines = cosines[:, block.keep]
                all_rows = np.broadcast_to(rows, cosines.shape)
                if best.shape[1]:
                    cosines = np.concatenate([best[some], cosines], axis=1)
                    all_rows = np.concatenate([best_rows[some], all_rows], axis=1)
                chosen = np.sort(_largest(cosines, width), axis=1)  # Keeps rows ascending.
                parts.append(np.take_along_axis(cosines, chosen, axis=1))
                parts_rows.append(np.take_along_axis(all_rows, chosen, axis=1))
            if parts:
                best, best_rows = np.concatenate(parts), np.concatenate(parts_rows)
        return self._ordered(queries, best_rows, k)

    def by_graph(
        self,
        queries: F32,
        k: int,
        *,
        allowed: Callable[[I64], Mask] | None = None,
        otherwise: Callable[[], Iterable[RowBlock]] | None = None,
    ) -> SearchResult:
        """Walk the graph, then compare what it proposes in float32.

        Where only some rows are allowed, the graph proposes more until enough of them are: the
        best of what it proposes are then the best of the allowed ones too.

        Args:
            queries: (N, D) unit length.
            k: results per query.
            allowed: which of some rows may be in the result; None for all.
            otherwise: blocks with every allowed row, compared exactly for queries to which even
                thousands of proposals do not bring enough.
        """
        proposed = min(PROPOSED * k, len(self.stored))
        rows = self._proposed(queries, proposed)
        if allowed is None:
            return self._ordered(queries, rows, k)
        while True:
            good = (rows >= 0) & allowed(np.maximum(rows, 0))
            enough = np.count_nonzero(good, axis=1) >= k
            if enough.all() or proposed >= min(_MOST_PROPOSED, len(self.stored)):
                break
            proposed = min(4 * proposed, len(self.stored))
            rows = self._proposed(queries, proposed)
        found = self._ordered(queries, np.where(good, rows, -1), k)
        if otherwise is not None and not enough.all():
            exact = self.among(queries[~enough], k, otherwise())
            found.rows[~enough] = exact.rows
            found.similarities[~enough] = exact.similarities
        return found

    def _proposed(self, queries: F32, count: int) -> I64:
        """(N, count) rows of the graph nearest to each query, -1 where there are fewer."""
        assert self.graph is not None
        rows = np.full((len(queries), count), -1, np.int64)
        if len(queries) == 0:
            return rows
        from usearch.index import BatchMatches

        lowered = quantised(queries)
        if len(queries) == 1:  # usearch answers one query in another type.
            one = self.graph.search(lowered[0], count, threads=1)
            rows[0, : len(one)] = one.keys
            return rows
        found = self.graph.search(lowered, count, threads=1)
        assert isinstance(found, BatchMatches)
        valid = np.arange(count) < np.asarray(found.counts)[:, None]
        rows[valid] = np.asarray(found.keys).astype(np.int64)[valid]
        return rows

    def _ordered(self, queries: F32, rows: I64, k: int) -> SearchResult:
        """The best k of some rows (-1 for none), compared in float32."""
        result = SearchResult(
            np.full((len(queries), k), -1, np.int64),
            np.full((len(queries), k), -np.inf, np.float32),
        )
        for start in range(0, len(queries) if rows.shape[1] else 0, _QUERIES):
            some = slice(start, start + _QUERIES)
            here = rows[some]
            vectors = unit(self.stored[np.maximum(here, 0)])
            cosines = np.sum(queries[some, None] * vectors, axis=-1)
            cosines[here < 0] = -np.inf
            order = np.lexsort((here, -cosines), axis=1)[:, :k]
            found = order.shape[1]
            result.rows[some, :found] = np.take_along_axis(here, order, axis=1)
            result.similarities[some, :found] = np.take_along_axis(cosines, order, axis=1)
        return result


def whole(first_row: int, rows: int, keep: Callable[[I64], Mask] | None) -> Iterable[RowBlock]:
    """Blocks that cover some rows that follow each other, with those that count."""
    for start in range(first_row, first_row + rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, first_row + rows)
        yield RowBlock([(start, stop)], None if keep is None else keep(np.arange(start, stop)))


def centred(embeddings: F32, centre: F32) -> F32:
    """Subtract the map's mean embedding and bring to unit length again.

    What every tile of a map has in common says nothing about where one is; taking it away sharpens
    encoders that were not trained on such imagery.
    """
    moved = embeddings - centre
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(moved / np.maximum(length, 1e-12), np.float32)


def quantised(vectors: F32) -> I8:
    """Vectors as int8, each scaled so that its largest component is 127.

    Cosines do not see the scale. Unit vectors of 1024 numbers times 127, the usual way, would use
    some 20 of the 255 steps.

    Args:
        vectors: (N, D).
    """
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    return np.asarray(np.rint(vectors * (127.0 / np.maximum(largest, 1e-12))), np.int8)


def unit(stored: Stored) -> F32:
    """Stored rows as float32 of unit length; rows of zeros stay."""
    rows = np.asarray(stored, np.float32)
    if stored.dtype != np.float32:  # Float16 rounding alone changes lengths by some 1e-4.
        rows /= np.maximum(np.sqrt(np.sum(rows * rows, axis=-1, keepdims=True)), 1e-12)
    return rows


def _largest(values: F32, count: int) -> I64:
    """(N, count) columns of the largest values in no order; the first ones where some are equal."""
    width = values.shape[1]
    if width <= count:
        return np.broadcast_to(np.arange(width), values.shape)
    columns = np.argpartition(values, width - count, axis=1)[:, width - count :]
    least = np.take_along_axis(values, columns[:, :1], axis=1)
    cut = np.count_nonzero(values >= least, axis=1) > count
    for n in np.flatnonzero(cut):  # Rare: which of the equal ones partition took is not defined.
        above = np.flatnonzero(values[n] > least[n])
        equal = np.flatnonzero(values[n] == least[n])[: count - len(above)]
        columns[n] = np.concatenate([above, equal])
    return columns


def _kernels(
    dtype: np.dtype[np.float16] | np.dtype[np.float32] | np.dtype[np.int8],
) -> tuple[Callable[[F32], Stored], Callable[[Stored, Stored, F32], None]]:
    """How queries are lowered for stored rows of a type, and what fills in cosines of the two."""
    if dtype == np.float32 or find_spec("numkong") is None:  # Comes with usearch since 2.26.
        return lambda queries: queries, _compare_in_numpy
    from numkong import cdist

    # It repacks its second operand for each call: the few queries, not the whole map (measured:
    # 2 ms instead of 35 for 15,000 rows of 1280 numbers).
    def dot(queries: Stored, rows: Stored, out: F32) -> None:
        found = np.empty((len(rows), len(queries)), np.float32)
        cdist(rows, queries, "dot", out=found, out_dtype="float32")
        np.copyto(out, found.T)

    def angular(queries: Stored, rows: Stored, out: F32) -> None:
        found = np.empty((len(rows), len(queries)), np.float32)
        cdist(rows, queries, "angular", out=found, out_dtype="float32")
        np.subtract(1.0, found.T, out=out)

    if dtype == np.float16:
        return lambda queries: queries.astype(np.float16), dot
    return quantised, angular


def _compare_in_numpy(queries: Stored, rows: Stored, out: F32) -> None:
    np.matmul(queries, unit(rows).T, out=out)
