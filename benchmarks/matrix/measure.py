"""Go through the plan: one process a measurement, one row each, and go on where it was stopped."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.machine import machine
from benchmarks.matrix.encoders import Choice, Prepared, prepare
from benchmarks.matrix.flight_pictures import Flight, pictures
from benchmarks.matrix.pictures import save_pictures
from benchmarks.matrix.plan import Cell, Effort, expected_s, key_of, pictures_for
from benchmarks.matrix.task import Task
from benchmarks.measurement import NotRunRow
from benchmarks.resuming import here
from benchmarks.rows import append_rows, provenance, read_rows
from edge_runtime.artefact import sha256_of_json
from edge_runtime.bundle import Bundle
from edge_runtime.cuda_device import cuda_device_count
from edge_runtime.errors import SkyfixError
from export.index_imagery import fingerprint

Say = Callable[[str], None]
Row = dict[str, Any]

_Ready: TypeAlias = tuple[Prepared, Path] | str
"""An encoder with the folder of its pictures, or why it cannot be measured."""
_REFERENCE_TIMEOUT_S = 3600.0
_STARTED_UTC = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
"""Ceilings are measured anew every time: the machine may be another one, or busy."""


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where things are kept, and how measurements are made."""

    work: Path
    out: Path
    """.jsonl of the rows."""
    threads: int
    effort: Effort
    again: bool = False
    """Measure what was measured before, too."""


def run_matrix(
    place: Workplace,
    choices: Sequence[Choice],
    planned: Sequence[Cell],
    flight: Flight,
    imagery: Path,
    *,
    runs: int,
    say: Say,
) -> list[Row]:
    """Measure all cells, run by run: first run of all, then the second of all.

    Args:
        place: folders and effort.
        choices: encoders, by whose names the cells go.
        planned: what to try.
        flight: gives the pictures.
        imagery: raster that made encoders are calibrated on.
        runs: repetitions.
        say: told one line a measurement.

    Returns:
        The rows of these cells, as they are in the file: old ones and new ones.
    """
    by_name = {choice.name: choice for choice in choices}
    ready: dict[str, _Ready] = {}
    place_now = here()
    before = {} if place.again else _rows_by_key(place.out)
    total = runs * len(planned)
    left = _Left(planned, by_name, place.effort, runs)
    found: list[Row] = []
    for run in range(runs):
        for number, cell in enumerate(planned, start=run * len(planned) + 1):
            head = f"[{number}/{total}] {cell.encoder} {cell.runtime} {cell.precision}"
            head += f" batch {cell.batch}" + (f" run {run + 1}" if runs > 1 else "")
            if cell.encoder not in ready:
                ready[cell.encoder] = _prepared(place, by_name[cell.encoder], flight, imagery, say)
            row = _done(before, cell, run, place_now, ready[cell.encoder], place.threads)
            if row is not None:
                left.skip(cell, run)
                say(f"{head}: {_line(row)} (as before)")
            else:
                began_s = time.monotonic()
                row = _measured(place, cell, run, ready[cell.encoder], say)
                left.took(cell, run, time.monotonic() - began_s)
                say(f"{head}: {_line(row)}{left}")
                if row["kind"] == "not_run":  # Nor will it in the next run.
                    before[(*cell, 0, *place_now)] = row
            if run == 0 or row["kind"] == "measurement":
                found.append(row)
    return found


class _Left:
    """How long the rest will take: the plan's estimate, corrected by what was seen."""

    def __init__(
        self, planned: Sequence[Cell], by_name: Mapping[str, Choice], effort: Effort, runs: int
    ) -> None:
        self._effort, self._gmac = effort, {n: c.gmac for n, c in by_name.items()}
        self._on_gpu = cuda_device_count() > 0
        self._rest_s = sum(self._expected(cell, run) for run in range(runs) for cell in planned)
        self._planned_s, self._took_s = 0.0, 0.0

    def _expected(self, cell: Cell, run: int) -> float:
        gmac = self._gmac[cell.encoder]
        return expected_s(cell, gmac, self._effort, on_gpu=self._on_gpu, with_quality=run == 0)

    def skip(self, cell: Cell, run: int) -> None:
        self._rest_s -= self._expected(cell, run)

    def took(self, cell: Cell, run: int, seconds: float) -> None:
        self._rest_s -= self._expected(cell, run)
        self._planned_s += self._expected(cell, run)
        self._took_s += seconds

    def __str__(self) -> str:
        rest_s = max(0.0, self._rest_s) * self._took_s / max(self._planned_s, 1e-9)
        return f"; about {rest_s / 60:.0f} min left" if rest_s >= 60 else ""


def _prepared(place: Workplace, choice: Choice, flight: Flight, imagery: Path, say: Say) -> _Ready:
    """The encoder, its pictures and its reference; or why there are none."""
    try:
        prepared = prepare(choice, place.work, imagery, say=say)
        folder = _pictures(place, choice, prepared, flight)
        task = _task(place, Cell(choice.name, "torch-eager", "fp32", 1), 0, prepared, folder)
        if not task.reference.exists():
            say(f"{choice.name}: embedding the pictures by the reference")
            failed = _child(place, task, "reference", _REFERENCE_TIMEOUT_S)
            if failed:
                return f"its reference cannot be made: {failed}"
    except SkyfixError as error:
        return str(error)
    return prepared, folder


def _pictures(place: Workplace, choice: Choice, prepared: Prepared, flight: Flight) -> Path:
    """Folder of the pictures; cut now where it is not there."""
    spec = Bundle.open(prepared.bundle).spec
    queries, tiles = pictures_for(choice.gmac, place.effort.quality_s)
    asked = {
        "files": fingerprint([flight.source, flight.telemetry, flight.truth, flight.imagery]),
        "index": str(flight.index),
        "encoder": spec.preprocessing_hash(),
        "counts": [queries, tiles],
    }
    folder = place.work / "pictures" / sha256_of_json(asked)[:12]
    if not (folder / "data.txt").exists():
        save_pictures(pictures(flight, spec, queries=queries, tiles=tiles), folder)
    return folder


def _task(place: Workplace, cell: Cell, run: int, prepared: Prepared, folder: Path) -> Task:
    bundle = Bundle.open(prepared.bundle)
    by = "torch" if prepared.checkpoint is not None else "ort"
    return Task(
        encoder=cell.encoder,
        weights=prepared.weights,
        trained=prepared.trained,
        gated=prepared.gated,
        bundle=prepared.bundle,
        checkpoint=prepared.checkpoint,
        runtime=cell.runtime,
        precision=cell.precision,
        batch=cell.batch,
        threads=place.threads,
        run=run,
        seconds=place.effort.seconds,
        least_calls=place.effort.least_calls,
        pictures=folder,
        ceilings=place.work / "ceilings" / f"{_STARTED_UTC}-{place.threads}.json",
        reference=place.work / "references" / f"{bundle.id}-{by}-{folder.name}.npz",
        kept=place.work / "qualities",
        engines=place.work / "engines" / bundle.id,
        out=place.out,
    )


def _measured(place: Workplace, cell: Cell, run: int, prepared: _Ready, say: Say) -> Row:
    """The row, which is in the file then."""
    reason = prepared if isinstance(prepared, str) else ""
    if not isinstance(prepared, str):
        task = _task(place, cell, run, *prepared)
        if not task.ceilings.exists():
            say("measuring what this machine can do at best, about 10 s")
            failed = _child(place, task, "ceilings", _REFERENCE_TIMEOUT_S)
            if failed:
                say(f"rows have no limit: {failed}")
                task.ceilings.parent.mkdir(parents=True, exist_ok=True)
                task.ceilings.write_text("")
        reason = _child(place, task, "measure", place.effort.timeout_s)
    if reason:
        row = NotRunRow(
            **provenance(),
            encoder=cell.encoder,
            runtime=cell.runtime,
            precision=cell.precision,
            batch=cell.batch,
            reason=reason,
            machine=machine(),
        )
        append_rows(place.out, [row])
    return read_rows(place.out)[-1]


def _child(place: Workplace, task: Task, what: str, timeout_s: float) -> str:
    """Run a task in a process of its own; empty when all went well, else its last line."""
    name = f"{task.encoder}-{task.runtime}-{task.precision}-{task.batch}-{what}"
    path = place.work / "tasks" / f"{name}.json"
    task.write(path)
    command = [sys.executable, "-m", "benchmarks.matrix.child", str(path)]
    if what != "measure":
        command.append(what)
    environment = os.environ | {"OMP_NUM_THREADS": str(task.threads)}
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
        return f"gave no row within {timeout_s:g} s{_last_line(said, '; its last line: ')}"
    path.with_suffix(".log").write_text(done.stdout)
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"was killed by signal {-done.returncode}{_last_line(done.stdout, '; last line: ')}"
    return _last_line(done.stdout, "") or f"ended with status {done.returncode} and said nothing"


def _last_line(text: str, before: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return before + lines[-1].removeprefix("matrix: ") if lines else ""


def _rows_by_key(path: Path) -> dict[tuple[object, ...], Row]:
    """Rows that are there by their keys; none where the file is not."""
    if not path.exists():
        return {}
    return {
        key_of(row): row for row in read_rows(path) if row["kind"] in ("measurement", "not_run")
    }


def _done(
    rows: Mapping[tuple[object, ...], Row],
    cell: Cell,
    run: int,
    place_now: tuple[object, ...],
    ready: _Ready,
    threads: int,
) -> Row | None:
    """The row that makes a measurement needless; None where there is none."""
    cannot = rows.get((*cell, 0, *place_now))
    if cannot is not None and cannot["kind"] == "not_run":
        return cannot
    row = rows.get((*cell, run, *place_now))
    if row is None or row["kind"] == "not_run" or isinstance(ready, str):
        return None
    same = row["bundle_id"] == Bundle.open(ready[0].bundle).id
    return row if same and row["threads"] in (None, threads) else None


def _line(row: Row) -> str:
    if row["kind"] == "not_run":
        return f"not run: {row['reason']}"
    time_of, judged = row["time"], row["quality"]
    return (
        f"p50 {time_of['p50_ms']:.2f} ms, p99 {time_of['p99_ms']:.2f} ms, n {time_of['n']}, "
        f"cosine {judged['min_cosine']:.4f}"
    )
