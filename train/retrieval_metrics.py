"""How well queries find their references, from blocks: no query x gallery matrix ever exists.

Ties count against the model and embeddings that are not finite are refused: evaluators that do
neither give an encoder that answers the same to everything R@1 = 100 %.
"""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.artefact import write_atomically
from edge_runtime.errors import InputError
from edge_runtime.geodesy import LatLon, check_lat_lon, distance_m, haversine_m
from train.exact_similarity import QUERY_BLOCK, Hidden, Leaders, Similarities, expand_runs

Bools = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

GalleryKind = Literal["all", "without distractors"]
"""all: every reference. without distractors: only references whose place some query shows, as the
paper ranks University-1652 (701 of 951 satellite images) and SUES-200 (80 of 200)."""

_LOCAL_M = 20_000.0
"""Up to here the ellipsoid's tangent plane is used, beyond it the sphere."""


@dataclass(frozen=True, kw_only=True)
class QueryRanks:
    """What a gallery of R references answers to each of Q queries."""

    gallery: int
    """References ranked, R."""
    gallery_kind: GalleryKind
    best_rank: I64
    """(Q,) references before the best true one, so 0 is found; R where no reference is true."""
    average_precision: F64
    """(Q,) of University-1652: the trapezoid over the ranks of all true references."""
    hit: Bools | None
    """(Q,) no reference but semi-positives comes before the best true one; None without any."""
    true_references: I64
    """(Q,) references that show the query's place."""
    true_score: F64
    """(Q,) similarity of the best true one; minus infinity where there is none."""
    top_score: F64
    """(Q,) highest similarity."""
    top_rows: I64
    """(Q, K) gallery rows of the first K answers, whatever the gallery's kind; among equally
    similar ones the true come last."""
    distances_m: F64 | None
    """(Q, K) metres from where the query is to each answer; None without positions."""

    def __len__(self) -> int:
        """Number of queries Q."""
        return len(self.best_rank)


@dataclass(frozen=True, kw_only=True)
class MetreMetrics:
    """How far the answers lie from where the queries are, over all queries."""

    dis_at_1_m: float
    """Mean distance of the first answer."""
    dis_at_3_m: float
    """Mean distance of the first three."""
    dis_at_5_m: float
    dis_at_10_m: float
    median_m: float
    """Median distance of the first answer."""
    success_at_1_m: float
    """Share of queries whose first answer is at most 1 m away."""
    success_at_3_m: float
    success_at_5_m: float
    success_at_10_m: float
    success_at_20_m: float
    success_at_50_m: float
    success_at_100_m: float


@dataclass(frozen=True, kw_only=True)
class RetrievalMetrics:
    """Means over all queries, with the gallery they were measured on."""

    queries: int
    gallery: int
    gallery_kind: GalleryKind
    r_at_1: float
    r_at_5: float
    r_at_10: float
    r_at_1_percent: float
    k_of_1_percent: int
    """floor(gallery / 100), at least 1."""
    median_rank: float
    """Of the best true reference, 1 is found."""
    average_precision: float
    hit_rate: float | None
    """Where semi-positives are given."""
    queries_without_true: int
    """Queries no reference is true for. They count as not found."""
    metres: MetreMetrics | None
    """Where positions are given."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        """One line for people."""
        text = (
            f"R@1 {self.r_at_1:.2%}, R@5 {self.r_at_5:.2%}, R@10 {self.r_at_10:.2%}, "
            f"R@1% {self.r_at_1_percent:.2%} (K = {self.k_of_1_percent}), "
            f"AP {self.average_precision:.2%}"
        )
        if self.hit_rate is not None:
            text += f", hit rate {self.hit_rate:.2%}"
        if self.metres is not None:
            text += f", median {self.metres.median_m:.1f} m"
        return f"{text}; {self.queries} queries, {self.gallery} references ({self.gallery_kind})"


def rank_queries(
    queries: F32,
    gallery: F32,
    query_labels: I64,
    gallery_labels: I64,
    *,
    semi_positives: I64 | None = None,
    top_k: int = 10,
    gallery_kind: GalleryKind = "all",
    query_lat_deg: F64 | None = None,
    query_lon_deg: F64 | None = None,
    gallery_lat_deg: F64 | None = None,
    gallery_lon_deg: F64 | None = None,
) -> QueryRanks:
    """Rank a gallery for each query, exactly and in blocks.

    A reference comes before a true one when it scores as high or higher. Scores are exact
    (`train.exact_similarity`), so no rank depends on how the work is divided.

    Args:
        queries: (Q, D) embeddings.
        gallery: (R, D) embeddings.
        query_labels: (Q,) place each query shows.
        gallery_labels: (R,) place each reference shows; every reference of a query's place is
            true for it.
        semi_positives: (Q, S) gallery rows that overlap each query's true one, -1 for none; None
            or empty where there are no such.
        top_k: answers kept of each query.
        gallery_kind: which of the references are ranked.
        query_lat_deg: (Q,) latitudes. With all four columns, distances are found too.
        query_lon_deg: (Q,) longitudes.
        gallery_lat_deg: (R,) latitudes of all references, also of distractors.
        gallery_lon_deg: (R,) longitudes.

    Raises:
        InputError: shapes do not fit, an embedding is not finite, a position cannot be, or no
            query has a true reference.
    """
    _check_shapes(queries, gallery, query_labels, gallery_labels, semi_positives)
    positions = _positions(
        len(queries), len(gallery), query_lat_deg, query_lon_deg, gallery_lat_deg, gallery_lon_deg
    )
    if top_k < 1:
        msg = f"top_k is {top_k}; expected at least 1 answer per query"
        raise InputError(msg)
    semi = semi_positives if semi_positives is not None and semi_positives.size else None
    kept = np.arange(len(gallery))
    if gallery_kind == "without distractors":
        kept = np.flatnonzero(np.isin(gallery_labels, query_labels))
        if semi is not None:
            place = np.full(len(gallery) + 1, -1)  # The last is what -1 finds.
            place[kept] = np.arange(len(kept))
            semi = place[semi]
        gallery, gallery_labels = gallery[kept], gallery_labels[kept]
    # References by label: each query's true ones are a run of `by_label`.
    by_label = np.argsort(gallery_labels, kind="stable")
    ordered = gallery_labels[by_label]
    first = np.searchsorted(ordered, query_labels, side="left")
    true_references = np.searchsorted(ordered, query_labels, side="right") - first
    if not true_references.any():
        msg = (
            f"none of {len(queries)} queries shows the place of one of {len(gallery)} references; "
            "check the labels"
        )
        raise InputError(msg)
    similarities = Similarities(queries, gallery)
    top_k = min(top_k, len(gallery))
    out = QueryRanks(
        gallery=len(gallery),
        gallery_kind=gallery_kind,
        best_rank=np.empty(len(queries), np.int64),
        average_precision=np.empty(len(queries)),
        hit=None if semi is None else np.empty(len(queries), np.bool_),
        true_references=true_references,
        true_score=np.empty(len(queries)),
        top_score=np.empty(len(queries)),
        top_rows=np.empty((len(queries), top_k), np.int64),
        distances_m=None if positions is None else np.empty((len(queries), top_k)),
    )
    # Queries with as many true references share blocks: each more costs another comparison.
    by_count = np.argsort(true_references, kind="stable")
    for start in range(0, len(queries), QUERY_BLOCK):
        rows = by_count[start : start + QUERY_BLOCK]
        owner, position = expand_runs(first[rows], true_references[rows])
        block = _rank_block(
            similarities, rows, Hidden(owner, by_label[position]), true_references[rows], top_k
        )
        out.best_rank[rows] = block.best_rank
        out.average_precision[rows] = _average_precision(block.ranks, true_references[rows])
        out.true_score[rows], out.top_score[rows] = block.true_score, block.top_score
        out.top_rows[rows] = kept[block.top_rows]
        if out.hit is not None and semi is not None:
            before = _semi_positives_before(
                similarities, rows, semi[rows], query_labels, gallery_labels, block.true_score
            )
            out.hit[rows] = (block.best_rank == before) & (true_references[rows] > 0)
        if out.distances_m is not None and positions is not None:
            out.distances_m[rows] = _distances_m(positions, rows, out.top_rows[rows])
    return out


def summarise(ranks: QueryRanks) -> RetrievalMetrics:
    """Metrics over all queries.

    Raises:
        InputError: fewer answers were kept than Dis@10 needs.
    """
    k = max(ranks.gallery // 100, 1)
    return RetrievalMetrics(
        queries=len(ranks),
        gallery=ranks.gallery,
        gallery_kind=ranks.gallery_kind,
        r_at_1=_recall(ranks, 1),
        r_at_5=_recall(ranks, 5),
        r_at_10=_recall(ranks, 10),
        r_at_1_percent=_recall(ranks, k),
        k_of_1_percent=k,
        median_rank=float(np.median(ranks.best_rank)) + 1,
        average_precision=float(np.mean(ranks.average_precision)),
        hit_rate=None if ranks.hit is None else float(np.mean(ranks.hit)),
        queries_without_true=int(np.count_nonzero(ranks.true_references == 0)),
        metres=None
        if ranks.distances_m is None
        else _metre_metrics(ranks.distances_m, needed=min(10, ranks.gallery)),
    )


def write_per_query(
    path: Path,
    ranks: QueryRanks,
    *,
    query_name: Callable[[int], str],
    gallery_name: Callable[[int], str],
) -> None:
    """Write one line per query, whole or not at all.

    Args:
        path: `.jsonl` for JSON lines, anything else for CSV with a header.
        ranks: of `rank_queries`.
        query_name: name of a query's row; `ImageSource.name` is one.
        gallery_name: name of a gallery row.
    """
    lines = [_line(ranks, row, query_name, gallery_name) for row in range(len(ranks))]
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    else:
        stream = io.StringIO()
        flat = [
            {key: value for key, value in line.items() if key != "top"}
            | {f"top_{place}": name for place, name in enumerate(line["top"], start=1)}
            for line in lines
        ]
        writer = csv.DictWriter(stream, list(flat[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
        text = stream.getvalue()
    write_atomically(path, text.encode())


@dataclass(frozen=True, kw_only=True)
class _RankedBlock:
    ranks: I64
    """(N, M) of all true references, ascending; of no meaning beyond a query's own number."""
    best_rank: I64
    true_score: F64
    top_score: F64
    top_rows: I64


def _rank_block(
    similarities: Similarities, rows: I64, true: Hidden, counts: I64, top_k: int
) -> _RankedBlock:
    """Rank the gallery for some queries.

    False references are counted and kept in blocks that leave the true ones out; a true one's
    rank is the false before it and the true before it.
    """
    most = int(counts.max())
    scores, columns = np.full((len(rows), most), -np.inf), np.full((len(rows), most), -1)
    place = expand_runs(np.zeros_like(counts), counts)[1]
    scores[true.rows, place] = similarities.pairs(rows[true.rows], true.columns)
    columns[true.rows, place] = true.columns
    order = np.argsort(-scores, axis=1, kind="stable")
    scores = np.take_along_axis(scores, order, axis=1)
    columns = np.take_along_axis(columns, order, axis=1)
    # Nothing reaches an absent one.
    thresholds = np.where(np.isneginf(scores), np.inf, scores)
    false_before = np.zeros((len(rows), most), np.int64)
    leaders = Leaders(len(rows), top_k)
    gallery = 0
    for start, block in similarities.blocks(rows, true):
        leaders.add(block, start)
        for n in range(most):
            false_before[:, n] += np.count_nonzero(block >= thresholds[:, n, None], axis=1)
        gallery = start + block.shape[1]
    ranks = false_before + np.arange(most)
    false_scores, false_columns = leaders.ranked()
    top = np.full((len(rows), top_k), -1)
    at, nth = np.nonzero((columns >= 0) & (ranks < top_k))
    top[at, ranks[at, nth]] = columns[at, nth]
    free = top < 0
    next_false = np.cumsum(free, axis=1) - 1
    top = np.where(free, np.take_along_axis(false_columns, next_false.clip(0), axis=1), top)
    found = counts > 0
    return _RankedBlock(
        ranks=ranks,
        best_rank=np.where(found, ranks[:, 0], gallery) if most else np.full(len(rows), gallery),
        true_score=scores.max(axis=1, initial=-np.inf),
        top_score=np.maximum(scores.max(axis=1, initial=-np.inf), false_scores[:, 0]),
        top_rows=top,
    )


def _semi_positives_before(
    similarities: Similarities,
    rows: I64,
    semi: I64,
    query_labels: I64,
    gallery_labels: I64,
    true_score: F64,
) -> I64:
    """(N,) how many distinct false semi-positives come before the best true reference."""
    semi = np.sort(semi, axis=1)
    repeated = np.zeros(semi.shape, np.bool_)
    repeated[:, 1:] = semi[:, 1:] == semi[:, :-1]
    false = gallery_labels[semi] != query_labels[rows][:, None]
    own, n = np.nonzero((semi >= 0) & ~repeated & false)
    scores = similarities.pairs(rows[own], semi[own, n])
    before = scores >= true_score[own]
    return np.bincount(own[before], minlength=len(rows))


def _average_precision(ranks: I64, counts: I64) -> F64:
    """(N,) trapezoid of University-1652 from (N, M) ascending ranks; 0 where there are none."""
    n = np.arange(ranks.shape[1])
    after = (n + 1) / (ranks + 1)
    before = np.where(ranks == 0, 1.0, n / np.maximum(ranks, 1))
    steps = np.where(n < counts[:, None], (before + after) / 2, 0.0)
    return np.asarray(steps.sum(axis=1) / np.maximum(counts, 1))


def _recall(ranks: QueryRanks, k: int) -> float:
    # A query without a true reference has rank R, which no K counts as found.
    return float(np.mean(ranks.best_rank < min(k, ranks.gallery)))


def _metre_metrics(distances_m: F64, *, needed: int) -> MetreMetrics:
    """Means over all queries.

    Raises:
        InputError: fewer answers were kept than needed.
    """
    if distances_m.shape[1] < needed:
        msg = (
            f"{distances_m.shape[1]} answers were kept per query; Dis@10 needs a top_k of {needed}"
        )
        raise InputError(msg)
    nearest = distances_m[:, 0]
    success = {
        f"success_at_{m}_m": float(np.mean(nearest <= m)) for m in (1, 3, 5, 10, 20, 50, 100)
    }
    means = {f"dis_at_{k}_m": float(np.mean(distances_m[:, :k])) for k in (1, 3, 5, 10)}
    return MetreMetrics(median_m=float(np.median(nearest)), **means, **success)


class _Positions(NamedTuple):
    queries: LatLon
    gallery: LatLon


def _positions(
    queries: int,
    references: int,
    query_lat_deg: F64 | None,
    query_lon_deg: F64 | None,
    gallery_lat_deg: F64 | None,
    gallery_lon_deg: F64 | None,
) -> _Positions | None:
    """Positions of both sides; None where one side has none.

    Raises:
        InputError: columns of another length, or a position that cannot be.
    """
    if (
        query_lat_deg is None
        or query_lon_deg is None
        or gallery_lat_deg is None
        or gallery_lon_deg is None
    ):
        return None
    sides = LatLon(query_lat_deg, query_lon_deg), LatLon(gallery_lat_deg, gallery_lon_deg)
    for side, count, what in zip(
        sides, (queries, references), ("queries", "references"), strict=True
    ):
        if side.lat_deg.shape != (count,) or side.lon_deg.shape != (count,):
            msg = f"{count} {what}, but latitudes {side.lat_deg.shape} and longitudes"
            raise InputError(f"{msg} {side.lon_deg.shape}; expected one of each")
        check_lat_lon(*side)
    return _Positions(*sides)


def _distances_m(positions: _Positions, rows: I64, answers: I64) -> F64:
    """(N, K) from (N,) queries to (N, K) answers, metres: ellipsoid, and sphere beyond 20 km."""
    ends = (
        positions.queries.lat_deg[rows][:, None],
        positions.queries.lon_deg[rows][:, None],
        positions.gallery.lat_deg[answers],
        positions.gallery.lon_deg[answers],
    )
    around = haversine_m(*ends)
    return np.where(around < _LOCAL_M, distance_m(*ends), around)


def _line(
    ranks: QueryRanks,
    row: int,
    query_name: Callable[[int], str],
    gallery_name: Callable[[int], str],
) -> dict[str, Any]:
    found = bool(ranks.true_references[row])
    line: dict[str, Any] = {
        "query": query_name(row),
        "rank": int(ranks.best_rank[row]) + 1 if found else None,
        "average_precision": round(float(ranks.average_precision[row]), 6),
        "true_references": int(ranks.true_references[row]),
        "true_score": round(float(ranks.true_score[row]), 6) if found else None,
        "top_score": round(float(ranks.top_score[row]), 6),
    }
    if ranks.hit is not None:
        line["hit"] = bool(ranks.hit[row])
    if ranks.distances_m is not None:
        line["top_1_distance_m"] = round(float(ranks.distances_m[row, 0]), 3)
    line["top"] = [gallery_name(int(answer)) for answer in ranks.top_rows[row]]
    return line


def _check_shapes(
    queries: F32,
    gallery: F32,
    query_labels: I64,
    gallery_labels: I64,
    semi_positives: I64 | None,
) -> None:
    """Refuse columns that do not fit.

    Raises:
        InputError: labels of another length, nothing to rank, or semi-positives that point nowhere.
    """
    sizes = len(queries), len(gallery)
    if (query_labels.shape, gallery_labels.shape) != ((sizes[0],), (sizes[1],)) or 0 in sizes:
        msg = (
            f"queries {queries.shape} with labels {query_labels.shape} and gallery {gallery.shape} "
            f"with labels {gallery_labels.shape} do not fit; expected one label of each, and some"
        )
        raise InputError(msg)
    if semi_positives is None or not semi_positives.size:
        return
    if len(semi_positives) != len(queries):
        msg = f"semi-positives {semi_positives.shape} of {len(queries)} queries; expected (Q, S)"
        raise InputError(msg)
    low, high = int(semi_positives.min()), int(semi_positives.max())
    if low < -1 or high >= len(gallery):
        msg = f"semi-positives are rows {low} to {high}; expected -1 to {len(gallery) - 1}"
        raise InputError(msg)
