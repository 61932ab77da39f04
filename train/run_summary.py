"""One page that says how a training run goes: written after every epoch, read in a browser."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from edge_runtime.artefact import made_by, write_atomically
from edge_runtime.errors import InputError
from train.config import TrainConfig
from train.run_summary_examples import Answer, Example, examples_of, reduced
from train.run_summary_page import page

__all__ = ["Answer", "Example", "Step", "TrainingData", "examples_of", "write_run_summary"]

MOST_BYTES = 2_000_000
"""A page larger than this is made again with smaller pictures, and then with fewer."""
_PICTURES = ((160, 80), (160, 65), (128, 60), (96, 50))
"""(side in pixels, JPEG quality) of the examples' pictures, tried in order."""


class Step(NamedTuple):
    """What one step did."""

    step: int
    """Of the whole run, 1 is the first."""
    loss: float
    """Nats."""
    learning_rate: float
    temperature: float


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What is learnt from."""

    name: str
    pairs: int
    sha256: str
    """Fingerprint of the table."""


@dataclass(frozen=True, kw_only=True)
class EpochFigures:
    """One epoch of a run's history."""

    epoch: int
    loss: float
    steps: int
    pairs_per_s: float
    sampler: str
    learning_rate: float
    temperature: float
    waiting: float
    unreadable: int
    wall_s: float
    """How long it took: as the history says, or what its speed makes of its pairs."""
    retrieval: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """Everything the page shows."""

    title: str
    config: TrainConfig
    epochs: Sequence[EpochFigures]
    data: TrainingData
    steps: Sequence[Step]
    examples: Sequence[Example]
    checkpoint: Path
    command_line: str
    made_by: str
    written_utc: str
    jpeg_quality: int = 80

    @property
    def tasks(self) -> list[str]:
        """Names of what was evaluated, in the order they came."""
        return list(dict.fromkeys(name for epoch in self.epochs for name in epoch.retrieval))

    @property
    def loss_floor(self) -> float:
        """The lowest loss there can be, nats."""
        return loss_floor(self.config)

    @property
    def guess_loss(self) -> float | None:
        """The loss of an encoder that finds everything alike, nats."""
        return loss_of_a_guess(self.config)

    @property
    def epochs_done(self) -> int:
        """Epochs finished."""
        return self.epochs[-1].epoch if self.epochs else 0

    @property
    def finished(self) -> bool:
        """Whether every epoch of the plan is done."""
        return self.epochs_done >= self.config.epochs


def write_run_summary(
    path: Path,
    *,
    title: str,
    config: TrainConfig,
    history: Sequence[Mapping[str, Any]],
    data: TrainingData,
    checkpoint: Path,
    steps: Sequence[Step] = (),
    examples: Sequence[Example] = (),
    command_line: str = "",
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: HTML file; needs nothing but itself and stays below 2 MB.
        title: of the page.
        config: of the run.
        history: an `EpochReport` as a dict for every epoch done. `wall_s`, the seconds an epoch
            took, is used where it is there.
        data: what is learnt from.
        checkpoint: named in the next command.
        steps: ascending; those of an epoch that is under way too. Missing ones leave a gap.
        examples: of the last evaluation, of one task after the other.
        command_line: how the run was started.

    Raises:
        InputError: there is nothing to show yet, or a report lacks a figure.
    """
    if not history and not steps:
        msg = f"{title}: there is no epoch and no step to show; write the summary after the first"
        raise InputError(msg)
    run = RunFigures(
        title=title,
        config=config,
        epochs=[_figures(report, config) for report in history],
        data=data,
        steps=steps,
        examples=examples,
        checkpoint=checkpoint,
        command_line=command_line,
        made_by=made_by(),
        written_utc=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )
    write_atomically(path, _small_enough(run))


def loss_floor(config: TrainConfig) -> float:
    """The lowest loss there can be, nats: what label smoothing asks to be unsure of.

    The entropy of the smoothed target: 0.804 for 128 pairs and smoothing 0.1. With a teacher's
    embeddings to learn the same is asked a second time (`train.loss.training_loss`).
    """
    one_way = _smoothed_entropy(config.batch_size, config.label_smoothing)
    floor = (_smoothed_entropy(_photo_choices(config), config.label_smoothing) + one_way) / 2
    return floor * (1 + config.distillation_weight * (config.distillation == "embeddings"))


def loss_of_a_guess(config: TrainConfig) -> float | None:
    """The loss of an encoder that finds everything alike, nats; None where a teacher adds to it."""
    if config.distillation != "none":
        return None
    return (math.log(_photo_choices(config)) + math.log(config.batch_size)) / 2


def _photo_choices(config: TrainConfig) -> int:
    """What a photo is told from, itself included."""
    return config.batch_size * 2 - 1 if config.photo_negatives else config.batch_size


def _smoothed_entropy(choices: int, smoothing: float) -> float:
    """Entropy of a target that gives each choice smoothing / choices, and the true one the rest."""
    other = smoothing / choices
    true = 1 - smoothing + other
    terms = (true * math.log(true), (choices - 1) * other * math.log(other) if other else 0.0)
    return -sum(terms)


def _figures(report: Mapping[str, Any], config: TrainConfig) -> EpochFigures:
    """A report of the history, checked.

    Raises:
        InputError: a figure is missing.
    """
    try:
        speed = float(report["pairs_per_s"])
        derived_s = report["steps"] * config.batch_size / speed if speed > 0 else 0.0
        return EpochFigures(
            epoch=report["epoch"],
            loss=report["loss"],
            steps=report["steps"],
            pairs_per_s=speed,
            sampler=report["sampler"],
            learning_rate=report["learning_rate"],
            temperature=report["temperature"],
            waiting=report["waiting"],
            unreadable=report.get("unreadable", 0),
            wall_s=report.get("wall_s") or derived_s,
            retrieval=report.get("retrieval") or {},
        )
    except KeyError as error:
        msg = f"an epoch's report has no {error}; expected one of this version's train.fit"
        raise InputError(msg) from error


def _small_enough(run: RunFigures) -> bytes:
    """The page below its limit: with smaller pictures, and in the end with fewer."""
    for side_px, quality in _PICTURES:
        examples = [_with_pictures(example, side_px) for example in run.examples]
        smaller = replace(run, examples=examples, jpeg_quality=quality)
        html = page(smaller).encode()
        if len(html) < MOST_BYTES:
            return html
    while smaller.examples:
        fewer = smaller.examples[::2] if len(smaller.examples) > 1 else ()
        smaller = replace(smaller, examples=fewer)
        html = page(smaller).encode()
        if len(html) < MOST_BYTES:
            break
    return html


def _with_pictures(example: Example, side_px: int) -> Example:
    answers = [replace(answer, image=reduced(answer.image, side_px)) for answer in example.answers]
    return replace(example, query=reduced(example.query, side_px), answers=tuple(answers))
