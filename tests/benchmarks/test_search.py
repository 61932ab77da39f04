from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.rows import append_rows, read_rows
from benchmarks.search import run
from benchmarks.search_contenders import recall
from benchmarks.search_map import SimulatedMap
from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m
from edge_runtime.vector_search import centred


def test_each_contender_is_measured_at_each_task_and_finds_the_nearest(tmp_path: Path) -> None:
    said: list[str] = []
    rows = run(
        tiles=1500,
        dimensions=32,
        radius_m=600.0,
        calls=5,
        batch=3,
        contenders=("skyfix", "numpy"),
        folder=tmp_path,
        said=said.append,
    )
    assert [(row.contender, row.task) for row in rows] == [
        (contender, task)
        for contender in ("skyfix", "numpy")
        for task in ("open", "whole map", "circle")
    ]
    for row in rows:
        assert 0 < row.p50_ms <= row.p99_ms
        assert row.files_mib > 1500 * 32 * 2 / 2**20
        if row.task != "open":
            assert row.recall_at_10 is not None
            assert row.recall_at_10 > 0.99
        if row.task == "circle":
            assert row.compared_tiles is not None
            assert 70 < row.compared_tiles < np.pi * 6**2 + 3, "fewer at the map's edges"
    assert rows[0].library.startswith("usearch ")
    assert not list(tmp_path.iterdir())
    append_rows(tmp_path / "rows.jsonl", rows)
    assert [row["task"] for row in read_rows(tmp_path / "rows.jsonl", kind="search")] == [
        row.task for row in rows
    ]
    assert asdict(rows[1])["queries_per_call"] == 3


def test_a_missing_faiss_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.search.find_spec", lambda _name: None)
    said: list[str] = []
    with pytest.raises(InputError, match="0 contenders"):
        run(contenders=("faiss flat", "faiss hnsw"), said=said.append)
    assert "pip install faiss-cpu" in said[0]


@pytest.mark.parametrize("count", [{"tiles": 0}, {"calls": 0}, {"batch": 0}, {"dimensions": 0}])
def test_counts_below_one_are_refused(count: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected 1 or more"):
        run(**count)  # type: ignore[arg-type]


def test_the_made_up_map_resembles_real_ones(tmp_path: Path) -> None:
    """Bounds around figures of two real maps (1280 dimensions, 728 and 1932 tiles)."""
    made = SimulatedMap(2500, 512, stride_m=40.0)
    made.write(str(tmp_path / "e.npy"))
    raw = np.load(tmp_path / "e.npy").astype(np.float32)
    vectors = centred(raw, raw.mean(axis=0))
    spectrum = np.linalg.eigvalsh(np.cov(vectors.T))[::-1]
    half = int(np.searchsorted(np.cumsum(spectrum) / spectrum.sum(), 0.5)) + 1
    assert 8 <= half <= 20
    neighbours = float(np.mean(np.sum(vectors[:-1] * vectors[1:], axis=1)))
    assert 0.55 < neighbours < 0.75
    rows, queries = made.queries(200)
    cosines = centred(queries, raw.mean(axis=0)) @ vectors.T
    own = cosines[np.arange(200), rows]
    assert 0.6 < own.mean() < 0.85
    assert np.mean(own > cosines.mean(axis=1) + 3 * cosines.std(axis=1)) > 0.9


def test_the_made_up_map_is_seeded_and_its_tiles_are_a_stride_apart(tmp_path: Path) -> None:
    one, two = (SimulatedMap(400, 16, stride_m=70.0, seed=3) for _ in range(2))
    one.write(str(tmp_path / "one.npy"))
    two.write(str(tmp_path / "two.npy"))
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()
    lat, lon = one.tiles["lat_deg"], one.tiles["lon_deg"]
    far = distance_m(lat[:, None], lon[:, None], lat, lon) + np.eye(400) * 1e9
    assert far.min(axis=1) == pytest.approx(70.0, rel=1e-3)


def test_recall_ignores_missing_true_rows() -> None:
    assert recall(np.array([[1, 2, -1], [3, -1, -1]]), np.array([[2, -1, -1], [3, 4, 5]])) == (
        pytest.approx(2 / 3)
    )
