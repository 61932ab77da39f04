import copy
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.transform import Affine

from edge_runtime.camera import Camera
from edge_runtime.errors import ImageryError, InputError
from edge_runtime.geodesy import distance_m, enu_offset_m
from edge_runtime.imagery import ImageryStore
from edge_runtime.satellite_imagery import write_mbtiles
from train.config import MARGIN
from train.pair_table import PairTable
from train.simulated_config import SimulationConfig
from train.simulated_views import imagery_pairs, scattered_places

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
SIZE_M, SIZE_PX = 48.0, 64
NOTHING = SimulationConfig(
    **{f.name: 0.0 for f in fields(SimulationConfig) if isinstance(f.default, float)},  # type: ignore[arg-type]
    jpeg_quality=(100, 100),
)


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 x 300 m of blocks and grain at 0.5 m per pixel, near 48 degrees north."""
    rng = np.random.default_rng(8)
    blocks = rng.integers(40, 215, (50, 50, 3)).repeat(12, axis=0).repeat(12, axis=1)
    grain = cv2.GaussianBlur(rng.normal(0, 40, blocks.shape), (0, 0), 1.5)
    rgb = np.clip(cv2.GaussianBlur(blocks.astype(float), (0, 0), 1) + grain, 0, 255)
    path = tmp_path_factory.mktemp("area") / "area.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=600,
        height=600,
        count=3,
        dtype="uint8",
        crs="EPSG:32632",
        transform=Affine(0.5, 0, 400_000, 0, -0.5, 5_300_000),
    ) as raster:
        raster.write(np.moveaxis(rgb.astype(np.uint8), -1, 0))
    return path


def pairs(area: Path, config: SimulationConfig, count: int = 30, seed: int = 0) -> PairTable:
    return imagery_pairs(
        area, config=config, size_px=SIZE_PX, ground_size_m=SIZE_M, count=count, seed=seed
    )


@pytest.fixture(scope="module")
def table(area: Path) -> PairTable:
    return pairs(area, SimulationConfig())


def middle(image: U8) -> U8:
    edge = (len(image) - SIZE_PX) // 2
    return image[edge : edge + SIZE_PX, edge : edge + SIZE_PX]


def test_a_view_without_any_difference_is_its_tile(area: Path) -> None:
    exact = pairs(area, NOTHING, count=6)
    for row in range(len(exact)):
        photo = exact.photos.images.read(row, np.random.default_rng(row))
        tile = exact.tiles.images.read(row, np.random.default_rng(0))
        # The middle is inside the frame whatever the heading; resampling and JPEG are left.
        inner = slice(24, 56)
        difference = np.abs(photo[inner, inner].astype(float) - tile[inner, inner])
        assert difference.mean() < 6.0


def structure(image: U8) -> F64:
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 2)
    size = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    flat = (size - size.mean()).ravel().astype(np.float64)
    return np.asarray(flat / np.linalg.norm(flat))


def test_views_resemble_their_own_tile_more_than_others(table: PairTable) -> None:
    rng = np.random.default_rng(0)
    rows = range(len(table))
    photos = np.stack([structure(middle(table.photos.images.read(r, rng))) for r in rows])
    tiles = np.stack([structure(middle(table.tiles.images.read(r, rng))) for r in rows])
    alike = photos @ tiles.T
    others = alike[~np.eye(len(alike), dtype=bool)]
    assert np.diag(alike).mean() > others.mean() + 1.5 * others.std()


def test_views_and_tiles_are_margin_larger_than_the_encoders_view(table: PairTable) -> None:
    side = round(SIZE_PX * MARGIN)
    rng = np.random.default_rng(0)
    for images in (table.photos.images, table.tiles.images):
        image = images.read(0, rng)
        assert image.shape == (side, side, 3)
        assert image.dtype == np.uint8
    assert table.margin == MARGIN
    assert table.geometry == "aligned"
    assert np.array_equal(table.tile_of_photo, np.arange(len(table)))


def test_the_middle_of_a_tile_is_what_an_index_cuts_there(area: Path, tmp_path: Path) -> None:
    exact = pairs(area, NOTHING, count=6)
    write_mbtiles([area], tmp_path / "i.mbtiles")
    store = ImageryStore(tmp_path / "i.mbtiles")
    assert exact.tiles.lat_deg is not None
    assert exact.tiles.lon_deg is not None
    for row in range(len(exact)):
        lat, lon = float(exact.tiles.lat_deg[row]), float(exact.tiles.lon_deg[row])
        cut = store.patch(lat, lon, size_m=SIZE_M, size_px=SIZE_PX)
        tile = middle(exact.tiles.images.read(row, np.random.default_rng(0)))
        assert np.abs(tile.astype(int) - cut.image).max() <= 1
    store.close()


def test_a_view_is_another_at_every_read_and_the_same_for_the_same_state(table: PairTable) -> None:
    read = table.photos.images.read
    first, again, other = (read(3, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 5


def test_sources_travel_to_other_processes(table: PairTable) -> None:
    # A deep copy goes the way of pickling.
    twin = copy.deepcopy(table.photos.images)
    want = table.photos.images.read(2, np.random.default_rng(5))
    assert np.array_equal(twin.read(2, np.random.default_rng(5)), want)
    assert twin.name(2) == table.photos.images.name(2)


def test_ground_outside_the_frame_is_one_colour_as_in_flight(area: Path) -> None:
    narrow = Camera.from_hfov(1600, 500, 69.0)
    config = replace(NOTHING, camera=narrow, height_m=(70.0, 70.0))
    view = pairs(area, config, count=6).photos.images.read(0, np.random.default_rng(0))
    colours, counts = np.unique(view.reshape(-1, 3), axis=0, return_counts=True)
    filled = (view == colours[counts.argmax()]).all(axis=2)
    assert 0.2 < filled.mean() < 0.7
    assert not filled[35:45, 35:45].any()
    seen = view[~filled].reshape(-1, 3).mean(axis=0)
    assert np.abs(seen - colours[counts.argmax()]).max() < 3


# --- places ------------------------------------------------------------------------------------


def test_places_cover_the_imagery_evenly_and_keep_apart(area: Path) -> None:
    table = pairs(area, NOTHING, count=100)
    lat, lon = table.photos.lat_deg, table.photos.lon_deg
    assert lat is not None
    assert lon is not None
    assert 80 <= len(table) <= 120
    apart = distance_m(lat[:, None], lon[:, None], lat, lon)
    np.fill_diagonal(apart, np.inf)
    # A grid of 252 m / 10, each moved by at most a quarter step.
    assert apart.min() > 25.2 / 2 - 0.5
    offset = enu_offset_m(float(lat.mean()), float(lon.mean()), lat, lon)
    for along in (offset.east_m, offset.north_m):
        quarters = np.histogram(along, bins=4, range=(along.min(), along.max()))[0]
        assert quarters.min() > 15
    assert np.ptp(offset.east_m) > 215
    assert np.ptp(offset.north_m) > 215


def test_places_come_from_the_seed(area: Path) -> None:
    first, again, other = (pairs(area, NOTHING, count=20, seed=s).photos.lat_deg for s in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert np.array_equal(first, again)
    assert len(other) != len(first) or not np.allclose(first, other)


def test_places_without_imagery_are_left_out(tmp_path: Path) -> None:
    rgba = np.full((4, 400, 400), 120, np.uint8)
    rgba[3] = 255
    rgba[3, :, 200:] = 0
    path = tmp_path / "half.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=400,
        height=400,
        count=4,
        dtype="uint8",
        crs="EPSG:32632",
        transform=Affine(0.5, 0, 400_000, 0, -0.5, 5_300_000),
        photometric="RGB",
        alpha="YES",
    ) as raster:
        raster.write(rgba)
    write_mbtiles([path], tmp_path / "half.mbtiles")
    store = ImageryStore(tmp_path / "half.mbtiles")
    lat, lon = scattered_places(store, 40.0, 100, np.random.default_rng(0))
    store.close()
    west_deg = store.bounds.west_deg
    east_m = enu_offset_m(float(lat.mean()), west_deg, lat, lon).east_m
    # Imagery ends 100 m east; a tenth of a tile may reach beyond.
    assert len(lat) > 20
    assert east_m.max() < 100 - 20 + 4 + 4


def test_imagery_smaller_than_a_view_is_refused(area: Path) -> None:
    with pytest.raises(InputError, match="Give more imagery or a smaller ground size"):
        imagery_pairs(area, config=NOTHING, size_px=SIZE_PX, ground_size_m=400.0, count=10, seed=0)


def test_a_camera_that_sees_too_little_is_refused_before_training(area: Path) -> None:
    with pytest.raises(InputError, match="give the height it will fly at"):
        pairs(area, SimulationConfig(height_m=(5.0, 6.0)))


def test_a_file_that_is_no_imagery_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.tif"
    path.write_text("no raster")
    with pytest.raises(ImageryError, match=r"notes\.tif"):
        pairs(path, NOTHING)
