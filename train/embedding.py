"""Embeddings of whole image sets, in order, shared between ranks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from edge_runtime.errors import InputError
from train.config import TrainConfig
from train.distributed import Ranks
from train.encoder import Encoder
from train.loader import evaluation_batches
from train.pair_table import ImageSet

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Embeddings of an image set."""

    embeddings: F32
    """(N, D), unit length; of a black image where one could not be read."""
    unreadable: tuple[str, ...] = ()
    """Why, one line an image, of this rank's share."""


@torch.inference_mode()
def embed_set(
    encoder: Encoder,
    images: ImageSet,
    config: TrainConfig,
    *,
    margin: float = 1.0,
    ranks: Ranks | None = None,
    stage: str = "embedding",
    progress: Progress = lambda _stage, _done: None,
) -> Embedded:
    """Embed a set as evaluation sees it. The encoder is left in evaluation mode.

    Args:
        encoder: on the device of `ranks`.
        images: N images.
        config: sizes, precision, batch size and workers.
        margin: of the set's images around the encoder's view.
        ranks: each embeds its share; all get everything.
        stage: what progress is told.
        progress: told how far it is.

    Raises:
        InputError: an embedding is not finite.
    """
    ranks = ranks or Ranks()
    encoder.eval()
    size_px = config.photo_size_px if images.view == "photo" else config.tile_size_px
    span = ranks.span(len(images))
    rows = np.arange(len(images), dtype=np.int64)[span]
    # No gradients, so more images fit than in training.
    batch_size = min(256, 2 * (config.chunk_size or max(1, config.batch_size // ranks.world_size)))
    out = np.empty((len(rows), encoder.spec.embedding_size), np.float32)
    unreadable: list[str] = []
    done = 0
    for batch in evaluation_batches(
        images, config, rows=rows, size_px=size_px, margin=margin, batch_size=batch_size
    ):
        with autocast(config, ranks.device):
            part = encoder(batch.images.to(ranks.device, non_blocking=True))
        out[done : done + len(part)] = part.float().cpu().numpy()
        done += len(part)
        unreadable += batch.unreadable
        progress(stage, done / len(rows))
    if not np.isfinite(out).all():
        msg = f"{stage}: an embedding is not finite; the weights are broken or overflow in FP16"
        raise InputError(msg)
    return Embedded(embeddings=ranks.joined(out), unreadable=tuple(unreadable))


def autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """The precision of the body; FP16 is for GPUs, and on CPUs is BF16."""
    kind = torch.float16 if config.precision == "fp16" else torch.bfloat16
    if device.type == "cpu":
        kind = torch.bfloat16
    return torch.autocast(device.type, dtype=kind, enabled=config.precision != "fp32")
