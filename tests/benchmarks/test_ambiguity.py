"""The area under the curve, and rows whose outcome is planted."""

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from benchmarks.ambiguity import ambiguity_row, area_under_curve, with_interval
from benchmarks.cli import main
from edge_runtime.bundle import Bundle
from edge_runtime.geodesy import move_lat_lon
from edge_runtime.index_format import TILE_DTYPE, TileLevel
from edge_runtime.satellite_index import SatelliteIndex

HERE = (47.0, 8.0)


class PlantedIndex:
    """Tiles 400 m apart with orthogonal embeddings."""

    id = "i"
    level = TileLevel(size_m=100.0, stride_m=50.0, rows=6)

    def __init__(self) -> None:
        self.embeddings = np.eye(6, 8, dtype=np.float32)
        self.centre = np.zeros(8, np.float32)
        self.tiles = np.zeros(6, TILE_DTYPE)
        place = move_lat_lon(*HERE, 400.0 * np.arange(6), 0.0)
        self.tiles["lat_deg"], self.tiles["lon_deg"] = place.lat_deg, place.lon_deg

    def unit_embeddings(self, rows: Any) -> Any:
        return self.embeddings[rows]


@pytest.mark.parametrize(
    ("score", "wrong", "area"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
        # Of the six pairs, the wrong one is above in four and level in one.
        ([1, 2, 2, 3, 1], [0, 0, 1, 1, 0], 5.5 / 6),
    ],
)
def test_the_area_counts_pairs_in_the_right_order(
    score: list[float], wrong: list[int], area: float
) -> None:
    found = area_under_curve(np.array(score, np.float64), np.array(wrong, np.bool_))
    assert found == pytest.approx(area)


def test_the_interval_holds_the_area_and_shrinks_with_more_views() -> None:
    rng = np.random.default_rng(4)
    widths = []
    for count in (40, 1000):
        wrong = rng.random(count) < 0.3
        score = rng.normal(size=count) + wrong
        found = with_interval(score, wrong)
        assert found is not None
        area, low, high = found
        assert low < area < high
        # Two normal distributions one deviation apart: the area is Phi(1 / sqrt 2) = 0.760.
        assert low < 0.760 < high
        widths.append(high - low)
    assert widths[1] < 0.4 * widths[0]


def test_nothing_to_tell_apart_has_no_area() -> None:
    assert with_interval(np.arange(4.0), np.zeros(4, np.bool_)) is None
    assert with_interval(np.arange(4.0), np.ones(4, np.bool_)) is None


def test_a_view_that_looks_like_a_tile_elsewhere_is_wrong() -> None:
    index = PlantedIndex()
    places = np.stack([index.tiles["lat_deg"], index.tiles["lon_deg"]], axis=1)[:4]
    looks_like = [0, 1, 5, 3]  # The third view is of another place's kind.
    views = index.embeddings[looks_like].copy()
    views[3, 6] = 1.0  # And the fourth less like its own: cosine 1 / sqrt 2.
    row = ambiguity_row(
        cast(SatelliteIndex, index),
        cast(Bundle, SimpleNamespace(id="b")),
        "planted",
        (views / np.linalg.norm(views, axis=1, keepdims=True), places),
        likeness=0.9,
    )
    assert (row.views, row.wrong, row.far_m) == (4, 1, 150.0)
    assert row.likeness_nearest == pytest.approx((1.0 + np.sqrt(0.5)) / 2)
    assert 0 < row.expected_wrong < 0.2
    assert row.auc_chance is not None
    assert dataclasses.asdict(row)["kind"] == "ambiguity"


def test_a_flight_is_given_whole_or_not_at_all(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["ambiguity", "--bundle", "b", "--index", "i", "--photos", "p"]) == 2
    assert "a flight needs all of --photos, --telemetry" in capfd.readouterr().err
