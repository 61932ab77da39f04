"""Retrieval alone: distances are of the view's true centre, and every frame counts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest

from benchmarks.retrieval import retrieval_row
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.geodesy import move_lat_lon
from edge_runtime.index_format import TILE_DTYPE, TileLevel
from edge_runtime.localizer import Localizer
from edge_runtime.satellite_index import SearchResult

HERE = (47.0, 8.0)
TILT_DEG = 20.0
HEIGHT_M = 100.0


def tiles_at(*east_m: float) -> Any:
    places = [move_lat_lon(*HERE, east, 0.0) for east in east_m]
    return np.array([(float(p.lat_deg), float(p.lon_deg), 0.0, 0) for p in places], TILE_DTYPE)


class PlantedIndex:
    """Finds the same tiles for every view."""

    id = "i"
    level = TileLevel(size_m=60.0, stride_m=20.0)

    def __init__(self, tiles: Any) -> None:
        self.tiles = tiles

    def __len__(self) -> int:
        return len(self.tiles)

    def search(self, embeddings: Any, k: int) -> SearchResult:
        rows = np.tile(np.arange(len(self)), (len(embeddings), 1))[:, :k]
        similar = np.linspace(1, 0, len(self), dtype=np.float32)
        return SearchResult(rows, np.tile(similar, (len(embeddings), 1))[:, :k])


class PlantedLocalizer:
    """Has what retrieval needs, and an encoder that sees nothing."""

    def __init__(self, tiles: Any, camera: Camera) -> None:
        self.camera, self.index = camera, PlantedIndex(tiles)
        self.bundle = SimpleNamespace(id="b", spec=SimpleNamespace(width_px=32))
        self.config = SimpleNamespace(height_range_m=None)
        self.backend = SimpleNamespace(
            info=SimpleNamespace(provider="planted"),
            embed=lambda images: np.zeros((len(images), 4), np.float32),
        )


@pytest.fixture
def flight(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    for name in ("a.png", "b.png", "c.png"):
        cv2.imwrite(str(tmp_path / "photos" / name), noise)
    # The third looks at so little ground that there is no view of it.
    (tmp_path / "telemetry.csv").write_text(
        "filename,t_s,height_m,yaw_deg\na.png,0,100,90\nb.png,1,100,90\nc.png,60,5,90\n"
    )
    (tmp_path / "truth.csv").write_text(
        "filename,lat_deg,lon_deg\na.png,47,8\nb.png,47,8\nc.png,47,8\n"
    )
    return tmp_path


def measured(flight: Path, *east_m: float, **options: Any) -> Any:
    camera = Camera.from_hfov(160, 120, 70.0, mount_pitch_deg=TILT_DEG - 90.0, stabilised=True)
    localizer = cast("Localizer", PlantedLocalizer(tiles_at(*east_m), camera))
    inputs = (flight / "photos", flight / "telemetry.csv", flight / "truth.csv")
    return retrieval_row(localizer, *inputs, **options)


def test_a_leaning_camera_is_scored_where_it_looks(flight: Path) -> None:
    ahead_m = HEIGHT_M * np.tan(np.radians(TILT_DEG))  # 36 m east of the drone.
    row = measured(flight, ahead_m, 500.0, 600.0, 700.0, 800.0)
    assert row.median_m < 12.0, "the view is centred near the look point"
    assert row.success["20 m"].count == 2
    beside = measured(flight, ahead_m + 60.0, 500.0, 600.0, 700.0, 800.0)
    assert 48.0 < beside.median_m < 72.0
    assert beside.success["20 m"].count == 0


def test_a_frame_without_a_view_counts_as_not_found(flight: Path) -> None:
    row = measured(flight, 36.0, 500.0, 600.0, 700.0, 800.0)
    assert (row.frames, row.unseen) == (3, 1)
    assert row.success["100 m"].n == 3
    assert row.success["100 m"].count == 2


def test_one_of_five_may_be_right(flight: Path) -> None:
    row = measured(flight, 900.0, 500.0, 36.0, 700.0, 800.0)
    assert row.success["50 m"].count == 0
    assert row.success_of_5["50 m"].count == 2


def test_frames_outside_of_the_box_do_not_count(flight: Path) -> None:
    with pytest.raises(InputError, match="no frame of"):
        measured(flight, 36.0, 1.0, 2.0, 3.0, 4.0, within=lambda _lat, _lon: False)
