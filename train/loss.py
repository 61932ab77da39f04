"""Symmetric InfoNCE over matched pairs."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def symmetric_info_nce(
    query: Tensor, reference: Tensor, logit_scale: Tensor, *, label_smoothing: float = 0.1
) -> Tensor:
    """Contrastive loss over matched pairs (Deuser et al. 2023, arXiv:2303.11851, section 3).

    Row i of `query` matches row i of `reference`; all other rows are negatives. Computed in
    float32 whatever autocast is active: float16 steps are 0.03 near a logit of 40.

    Args:
        query: (N, D) photo embeddings, unit length.
        reference: (N, D) tile embeddings, unit length.
        logit_scale: () inverse temperature, already exponentiated.
        label_smoothing: probability moved off the diagonal, in [0, 1).

    Returns:
        () mean of the two cross-entropies, in nats.

    Raises:
        ValueError: the two batches do not have the same shape.
    """
    if query.shape != reference.shape:
        msg = f"query {tuple(query.shape)} and reference {tuple(reference.shape)} must match"
        raise ValueError(msg)
    with torch.autocast(query.device.type, enabled=False):
        logits = logit_scale.float() * query.float() @ reference.float().T
        target = torch.arange(len(logits), device=logits.device)
        photo_to_tile = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
        tile_to_photo = F.cross_entropy(logits.T, target, label_smoothing=label_smoothing)
    return (photo_to_tile + tile_to_photo) / 2
