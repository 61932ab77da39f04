import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.warp import transform

from edge_runtime.errors import ImageryError
from edge_runtime.geodesy import move_lat_lon
from edge_runtime.imagery import ImageryStore
from edge_runtime.satellite_imagery import inspect, write_mbtiles

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
MakeRaster = Callable[..., Any]


@contextmanager
def opened(sources: list[Path], out: Path, **options: Any) -> Iterator[ImageryStore]:
    write_mbtiles(sources, out, **options)
    store = ImageryStore(out)
    try:
        yield store
    finally:
        store.close()


def plain(*colour: int) -> Callable[[F64, F64], U8]:
    return lambda column, _row: np.broadcast_to(
        np.array(colour, np.uint8), (*column.shape, len(colour))
    )


def dot_at(column: float, row: float, bands: int = 3) -> Callable[[F64, F64], U8]:
    """A soft bright dot on grey; the last of two or four bands is opaque alpha."""

    def paint(columns: F64, rows: F64) -> U8:
        dot = np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / (2 * 2.0**2))
        image = np.repeat((60 + 180 * dot)[..., None], bands, axis=2)
        if bands in (2, 4):
            image[..., -1] = 255
        return np.asarray(np.round(image), np.uint8)

    return paint


def centroid(image: npt.NDArray[Any]) -> tuple[float, float]:
    """(column, row) of what is brighter than the ground, in pixels from the left upper edge."""
    weight = np.clip(image.astype(np.float64).mean(axis=2) - 75, 0, None)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return (
        float((weight * columns).sum() / weight.sum()),
        float((weight * rows).sum() / weight.sum()),
    )


PLACES = [
    pytest.param("EPSG:32632", 47.5, 8.3, 3, id="UTM"),
    pytest.param("EPSG:4326", 47.5, 8.3, 3, id="degrees"),
    pytest.param("EPSG:3857", 47.5, 8.3, 3, id="Web Mercator"),
    pytest.param("EPSG:2056", 46.95, 7.44, 3, id="Swiss grid, another datum"),
    pytest.param("EPSG:32633", 68.0, 17.8, 3, id="68 degrees north, grid turned"),
    pytest.param("EPSG:4326", 68.0, 17.8, 3, id="68 degrees north, oblong pixels"),
    pytest.param("EPSG:32733", -33.9, 18.4, 3, id="southern hemisphere"),
    pytest.param("EPSG:4326", -54.8, -68.3, 3, id="far south, west"),
    pytest.param("EPSG:32601", 0.9, -180.0, 3, id="UTM across the antimeridian"),
    pytest.param(
        "EPSG:4326",
        0.9,
        180.0,
        3,
        id="degrees across the antimeridian",
    ),
    pytest.param("EPSG:32632", 47.5, 8.3, 1, id="grey"),
    pytest.param("EPSG:32632", 47.5, 8.3, 4, id="with alpha"),
]


@pytest.mark.parametrize(("crs", "lat_deg", "lon_deg", "bands"), PLACES)
def test_a_known_point_comes_back_within_a_tenth_of_a_source_pixel(
    crs: str,
    lat_deg: float,
    lon_deg: float,
    bands: int,
    make_raster: MakeRaster,
    tmp_path: Path,
) -> None:
    blank = make_raster(
        tmp_path / "blank.tif", plain(0), crs=crs, lat_deg=lat_deg, lon_deg=lon_deg, side=500
    )
    dot = move_lat_lon(lat_deg, lon_deg, 11.3, 6.4)
    where = blank.column_row(float(dot.lat_deg), float(dot.lon_deg))
    source = make_raster(
        tmp_path / "map.tif",
        dot_at(where[0], where[1], bands),
        crs=crs,
        lat_deg=lat_deg,
        lon_deg=lon_deg,
        side=500,
    )
    with opened([source.path], tmp_path / "map.mbtiles") as store:
        for east, north in ((0.0, 0.0), (9.0, -4.0)):
            view = move_lat_lon(dot.lat_deg, dot.lon_deg, east, north)
            patch = store.patch(float(view.lat_deg), float(view.lon_deg), size_m=40, size_px=160)
            assert patch.mask.all()
            column, row = centroid(patch.image)
            assert (column - 80) * 0.25 == pytest.approx(-east, abs=0.05)
            assert (row - 80) * 0.25 == pytest.approx(north, abs=0.05)


def test_the_file_is_mbtiles_that_gdal_places_where_we_do(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    blank = make_raster(tmp_path / "blank.tif", plain(0))
    where = blank.column_row(47.5002, 8.3003)
    source = make_raster(tmp_path / "map.tif", dot_at(*where))
    write_mbtiles([source.path], tmp_path / "map.mbtiles")
    with rasterio.open(tmp_path / "map.mbtiles") as file:
        assert file.driver == "MBTiles"
        assert file.crs.to_epsg() == 3857
        bands = np.moveaxis(file.read(), 0, -1)
        rgb = np.where(bands[..., 3:] > 0, bands[..., :3], 0) if bands.shape[2] == 4 else bands
        x, y = file.transform @ centroid(rgb)
    lon, lat = transform("EPSG:3857", "EPSG:4326", [x], [y])[:2]
    column, row = source.column_row(lat[0], lon[0])
    assert (column, row) == pytest.approx(where, abs=0.5)


def test_metadata_says_what_mbtiles_readers_ask_for(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    source = make_raster(tmp_path / "field.tif", plain(10, 90, 30))
    with opened([source.path], tmp_path / "map.mbtiles") as store:
        said = store.metadata
        assert said["name"] == "field"
        assert said["format"] in ("jpg", "png")
        assert (int(said["minzoom"]), int(said["maxzoom"])) == (store.min_zoom, store.max_zoom)
        box = store.bounds
    found = inspect(source.path).bounds
    assert box == pytest.approx(found, abs=1e-8)
    assert box.south_deg < 47.5 < box.north_deg
    assert box.west_deg < 8.3 < box.east_deg
    # 400 px of 0.5 m, and a little more because the grid is turned against north.
    assert (box.north_deg - box.south_deg) * 111_200 == pytest.approx(200, rel=0.03)


def test_the_coarsest_zoom_shows_the_whole_map_in_one_tile(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    source = make_raster(tmp_path / "map.tif", plain(10, 90, 30), side=1200)
    write_mbtiles([source.path], tmp_path / "map.mbtiles")
    db = sqlite3.connect(tmp_path / "map.mbtiles")
    counts = dict(db.execute("SELECT zoom_level, COUNT(*) FROM tiles GROUP BY zoom_level"))
    db.close()
    zooms = sorted(counts)
    assert zooms == list(range(zooms[0], zooms[-1] + 1))
    assert counts[zooms[0]] == 1
    assert all(counts[z] <= counts[z + 1] for z in zooms[:-1])


@pytest.mark.parametrize("gsd_m", [0.3, 0.5, 1.0, 4.0])
def test_the_finest_zoom_keeps_the_resolution(
    gsd_m: float, make_raster: MakeRaster, tmp_path: Path
) -> None:
    source = make_raster(tmp_path / "map.tif", plain(10, 90, 30), gsd_m=gsd_m, side=200)
    assert inspect(source.path).gsd_m == pytest.approx(gsd_m, rel=0.03)
    with opened([source.path], tmp_path / "map.mbtiles") as store:
        assert gsd_m / 2 < store.gsd_m(47.5) <= 1.25 * gsd_m


@pytest.mark.parametrize("finer_first", [True, False])
def test_the_finer_of_two_overlapping_sources_wins(
    finer_first: bool, make_raster: MakeRaster, tmp_path: Path
) -> None:
    coarse = make_raster(tmp_path / "coarse.tif", plain(200, 20, 20), gsd_m=2.0, side=300).path
    fine = make_raster(tmp_path / "fine.tif", plain(20, 200, 20), gsd_m=0.5, side=300).path
    sources = [fine, coarse] if finer_first else [coarse, fine]
    with opened(sources, tmp_path / "map.mbtiles") as store:
        inside = store.patch(47.5, 8.3, size_m=100, size_px=50)
        beside = move_lat_lon(47.5, 8.3, 200.0, 0.0)
        outside = store.patch(*map(float, beside), size_m=100, size_px=50)
    assert inside.mask.all()
    assert outside.mask.all()
    assert inside.image.mean(axis=(0, 1)) == pytest.approx([20, 200, 20], abs=6)
    assert outside.image.mean(axis=(0, 1)) == pytest.approx([200, 20, 20], abs=6)


def test_sources_side_by_side_make_one_map_without_a_seam(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    left = make_raster(tmp_path / "a.tif", plain(90, 90, 90), crs="EPSG:3857", lon_deg=8.3)
    step = left.side * left.transform.a / 111_319.49  # EPSG:3857 metres per degree of longitude.
    right = make_raster(tmp_path / "b.tif", plain(90, 90, 90), crs="EPSG:3857", lon_deg=8.3 + step)
    with opened([left.path, right.path], tmp_path / "map.mbtiles") as store:
        patch = store.patch(47.5, 8.3 + step / 2, size_m=100, size_px=200)
        whole = store.bounds
    assert patch.mask.all()
    assert patch.image.min() > 80
    assert whole.east_deg - whole.west_deg == pytest.approx(2 * step, rel=1e-3)


@pytest.mark.parametrize("crossing_first", [True, False])
def test_sources_across_and_beside_the_antimeridian_make_one_narrow_map(
    crossing_first: bool, make_raster: MakeRaster, tmp_path: Path
) -> None:
    across = make_raster(
        tmp_path / "a.tif", plain(90, 90, 90), crs="EPSG:4326", lat_deg=0.9, lon_deg=180.0
    )
    step = across.side * across.transform.a
    east = make_raster(
        tmp_path / "b.tif", plain(90, 90, 90), crs="EPSG:4326", lat_deg=0.9, lon_deg=step - 180.0
    )
    sources = [across.path, east.path]
    with opened(sources if crossing_first else sources[::-1], tmp_path / "map.mbtiles") as store:
        whole = store.bounds
        patch = store.patch(0.9, step / 2 - 180.0, size_m=100, size_px=200)
    assert patch.mask.all()
    assert whole.west_deg == pytest.approx(180 - step / 2)
    assert whole.east_deg == pytest.approx(180 + 1.5 * step)


def test_degrees_counted_from_0_to_360_are_as_good(make_raster: MakeRaster, tmp_path: Path) -> None:
    source = make_raster(tmp_path / "map.tif", plain(90, 120, 60), crs="EPSG:4326", lon_deg=10.0)
    with rasterio.open(source.path, "r+") as file:
        place = source.transform
        file.transform = Affine(place.a, 0, place.c + 190.0, 0, place.e, place.f)
    with opened([source.path], tmp_path / "map.mbtiles") as store:
        patch = store.patch(47.5, -160.0, size_m=60, size_px=60)
        assert store.bounds.west_deg % 360 == pytest.approx(200, abs=0.01)
    assert patch.mask.all()


def test_nodata_is_left_out_of_the_mask(make_raster: MakeRaster, tmp_path: Path) -> None:
    def western_half(column: F64, _row: F64) -> U8:
        return np.asarray(np.where(column < 200, 120, 0)[..., None].repeat(3, axis=2), np.uint8)

    source = make_raster(tmp_path / "map.tif", western_half, crs="EPSG:3857", nodata=0)
    with opened([source.path], tmp_path / "map.mbtiles") as store:
        patch = store.patch(47.5, 8.3, size_m=60, size_px=120)
    assert patch.mask[:, :58].all()
    assert not patch.mask[:, 62:].any()
    assert patch.image[:, :58].mean() == pytest.approx(120, abs=3)


def test_there_is_no_imagery_beyond_the_edge(make_raster: MakeRaster, tmp_path: Path) -> None:
    source = make_raster(tmp_path / "map.tif", plain(120, 120, 120))
    with opened([source.path], tmp_path / "map.mbtiles") as store:
        edge = move_lat_lon(47.5, 8.3, 100.0, 0.0)
        patch = store.patch(*map(float, edge), size_m=40, size_px=80)
    assert patch.mask[:, :30].all()
    assert not patch.mask[:, 50:].any()


def test_progress_rises_to_one(make_raster: MakeRaster, tmp_path: Path) -> None:
    sources = [make_raster(tmp_path / f"{n}.tif", plain(9, 9, 9)).path for n in range(2)]
    seen: list[float] = []
    write_mbtiles(sources, tmp_path / "m.mbtiles", progress=lambda _, done: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_fourth_band_that_is_not_alpha_hides_nothing(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    # Aerial imagery often carries near infrared behind red, green and blue.
    source = make_raster(
        tmp_path / "map.tif", plain(90, 120, 60, 140), photometric="RGB", alpha="NO"
    )
    with opened([source.path], tmp_path / "map.mbtiles") as store:
        patch = store.patch(47.5, 8.3, size_m=60, size_px=60)
    assert patch.mask.all()
    assert patch.image.mean(axis=(0, 1)) == pytest.approx([90, 120, 60], abs=4)


def test_a_second_band_that_is_not_alpha_hides_nothing(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    source = make_raster(tmp_path / "map.tif", plain(90, 140), alpha="NO")
    with opened([source.path], tmp_path / "map.mbtiles") as store:
        patch = store.patch(47.5, 8.3, size_m=60, size_px=60)
    assert patch.mask.all()
    assert patch.image.mean(axis=(0, 1)) == pytest.approx([90, 90, 90], abs=4)


# --- refusals ----------------------------------------------------------------------------------


def refused(path: Path, out: Path) -> str:
    with pytest.raises(ImageryError) as caught:
        write_mbtiles([path], out)
    line = str(caught.value)
    assert path.name in line
    assert "\n" not in line
    return line


def test_imagery_without_a_georeference_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 3, "dtype": "uint8"}
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.full((3, 64, 64), 90, np.uint8))
        line = refused(path, tmp_path / "m.mbtiles")
    assert "has no georeference" in line
    assert "gdal_translate -a_srs" in line


def test_five_bands_without_names_are_refused(make_raster: MakeRaster, tmp_path: Path) -> None:
    path = make_raster(tmp_path / "many.tif", plain(1, 2, 3, 4, 5)).path
    line = refused(path, tmp_path / "m.mbtiles")
    assert "expected 1 to 4 bands" in line
    assert "gdal_translate -b 3 -b 2 -b 1" in line


@pytest.mark.parametrize("content", [b"", b"not a raster", None])
def test_a_file_that_is_no_raster_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    if content is not None:
        path.write_bytes(content)
    assert "expected a georeferenced raster" in refused(path, tmp_path / "m.mbtiles")


def test_a_truncated_raster_is_refused(
    make_raster: MakeRaster, coloured_noise: Callable[..., Any], tmp_path: Path
) -> None:
    path = make_raster(tmp_path / "map.tif", coloured_noise()).path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "expected a complete raster" in refused(path, tmp_path / "m.mbtiles")


def test_imagery_without_a_visible_pixel_is_refused(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    path = make_raster(tmp_path / "map.tif", plain(0, 0, 0), nodata=0).path
    assert "no visible pixel" in refused(path, tmp_path / "m.mbtiles")


def test_imagery_beyond_web_mercator_is_refused(make_raster: MakeRaster, tmp_path: Path) -> None:
    path = make_raster(tmp_path / "map.tif", plain(9, 9, 9), crs="EPSG:4326", lat_deg=86.0).path
    assert "expected within ±85" in refused(path, tmp_path / "m.mbtiles")


def test_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="expected at least one"):
        write_mbtiles([], tmp_path / "m.mbtiles")
