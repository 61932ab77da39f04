from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.geodesy import haversine_m
from edge_runtime.index_format import MARK_FEATURELESS
from edge_runtime.map_ambiguity import TileScores
from edge_runtime.map_pictures import ambiguity_picture, png_of
from edge_runtime.route import Route, walk
from edge_runtime.route_check import route_report, tiles_below
from edge_runtime.satellite_index import SatelliteIndex

U8 = npt.NDArray[np.uint8]
LOST = np.array((255, 0, 190))


def scores_of(index: SatelliteIndex, chance: npt.NDArray[np.float64], marks: int = 0) -> TileScores:
    count = len(index)
    return TileScores(
        rows=np.arange(count),
        lat_deg=np.asarray(index.tiles["lat_deg"], np.float64),
        lon_deg=np.asarray(index.tiles["lon_deg"], np.float64),
        marks=np.full(count, marks, np.uint8),
        chance=chance.astype(np.float32),
        own=np.zeros(count, np.float32),
        look_alike=np.zeros(count, np.float32),
        look_alike_row=np.zeros(count, np.int64),
        look_alike_m=np.zeros(count),
        draws=1,
    )


def picture(index: SatelliteIndex, scores: TileScores) -> U8:
    return ambiguity_picture(index, index.level, scores, title="Title", subtitle="Subtitle")


def east(index: SatelliteIndex) -> npt.NDArray[np.float64]:
    lon = np.asarray(index.tiles["lon_deg"], np.float64)
    return np.asarray((lon - lon.min()) / np.ptp(lon))


def map_of(image: U8) -> U8:
    """Without the foot."""
    return image[:-150]


@pytest.fixture
def index(index_dir: Path) -> SatelliteIndex:
    return SatelliteIndex.open(index_dir)


def test_ground_that_is_mixed_up_more_is_redder(index: SatelliteIndex) -> None:
    image = map_of(picture(index, scores_of(index, east(index)))).astype(int)
    height, width = image.shape[:2]
    middle = image[height // 4 : -height // 4]
    redness = (middle[..., 0] - middle[..., 2]).mean(axis=0)
    west, centre, right = (redness[int(width * at)] for at in (0.2, 0.5, 0.8))
    assert west < centre - 20 < right - 40


def test_the_colours_follow_the_ground_and_not_the_order_of_the_rows(
    index: SatelliteIndex,
) -> None:
    """The one bad tile lies where its latitude and longitude say, at the picture's scale."""
    tile = index.tiles[len(index) // 3]
    chance = np.where(np.arange(len(index)) == len(index) // 3, 1.0, 0.0)
    bad = map_of(picture(index, scores_of(index, chance))).astype(int)
    good = map_of(picture(index, scores_of(index, np.where(chance > 0, 0.001, 0.0)))).astype(int)
    rows, columns = np.nonzero(np.abs(bad - good).sum(axis=2) > 60)
    lat, lon = index.tiles["lat_deg"], index.tiles["lon_deg"]
    span_m = float(haversine_m(lat.min(), 8.3, lat.max(), 8.3)) + index.level.size_m
    wide_m = float(haversine_m(47.5, lon.min(), 47.5, lon.max())) + index.level.size_m
    m_per_px = max(span_m, wide_m) / 1500
    north_m = float(haversine_m((lat.min() + lat.max()) / 2, 8.3, tile["lat_deg"], 8.3))
    north_m *= np.sign(tile["lat_deg"] - (lat.min() + lat.max()) / 2)
    found_m = (bad.shape[0] / 2 - (rows.min() + rows.max() + 1) / 2) * m_per_px
    assert found_m == pytest.approx(north_m, abs=1.5)
    assert np.ptp(rows) * m_per_px == pytest.approx(index.level.stride_m, abs=1.5)
    assert np.ptp(columns) * m_per_px == pytest.approx(index.level.stride_m, abs=1.5)


def test_featureless_ground_is_hatched(index: SatelliteIndex) -> None:
    chance = np.full(len(index), 0.5)
    plain = map_of(picture(index, scores_of(index, chance)))
    hatched = map_of(picture(index, scores_of(index, chance, MARK_FEATURELESS)))
    height, width = plain.shape[:2]
    middle = np.s_[height // 3 : -height // 3, width // 3 : -width // 3]
    dark = (hatched[middle] == 25).all(axis=2)
    assert dark.mean() == pytest.approx(0.25, abs=0.01)
    assert np.array_equal(hatched[middle][~dark], plain[middle][~dark])


def test_a_route_is_drawn_where_it_leads_and_in_another_colour_where_lost(
    index: SatelliteIndex,
) -> None:
    lat = float(np.median(index.tiles["lat_deg"]))
    lon = index.tiles["lon_deg"]
    route = Route(
        lat_deg=np.array([lat, lat]),
        lon_deg=np.array([lon.min(), lon.max()]),
        height_m=np.full(2, np.nan),
    )
    points = walk(route, 2.0)
    scores = scores_of(index, np.where(east(index) > 0.5, 0.9, 0.0))
    report = route_report(route, points, tiles_below(index, index.level, points), scores)
    image = ambiguity_picture(
        index, index.level, scores, title="", subtitle="", route=(report, points)
    )
    rows, columns = np.nonzero((map_of(image) == LOST).all(axis=2))
    height, width = map_of(image).shape[:2]
    assert abs(float(np.median(rows)) - height / 2) < height / 10
    assert columns.min() > 0.45 * width
    assert columns.max() < width
    assert len(columns) > width * 0.3


def test_a_map_without_scores_is_still_drawn(index: SatelliteIndex) -> None:
    some = scores_of(index, np.zeros(len(index)))
    fields: dict[str, Any] = {
        name: value[:0] for name, value in vars(some).items() if isinstance(value, np.ndarray)
    }
    none = replace(some, **fields)
    assert picture(index, none).shape[2] == 3


def test_a_png_holds_the_picture_in_its_own_colours() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    image[..., 0] = 200
    read = cv2.imdecode(np.frombuffer(png_of(image), np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    assert np.array_equal(read[..., ::-1], image)
