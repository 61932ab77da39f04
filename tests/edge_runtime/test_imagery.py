import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import ImageryError
from edge_runtime.imagery import Bounds, ImageryStore, decode_tile, tile_bounds

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
MakeMbtiles = Callable[..., Path]

PLACES = [
    pytest.param(0.01, 25.0, id="the equator"),
    pytest.param(67.3, 15.0, id="67 N"),
    pytest.param(-33.9, 151.2, id="the southern hemisphere"),
    pytest.param(-17.0, 180.0, id="across the antimeridian"),
    pytest.param(-17.0, -179.9999, id="just east of the antimeridian"),
]


class Offset(NamedTuple):
    east_m: float
    north_m: float


def world_pixel(lat_deg: float, lon_deg: float, zoom: int) -> tuple[float, float]:
    """The slippy map formula of the OpenStreetMap wiki, times 256."""
    lat, n = math.radians(lat_deg), 256 * 2**zoom
    y = (1 - math.log(math.tan(lat) + 1 / math.cos(lat)) / math.pi) / 2 * n
    return (lon_deg + 180) / 360 * n, y


def from_world_pixel(x: float, y: float, zoom: int) -> tuple[float, float]:
    """Its inverse, from the same page."""
    n = 256 * 2**zoom
    return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / n)))), x / n * 360 - 180


def corner(across: int) -> tuple[float, float]:
    """World pixels, zoom 17: a middle for `across` tiles that halve without a rest."""
    x, y = world_pixel(47.5, 8.3, 17)
    block = 256 * across
    return (x // block) * block + block / 2, (y // block) * block + block / 2


def offset_slowly(lat0: float, lon0: float, lat: float, lon: float) -> Offset:
    """East and north through earth-centred coordinates (WGS 84)."""

    def ecef(lat_deg: float, lon_deg: float) -> F64:
        b, a, f = math.radians(lat_deg), 6378137.0, 1 / 298.257223563
        e2 = f * (2 - f)
        n = a / math.sqrt(1 - e2 * math.sin(b) ** 2)
        g = math.radians(lon_deg)
        return n * np.array(
            [
                math.cos(b) * math.cos(g),
                math.cos(b) * math.sin(g),
                (1 - e2) * math.sin(b),
            ]
        )

    b, g = math.radians(lat0), math.radians(lon0)
    d = ecef(lat, lon) - ecef(lat0, lon0)
    east = np.array([-math.sin(g), math.cos(g), 0.0])
    north = np.array([-math.sin(b) * math.cos(g), -math.sin(b) * math.sin(g), math.cos(b)])
    return Offset(float(east @ d), float(north @ d))


def spot(x0: float, y0: float) -> Callable[[F64, F64], U8]:
    """A bright spot of 3 px sigma at a world pixel position, red brighter than blue."""

    def paint(x: F64, y: F64) -> U8:
        light = np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 18)
        return np.asarray(np.stack([250 * light, 120 * light, 30 * light], axis=-1), np.uint8)

    return paint


def plain(x: F64, y: F64) -> U8:
    return np.full((*x.shape, 3), (200, 120, 40), np.uint8)


def centroid(image: U8) -> tuple[float, float]:
    """Column and row of the light's middle."""
    light = image[..., 0].astype(float)
    rows, columns = np.indices(light.shape)
    return float((light * columns).sum() / light.sum()), float((light * rows).sum() / light.sum())


@pytest.fixture
def opened(tmp_path: Path, make_mbtiles: MakeMbtiles) -> Iterator[Callable[..., ImageryStore]]:
    """Makes and opens a store, and closes it afterwards."""
    stores: list[ImageryStore] = []

    def make(paint: Callable[[F64, F64], U8], **options: float) -> ImageryStore:
        stores.append(ImageryStore(make_mbtiles(tmp_path / "map.mbtiles", paint, **options)))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.mark.parametrize("size_px", [100, 400])
@pytest.mark.parametrize(("lat", "lon"), PLACES)
def test_a_known_spot_lies_where_it_is(
    opened: Callable[..., ImageryStore], lat: float, lon: float, size_px: int
) -> None:
    spot_lat, spot_lon = lat + 2e-4, lon - 3e-4
    at = world_pixel(spot_lat, spot_lon, 18)
    store = opened(spot(*at), lat_deg=lat, lon_deg=lon, zoom=18)
    size_m = 100.0
    patch = store.patch(lat, lon, size_m=size_m, size_px=size_px)
    expected = offset_slowly(lat, lon, spot_lat, spot_lon)
    column, row = centroid(patch.image)
    step = size_m / size_px
    assert (column + 0.5) * step - size_m / 2 == pytest.approx(expected.east_m, abs=0.05)
    assert size_m / 2 - (row + 0.5) * step == pytest.approx(expected.north_m, abs=0.05)


@pytest.mark.parametrize(("lat", "lon"), PLACES)
def test_a_patch_moved_by_whole_steps_shows_the_same_ground(
    opened: Callable[..., ImageryStore],
    coloured_noise: Callable[[tuple[int, int], int], U8],
    lat: float,
    lon: float,
) -> None:
    store = opened(
        lambda x, _: coloured_noise((x.shape[0], x.shape[1]), 3), lat_deg=lat, lon_deg=lon
    )
    step_m = 1.0
    one_m = offset_slowly(lat, lon, lat + 1e-5, lon + 1e-5)
    d_lat, d_lon = 10 * step_m / one_m.north_m * 1e-5, 20 * step_m / one_m.east_m * 1e-5
    here = store.patch(lat, lon, size_m=80.0, size_px=80).image.astype(int)
    there = store.patch(lat + d_lat, lon + d_lon, size_m=80.0, size_px=80).image.astype(int)
    difference = np.abs(there[10:, :-20] - here[:-10, 20:])
    assert difference.mean() < 1.0
    assert difference.max() <= 12


def test_colours_are_red_green_blue(opened: Callable[..., ImageryStore]) -> None:
    patch = opened(plain).patch(47.5, 8.3, size_m=50.0, size_px=40)
    assert patch.image.dtype == np.uint8
    assert np.all(patch.image == (200, 120, 40))
    assert np.all(patch.mask == 255)


def test_a_store_that_keeps_one_tile_cuts_the_same_patches(
    opened: Callable[..., ImageryStore], coloured_noise: Callable[[tuple[int, int], int], U8]
) -> None:
    many = opened(lambda x, _: coloured_noise((x.shape[0], x.shape[1]), 3))
    one = ImageryStore(many.path, cached_tiles=1)
    for east in (0.0, 2e-4, -2e-4, 0.0, 5e-3):
        here, there = (s.patch(47.5, 8.3 + east, size_m=90.0, size_px=60) for s in (many, one))
        assert np.array_equal(here.image, there.image)
        assert np.array_equal(here.mask, there.mask)
    one.close()


def test_ground_without_imagery_is_black_and_masked(opened: Callable[..., ImageryStore]) -> None:
    store = opened(plain)
    bounds = store.bounds
    lat = (bounds.south_deg + bounds.north_deg) / 2
    patch = store.patch(lat, bounds.east_deg, size_m=100.0, size_px=100)
    assert np.all(patch.mask[:, :49] == 255)
    assert np.all(patch.mask[:, 51:] == 0)
    assert np.all(patch.image[:, 52:] == 0)
    lon = (bounds.west_deg + bounds.east_deg) / 2
    patch = store.patch(bounds.north_deg, lon, size_m=100.0, size_px=100)
    assert np.all(patch.mask[51:] == 255)
    assert np.all(patch.mask[:49] == 0)


def test_far_from_the_imagery_there_is_nothing(opened: Callable[..., ImageryStore]) -> None:
    store = opened(plain)
    for lat, lon in ((-47.5, 8.3), (47.5, -171.7), (85.04, 8.3), (-85.05, 0.0)):
        assert not store.patch(lat, lon, size_m=50.0, size_px=16).mask.any()


def test_transparent_pixels_are_no_imagery(opened: Callable[..., ImageryStore]) -> None:
    def half_clear(x: F64, y: F64) -> U8:
        rgba = np.full((*x.shape, 4), 255, np.uint8)
        rgba[:, : x.shape[1] // 2, 3] = 0
        return rgba

    store = opened(half_clear)
    bounds = store.bounds
    middle = (bounds.west_deg + bounds.east_deg) / 2
    mask = store.patch(47.5, middle, size_m=60.0, size_px=60).mask
    assert not mask[:, :29].any()
    assert np.all(mask[:, 31:] == 255)


def test_a_coarse_patch_is_made_from_the_overviews(opened: Callable[..., ImageryStore]) -> None:
    """The finest zoom is stripes of one pixel; its overviews are grey."""

    def stripes(x: F64, y: F64) -> U8:
        return np.where((x.astype(int) % 2)[..., None] > 0, 255, 1).repeat(3, -1).astype(np.uint8)

    lat, lon = from_world_pixel(*corner(4), 17)
    store = opened(stripes, lat_deg=lat, lon_deg=lon, across=4, overviews=2)
    assert (store.min_zoom, store.max_zoom) == (15, 17)
    gsd = store.gsd_m(lat)
    fine = store.patch(lat, lon, size_m=gsd * 64, size_px=64).image
    coarse = store.patch(lat, lon, size_m=gsd * 512, size_px=128).image
    assert fine.std() > 50
    assert coarse.std() < 1
    assert coarse.mean() == pytest.approx(128, abs=2)


def test_overviews_and_full_resolution_agree_on_where_things_are(
    opened: Callable[..., ImageryStore],
) -> None:
    x, y = corner(2)
    lat, lon = from_world_pixel(x, y, 17)
    store = opened(spot(x + 30, y - 50), lat_deg=lat, lon_deg=lon, overviews=1)
    gsd = store.gsd_m(lat)
    fine = centroid(store.patch(lat, lon, size_m=gsd * 200, size_px=200).image)
    coarse = centroid(store.patch(lat, lon, size_m=gsd * 200, size_px=100).image)
    assert (fine[0] + 0.5) / 200 == pytest.approx((coarse[0] + 0.5) / 100, abs=0.002)
    assert (fine[1] + 0.5) / 200 == pytest.approx((coarse[1] + 0.5) / 100, abs=0.002)


def test_ground_resolution_at_the_equator_is_the_published_one(
    opened: Callable[..., ImageryStore],
) -> None:
    """OpenStreetMap wiki, zoom levels: 1.194 m a pixel at zoom 17."""
    assert opened(plain).gsd_m(0.0) == pytest.approx(1.194, abs=5e-4)


def test_the_box_of_a_known_tile() -> None:
    """mercantile.bounds(486, 332, 10), from its documentation."""
    box = tile_bounds(10, 486, 332)
    assert box.west_deg == pytest.approx(-9.140625)
    assert box.south_deg == pytest.approx(53.12040528310657)
    assert box.east_deg == pytest.approx(-8.7890625)
    assert box.north_deg == pytest.approx(53.33087298301705)


def test_the_easternmost_tile_ends_at_180_and_not_at_minus_180() -> None:
    assert tile_bounds(3, 7, 4).east_deg == pytest.approx(180.0)


def test_the_box_comes_from_the_file(opened: Callable[..., ImageryStore]) -> None:
    south, west, north, east = opened(plain, lat_deg=47.5, lon_deg=8.3).bounds
    assert south < 47.5 < north
    assert west < 8.3 < east


def test_closing_twice_is_harmless(opened: Callable[..., ImageryStore]) -> None:
    store = opened(plain)
    store.close()
    store.close()


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100])
def test_what_is_not_mbtiles_is_refused_with_how_to_make_one(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "map.mbtiles").write_bytes(content)
    with pytest.raises(ImageryError, match=r"not an MBTiles file .*python -m export index"):
        ImageryStore(tmp_path / "map.mbtiles")


def test_a_missing_file_is_refused_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="not an MBTiles file"):
        ImageryStore(tmp_path / "none.mbtiles")
    assert not list(tmp_path.iterdir())


def test_a_file_without_tiles_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "map.mbtiles")
    db.execute("CREATE TABLE metadata (name text, value text)")
    db.execute("CREATE TABLE tiles (zoom_level, tile_column, tile_row, tile_data)")
    db.commit()
    db.close()
    with pytest.raises(ImageryError, match=r"holds no tiles.*python -m export index"):
        ImageryStore(tmp_path / "map.mbtiles")


@pytest.mark.parametrize("name", ["map #2.mbtiles", "what?.mbtiles", "100%25.mbtiles"])
def test_a_path_may_have_any_characters(
    tmp_path: Path, make_mbtiles: MakeMbtiles, name: str
) -> None:
    store = ImageryStore(make_mbtiles(tmp_path / name, plain))
    store.close()


def test_imagery_without_bounds_is_refused(tmp_path: Path, make_mbtiles: MakeMbtiles) -> None:
    path = make_mbtiles(tmp_path / "map.mbtiles", plain)
    db = sqlite3.connect(path)
    db.execute("DELETE FROM metadata WHERE name = 'bounds'")
    db.commit()
    db.close()
    with pytest.raises(ImageryError):
        bounds_of(path)


def bounds_of(path: Path) -> Bounds:
    with closing(ImageryStore(path)) as store:
        return store.bounds


def encoded(image: npt.NDArray[np.integer[Any]]) -> bytes:
    ok, data = cv2.imencode(".png", image)
    assert ok
    return bytes(data.tobytes())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"hello", id="text"),
        pytest.param(encoded(np.zeros((512, 512, 3), np.uint8)), id="512 px"),
        pytest.param(
            b"",
            id="nothing",
        ),
        pytest.param(
            encoded(np.full((256, 256, 3), 257, np.uint16)),
            id="16 bits",
        ),
    ],
)
def test_a_tile_that_is_not_one_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ImageryError, match=r"tile 3/1/2 is not a 256x256 px image"):
        decode_tile(data, "tile 3/1/2")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_colour_and_transparent_tiles_become_rgba(channels: int) -> None:
    image = np.zeros((256, 256, channels), np.uint8)
    image[..., 0] = 90  # Blue first, as OpenCV writes.
    image[..., 3:] = 255
    expected = {1: (90, 90, 90, 255), 3: (0, 0, 90, 255), 4: (0, 0, 90, 255)}[channels]
    assert np.all(decode_tile(encoded(image), "tile") == expected)
