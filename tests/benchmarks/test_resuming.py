from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import resuming
from benchmarks.loading import LoadingRow
from benchmarks.machine import machine
from benchmarks.resuming import MeasuredRows, here, place_of
from benchmarks.rows import append_rows, cpu_name, provenance
from tests.benchmarks.measured_rows import MACHINE, MADE_BY, measured


@pytest.fixture
def made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This commit and machine are those of the made-up rows."""
    monkeypatch.setattr(resuming, "machine", lambda: MACHINE)
    monkeypatch.setattr(resuming, "provenance", lambda: MADE_BY)
    monkeypatch.setattr(resuming, "cpu_name", lambda: MACHINE.cpu)


@pytest.mark.usefixtures("made_here")
def test_the_newest_row_with_all_values_is_found(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    append_rows(out, [measured(1.0), measured(2.0), measured(3.0, batch=8)])
    rows = MeasuredRows(out, "measurement")
    found = rows.find(encoder="small-128", batch=1)
    assert found is not None
    assert found["time"]["p50_ms"] == 2.0
    assert rows.find(encoder="small-128", batch=2) is None
    assert rows.find(batch=1, where=lambda row: row["time"]["p50_ms"] < 1.5) is not None


@pytest.mark.usefixtures("made_here")
def test_shorter_rows_do_not_serve(tmp_path: Path) -> None:
    """101 calls of 10 ms take a second, whatever the number of pictures in each."""
    out = tmp_path / "rows.jsonl"
    append_rows(out, [measured(10.0)])
    rows = MeasuredRows(out, "measurement")
    assert rows.find(least_calls=101, least_s=1.0) is not None
    assert rows.find(least_calls=102) is None
    assert rows.find(least_calls=101, least_s=1.1) is None
    assert rows.find(least_calls=101, least_s=2.0, items=2) is not None


@pytest.mark.usefixtures("made_here")
@pytest.mark.parametrize(
    "values",
    [
        {"git_commit": "def5678"},
        {"git_commit": "abc1234+"},
        *(
            {"machine": replace(MACHINE, **other)}
            for other in (
                {"cpu": "Another"}, {"cores": 2}, {"gpu": "H200"}, {"system": "Linux 7"},
                {"power_mode": "MAXN"},
            )
        ),
    ],
)  # fmt: skip
def test_rows_of_another_commit_machine_or_power_mode_do_not_serve(
    values: dict[str, Any], tmp_path: Path
) -> None:
    append_rows(tmp_path / "rows.jsonl", [measured(**values)])
    assert MeasuredRows(tmp_path / "rows.jsonl", "measurement").find() is None


@pytest.mark.usefixtures("outside_a_checkout")
def test_small_rows_are_told_apart_by_commit_and_cpu(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    row = LoadingRow(
        **provenance(), recipe="cvusa", source_px="", source_kib=1.0, encoder_px="",
        cpu=cpu_name(), runs=1, images_per_s=1.0, images_per_s_low=1.0, images_per_s_high=1.0,
    )  # fmt: skip
    append_rows(out, [replace(row, cpu="Another"), replace(row, git_commit="def5678")])
    assert MeasuredRows(out, "loading").find(recipe="cvusa") is None
    append_rows(out, [row])
    found = MeasuredRows(out, "loading").find(recipe="cvusa")
    assert found is not None
    assert LoadingRow(**found) == row


@pytest.mark.usefixtures("outside_a_checkout")
def test_a_row_made_now_is_made_here() -> None:
    made = {**asdict(measured()), **provenance(), "machine": asdict(machine())}
    assert place_of(made) == here()


@pytest.mark.usefixtures("outside_a_checkout")
def test_outside_a_checkout_the_version_tells_programs_apart(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    now = {**provenance(), "machine": machine()}
    append_rows(out, [measured(**now), measured(**{**now, "skyfix_version": "0.0.1"}, batch=8)])
    assert now["git_commit"] is None
    assert MeasuredRows(out, "measurement").find(batch=1) is not None
    assert MeasuredRows(out, "measurement").find(batch=8) is None


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert MeasuredRows(None, "search").find() is None
    assert MeasuredRows(tmp_path / "none.jsonl", "search").find() is None
