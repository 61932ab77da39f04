from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.geodesy import haversine_m
from edge_runtime.index_format import MARK_FEATURELESS
from edge_runtime.map_ambiguity import TileScores
from edge_runtime.route import Route, RoutePoints, walk
from edge_runtime.route_check import route_geojson, route_report, tiles_below
from edge_runtime.satellite_index import SatelliteIndex


def across(index: SatelliteIndex, margin_deg: float) -> Route:
    lat = float(np.median(index.tiles["lat_deg"]))
    west, east = float(index.tiles["lon_deg"].min()), float(index.tiles["lon_deg"].max())
    return Route(
        lat_deg=np.array([lat, lat + 1e-4]),
        lon_deg=np.array([west - margin_deg, east + margin_deg]),
        height_m=np.array([80.0, 120.0]),
    )


def made_up_scores(index: SatelliteIndex, chance: Callable[[float], float]) -> TileScores:
    """Chances by how far east a tile lies, 0 to 1; the western tenth is featureless."""
    tiles = index.tiles
    lon = np.asarray(tiles["lon_deg"], np.float64)
    east = (lon - lon.min()) / np.ptp(lon)
    count = len(tiles)
    return TileScores(
        rows=np.arange(count),
        lat_deg=np.asarray(tiles["lat_deg"], np.float64),
        lon_deg=lon,
        marks=np.where(east < 0.1, MARK_FEATURELESS, 0).astype(np.uint8),
        chance=np.array([chance(float(e)) for e in east], np.float32),
        own=np.zeros(count, np.float32),
        look_alike=np.zeros(count, np.float32),
        look_alike_row=np.zeros(count, np.int64),
        look_alike_m=np.zeros(count),
        draws=1,
    )


def test_the_tile_below_is_the_nearest_and_beyond_their_squares_is_none(index_dir: Path) -> None:
    index = SatelliteIndex.open(index_dir)
    points = walk(across(index, 0.002), 3.0)
    below = tiles_below(index, index.level, points)
    lat, lon = (np.asarray(index.tiles[name]) for name in ("lat_deg", "lon_deg"))
    inside = 0
    for n, row in enumerate(below.tolist()):
        away = haversine_m(points.lat_deg[n], points.lon_deg[n], lat, lon)
        nearest = int(away.argmin())
        if row < 0:
            assert away[nearest] > index.level.size_m / 2 * 0.99
        else:
            assert away[row] == pytest.approx(away[nearest], rel=0.01)
            inside += 1
    assert 0.2 * len(below) < inside < 0.9 * len(below)


def test_stretches_follow_the_ground_and_add_up(index_dir: Path) -> None:
    index = SatelliteIndex.open(index_dir)
    route = across(index, 0.002)
    points = walk(route, 2.0)
    scores = made_up_scores(index, lambda e: 0.05 if e < 0.4 else 0.3 if e < 0.7 else 0.9)
    report = route_report(route, points, tiles_below(index, index.level, points), scores)
    grounds = [s.ground for s in report.stretches]
    assert grounds == [
        *("off the map", "featureless", "clear", "doubtful", "ambiguous", "off the map"),
    ]
    for before, after in pairwise(report.stretches):
        assert before.end_m == after.start_m
        assert (before.end_lat_deg, before.end_lon_deg) == (
            after.start_lat_deg,
            after.start_lon_deg,
        )
    assert sum(report.metres.values()) == pytest.approx(route.length_m)
    assert report.height_m == (80.0, 120.0)
    lengths = [s.length_m for s in report.stretches]
    assert report.lost_m == pytest.approx(lengths[0] + lengths[1] + lengths[4] + lengths[5])
    assert report.longest_lost_m == pytest.approx(
        max(lengths[0] + lengths[1], lengths[4] + lengths[5])
    )
    # The squares of the outermost tiles end half a tile beyond their centres.
    beyond_m = haversine_m(
        route.lat_deg[0], route.lon_deg[0], route.lat_deg[0], float(scores.lon_deg.min())
    )
    assert lengths[0] == pytest.approx(float(beyond_m) - index.level.size_m / 2, abs=3.0)
    chances = [s.chance_mean for s in report.stretches]
    assert chances[0] is None
    assert chances[2:5] == pytest.approx([0.05, 0.3, 0.9])


def test_a_route_over_clear_ground_is_never_lost(index_dir: Path) -> None:
    index = SatelliteIndex.open(index_dir)
    route = across(index, -0.0008)
    points = walk(route, 5.0)
    scores = made_up_scores(index, lambda _e: 0.0)
    report = route_report(route, points, tiles_below(index, index.level, points), scores)
    assert [s.ground for s in report.stretches] == ["clear"]
    assert (report.lost_m, report.longest_lost_m, report.longest_lost_start_m) == (0, 0, None)


def test_a_route_elsewhere_is_off_the_map_all_along(index_dir: Path) -> None:
    index = SatelliteIndex.open(index_dir)
    points = RoutePoints(
        at_m=np.array([0.0, 100.0]), lat_deg=np.array([-40.0, -40.0]), lon_deg=np.array([1.0, 1.1])
    )
    assert tiles_below(index, index.level, points).tolist() == [-1, -1]


def test_geojson_holds_every_stretch_as_a_line_that_joins_the_next(index_dir: Path) -> None:
    index = SatelliteIndex.open(index_dir)
    route = across(index, 0.002)
    points = walk(route, 4.0)
    scores = made_up_scores(index, lambda e: e)
    report = route_report(route, points, tiles_below(index, index.level, points), scores)
    lines = route_geojson(report, points)["features"]
    assert [f["properties"]["ground"] for f in lines] == [s.ground for s in report.stretches]
    ends = [(f["geometry"]["coordinates"][0], f["geometry"]["coordinates"][-1]) for f in lines]
    assert all(a[1] == b[0] for a, b in pairwise(ends))
    assert ends[0][0] == pytest.approx([route.lon_deg[0], route.lat_deg[0]], abs=1e-6)
    assert ends[-1][1] == pytest.approx([route.lon_deg[-1], route.lat_deg[-1]], abs=1e-6)
