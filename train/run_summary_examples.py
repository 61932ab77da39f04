"""Example retrievals: what the encoder answers to some queries, right and wrong."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from train.config import TrainConfig
from train.evaluation import Evaluation
from train.loader import evaluation_batches
from train.pair_table import ImageSet

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

SIDE_PX = 160
"""Images are reduced to the area of a square of this side; panoramas stay legible that way."""
SHOWN = 3
"""Answers of an example."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reference shown beside a query."""

    image: U8
    """(h, w, 3) RGB, reduced, as the encoder sees it."""
    name: str
    place: int | None
    """1 is the first answer; None for a true reference whose place is not known."""
    similarity: float | None
    """Cosine to the query, where the evaluation kept it: of the first and the best true one."""
    is_true: bool
    """It shows the query's place."""
    overlaps: bool = False
    """It is not the true one, but a semi-positive: it overlaps the true one's ground."""
    distance_m: float | None = None
    """From where the query is, where that is known."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One query and what it found."""

    task: str
    query: U8
    """(h, w, 3) RGB, reduced, as the encoder sees it."""
    query_name: str
    answers: tuple[Answer, ...]
    """The first answers; where no true one is among them, the last gives way to a true one."""
    rank: int | None
    """Of the best true reference, 1 is found; None where the gallery has none."""
    gallery: int
    """References ranked."""


def examples_of(
    evaluation: Evaluation,
    config: TrainConfig,
    *,
    margin: float = 1.0,
    count: int = 8,
    seed: int = 0,
) -> list[Example]:
    """Draw queries by chance: half of those found at once and half of the others.

    Where one kind has too few, the other fills up. No image is read but those shown. A query one
    of whose images can no longer be read is left out: a summary is no reason to stop a run.

    Args:
        evaluation: of any task.
        config: sizes of the encoder's input.
        margin: of aligned images around the view.
        count: queries drawn.
        seed: the same draws the same queries of evaluations that found the same ones.

    Returns:
        Those found first, each kind in the order of the queries.
    """
    rng = np.random.default_rng([seed, len(evaluation.ranks)])
    drawn = _draw(evaluation.ranks.best_rank == 0, count, rng)
    made = (_example(evaluation, int(row), config, margin) for row in drawn)
    return [example for example in made if example is not None]


def _draw(found: npt.NDArray[np.bool_], count: int, rng: np.random.Generator) -> I64:
    """Rows of up to `count` queries: half found where there are as many of both kinds."""
    kinds = [rng.permutation(np.flatnonzero(which)) for which in (found, ~found)]
    taken = min(len(kinds[0]), max(count - count // 2, count - len(kinds[1])))
    return np.concatenate([np.sort(kinds[0][:taken]), np.sort(kinds[1][: count - taken])])


def _example(
    evaluation: Evaluation, query: int, config: TrainConfig, margin: float
) -> Example | None:
    """One query's example; None where an image of it cannot be read."""
    task, ranks = evaluation.task, evaluation.ranks
    query_row = int(evaluation.query_rows[query])
    label = task.query_labels[query_row]
    top = ranks.top_rows[query]
    rank = int(ranks.best_rank[query]) if ranks.true_references[query] else None
    rows = [int(row) for row in top[:SHOWN]]
    places: list[int | None] = list(range(1, len(rows) + 1))
    if rank is not None and rank >= len(rows):
        true = np.flatnonzero(task.gallery_labels == label)
        # Beyond the answers kept only a single true reference can be the one of that rank.
        rows[-1] = int(top[rank] if rank < len(top) else true[0])
        places[-1] = rank + 1 if rank < len(top) or len(true) == 1 else None
    seen = [
        image
        for images, chosen in ((task.queries, [query_row]), (task.gallery, rows))
        for image in _seen(images, np.array(chosen, np.int64), config, margin)
        if image is not None
    ]
    if len(seen) < 1 + len(rows):
        return None
    semi = task.semi_positives[query_row].tolist() if task.semi_positives.size else []
    is_true = [bool(task.gallery_labels[row] == label) for row in rows]
    answers = tuple(
        Answer(
            image=image,
            name=task.gallery.images.name(row),
            place=place,
            similarity=_similarity(evaluation, query, place),
            is_true=true,
            overlaps=row in semi and not true,
            distance_m=_distance_m(evaluation, query, place),
        )
        for row, place, image, true in zip(rows, places, seen[1:], is_true, strict=True)
    )
    return Example(
        task=task.name,
        query=seen[0],
        query_name=task.queries.images.name(query_row),
        answers=answers,
        rank=None if rank is None else rank + 1,
        gallery=ranks.gallery,
    )


def _similarity(evaluation: Evaluation, query: int, place: int | None) -> float | None:
    ranks = evaluation.ranks
    if place == 1:
        return float(ranks.top_score[query])
    if place is not None and place == ranks.best_rank[query] + 1:
        return float(ranks.true_score[query])
    return None


def _distance_m(evaluation: Evaluation, query: int, place: int | None) -> float | None:
    distances_m = evaluation.ranks.distances_m
    if distances_m is None or place is None or place > distances_m.shape[1]:
        return None
    return float(distances_m[query, place - 1])


def _seen(images: ImageSet, rows: I64, config: TrainConfig, margin: float) -> Iterator[U8 | None]:
    """Images as the encoder sees them, reduced; None where one cannot be read."""
    size_px = config.photo_size_px if images.view == "photo" else config.tile_size_px
    for batch in evaluation_batches(
        images, replace(config, workers=0), rows=rows, size_px=size_px, margin=margin, batch_size=1
    ):
        yield None if batch.unreadable else reduced(batch.images[0].numpy())


def reduced(image: U8, side_px: int = SIDE_PX) -> U8:
    """An (H, W, 3) image at no more than the area of a square, in its proportions."""
    height, width = image.shape[:2]
    scale = side_px / (height * width) ** 0.5
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
