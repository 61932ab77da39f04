"""One step of training: forward, loss over the whole batch, backward, update."""

import inspect
import math
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edge_runtime.errors import InputError
from train.config import TrainConfig
from train.distributed import Ranks, gathered
from train.embedding import autocast
from train.encoder import Encoder
from train.loss import training_loss
from train.schedule import learning_rate_factor

_BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


class _PairForward(nn.Module):
    """Both views in one call, as DistributedDataParallel wants it."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, photos: Tensor, tiles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale = self.encoder.logit_scale.exp()
        if photos.shape[1:] == tiles.shape[1:]:
            query, reference = self.encoder(torch.cat([photos, tiles])).chunk(2)
            return query, reference, scale
        return self.encoder(photos), self.encoder(tiles), scale


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one step did."""

    loss: float
    """Nats, over the whole batch of all ranks."""
    learning_rate: float
    temperature: float
    """1 / logit scale."""


class Optimisation:
    """The encoder with its optimiser, precision, averages and peers."""

    def __init__(
        self,
        encoder: Encoder,
        config: TrainConfig,
        ranks: Ranks,
        *,
        steps_per_epoch: int,
        teacher: Encoder | None = None,
    ) -> None:
        """Prepare an encoder for training.

        Args:
            encoder: trained in place, moved to the device of `ranks`.
            config: how.
            ranks: this process among its peers.
            steps_per_epoch: full batches of one epoch.
            teacher: gives embeddings of the same images, for distillation.

        Raises:
            InputError: distillation without a teacher, or the body cannot recompute activations.
        """
        if (teacher is None) != (config.distillation == "none"):
            msg = (
                f"distillation is {config.distillation!r} but there is "
                f"{'no' if teacher is None else 'a'} teacher; give both or neither"
            )
            raise InputError(msg)
        self._config, self._ranks = config, ranks
        self._per_epoch = steps_per_epoch
        if config.temperature is not None:
            with torch.no_grad():
                encoder.logit_scale.fill_(-math.log(config.temperature))
        encoder.to(ranks.device)
        if config.channels_last:
            encoder.body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.checkpointing:
            _recompute_activations(encoder)
        if ranks.world_size > 1 and ranks.device.type == "cuda":
            encoder.body = nn.SyncBatchNorm.convert_sync_batchnorm(encoder.body)  # type: ignore[no-untyped-call]
        self.encoder = encoder
        self.step_count = 0
        self._teacher = None if teacher is None else _PairForward(teacher.to(ranks.device).eval())
        self.optimiser = torch.optim.AdamW(
            encoder.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        half = config.precision == "fp16" and ranks.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=half)
        self.average: AveragedModel | None = None
        if config.ema_decay is not None:
            self.average = AveragedModel(
                encoder,
                multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay),  # type: ignore[no-untyped-call]
                use_buffers=True,
            )
        if config.compile:
            encoder.body.compile()  # In place, so that the weights keep their names.
        pair: nn.Module = _PairForward(encoder)
        if ranks.world_size > 1:
            pair = _parallel(pair)
        self._pair = pair

    @property
    def trained(self) -> Encoder:
        """What is evaluated and saved: the average where one is kept."""
        if self.average is None:
            return self.encoder
        return cast("Encoder", self.average.module)

    def train(self) -> None:
        """Training mode, but for batch norms that are to stay as they came."""
        self.encoder.train()
        if self._config.freeze_norms:
            for module in self.encoder.modules():
                if isinstance(module, _BATCH_NORMS):
                    module.eval()

    def step(self, photos: Tensor, tiles: Tensor) -> StepReport:
        """Learn from one batch.

        Args:
            photos: (n, H, W, 3) uint8, this rank's share; n is the same on all ranks.
            tiles: (n, H', W', 3) uint8, row by row the same places.

        Raises:
            InputError: the loss is no longer finite; nothing was changed by this step.
        """
        device = self._ranks.device
        photos, tiles = (x.to(device, non_blocking=True) for x in (photos, tiles))
        factor = learning_rate_factor(self.step_count, self._config, per_epoch=self._per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = factor * self._config.learning_rate
        self.optimiser.zero_grad(set_to_none=True)
        chunk = self._config.chunk_size
        if chunk is None or chunk >= len(photos):
            loss = self._backward_whole(photos, tiles)
        else:
            loss = self._backward_in_chunks(photos, tiles, chunk)
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_value_(self.encoder.parameters(), self._config.clip_value)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.encoder)
        self.step_count += 1
        return StepReport(
            loss=loss,
            learning_rate=factor * self._config.learning_rate,
            temperature=float((-self.encoder.logit_scale.detach()).exp()),
        )

    def _backward_whole(self, photos: Tensor, tiles: Tensor) -> float:
        self._seed(0)
        with autocast(self._config, self._ranks.device):
            query, reference, scale = self._pair(photos, tiles)
        loss = self._loss(query, reference, scale, photos, tiles)
        value = _finite(loss)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return value

    def _backward_in_chunks(self, photos: Tensor, tiles: Tensor, chunk: int) -> float:
        """Gradient caching (Gao et al. 2021, arXiv:2101.06983, section 3).

        Embeddings are first made without gradients, the loss gives their gradients, and a second
        forward pass of each chunk carries those to the weights: memory is that of one chunk.
        """
        starts = range(0, len(photos), chunk)
        parts = []
        with torch.no_grad(), _unchanged_statistics(self.encoder):
            for k, start in enumerate(starts):
                self._seed(k)
                with autocast(self._config, self._ranks.device):
                    parts.append(
                        self._plain(photos[start : start + chunk], tiles[start : start + chunk])
                    )
        query = torch.cat([part[0] for part in parts]).requires_grad_()
        reference = torch.cat([part[1] for part in parts]).requires_grad_()
        scale = self.encoder.logit_scale.detach().exp().requires_grad_()
        loss = self._loss(query, reference, scale, photos, tiles)
        value = _finite(loss)
        d_query, d_reference, d_scale = torch.autograd.grad(loss, (query, reference, scale))
        for k, start in enumerate(starts):
            last = start + chunk >= len(photos)
            with self._without_exchange() if not last else nullcontext():
                self._seed(k)
                rows = slice(start, start + chunk)
                with autocast(self._config, self._ranks.device):
                    q, r, s = self._pair(photos[rows], tiles[rows])
                # Its gradient at the weights is the loss's; the scale's is given once, at the end.
                carried = (q * d_query[rows]).sum() + (r * d_reference[rows]).sum()
                carried = carried + s * (d_scale if last else torch.zeros_like(d_scale))
                self.scaler.scale(carried).backward()
        return value

    def _plain(self, photos: Tensor, tiles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The forward pass without the exchange between ranks."""
        module = self._pair
        inner = module.module if isinstance(module, DistributedDataParallel) else module
        out: tuple[Tensor, Tensor, Tensor] = inner(photos, tiles)
        return out

    def _without_exchange(self) -> AbstractContextManager[Any]:
        if isinstance(self._pair, DistributedDataParallel):
            return self._pair.no_sync()
        return nullcontext()

    def _loss(
        self, query: Tensor, reference: Tensor, scale: Tensor, photos: Tensor, tiles: Tensor
    ) -> Tensor:
        teacher = None
        if self._teacher is not None:
            teacher = tuple(gathered(x, self._ranks) for x in self._taught(photos, tiles))
        return training_loss(
            gathered(query, self._ranks),
            gathered(reference, self._ranks),
            scale,
            self._config,
            teacher=teacher,  # type: ignore[arg-type]
        )

    @torch.no_grad()
    def _taught(self, photos: Tensor, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's embeddings of the same images, at its own size."""
        if self._teacher is None:
            msg = "there is no teacher"
            raise RuntimeError(msg)
        spec = self._teacher.encoder.spec
        wanted = (spec.height_px, spec.width_px)
        size = self._config.chunk_size or len(photos)
        out = []
        for start in range(0, len(photos), size):
            both = [_resized(x[start : start + size], wanted) for x in (photos, tiles)]
            with autocast(self._config, self._ranks.device):
                out.append(self._teacher(*both)[:2])
        return torch.cat([q for q, _ in out]), torch.cat([r for _, r in out])

    def _seed(self, part: int) -> None:
        """What layers draw (drop path) depends on the step, rank and chunk alone."""
        seed = [self._config.seed, self.step_count, self._ranks.rank, part]
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))


def _parallel(pair: nn.Module) -> DistributedDataParallel:
    """Gradients become the mean over the ranks.

    Buffers are statistics of batch norms: each rank's own on CPUs, shared by SyncBatchNorm on GPUs;
    copying them between forwards would break the graph.
    """
    known = inspect.signature(DistributedDataParallel).parameters
    # Renamed in torch 2.13.
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    # Images come channels last, so some gradients lie in memory otherwise than their weights.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(pair, **{name: False})  # type: ignore[arg-type]


def _resized(images: Tensor, size_px: tuple[int, int]) -> Tensor:
    """(n, H, W, 3) uint8 images at another size."""
    if tuple(images.shape[1:3]) == size_px:
        return images
    planes = images.permute(0, 3, 1, 2).float()
    planes = F.interpolate(planes, size_px, mode="bilinear", align_corners=False)
    return planes.round().to(torch.uint8).permute(0, 2, 3, 1)


def _finite(loss: Tensor) -> float:
    value = float(loss.detach())
    if not np.isfinite(value):
        msg = f"the loss is {value}; try a smaller learning rate, or bf16 for fp16"
        raise InputError(msg)
    return value


def _recompute_activations(encoder: Encoder) -> None:
    try:
        encoder.body.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as error:
        msg = f"{encoder.spec.architecture} cannot recompute activations; set checkpointing=false"
        raise InputError(msg) from error


@contextmanager
def _unchanged_statistics(encoder: Encoder) -> Iterator[None]:
    """Batch norms normalise by the batch but do not count it: the second pass will."""
    norms = [m for m in encoder.modules() if isinstance(m, _BATCH_NORMS)]
    before = [module.momentum for module in norms]
    counts = [
        None if module.num_batches_tracked is None else module.num_batches_tracked.clone()
        for module in norms
    ]
    for module in norms:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum, count in zip(norms, before, counts, strict=True):
            module.momentum = momentum
            if count is not None and module.num_batches_tracked is not None:
                module.num_batches_tracked.copy_(count)
