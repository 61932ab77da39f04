"""The README's table of measurements: made from rows, and checked against them.

`python -m benchmarks readme-table` needs neither torch nor a backend, so that every check of the
repository can afford it.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.measurement import MeasurementRow
from benchmarks.results_page.encoder_table import encoder_table
from benchmarks.results_page.sources import (
    Measured,
    Origin,
    commands_of,
    machine_name,
    read_results,
)
from edge_runtime.artefact import write_atomically
from edge_runtime.errors import InputError
from edge_runtime.gates import GATE_LIMITS

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
MEND = "python -m benchmarks readme-table --write"
NOTHING = "No reference results are there yet."


def table(results: Path, *, root: Path = ROOT) -> str:
    """The block between the markers, without them.

    Args:
        results: folder of rows.
        root: of the repository, which links are relative to.

    Raises:
        InputError: rows cannot be read.
    """
    files = sorted(results.glob("*.jsonl"))
    measured = read_results(files).measured if files else ()
    rows = chosen(measured)
    if not rows:
        return NOTHING

    def link(origin: Origin) -> str:
        return f"{origin.file.resolve().relative_to(root.resolve()).as_posix()}#L{origin.line}"

    parts = []
    for machine in dict.fromkeys(machine_name(m.row.machine) for m in rows):
        here = [m for m in rows if machine_name(m.row.machine) == machine]
        where = f"{results.resolve().relative_to(root.resolve()).as_posix()}/README.md"
        parts += [
            f"**{machine}** ({_when(here)}), median milliseconds a picture",
            encoder_table(here, link=link),
        ]
    parts.append(
        "One picture a call, from pixels in host memory to an embedding in host memory; of each "
        "runtime the fastest precision that passes the gates. The fastest runtime is bold, and the "
        "columns after the runtimes are its own. Each median is linked to its row; "
        f"[commands and conditions]({where}), [what the columns mean](docs/benchmarks.md)."
    )
    return "\n\n".join(parts)


def chosen(measured: Sequence[Measured]) -> list[Measured]:
    """One row a machine, encoder, size and runtime: batch 1, the fastest precision that may fly.

    Rows that ran something else than was asked for, or whose embeddings are too far from the
    reference for the gates of a bundle, are left out; of commits the last one counts.
    """
    newest: dict[tuple[object, ...], Measured] = {}
    for m in measured:
        row = m.row
        if row.batch != 1 or row.protocol != "latency" or row.fallback or _refused(row):
            continue
        key = (*_place(m), row.precision)
        if key not in newest or row.measured_utc >= newest[key].row.measured_utc:
            newest[key] = m
    best: dict[tuple[object, ...], Measured] = {}
    for m in newest.values():
        old = best.setdefault(_place(m), m)
        if m.row.time.p50_ms < old.row.time.p50_ms:
            best[_place(m)] = m
    order = {name: k for k, name in enumerate(dict.fromkeys(m.row.encoder for m in measured))}
    return sorted(best.values(), key=lambda m: order[m.row.encoder])


def _refused(row: MeasurementRow) -> bool:
    """Whether gates would not let this file fly, which random weights are not put through."""
    limits = {str(precision): gate.min_cosine for precision, gate in GATE_LIMITS.items()}
    lowest = limits.get(row.precision, -1.0)
    return row.quality is not None and row.quality.min_cosine < lowest


def check(readme: Path, results: Path, *, root: Path = ROOT) -> None:
    """Compare a README with the rows.

    Raises:
        InputError: they differ, or the README has no such block.
    """
    _, block, _ = _cut(readme)
    if block.strip() != table(results, root=root).strip():
        msg = f"the table of {readme} is not that of the rows in {results}; mend it with: {MEND}"
        raise InputError(msg)


def write(readme: Path, results: Path, *, root: Path = ROOT) -> bool:
    """Put the rows' table into a README.

    Returns:
        Whether the file changed.

    Raises:
        InputError: the README has no block to write into.
    """
    before, block, after = _cut(readme)
    new = f"\n{table(results, root=root)}\n"
    if new == block:
        return False
    write_atomically(readme, f"{before}{BEGIN}{new}{END}{after}".encode())
    return True


def unexplained(results: Path) -> list[str]:
    """Files of rows whose command the folder's README.md does not give."""
    known = commands_of(results)
    return [path.name for path in sorted(results.glob("*.jsonl")) if not known.get(path.name)]


def _cut(readme: Path) -> tuple[str, str, str]:
    try:
        text = readme.read_text()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{readme} cannot be read ({error}); expected the repository's README"
        raise InputError(msg) from error
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        msg = f"{readme} must have {BEGIN} and {END} once each, in this order; add them"
        raise InputError(msg)
    before, _, rest = text.partition(BEGIN)
    block, _, after = rest.partition(END)
    return before, block, after


def _place(m: Measured) -> tuple[object, ...]:
    """What the README has one row of."""
    row = m.row
    return (machine_name(row.machine), row.encoder, row.height_px, row.width_px, row.runtime)


def _when(measured: Sequence[Measured]) -> str:
    days = sorted({m.row.measured_utc[:10] for m in measured})
    commits = list(dict.fromkeys(m.row.git_commit or "no checkout" for m in measured))
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    name = "commit" if len(commits) == 1 else "commits"
    return f"{span}, {name} {', '.join(commits)}"
