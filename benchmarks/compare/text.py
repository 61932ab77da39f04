"""A comparison as lines for people, and as Markdown."""

from collections.abc import Sequence

from benchmarks.compare.pairing import Paired
from benchmarks.compare.verdict import ComparisonRow


def lines(rows: Sequence[ComparisonRow], paired: Paired) -> list[str]:
    """One line a comparison, what was measured above it, then what has no partner."""
    found: list[str] = []
    what = ""
    for row in rows:
        if row.what != what:
            what = row.what
            found.append(what)
            found += [f"    note: {note}" for note in dict.fromkeys(row.notes)]
        found.append(f"    {row.metric:<14} {verdict_of(row):<22} {change_of(row)}")
    return [*found, *_without_partner(paired), summary(rows, paired)]


def markdown(rows: Sequence[ComparisonRow], paired: Paired) -> list[str]:
    """A table, and what has no partner below it."""
    head = ["what", "metric", "pairs", "before", "after", "change (95 % interval)", "verdict"]
    table = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        bold = "**" if row.regression else ""
        cells = [
            row.what,
            row.metric,
            str(row.pairs),
            f"{row.before:.4g}",
            f"{row.after:.4g}",
            f"{_amount(row, row.change)} ({_amount(row, row.low)} to {_amount(row, row.high)})",
            f"{bold}{verdict_of(row)}{bold}",
        ]
        table.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    notes = dict.fromkeys(f"{row.what}: {note}" for row in rows for note in row.notes)
    rest = [*notes, *_without_partner(paired), summary(rows, paired)]
    return [*table, "", *(f"* {line}" for line in rest)]


def verdict_of(row: ComparisonRow) -> str:
    """The verdict, with how many pairs are lacking."""
    if row.verdict == "too few runs":
        return f"too few runs ({row.pairs} of {row.pairs_needed})"
    return row.verdict


def change_of(row: ComparisonRow) -> str:
    """The change, its interval and what it is made of."""
    interval = f"{_amount(row, row.low)} to {_amount(row, row.high)}"
    p_value = "" if row.p_value is None else f", p {row.p_value:.2g}"
    return (
        f"{_amount(row, row.change)} ({interval}){p_value}; {row.before:.4g} to {row.after:.4g}, "
        f"{row.pairs} pairs"
    )


def summary(rows: Sequence[ComparisonRow], paired: Paired) -> str:
    """How many of each verdict."""
    verdicts = [row.verdict for row in rows]
    counts = [f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts)]
    if paired.not_run:
        counts.append(f"{len(paired.not_run)} not run any more")
    return f"{len(rows)} comparison{'s' * (len(rows) != 1)}: {', '.join(counts)}"


def _without_partner(paired: Paired) -> list[str]:
    return [
        *(f"not run any more: {what}" for what in paired.not_run),
        *(f"only before: {what}" for what in paired.gone),
        *(f"only after: {what}" for what in paired.new),
        *(f"not compared: rows of kind {kind}" for kind in paired.left_out),
    ]


def _amount(row: ComparisonRow, value: float) -> str:
    return f"{value - 1:+.1%}" if row.scale == "ratio" else f"{value:+.4f}"
