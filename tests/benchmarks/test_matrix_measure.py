import stat
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.machine import machine
from benchmarks.matrix import measure
from benchmarks.matrix.encoders import Choice, Prepared
from benchmarks.matrix.flight_pictures import Flight
from benchmarks.matrix.measure import Row, Workplace, run_matrix
from benchmarks.matrix.plan import Cell, Effort
from benchmarks.matrix.task import Task
from benchmarks.rows import append_rows, provenance, read_rows
from tests.benchmarks.measured_rows import measured

CHOICES = (
    Choice(architecture="large", size_px=64, gmac=2.0),
    Choice(architecture="small", size_px=64, gmac=1.0),
)
CELLS = [
    Cell(choice.name, runtime, "fp32", 1)
    for choice in CHOICES
    for runtime in ("ort-cpu", "tensorrt")
]


class FakeBundle:
    id = "b" * 12

    @classmethod
    def open(cls, _root: Path) -> "FakeBundle":
        return cls()


pytestmark = pytest.mark.usefixtures("outside_a_checkout")


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(
        work=tmp_path,
        out=tmp_path / "rows.jsonl",
        threads=1,
        effort=Effort(seconds=1.0, timeout_s=30.0),
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str, int]]:
    """Measurements that were asked for: ort-cpu gives a row, tensorrt a reason."""
    found: list[tuple[str, str, int]] = []

    def child(place: Workplace, task: Task, what: str, _timeout_s: float) -> str:
        if what != "measure":
            return "cannot be measured in a test"
        found.append((task.encoder, task.runtime, task.run))
        if task.runtime == "tensorrt":
            return "no CUDA device was found"
        row = measured(
            encoder=task.encoder,
            runtime=task.runtime,
            run=task.run,
            threads=task.threads,
            bundle_id=FakeBundle.id,
            machine=machine(),
            **{k: v for k, v in provenance().items() if k != "schema"},
        )
        append_rows(place.out, [row])
        return ""

    def prepared(_place: object, choice: Choice, *_others: object) -> tuple[Prepared, Path]:
        return (
            Prepared(
                choice=choice,
                bundle=tmp_path,
                checkpoint=None,
                weights="random",
                trained=False,
                gated=False,
            ),
            tmp_path,
        )

    monkeypatch.setattr(measure, "_child", child)
    monkeypatch.setattr(measure, "_prepared", prepared)
    monkeypatch.setattr(measure, "Bundle", FakeBundle)
    return found


def _run(
    place: Workplace, *, runs: int = 1, say: Callable[[str], None] = lambda _: None
) -> list[Row]:
    nowhere = Path("nowhere")
    flight = Flight(
        source=nowhere, telemetry=nowhere, truth=nowhere, camera=nowhere, imagery=nowhere,
        index=None, data="none",
    )  # fmt: skip
    return run_matrix(place, CHOICES, CELLS, flight, nowhere, runs=runs, say=say)


def test_every_measurement_is_a_row_or_a_reason(
    place: Workplace, asked: list[tuple[str, str, int]]
) -> None:
    rows = _run(place)
    assert rows == read_rows(place.out)
    assert [(row["encoder"], row["runtime"], row["kind"]) for row in rows] == [
        ("large-64", "ort-cpu", "measurement"),
        ("large-64", "tensorrt", "not_run"),
        ("small-64", "ort-cpu", "measurement"),
        ("small-64", "tensorrt", "not_run"),
    ]
    assert {row["reason"] for row in rows if row["kind"] == "not_run"} == {
        "no CUDA device was found"
    }
    assert len(asked) == 4


def test_runs_are_interleaved_and_what_cannot_run_is_tried_once(
    place: Workplace, asked: list[tuple[str, str, int]]
) -> None:
    rows = _run(place, runs=3)
    assert asked == [
        ("large-64", "ort-cpu", 0),
        ("large-64", "tensorrt", 0),
        ("small-64", "ort-cpu", 0),
        ("small-64", "tensorrt", 0),
        ("large-64", "ort-cpu", 1),
        ("small-64", "ort-cpu", 1),
        ("large-64", "ort-cpu", 2),
        ("small-64", "ort-cpu", 2),
    ]
    assert rows == read_rows(place.out)


def test_what_was_measured_is_not_measured_again(
    place: Workplace, asked: list[tuple[str, str, int]]
) -> None:
    before = _run(place, runs=2)
    asked.clear()
    assert _run(place, runs=2) == before
    assert asked == []
    _run(place, runs=3)
    assert asked == [("large-64", "ort-cpu", 2), ("small-64", "ort-cpu", 2)]


def test_a_command_that_was_stopped_goes_on_where_it_was(
    place: Workplace, asked: list[tuple[str, str, int]]
) -> None:
    def stop(line: str) -> None:
        if line.startswith("[2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(place, say=stop)
    assert len(read_rows(place.out)) == 2
    asked.clear()
    assert len(_run(place)) == 4
    assert asked == [("small-64", "ort-cpu", 0), ("small-64", "tensorrt", 0)]


def test_another_number_of_threads_is_measured_anew(
    place: Workplace, asked: list[tuple[str, str, int]]
) -> None:
    _run(place)
    asked.clear()
    _run(Workplace(work=place.work, out=place.out, threads=2, effort=place.effort))
    assert asked == [("large-64", "ort-cpu", 0), ("small-64", "ort-cpu", 0)]


def test_again_measures_everything_anew(
    place: Workplace, asked: list[tuple[str, str, int]]
) -> None:
    _run(place)
    asked.clear()
    again = Workplace(work=place.work, out=place.out, threads=1, effort=place.effort, again=True)
    assert len(_run(again)) == 4
    assert len(asked) == 4
    assert len(read_rows(place.out)) == 8


def test_an_encoder_that_cannot_be_made_is_a_reason_for_each_of_its_rows(
    place: Workplace, asked: list[tuple[str, str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "_prepared", lambda *_: "timm has no such network")
    rows = _run(place)
    assert [row["reason"] for row in rows] == ["timm has no such network"] * 4
    assert asked == []


def _task(place: Workplace) -> Task:
    nothing = place.work / "nothing"
    return Task(
        encoder="small-64", weights="random", trained=False, gated=False, bundle=nothing,
        checkpoint=None,
        runtime="ort-cpu", precision="fp32", batch=1, threads=1, run=0, seconds=1.0, least_calls=1,
        pictures=nothing, ceilings=nothing, reference=nothing, kept=nothing, engines=nothing,
        out=place.out,
    )  # fmt: skip


def _python(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    ("script", "timeout_s", "reason"),
    [
        pytest.param("echo out of memory; kill -9 $$", 60, "signal 9; last line: out of memory"),
        pytest.param("echo matrix: no; exit 2", 60, "no"),
        pytest.param("exit 3", 60, "ended with status 3 and said nothing"),
        pytest.param("echo compiling; exec sleep 60", 0.5, "0.5 s; its last line: compiling"),
        pytest.param("exit 0", 60, ""),
    ],
)
def test_a_process_that_gives_no_row_gives_a_reason(
    place: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    timeout_s: float,
    reason: str,
) -> None:
    monkeypatch.setattr(sys, "executable", _python(place.work / "python", script))
    told = measure._child(place, _task(place), "measure", timeout_s)
    assert told.endswith(reason)
    assert bool(told) == bool(reason)


def test_a_task_is_read_as_it_was_written(place: Workplace) -> None:
    task = _task(place)
    task.write(place.work / "task.json")
    assert asdict(Task.read(place.work / "task.json")) == asdict(task)
