import math

import numpy as np
import pytest

from edge_runtime.geodesy import haversine_m, move_lat_lon
from edge_runtime.index_format import TILE_DTYPE, TileLevel
from edge_runtime.map_coverage import coverage, resolution_shares

LEVEL = TileLevel(size_m=100.0, stride_m=50.0)


def grid(
    rows: int, columns: int, *, lat_deg: float = 45.0, lon_deg: float = 9.0, stride_m: float = 50.0
) -> np.ndarray:
    """Tiles every so many metres north and east of a corner, in no particular order."""
    tiles = np.zeros(rows * columns, TILE_DTYPE)
    north, east = (v.ravel() * stride_m for v in np.mgrid[:rows, :columns].astype(float))
    place = move_lat_lon(lat_deg, lon_deg, east, north)
    tiles["lat_deg"], tiles["lon_deg"] = place.lat_deg, place.lon_deg
    return np.random.default_rng(1).permutation(tiles)


@pytest.mark.parametrize(
    "corner",
    [
        pytest.param((45.0, 9.0), id="north"),
        pytest.param((-72.0, -60.0), id="far south"),
        pytest.param((-17.0, 179.999), id="across the antimeridian"),
    ],
)
def test_a_full_grid_covers_its_outline(corner: tuple[float, float]) -> None:
    found = coverage(grid(9, 21, lat_deg=corner[0], lon_deg=corner[1]), LEVEL)
    # From half a tile before the first centre to half a tile beyond the last.
    assert found.covered_m2 == pytest.approx((8 * 50 + 100) * (20 * 50 + 100), rel=0.03)
    assert found.share == pytest.approx(1.0, abs=0.01)
    assert sum(h.area_m2 for h in found.holes) < 0.01 * found.outline_m2


def test_a_hole_is_found_with_its_size_and_place() -> None:
    tiles = grid(21, 21)
    hole = move_lat_lon(45.0, 9.0, 600.0, 400.0)
    away = haversine_m(hole.lat_deg, hole.lon_deg, tiles["lat_deg"], tiles["lon_deg"])
    found = coverage(tiles[away > 160.0], LEVEL)
    (largest,) = found.holes
    # Slowly: ground within no tile's square, counted every two metres.
    offsets = np.arange(-300.0, 300.0, 2.0) + 1.0
    kept = tiles[(away > 160.0) & (away < 500.0)]
    north = (np.asarray(kept["lat_deg"]) - float(hole.lat_deg)) * 111_132.0
    east = (np.asarray(kept["lon_deg"]) - float(hole.lon_deg)) * 78_847.0
    bare = 0
    for y in offsets:
        inside = (np.abs(north - y) <= 50.0) & np.ones(len(north), bool)
        hit = np.abs(east[inside][:, None] - offsets) <= 50.0
        bare += int(np.sum(~hit.any(axis=0)))
    assert largest.area_m2 == pytest.approx(bare * 4.0, rel=0.15)
    assert found.share == pytest.approx(1 - largest.area_m2 / found.outline_m2, abs=0.002)
    assert haversine_m(largest.lat_deg, largest.lon_deg, hole.lat_deg, hole.lon_deg) < 60


def test_holes_come_largest_first_and_a_bay_is_one_too() -> None:
    tiles = grid(21, 21)
    north = (np.asarray(tiles["lat_deg"]) - 45.0) * 111_132.0
    east = (np.asarray(tiles["lon_deg"]) - 9.0) * 111_412.84 * math.cos(math.radians(45.0))
    bay = (np.abs(north - 500) < 260) & (east > 700)
    pond = (np.abs(north - 500) < 110) & (np.abs(east - 300) < 110)
    found = coverage(tiles[~(bay | pond)], LEVEL)
    assert len(found.holes) == 2
    assert found.holes[0].area_m2 > 2 * found.holes[1].area_m2
    assert found.holes[0].lon_deg > found.holes[1].lon_deg
    assert found.share < 0.9


def test_one_tile_is_covered_ground_without_holes() -> None:
    found = coverage(grid(1, 1), LEVEL)
    assert found.covered_m2 == pytest.approx(100.0**2, rel=0.02)
    assert found.holes == ()


def test_a_country_is_measured_on_a_grid_that_fits_in_memory() -> None:
    wide = TileLevel(size_m=100.0, stride_m=100.0)
    found = coverage(grid(40, 5_000, stride_m=100.0), wide)
    assert found.covered_m2 == pytest.approx(4_000.0 * 500_000, rel=0.02)
    assert found.cell_m == pytest.approx(500_000 / 4096, rel=0.001)


def test_the_finest_source_over_a_place_counts_also_across_the_antimeridian() -> None:
    # Columns at 179.995, 179.997 … 180.013 degrees, as an index writes them.
    tiles = np.zeros(10, TILE_DTYPE)
    tiles["lon_deg"] = (179.995 + 0.002 * np.arange(10) + 180) % 360 - 180
    sources = [
        {"name": "all", "gsd_m": 0.5, "bounds": [179.99, -1, 180.02, 1]},
        {"name": "west", "gsd_m": 0.1, "bounds": [179.99, -1, 180.0, 1]},
        {"name": "coarse", "gsd_m": 10.0, "bounds": [-180.0, -1, 180.0, 1]},
        {"name": "placeless", "gsd_m": 0.01},
    ]
    found = resolution_shares(tiles, sources)
    assert np.array(found) == pytest.approx(np.array([(0.1, 0.3), (0.5, 0.7)]))
    assert resolution_shares(tiles, sources[3:]) == ()
