"""Several processes training one encoder, started by `torchrun -m train fit …`.

Every rank holds the same weights and its share of each batch; embeddings are gathered with their
gradients, so the loss compares the whole batch and N ranks x B/N pairs give the loss and gradient
of one rank x B.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from edge_runtime.errors import InputError

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among its peers."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    def share(self, rows: I64) -> I64:
        """This rank's part of a batch: every world_size-th row from its own."""
        return rows[self.rank :: self.world_size]

    def span(self, count: int) -> slice:
        """This rank's part of a list: a run of neighbours, so that joined parts are in order."""
        bounds = [count * k // self.world_size for k in range(self.world_size + 1)]
        return slice(bounds[self.rank], bounds[self.rank + 1])

    def joined(self, part: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Every rank's part, one after the other, on every rank.

        Args:
            part: (n, …) of one dtype and row shape on all ranks; n may differ.

        Returns:
            (sum of n, …).
        """
        if self.world_size == 1:
            return part
        count = torch.tensor([len(part)], device=self.device)
        counts = [torch.zeros_like(count) for _ in range(self.world_size)]
        dist.all_gather(counts, count)
        sizes = [int(c) for c in counts]
        padded = np.zeros((max(sizes), *part.shape[1:]), part.dtype)
        padded[: len(part)] = part
        own = torch.from_numpy(padded).to(self.device)
        parts = [torch.empty_like(own) for _ in sizes]
        dist.all_gather(parts, own)
        both = zip(parts, sizes, strict=True)
        return np.concatenate([p.cpu().numpy()[:size] for p, size in both])

    def smallest(self, value: int) -> int:
        """The smallest of all ranks' values."""
        return self._reduced(value, dist.ReduceOp.MIN)

    def total(self, value: int) -> int:
        """The sum of all ranks' values."""
        return self._reduced(value, dist.ReduceOp.SUM)

    def wait(self) -> None:
        """Return once every rank is here."""
        if self.world_size > 1:
            dist.barrier()

    def _reduced(self, value: int, how: Any) -> int:
        if self.world_size == 1:
            return value
        tensor = torch.tensor([value], device=self.device)
        dist.all_reduce(tensor, how)
        return int(tensor)


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the peers that `torchrun` started, or be alone.

    NCCL between GPUs, Gloo between CPUs. The ranks part when the block ends.

    Raises:
        InputError: more ranks on a machine than it has GPUs.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            msg = (
                f"rank {local} of this machine has no GPU, there are {torch.cuda.device_count()}; "
                f"start fewer: torchrun --nproc-per-node {torch.cuda.device_count()} -m train fit …"
            )
            raise InputError(msg)
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if world_size == 1:
        yield Ranks(device=device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)
    finally:
        dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """All ranks' rows, with gradients to this rank's own."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, rank: int, world_size: int) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(world_size)]
        dist.all_gather(parts, own.contiguous())
        ctx.rank, ctx.world_size, ctx.count = rank, world_size, len(own)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        # Every rank computes the same whole loss, so the gradient of its own rows is already here;
        # times world_size, because DistributedDataParallel takes the mean over the ranks.
        start = ctx.rank * ctx.count
        return gradients[0][start : start + ctx.count] * ctx.world_size, None, None


def gathered(embeddings: Tensor, ranks: Ranks) -> Tensor:
    """Embeddings of all ranks, differentiable.

    Args:
        embeddings: (n, D) of this rank; n is the same on all ranks.
        ranks: this process among its peers.

    Returns:
        (world_size x n, D), rank after rank.
    """
    if ranks.world_size == 1:
        return embeddings
    out: Tensor = _Gather.apply(embeddings, ranks.rank, ranks.world_size)  # type: ignore[no-untyped-call]
    return out
