import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import InputError
from edge_runtime.geodesy import enu_offset_m, move_lat_lon
from train.tile_overlap import TileExclusions, overlapping_tiles

F64 = npt.NDArray[np.float64]

SEEDED = settings(derandomize=True, deadline=None, max_examples=40)


def lists_of(found: TileExclusions) -> list[set[int]]:
    return [set(found.of(tile).tolist()) for tile in range(len(found))]


def overlaps_slowly(lat: F64, lon: F64, size: F64, min_overlap: float) -> list[set[int]]:
    """Every pair of squares, by the area they share."""
    out: list[set[int]] = [set() for _ in size]
    for one in range(len(size)):
        for other in range(len(size)):
            east, north = enu_offset_m(lat[one], lon[one], lat[other], lon[other])
            sides = [
                min(size[one] / 2, apart + size[other] / 2)
                - max(-size[one] / 2, apart - size[other] / 2)
                for apart in (float(east), float(north))
            ]
            smaller = min(size[one], size[other])
            more_than_touching = min(sides) > 1e-3 * smaller
            enough = sides[0] * sides[1] > min_overlap * smaller**2
            if one != other and more_than_touching and enough:
                out[one].add(other)
    return out


@SEEDED
@given(
    seed=st.integers(0, 2**32 - 1),
    centre=st.sampled_from([(0.0, 0.0), (47.0, 8.0), (52.0, 180.0), (-84.0, -180.0), (89.5, 40.0)]),
    min_overlap=st.sampled_from([0.0, 0.2, 0.9]),
    spread=st.sampled_from([1.0, 100.0, 400.0]),
)
def test_overlaps_are_those_of_every_pair_looked_at(
    seed: int, centre: tuple[float, float], min_overlap: float, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    east, north = rng.uniform(-spread, spread, (2, 25))
    lat, lon = move_lat_lon(centre[0], centre[1], east, north)
    size = rng.uniform(30, 120, 25)
    found = overlapping_tiles(lat, lon, size, min_overlap=min_overlap)
    assert lists_of(found) == overlaps_slowly(lat, lon, size, min_overlap)


@pytest.mark.parametrize("lat", [0.0, 47.6, -80.0])
def test_half_overlapping_grid_excludes_its_eight_neighbours_and_a_touching_one_none(
    lat: float,
) -> None:
    # Squares of 72 m every 36 m, as VIGOR's, and every 72 m.
    side = np.arange(5.0)
    east, north = (v.ravel() for v in np.meshgrid(side, side))
    for step, inner in ((36.0, 8), (72.0, 0)):
        lats, lons = move_lat_lon(lat, 179.999, east * step, north * step)
        counts = overlapping_tiles(lats, lons, np.full(25, 72.0)).counts().reshape(5, 5)
        assert counts[2, 2] == inner
        assert counts[0, 0] == {8: 3, 0: 0}[inner]


def test_min_overlap_is_a_share_of_the_smaller_footprint() -> None:
    # A square of 40 m whose half lies within one of 100 m.
    lat, lon = move_lat_lon(10.0, 10.0, np.array([0.0, 50.0]), np.zeros(2))
    size = np.array([100.0, 40.0])
    assert overlapping_tiles(lat, lon, size, min_overlap=0.49).counts().tolist() == [1, 1]
    assert overlapping_tiles(lat, lon, size, min_overlap=0.51).counts().tolist() == [0, 0]


def test_footprints_overlap_across_the_antimeridian() -> None:
    lat, lon = np.zeros(3), np.array([179.9999, -179.9999, 0.0])
    assert lists_of(overlapping_tiles(lat, lon, np.full(3, 50.0))) == [{1}, {0}, set()]


def test_no_tiles_overlap_nothing() -> None:
    none = np.empty(0)
    assert len(overlapping_tiles(none, none, none)) == 0


@SEEDED
@given(
    pairs=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=30),
    more=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=30),
)
def test_exclusions_hold_both_ways_once_and_never_for_oneself(
    pairs: list[tuple[int, int]], more: list[tuple[int, int]]
) -> None:
    def made(of: list[tuple[int, int]]) -> TileExclusions:
        first, second = np.array(of, np.int64).reshape(-1, 2).T
        return TileExclusions.from_pairs(first, second, count=9)

    def expected(of: list[tuple[int, int]]) -> list[set[int]]:
        return [
            {b for a, b in of if a == tile != b} | {a for a, b in of if b == tile != a}
            for tile in range(9)
        ]

    found = made(pairs)
    assert lists_of(found) == expected(pairs)
    assert found.counts().tolist() == [len(s) for s in expected(pairs)]
    assert lists_of(found | made(more)) == expected(pairs + more)
    asked = np.array([3, 8, 3, 0])
    owner, tiles = found.pairs_of(asked)
    for place, tile in enumerate(asked):
        assert tiles[owner == place].tolist() == sorted(expected(pairs)[tile])


def test_semi_positives_of_one_photo_hold_for_its_tile() -> None:
    found = TileExclusions.from_semi_positives(
        np.array([0, 0, 3]), np.array([[1, 2, 4], [1, 2, 5], [4, 5, 1]]), count=6
    )
    assert lists_of(found) == [{1, 2, 4, 5}, {0, 3}, {0}, {1, 4, 5}, {0, 3}, {0, 3}]


def test_no_semi_positives_exclude_nothing() -> None:
    found = TileExclusions.from_semi_positives(np.arange(4), np.empty((0, 0), np.int64), count=4)
    assert lists_of(found) == [set()] * 4


@pytest.mark.parametrize(
    ("change", "match"),
    [
        pytest.param({"size_m": np.array([1.0, 0.0])}, "not a positive number of metres", id="0"),
        pytest.param({"size_m": np.array([1.0, np.nan])}, "not a positive number", id="NaN"),
        pytest.param({"size_m": np.ones(3)}, "expected as many of each", id="length"),
        pytest.param({"lat_deg": np.array([0.0, 95.0])}, r"is the order \(lat, lon\)", id="order"),
        pytest.param({"min_overlap": 1.0}, "expected 0 to below 1", id="share"),
    ],
)
def test_impossible_footprints_are_refused(change: dict[str, F64], match: str) -> None:
    given_columns = {"lat_deg": np.zeros(2), "lon_deg": np.zeros(2), "size_m": np.ones(2)}
    with pytest.raises(InputError, match=match):
        overlapping_tiles(**{**given_columns, **change})  # type: ignore[arg-type]


def test_more_overlaps_than_can_be_held_are_refused() -> None:
    with pytest.raises(InputError, match="use fewer tiles, smaller ones"):
        overlapping_tiles(np.zeros(20_000), np.zeros(20_000), np.full(20_000, 50.0))


def test_exclusions_of_tiles_that_are_not_there_are_refused() -> None:
    with pytest.raises(InputError, match="expected 0 to 4"):
        TileExclusions.from_pairs(np.array([0, 1]), np.array([2, 5]), count=5)
    none = np.empty(0, np.int64)
    small, large = (TileExclusions.from_pairs(none, none, count=n) for n in (3, 4))
    with pytest.raises(InputError, match="expected the same"):
        small | large
