"""The curves of a training run's summary."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from train.run_summary_text import exponent, metres, percent, percent_tick, rounded
from train.svg_plots import Curve, Level, Stretch, line_chart, thinned

if TYPE_CHECKING:
    from train.run_summary import RunFigures, Step

Points = list[tuple[float, float]]
Found = Mapping[str, Any]
"""What an evaluation found: `RetrievalMetrics.to_json`."""


class Metric(NamedTuple):
    """A figure of an evaluation."""

    name: str
    css: str
    """Colour of its curve."""
    value: Callable[[Found], float | None]


def figure_of(name: str) -> Callable[[Found], Any]:
    """Reads a figure; None where the evaluation has not got it."""
    return lambda found: found.get(name)


def metres_of(name: str) -> Callable[[Found], Any]:
    """Reads a figure in metres; None where there were no positions."""
    return lambda found: (found.get("metres") or {}).get(name)


SHARES = (
    Metric("R@1", "c1", figure_of("r_at_1")),
    Metric("R@5", "c3", figure_of("r_at_5")),
    Metric("R@10", "c5", figure_of("r_at_10")),
    Metric("AP", "c2", figure_of("average_precision")),
    Metric("hit rate", "c4", figure_of("hit_rate")),
)
MEDIAN = Metric("median distance", "c1", metres_of("median_m"))


def evaluations(run: RunFigures, task: str) -> list[tuple[int, Found]]:
    """(epoch, what was found) of each evaluation of a task."""
    return [(e.epoch, e.retrieval[task]) for e in run.epochs if task in e.retrieval]


def task_name(run: RunFigures, task: str) -> str:
    """Without the data set's name, where all tasks have the same."""
    sets = {name.split("/", 1)[0] for name in run.tasks}
    return task.split("/", 1)[-1] if len(sets) == 1 else task


class ProgressAxis:
    """The horizontal axis all charts share: epochs, or steps while there is no whole epoch."""

    def __init__(self, run: RunFigures) -> None:
        """Find how far the run is.

        Args:
            run: what is shown.
        """
        last_step = run.steps[-1].step if run.steps else 0
        # What the first epoch has is known when it is done; until then it is nearly this.
        planned = max(run.data.pairs // run.config.batch_size, last_step, 1)
        self._ends = np.cumsum([0.0, *(epoch.steps for epoch in run.epochs)])
        self._epochs = np.array([0.0, *(float(epoch.epoch) for epoch in run.epochs)])
        self._per_epoch = max(float(run.epochs[-1].steps), 1.0) if run.epochs else float(planned)
        self.epochs_done = max(self._epochs[-1], self._epoch_of(last_step))
        """The part of an epoch under way included."""
        self._by_epoch = bool(run.epochs)
        if self._by_epoch:
            self.label, self.done, whole = "epoch", self.epochs_done, float(run.config.epochs)
        else:
            self.label, self.done, whole = "step", float(last_step), float(planned)
        # Room for what is to come, but not so much that what is there cannot be read.
        room = max(1.5 * self.done, self.done + 1)
        self.span = (0.0, max(self.done, min(whole, room)))

    def by_step(self, steps: Sequence[Step], value: Callable[[Step], float]) -> Points:
        """Points of a curve over steps."""
        points = thinned([(float(step.step), value(step)) for step in steps])
        return [(self._epoch_of(at) if self._by_epoch else at, v) for at, v in points]

    def _epoch_of(self, step: float) -> float:
        if step <= self._ends[-1]:
            return float(np.interp(step, self._ends, self._epochs))
        return float(self._epochs[-1] + (step - self._ends[-1]) / self._per_epoch)


def loss_figure(run: RunFigures) -> str:
    """The loss by step and by epoch, above what chose the pairs that met."""
    axis = ProgressAxis(run)
    by_step = axis.by_step(run.steps, lambda step: step.loss)
    # An epoch's mean belongs to its middle.
    means = [(epoch.epoch - 0.5, epoch.loss) for epoch in run.epochs]
    curves, keys = [], ""
    if by_step:
        css = "c1 faint" if means else "c1"
        curves.append(Curve("loss by step", css, by_step))
        keys += f"<li><i class='key line {css}'></i>step</li>"
    if means:
        curves.append(Curve("mean of an epoch", "c1", thinned(means)))
        keys += "<li><i class='key line c1'></i>mean of an epoch</li>"
    # Single steps may lie far above everything else, and would press the rest flat.
    values = [loss for _, loss in means]
    values += _quantiles([step.loss for step in run.steps], 0.0, 0.99)
    floor, guess = run.loss_floor, run.guess_loss
    levels = [Level(floor, f"floor of label smoothing: {floor:.3f}")] if floor else []
    if guess is not None and guess <= 1.25 * max(values, default=0.0):
        levels.append(Level(guess, f"guessing: {guess:.3f}", above=True))
    stretches = sampler_stretches(run)
    plots = "".join(
        f'<div class="{css}">'
        + line_chart(
            curves,
            title="Loss",
            x_label=axis.label,
            y_label="loss, nats",
            x_span=axis.span,
            y_span=_span([*values, *(level.value for level in levels)], low=0.0, air=0.1),
            levels=levels,
            strip=[stretch for stretch, _ in stretches],
            to_come=axis.done,
            width_px=width,
            height_px=320,
        )
        + "</div>"
        for css, width in (("wide", 1040), ("narrow", 420))
    )
    keys += "".join(
        f"<li><i class='key {css}'></i>{escape(said)}</li>" for css, said in _samplers_said(run)
    )
    band = (
        "The band shows what chose the pairs that met in a batch. Harder neighbours raise the "
        "loss, so compare epochs of one colour."
        if stretches
        else ""
    )
    return f"<figure>{plots}<figcaption><ul class='legend'>{keys}</ul>{band}</figcaption></figure>"


def task_figures(run: RunFigures, task: str) -> list[str]:
    """The curves of one task: shares, and metres where there are some."""
    axis, name = ProgressAxis(run), task_name(run, task)
    found = evaluations(run, task)
    figures = []
    curves, keys = [], ""
    for metric in SHARES:
        points = _points(found, metric)
        if points:
            curves.append(Curve(metric.name, metric.css, thinned(points)))
            keys += _key(metric, percent(points[-1][1]))
    if curves:
        plot = line_chart(
            curves,
            title=f"Retrieval, {name}",
            x_label=axis.label,
            y_label="share of queries",
            x_span=axis.span,
            y_span=_span([v for c in curves for _, v in c.points], low=0.0, high=1.0, least=0.05),
            tick=percent_tick,
            to_come=axis.done,
        )
        figures.append(
            f"<figure><h3>{escape(name)}</h3>{plot}<figcaption><ul class='legend'>{keys}</ul>"
            f"{escape(_compared(found))}</figcaption></figure>"
        )
    medians = _points(found, MEDIAN)
    if medians:
        plot = line_chart(
            [Curve(MEDIAN.name, MEDIAN.css, thinned(medians))],
            title=f"Median distance, {name}",
            x_label=axis.label,
            y_label="metres",
            x_span=axis.span,
            y_span=_log_span([value for _, value in medians]),
            log=True,
            to_come=axis.done,
        )
        heading = "How far off" + (f", {name}" if len(run.tasks) > 1 else "")
        figures.append(
            f"<figure><h3>{escape(heading)}</h3>{plot}<figcaption><ul class='legend'>"
            f"{_key(MEDIAN, metres(medians[-1][1]))}</ul>From the query to the first answer, on a "
            "logarithmic scale.</figcaption></figure>"
        )
    return figures


def _compared(found: Sequence[tuple[int, Found]]) -> str:
    """The last R@1 beside what chance and the best epoch reached."""
    references = found[-1][1].get("gallery")
    said = (
        f"{references:,} references, so chance finds {rounded(100 / references)} % at once."
        if references
        else ""
    )
    points = _points(found, SHARES[0])
    epoch, best = max(points, key=lambda point: point[1], default=(0.0, 0.0))
    if points and best > points[-1][1]:
        said += f" R@1 was best after epoch {epoch:.0f}: {percent(best)}; the checkpoint is the "
        said += "last one."
    return said


def course_figures(run: RunFigures) -> list[str]:
    """Learning rate, temperature, speed and waiting."""
    axis = ProgressAxis(run)
    ends = [(float(epoch.epoch), epoch) for epoch in run.epochs]
    figures = []

    def add(
        title: str,
        y_label: str,
        points: Points,
        tick: Callable[[float], str],
        note: str,
        *,
        high: float = math.inf,
        zero: bool = True,
    ) -> None:
        if not points:
            return
        plot = line_chart(
            [Curve(title, "c1", thinned(points))],
            title=title,
            x_label=axis.label,
            y_label=y_label,
            x_span=axis.span,
            y_span=_span([value for _, value in points], low=0.0, high=high, zero=zero),
            tick=tick,
            to_come=axis.done,
            height_px=220,
        )
        figures.append(f"<figure><h3>{title}</h3>{plot}<figcaption>{note}</figcaption></figure>")

    add(
        "Learning rate",
        "learning rate",
        axis.by_step(run.steps, lambda step: step.learning_rate)
        or [(at, epoch.learning_rate) for at, epoch in ends],
        exponent,
        "Of AdamW.",
    )
    add(
        "Temperature",
        "1 / logit scale",
        axis.by_step(run.steps, lambda step: step.temperature)
        or [(at, epoch.temperature) for at, epoch in ends],
        "{:.3g}".format,
        "Learnt; it falls as the encoder becomes sure.",
        zero=False,
    )
    add(
        "Speed",
        "pairs per second",
        [(at - 0.5, epoch.pairs_per_s) for at, epoch in ends],
        rounded,
        "Over all ranks.",
    )
    add(
        "Waiting for images",
        "share of the time",
        [(at - 0.5, epoch.waiting) for at, epoch in ends],
        percent_tick,
        "Near 100 % the processes that load images are too few or too slow.",
        high=1.0,
    )
    return figures


_SAMPLERS = {
    "g-chance": "chance",
    "g-ground": "distance on the ground",
    "g-similarity": "similarity",
}
"""How what `train.batches` calls them begins, by CSS class."""


def sampler_stretches(run: RunFigures) -> list[tuple[Stretch, str]]:
    """Runs of epochs filled by the same sampler, and its name."""
    stretches: list[tuple[Stretch, str]] = []
    for epoch in run.epochs:
        low = epoch.epoch - 1.0
        if stretches and stretches[-1][1] == epoch.sampler:
            low = stretches.pop()[0].low
        known = (css for css, name in _SAMPLERS.items() if epoch.sampler.startswith(name))
        css = next(known, "g-other")
        stretches.append((Stretch(css, low, float(epoch.epoch)), epoch.sampler))
    return stretches


def _samplers_said(run: RunFigures) -> list[tuple[str, str]]:
    """(CSS class, what a legend says) of each sampler."""
    stretches = sampler_stretches(run)
    said = []
    for css in dict.fromkeys(stretch.css for stretch, _ in stretches):
        own = [(stretch, name) for stretch, name in stretches if stretch.css == css]
        first, last = int(own[0][0].low) + 1, int(own[-1][0].high)
        when = f"epoch {first}" if first == last else f"epochs {first} to {last}"
        times = {1: "", 2: ", renewed once"}.get(len(own), f", renewed {len(own) - 1} times")
        said.append((css, f"{_SAMPLERS.get(css, own[0][1])}, {when}{times}"))
    return said


def _points(found: Sequence[tuple[int, Found]], metric: Metric) -> Points:
    return [
        (float(epoch), value)
        for epoch, figures in found
        if (value := metric.value(figures)) is not None
    ]


def _key(metric: Metric, value: str) -> str:
    return (
        f"<li><i class='key line {metric.css}'></i>{escape(metric.name)} "
        f"<b>{escape(value)}</b></li>"
    )


def _span(
    values: Sequence[float],
    *,
    low: float = -math.inf,
    high: float = math.inf,
    least: float = 0.0,
    air: float = 0.06,
    zero: bool = False,
) -> tuple[float, float]:
    """Ends of an axis.

    Args:
        values: those that are not finite are ignored.
        low: the axis never goes below.
        high: nor above.
        least: it is at least so long.
        air: share of its length at either end.
        zero: it begins at 0.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    bottom, top = 0.0 if zero else min(finite), max(finite)
    more = max(air * (top - bottom), (least - (top - bottom)) / 2, 1e-3 * abs(top), 1e-12)
    return max(low, bottom - (0.0 if zero else more)), min(high, top + more)


def _log_span(values: Sequence[float]) -> tuple[float, float]:
    """Ends of a logarithmic axis, at round values."""
    positive = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
    powers = range(math.floor(math.log10(min(positive))) - 1, 20)
    ends = [m * 10.0**k for k in powers for m in (1, 1.5, 2, 3, 5, 7)]
    low = max(end for end in ends if end <= min(positive))
    return low, min(end for end in ends if end >= max(positive) and end > low)


def _quantiles(values: Sequence[float], *shares: float) -> list[float]:
    finite = [value for value in values if math.isfinite(value)]
    return [float(value) for value in np.quantile(finite, shares)] if finite else []
