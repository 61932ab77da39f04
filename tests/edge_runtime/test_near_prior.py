from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edge_runtime.errors import InputError
from edge_runtime.geodesy import enu_offset_m, move_lat_lon
from edge_runtime.index_format import TILE_DTYPE, TileLevel
from edge_runtime.near_prior import Area, Circle, Ellipse, TileLocator, hilbert_order
from edge_runtime.vector_search import BLOCK_ROWS


def laid_out(lat: Any, lon: Any) -> np.ndarray:
    order = hilbert_order(np.asarray(lat), np.asarray(lon))
    tiles = np.zeros(len(order), TILE_DTYPE)
    tiles["lat_deg"], tiles["lon_deg"] = np.asarray(lat)[order], np.asarray(lon)[order]
    return tiles


def square_map(lat: float, lon: float, *, side: int = 60, stride_m: float = 50.0) -> np.ndarray:
    """A grid around a position."""
    steps = (np.arange(side) - side / 2) * stride_m
    east, north = (v.ravel() for v in np.meshgrid(steps, steps))
    at_lat = move_lat_lon(lat, lon, 0.0, north).lat_deg
    return laid_out(at_lat, move_lat_lon(at_lat, lon, east, 0.0).lon_deg)


def scattered(side_deg: float, rows: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(3)
    lat = rng.uniform(-side_deg, side_deg, rows)
    return laid_out(np.clip(lat, -90, 90), rng.uniform(-180, 180, rows))


MAPS = {
    "Europe": (square_map(47.0, 8.0), 47.0, 8.0),
    "across the antimeridian": (square_map(-17.0, 179.999), -17.0, 179.999),
    "at 84 degrees north": (square_map(84.0, -30.0), 84.0, -30.0),
    "at 89.9 degrees south": (square_map(-89.9, 10.0, side=20), -89.9, 10.0),
    "duplicates": (np.repeat(square_map(10.0, 10.0, side=20), 7), 10.0, 10.0),
    "the whole world, thinly": (scattered(90.0), 60.0, 179.0),
    "one tile": (square_map(5.0, 5.0, side=1), 5.0, 5.0),
}


def locator(tiles: np.ndarray) -> TileLocator:
    return TileLocator(tiles, [TileLevel(size_m=80.0, stride_m=50.0, rows=len(tiles))])


def inside_slowly(tiles: np.ndarray, area: Area) -> list[int]:
    """Measure every tile, one at a time, in coordinates along the ellipse's axes."""
    found = []
    for row, tile in enumerate(tiles):
        offset = enu_offset_m(area.lat_deg, area.lon_deg, tile["lat_deg"], tile["lon_deg"])
        step = complex(float(offset.north_m), float(offset.east_m))
        if isinstance(area, Circle):
            inside = np.hypot(step.real, step.imag) <= area.radius_m
        else:
            turned = step * np.exp(-1j * np.radians(area.bearing_deg))
            along, across = turned.real / area.semi_major_m, turned.imag / area.semi_minor_m
            inside = np.hypot(along, across) <= 1.0
        if inside:
            found.append(row)
    return found


@pytest.mark.parametrize("name", MAPS)
def test_every_tile_in_an_area_is_found_and_no_other(name: str) -> None:
    tiles, lat, lon = MAPS[name]
    locate = locator(tiles)
    rng = np.random.default_rng(5)
    reach_m = 6e6 if name.startswith("the whole") else 3000.0
    filled = 0
    for n in range(12):
        at = move_lat_lon(lat, lon, *(rng.uniform(-1200, 1200, 2) * (n > 0)))
        major = float(rng.uniform(0.02, 1.0)) * reach_m
        area: Area = Circle(float(at.lat_deg), float(at.lon_deg), major / 2)
        if n % 2:
            minor = major * float(rng.uniform(0.05, 1.0))
            area = Ellipse(*area[:2], major, minor, float(rng.uniform(-360, 360)))
        expected = inside_slowly(tiles, area)
        assert locate.rows(area).tolist() == expected, area
        filled += bool(expected)
    assert filled > 3


def test_an_ellipse_with_equal_axes_is_a_circle_whatever_its_bearing() -> None:
    tiles, lat, lon = MAPS["Europe"]
    expected = locator(tiles).rows(Circle(lat, lon, 777.0))
    for bearing in (0.0, 33.0, 90.0, -250.0):
        found = locator(tiles).rows(Ellipse(lat, lon, 777.0, 777.0, bearing))
        assert np.array_equal(found, expected)


def test_the_bearing_of_an_ellipse_is_clockwise_from_north() -> None:
    tiles, lat, lon = MAPS["Europe"]
    rows = locator(tiles).rows(Ellipse(lat, lon, 900.0, 60.0, 45.0))
    offset = enu_offset_m(lat, lon, tiles["lat_deg"][rows], tiles["lon_deg"][rows])
    assert np.corrcoef(offset.east_m, offset.north_m)[0, 1] > 0.9
    assert np.ptp(offset.east_m) > 1000.0


def test_a_circle_without_tiles_gives_none() -> None:
    tiles, lat, lon = MAPS["Europe"]
    for far in (Circle(lat + 1, lon, 500.0), Circle(lat, lon - 170, 500.0), Circle(-lat, lon, 0.0)):
        assert locator(tiles).rows(far).tolist() == []
        assert list(locator(tiles).blocks(far)) == []


def test_a_circle_of_no_radius_holds_the_tile_it_stands_on() -> None:
    tiles, _, _ = MAPS["Europe"]
    lat, lon = float(tiles["lat_deg"][41]), float(tiles["lon_deg"][41])
    assert locator(tiles).rows(Circle(lat, lon, 0.0)).tolist() == [41]


def test_a_level_is_searched_alone() -> None:
    small, lat, lon = MAPS["Europe"]
    large = square_map(lat, lon, side=15, stride_m=200.0)
    none = small[:0]
    levels = [
        TileLevel(size_m=80.0, stride_m=50.0, rows=len(small)),
        TileLevel(size_m=160.0, stride_m=100.0, first_row=len(small)),
        TileLevel(size_m=320.0, stride_m=200.0, first_row=len(small), rows=len(large)),
    ]
    locate = TileLocator(np.concatenate([small, none, large]), levels)
    area = Circle(lat, lon, 500.0)
    first = inside_slowly(small, area)
    last = [row + len(small) for row in inside_slowly(large, area)]
    assert min(len(first), len(last)) > 10
    assert locate.rows(area, level=0).tolist() == first
    assert locate.rows(area, level=1).tolist() == []
    assert locate.rows(area, level=2).tolist() == last
    assert locate.rows(area).tolist() == first + last


def test_far_fewer_tiles_are_measured_than_the_map_has() -> None:
    tiles = square_map(47.0, 8.0, side=300)
    area = Circle(47.0, 8.0, 500.0)
    blocks = list(locator(tiles).blocks(area))
    measured = sum(b - a for block in blocks for a, b in block.runs)
    inside = len(locator(tiles).rows(area))
    assert inside == pytest.approx(np.pi * 10**2, rel=0.05)
    assert measured < 5 * inside < len(tiles) / 50


def test_blocks_are_ascending_apart_and_bounded() -> None:
    tiles = square_map(47.0, 8.0, side=300)
    for radius_m in (400.0, 5000.0, 1e5, np.inf):
        blocks = list(locator(tiles).blocks(Circle(47.0, 8.0, radius_m)))
        runs = [run for block in blocks for run in block.runs]
        assert all(a < b for a, b in runs)
        assert all(before[1] <= after[0] for before, after in pairwise(runs))
        for block in blocks:
            size = sum(b - a for a, b in block.runs)
            assert block.keep is not None
            assert len(block.keep) == size <= BLOCK_ROWS


@pytest.mark.parametrize(
    "area",
    [
        pytest.param(Circle(47.0, 8.0, -1.0), id="negative radius"),
        pytest.param(Circle(47.0, 8.0, np.nan), id="no radius"),
        pytest.param(Circle(np.nan, 8.0, 10.0), id="no latitude"),
        pytest.param(Circle(97.0, 8.0, 10.0), id="no such latitude"),
        pytest.param(Ellipse(47.0, 8.0, 10.0, 0.0, 0.0), id="flat"),
        pytest.param(Ellipse(47.0, 8.0, 10.0, 20.0, 0.0), id="swapped axes"),
        pytest.param(Ellipse(47.0, 8.0, np.inf, 20.0, 0.0), id="endless"),
        pytest.param(Ellipse(47.0, 8.0, 10.0, 5.0, np.nan), id="no bearing"),
    ],
)
def test_what_is_no_area_is_refused(area: Area) -> None:
    with pytest.raises(InputError, match=r"expected a radius|is outside"):
        locator(MAPS["Europe"][0]).rows(area)


def test_a_tile_without_a_position_is_refused() -> None:
    tiles = MAPS["Europe"][0].copy()
    tiles["lon_deg"][100] = np.nan
    with pytest.raises(InputError, match="position is not finite"):
        locator(tiles)
