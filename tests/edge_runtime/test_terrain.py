import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import InputError
from edge_runtime.state import VehicleState, with_ground_height
from edge_runtime.terrain import TakeoffTerrain, Terrain

SIDE = 1201


def slope() -> npt.NDArray[np.int16]:
    """One metre up per sample eastward, two down per sample southward."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray(3000 + columns - 2 * rows, np.int16)


def tile(folder: Path, name: str = "N47E008.hgt", heights: object = None) -> Path:
    path = folder / name
    path.write_bytes(np.asarray(slope() if heights is None else heights, ">i2").tobytes())
    return path


@pytest.mark.parametrize(
    ("lat", "lon", "height"),
    [
        pytest.param(48.0, 8.0, 3000.0, id="north-west corner"),
        pytest.param(47.0, 8.0, 600.0, id="south-west corner"),
        pytest.param(48.0, 9.0, 4200.0, id="north-east corner"),
        pytest.param(48 - 10.25 / 1200, 8 + 20.5 / 1200, 3000 + 20.5 - 20.5, id="between samples"),
    ],
)
def test_a_plane_is_read_exactly(tmp_path: Path, lat: float, lon: float, height: float) -> None:
    terrain = Terrain.open(tile(tmp_path))
    assert terrain.height_m(lat, lon) == pytest.approx(height, abs=1e-6)


@pytest.mark.parametrize(
    "place", [(46.9, 8.5), (47.5, 9.1), (math.nan, 8.5), (91.0, 8.5), (47.5, math.inf)]
)
def test_off_the_model_there_is_no_height(tmp_path: Path, place: tuple[float, float]) -> None:
    assert math.isnan(Terrain.open(tile(tmp_path)).height_m(*place))


def test_a_void_gives_none_and_its_neighbours_do(tmp_path: Path) -> None:
    heights = slope()
    heights[600, 600] = -32768
    terrain = Terrain.open(tile(tmp_path, heights=heights))
    assert math.isnan(terrain.height_m(47.5, 8.5))
    assert math.isnan(terrain.height_m(47.5 + 0.5 / 1200, 8.5))
    assert terrain.height_m(47.5 + 1 / 1200, 8.5) == pytest.approx(3000 + 600 - 2 * 599)


def test_a_folder_of_tiles_is_one_model(tmp_path: Path) -> None:
    tile(tmp_path)
    tile(tmp_path, "S01W001.hgt", np.full((SIDE, SIDE), 7))
    terrain = Terrain.open(tmp_path)
    assert terrain.height_m(-0.5, -0.5) == 7.0
    assert terrain.height_m(47.0, 8.0) == 600.0
    assert terrain.height_m(-0.5, 359.5) == 7.0


def test_a_geotiff_says_the_same_as_the_samples_it_was_made_of(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import Affine

    path = tmp_path / "dem.tif"
    heights = np.arange(20, dtype=np.float32).reshape(4, 5) * 10
    heights[3, 4] = -9999
    with rasterio.open(
        path, "w", driver="GTiff", width=5, height=4, count=1, dtype="float32", nodata=-9999,
        crs="EPSG:4326", transform=Affine(0.1, 0.0, 8.0, 0.0, -0.1, 47.0),
    ) as raster:  # fmt: skip
        raster.write(heights, 1)
    terrain = Terrain.open(path)
    assert terrain.height_m(46.95, 8.05) == pytest.approx(0.0, abs=1e-4)
    assert terrain.height_m(46.85, 8.25) == pytest.approx(70.0, abs=1e-3)
    assert terrain.height_m(46.9, 8.1) == pytest.approx((0 + 10 + 50 + 60) / 4, abs=1e-3)
    assert math.isnan(terrain.height_m(46.65, 8.45))
    assert math.isnan(terrain.height_m(46.0, 8.2))
    terrain.close()


def test_the_ground_below_is_measured_from_the_place_of_takeoff(tmp_path: Path) -> None:
    takeoff = TakeoffTerrain(Terrain.open(tile(tmp_path)), 47.5, 8.5)
    assert takeoff.rise_m(47.5, 8.5) == 0.0
    assert takeoff.rise_m(47.5, 8.5 + 30 / 1200) == pytest.approx(30.0, abs=1e-6)
    assert takeoff.known
    assert takeoff.rise_m(0.0, 0.0) == pytest.approx(30.0, abs=1e-6)  # The last one known.
    assert not takeoff.known


def test_a_measured_height_wins_over_one_from_takeoff() -> None:
    measured = VehicleState(t_s=0, height_m=40.0, height_above_takeoff_m=100.0)
    assert with_ground_height(measured, ground_above_takeoff_m=30.0) == measured
    barometer = VehicleState(t_s=0, height_above_takeoff_m=100.0)
    assert with_ground_height(barometer).height_m == 100.0
    assert with_ground_height(barometer, ground_above_takeoff_m=30.0).height_m == 70.0
    assert with_ground_height(barometer, ground_above_takeoff_m=math.nan).height_m == 100.0
    assert with_ground_height(VehicleState(t_s=0)).height_m is None


def test_a_model_that_does_not_cover_the_takeoff_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no height at the place of take-off, 10\.00000"):
        TakeoffTerrain(Terrain.open(tile(tmp_path)), 10.0, 8.5)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("N47E008.hgt", b"short", "has 5 bytes; expected", id="cut off"),
        pytest.param("alps.hgt", b"\0" * (2 * SIDE * SIDE), "named like N47E008", id="name"),
        pytest.param("dem.tif", b"no raster", "cannot be read|not installed", id="no raster"),
    ],
)
def test_what_is_no_terrain_is_refused(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=expected):
        Terrain.open(tmp_path / name)


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist; expected \.hgt tiles"):
        Terrain.open(tmp_path / "none.hgt")
    with pytest.raises(InputError, match=r"has no \.hgt tiles"):
        Terrain.open(tmp_path)
