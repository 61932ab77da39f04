"""Scalar products of many queries and references, in blocks, the same however they are computed.

The last bits of an ordinary matrix product depend on the shape of its blocks, the library and the
number of threads, so equal references need not tie, and a rank or a neighbour would change with
the block it fell into. Here embeddings are rounded to fixed point first: whole numbers of 26 bits,
whose products' partial sums all stay below 2^53, so float64 adds them exactly in any order.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError

Bools = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

QUERY_BLOCK = 2048
REFERENCE_BLOCK = 4096
"""Rows and columns of a block: 64 MiB of scores, large enough for BLAS to be at its best."""
_BITS = 26
"""Two lengths below 2^26 have scalar products below 2^52."""
_PAIR_BLOCK = 4096


class Hidden(NamedTuple):
    """Pairs to be left out of blocks."""

    rows: I64
    """(E,) places in the `rows` asked for."""
    columns: I64
    """(E,) reference rows."""


class Similarities:
    """Scalar products of Q queries and R references: cosines when both have unit length.

    A query is rounded to 2^-26 of its own length, a reference to 2^-26 of the greatest length
    among the references (up to the next power of two), which moves a cosine by about 1e-8.
    """

    def __init__(self, queries: F32, references: F32) -> None:
        """Keep both arrays (not copied) and check them.

        Args:
            queries: (Q, D) embeddings.
            references: (R, D) embeddings.

        Raises:
            InputError: shapes do not fit, or an embedding is not finite.
        """
        if queries.ndim != 2 or references.ndim != 2 or queries.shape[1] != references.shape[1]:
            msg = f"queries {queries.shape} and references {references.shape} do not fit"
            raise InputError(f"{msg}; expected (Q, D) and (R, D)")
        self._queries, self._references = queries, references
        # frexp: a length of m x 2^e with m below 1.
        _, self._query_exponents = np.frexp(_lengths(queries, "query"))
        _, exponents = np.frexp(_lengths(references, "reference").max(initial=0.0))
        self._reference_exponent = int(exponents)

    def blocks(self, rows: I64, hidden: Hidden | None = None) -> Iterator[tuple[int, F64]]:
        """Scores of some queries and all references, a block of references at a time.

        Args:
            rows: (N,) query rows; QUERY_BLOCK of them keep memory bounded.
            hidden: pairs whose score is to be minus infinity.

        Yields:
            Row of the first reference, and (N, up to REFERENCE_BLOCK) scores, which hold until
            the next are asked for.
        """
        queries = self._fixed_queries(rows)
        # One buffer: fresh pages for each block would take as long as small products.
        buffer = np.empty(len(rows) * min(REFERENCE_BLOCK, len(self._references)))
        for start in range(0, len(self._references), REFERENCE_BLOCK):
            references = self._fixed_references(slice(start, start + REFERENCE_BLOCK))
            size = len(rows) * len(references)
            scores = buffer[:size].reshape(len(rows), len(references))
            np.matmul(queries, references.T, out=scores)
            if hidden is not None:
                here = (hidden.columns >= start) & (hidden.columns < start + REFERENCE_BLOCK)
                scores[hidden.rows[here], hidden.columns[here] - start] = -np.inf
            yield start, scores

    def pairs(self, rows: I64, columns: I64) -> F64:
        """Scores of (E,) query rows and (E,) reference rows, pair by pair: (E,)."""
        out = np.empty(len(rows))
        for start in range(0, len(rows), _PAIR_BLOCK):
            part = slice(start, start + _PAIR_BLOCK)
            queries = self._fixed_queries(rows[part])
            references = self._fixed_references(columns[part])
            out[part] = np.einsum("ed,ed->e", queries, references)
        return out

    def _fixed_queries(self, rows: I64) -> F64:
        """(N, D) rounded queries, times what a unit of their scalar products is worth.

        Powers of two change no digit, so the products are as exact as those of whole numbers.
        """
        exponents = self._query_exponents[rows][:, None]
        fixed = _rounded(self._queries[rows], np.ldexp(1.0, _BITS - exponents))
        fixed *= np.ldexp(1.0, exponents + self._reference_exponent - 2 * _BITS)
        return fixed

    def _fixed_references(self, rows: I64 | slice) -> F64:
        """(N, D) rounded references, as whole numbers."""
        scale = np.ldexp(1.0, _BITS - self._reference_exponent)
        return _rounded(self._references[rows], np.array(scale))


class Leaders:
    """The highest scores of each row so far; among equal ones the lower columns."""

    def __init__(self, rows: int, keep: int) -> None:
        """Start with none.

        Args:
            rows: rows N of the blocks to come.
            keep: scores K wanted of each.
        """
        self._keep = keep
        # In the order of the columns, not of the scores: sorting every time would take longest.
        self._scores: F64 = np.full((rows, keep), -np.inf)
        self._columns: I32 = np.full((rows, keep), -1, np.int32)

    def add(self, scores: F64, start: int) -> None:
        """Take in a block; blocks come in the order of their columns.

        Args:
            scores: (N, C); minus infinity is never taken.
            start: column of the first.
        """
        floor = self._scores.min(axis=1)
        chosen = scores > floor[:, None]
        if scores.shape[1] > self._keep and np.isneginf(floor).any():
            # Nothing bounds some rows yet, so the block's own highest do.
            chosen &= _highest(scores, self._keep)
        flat = np.flatnonzero(chosen)
        if not len(flat):
            return
        columns = (flat % scores.shape[1] + start).astype(np.int32)
        new_scores, new_columns = _packed(chosen, scores.ravel()[flat], columns)
        joined = np.concatenate([self._scores, new_scores], axis=1)
        joined_columns = np.concatenate([self._columns, new_columns], axis=1)
        best = _highest(joined, self._keep)
        self._scores, self._columns = _packed(
            best, joined[best], joined_columns[best], width=self._keep
        )

    def ranked(self) -> tuple[F64, I32]:
        """(N, K) scores, highest first, and (N, K) their columns.

        Minus infinity and -1 fill up rows that had fewer than K.
        """
        order = np.argsort(-self._scores, axis=1, kind="stable")
        return (
            np.take_along_axis(self._scores, order, axis=1),
            np.take_along_axis(self._columns, order, axis=1),
        )


def _highest(scores: F64, keep: int) -> Bools:
    """(N, C > keep) which are a row's `keep` highest above minus infinity; of equals the first."""
    bound = np.partition(scores, -keep, axis=1)[:, -keep]
    chosen = scores >= bound[:, None]
    # Many may be equal, as an untrained encoder's are: the first of them fill up what is left.
    spilt = (np.count_nonzero(chosen, axis=1) > keep) | np.isneginf(bound)
    if spilt.any():
        some, at = scores[spilt], bound[spilt][:, None]
        above = some > at
        equal = (some == at) & (at > -np.inf)
        left = keep - np.count_nonzero(above, axis=1)[:, None]
        chosen[spilt] = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= left))
    return chosen


def _packed(
    chosen: Bools, scores: F64, columns: I32, *, width: int | None = None
) -> tuple[F64, I32]:
    """Chosen scores and columns, given in row order, pushed to the left of (N, width)."""
    counts = np.count_nonzero(chosen, axis=1)
    rows, slots = expand_runs(np.zeros_like(counts), counts)
    shape = (len(chosen), int(counts.max(initial=0)) if width is None else width)
    out_scores, out_columns = np.full(shape, -np.inf), np.full(shape, -1, np.int32)
    out_scores[rows, slots], out_columns[rows, slots] = scores, columns
    return out_scores, out_columns


def expand_runs(first: I64, lengths: I64) -> tuple[I64, I64]:
    """Positions first, first + 1, … of several runs, one after the other.

    Args:
        first: (N,) where each run begins.
        lengths: (N,) how long it is.

    Returns:
        (E,) which run, and (E,) which position; E is the sum of the lengths.
    """
    owner = np.repeat(np.arange(len(lengths)), lengths)
    before = np.cumsum(lengths) - lengths
    return owner, np.arange(len(owner)) - (before - first)[owner]


def _lengths(embeddings: F32, what: str) -> F64:
    """(N,) Euclidean lengths, a block at a time.

    Raises:
        InputError: one is not finite.
    """
    out = np.empty(len(embeddings))
    for start in range(0, len(embeddings), QUERY_BLOCK):
        block = embeddings[start : start + QUERY_BLOCK].astype(np.float64)
        out[start : start + QUERY_BLOCK] = np.sqrt(np.einsum("nd,nd->n", block, block))
    bad = np.flatnonzero(~np.isfinite(out))
    if len(bad):
        msg = (
            f"the embedding of {what} {bad[0]} is not finite ({len(bad)} of {len(out)} are not), "
            "and ranks among such numbers mean nothing; check the training"
        )
        raise InputError(msg)
    return out


def _rounded(embeddings: F32, scales: F64) -> F64:
    fixed = np.multiply(embeddings, scales, dtype=np.float64)
    return np.asarray(np.rint(fixed, out=fixed))
