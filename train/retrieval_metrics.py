"""Retrieval metrics from blocked ranks. Ties count against the model; NaN is refused."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_BLOCK = 1024


@dataclass(frozen=True, kw_only=True)
class RetrievalMetrics:
    """R@K over all queries, with the gallery it was measured on."""

    queries: int
    gallery: int
    r_at_1: float
    r_at_5: float
    r_at_10: float
    r_at_1_percent: float
    k_of_1_percent: int
    """floor(gallery / 100), at least 1."""
    median_rank: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def blocked_ranks(queries: F32, gallery: F32, is_match: I64) -> I64:
    """0-based rank of each query's true match, worst case on ties.

    Args:
        queries: (N, D) embeddings.
        gallery: (R, D) embeddings.
        is_match: (N,) row of the gallery that is each query's true match.

    Returns:
        (N,) how many other references score at least as high as the true one.

    Raises:
        InputError: an embedding is not finite, or shapes do not fit.
    """
    if not (np.isfinite(queries).all() and np.isfinite(gallery).all()):
        msg = "an embedding is not finite, which would make every rank perfect; check the training"
        raise InputError(msg)
    if queries.shape[1:] != gallery.shape[1:] or is_match.shape != queries.shape[:1]:
        msg = (
            f"queries {queries.shape}, gallery {gallery.shape}, matches {is_match.shape} do not fit"
        )
        raise InputError(msg)
    ranks = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), _BLOCK):
        stop = min(start + _BLOCK, len(queries))
        scores = queries[start:stop] @ gallery.T
        rows = np.arange(stop - start)
        true = scores[rows, is_match[start:stop]][:, None]
        ranks[start:stop] = np.count_nonzero(scores >= true, axis=1) - 1
    return ranks


def retrieval_metrics(queries: F32, gallery: F32, is_match: I64) -> RetrievalMetrics:
    """R@1, R@5, R@10 and R@1 % (K = floor(R / 100)); see `blocked_ranks` for the arguments."""
    ranks = blocked_ranks(queries, gallery, is_match)
    k = max(len(gallery) // 100, 1)
    return RetrievalMetrics(
        queries=len(queries),
        gallery=len(gallery),
        r_at_1=float(np.mean(ranks < 1)),
        r_at_5=float(np.mean(ranks < 5)),
        r_at_10=float(np.mean(ranks < 10)),
        r_at_1_percent=float(np.mean(ranks < k)),
        k_of_1_percent=k,
        median_rank=float(np.median(ranks)) + 1,
    )
