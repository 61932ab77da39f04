"""The training loop."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edge_runtime.errors import InputError
from train.batches import BatchPlan
from train.config import TrainConfig
from train.distributed import Ranks
from train.encoder import Encoder, save_checkpoint
from train.evaluation import evaluate_task
from train.loader import Batch, training_batches
from train.optimisation import Optimisation
from train.pair_table import PairTable, RetrievalTask
from train.run_log import RunLog
from train.run_state import RunState, fingerprint, load_run_state, run_folder, save_run_state

I64 = npt.NDArray[np.int64]

UNREADABLE_SHARE = 0.01
"""More images than this that cannot be read are no accident: the run stops."""


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
    learning_rate: float
    """At its last step."""
    temperature: float
    """At its last step."""
    waiting: float
    """Share of the time spent waiting for images, 0..1: near 1, more workers would help."""
    unreadable: int = 0
    """Pairs left out because an image could not be read."""
    retrieval: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Metrics by task, where the epoch was evaluated."""


Report = Callable[[EpochReport], None]
Say = Callable[[str], None]
Progress = Callable[[str, float], None]


def fit(
    encoder: Encoder,
    table: PairTable,
    config: TrainConfig,
    out: Path,
    *,
    tasks: Sequence[RetrievalTask] = (),
    teacher: Encoder | None = None,
    ranks: Ranks | None = None,
    resume: bool = False,
    report: Report = lambda _: None,
    say: Say = lambda _: None,
    progress: Progress = lambda _stage, _done: None,
    extra: dict[str, Any] | None = None,
) -> Encoder:
    """Train an encoder and write a checkpoint after every epoch.

    Args:
        encoder: trained in place.
        table: the training pairs.
        config: how.
        out: checkpoint folder; replaced whole after each epoch. State and logs lie beside it.
        tasks: evaluated every `evaluate_epochs` epochs and after the last.
        teacher: for distillation.
        ranks: this process among its peers.
        resume: go on where an interrupted run of the same settings and data stopped.
        report: told about each epoch.
        say: told what people should know at once.
        progress: told how far an epoch is.
        extra: kept in the checkpoint's config.

    Returns:
        The trained encoder (the average, where one is kept), in evaluation mode.

    Raises:
        InputError: too few pairs, too many unreadable images, or the loss is no longer finite: the
            last checkpoint is kept.
    """
    ranks = ranks or Ranks()
    if config.batch_size % ranks.world_size:
        msg = (
            f"batch_size {config.batch_size} cannot be shared by {ranks.world_size} ranks; "
            "choose a multiple"
        )
        raise InputError(msg)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    plan = BatchPlan(table, config)
    optimisation = Optimisation(
        encoder, config, ranks, steps_per_epoch=len(plan.epoch(0)), teacher=teacher
    )
    folder, data = run_folder(out), fingerprint(table)
    state = RunState(epoch=0, step=0, data=data)
    if resume:
        state = load_run_state(folder / "state", optimisation, config, data=data)
        plan.restore(state.neighbours, state.sampler)
        say(f"resumed after epoch {state.epoch}, step {state.step}")
    history = list(state.history)
    log = RunLog(folder, first_step=optimisation.step_count) if ranks.first else None

    def save_state(epoch: int, step: int, losses: list[float]) -> None:
        if ranks.first:
            now = RunState(
                epoch=epoch,
                step=step,
                history=history,
                losses=losses,
                sampler=plan.name,
                neighbours=plan.neighbours,
                data=data,
            )
            save_run_state(folder / "state", optimisation, config, now)
        ranks.wait()

    try:
        for epoch in range(state.epoch, config.epochs):
            begun = state.step if epoch == state.epoch else 0
            losses = list(state.losses) if begun else []
            if plan.due(epoch) and not begun:
                skipped = plan.refresh(optimisation.trained, epoch, ranks, progress)
                if skipped:
                    say(f"{skipped} images cannot be read and have no neighbours of their own")
            batches = [ranks.share(rows) for rows in plan.epoch(epoch)]
            optimisation.train()
            meter = _EpochMeter(len(batches) * config.batch_size, losses, ranks, say)
            stage = f"epoch {epoch + 1}/{config.epochs}"
            loaded = training_batches(table, config, batches[begun:], epoch=epoch)
            for step, batch in enumerate(meter.timed(loaded), begun + 1):
                pairs = meter.usable(batch)
                if pairs * ranks.world_size < 2:
                    continue
                done = optimisation.step(batch.photos[:pairs], batch.tiles[:pairs])
                meter.count(done.loss, pairs)
                if log:
                    log.step(optimisation.step_count, asdict(done))
                if config.save_steps and step % config.save_steps == 0 and step < len(batches):
                    save_state(epoch, step, losses)
                progress(stage, step / len(batches))
            progress(stage, 1.0)
            if not losses:
                msg = f"epoch {epoch + 1} has no batch: no two pairs of one could be read"
                raise InputError(msg)
            retrieval = {}
            if tasks and ((epoch + 1) % config.evaluate_epochs == 0 or epoch + 1 == config.epochs):
                retrieval = {
                    task.name: evaluate_task(
                        optimisation.trained,
                        task,
                        config,
                        margin=table.margin,
                        ranks=ranks,
                        progress=progress,
                    ).metrics.to_json()
                    for task in tasks
                }
            summary = EpochReport(
                epoch=epoch + 1,
                loss=float(np.mean(losses)) if losses else float("nan"),
                steps=len(losses),
                pairs_per_s=meter.pairs_per_s,
                sampler=plan.name,
                learning_rate=done.learning_rate,
                temperature=done.temperature,
                waiting=meter.waiting,
                unreadable=meter.unreadable,
                retrieval=retrieval,
            )
            history.append(asdict(summary))
            if ranks.first:
                save_checkpoint(
                    out,
                    optimisation.trained,
                    {
                        "training": asdict(config),
                        "history": history,
                        "data": {"name": table.name, "pairs": len(table), "sha256": data},
                        **(extra or {}),
                    },
                )
            save_state(epoch + 1, 0, [])
            if log:
                log.epoch(optimisation.step_count, asdict(summary))
            report(summary)
    except InputError as error:
        kept = f"; the checkpoint of epoch {len(history)} is kept at {out}" if history else ""
        msg = f"{error}{kept}"
        raise InputError(msg) from error
    finally:
        if log:
            log.close()
    return optimisation.trained.eval()


class _EpochMeter:
    """Counts an epoch's pairs, time and images that could not be read."""

    def __init__(self, planned: int, losses: list[float], ranks: Ranks, say: Say) -> None:
        self._planned, self._losses, self._ranks, self._say = planned, losses, ranks, say
        self._started, self._waited_s, self._pairs = time.perf_counter(), 0.0, 0
        self.unreadable = 0

    def timed(self, batches: Any) -> Any:
        """The batches, with the time spent waiting for them measured."""
        source = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(source, None)
            self._waited_s += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def usable(self, batch: Batch) -> int:
        """How many pairs every rank has, after telling and counting what could not be read.

        Raises:
            InputError: more than UNREADABLE_SHARE of the epoch.
        """
        for reason in batch.unreadable:
            self._say(f"left out: {reason}")
        if self._ranks.world_size == 1:
            self.unreadable += len(batch.unreadable)
        else:
            self.unreadable += self._ranks.total(len(batch.unreadable))
        if self.unreadable > UNREADABLE_SHARE * self._planned:
            last = f", the last: {batch.unreadable[-1]}" if batch.unreadable else ""
            msg = (
                f"{self.unreadable} of {self._planned} pairs cannot be read, more than "
                f"{UNREADABLE_SHARE:.0%}{last}; mend the data set"
            )
            raise InputError(msg)
        return self._ranks.smallest(len(batch.rows))

    def count(self, loss: float, pairs: int) -> None:
        """One step is done."""
        self._losses.append(loss)
        self._pairs += pairs * self._ranks.world_size

    @property
    def pairs_per_s(self) -> float:
        """Over all ranks."""
        return self._pairs / max(time.perf_counter() - self._started, 1e-9)

    @property
    def waiting(self) -> float:
        """Share of the time spent waiting for images."""
        return self._waited_s / max(time.perf_counter() - self._started, 1e-9)
