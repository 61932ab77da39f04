"""How well an encoder finds what it looks for: retrieval metrics of a task."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from train.config import TrainConfig
from train.distributed import Ranks
from train.embedding import Embedded, Progress, embed_set
from train.encoder import Encoder
from train.pair_table import PairTable, RetrievalTask
from train.retrieval_metrics import (
    GalleryKind,
    QueryRanks,
    RetrievalMetrics,
    rank_queries,
    summarise,
    write_per_query,
)

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found."""

    task: RetrievalTask
    metrics: RetrievalMetrics
    """Over the whole gallery."""
    without_distractors: RetrievalMetrics | None
    """Over the references some query shows, where the gallery has others too: the convention of
    the paper's code for University-1652 and SUES-200."""
    ranks: QueryRanks
    """Query by query, over the whole gallery."""
    query_rows: I64
    """(Q,) row of the task's queries, the middle one where several were fused."""

    def write_queries(self, path: Path) -> None:
        """Write a line for every query, CSV or JSON lines by the suffix."""
        write_per_query(
            path,
            self.ranks,
            query_name=lambda row: self.task.queries.images.name(int(self.query_rows[row])),
            gallery_name=self.task.gallery.images.name,
        )


def evaluate_task(
    encoder: Encoder,
    task: RetrievalTask,
    config: TrainConfig,
    *,
    margin: float = 1.0,
    embedding_size: int | None = None,
    fuse: int = 1,
    gallery_encoder: Encoder | None = None,
    ranks: Ranks | None = None,
    progress: Progress = lambda _stage, _done: None,
) -> Evaluation:
    """Embed a task's images and rank its gallery for every query.

    Args:
        encoder: left in evaluation mode.
        task: queries and gallery.
        config: sizes, precision and batch size of the encoder's training.
        margin: of aligned images around the view.
        embedding_size: use this prefix of the embeddings; None for all of it.
        fuse: average so many queries of the same place into one, as frames of one flight.
        gallery_encoder: another one for the references, as a teacher whose index a student uses.
        ranks: embedding is shared between them.
        progress: told how far it is.

    Raises:
        InputError: an image cannot be read (a metric must not leave it out), or an embedding is
            not finite.
    """
    ranks = ranks or Ranks()
    sets: list[F32] = []
    for images, stage, by in (
        (task.queries, "queries", encoder),
        (task.gallery, "gallery", gallery_encoder or encoder),
    ):
        found = embed_set(
            by, images, config, margin=margin, ranks=ranks, stage=stage, progress=progress
        )
        if ranks.total(len(found.unreadable)):
            msg = f"{task.name}: {len(found.unreadable)} images cannot be read, the first: "
            raise InputError(msg + (found.unreadable or ("on another rank",))[0])
        sets.append(_prefix(found, embedding_size))
    queries, gallery = sets
    rows = np.arange(len(task.queries), dtype=np.int64)
    if fuse > 1:
        groups = fused_groups(task.query_labels, fuse)
        queries = fused(queries, groups)
        rows = np.array([group[len(group) // 2] for group in groups])
    labels = task.query_labels[rows]
    semi_positives = task.semi_positives[rows] if task.semi_positives.size else None

    def ranked(kind: GalleryKind) -> QueryRanks:
        return rank_queries(
            queries,
            gallery,
            labels,
            task.gallery_labels,
            semi_positives=semi_positives,
            gallery_kind=kind,
            query_lat_deg=_at(task.queries.lat_deg, rows),
            query_lon_deg=_at(task.queries.lon_deg, rows),
            gallery_lat_deg=task.gallery.lat_deg,
            gallery_lon_deg=task.gallery.lon_deg,
        )

    whole = ranked("all")
    has_distractors = not np.isin(task.gallery_labels, labels).all()
    return Evaluation(
        task=task,
        metrics=summarise(whole),
        without_distractors=summarise(ranked("without distractors")) if has_distractors else None,
        ranks=whole,
        query_rows=rows,
    )


def _at(column: F64 | None, rows: I64) -> F64 | None:
    return None if column is None else column[rows]


def task_of(table: PairTable, *, name: str = "photo-to-tile") -> RetrievalTask:
    """Photos to be found among a table's own tiles."""
    return RetrievalTask(
        name=f"{table.name}/{name}",
        queries=table.photos,
        gallery=table.tiles,
        query_labels=table.tile_of_photo,
        gallery_labels=np.arange(len(table.tiles), dtype=np.int64),
        semi_positives=table.semi_positives,
    )


def fused_groups(labels: I64, size: int) -> list[I64]:
    """Rows of the same label in runs of `size`; a remainder that is shorter is a group too."""
    order = np.argsort(labels, kind="stable")
    places = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return [place[k : k + size] for place in places for k in range(0, len(place), size)]


def fused(embeddings: F32, groups: list[I64]) -> F32:
    """The mean direction of each group's embeddings, (G, D) of unit length."""
    means = np.stack([embeddings[group].mean(axis=0) for group in groups])
    return _unit(means)


def _prefix(found: Embedded, size: int | None) -> F32:
    whole = found.embeddings
    if size is None or size == whole.shape[1]:
        return whole
    if not 1 <= size <= whole.shape[1]:
        msg = f"embedding size {size} is not within this encoder's 1 to {whole.shape[1]}"
        raise InputError(msg)
    return _unit(whole[:, :size])


def _unit(vectors: F32) -> F32:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)
