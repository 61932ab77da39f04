"""How fast an encoder learns on this machine, and how many cores it takes to feed it.

**What is inside the clock of a step**: `train.optimisation.Optimisation.step`, all of it: copying
the batch to the device, forward, loss over the batch, backward, clipping and the optimiser's
update, until the device has finished. Batches are made beforehand, so no loading is inside; one
core's loading has rows of its own (`benchmarks.loading`).
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from benchmarks.clock_cost import CLOCK_NS, ClockNs
from benchmarks.loading import LoadingRow
from benchmarks.machine import Machine, WorkWatch
from benchmarks.measurement import Memory
from benchmarks.memory_use import MemoryWatch, in_child
from benchmarks.rows import Provenance, provenance
from benchmarks.time_summary import TimeSummary
from benchmarks.timing import timed_for
from edge_runtime.errors import InputError
from train.config import TrainConfig
from train.distributed import Ranks
from train.encoder import new_encoder
from train.optimisation import Optimisation
from train.presets import PRESETS

_BATCHES = 4
"""Different ones, taken in turn."""
_MADE_UP_GROUND_M = 100.0


@dataclass(frozen=True, kw_only=True)
class TrainingSpeedRow(Provenance):
    """Steps of training of one encoder."""

    kind: Literal["training-speed"] = "training-speed"
    what: Literal["step"] = "step"
    run: int = 0
    recipe: str
    """Whose loss, precision, clipping and averages."""
    architecture: str
    size_px: int
    """Of the tiles."""
    photo_px: str
    """Height x width of the photos."""
    pairs: int
    """In a step; images are twice as many."""
    precision: str
    """Under autocast; on a CPU half precision is bf16."""
    threads: int
    """CPU threads of torch."""
    device: str
    """cpu or cuda."""
    parameters: int
    time: TimeSummary
    """Of steps; its throughput counts images, not pairs."""
    memory: Memory
    """Weights, gradients, the optimiser's state and activations."""
    first_loss: float
    """Nats; mean of the first step on each batch, all of noise."""
    last_loss: float
    """Of the last step on each: below the first, or nothing was learned."""
    machine: Machine


@dataclass(frozen=True, kw_only=True)
class TrainingSpeedPlan:
    """What is trained for a moment."""

    recipe: str
    """Of `train.presets`."""
    architecture: str | None = None
    """The recipe's by default."""
    size_px: int | None = None
    pairs: int | None = None
    seconds: float
    """Of steps, at least."""
    steps: int = 10
    """At least so many, after 2 that do not count."""
    threads: int | None = None
    """torch's own choice by default."""
    run: int = 0

    def config(self) -> TrainConfig:
        """The recipe with what was changed.

        Raises:
            InputError: no such recipe, or a value that cannot train.
        """
        if self.recipe not in PRESETS:
            msg = f"there is no recipe {self.recipe!r}; give one of {', '.join(PRESETS)}"
            raise InputError(msg)
        config = PRESETS[self.recipe]
        if self.size_px is not None:
            # A recipe's photo size goes with its own tile size.
            config = replace(
                config, size_px=self.size_px, photo_height_px=None, photo_width_px=None
            )
        return replace(
            config,
            architecture=self.architecture or config.architecture,
            batch_size=self.pairs or config.batch_size,
            threads=self.threads,
        )


def training_speed(plan: TrainingSpeedPlan) -> TrainingSpeedRow:
    """Measure in a process of its own.

    Raises:
        InputError: no such recipe or architecture, or a size it does not take.
        BackendError: the process was killed, as by a lack of memory.
    """
    return in_child(steps_row, plan)


def steps_row(plan: TrainingSpeedPlan, *, clock_ns: ClockNs = CLOCK_NS) -> TrainingSpeedRow:
    """Train for a moment, in this process.

    Args:
        plan: what.
        clock_ns: a monotonic clock, nanoseconds.

    Raises:
        InputError: no such recipe or architecture, or a size it does not take.
    """
    config = plan.config()
    if config.threads:
        torch.set_num_threads(config.threads)
    ranks = Ranks(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(config.seed)
    work = WorkWatch()
    watch = MemoryWatch()
    photo_px = None if config.photo_size_px == config.tile_size_px else config.photo_size_px
    encoder = new_encoder(
        config.architecture,
        size_px=config.size_px,
        photo_size_px=photo_px,
        ground_size_m=_MADE_UP_GROUND_M,
    )
    optimisation = Optimisation(
        encoder, replace(config, distillation="none"), ranks, steps_per_epoch=1000
    )
    optimisation.train()
    generator = torch.Generator().manual_seed(config.seed)
    batches = [
        [
            torch.randint(0, 256, (config.batch_size, *size, 3), generator=generator).byte()
            for size in (config.photo_size_px, config.tile_size_px)
        ]
        for _ in range(_BATCHES)
    ]
    losses: list[float] = []

    def step(number: int) -> None:
        photos, tiles = batches[number % _BATCHES]
        losses.append(optimisation.step(photos, tiles).loss)

    timed = timed_for(
        step,
        seconds=plan.seconds,
        least_calls=plan.steps,
        warmup=2,
        synchronise=torch.cuda.synchronize if ranks.device.type == "cuda" else None,
        clock_ns=clock_ns,
    )
    height, width = config.photo_size_px
    return TrainingSpeedRow(
        **provenance(),
        run=plan.run,
        recipe=plan.recipe,
        architecture=config.architecture,
        size_px=config.size_px,
        photo_px=f"{height}x{width}",
        pairs=config.batch_size,
        precision=config.precision,
        threads=torch.get_num_threads(),
        device=ranks.device.type,
        parameters=sum(p.numel() for p in encoder.parameters()),
        time=timed.summary(items_per_call=2 * config.batch_size),
        memory=watch.memory(),
        first_loss=statistics.fmean(losses[:_BATCHES]),
        last_loss=statistics.fmean(losses[-_BATCHES:]),
        machine=work.machine(),
    )


def in_words(step: TrainingSpeedRow, loading: Sequence[LoadingRow]) -> list[str]:
    """A line for the steps and, where loading was measured, how many cores feed them."""
    speed = step.time.throughput_per_s
    gpu = step.memory.gpu_peak_mib
    held = f"{step.memory.host_peak_mib:.0f} MiB" + ("" if gpu is None else f", GPU {gpu:.0f} MiB")
    found = [
        f"{step.architecture} {step.size_px} px, {step.pairs} pairs a step, {step.precision}, "
        f"{step.threads} threads on {step.device}: {speed:.1f} images/s, a step p50 "
        f"{step.time.p50_ms:.0f} ms, p99 {step.time.p99_ms:.0f} ms ({step.time.n} steps), {held}"
    ]
    for row in loading:
        found.append(
            f"loading by {row.recipe}: {row.images_per_s:.0f} images/s a core, so "
            f"{speed / row.images_per_s:.1f} cores feed these steps"
        )
    return found
