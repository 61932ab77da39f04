"""The flight page's map lies where it says, and its pictures are of what people ask about."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.fix import Fix, Status
from edge_runtime.flight_page.flight_table import table_of
from edge_runtime.flight_page.map_picture import Box, box_around, map_picture
from edge_runtime.flight_page.picture_choice import rows_to_show
from edge_runtime.imagery import ImageryStore

U8 = npt.NDArray[np.uint8]


def test_the_map_lies_where_its_bounds_say(index_dir: Path, tmp_path: Path) -> None:
    imagery = index_dir / "imagery.mbtiles"
    store = ImageryStore(imagery)
    b = store.bounds
    middle = ((b.south_deg + b.north_deg) / 2, (b.west_deg + b.east_deg) / 2)
    found = map_picture(imagery, box_around([middle]))
    assert found is not None
    whole = map_picture(imagery, None)
    assert whole is not None
    for made in (found, whole):
        picture = cv2.imdecode(np.frombuffer(made.picture.data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        m = made.bounds
        # Away from the middle, so that no mirrored or shifted map passes.
        lat = m.south_deg + 0.7 * (m.north_deg - m.south_deg)
        lon = m.west_deg + 0.35 * (m.east_deg - m.west_deg)
        patch = store.patch(lat, lon, size_m=20.0, size_px=24).image[..., ::-1]
        # A map this small is linear in latitude to a hundredth of a pixel.
        row, column = 0.3 * picture.shape[0], 0.35 * picture.shape[1]
        per_px = store.gsd_m(lat)
        grid = (np.arange(24) - 11.5) * 20.0 / 24 / per_px
        x, y = np.meshgrid(column - 0.5 + grid, row - 0.5 + grid)

        def far(dx: float, dy: float) -> float:
            at = ((x + dx).astype(np.float32), (y + dy).astype(np.float32))  # noqa: B023
            there = cv2.remap(picture, *at, cv2.INTER_LINEAR)  # noqa: B023
            return float(np.abs(there.astype(int) - patch).mean())  # noqa: B023

        assert far(0, 0) < 9
        # A pixel beside it is another place.
        assert min(far(1, 0), far(-1, 0), far(0, 1), far(0, -1)) > 1.4 * far(0, 0)
    store.close()


def painted(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> U8:
    layers = [60 + x % 200 / 2, 60 + y % 200 / 2, np.full_like(x, 105)]
    return np.asarray(np.stack(layers, axis=-1).round(), np.uint8)


def decoded(imagery: Path) -> tuple[U8, float]:
    """The whole of a map, and its zoom."""
    made = map_picture(imagery, None)
    assert made is not None
    data = np.frombuffer(made.picture.data, np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8), made.zoom


def test_a_map_without_coarse_tiles_is_made_smaller(
    tmp_path: Path, make_mbtiles: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    imagery = make_mbtiles(tmp_path / "imagery.mbtiles", painted, across=4)
    full, _ = decoded(imagery)
    monkeypatch.setattr("edge_runtime.flight_page.map_picture.LONGEST_PX", 300)
    small, zoom = decoded(imagery)
    assert zoom == 15.0
    assert small.shape == (256, 256, 3)
    expected = cv2.resize(full, (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).mean() < 4


def test_a_tile_that_is_missing_is_taken_from_the_coarser_zoom(
    tmp_path: Path, make_mbtiles: Callable[..., Path]
) -> None:
    imagery = make_mbtiles(
        tmp_path / "imagery.mbtiles", painted, across=4, overviews=1, lat_deg=47.498
    )
    whole, _ = decoded(imagery)
    with closing(sqlite3.connect(imagery)) as db, db:
        # MBTiles rows count from the south.
        db.execute(
            "DELETE FROM tiles WHERE zoom_level = 17 "
            "AND tile_column = (SELECT MIN(tile_column) FROM tiles WHERE zoom_level = 17) "
            "AND tile_row = (SELECT MIN(tile_row) FROM tiles WHERE zoom_level = 17)"
        )
    filled, _ = decoded(imagery)
    apart = np.abs(whole.astype(int) - filled)
    assert 0.2 < apart[-256:, :256].mean() < 10, "enlarged, not black and not the same"
    assert apart[:-272].max() == apart[:, 272:].max() == 0


def test_a_flight_across_the_antimeridian_has_a_small_map() -> None:
    box = box_around([(10.0, 179.999), (10.0, -179.999)])
    assert box is not None
    assert box.east - box.west < 2e-5
    assert box_around([]) is None
    bounds = Box(0.9999, 0.4, 1.0001, 0.5).bounds()
    assert bounds.east_deg == pytest.approx(bounds.west_deg + 0.072)


def test_pictures_are_of_changes_and_of_what_was_not_answered_first(
    record: Callable[..., Fix], unplaced: Callable[..., Fix]
) -> None:
    statuses: list[Status] = ["LOST" if 300 <= k < 320 else "OK" for k in range(400)]
    fixes = [record(k) if s == "OK" else unplaced(k, s) for k, s in enumerate(statuses)]
    rows = rows_to_show(table_of(fixes), 40)
    assert len(rows) == 40
    assert rows == sorted(set(rows))
    assert {0, *range(300, 321)} <= set(rows)
    rest = [row for row in rows if statuses[row] == "OK" and row not in (0, 320)]
    assert len(rest) == 18
    assert max(np.diff(rest)) < 60
    assert rows_to_show(table_of(fixes), 10_000) == list(range(400))
    assert set(rows_to_show(table_of(fixes), 9, among=range(5, 200))) <= set(range(5, 200))
    # However much was not answered, a quarter shows what was.
    mostly = [unplaced(k, "ABSTAIN") if k % 10 else record(k) for k in range(1000)]
    shown = rows_to_show(table_of(mostly), 100)
    assert len(shown) == 100
    calm = [record(k) if k > 600 else unplaced(k, "ABSTAIN") for k in range(1000)]
    assert sum(row > 601 for row in rows_to_show(table_of(calm), 100)) == 25
