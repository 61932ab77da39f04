import numpy as np
import pytest

from benchmarks.rows import append_rows, read_rows
from benchmarks.sampling import CASES, Case, print_sampling, run
from edge_runtime.errors import InputError


def test_every_case_is_measured_in_a_process_of_its_own(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    cases = [case for case in CASES if case.like != "University-1652"]
    rows = run(cases, runs=2, embedding_size=8, shrink=50)
    assert [(row.what, row.like) for row in rows] == [(case.what, case.like) for case in cases]
    for row, case in zip(rows, cases, strict=True):
        assert (row.pairs, row.tiles) == (case.pairs // 50, case.tiles // 50)
        assert 0 < row.min_s <= row.median_s <= row.max_s
        assert row.peak_mib is None or 0 <= row.peak_mib < 500
        assert (row.embedding_size == 8) == (row.what in ("similarity", "metrics"))
        assert (row.left_out_pairs is not None) == (row.what == "epoch")
    print_sampling(rows)
    printed = capsys.readouterr().out
    assert all(f" {row.like} " in printed for row in rows)
    assert "2 runs each, embeddings of 8 numbers" in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 80
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    append_rows(path, rows)
    assert len(read_rows(path, kind="sampling")) == len(rows)


def test_an_epoch_of_batches_takes_next_to_no_memory() -> None:
    # Its neighbour table, made before, took a hundred times as much.
    (row,) = run([Case("epoch", "made up", 20_000, 20_000)], runs=1)
    assert row.peak_mib is None or row.peak_mib < 10


def test_memory_is_that_of_the_work() -> None:
    # 20,000 x 128 neighbours of 8 bytes and more while they are found, less than a matrix of all.
    (row,) = run([Case("gps", "made up", 20_000, 20_000)], runs=1)
    if row.peak_mib is not None:
        assert 20_000 * 128 * 8 / 2**20 < row.peak_mib < 20_000**2 * 8 / 2**20 / 10
    assert np.isfinite(row.median_s)


@pytest.mark.parametrize("name", ["runs", "embedding_size", "shrink"])
def test_numbers_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 0; expected at least 1"):
        run([], **{name: 0})  # type: ignore[arg-type]
