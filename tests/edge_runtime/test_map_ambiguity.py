import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime import map_ambiguity
from edge_runtime.artefact import writing_artefact
from edge_runtime.errors import InputError
from edge_runtime.geodesy import haversine_m
from edge_runtime.index_format import (
    CENTRE,
    EMBEDDINGS,
    IMAGERY,
    MARK_FEATURELESS,
    TILE_DTYPE,
    TILES,
    TileLevel,
)
from edge_runtime.map_ambiguity import default_far_m, score_tiles, tiles_to_score
from edge_runtime.map_places import classes_of, ground_geojson, look_alike_places, summarise
from edge_runtime.satellite_index import SatelliteIndex

F32 = npt.NDArray[np.float32]
MakeMap = Callable[..., SatelliteIndex]


@pytest.fixture
def make_map(tmp_path: Path, make_mbtiles: Callable[..., Path]) -> MakeMap:
    """Opens an index of given places and embeddings, in the given order."""

    def make(
        places: list[tuple[float, float]],
        embeddings: F32,
        *,
        marks: list[int] | None = None,
        headings_deg: tuple[float, ...] = (0.0,),
        stride_m: float = 25.0,
    ) -> SatelliteIndex:
        turns = np.tile(headings_deg, len(places) // len(headings_deg))
        tiles = np.zeros(len(places), TILE_DTYPE)
        tiles["lat_deg"], tiles["lon_deg"] = np.array(places).T
        tiles["heading_deg"], tiles["marks"] = turns, marks or 0
        level = TileLevel(
            size_m=100.0, stride_m=stride_m, headings_deg=headings_deg, rows=len(tiles)
        )
        meta = {
            "weights_sha256": "0" * 64,
            "preprocessing_sha256": "0" * 64,
            "architecture": "none",
            "sources": [],
            "levels": [asdict(level)],
        }
        root = tmp_path / "index"
        with writing_artefact(root, "index", meta) as folder:
            make_mbtiles(folder / IMAGERY, lambda x, _y: np.full((*x.shape, 3), 90, np.uint8))
            np.save(folder / TILES, tiles)
            np.save(folder / EMBEDDINGS, embeddings.astype(np.float16))
            np.save(folder / CENTRE, np.zeros(embeddings.shape[1], np.float32))
        return SatelliteIndex.open(root)

    return make


def row_of_places(
    count: int, step_m: float, *, lat_deg: float = 0.0, lon_deg: float = 10.0
) -> list[tuple[float, float]]:
    """Eastward along a parallel (one degree of the equator is 111,319.49 m)."""
    step = step_m / 111_319.49 / math.cos(math.radians(lat_deg))
    return [(lat_deg, (lon_deg + k * step + 180) % 360 - 180) for k in range(count)]


def unit_rows(seed: int, rows: int, size: int) -> F32:
    found = np.random.default_rng(seed).normal(size=(rows, size))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def all_rows(index: SatelliteIndex) -> npt.NDArray[np.int64]:
    return np.arange(len(index), dtype=np.int64)


def distances_slowly(index: SatelliteIndex) -> npt.NDArray[np.float64]:
    t = index.tiles
    return np.array([haversine_m(a, o, t["lat_deg"], t["lon_deg"]) for a, o, *_ in t.tolist()])


def chances_slowly(
    index: SatelliteIndex, far_m: float, likeness: float, views: int, within_m: float = math.inf
) -> npt.NDArray[np.float64]:
    """Make every view as the model says, and look it up."""
    rng = np.random.default_rng(77)
    stored = np.load(index.root / EMBEDDINGS).astype(np.float64)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    apart = distances_slowly(index)
    spread = np.linalg.cholesky(stored.T @ stored / len(stored) + 1e-9 * np.eye(stored.shape[1]))
    found = []
    for own, away in zip(stored, apart, strict=True):
        rest = rng.normal(size=(views, stored.shape[1])) @ spread.T
        similar = (likeness * own + math.sqrt(1 - likeness**2) * rest) @ stored.T
        similar[:, away > within_m] = -np.inf
        found.append(np.mean(away[similar.argmax(axis=1)] > far_m))
    return np.array(found)


def test_chances_are_those_of_really_made_views(index_dir: Path) -> None:
    index = SatelliteIndex.open(index_dir)
    for likeness in (0.3, 0.8):
        scores = score_tiles(
            index, index.level, all_rows(index), far_m=90.0, likeness=likeness, draws=3000
        )
        slowly = chances_slowly(index, 90.0, likeness, 3000)
        assert 0.02 < slowly.mean() < 0.9
        # Four standard deviations of the difference of two such shares, and one for every tile.
        assert np.abs(scores.chance - slowly).max() < 5 * math.sqrt(2 * 0.25 / 3000)
        assert scores.chance.mean() == pytest.approx(slowly.mean(), abs=0.02)


def test_two_orthogonal_places_are_mixed_up_as_the_normal_distribution_says(
    make_map: MakeMap,
) -> None:
    """The difference of the two similarities has mean c and deviation sqrt(1 - c^2)."""
    index = make_map(row_of_places(2, 500.0), np.eye(2, dtype=np.float32))
    for likeness in (0.3, 0.6, 0.9):
        scores = score_tiles(index, index.level, all_rows(index), likeness=likeness, draws=20_000)
        expected = 0.5 * math.erfc(likeness / math.sqrt(1 - likeness**2) / math.sqrt(2))
        assert scores.chance == pytest.approx(expected, abs=0.015)


def test_perfect_views_are_mixed_up_only_between_places_that_are_equal(make_map: MakeMap) -> None:
    embeddings = unit_rows(1, 5, 16)
    embeddings[4] = embeddings[1]
    index = make_map(row_of_places(5, 400.0), embeddings)
    scores = score_tiles(index, index.level, all_rows(index), likeness=1.0)
    assert scores.chance.tolist() == [0.0, 1.0, 0.0, 0.0, 1.0]
    assert scores.look_alike_row[[1, 4]].tolist() == [4, 1]
    assert scores.look_alike_m[1] == pytest.approx(1200.0, rel=1e-3)


@pytest.mark.parametrize("blocks", [(128, 4096), (7, 11)])
def test_look_alikes_and_neighbours_equal_brute_force_in_any_blocks(
    index_dir: Path, blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_ambiguity, "_QUERY_BLOCK", blocks[0])
    monkeypatch.setattr(map_ambiguity, "_TILE_BLOCK", blocks[1])
    index = SatelliteIndex.open(index_dir)
    rows = np.arange(3, len(index), 4, dtype=np.int64)
    scores = score_tiles(index, index.level, rows, far_m=100.0, draws=8)
    stored = np.load(index_dir / EMBEDDINGS).astype(np.float64)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    similar, apart = (stored @ stored.T)[rows], distances_slowly(index)[rows]
    far = np.where(apart > 100.0, similar, -np.inf)
    beside = np.where((apart > 0.5) & (apart <= 1.5 * index.level.stride_m), similar, -np.inf)
    # Stored as float16, vectors are of unit length to some 3e-4.
    assert scores.look_alike == pytest.approx(far.max(axis=1), abs=1e-3)
    assert scores.own == pytest.approx(beside.max(axis=1), abs=1e-3)
    assert scores.margin == pytest.approx(beside.max(axis=1) - far.max(axis=1), abs=1e-3)
    one = np.arange(len(rows))
    assert far[one, scores.look_alike_row] == pytest.approx(far.max(axis=1), abs=1e-3)
    assert scores.look_alike_m == pytest.approx(apart[one, scores.look_alike_row], rel=0.006)


def test_the_same_seed_gives_the_same_scores(index_dir: Path) -> None:
    index = SatelliteIndex.open(index_dir)
    one, two, other = (
        score_tiles(index, index.level, all_rows(index), far_m=90.0, draws=16, seed=seed).chance
        for seed in (3, 3, 4)
    )
    assert one.tolist() == two.tolist() != other.tolist()


def test_only_ground_within_the_prior_can_be_mistaken(make_map: MakeMap) -> None:
    embeddings = unit_rows(2, 4, 16)
    embeddings[3] = embeddings[0]
    index = make_map(row_of_places(4, 400.0), embeddings)
    rows = all_rows(index)[:1]
    near = score_tiles(index, index.level, rows, within_m=1000.0, likeness=1.0)
    whole = score_tiles(index, index.level, rows, likeness=1.0)
    assert (near.chance[0], whole.chance[0]) == (0.0, 1.0)
    assert near.look_alike_row[0] in (1, 2)
    lonely = score_tiles(index, index.level, rows, far_m=200.0, within_m=300.0)
    assert lonely.chance[0] == 0.0
    assert lonely.look_alike_row[0] == -1
    assert math.isnan(lonely.look_alike_m[0])


def test_the_antimeridian_is_not_far_from_itself(make_map: MakeMap) -> None:
    places = row_of_places(9, 30.0, lat_deg=-70.0, lon_deg=179.9985)
    assert places[0][1] > 0 > places[-1][1]
    index = make_map(places, unit_rows(3, 9, 8))
    scores = score_tiles(index, index.level, all_rows(index), far_m=300.0)
    assert scores.look_alike_row.tolist() == [-1] * 9
    assert not scores.chance.any()


def test_turned_copies_of_a_tile_are_neither_scored_twice_nor_neighbours(
    make_map: MakeMap,
) -> None:
    places = [p for p in row_of_places(3, 400.0) for _ in range(2)]
    index = make_map(places, unit_rows(4, 6, 8), headings_deg=(0.0, 180.0))
    rows, share = tiles_to_score(index, index.level)
    assert (rows.tolist(), share) == ([0, 2, 4], 1.0)
    assert np.isnan(score_tiles(index, index.level, rows).own).all()


def test_a_large_map_is_scored_in_part_and_evenly(index_dir: Path) -> None:
    index = SatelliteIndex.open(index_dir)
    rows, share = tiles_to_score(index, index.level, most_pairs=len(index) * 20)
    assert len(rows) == 20
    assert share == pytest.approx(20 / len(index))
    assert np.ptp(np.diff(rows)) <= 1
    assert (rows[0], rows[-1]) == (0, len(index) - 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"likeness": 0.0},
        {"likeness": 1.1},
        {"likeness": math.nan},
        {"far_m": -1.0},
        {"far_m": 100.0, "within_m": 100.0},
        {"draws": 0},
    ],
)
def test_what_makes_no_sense_is_refused(index_dir: Path, wrong: dict[str, float]) -> None:
    index = SatelliteIndex.open(index_dir)
    with pytest.raises(InputError, match=r"expected a likeness in \(0, 1\], 0 < far < within"):
        score_tiles(index, index.level, all_rows(index), **wrong)  # type: ignore[arg-type]


def test_classes_follow_chance_and_marks(make_map: MakeMap) -> None:
    embeddings = unit_rows(5, 5, 16)
    embeddings[4] = embeddings[1]
    marks = [MARK_FEATURELESS, 0, 0, 0, 0]
    index = make_map(row_of_places(5, 400.0), embeddings, marks=marks)
    scores = score_tiles(index, index.level, all_rows(index), likeness=1.0)
    found = classes_of(scores)
    assert found == ["featureless", "ambiguous", "clear", "clear", "ambiguous"]
    summary = summarise(
        scores,
        look_alike_places(scores, index.tiles),
        share_of_tiles=1.0,
        likeness=1.0,
        far_m=default_far_m(index.level),
        within_m=None,
    )
    assert summary.shares == {"clear": 0.4, "doubtful": 0.0, "ambiguous": 0.4, "featureless": 0.2}
    assert summary.chance_mean == pytest.approx(0.4)
    assert summary.worst[0].chance == 1.0
    assert summary.worst[0].look_alike_m == pytest.approx(1200.0, rel=1e-3)
    assert len({(w.lat_deg, w.lon_deg) for w in summary.worst}) == 5


def test_geojson_holds_a_closed_square_of_one_stride_around_every_tile(
    make_map: MakeMap,
) -> None:
    places = row_of_places(3, 400.0, lat_deg=60.0, lon_deg=179.99999)
    index = make_map(places, unit_rows(6, 3, 8), stride_m=40.0)
    scores = score_tiles(index, index.level, all_rows(index))
    found = ground_geojson(scores, index.level, look_alike_places(scores, index.tiles))
    assert [f["properties"]["row"] for f in found["features"]] == [0, 1, 2]
    for (lat, lon), feature in zip(places, found["features"], strict=True):
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        x, y = np.array(ring[:4]).T
        assert y.mean() == pytest.approx(lat, abs=1e-6)
        assert (x.mean() - lon + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
        assert np.ptp(x) < 0.001  # Not around the world.
        assert haversine_m(y[0], x[0], y[1], x[1]) == pytest.approx(40.0, rel=0.006)
        assert haversine_m(y[1], x[1], y[2], x[2]) == pytest.approx(40.0, rel=0.006)
        area = 0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)
        assert area > 0  # Counter-clockwise, as RFC 7946 asks.
