import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.rows import Provenance, append_rows, git_commit, provenance, read_rows
from edge_runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SampleRow(Provenance):
    kind: str = "sample"
    value_ms: float


def sample(value_ms: float) -> SampleRow:
    return SampleRow(**provenance(), value_ms=value_ms)


def test_rows_append_and_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_rows(path, [sample(1.0), sample(2.0)])
    append_rows(path, [sample(3.0)])
    assert [row["value_ms"] for row in read_rows(path)] == [1.0, 2.0, 3.0]
    assert read_rows(path, kind="other") == []


def test_values_that_are_not_finite_become_null(tmp_path: Path) -> None:
    append_rows(tmp_path / "rows.jsonl", [sample(math.nan), sample(math.inf)])
    assert [row["value_ms"] for row in read_rows(tmp_path / "rows.jsonl")] == [None, None]


def test_a_row_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_rows(path, [sample(1.0)])
    before = path.read_bytes()
    with pytest.raises(TypeError):
        append_rows(path, [sample(2.0), sample(object())])  # type: ignore[arg-type]
    assert path.read_bytes() == before


def test_half_a_line_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_rows(path, [sample(1.0)])
    with path.open("a") as stream:
        stream.write('{"schema": 1, "ki')
    before = path.read_bytes()
    with pytest.raises(InputError, match="Remove its last line"):
        append_rows(path, [sample(2.0)])
    with pytest.raises(InputError, match="line 2 is not a row"):
        read_rows(path)
    assert path.read_bytes() == before


def test_rows_of_another_schema_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"schema": 99, "kind": "latency"}) + "\n")
    with pytest.raises(InputError, match="schema 99, expected 1"):
        read_rows(path)


def test_no_commit_outside_a_checkout(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
