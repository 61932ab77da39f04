"""Reading a log: its records one after another, and taken apart into the runs that wrote them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix, fix_from_json
from edge_runtime.outputs.line_file import parts_of
from edge_runtime.run_settings import RunOfLog, RunSettings, line_digest, read_runs_of

_UNWRITTEN_BLOCK = re.compile(rb"\0{16,}")
"""What journalling file systems leave of a block that was not written before a power cut."""


class LoggedRun(NamedTuple):
    """The records of one run, of a log that may hold several."""

    number: int
    """Of the runs that have records in the log, from 1."""
    records: list[Fix]
    """At least one; `seq` grows."""
    settings: RunSettings | None
    """None where the log's settings do not tell them."""


def read_log(path: Path) -> Iterator[Fix]:
    """Read the records of a log and of its older parts, oldest first.

    A last line that was cut off by a crash is left out, and so is what a power cut has filled with
    zeros. A log that runs were appended to has their records one after another; `seq` begins anew.

    Raises:
        InputError: unreadable, or a line in the middle is not a fix record.
    """
    return (fix for _, fix in _read_lines(path) if fix is not None)


def read_runs(path: Path) -> list[LoggedRun]:
    """Read a log's records, taken apart into runs, each with its own settings.

    Raises:
        InputError: as `read_log`, or the settings cannot be read.
    """
    pieces: list[tuple[RunSettings | None, list[Fix]]] = []
    for owner, records in _pieces(path, read_runs_of(path)):
        runs = runs_of(iter(records))
        # Only the newest of several runs is told by one piece's settings: an older version kept
        # no others.
        pieces += [(None, run) for run in runs[:-1]]
        pieces += [(None if owner is None else owner.settings, run) for run in runs[-1:]]
    return [LoggedRun(k, run, settings) for k, (settings, run) in enumerate(pieces, start=1)]


def runs_of(records: Iterator[Fix]) -> list[list[Fix]]:
    """Records taken apart by their numbers alone: `seq` grows within a run."""
    runs: list[list[Fix]] = []
    for fix in records:
        if not runs or fix.seq <= runs[-1][-1].seq:
            runs.append([])
        runs[-1].append(fix)
    return runs


def _pieces(path: Path, runs: list[RunOfLog]) -> list[tuple[RunOfLog | None, list[Fix]]]:
    """Records from one run's beginning to the next's, with that run."""
    begins_after = {run.after: k for k, run in enumerate(runs) if run.after}
    pieces: list[tuple[int, list[Fix]]] = [(-1, [])]
    for line, fix in _read_lines(path):
        if fix is not None:
            pieces[-1][1].append(fix)
        owner = begins_after.get(line_digest(line))
        if owner is not None:
            pieces.append((owner, []))
    # What was written before the first beginning that is left is of the run before that one.
    first = (pieces[1][0] if len(pieces) > 1 else len(runs)) - 1
    pieces[0] = (first, pieces[0][1])
    return [(runs[k] if k >= 0 else None, records) for k, records in pieces]


def _read_lines(path: Path) -> Iterator[tuple[bytes, Fix | None]]:
    """The lines as they lie there, and their records; None where a power cut has left zeros."""
    for part in (*parts_of(path), path):
        yield from _read_part(part)


def _read_part(path: Path) -> Iterator[tuple[bytes, Fix | None]]:
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.endswith(b"\n"):
                    return
                if _UNWRITTEN_BLOCK.search(line):
                    yield line, None
                    continue
                try:
                    fix = fix_from_json(line.decode())
                except (InputError, UnicodeDecodeError) as error:
                    msg = f"log {path} line {number}: {error}"
                    raise InputError(msg) from error
                yield line, fix
    except OSError as error:
        msg = f"log {path} cannot be read ({error}); expected a file written by skyfix run"
        raise InputError(msg) from error
