"""What training minimises: symmetric InfoNCE over matched pairs, and what may be added to it."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from edge_runtime.errors import InputError
from train.config import TrainConfig


def symmetric_info_nce(
    query: Tensor,
    reference: Tensor,
    logit_scale: Tensor,
    *,
    label_smoothing: float = 0.1,
    photo_negatives: bool = False,
) -> Tensor:
    """Contrastive loss over matched pairs (Deuser et al. 2023, arXiv:2303.11851, section 3).

    Row i of `query` matches row i of `reference`; all other rows are negatives. Computed in
    float32 whatever autocast is active: float16 steps are 0.03 near a logit of 40.

    Args:
        query: (N, D) photo embeddings, unit length.
        reference: (N, D) tile embeddings, unit length.
        logit_scale: () inverse temperature, already exponentiated.
        label_smoothing: probability moved off the diagonal, in [0, 1).
        photo_negatives: a photo's negatives are the other photos too.

    Returns:
        () mean of the two cross-entropies, in nats.

    Raises:
        ValueError: the two batches do not have the same shape.
    """
    if query.shape != reference.shape:
        msg = f"query {tuple(query.shape)} and reference {tuple(reference.shape)} must match"
        raise ValueError(msg)
    with torch.autocast(query.device.type, enabled=False):
        query, reference = query.float(), reference.float()
        logits = logit_scale.float() * query @ reference.T
        target = torch.arange(len(logits), device=logits.device)
        photo_logits = logits
        if photo_negatives:
            own = torch.eye(len(query), dtype=torch.bool, device=query.device)
            others = (logit_scale.float() * query @ query.T)[~own].reshape(len(query), -1)
            photo_logits = torch.cat([logits, others], dim=1)
        photo_to_tile = F.cross_entropy(photo_logits, target, label_smoothing=label_smoothing)
        tile_to_photo = F.cross_entropy(logits.T, target, label_smoothing=label_smoothing)
    return (photo_to_tile + tile_to_photo) / 2


def relation_loss(student: Tensor, teacher: Tensor, scale: Tensor) -> Tensor:
    """How differently two encoders rank the same tiles for the same photos, in nats.

    Args:
        student: (N, N) cosine similarities of photos and tiles.
        teacher: (N, N) the same of the teacher; no gradient flows into it.
        scale: () inverse temperature, exponentiated, of both.

    Returns:
        () Kullback-Leibler divergence from the teacher's to the student's, mean of both directions.
    """
    own, other = scale.float() * student.float(), scale.detach().float() * teacher.detach().float()
    rows = F.kl_div(
        own.log_softmax(dim=1), other.log_softmax(dim=1), reduction="batchmean", log_target=True
    )
    columns = F.kl_div(
        own.T.log_softmax(dim=1), other.T.log_softmax(dim=1), reduction="batchmean", log_target=True
    )
    return (rows + columns) / 2


def training_loss(
    query: Tensor,
    reference: Tensor,
    logit_scale: Tensor,
    config: TrainConfig,
    *,
    teacher: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The whole loss of a batch, by the config's switches.

    Args:
        query: (N, D) photo embeddings, unit length.
        reference: (N, D) tile embeddings, unit length.
        logit_scale: () inverse temperature, exponentiated.
        config: smoothing, negatives, embedding sizes, distillation.
        teacher: the teacher's photo and tile embeddings, (N, D') each, for distillation.

    Raises:
        InputError: a prefix is longer than the embedding, or the teacher's size is another where
            its own vectors are to be learnt.
    """

    def pairs(photos: Tensor, tiles: Tensor) -> Tensor:
        return symmetric_info_nce(
            photos,
            tiles,
            logit_scale,
            label_smoothing=config.label_smoothing,
            photo_negatives=config.photo_negatives,
        )

    size = query.shape[1]
    if config.embedding_sizes and max(config.embedding_sizes) > size:
        msg = f"embedding_sizes {config.embedding_sizes} exceed the encoder's {size}"
        raise InputError(msg)
    losses = [pairs(query, reference)]
    losses += [
        pairs(F.normalize(query[:, :part]), F.normalize(reference[:, :part]))
        for part in config.embedding_sizes
    ]
    loss = torch.stack(losses).mean()
    if teacher is None or config.distillation == "none":
        return loss
    photos, tiles = (part.detach().float() for part in teacher)
    if config.distillation == "relations":
        extra = relation_loss(query @ reference.T, photos @ tiles.T, logit_scale)
    else:
        if photos.shape[1] != size:
            msg = (
                f"the teacher's embeddings have {photos.shape[1]} numbers, the student's {size}; "
                f"give the student a head: --model-arg num_classes={photos.shape[1]}"
            )
            raise InputError(msg)
        # The student's photos must find the teacher's tiles: an index of the teacher serves both.
        extra = (
            pairs(query, tiles) + (2 - (query * photos).sum(1) - (reference * tiles).sum(1)).mean()
        )
    return loss + config.distillation_weight * extra
