import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from usearch.index import Index

from edge_runtime import vector_search
from edge_runtime.vector_search import RowBlock, SearchResult, VectorSearch, quantised, unit, whole

F32 = npt.NDArray[np.float32]
STORED = {"f16": np.float16, "f32": np.float32, "i8": np.int8}


def unit_rows(seed: int, rows: int, size: int) -> F32:
    found = np.random.default_rng(seed).normal(size=(rows, size)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def stored_as(vectors: F32, dtype: str) -> Any:
    return quantised(vectors) if dtype == "i8" else vectors.astype(STORED[dtype])


def best_slowly(stored: Any, query: F32, rows: list[int], k: int) -> list[tuple[float, int]]:
    """One row after another, in float64."""
    found = []
    for row in rows:
        vector = stored[row].astype(np.float64)
        cosine = float(vector @ query.astype(np.float64))
        found.append((-cosine / float(np.linalg.norm(vector)), row))
    return sorted(found)[:k]


def assert_best(result: SearchResult, stored: Any, queries: F32, rows: list[int], k: int) -> None:
    for n, query in enumerate(queries):
        expected = best_slowly(stored, query, rows, k)
        found = result.rows[n][result.rows[n] >= 0]
        assert set(found.tolist()) <= set(rows)
        assert len(found) == len(set(found.tolist())) == len(expected)
        expected_cosines = np.array([-cosine for cosine, _ in expected])
        # Float16 rounding of the query may swap rows that are this close at the end of the list.
        assert result.similarities[n, : len(found)] == pytest.approx(expected_cosines, abs=3e-4)
        assert np.all(np.isneginf(result.similarities[n, len(found) :]))


@pytest.fixture(params=["numkong", "numpy"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the library of kernels."""
    if request.param == "numpy":
        monkeypatch.setattr(vector_search, "find_spec", lambda _name: None)
    elif importlib.util.find_spec("numkong") is None:
        pytest.skip("this usearch comes without numkong")


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("size", [12, 100])
def test_exact_search_is_brute_force(dtype: str, size: int) -> None:
    stored = stored_as(unit_rows(0, 900, size), dtype)
    queries = unit_rows(1, 5, size)
    runs = [(10, 40), (40, 41), (300, 700)]
    keep = np.random.default_rng(2).random(431) < 0.4
    rows = np.concatenate([np.arange(*run) for run in runs])[keep].tolist()
    found = VectorSearch(stored).among(queries, 9, [RowBlock(runs, keep)])
    assert_best(found, stored, queries, rows, 9)
    found = VectorSearch(stored).among(queries, 9, whole(0, 900, None))
    assert_best(found, stored, queries, list(range(900)), 9)


@pytest.mark.parametrize("dtype", STORED)
def test_blocks_do_not_change_the_result(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = stored_as(unit_rows(0, 500, 32), dtype)
    stored[100:400:3] = stored[7]  # Many equal ones, so ties cross blocks.
    queries = np.concatenate([unit_rows(1, 4, 32), unit(stored[7:8])])
    one = VectorSearch(stored).among(queries, 20, whole(0, 500, None))
    monkeypatch.setattr(vector_search, "BLOCK_ROWS", 37)
    monkeypatch.setattr(vector_search, "_QUERIES", 2)
    many = VectorSearch(stored).among(queries, 20, whole(0, 500, None))
    assert np.array_equal(one.rows, many.rows)
    assert np.array_equal(one.similarities, many.similarities)


@pytest.mark.parametrize("dtype", STORED)
def test_of_equal_tiles_the_first_rows_come_first(dtype: str) -> None:
    stored = stored_as(unit_rows(0, 3000, 24), dtype)
    same = np.sort(np.random.default_rng(1).choice(3000, 700, replace=False))
    stored[same] = stored[same[0]]
    query = unit(stored[same[:1]])
    found = VectorSearch(stored).among(query, 30, whole(0, 3000, None))
    assert found.rows[0].tolist() == same[:30].tolist()


@pytest.mark.parametrize("dtype", ["f16", "i8"])
def test_a_query_alone_and_in_a_batch_have_the_same_answer(dtype: str) -> None:
    stored = stored_as(unit_rows(0, 800, 96), dtype)
    queries = unit_rows(1, 70, 96)
    search = VectorSearch(stored, graph_over(stored))
    together = search.among(queries, 6, whole(0, 800, None))
    walked = search.by_graph(queries, 6)
    for n in (0, 33, 69):
        alone = search.among(queries[n : n + 1], 6, whole(0, 800, None))
        assert np.array_equal(alone.rows[0], together.rows[n])
        assert np.array_equal(alone.similarities[0], together.similarities[n])
        assert np.array_equal(search.by_graph(queries[n : n + 1], 6).rows[0], walked.rows[n])


def graph_over(stored: Any) -> Index:
    graph = Index(ndim=stored.shape[1], metric="cos", dtype="i8")
    vectors = stored if stored.dtype == np.int8 else quantised(unit(stored))
    graph.add(np.arange(len(stored), dtype=np.uint64), vectors, threads=1)
    return graph


@pytest.mark.parametrize("dtype", STORED)
def test_a_graph_with_wide_view_finds_what_exact_search_finds(dtype: str) -> None:
    stored = stored_as(unit_rows(0, 2000, 32), dtype)
    queries = unit_rows(1, 50, 32)
    search = VectorSearch(stored, graph_over(stored), expansion=2000)
    exact = search.among(queries, 10, whole(0, 2000, None))
    walked = search.by_graph(queries, 10)
    same = (walked.rows[:, :, None] == exact.rows[:, None, :]).any(axis=2)
    assert same.mean() > 0.99
    assert np.all(np.diff(walked.similarities, axis=1) <= 0)


def test_a_narrow_view_finds_less_than_a_wide_one() -> None:
    stored = stored_as(unit_rows(0, 4000, 64), "f16")
    queries = unit_rows(1, 100, 64)
    search = VectorSearch(stored, graph_over(stored))
    exact = search.among(queries, 1, whole(0, 4000, None)).rows
    search.expand(4)
    narrow = np.mean(search.by_graph(queries, 1).rows == exact)
    search.expand(1000)
    wide = np.mean(search.by_graph(queries, 1).rows == exact)
    assert narrow < wide
    assert wide > 0.97


@pytest.mark.parametrize("share", [0.5, 0.05, 0.0])
def test_a_filtered_walk_loses_nothing(share: float) -> None:
    stored = stored_as(unit_rows(0, 3000, 32), "f16")
    queries = unit_rows(1, 20, 32)
    allowed_rows = np.random.default_rng(2).random(3000) < share
    search = VectorSearch(stored, graph_over(stored), expansion=3000)
    found = search.by_graph(
        queries,
        10,
        allowed=lambda rows: allowed_rows[rows],
        otherwise=lambda: whole(0, 3000, lambda rows: allowed_rows[rows]),
    )
    exact = search.among(queries, 10, whole(0, 3000, lambda rows: allowed_rows[rows]))
    assert np.all(allowed_rows[found.rows[found.rows >= 0]])
    same = (found.rows[:, :, None] == exact.rows[:, None, :]).any(axis=2)
    assert same.mean() > 0.98
    assert np.array_equal(found.rows >= 0, exact.rows >= 0)


def test_few_allowed_rows_are_compared_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = stored_as(unit_rows(0, 1500, 16), "f16")
    search = VectorSearch(stored, graph_over(stored))
    monkeypatch.setattr(vector_search, "_MOST_PROPOSED", 64)
    queries = unit_rows(1, 3, 16)
    rows = [3, 700, 1499]
    found = search.by_graph(
        queries,
        5,
        allowed=lambda some: np.isin(some, rows),
        otherwise=lambda: [RowBlock([(row, row + 1)], None) for row in rows],
    )
    assert_best(found, stored, queries, rows, 5)


def test_fewer_rows_than_asked_for_are_filled_up() -> None:
    stored = stored_as(unit_rows(0, 6, 16), "f16")
    queries = unit_rows(1, 2, 16)
    search = VectorSearch(stored, graph_over(stored))
    for found in (search.among(queries, 9, whole(0, 6, None)), search.by_graph(queries, 9)):
        assert_best(found, stored, queries, list(range(6)), 9)
        assert np.all(found.rows[:, 6:] == -1)
    empty = search.among(queries, 3, [])
    assert np.all(empty.rows == -1)
    assert np.all(np.isneginf(empty.similarities))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_queries_is_answered(count: int) -> None:
    stored = stored_as(unit_rows(0, 50, 16), "f16")
    search = VectorSearch(stored, graph_over(stored))
    for found in (
        search.among(unit_rows(1, count, 16), 4, whole(0, 50, None)),
        search.by_graph(unit_rows(1, count, 16), 4),
    ):
        assert found.rows.shape == found.similarities.shape == (count, 4)


def test_int8_keeps_directions_better_than_the_usual_scale() -> None:
    vectors = unit_rows(0, 200, 1024)
    kept = np.sum(unit(quantised(vectors)) * vectors, axis=1)
    usual = np.rint(vectors * 127).astype(np.int8)
    usual_kept = np.sum(unit(usual) * vectors, axis=1)
    assert kept.min() > 0.9998
    assert np.abs(quantised(vectors)).max(axis=1).tolist() == [127] * 200
    assert (1 - usual_kept).mean() > 10 * (1 - kept).mean()


def test_zeros_stay_zeros() -> None:
    assert not quantised(np.zeros((2, 4), np.float32)).any()
    assert not unit(np.zeros((2, 4), np.int8)).any()
