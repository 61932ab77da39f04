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
from train.evaluation import Evaluation, evaluate_task
from train.loader import Batch, training_batches
from train.optimisation import Optimisation, StepReport
from train.pair_table import PairTable, RetrievalTask
from train.run_log import RunLog
from train.run_state import RunState, fingerprint, load_run_state, run_folder, save_run_state
from train.run_summary import Example, Step, TrainingData, examples_of, write_run_summary

I64 = npt.NDArray[np.int64]

DROPPED_SHARE = 0.1
"""An epoch that leaves out more of its pairs than this says so."""
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
    wall_s: float
    """Neighbours, training and evaluation."""
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
    command_line: str = "",
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
        command_line: how the run was started, for its summary.

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
    run = _Run(
        table=table,
        config=config,
        out=out,
        tasks=tasks,
        ranks=ranks,
        plan=plan,
        optimisation=Optimisation(
            encoder, config, ranks, steps_per_epoch=len(plan.epoch(0)), teacher=teacher
        ),
        say=say,
        progress=progress,
        extra=extra or {},
        command_line=command_line,
        data=fingerprint(table),
    )
    try:
        run.begin(resume=resume)
        for epoch in range(run.state.epoch, config.epochs):
            report(run.epoch(epoch))
    except InputError as error:
        done = len(run.history)
        kept = f"; the checkpoint of epoch {done} is kept at {out}" if done else ""
        msg = f"{error}{kept}"
        raise InputError(msg) from error
    finally:
        run.close()
    return run.optimisation.trained.eval()


@dataclass(kw_only=True)
class _Run:
    """A run under way: what its epochs share."""

    table: PairTable
    config: TrainConfig
    out: Path
    tasks: Sequence[RetrievalTask]
    ranks: Ranks
    plan: BatchPlan
    optimisation: Optimisation
    say: Say
    progress: Progress
    extra: dict[str, Any]
    command_line: str
    data: str
    """Fingerprint of the table."""
    state: RunState = field(default_factory=lambda: RunState(epoch=0, step=0))
    history: list[dict[str, Any]] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    log: RunLog | None = None
    """Of the first rank."""

    @property
    def folder(self) -> Path:
        """State, log and summary."""
        return run_folder(self.out)

    def begin(self, *, resume: bool) -> None:
        """Open the log; bring an interrupted run back."""
        if resume:
            self.state = load_run_state(
                self.folder / "state", self.optimisation, self.config, data=self.data
            )
            self.plan.restore(self.state.neighbours, self.state.sampler)
            self.history = list(self.state.history)
            self.say(f"resumed after epoch {self.state.epoch}, step {self.state.step}")
        if self.ranks.first:
            self.log = RunLog(self.folder, first_step=self.optimisation.step_count)

    def close(self) -> None:
        """Close the log."""
        if self.log:
            self.log.close()

    def epoch(self, epoch: int) -> EpochReport:
        """Train, evaluate and save one epoch, counted from 0."""
        began = time.perf_counter()
        meter = self._train(epoch)
        speed, waiting = meter.pairs_per_s, meter.waiting
        found = self._evaluate(epoch)
        report = EpochReport(
            epoch=epoch + 1,
            loss=float(np.mean(meter.losses)),
            steps=len(meter.losses),
            pairs_per_s=speed,
            sampler=self.plan.name,
            learning_rate=meter.last.learning_rate,
            temperature=meter.last.temperature,
            wall_s=time.perf_counter() - began,
            waiting=waiting,
            unreadable=meter.unreadable,
            retrieval={one.task.name: one.metrics.to_json() for one in found},
        )
        self.history.append(asdict(report))
        if self.ranks.first:
            save_checkpoint(self.out, self.optimisation.trained, self._kept())
        self._save_state(epoch + 1, 0, [])
        if self.log:
            self.log.epoch(self.optimisation.step_count, asdict(report))
            if found:
                self.examples = _examples(found, self.config, self.table.margin)
        self._show()
        return report

    def _train(self, epoch: int) -> "_EpochMeter":
        config, ranks = self.config, self.ranks
        resumed = epoch == self.state.epoch and self.state.step > 0
        begun = self.state.step if resumed else 0
        if self.plan.due(epoch) and not resumed:
            trained = self.optimisation.trained
            if skipped := self.plan.refresh(trained, epoch, ranks, self.progress):
                self.say(f"{skipped} images cannot be read and have no neighbours of their own")
        batches = [ranks.share(rows) for rows in self.plan.epoch(epoch)]
        coverage = self.plan.coverage
        if coverage and coverage.dropped > DROPPED_SHARE * coverage.pairs:
            self.say(str(coverage))
        self.optimisation.train()
        meter = _EpochMeter(
            planned=len(batches) * config.batch_size,
            losses=self.state.losses if resumed else (),
            ranks=ranks,
            say=self.say,
        )
        stage = f"epoch {epoch + 1}/{config.epochs}"
        loaded = training_batches(self.table, config, batches[begun:], epoch=epoch)
        for step, batch in enumerate(meter.timed(loaded), begun + 1):
            pairs = meter.usable(batch)
            if pairs * ranks.world_size < 2:
                continue
            done = self.optimisation.step(batch.photos[:pairs], batch.tiles[:pairs])
            meter.count(done, pairs)
            if self.log:
                self.log.step(self.optimisation.step_count, asdict(done))
            if config.save_steps and step % config.save_steps == 0 and step < len(batches):
                self._save_state(epoch, step, meter.losses)
                self._show()
            self.progress(stage, step / len(batches))
        self.progress(stage, 1.0)
        return meter

    def _evaluate(self, epoch: int) -> list[Evaluation]:
        """Every task, where this epoch's turn is."""
        last = epoch + 1 == self.config.epochs
        if (epoch + 1) % self.config.evaluate_epochs and not last:
            return []
        return [
            evaluate_task(
                self.optimisation.trained,
                task,
                self.config,
                margin=self.table.margin,
                ranks=self.ranks,
                progress=self.progress,
            )
            for task in self.tasks
        ]

    def _kept(self) -> dict[str, Any]:
        """What a checkpoint says of its making."""
        data = {"name": self.table.name, "pairs": len(self.table), "sha256": self.data}
        made = {"training": asdict(self.config), "history": self.history, "data": data}
        return {**made, **self.extra}

    def _save_state(self, epoch: int, step: int, losses: list[float]) -> None:
        if self.ranks.first:
            now = RunState(
                epoch=epoch,
                step=step,
                history=self.history,
                losses=losses,
                sampler=self.plan.name,
                neighbours=self.plan.neighbours,
                data=self.data,
            )
            save_run_state(self.folder / "state", self.optimisation, self.config, now)
        self.ranks.wait()

    def _show(self) -> None:
        if self.log:
            write_run_summary(
                self.folder / "summary.html",
                title=f"{self.config.architecture} on {self.table.name}",
                config=self.config,
                history=self.history,
                data=TrainingData(name=self.table.name, pairs=len(self.table), sha256=self.data),
                checkpoint=self.out,
                steps=[Step(**row) for row in self.log.steps],
                examples=self.examples,
                command_line=self.command_line,
            )


def _examples(found: Sequence[Evaluation], config: TrainConfig, margin: float) -> list[Example]:
    """A few retrievals of every task, the same queries after every epoch."""
    each = max(2, 8 // len(found))
    return [
        example
        for one in found
        for example in examples_of(one, config, margin=margin, count=each, seed=config.seed)
    ]


class _EpochMeter:
    """Counts an epoch's pairs, time and images that could not be read."""

    def __init__(self, *, planned: int, losses: Sequence[float], ranks: Ranks, say: Say) -> None:
        self._planned, self._ranks, self._say = planned, ranks, say
        self._started, self._waited_s, self._pairs = time.perf_counter(), 0.0, 0
        self._last: StepReport | None = None
        self.losses = list(losses)
        """Of every step; those before an interruption too."""
        self.unreadable = 0

    @property
    def last(self) -> StepReport:
        """The last step.

        Raises:
            InputError: there was none.
        """
        if self._last is None:
            msg = "the epoch has no batch: of none could two pairs be read"
            raise InputError(msg)
        return self._last

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

    def count(self, done: StepReport, pairs: int) -> None:
        """One step is done."""
        self._last = done
        self.losses.append(done.loss)
        self._pairs += pairs * self._ranks.world_size

    @property
    def pairs_per_s(self) -> float:
        """Over all ranks."""
        return self._pairs / max(time.perf_counter() - self._started, 1e-9)

    @property
    def waiting(self) -> float:
        """Share of the time spent waiting for images."""
        return self._waited_s / max(time.perf_counter() - self._started, 1e-9)
