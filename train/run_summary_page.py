"""The summary of a training run as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import dataclasses
import shlex
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from train.config import TrainConfig
from train.run_summary_charts import (
    MEDIAN,
    SHARES,
    Found,
    Metric,
    ProgressAxis,
    course_figures,
    evaluations,
    figure_of,
    loss_figure,
    metres_of,
    task_figures,
    task_name,
)
from train.run_summary_style import STYLE
from train.run_summary_text import (
    DASH,
    NO_BREAK,
    counted,
    duration,
    exponent,
    metres,
    percent,
    plural,
    rounded,
    setting_value,
    short_name,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from train.run_summary import EpochFigures, RunFigures
    from train.run_summary_examples import Answer, Example

_MOST_ROWS = 300
"""Epochs in the table of all figures."""
_LONG_ASPECT = 1.6
"""Queries wider than this have a row of their own."""
_WAITING_MUCH = 0.25
"""Share of the time spent waiting for images from which on it is said aloud."""


def page(run: RunFigures) -> str:
    """The whole page. What a run has not got is left out."""
    parts = [
        _header(run),
        "<main>",
        _tiles(run),
        f"<section><h2>Loss</h2>{loss_figure(run)}</section>",
        _retrieval(run),
        _examples(run),
        _course(run),
        _settings(run),
        _table(run),
        _next(run),
        "</main>",
        _provenance(run),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    tab = run.title if run.finished else f"{_epochs_of_all(run)}: {run.title}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(tab)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{_join(parts)}\n</body>\n</html>\n"
    )


def _header(run: RunFigures) -> str:
    state = "finished" if run.finished else "unfinished"
    line = _epochs_of_all(run)
    axis = ProgressAxis(run)
    if run.epochs:
        line += f" in {duration(sum(epoch.wall_s for epoch in run.epochs))}"
    if axis.epochs_done > run.epochs_done:
        into = run.steps[-1].step - sum(epoch.steps for epoch in run.epochs)
        line += f", {plural(into, 'step')} into epoch {run.epochs_done + 1}"
    if run.epochs and not run.finished:
        recent = [epoch.wall_s for epoch in run.epochs[-5:]]
        left_s = sum(recent) / len(recent) * (run.config.epochs - run.epochs_done)
        line += f", about {duration(left_s)} left at this pace"
    height, width = run.config.photo_size_px
    what = (
        f"{run.config.architecture}, photos of {width} by {height} px, learns from "
        f"{plural(run.data.pairs, 'pair')} of {run.data.name}."
    )
    share = min(axis.epochs_done / run.config.epochs, 1.0)
    return (
        f"<header><h1>{escape(run.title)}</h1>"
        f'<p><span class="badge {state}">{state.capitalize()}</span>{escape(line)}.</p>'
        f"<p>{escape(what)}</p>"
        f'<div class="progress {state}" role="img" aria-label="{escape(_epochs_of_all(run))}">'
        f'<i style="width:{100 * share:.1f}%"></i></div></header>'
    )


class _Tile(NamedTuple):
    name: str
    value: str
    note: str
    warns: bool = False


def _tiles(run: RunFigures) -> str:
    tiles = [_loss_tile(run), *(tile for task in run.tasks[:2] for tile in _task_tiles(run, task))]
    if run.epochs:
        speed = float(np.median([epoch.pairs_per_s for epoch in run.epochs]))
        tiles.append(_Tile("Pairs per second", rounded(speed), "median of the epochs"))
        waiting = run.epochs[-1].waiting
        much = waiting >= _WAITING_MUCH
        advice = "; more workers would help" if much else ""
        note = f"share of the last epoch{advice}"
        tiles.append(_Tile("Waiting for images", percent(waiting), note, much))
    unreadable = sum(epoch.unreadable for epoch in run.epochs)
    if unreadable:
        shown = sum(epoch.steps for epoch in run.epochs) * run.config.batch_size
        note = f"left out, of about {shown:,} shown"
        tiles.append(_Tile("Unreadable", plural(unreadable, "pair"), note, True))
    cells = "".join(
        f'<div class="tile{" warns" if tile.warns else ""}"><dt>{escape(tile.name)}</dt>'
        f"<dd><b>{escape(tile.value)}</b><span>{escape(tile.note)}</span></dd></div>"
        for tile in tiles
    )
    # Rows as even as they can be, of five at most.
    rows = -(-len(tiles) // 5)
    columns = max(3, -(-len(tiles) // rows))
    return f'<dl class="tiles" style="--columns:{columns}">{cells}</dl>'


def _loss_tile(run: RunFigures) -> _Tile:
    floor = f"nats, floor {run.loss_floor:.3g}"
    if not run.epochs:
        return _Tile("Loss", f"{run.steps[-1].loss:.3f}", f"{floor}, last step")
    first = f", {run.epochs[0].loss:.3f} in the first epoch" if len(run.epochs) > 1 else ""
    return _Tile("Loss", f"{run.epochs[-1].loss:.3f}", f"{floor}{first}")


def _task_tiles(run: RunFigures, task: str) -> list[_Tile]:
    epoch, found = evaluations(run, task)[-1]
    recall, median_m = SHARES[0].value(found), MEDIAN.value(found)
    tiles = []
    if recall is not None:
        when = "" if epoch == run.epochs_done else f", after epoch {epoch}"
        note = f"{task_name(run, task)}, of {found.get('gallery', 0):,} references{when}"
        tiles.append(_Tile("R@1", percent(recall), note))
    if median_m is not None and len(run.tasks) == 1:
        tiles.append(_Tile("Median distance", metres(median_m), "from query to first answer"))
    return tiles


def _retrieval(run: RunFigures) -> str:
    if not run.tasks:
        return ""
    figures = [figure for task in run.tasks for figure in task_figures(run, task)]
    table = _last_evaluation(run)
    inside, below = (table, "") if len(figures) % 2 else ("", table)
    return (
        f'<section><h2>Retrieval</h2><div class="pair">{"".join(figures)}{inside}</div>{below}'
        "</section>"
    )


def _last_evaluation(run: RunFigures) -> str:
    """Every metric of the last evaluation, a column a task."""
    last = [evaluations(run, task)[-1] for task in run.tasks]
    lines: list[tuple[str, list[str]]] = []

    def line(name: str, write: Callable[[Any], str], value: Callable[[Found], Any]) -> None:
        cells = [value(metrics) for _, metrics in last]
        if any(cell is not None for cell in cells):
            lines.append((name, [DASH if cell is None else write(cell) for cell in cells]))

    for metric in SHARES:
        line(metric.name, percent, metric.value)
    line("R@1%", percent, figure_of("r_at_1_percent"))
    line("K of R@1%", counted, figure_of("k_of_1_percent"))
    line("median rank", "{:g}".format, figure_of("median_rank"))
    line("median distance", metres, MEDIAN.value)
    for distance in (5, 10, 20, 50, 100):
        line(f"within {distance}{NO_BREAK}m", percent, metres_of(f"success_at_{distance}_m"))
    line("queries", counted, figure_of("queries"))
    line(
        "without a true reference",
        counted,
        lambda found: found.get("queries_without_true") or None,
    )
    line("references", counted, figure_of("gallery"))
    lines.append(("after epoch", [str(epoch) for epoch, _ in last]))
    head = "".join(f'<th scope="col">{escape(task_name(run, task))}</th>' for task in run.tasks)
    return _scrolled("Last evaluation.", f"<td></td>{head}", lines)


def _examples(run: RunFigures) -> str:
    if not run.examples:
        return ""
    tasks = list(dict.fromkeys(example.task for example in run.examples))
    groups = ""
    for task in tasks:
        cards = "".join(_card(example, run) for example in run.examples if example.task == task)
        heading = f"<h3>{escape(task_name(run, task))}</h3>" if len(tasks) > 1 else ""
        groups += f'{heading}<div class="cards">{cards}</div>'
    return (
        "<section><h2>What it finds</h2><p>Queries of the last evaluation and their first answers, "
        "as the encoder sees them. Drawn by chance: half of them from queries answered right at "
        "once and half from the others, whichever is the rarer. Where no true one is among the "
        f"first, one is shown at the end.</p>{groups}</section>"
    )


def _card(example: Example, run: RunFigures) -> str:
    height, width = example.query.shape[:2]
    query = _shot("query", example.query, "query", f"Query {example.query_name}", run)
    answers = "".join(
        _shot(_kind(answer), answer.image, _said(answer), f"Reference {answer.name}", run)
        for answer in example.answers
    )
    if example.rank is None:
        verdict = f"<b>No true one</b> among {example.gallery:,}"
    elif example.rank == 1:
        verdict = f"<b>Found</b> among {example.gallery:,}"
    else:
        verdict = f"<b>Missed</b>: the true one is number {example.rank:,} of {example.gallery:,}"
    shots = "shots long" if width > _LONG_ASPECT * height else "shots"
    return (
        f'<figure class="card"><div class="{shots}">'
        f"{query}{answers}</div><figcaption>{verdict}"
        f"<small>{escape(short_name(example.query_name))}</small></figcaption></figure>"
    )


def _shot(css: str, image: npt.NDArray[np.uint8], said: str, alt: str, run: RunFigures) -> str:
    height, width = image.shape[:2]
    return (
        f'<div class="shot {css}"><img width="{width}" height="{height}" loading="lazy" '
        f'alt="{escape(alt, quote=True)}" src="{_jpeg_uri(image, run.jpeg_quality)}">{said}</div>'
    )


def _kind(answer: Answer) -> str:
    if answer.is_true:
        return "true"
    return "overlaps" if answer.overlaps else "false"


def _said(answer: Answer) -> str:
    """What stands under an answer, as HTML."""
    kind = {"true": "right", "overlaps": "overlaps", "false": "wrong"}[_kind(answer)]
    place = f"{answer.place:,}. " if answer.place is not None else ""
    facts = []
    if answer.similarity is not None:
        facts.append(f"{answer.similarity:.2f}")
    if answer.distance_m is not None:
        facts.append(metres(answer.distance_m))
    return f"<b>{place}{kind}</b> {', '.join(facts)}"


def _course(run: RunFigures) -> str:
    figures = course_figures(run)
    return f'<section><h2>How it went</h2><div class="pair">{"".join(figures)}</div></section>'


def _settings(run: RunFigures) -> str:
    here, default = (
        {name: setting_value(value) for name, value in dataclasses.asdict(config).items()}
        for config in (run.config, TrainConfig())
    )
    changed = [(name, [here[name], default[name]]) for name in here if here[name] != default[name]]
    head = '<th scope="col">setting</th><th scope="col">here</th><th scope="col">default</th>'
    differing = (
        _scrolled("What differs from the defaults.", head, changed)
        if changed
        else "<p>All are the defaults.</p>"
    )
    everything = _scrolled(
        "",
        '<th scope="col">setting</th><th scope="col">here</th>',
        [(name, [value]) for name, value in here.items()],
    )
    return (
        f'<section class="settings"><h2>Settings</h2>{differing}'
        f"<details><summary>All {len(here)} settings</summary>{everything}</details></section>"
    )


def _table(run: RunFigures) -> str:
    """Every figure of every epoch, folded away."""
    if not run.epochs:
        return ""
    shown = run.epochs[-_MOST_ROWS:]
    columns: list[tuple[str, Callable[[EpochFigures], str]]] = [
        ("loss", lambda e: f"{e.loss:.4f}"),
        ("steps", lambda e: counted(e.steps)),
        ("learning rate", lambda e: exponent(e.learning_rate)),
        ("temperature", lambda e: f"{e.temperature:.4f}"),
        ("pairs/s", lambda e: rounded(e.pairs_per_s)),
        ("waiting", lambda e: percent(e.waiting)),
        ("unreadable", lambda e: counted(e.unreadable)),
        ("batches by", lambda e: e.sampler),
    ]
    for task in run.tasks:
        short = f" {task_name(run, task)}" if len(run.tasks) > 1 else ""
        for metric in (*SHARES, MEDIAN):
            write = metres if metric is MEDIAN else percent
            if any(metric.value(found) is not None for _, found in evaluations(run, task)):
                columns.append((metric.name + short, _cell_of(task, metric, write)))
    head = '<th scope="col">epoch</th>' + "".join(
        f'<th scope="col">{escape(name)}</th>' for name, _ in columns
    )
    lines = [(str(epoch.epoch), [write(epoch) for _, write in columns]) for epoch in shown]
    note = (
        f"The last {len(shown)} of {len(run.epochs)} epochs; epochs.jsonl beside this page has all."
        if len(shown) < len(run.epochs)
        else ""
    )
    return (
        f"<details><summary>All figures, epoch by epoch</summary>{_scrolled(note, head, lines)}"
        "</details>"
    )


def _cell_of(
    task: str, metric: Metric, write: Callable[[float], str]
) -> Callable[[EpochFigures], str]:
    def cell(epoch: EpochFigures) -> str:
        value = metric.value(epoch.retrieval.get(task, {}))
        return DASH if value is None else write(value)

    return cell


def _next(run: RunFigures) -> str:
    command = (
        f"python -m export bundle --checkpoint {shlex.quote(str(run.checkpoint))} --out bundle"
    )
    if run.finished:
        lead = "Make a bundle that flies:"
    elif run.epochs:
        lead = (
            "The checkpoint of the last finished epoch is usable already. If the run stopped, the "
            "same command with --resume goes on."
        )
    else:
        return ""
    return f"<section><h2>Next</h2><p>{lead}</p><pre><code>{escape(command)}</code></pre></section>"


def _provenance(run: RunFigures) -> str:
    entries = [
        ("Trained on", f"{run.data.name}, {plural(run.data.pairs, 'pair')}"),
        ("Its fingerprint", run.data.sha256),
        ("Checkpoint", str(run.checkpoint)),
        ("Made by", f"{run.made_by}, {run.written_utc}"),
    ]
    listed = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in entries)
    command = f"<pre><code>{escape(run.command_line)}</code></pre>" if run.command_line else ""
    return f"<footer><h2>Where this comes from</h2><dl>{listed}</dl>{command}</footer>"


def _epochs_of_all(run: RunFigures) -> str:
    return f"{run.epochs_done} of {plural(run.config.epochs, 'epoch')}"


def _scrolled(caption: str, head: str, lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table that scrolls sideways where it is too wide."""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, cells in lines
    )
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table>{said}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _jpeg_uri(image_rgb: npt.NDArray[np.uint8], quality: int) -> str:
    bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _join(parts: Iterable[str]) -> str:
    return "\n".join(part for part in parts if part)
