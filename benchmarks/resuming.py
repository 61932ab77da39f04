"""What a file of rows has already, so that a command started again goes on where it was."""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.command_parts import say
from benchmarks.machine import machine
from benchmarks.rows import cpu_name, provenance, read_rows

Row: TypeAlias = Mapping[str, Any]

_MACHINE = ("cpu", "cores", "gpu", "system", "power_mode")


def place_of(row: Row) -> tuple[object, ...]:
    """Commit (else the version) and machine of a row, as far as its numbers depend on them.

    Args:
        row: with the whole machine, or (small ones) with its CPU alone.
    """
    made = row.get("machine")
    program = row["git_commit"] or row.get("skyfix_version")
    if isinstance(made, Mapping):
        return (program, *(made.get(name) for name in _MACHINE))
    return (program, row.get("cpu") or row.get("device"))


def here() -> tuple[object, ...]:
    """`place_of` rows with the whole machine that are made now."""
    return place_of({**provenance(), "machine": asdict(machine())})


class MeasuredRows:
    """Rows of one kind that this commit measured on this machine."""

    def __init__(self, path: Path | None, kind: str) -> None:
        """Read them.

        Args:
            path: of the rows; None, or one that is not there, has none.
            kind: of rows.

        Raises:
            InputError: unreadable, or not rows.
        """
        rows = read_rows(path, kind=kind) if path is not None and path.exists() else []
        places = {here(), place_of({**provenance(), "cpu": cpu_name()})} if rows else set()
        self._rows: list[Row] = [row for row in rows if place_of(row) in places]

    def find(
        self,
        *,
        where: Callable[[Row], bool] = lambda _row: True,
        least_calls: int = 0,
        least_s: float = 0.0,
        items: int = 1,
        **wanted: object,
    ) -> Row | None:
        """The newest row with these values; None where there is none.

        Args:
            where: what else must hold.
            least_calls: timed.
            least_s: seconds that they took together.
            items: pictures in a call, as the row's throughput counts them.
            **wanted: values of fields.
        """
        for row in reversed(self._rows):
            if any(row.get(name) != value for name, value in wanted.items()):
                continue
            if where(row) and (
                not least_calls or _lasted(row["time"], least_calls, least_s, items)
            ):
                return row
        return None


def measured_rows(args: argparse.Namespace, kind: str) -> MeasuredRows:
    """What a command finds in its `--out`; nothing with `--again`."""
    return MeasuredRows(None if args.again else args.out, kind)


def say_kept(args: argparse.Namespace, what: str, row: Row) -> None:
    """Say in one line that something is not measured again; print its row where a program reads."""
    commit = row["git_commit"]
    made_by = f"commit {commit}" if commit else f"version {row['skyfix_version']}"
    unsure = ", a modified checkout" if made_by.endswith("+") else ""
    say(f"{what}: has its row ({made_by}{unsure}); --again measures it anew")
    if args.json:
        print(json.dumps(row))


def _lasted(time: Row, least_calls: int, least_s: float, items: int) -> bool:
    took_s = time["n"] * items / time["throughput_per_s"]
    return bool(time["n"] >= least_calls and took_s >= 0.999 * least_s)  # Rows are rounded.
