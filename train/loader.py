"""Images from tables to the encoder, made ahead of it by worker processes.

What is drawn for a pair depends on the seed, the epoch and its row alone: not on workers, ranks or
whether a run was interrupted.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from train.augmentation import PairAugmentation, cut
from train.config import TrainConfig
from train.pair_table import ImageArray, ImageSet, PairTable, UnreadableImageError

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_EMBED_STREAM = 2**31
"""Keeps what is drawn for evaluation apart from what any epoch draws."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pairs ready for the encoder."""

    # Tensors, because torch moves those between processes without a copy.
    photos: Tensor
    """(n, H, W, 3) uint8 RGB."""
    tiles: Tensor
    """(n, H, W, 3) uint8 RGB."""
    rows: I64
    """(n,) pairs of the table; fewer than asked for when some could not be read."""
    unreadable: tuple[str, ...] = ()
    """Why the others are not here."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """Single images ready for the encoder."""

    images: Tensor
    """(n, H, W, 3) uint8 RGB; black where one could not be read."""
    unreadable: tuple[str, ...] = ()


class _TrainingBatches(Dataset[Batch]):
    """Batch k of an epoch, by number."""

    def __init__(
        self, table: PairTable, config: TrainConfig, batches: Sequence[I64], epoch: int
    ) -> None:
        self._table, self._config, self._batches, self._epoch = table, config, batches, epoch
        self._augmentation: PairAugmentation | None = None

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> Batch:
        if self._augmentation is None:
            self._augmentation = PairAugmentation(self._config)
        pairs, rows, unreadable = [], [], []
        for row in map(int, self._batches[step]):
            rng = np.random.default_rng([self._config.seed, self._epoch, row])
            try:
                pairs.append(self._augmentation.pair(self._table, row, rng))
                rows.append(row)
            except UnreadableImageError as error:
                unreadable.append(str(error))
        photo_px, tile_px = self._config.photo_size_px, self._config.tile_size_px
        return Batch(
            photos=_stacked([photo for photo, _ in pairs], photo_px),
            tiles=_stacked([tile for _, tile in pairs], tile_px),
            rows=np.array(rows, np.int64),
            unreadable=tuple(unreadable),
        )


class _EvaluationBatches(Dataset[Images]):
    """Images as evaluation sees them, in order."""

    def __init__(
        self, images: ImageSet, rows: I64, size_px: tuple[int, int], margin: float, batch_size: int
    ) -> None:
        self._set, self._rows, self._size_px = images, rows, size_px
        self._margin, self._batch_size = margin, batch_size

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __getitem__(self, step: int) -> Images:
        start = step * self._batch_size
        out, unreadable = [], []
        for row in map(int, self._rows[start : start + self._batch_size]):
            rng = np.random.default_rng([_EMBED_STREAM, row])
            try:
                image = self._set.images.read(row, rng)
                out.append(cut(image, self._size_px, self._margin))
            except UnreadableImageError as error:
                unreadable.append(str(error))
                out.append(np.zeros((*self._size_px, 3), np.uint8))
        return Images(images=_stacked(out, self._size_px), unreadable=tuple(unreadable))


def training_batches(
    table: PairTable, config: TrainConfig, batches: Sequence[I64], *, epoch: int
) -> Iterator[Batch]:
    """Augmented batches, in order.

    Args:
        table: where pairs come from.
        config: how they are augmented, by how many processes.
        batches: each (n,) rows of the table.
        epoch: part of what is drawn for each pair.
    """
    dataset = _TrainingBatches(table, config, batches, epoch)
    workers = worker_count(config, table.photos, table.tiles)
    return _loaded(dataset, min(workers, len(batches)))


def evaluation_batches(
    images: ImageSet,
    config: TrainConfig,
    *,
    rows: I64,
    size_px: tuple[int, int],
    margin: float,
    batch_size: int,
) -> Iterator[Images]:
    """Images of a set as evaluation and flight see them, in the order of `rows`."""
    dataset = _EvaluationBatches(images, rows, size_px, margin, batch_size)
    return _loaded(dataset, min(worker_count(config, images), len(dataset)))


def worker_count(config: TrainConfig, *sets: ImageSet) -> int:
    """Processes worth having: none for images in memory, else the cores that torch leaves."""
    if config.workers is not None:
        return config.workers
    if all(isinstance(images.images, ImageArray) for images in sets):
        return 0
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(16, max(1, (os.cpu_count() or 1) // ranks - 1))


def _loaded(dataset: Any, workers: int) -> Iterator[Any]:
    if workers == 0:
        return (dataset[step] for step in range(len(dataset)))
    return iter(
        DataLoader(
            dataset,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=_quiet_worker,
        )
    )


def _as_it_is(batch: Any) -> Any:
    """Keep the arrays: torch would turn some of them into tensors."""
    return batch


def _quiet_worker(_worker: int) -> None:
    """One thread a worker; the workers themselves are the parallelism."""
    cv2.setNumThreads(0)


def _stacked(images: list[U8], size_px: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.stack(images) if images else np.empty((0, *size_px, 3), np.uint8))
