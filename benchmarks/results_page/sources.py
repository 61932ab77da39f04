"""Files of rows, sorted into what a page shows: measurements, gaps, and everything else."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import Machine
from benchmarks.measurement import MeasurementRow, NotRunRow
from benchmarks.results_page.records import record
from benchmarks.rows import read_rows
from edge_runtime.errors import InputError

INDEX = "README.md"
"""Of a folder of results: under a heading with each file's name the command that made it."""


class Origin(NamedTuple):
    """Where a row stands."""

    file: Path
    line: int
    """From 1."""


class Measured(NamedTuple):
    """One measurement, of one run or of several."""

    row: MeasurementRow
    """The run whose median is in the middle."""
    origin: Origin
    """Of that run."""
    p50s_ms: tuple[float, ...]
    """Of all runs, ascending."""


class ResultsFile(NamedTuple):
    """One file of rows."""

    path: Path
    rows: int
    command: str
    """That made it; empty where its folder does not say."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that was read."""

    files: tuple[ResultsFile, ...]
    measured: tuple[Measured, ...]
    """In the order in which they first appear."""
    not_run: tuple[NotRunRow, ...]
    """Each gap once; those that another row fills are left out."""
    others: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rows of every other kind, by kind."""

    @property
    def machines(self) -> list[str]:
        """Names of the machines that were measured, in order."""
        found = [machine_name(m.row.machine) for m in self.measured]
        found += [machine_name(n.machine) for n in self.not_run]
        return list(dict.fromkeys(found))


def read_results(paths: Sequence[Path]) -> Results:
    """Read files of rows.

    Raises:
        InputError: none is given, one cannot be read, or there is no row in any of them.
    """
    runs: dict[tuple[Any, ...], list[tuple[MeasurementRow, Origin]]] = {}
    gaps: dict[tuple[Any, ...], NotRunRow] = {}
    others: dict[str, list[dict[str, Any]]] = {}
    files = []
    for path in paths:
        rows = read_rows(path)
        files.append(ResultsFile(path, len(rows), commands_of(path.parent).get(path.name, "")))
        for line, row in enumerate(rows, start=1):
            where = f"{path} line {line}"
            if row["kind"] == "measurement":
                measurement = record(MeasurementRow, row, where)
                runs.setdefault(_same(measurement), []).append((measurement, Origin(path, line)))
            elif row["kind"] == "not_run":
                gap = record(NotRunRow, row, where)
                gaps[_asked(gap)] = gap
            else:
                others.setdefault(row["kind"], []).append(row)
    if not any(f.rows for f in files):
        named = ", ".join(str(p) for p in paths) or "no file"
        msg = f"there are no rows in {named}; expected .jsonl files of python -m benchmarks"
        raise InputError(msg)
    filled = {_asked(row) for found in runs.values() for row, _ in found}
    return Results(
        files=tuple(files),
        measured=tuple(_middle(found) for found in runs.values()),
        not_run=tuple(gap for asked, gap in gaps.items() if asked not in filled),
        others=others,
    )


def commands_of(folder: Path) -> dict[str, str]:
    """Commands by file name, as the folder's README.md has them; empty where there is none.

    A heading `## name.jsonl` is followed by a fenced block: the command.
    """
    try:
        text = (folder / INDEX).read_text()
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        name = section.splitlines()[0].strip().strip("`")
        block = re.search(r"^```\w*\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
        if name.endswith(".jsonl") and block:
            found[name] = block.group(1).strip()
    return found


def machine_name(machine: Machine) -> str:
    """A machine in a few words."""
    cores = f"{machine.cores} core{'' if machine.cores == 1 else 's'}"
    name = f"{cores} of {machine.cpu}"
    return f"{name}, {machine.gpu}" if machine.gpu else name


def _same(row: MeasurementRow) -> tuple[Any, ...]:
    """What rows of the same measurement have in common, whatever the run."""
    return (
        machine_name(row.machine), row.git_commit, row.protocol, row.encoder, row.weights,
        row.runtime, row.provider, row.precision, row.library, row.threads, row.batch,
        row.height_px, row.width_px, row.model_sha256, row.engine_sha256, row.note, row.fallback,
    )  # fmt: skip


def _asked(row: MeasurementRow | NotRunRow) -> tuple[Any, ...]:
    name = machine_name(row.machine)
    return (name, row.encoder, row.runtime, row.precision, row.batch)


def _middle(runs: list[tuple[MeasurementRow, Origin]]) -> Measured:
    ordered = sorted(runs, key=lambda run: run[0].time.p50_ms)
    row, origin = ordered[(len(ordered) - 1) // 2]
    return Measured(row, origin, tuple(run.time.p50_ms for run, _ in ordered))
