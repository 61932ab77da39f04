"""One benchmark command in two checkouts, in random order pair by pair.

A machine changes with the hours: clocks, temperature, what else runs. Two series measured one after
the other differ by that too; two runs next to each other hardly. The order within a pair is random,
so that being second is no advantage in the long run.
"""

import json
import random
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rows import read_rows
from edge_runtime.errors import InputError

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of two checkouts."""

    name: str
    """before or after."""
    checkout: Path
    """Commands run in this folder."""
    rows: Path
    """Where its rows go, .jsonl."""


def interleave(
    before: Side,
    after: Side,
    command: Sequence[str],
    *,
    runs: int,
    seed: int = 0,
    timeout_s: float = 3600.0,
    say: Say = lambda _line: None,
) -> None:
    """Run a command in both checkouts `runs` times; runs that both files have are not run again.

    Args:
        before: the one checkout.
        after: the other.
        command: a program and its arguments; `--out FILE` is added.
        runs: pairs.
        seed: of the order within pairs.
        timeout_s: of one run.
        say: told about every run.

    Raises:
        InputError: a checkout is no folder, both write to one file, or a command fails, writes no
            row or takes too long. Rows of runs before it are kept.
    """
    if runs < 1 or not command:
        msg = f"{runs} runs of {' '.join(command) or 'nothing'}; expected at least 1, of a command"
        raise InputError(msg)
    if before.rows.resolve() == after.rows.resolve():
        msg = f"both checkouts would write to {before.rows}; expected two files"
        raise InputError(msg)
    for side in (before, after):
        if not side.checkout.is_dir():
            msg = f"{side.checkout} is not a folder; expected the checkout to run in {side.name}"
            raise InputError(msg)
    done = {side.name: _runs_in(side.rows) for side in (before, after)}
    for run in range(runs):
        order = [before, after]
        random.Random(f"{seed} {run}").shuffle(order)
        for side in order:
            if run in done[side.name]:
                continue
            rows = _measured(side, command, timeout_s)
            _append(side.rows, [{**row, "run": run} for row in rows])
            say(f"[{run + 1}/{runs}] {side.name}: {len(rows)} rows")


def _measured(side: Side, command: Sequence[str], timeout_s: float) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.jsonl"
        try:
            ended = subprocess.run(
                [*command, "--out", str(out)],
                cwd=side.checkout,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except OSError as error:
            msg = f"{command[0]} cannot be started in {side.checkout} ({error}); give a program"
            raise InputError(msg) from error
        except subprocess.TimeoutExpired as error:
            msg = f"{' '.join(command)} took more than {timeout_s:g} s in {side.checkout}; measure "
            raise InputError(f"{msg}less, or give a longer --timeout-s") from error
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or ["it says nothing"])[-1]
            msg = f"{' '.join(command)} ended with {ended.returncode} in {side.checkout}: {last}"
            raise InputError(msg)
        rows = read_rows(out) if out.exists() else []
    if not rows:
        msg = f"{' '.join(command)} wrote no row in {side.checkout}; expected one that takes --out"
        raise InputError(msg)
    return rows


def _runs_in(path: Path) -> set[int]:
    return {int(row.get("run") or 0) for row in read_rows(path)} if path.exists() else set()


def _append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write("".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows))
