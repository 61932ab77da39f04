import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import InputError
from edge_runtime.geodesy import haversine_m
from train import exact_similarity
from train.neighbours import GpsMode, gps_neighbours, similarity_neighbours
from train.tile_overlap import TileExclusions

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


def nearest_slowly(lat_deg: F64, lon_deg: F64, k: int) -> I64:
    """All great-circle distances, sorted; a location is not its own neighbour."""
    apart = haversine_m(lat_deg[:, None], lon_deg[:, None], lat_deg, lon_deg)
    np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1, kind="stable")[:, :k]


def published_haversine(lat_deg: F64, lon_deg: F64) -> F64:
    """(T, T) the formula, given degrees where it wants radians."""
    half_lat = (lat_deg[:, None] - lat_deg) / 2
    half_lon = (lon_deg[:, None] - lon_deg) / 2
    h = np.sin(half_lat) ** 2
    h += np.cos(lat_deg[:, None]) * np.cos(lat_deg) * np.sin(half_lon) ** 2
    return np.asarray(2 * np.arcsin(np.sqrt(h.clip(0, 1))))


def places(centre: tuple[float, float], spread_deg: float, count: int) -> tuple[F64, F64]:
    rng = np.random.default_rng(4)
    lat = centre[0] + rng.uniform(-spread_deg, spread_deg, count)
    lon = centre[1] + rng.uniform(-spread_deg, spread_deg, count)
    return lat, (lon + 180) % 360 - 180


@pytest.mark.parametrize(
    ("centre", "spread_deg"),
    [
        pytest.param((47.6, 15.2), 0.01, id="a kilometre"),
        pytest.param((47.6, 15.2), 0.0001, id="ten metres"),
        pytest.param((40.0, -100.0), 20.0, id="a country"),
        pytest.param((10.0, 180.0), 0.05, id="across the antimeridian"),
        pytest.param((68.0, 0.0), 0.05, id="high latitude"),
        pytest.param((89.9, 0.0), 0.09, id="beside the pole"),
    ],
)
def test_gps_neighbours_are_the_nearest_on_the_ground(
    centre: tuple[float, float], spread_deg: float
) -> None:
    lat, lon = places(centre, spread_deg, 150)
    found = gps_neighbours(lat, lon, 12)
    assert found.dtype == np.int32
    assert np.array_equal(found, nearest_slowly(lat, lon, 12))


@pytest.mark.parametrize("spread_deg", [0.05, 1.0, 20.0])
def test_published_neighbours_are_those_of_its_haversine(spread_deg: float) -> None:
    # Wide enough for the degrees to wrap as radians: 20 of them are three turns.
    lat, lon = places((40.0, -95.0), spread_deg, 400)
    found = gps_neighbours(lat, lon, 16, mode="published")
    apart = published_haversine(lat, lon)
    np.fill_diagonal(apart, np.inf)
    chosen = np.take_along_axis(apart, found.astype(np.int64), axis=1)
    assert np.abs(chosen - np.sort(apart, axis=1)[:, :16]).max() < 1e-7
    assert not np.any(found == np.arange(400)[:, None])


def test_few_published_neighbours_of_a_country_are_true_ones() -> None:
    lat, lon = places((40.0, -95.0), 15.0, 2000)
    published = gps_neighbours(lat, lon, 16, mode="published").tolist()
    true = gps_neighbours(lat, lon, 16).tolist()
    shared = [len(set(a) & set(b)) / 16 for a, b in zip(published, true, strict=True)]
    assert np.mean(shared) < 0.2


def test_places_on_either_side_of_the_antimeridian_are_neighbours() -> None:
    found = gps_neighbours(np.zeros(4), np.array([179.999, -179.999, 179.9, -179.9]), 1)
    assert found[:, 0].tolist() == [1, 0, 0, 1]


def test_coincident_locations_are_each_others_neighbours_and_never_their_own() -> None:
    lat, lon = np.repeat([47.0, 47.001, 47.002], 5), np.full(15, 8.0)
    found = gps_neighbours(lat, lon, 4)
    for row in range(15):
        first = row // 5 * 5
        expected = [other for other in range(first, first + 5) if other != row]
        assert found[row].tolist() == expected, "the same spot, in the order of the locations"


@pytest.mark.parametrize("mode", ["metres", "published"])
def test_more_coincident_locations_than_neighbours_still_leave_out_each_one_itself(
    mode: GpsMode,
) -> None:
    found = gps_neighbours(np.full(30, 47.0), np.full(30, 8.0), 3, mode=mode)
    assert found.shape == (30, 3)
    assert not np.any(found == np.arange(30)[:, None])


@pytest.mark.parametrize("k", [5, 6, 100])
def test_few_locations_give_all_the_others(k: int) -> None:
    lat, lon = places((47.0, 8.0), 0.01, 6)
    by_distance = gps_neighbours(lat, lon, k)
    by_similarity = similarity_neighbours(
        unit_rows(1, 6), unit_rows(2, 6), k, tile_of_query=np.arange(6)
    )
    for found in (by_distance, by_similarity):
        assert found.shape == (6, 5)
        for row in range(6):
            assert sorted([*found[row].tolist(), row]) == list(range(6))


@pytest.mark.parametrize(
    ("lat", "k", "match"),
    [
        pytest.param([1.0], 3, "needs at least 2", id="one location"),
        pytest.param([1.0, 99.0], 3, r"is the order \(lat, lon\)", id="no latitude"),
        pytest.param([1.0, np.nan], 3, "latitude nan", id="no number"),
        pytest.param([1.0, 2.0], 0, "expected at least 1", id="none wanted"),
    ],
)
def test_locations_that_cannot_have_neighbours_say_so(lat: list[float], k: int, match: str) -> None:
    with pytest.raises(InputError, match=match):
        gps_neighbours(np.array(lat), np.zeros(len(lat)), k)


def unit_rows(seed: int, rows: int, size: int = 8) -> F32:
    found = np.random.default_rng(seed).normal(size=(rows, size))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def grid_rows(seed: int, rows: int) -> F32:
    """Small integers: scalar products are exact and tie often."""
    return np.random.default_rng(seed).integers(-2, 3, (rows, 4)).astype(np.float32)


def most_similar_slowly(
    queries: F32, references: F32, k: int, barred: list[set[int]]
) -> list[list[int]]:
    scores = queries.astype(np.float64) @ references.astype(np.float64).T
    return [
        [c for c in np.argsort(-row, kind="stable").tolist() if c not in own][:k]
        for row, own in zip(scores, barred, strict=True)
    ]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks with many borders and part-filled last ones."""
    monkeypatch.setattr(exact_similarity, "REFERENCE_BLOCK", 37)
    monkeypatch.setattr("train.neighbours.QUERY_BLOCK", 23)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("k", [1, 10, 60])
@pytest.mark.parametrize("rows", [grid_rows, unit_rows])
def test_similarity_neighbours_equal_brute_force_across_blocks_and_ties(
    rows: Callable[[int, int], F32], k: int
) -> None:
    # Several photos per tile, and tiles without any.
    queries, references = rows(1, 180), rows(2, 120)
    tile = np.random.default_rng(3).integers(0, 120, 180)
    found = similarity_neighbours(queries, references, k, tile_of_query=tile)
    assert found.dtype == np.int32
    expected = most_similar_slowly(queries, references, k, [{int(t)} for t in tile])
    assert found.tolist() == expected


@pytest.mark.usefixtures("small_blocks")
def test_excluded_tiles_are_nobodys_neighbours() -> None:
    queries, references = grid_rows(1, 90), grid_rows(2, 60)
    rng = np.random.default_rng(4)
    tile = rng.integers(0, 60, 90)
    excluded = TileExclusions.from_pairs(*rng.integers(0, 60, (2, 80)), count=60)
    found = similarity_neighbours(queries, references, 20, tile_of_query=tile, excluded=excluded)
    barred = [{int(t), *excluded.of(t).tolist()} for t in tile]
    assert found.tolist() == most_similar_slowly(queries, references, 20, barred)


def test_the_true_match_is_left_out_however_similar_it_is() -> None:
    same = unit_rows(6, 300)
    found = similarity_neighbours(same, same, 20, tile_of_query=np.arange(300))
    assert not np.any(found == np.arange(300)[:, None])


@pytest.mark.usefixtures("small_blocks")
def test_an_encoder_that_answers_the_same_to_everything_gives_the_first_tiles() -> None:
    constant = np.tile(unit_rows(6, 1, 1023), (100, 1))
    found = similarity_neighbours(constant, constant, 5, tile_of_query=np.arange(100))
    for row in range(100):
        assert found[row].tolist() == [c for c in range(6) if c != row][:5]


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_the_queries_give_the_parts_of_the_table(parts: int) -> None:
    # 64 numbers in float32: a plain matrix product would differ in its last bits. The tile that
    # excludes most decides how wide the table is, whichever part it is in.
    queries, references = unit_rows(1, 200, 64), unit_rows(2, 150, 64)
    tile = np.random.default_rng(3).integers(0, 150, 200)
    excluded = TileExclusions.from_pairs(np.full(40, tile[0]), np.arange(40), count=150)
    whole = similarity_neighbours(queries, references, 120, tile_of_query=tile, excluded=excluded)
    assert whole.shape[1] < 120
    edges = np.linspace(0, 200, parts + 1).astype(int)
    found = [
        similarity_neighbours(
            queries, references, 120, tile_of_query=tile, excluded=excluded, rows=slice(a, b)
        )
        for a, b in pairwise(edges)
    ]
    assert np.array_equal(np.concatenate(found), whole)


@pytest.mark.slow
def test_memory_does_not_grow_with_queries_times_references() -> None:
    queries, references = unit_rows(1, 15_000), unit_rows(2, 15_000)
    tracemalloc.start()
    similarity_neighbours(queries, references, 32, tile_of_query=np.arange(15_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 250 * 2**20 < 15_000**2 * 4 / 3


def test_an_empty_part_is_an_empty_table() -> None:
    found = similarity_neighbours(
        unit_rows(1, 9), unit_rows(2, 9), 3, tile_of_query=np.arange(9), rows=slice(4, 4)
    )
    assert found.shape == (0, 3)


def test_similarity_neighbours_do_not_change_what_they_are_given() -> None:
    queries, references = unit_rows(1, 50), unit_rows(2, 50)
    before = queries.copy(), references.copy()
    similarity_neighbours(queries, references, 5, tile_of_query=np.arange(50))
    assert np.array_equal(queries, before[0])
    assert np.array_equal(references, before[1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_an_embedding_that_is_not_finite_is_refused(value: float, which: int) -> None:
    views = [unit_rows(1, 20), unit_rows(2, 20)]
    views[which][7, 3] = value
    with pytest.raises(InputError, match="not finite"):
        similarity_neighbours(views[0], views[1], 5, tile_of_query=np.arange(20))


@pytest.mark.parametrize(
    ("tile", "exclusions", "match"),
    [
        pytest.param(np.arange(19), 20, "do not fit; expected one of 20 references", id="short"),
        pytest.param(np.arange(1, 21), 20, "do not fit; expected one of 20", id="out of range"),
        pytest.param(np.arange(20), 19, "expected as many", id="exclusions of other tiles"),
    ],
)
def test_columns_that_do_not_fit_are_refused(tile: I64, exclusions: int, match: str) -> None:
    none = np.empty(0, np.int64)
    excluded = TileExclusions.from_pairs(none, none, count=exclusions)
    with pytest.raises(InputError, match=match):
        similarity_neighbours(
            unit_rows(1, 20), unit_rows(2, 20), 5, tile_of_query=tile, excluded=excluded
        )


def test_a_query_that_excludes_every_tile_is_refused() -> None:
    excluded = TileExclusions.from_pairs(np.zeros(8, np.int64), np.arange(8), count=8)
    with pytest.raises(InputError, match="more tiles or fewer exclusions"):
        similarity_neighbours(
            unit_rows(1, 8), unit_rows(2, 8), 3, tile_of_query=np.arange(8), excluded=excluded
        )
