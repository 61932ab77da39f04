import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import GateError, InputError
from edge_runtime.graph_file import open_graph
from edge_runtime.index_format import SearchPlan, TileLevel, search_from_json
from edge_runtime.vector_search import VectorSearch, centred, unit, whole
from export import index_vectors
from export.index_vectors import recall_at, write_vectors

F32 = npt.NDArray[np.float32]


def like_a_map(rows: int = 3000, size: int = 64, seed: int = 0) -> F32:
    """Unit rows that share a mean, lie mostly in a few directions and resemble their neighbours."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(size=(rows, 24)), axis=0)
    walk = walk - np.linspace(0, 1, rows)[:, None] * walk[-1] + 6 * rng.normal(size=(rows, 24))
    found = walk / (1 + np.arange(24)) ** 0.5 @ rng.normal(size=(24, size)) + 30.0
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def one_level(rows: int) -> list[TileLevel]:
    return [TileLevel(size_m=80.0, stride_m=40.0, rows=rows)]


def written(folder: Path, embeddings: Any, **options: Any) -> SearchPlan:
    folder.mkdir(exist_ok=True)
    found = write_vectors(folder, embeddings, one_level(len(embeddings)), **options)
    return search_from_json(json.loads(json.dumps(found)))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("dtype", "stored", "least"), [("f16", "f2", 0.999999), ("f32", "f4", 1), ("i8", "i1", 0.9997)]
)
def test_stored_vectors_are_the_centred_embeddings(
    tmp_path: Path, dtype: str, stored: str, least: float
) -> None:
    embeddings = like_a_map()
    plan = written(tmp_path, embeddings, dtype=dtype, min_recall=0.9)
    found = np.load(tmp_path / "embeddings.npy")
    centre = np.load(tmp_path / "centre.npy")
    assert (plan.dtype, found.dtype) == (dtype, np.dtype(stored))
    assert centre == pytest.approx(embeddings.astype(np.float64).mean(axis=0), abs=1e-7)
    cosines = np.sum(unit(found) * centred(embeddings, centre), axis=1)
    assert cosines.min() >= least - 1e-6


@pytest.mark.parametrize("dtype", ["f16", "f32", "i8"])
@pytest.mark.parametrize("kind", ["exact", "graph"])
def test_the_recall_that_is_recorded_is_true(tmp_path: Path, dtype: Any, kind: Any) -> None:
    """The same questions, asked of the written files and answered in float64 besides."""
    embeddings = like_a_map()
    plan = written(tmp_path, embeddings, dtype=dtype, kind=kind, min_recall=0.5)
    centre = np.load(tmp_path / "centre.npy")
    queries, _ = index_vectors._questions(embeddings, centre, lambda _stage, _done: None)
    assert len(queries) == plan.queries == 256
    tiles = embeddings.astype(np.float64) - centre
    tiles /= np.linalg.norm(tiles, axis=1, keepdims=True)
    truth = np.argsort(-(queries.astype(np.float64) @ tiles.T), axis=1)[:, :10]
    stored = np.load(tmp_path / "embeddings.npy")
    if kind == "exact":
        found = VectorSearch(stored).among(queries, 10, whole(0, len(stored), None)).rows
    else:
        assert plan.expansion is not None
        graph = open_graph(tmp_path / "vectors.usearch", *stored.shape)
        found = VectorSearch(stored, graph, expansion=plan.expansion).by_graph(queries, 10).rows
    hits = [len(set(a) & set(b)) for a, b in zip(truth.tolist(), found.tolist(), strict=True)]
    assert plan.recall_at_10 is not None
    # Truth in float32 and in float64 may differ in the tenth place.
    assert plan.recall_at_10 == pytest.approx(np.mean(hits) / 10, abs=2e-3)
    assert plan.recall_at_10 >= (0.999 if (dtype, kind) == ("f32", "exact") else 0.9)


def test_queries_are_off_every_tile_and_nearest_to_their_own() -> None:
    embeddings = like_a_map()
    centre = embeddings.mean(axis=0)
    queries, rows = index_vectors._questions(embeddings, centre, lambda _stage, _done: None)
    cosines = queries @ centred(embeddings, centre).T
    best = cosines.max(axis=1)
    assert 0.5 < np.median(best) < 0.97
    top = np.take_along_axis(cosines, rows, axis=1)
    assert np.sort(top, axis=1)[:, -1] == pytest.approx(best, abs=1e-5)


def test_small_maps_are_exact_and_large_ones_have_a_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = like_a_map(500)
    small = written(tmp_path / "small", embeddings)
    assert (small.kind, small.expansion) == ("exact", None)
    assert not (tmp_path / "small" / "vectors.usearch").exists()
    monkeypatch.setattr(index_vectors, "EXACT_NUMBERS", 500 * 64 - 1)
    large = written(tmp_path / "large", embeddings)
    assert large.kind == "graph"
    assert len(open_graph(tmp_path / "large" / "vectors.usearch", 500, 64)) == 500


def test_the_view_is_widened_until_the_recall_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_vectors, "EXPANSIONS", (1, 512))
    monkeypatch.setattr(index_vectors, "EXPANSION_ADD", 8)
    monkeypatch.setattr(index_vectors, "CONNECTIVITY", 3)
    monkeypatch.setattr("edge_runtime.vector_search.PROPOSED", 1)
    embeddings = like_a_map(size=96)
    loose = written(tmp_path / "loose", embeddings, kind="graph", min_recall=0.0)
    assert loose.expansion == 1
    assert loose.recall_at_10 is not None
    assert loose.recall_at_10 < 0.95
    strict = written(
        tmp_path / "strict", embeddings, kind="graph", min_recall=loose.recall_at_10 + 0.01
    )
    assert strict.expansion == 512
    assert strict.recall_at_10 is not None
    assert strict.recall_at_10 > loose.recall_at_10


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        pytest.param({"kind": "graph"}, "search it exactly, or accept", id="graph"),
        pytest.param({"kind": "graph", "dtype": "i8"}, "exactly or store f16", id="graph of i8"),
        pytest.param({"kind": "exact", "dtype": "i8"}, "store f16, or accept", id="i8"),
    ],
)
def test_a_recall_that_cannot_be_reached_is_refused_with_what_to_do(
    tmp_path: Path, options: Any, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_vectors, "recall_at", lambda _truth, _found: 0.97)
    with pytest.raises(GateError, match=rf"finds 97.00% .* expected 99.00%: .*{remedy}"):
        written(tmp_path, like_a_map(300), **options)


@pytest.mark.parametrize("kind", ["exact", "graph"])
def test_the_same_embeddings_give_the_same_bytes(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = like_a_map()
    np.save(tmp_path / "raw.npy", embeddings)
    first = written(tmp_path / "a", embeddings, kind=kind)
    mapped = np.load(tmp_path / "raw.npy", mmap_mode="r")
    second = written(tmp_path / "b", mapped, kind=kind)
    assert first == second
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_embeddings_are_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that refuses to be read in pieces larger than a chunk."""

    class Guarded(np.ndarray):
        def __array__(self, *args: Any, **options: Any) -> Any:
            assert len(self) <= 1000, f"{len(self)} rows read at once"
            return np.array(self.view(np.ndarray), *args, **options)

        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            assert len(found) <= 1000, f"{len(found)} rows read at once"
            return found

    monkeypatch.setattr(index_vectors, "_CHUNK_NUMBERS", 1000 * 64)
    embeddings = like_a_map()
    written(tmp_path / "a", embeddings.view(Guarded), kind="graph")
    written(tmp_path / "b", embeddings, kind="graph")
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_few_tiles_are_not_centred(tmp_path: Path) -> None:
    plan = written(tmp_path, like_a_map(3))
    assert not np.load(tmp_path / "centre.npy").any()
    assert (plan.queries, plan.recall_at_10) == (3, 1.0)


def test_float16_embeddings_are_taken(tmp_path: Path) -> None:
    embeddings = like_a_map()
    plan = written(tmp_path, embeddings.astype(np.float16))
    assert plan.recall_at_10 is not None
    assert plan.recall_at_10 >= 0.99


def test_an_embedding_that_is_not_finite_is_named(tmp_path: Path) -> None:
    embeddings = like_a_map(200)
    embeddings[150, 3] = np.nan
    with pytest.raises(InputError, match=r"embedding of tile 150 is not finite.*doctor"):
        written(tmp_path, embeddings)


@pytest.mark.parametrize("rows", [0, 199])
def test_embeddings_that_do_not_fit_the_levels_are_refused(tmp_path: Path, rows: int) -> None:
    with pytest.raises(InputError, match=f"there are {rows} embeddings; expected .* 200"):
        write_vectors(tmp_path, like_a_map(200)[:rows], one_level(200))


def test_progress_ends_at_one(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    written(tmp_path, like_a_map(200), kind="graph", progress=lambda *args: told.append(args))
    assert told[-1] == ("measuring recall", 1.0)
    assert all(0 < done <= 1 for _, done in told)
    assert "building the graph" in dict(told)


def test_recall_counts_the_true_ones_found() -> None:
    truth = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert recall_at(truth, np.array([[4, 3, 9, -1], [5, 6, 7, 8]])) == 0.75
