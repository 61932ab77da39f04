"""The training loop."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edge_runtime.errors import InputError
from train.augmentation import PairAugmentation, as_evaluated
from train.config import TrainConfig
from train.encoder import Encoder, save_checkpoint
from train.hard_negative_batches import hard_negative_batches, random_batches
from train.loss import symmetric_info_nce
from train.neighbours import gps_neighbours, similarity_neighbours
from train.pairs import Pairs
from train.retrieval_metrics import RetrievalMetrics, retrieval_metrics

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What one epoch did."""

    epoch: int
    loss: float
    """Mean over its steps, nats."""
    steps: int
    pairs_per_s: float
    sampler: str
    """Which neighbours filled the batches."""


Report = Callable[[EpochReport], None]
Progress = Callable[[str, float], None]


def fit(
    encoder: Encoder,
    pairs: Pairs,
    config: TrainConfig,
    out: Path,
    *,
    report: Report = lambda _: None,
    progress: Progress = lambda _stage, _done: None,
    extra: dict[str, Any] | None = None,
) -> Encoder:
    """Train an encoder and write a checkpoint after every epoch.

    Args:
        encoder: trained in place.
        pairs: the training pairs.
        config: how.
        out: checkpoint folder; replaced whole after each epoch.
        report: told about each epoch.
        progress: told how far an epoch is.
        extra: kept in the checkpoint's config.

    Returns:
        The trained encoder, in evaluation mode.

    Raises:
        InputError: too few pairs, or the loss is no longer finite: the last checkpoint is kept.
    """
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder.to(device).train()
    optimiser = torch.optim.AdamW(
        encoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    rng = np.random.default_rng(config.seed)
    augmentation = PairAugmentation(config)
    steps_per_epoch = len(pairs) // config.batch_size
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: warmup_then_cosine(
            step,
            warmup=round(config.warmup_epochs * steps_per_epoch),
            total=config.epochs * steps_per_epoch,
        ),
    )
    history: list[dict[str, Any]] = []
    chooser = _NeighbourSampler(encoder, pairs, config, rng)
    for epoch in range(config.epochs):
        started, losses = time.perf_counter(), []
        batches, sampler = chooser.epoch(epoch)
        for rows in batches:
            photos, tiles = augmentation.batch(pairs, rows, rng)
            images = torch.from_numpy(np.concatenate([photos, tiles])).to(device)
            embeddings = encoder(images)
            query, reference = embeddings.chunk(2)
            loss = symmetric_info_nce(
                query,
                reference,
                encoder.logit_scale.exp(),
                label_smoothing=config.label_smoothing,
            )
            value = float(loss.detach())
            if not math.isfinite(value):
                msg = (
                    f"the loss is {value} in epoch {epoch + 1}; the checkpoint before it is kept "
                    f"at {out}. Try a smaller learning rate"
                )
                raise InputError(msg)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_value_(encoder.parameters(), config.clip_value)
            optimiser.step()
            schedule.step()
            losses.append(value)
            progress(f"epoch {epoch + 1}/{config.epochs}", len(losses) / max(1, steps_per_epoch))
        progress(f"epoch {epoch + 1}/{config.epochs}", 1.0)
        seconds = time.perf_counter() - started
        done = EpochReport(
            epoch=epoch + 1,
            loss=float(np.mean(losses)),
            steps=len(losses),
            pairs_per_s=len(losses) * config.batch_size / seconds,
            sampler=sampler,
        )
        history.append(asdict(done))
        save_checkpoint(
            out,
            encoder,
            {"training": asdict(config), "history": history, "pairs": len(pairs), **(extra or {})},
        )
        report(done)
    return encoder.eval()


def warmup_then_cosine(step: int, *, warmup: int, total: int) -> float:
    """Factor on the learning rate: linear rise over `warmup` steps, cosine fall to 0 at `total`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    fraction = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))


class _NeighbourSampler:
    """Chooses each epoch's batches and keeps the neighbour table between refreshes."""

    def __init__(
        self, encoder: Encoder, pairs: Pairs, config: TrainConfig, rng: np.random.Generator
    ) -> None:
        self._encoder, self._pairs, self._config, self._rng = encoder, pairs, config, rng
        self._table: I64 | None = None
        self._name = "chance"
        if config.sampling in ("gps", "both"):
            self._table = gps_neighbours(pairs.lat_deg, pairs.lon_deg, config.neighbours)
            self._name = "distance on the ground"

    def epoch(self, epoch: int) -> tuple[Iterator[I64], str]:
        """An epoch's batches and the name of what chose them."""
        config = self._config
        learned = config.sampling in ("similarity", "both")
        if learned and epoch > 0 and epoch % config.refresh_epochs == 0:
            photos, tiles = embed_pairs(self._encoder, self._pairs)
            self._encoder.train()
            self._table = similarity_neighbours(photos, tiles, config.neighbours)
            self._name = f"similarity after epoch {epoch}"
        if self._table is None:
            batches = random_batches(len(self._pairs), batch_size=config.batch_size, rng=self._rng)
        else:
            batches = hard_negative_batches(
                self._table, batch_size=config.batch_size, select=config.select, rng=self._rng
            )
        return batches, self._name


@torch.inference_mode()
def embed(encoder: Encoder, images: U8, *, batch_size: int = 64) -> F32:
    """Embed images in evaluation mode.

    Args:
        encoder: left in evaluation mode.
        images: (N, H, W, 3) uint8 RGB at the encoder's size.
        batch_size: images per step.

    Returns:
        (N, D) float32, unit length.
    """
    encoder.eval()
    device = encoder.logit_scale.device
    parts = [
        encoder(torch.from_numpy(images[k : k + batch_size]).to(device)).cpu().numpy()
        for k in range(0, len(images), batch_size)
    ]
    return np.concatenate(parts)


def embed_pairs(encoder: Encoder, pairs: Pairs) -> tuple[F32, F32]:
    """Embeddings of all photos and all tiles, as evaluation sees them."""
    size = encoder.spec.width_px
    return (
        embed(encoder, as_evaluated(pairs.photos, size)),
        embed(encoder, as_evaluated(pairs.tiles, size)),
    )


def evaluate(encoder: Encoder, pairs: Pairs, distractors: U8 | None = None) -> RetrievalMetrics:
    """Photo to tile retrieval over the pairs' own tiles and any further ones.

    Args:
        encoder: what to evaluate.
        pairs: queries and their true references.
        distractors: (T, H, W, 3) further references at the encoder's size.
    """
    photos, tiles = embed_pairs(encoder, pairs)
    if distractors is not None and len(distractors):
        tiles = np.concatenate([tiles, embed(encoder, distractors)])
    return retrieval_metrics(photos, tiles, np.arange(len(photos)))


def training_history(checkpoint: Path) -> list[dict[str, Any]]:
    """Epoch reports kept in a checkpoint."""
    history: list[dict[str, Any]] = json.loads((checkpoint / "config.json").read_text())["history"]
    return history
