"""Rows as HTML tables that can be sorted, with their doubts under them."""

from collections.abc import Sequence
from html import escape

from benchmarks.measurement import NotRunRow
from benchmarks.results_page.columns import CAME_OUT, STEADINESS, WHAT, Column, shown
from benchmarks.results_page.doubts import remarks
from benchmarks.results_page.sources import Measured, machine_name
from benchmarks.results_page.written import DASH, significant
from edge_runtime.fix import STAGES

_LONG = 25
_ALWAYS = ("encoder", "runtime", "precision")


class Doubts:
    """Sentences under a table, each once, and the marks that point at them."""

    def __init__(self, name: str) -> None:
        """Begin with none.

        Args:
            name: of the table, for links within the page.
        """
        self._name = name
        self._said: list[str] = []

    def mark(self, said: str) -> str:
        """HTML of a mark beside a number."""
        if said not in self._said:
            self._said.append(said)
        k = self._said.index(said) + 1
        return (
            f'<a class="doubt" href="#{self._name}-{k}" title="{escape(said, quote=True)}">{k}</a>'
        )

    def html(self) -> str:
        """The sentences."""
        items = "".join(
            f'<li id="{self._name}-{k}">{escape(said)}.</li>'
            for k, said in enumerate(self._said, start=1)
        )
        return f'<ol class="doubts">{items}</ol>' if items else ""


def measurements(measured: Sequence[Measured]) -> str:
    """What was measured, how fast, how near its limit, at which cost and with which quality."""
    return _measured_table(
        measured,
        (*WHAT, *CAME_OUT),
        "rows",
        "Times are of one call, from pixels in host memory to an embedding in host memory; nothing "
        "is left out of a percentile.",
    )


def steadiness(measured: Sequence[Measured]) -> str:
    """How it starts, how steadily it runs, and what its limit is made of."""
    caption = "How it starts, how steadily it runs, and what its limit is made of."
    table = _measured_table(measured, (*WHAT, *STEADINESS), "steady", caption)
    return folded(table, "Start, steadiness and limit", len(measured))


def stages(measured: Sequence[Measured]) -> str:
    """Medians of the parts of a call, where they were timed; empty where none was."""
    timed = [m for m in measured if m.row.stages]
    if not timed:
        return ""
    found = {name for m in timed for name in m.row.stages}
    names = [*(s for s in STAGES if s in found), *sorted(found - set(STAGES))]
    columns = [*WHAT, *(_stage(name) for name in names)]
    table = _measured_table(timed, columns, "stages", "Median of each part of a call, ms.")
    return folded(table, "Parts of a call", len(timed))


def not_run(rows: Sequence[NotRunRow]) -> str:
    """What could not be measured, and why."""
    several = len({machine_name(r.machine) for r in rows}) > 1
    head = [
        "encoder",
        "runtime",
        "precision",
        "batch",
        *(["machine"] if several else []),
        "why not",
    ]
    lines = []
    for r in rows:
        cells = [r.encoder, r.runtime, r.precision, str(r.batch)]
        cells += [machine_name(r.machine)] if several else []
        lines.append(
            "".join(
                f'<td class="what" data-v="{escape(c, quote=True)}">{escape(c)}</td>' for c in cells
            )
            + f'<td class="text" data-v="{escape(r.reason, quote=True)}">{escape(r.reason)}</td>'
        )
    return html_table(
        "".join(f'<th scope="col" class="what">{name}</th>' for name in head),
        lines,
        "Asked for, and not possible on this machine.",
    )


def html_table(head: str, lines: Sequence[str], caption: str) -> str:
    """A table that scrolls by itself and can be sorted.

    Args:
        head: `<th>` cells.
        lines: `<td>` cells of each line.
        caption: HTML above it.
    """
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="scroll" tabindex="0"><table class="results sortable"><caption>{caption}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(table: str, title: str, rows: int) -> str:
    """A table under its heading, or folded away under it where it is long."""
    if rows > _LONG:
        return f"<details><summary>{escape(title)}: {rows} rows</summary>{table}</details>"
    return f"<h3>{escape(title)}</h3>{table}"


def _measured_table(
    measured: Sequence[Measured], columns: Sequence[Column], name: str, caption: str
) -> str:
    kept, common = shown(columns, measured, always=_ALWAYS)
    said = Doubts(name)
    lines = []
    for m in measured:
        marks = remarks(m.row)
        cells = []
        for column in kept:
            value, text = column.of(m.row), escape(column.text(m.row))
            text += "".join(said.mark(d.said) for d in marks if d.beside in column.doubts)
            if column.name == "p50 ms" and len(m.p50s_ms) > 1:
                low, high = significant(m.p50s_ms[0]), significant(m.p50s_ms[-1])
                text += f"<small>{low}{DASH}{high}, {len(m.p50s_ms)} runs</small>"
            key = "" if value is None else escape(str(value), quote=True)
            css = ' class="what"' if column.what else ""
            cells.append(f'<td{css} data-v="{key}">{text}</td>')
        lines.append("".join(cells))
    head = "".join(
        f'<th scope="col"{" class=what" if c.what else ""} title="{escape(c.meaning, quote=True)}">'
        f"{escape(c.name)}</th>"
        for c in kept
    )
    agreed = f" All rows: {escape(', '.join(common))}." if common else ""
    return html_table(head, lines, f"{escape(caption)}{agreed}") + said.html()


def _stage(name: str) -> Column:
    return Column(
        name.replace("_", " "),
        "Median of this part",
        lambda r: r.stages[name].p50_ms if name in r.stages else None,
    )
