import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import InputError
from edge_runtime.geodesy import haversine_m
from train.neighbours import gps_neighbours, similarity_neighbours

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


def nearest_slowly(lat_deg: F64, lon_deg: F64, k: int) -> I64:
    """All great-circle distances, sorted; a location is not its own neighbour."""
    apart = haversine_m(lat_deg[:, None], lon_deg[:, None], lat_deg, lon_deg)
    np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1, kind="stable")[:, :k]


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
    assert found.dtype == np.int64
    assert np.array_equal(found, nearest_slowly(lat, lon, 12))


def test_places_on_either_side_of_the_antimeridian_are_neighbours() -> None:
    found = gps_neighbours(np.zeros(4), np.array([179.999, -179.999, 179.9, -179.9]), 1)
    assert found[:, 0].tolist() == [1, 0, 0, 1]


def test_coincident_locations_are_each_others_neighbours_and_never_their_own() -> None:
    lat, lon = np.repeat([47.0, 47.001, 47.002], 5), np.full(15, 8.0)
    found = gps_neighbours(lat, lon, 4)
    assert np.all(found // 5 == np.arange(15)[:, None] // 5), "another spot before the same one"
    for row in range(15):
        assert row not in found[row]
        assert len(set(found[row].tolist())) == 4


def test_more_coincident_locations_than_neighbours_still_leave_out_each_one_itself() -> None:
    found = gps_neighbours(np.full(30, 47.0), np.full(30, 8.0), 3)
    assert found.shape == (30, 3)
    assert not np.any(found == np.arange(30)[:, None])


@pytest.mark.parametrize("k", [5, 6, 100])
def test_few_locations_give_all_the_others(k: int) -> None:
    lat, lon = places((47.0, 8.0), 0.01, 6)
    by_distance = gps_neighbours(lat, lon, k)
    rng = np.random.default_rng(1)
    by_similarity = similarity_neighbours(unit_rows(rng, 6), unit_rows(rng, 6), k)
    for found in (by_distance, by_similarity):
        assert found.shape == (6, 5)
        for row in range(6):
            assert sorted([*found[row].tolist(), row]) == list(range(6))


def test_degrees_taken_for_radians_would_give_other_neighbours() -> None:
    # The published scripts do this (FACTS section 3): on a country few of theirs are true ones.
    lat, lon = places((40.0, -95.0), 15.0, 400)
    wrong_lat, wrong_lon = np.degrees(lat), np.degrees(lon)  # Degrees read as radians.
    trap = nearest_slowly(wrong_lat, wrong_lon, 16)
    found = gps_neighbours(lat, lon, 16)
    true = nearest_slowly(lat, lon, 16)
    shared = [len(set(a) & set(b)) / 16 for a, b in zip(trap.tolist(), true.tolist(), strict=True)]
    assert np.mean(shared) < 0.5
    assert np.array_equal(found, true)


def test_one_location_has_no_neighbours_and_says_so() -> None:
    with pytest.raises(InputError, match="needs at least 2"):
        gps_neighbours(np.array([1.0]), np.array([2.0]), 3)


def unit_rows(rng: np.random.Generator, rows: int, size: int = 8) -> F32:
    found = rng.normal(size=(rows, size))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def test_similarity_neighbours_equal_brute_force_across_the_blocks() -> None:
    # 1,024 rows make a block: 2,100 have two borders and a part-filled last one.
    rng = np.random.default_rng(5)
    queries, references = unit_rows(rng, 2100), unit_rows(rng, 2100)
    found = similarity_neighbours(queries, references, 10)
    scores = queries.astype(np.float64) @ references.astype(np.float64).T
    np.fill_diagonal(scores, -np.inf)
    expected = -np.sort(-scores, axis=1)[:, :10]
    chosen = np.take_along_axis(scores, found, axis=1)
    assert np.abs(chosen - expected).max() < 1e-6  # float32 may swap equal ones.
    assert np.mean(found == np.argsort(-scores, axis=1)[:, :10]) > 0.999


def test_the_true_match_is_left_out_however_similar_it_is() -> None:
    same = unit_rows(np.random.default_rng(6), 1500)
    found = similarity_neighbours(same, same, 20)
    assert not np.any(found == np.arange(1500)[:, None])


def test_similarity_neighbours_do_not_change_what_they_are_given() -> None:
    rng = np.random.default_rng(7)
    queries, references = unit_rows(rng, 50), unit_rows(rng, 50)
    before = queries.copy(), references.copy()
    similarity_neighbours(queries, references, 5)
    assert np.array_equal(queries, before[0])
    assert np.array_equal(references, before[1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_an_embedding_that_is_not_finite_is_refused(value: float, which: int) -> None:
    rng = np.random.default_rng(8)
    views = [unit_rows(rng, 20), unit_rows(rng, 20)]
    views[which][7, 3] = value
    with pytest.raises(InputError, match="not finite"):
        similarity_neighbours(views[0], views[1], 5)


def test_views_of_different_shape_are_refused() -> None:
    rng = np.random.default_rng(9)
    with pytest.raises(InputError, match="expected the same"):
        similarity_neighbours(unit_rows(rng, 20), unit_rows(rng, 19), 5)
