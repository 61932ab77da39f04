import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from usearch.index import Index

from edge_runtime.artefact import writing_artefact
from edge_runtime.bundle import Bundle
from edge_runtime.errors import IndexFolderError, InputError
from edge_runtime.geodesy import from_mercator_unit, haversine_m
from edge_runtime.index_format import (
    MARK_FEATURELESS,
    MARK_PARTIAL,
    SearchPlan,
    TileLevel,
)
from edge_runtime.satellite_index import (
    Circle,
    Ellipse,
    SatelliteIndex,
    centred,
    hilbert_order,
)
from edge_runtime.vector_search import quantised, unit

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@pytest.fixture
def index(index_dir: Path) -> Iterator[SatelliteIndex]:
    opened = SatelliteIndex.open(index_dir)
    yield opened
    opened.close()


def unit_rows(seed: int, rows: int, size: int) -> F32:
    found = np.random.default_rng(seed).normal(size=(rows, size)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def similarities_slowly(index: SatelliteIndex, query: F32) -> F64:
    """Cosine of every tile to one query, from the files alone, in float64."""
    moved = query.astype(np.float64) - np.load(index.root / "centre.npy")
    stored = np.load(index.root / "embeddings.npy").astype(np.float64)
    lengths = np.linalg.norm(stored, axis=1) * np.linalg.norm(moved)
    return np.asarray(stored @ moved / lengths)


def middle(index: SatelliteIndex) -> tuple[float, float]:
    return float(index.tiles["lat_deg"].mean()), float(index.tiles["lon_deg"].mean())


def resealed(root: Path, out: Path, **replaced: Any) -> Path:
    """A sealed index folder with some arrays replaced: sound bytes, perhaps unsound content."""
    meta = json.loads((root / "manifest.json").read_text())["meta"]
    with writing_artefact(out, "index", meta | replaced.pop("meta", {})) as folder:
        for path in root.iterdir():
            if path.name != "manifest.json" and not path.name.startswith("."):
                shutil.copy(path, folder / path.name)
        if "graph" in replaced:
            replaced.pop("graph").save(str(folder / "vectors.usearch"))
        for name, array in replaced.items():
            np.save(folder / f"{name}.npy", array)
    return out


def with_graph(root: Path, out: Path, *, add: Any = quantised, **changed: Any) -> Path:
    """The same index, its whole map searched by graph."""
    stored = np.load(root / "embeddings.npy")
    vectors = add(unit(stored))
    graph = Index(ndim=vectors.shape[1], metric="cos", dtype="i8" if add is quantised else "f16")
    graph.add(np.arange(len(vectors), dtype=np.uint64), vectors, threads=1)
    meta = {"search": asdict(SearchPlan(kind="graph", expansion=64)) | changed}
    return resealed(root, out, meta=meta, graph=graph)


@pytest.fixture(scope="session")
def graph_dir(index_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only: it is shared."""
    return with_graph(index_dir, tmp_path_factory.mktemp("graph") / "index")


def assert_best_of(found: F32, rows: Any, expected: F64, k: int) -> None:
    """Ranks may differ where float16 cannot tell two tiles apart; similarities may not."""
    assert len(set(rows.tolist())) == len(rows)
    assert found == pytest.approx(np.sort(expected)[::-1][:k], abs=2e-3)
    assert found == pytest.approx(expected[rows], abs=2e-3)


def test_a_search_of_the_whole_map_equals_brute_force(index: SatelliteIndex) -> None:
    queries = unit_rows(1, 20, 12)
    found = index.search(queries, 7)
    for query, rows, similarities in zip(queries, found.rows, found.similarities, strict=True):
        assert_best_of(similarities, rows, similarities_slowly(index, query), 7)


def test_a_search_near_a_place_equals_brute_force_within_the_circle(index: SatelliteIndex) -> None:
    lat, lon = middle(index)
    tiles = index.tiles
    inside = haversine_m(lat, lon, tiles["lat_deg"], tiles["lon_deg"]) <= 90.0
    assert 10 < np.count_nonzero(inside) < len(index) / 2
    queries = unit_rows(2, 20, 12)
    found = index.search(queries, 5, near=Circle(lat, lon, 90.0))
    for query, rows, similarities in zip(queries, found.rows, found.similarities, strict=True):
        assert inside[rows].all()
        allowed = np.where(inside, similarities_slowly(index, query), -2.0)
        assert_best_of(similarities, rows, allowed, 5)


def test_both_searches_agree_where_the_circle_holds_the_map(index: SatelliteIndex) -> None:
    queries = unit_rows(3, 10, 12)
    whole = index.search(queries, 10)
    near = index.search(queries, 10, near=Circle(*middle(index), 1e5))
    assert np.abs(whole.similarities - near.similarities).max() < 2e-3


def test_results_are_ordered_best_first(index: SatelliteIndex) -> None:
    queries = unit_rows(4, 10, 12)
    for near in (None, Circle(*middle(index), 120.0)):
        similarities = index.search(queries, 8, near=near).similarities
        assert np.all(np.diff(similarities, axis=1) <= 0)


def test_a_tiles_own_embedding_finds_the_tile(index: SatelliteIndex, fake_backend: Any) -> None:
    rows = [0, len(index) // 2, len(index) - 1]
    patches = [
        index.imagery.patch(*index.tiles[row].tolist()[:2], size_m=80.0, size_px=32).image
        for row in rows
    ]
    found = index.search(fake_backend.embed(np.stack(patches)), 1)
    assert found.rows[:, 0].tolist() == rows
    assert found.similarities[:, 0] == pytest.approx(1.0, abs=2e-3)


def test_missing_results_are_minus_one_and_minus_infinity(index: SatelliteIndex) -> None:
    queries = unit_rows(5, 3, 12)
    lat, lon = index.tiles[40].tolist()[:2]
    one = index.search(queries, 4, near=Circle(lat, lon, 1.0))
    assert np.all(one.rows == [40, -1, -1, -1])
    assert np.all(np.isneginf(one.similarities[:, 1:]))
    nothing = index.search(queries, 4, near=Circle(lat + 10, lon, 50.0))
    assert np.all(nothing.rows == -1)
    assert np.all(np.isneginf(nothing.similarities))
    more = index.search(queries, len(index) + 3)
    assert np.all(more.rows[:, -3:] == -1)
    assert np.all(np.sort(more.rows[:, :-3], axis=1) == np.arange(len(index)))


def test_no_queries_give_no_results(index: SatelliteIndex) -> None:
    found = index.search(np.zeros((0, 12), np.float32), 3)
    assert found.rows.shape == found.similarities.shape == (0, 3)


def test_the_graph_finds_nearly_what_brute_force_finds(
    index: SatelliteIndex, graph_dir: Path
) -> None:
    queries = unit_rows(6, 40, 12)
    exact = index.search(queries, 10)
    by_graph = SatelliteIndex.open(graph_dir).search(queries, 10)
    hits = (exact.rows[:, :, None] == by_graph.rows[:, None, :]).any(axis=2)
    assert hits.mean() > 0.98
    assert np.all(np.diff(by_graph.similarities, axis=1) <= 0)


def test_near_a_place_both_kinds_of_index_answer_alike(
    index: SatelliteIndex, graph_dir: Path
) -> None:
    queries = unit_rows(7, 10, 12)
    near = Circle(*middle(index), 130.0)
    found = SatelliteIndex.open(graph_dir).search(queries, 5, near=near)
    expected = index.search(queries, 5, near=near)
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.similarities, expected.similarities)


def test_a_search_in_an_ellipse_equals_brute_force_within_it(index: SatelliteIndex) -> None:
    lat, lon = middle(index)
    area = Ellipse(lat, lon, 150.0, 50.0, 60.0)
    inside = np.zeros(len(index), np.bool_)
    inside[index.rows_near(area)] = True
    assert 10 < np.count_nonzero(inside) < len(index) / 3
    queries = unit_rows(8, 10, 12)
    found = index.search(queries, 5, near=area)
    for query, rows, similarities in zip(queries, found.rows, found.similarities, strict=True):
        allowed = np.where(inside, similarities_slowly(index, query), -2.0)
        assert_best_of(similarities, rows, allowed, 5)


@pytest.fixture(params=["exact", "graph"])
def two_levels(
    request: pytest.FixtureRequest, index_dir: Path, tmp_path: Path
) -> Iterator[SatelliteIndex]:
    """The index cut into two levels, some tiles marked."""
    tiles = np.load(index_dir / "tiles.npy")
    tiles["marks"][::3] = MARK_FEATURELESS
    tiles["marks"][::5] |= MARK_PARTIAL
    first = len(tiles) * 2 // 3
    levels = [
        TileLevel(size_m=80.0, stride_m=25.0, rows=first),
        TileLevel(size_m=160.0, stride_m=50.0, first_row=first, rows=len(tiles) - first),
    ]
    meta = {"levels": [asdict(level) for level in levels]}
    root = resealed(index_dir, tmp_path / "levels", meta=meta, tiles=tiles)
    if request.param == "graph":
        root = with_graph(root, tmp_path / "graph", expansion=1000)
    opened = SatelliteIndex.open(root)
    yield opened
    opened.close()


@pytest.mark.parametrize("near", [False, True], ids=["whole map", "near"])
@pytest.mark.parametrize("level", [None, 0, 1])
@pytest.mark.parametrize("skip", [0, MARK_FEATURELESS, MARK_FEATURELESS | MARK_PARTIAL])
def test_levels_and_marks_limit_a_search(
    two_levels: SatelliteIndex, near: bool, level: int | None, skip: int
) -> None:
    index = two_levels
    area = Circle(*middle(index), 140.0)
    allowed = index.tiles["marks"] & skip == 0
    if level is not None:
        rows = index.levels[level].row_range
        allowed &= (np.arange(len(index)) >= rows.start) & (np.arange(len(index)) < rows.stop)
    if near:
        inside = np.zeros(len(index), np.bool_)
        inside[index.rows_near(area)] = True
        allowed &= inside
    queries = unit_rows(9, 10, 12)
    found = index.search(queries, 4, near=area if near else None, level=level, skip_marks=skip)
    for query, rows, similarities in zip(queries, found.rows, found.similarities, strict=True):
        expected = np.where(allowed, similarities_slowly(index, query), -2.0)
        assert allowed[rows].all()
        assert_best_of(similarities, rows, expected, 4)


@pytest.mark.parametrize("level", [-1, 1])
def test_a_level_that_is_not_there_is_refused(index: SatelliteIndex, level: int) -> None:
    with pytest.raises(InputError, match=rf"level is {level}; the index has 1"):
        index.search(unit_rows(1, 1, 12), 1, level=level)
    with pytest.raises(InputError, match=rf"level is {level}; the index has 1"):
        index.rows_near(Circle(0.0, 0.0, 1.0), level=level)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
def test_embeddings_come_as_unit_float32_however_stored(
    index_dir: Path, tmp_path: Path, dtype: Any
) -> None:
    stored = unit(np.load(index_dir / "embeddings.npy"))
    lowered = quantised(stored) if dtype is np.int8 else stored.astype(dtype)
    name = {"float16": "f16", "float32": "f32", "int8": "i8"}[np.dtype(dtype).name]
    meta = {"search": asdict(SearchPlan(dtype=name))}  # type: ignore[arg-type]
    root = resealed(index_dir, tmp_path / "index", meta=meta, embeddings=lowered)
    index = SatelliteIndex.open(root)
    found = index.unit_embeddings(slice(5, 60))
    assert found.dtype == np.float32
    assert found.flags.writeable
    assert found.flags.owndata
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert np.sum(found * stored[5:60], axis=1) == pytest.approx(1.0, abs=1e-3)
    assert np.array_equal(index.unit_embeddings(np.array([7, 5])), found[[2, 0]])


def test_rows_near_a_place_are_ascending_and_within_the_radius(index: SatelliteIndex) -> None:
    lat, lon = middle(index)
    rows = index.rows_near(Circle(lat, lon, 150.0))
    assert np.all(np.diff(rows) > 0)
    distances = haversine_m(lat, lon, index.tiles["lat_deg"], index.tiles["lon_deg"])
    # The sphere is up to 0.6 % off the ellipsoid.
    assert set(np.flatnonzero(distances < 149.1)) <= set(rows.tolist())
    assert set(rows.tolist()) <= set(np.flatnonzero(distances < 150.9))


def test_the_box_of_the_imagery_contains_its_tiles_and_nothing_far(index: SatelliteIndex) -> None:
    assert all(index.contains(*tile[:2]) for tile in index.tiles.tolist())
    lat, lon = middle(index)
    assert index.contains(lat, lon + 360)
    for away in ((lat + 1, lon), (lat - 1, lon), (lat, lon + 1), (lat, lon - 1), (lat, lon + 180)):
        assert not index.contains(*away)


def test_the_area_is_tiles_times_stride_squared(index: SatelliteIndex) -> None:
    assert index.area_m2() == len(index) * 25.0**2


def test_centring_takes_away_what_all_share() -> None:
    shared = unit_rows(0, 1, 12) * 3
    rows = unit_rows(7, 50, 12) + shared
    moved = centred(rows, rows.mean(axis=0))
    assert np.linalg.norm(moved, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert np.abs(moved.mean(axis=0)).max() < 0.3


def test_an_embedding_equal_to_the_centre_stays_finite() -> None:
    rows = unit_rows(8, 3, 12)
    assert np.isfinite(centred(rows, rows[1])).all()


def d2xy_slowly(side: int, d: int) -> tuple[int, int]:
    """Wikipedia, "Hilbert curve": cell (x, y) of step d on a square of `side` cells."""
    x = y = 0
    s = 1
    while s < side:
        rx = 1 & (d // 2)
        ry = 1 & (d ^ rx)
        if ry == 0:
            if rx == 1:
                x, y = s - 1 - x, s - 1 - y
            x, y = y, x
        x, y = x + s * rx, y + s * ry
        d //= 4
        s *= 2
    return x, y


def test_hilbert_order_is_the_published_curve() -> None:
    side = 16
    cells = np.array([(x, y) for y in range(side) for x in range(side)])
    place = from_mercator_unit(0.6 + cells[:, 0] * 1e-5, 0.3 + cells[:, 1] * 1e-5)
    order = hilbert_order(place.lat_deg, place.lon_deg)
    expected = [d2xy_slowly(side, d) for d in range(side * side)]
    assert [tuple(c) for c in cells[order].tolist()] == expected


@pytest.mark.parametrize("lon0", [8.0, 180.0], ids=["Europe", "across the antimeridian"])
def test_hilbert_order_is_a_permutation_and_neighbours_are_near(lon0: float) -> None:
    rng = np.random.default_rng(9)
    lat = 47 + rng.uniform(0, 0.1, 2000)
    lon = (lon0 + rng.uniform(-0.07, 0.07, 2000) + 180) % 360 - 180
    order = hilbert_order(lat, lon)
    assert np.array_equal(np.sort(order), np.arange(2000))
    steps = haversine_m(lat[order][:-1], lon[order][:-1], lat[order][1:], lon[order][1:])
    at_random = haversine_m(lat[:-1], lon[:-1], lat[1:], lon[1:])
    assert np.mean(steps) < np.mean(at_random) / 10


@pytest.mark.parametrize("count", [1, 2])
def test_hilbert_order_of_hardly_anything(count: int) -> None:
    order = hilbert_order(np.full(count, 47.0), np.full(count, 8.0))
    assert order.tolist() == list(range(count))


def test_the_index_of_this_encoder_is_accepted(index_dir: Path, bundle: Bundle) -> None:
    opened = SatelliteIndex.open(index_dir, bundle)
    assert opened.id == opened.manifest.id
    opened.close()
    opened.close()


def test_an_index_of_another_encoder_is_refused_with_how_to_make_it(
    index_dir: Path, bundle: Bundle
) -> None:
    other = replace(bundle, weights_sha256="cd" * 32)
    with pytest.raises(IndexFolderError, match=r"by encoder abab.*cdcd.*export index --bundle"):
        SatelliteIndex.open(index_dir, other)


def test_an_index_of_another_preprocessing_is_refused_with_how_to_make_it(
    index_dir: Path, bundle: Bundle
) -> None:
    other = replace(bundle, spec=replace(bundle.spec, mean=(0.4, 0.4, 0.4)))
    with pytest.raises(IndexFolderError, match=r"with preprocessing .*export index --bundle"):
        SatelliteIndex.open(index_dir, other)


@pytest.mark.parametrize(
    "queries",
    [
        pytest.param(np.full((2, 12), np.nan, np.float32), id="NaN"),
        pytest.param(np.full((2, 12), np.inf, np.float32), id="infinity"),
        pytest.param(np.zeros((2, 13), np.float32), id="another length"),
        pytest.param(np.zeros(12, np.float32), id="without a batch"),
    ],
)
@pytest.mark.parametrize("near", [None, Circle(47.5, 8.3, 100.0)], ids=["whole map", "near"])
def test_bad_queries_are_refused(index: SatelliteIndex, queries: F32, near: Circle | None) -> None:
    with pytest.raises(InputError, match=r"expected"):
        index.search(queries, 3, near=near)


@pytest.mark.parametrize("k", [0, -1])
def test_asking_for_nothing_is_refused(index: SatelliteIndex, k: int) -> None:
    with pytest.raises(InputError, match="expected k >= 1"):
        index.search(unit_rows(1, 1, 12), k)


@pytest.mark.parametrize(
    "name", ["vectors.usearch", "embeddings.npy", "tiles.npy", "centre.npy", "imagery.mbtiles"]
)
def test_an_altered_file_is_refused_before_usearch_sees_it(
    tmp_path: Path, index_dir: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(index_dir, tmp_path / "index"))
    data = bytearray((root / name).read_bytes())
    data[len(data) // 2] ^= 4
    (root / name).write_bytes(bytes(data))
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(IndexFolderError, match=rf"{name} has digest .* Copy the index folder"):
        SatelliteIndex.open(root)


@pytest.mark.parametrize("opened_before", [False, True])
def test_altered_bytes_of_a_graph_never_reach_usearch(
    tmp_path: Path, graph_dir: Path, opened_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.verified_files.STAMPED_FROM_BYTES", 0)
    root = Path(shutil.copytree(graph_dir, tmp_path / "index"))
    if opened_before:
        SatelliteIndex.open(root).close()
    sound = (root / "vectors.usearch").read_bytes()
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    rng = np.random.default_rng(0)
    broken = [sound[:n] for n in (0, 1, 63, 64, len(sound) // 2, len(sound) - 1)]
    broken += [sound + b"\0", sound[::-1]]
    for place in rng.integers(0, len(sound), 30):
        data = bytearray(sound)
        data[place] ^= 1 << int(rng.integers(8))
        broken.append(bytes(data))
    for content in broken:
        (root / "vectors.usearch").write_bytes(content)
        with pytest.raises(IndexFolderError, match=r"usearch has digest .* Copy the index folder"):
            SatelliteIndex.open(root)


def test_embeddings_altered_after_an_opening_are_refused_at_the_next(
    tmp_path: Path, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.verified_files.STAMPED_FROM_BYTES", 0)
    root = Path(shutil.copytree(index_dir, tmp_path / "index"))
    SatelliteIndex.open(root).close()
    data = bytearray((root / "embeddings.npy").read_bytes())
    data[-1] ^= 1
    (root / "embeddings.npy").write_bytes(bytes(data))
    for verify in (False, True):
        with pytest.raises(IndexFolderError, match=r"embeddings\.npy has digest"):
            SatelliteIndex.open(root, verify=verify)


def test_full_verification_does_not_believe_stamps(
    tmp_path: Path, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that rots: other bytes under the same identity."""
    root = Path(shutil.copytree(index_dir, tmp_path / "index"))
    monkeypatch.setattr("edge_runtime.verified_files.STAMPED_FROM_BYTES", 0)
    monkeypatch.setattr("edge_runtime.verified_files._identity", lambda _path: [0, 0, 0, 0, 0])
    SatelliteIndex.open(root).close()
    data = bytearray((root / "embeddings.npy").read_bytes())
    data[-1] ^= 1
    (root / "embeddings.npy").write_bytes(bytes(data))
    SatelliteIndex.open(root).close()
    with pytest.raises(IndexFolderError, match=r"embeddings\.npy has digest"):
        SatelliteIndex.open(root, verify=True)


def test_a_graph_over_other_vectors_is_refused(tmp_path: Path, index_dir: Path) -> None:
    fewer = with_graph(index_dir, tmp_path / "fewer", add=lambda v: v[:-1].astype(np.float16))
    with pytest.raises(IndexFolderError, match=r"is not a graph over \d+ vectors of 12 numbers"):
        SatelliteIndex.open(fewer)
    shorter = with_graph(index_dir, tmp_path / "short", add=lambda v: v[:, :-1].astype(np.float16))
    with pytest.raises(IndexFolderError, match=r"is not a graph over \d+ vectors of 12 numbers"):
        SatelliteIndex.open(shorter)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"usearch" + b"\0" * 100])
def test_a_sealed_graph_that_is_none_is_refused(
    tmp_path: Path, index_dir: Path, content: bytes
) -> None:
    """Sound by its digest; some versions of usearch crash on such a file."""

    class Written:
        @staticmethod
        def save(path: str) -> None:
            Path(path).write_bytes(content)

    meta = {"search": asdict(SearchPlan(kind="graph", expansion=64))}
    root = resealed(index_dir, tmp_path / "index", meta=meta, graph=Written)
    with pytest.raises(IndexFolderError, match=r"vectors\.usearch is not a graph"):
        SatelliteIndex.open(root)


def test_an_index_that_should_have_a_graph_and_has_none_is_refused(
    tmp_path: Path, index_dir: Path
) -> None:
    meta = json.loads((index_dir / "manifest.json").read_text())["meta"]
    meta["search"] = asdict(SearchPlan(kind="graph", expansion=64))
    with writing_artefact(tmp_path / "index", "index", meta) as folder:
        for path in index_dir.iterdir():
            if path.name in ("tiles.npy", "embeddings.npy", "centre.npy", "imagery.mbtiles"):
                shutil.copy(path, folder / path.name)
    with pytest.raises(IndexFolderError, match=r"does not list vectors\.usearch"):
        SatelliteIndex.open(tmp_path / "index")


@pytest.mark.parametrize(
    ("search", "match"),
    [
        pytest.param({"kind": "tree"}, "expected one of", id="unknown kind"),
        pytest.param({"depth": 3}, "another version", id="unknown name"),
        pytest.param({"dtype": "i8"}, "expected .*int8.*export index", id="another type"),
    ],
)
def test_an_unknown_plan_of_search_is_refused(
    tmp_path: Path, index_dir: Path, search: Any, match: str
) -> None:
    root = resealed(index_dir, tmp_path / "index", meta={"search": search})
    with pytest.raises(IndexFolderError, match=match):
        SatelliteIndex.open(root)


def test_an_empty_index_is_refused(tmp_path: Path, index_dir: Path) -> None:
    tiles, vectors = (np.load(index_dir / f"{name}.npy")[:0] for name in ("tiles", "embeddings"))
    meta = {"levels": [asdict(TileLevel(size_m=80.0, stride_m=25.0))]}
    root = resealed(index_dir, tmp_path / "index", meta=meta, tiles=tiles, embeddings=vectors)
    with pytest.raises(IndexFolderError, match=r"parts of different length.*\(0,\)"):
        SatelliteIndex.open(root)


def test_a_tile_that_is_nowhere_is_refused(tmp_path: Path, index_dir: Path) -> None:
    tiles = np.load(index_dir / "tiles.npy")
    tiles["lat_deg"][3] = np.inf
    root = resealed(index_dir, tmp_path / "index", tiles=tiles)
    with pytest.raises(IndexFolderError, match=r"position is not finite.*export index"):
        SatelliteIndex.open(root)


def test_a_truncated_or_missing_file_is_refused(tmp_path: Path, index_dir: Path) -> None:
    root = Path(shutil.copytree(index_dir, tmp_path / "index"))
    vectors = root / "vectors.usearch"
    vectors.write_bytes(vectors.read_bytes()[:100])
    with pytest.raises(IndexFolderError, match=r"vectors\.usearch has digest"):
        SatelliteIndex.open(root)
    vectors.unlink()
    with pytest.raises(IndexFolderError, match=r"vectors\.usearch cannot be read"):
        SatelliteIndex.open(root)


def test_parts_of_different_length_are_refused(tmp_path: Path, index_dir: Path) -> None:
    tiles = np.load(index_dir / "tiles.npy")
    root = resealed(index_dir, tmp_path / "index", tiles=tiles[:-1])
    with pytest.raises(IndexFolderError, match=r"parts of different length.*export index"):
        SatelliteIndex.open(root)


def test_an_index_without_a_tile_size_is_refused(tmp_path: Path, index_dir: Path) -> None:
    root = resealed(index_dir, tmp_path / "index", meta={"levels": [{"size_m": 80.0}]})
    with pytest.raises(IndexFolderError, match=r"cannot be opened as an index .*export index"):
        SatelliteIndex.open(root)


@pytest.mark.parametrize("name", ["centre", "embeddings"])
def test_vectors_of_another_size_are_refused(tmp_path: Path, index_dir: Path, name: str) -> None:
    array = np.load(index_dir / f"{name}.npy")
    root = resealed(index_dir, tmp_path / "index", **{name: array[..., :-1]})
    with pytest.raises(IndexFolderError):
        SatelliteIndex.open(root).close()


def test_what_is_not_an_index_is_refused_with_how_to_make_one(
    tmp_path: Path, bundle_dir: Path
) -> None:
    with pytest.raises(IndexFolderError, match="python -m export index"):
        SatelliteIndex.open(tmp_path)
    with pytest.raises(IndexFolderError, match="is a bundle folder; expected an index"):
        SatelliteIndex.open(bundle_dir)
