"""Measurements as Markdown tables, each number linked to its row where there is a place to."""

from collections.abc import Callable, Sequence

from benchmarks.results_page.columns import CAME_OUT, WHAT, Column, shown
from benchmarks.results_page.doubts import remarks
from benchmarks.results_page.sources import Measured, Origin
from benchmarks.results_page.written import significant

Link = Callable[[Origin], str]


def markdown_table(
    measured: Sequence[Measured],
    *,
    columns: Sequence[Column] = (*WHAT, *CAME_OUT),
    link: Link | None = None,
) -> str:
    """A table, what its rows have in common, and what to doubt.

    Args:
        measured: one row each.
        columns: those that say nothing here are left out.
        link: where a row can be read; its median is linked to it.
    """
    kept, common = shown(columns, measured, always=("encoder", "runtime", "precision"))
    said: list[str] = []
    lines = [
        "| " + " | ".join(c.name for c in kept) + " |",
        "|" + "|".join("---" if c.what else "---:" for c in kept) + "|",
    ]
    for m in measured:
        cells = []
        for column in kept:
            text = column.text(m.row).replace("|", "\\|")
            if link is not None and column.name == "p50 ms":
                text = f"[{text}]({link(m.origin)})"
            for doubt in remarks(m.row):
                if doubt.beside in column.doubts:
                    said += [doubt.said] if doubt.said not in said else []
                    text += f" <sup>{said.index(doubt.said) + 1}</sup>"
            cells.append(text)
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"{k}. {sentence}." for k, sentence in enumerate(said, start=1)]
    agreed = [f"All rows: {', '.join(common)}."] if common else []
    parts = ["\n".join(lines), *agreed, *(["\n".join(notes)] if notes else [])]
    return "\n\n".join(parts)


def ranges(measured: Sequence[Measured]) -> list[str]:
    """How far the medians of repeated measurements lie apart, one sentence each."""
    return [
        f"{m.row.encoder}, {m.row.runtime} {m.row.precision}: median of {len(m.p50s_ms)} runs, "
        f"p50 {significant(m.p50s_ms[0])} to {significant(m.p50s_ms[-1])} ms"
        for m in measured
        if len(m.p50s_ms) > 1
    ]
