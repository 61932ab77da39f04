"""One line an encoder: its median on every runtime, and what the fastest of them gives."""

from collections.abc import Sequence

from benchmarks.results_page.columns import CAME_OUT, Column, runtime_name, shown
from benchmarks.results_page.doubts import remarks
from benchmarks.results_page.markdown_table import Link
from benchmarks.results_page.sources import Measured
from benchmarks.results_page.written import DASH, significant

_OF_THE_FASTEST = (
    "p99 ms", "of limit", "peak MiB", "GPU MiB", "J/call", "cosine", "same top 1", "recall@1",
    "within 20 m",
)  # fmt: skip


def encoder_table(measured: Sequence[Measured], *, link: Link) -> str:
    """A Markdown table of one machine, and what to doubt in it.

    Args:
        measured: rows of that machine, at most one an encoder, size of input and runtime.
        link: where a row can be read; its median is linked to it.

    Returns:
        A line an encoder: p50 in ms and precision by runtime, the fastest in bold, and the other
        columns of that one.
    """
    runtimes = list(dict.fromkeys(runtime_name(m.row) for m in measured))
    encoders: dict[tuple[str, int, int], dict[str, Measured]] = {}
    for m in measured:
        row = m.row
        of_encoder = encoders.setdefault((row.encoder, row.height_px, row.width_px), {})
        of_encoder[runtime_name(row)] = m
    fastest = {
        encoder: min(there.values(), key=lambda m: m.row.time.p50_ms)
        for encoder, there in encoders.items()
    }
    columns, _ = shown([c for c in CAME_OUT if c.name in _OF_THE_FASTEST], list(fastest.values()))
    said: list[str] = []
    lines = [
        "| " + " | ".join(["encoder", "px", *runtimes, *(c.name for c in columns)]) + " |",
        "|---|---:|" + "---:|" * (len(runtimes) + len(columns)),
    ]
    for (name, height_px, width_px), there in encoders.items():
        best = fastest[name, height_px, width_px]
        size = f"{height_px}" if height_px == width_px else f"{height_px}x{width_px}"
        medians = [
            _median(there[r], link, said, best=there[r] is best) if r in there else DASH
            for r in runtimes
        ]
        of_best = [column.text(best.row) + _marks(best, column, said) for column in columns]
        lines.append("| " + " | ".join([name, size, *medians, *of_best]) + " |")
    notes = "\n".join(f"{k}. {sentence}." for k, sentence in enumerate(said, start=1))
    return "\n".join(lines) + (f"\n\n{notes}" if notes else "")


def _median(m: Measured, link: Link, said: list[str], *, best: bool) -> str:
    number = f"[{significant(m.row.time.p50_ms)}]({link(m.origin)})"
    number = f"**{number}**" if best else number
    (column,) = (c for c in CAME_OUT if c.name == "p50 ms")
    return f"{number} {m.row.precision}{_marks(m, column, said, 'runtime')}"


def _marks(m: Measured, column: Column, said: list[str], *also: str) -> str:
    """Numbers of the notes that belong to one cell; new ones are added to the list."""
    marks = ""
    for doubt in remarks(m.row):
        if doubt.beside in (*column.doubts, *also):
            said += [doubt.said] if doubt.said not in said else []
            marks += f" <sup>{said.index(doubt.said) + 1}</sup>"
    return marks
