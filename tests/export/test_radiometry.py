from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.enums import ColorInterp

from edge_runtime.errors import ImageryError
from edge_runtime.imagery import ImageryStore, Patch
from edge_runtime.satellite_imagery import open_sources, write_mbtiles

F64 = npt.NDArray[np.float64]
MakeRaster = Callable[..., Any]


@contextmanager
def opened(path: Path) -> Iterator[ImageryStore]:
    store = ImageryStore(path)
    try:
        yield store
    finally:
        store.close()


def seen(paths: list[Path], out: Path, lon_deg: float = 8.3) -> Patch:
    write_mbtiles(paths, out, quality=95)
    with opened(out) as store:
        return store.patch(47.5, lon_deg, size_m=100, size_px=100)


def ramp(low: float, high: float, dtype: str, bands: int = 3) -> Callable[[F64, F64], Any]:
    """From low in the west to high in the east."""

    def paint(column: F64, _row: F64) -> Any:
        value = low + (high - low) * column / column.max()
        return value[..., None].repeat(bands, axis=2).astype(dtype)

    return paint


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("uint16", 200, 3000), ("int16", -500, 900), ("float32", 0.01, 0.35), ("uint32", 1, 70_000)],
)
def test_deep_values_are_stretched_between_their_percentiles(
    dtype: str, low: float, high: float, make_raster: MakeRaster, tmp_path: Path
) -> None:
    path = make_raster(tmp_path / "map.tif", ramp(low, high, dtype), crs="EPSG:3857").path
    patch = seen([path], tmp_path / "m.mbtiles")
    (source,) = open_sources([path])
    for black, white in source.stretch:
        assert black == pytest.approx(low + 0.02 * (high - low), abs=0.01 * (high - low))
        assert white == pytest.approx(low + 0.98 * (high - low), abs=0.01 * (high - low))
    assert source.to_json()["stretch"] == [list(pair) for pair in source.stretch]
    # 100 m in the middle of 200 m: from a quarter to three quarters of the way up.
    across = patch.image.mean(axis=(0, 2))
    expected = (np.linspace(0.25, 0.75, 100) - 0.02) / 0.96 * 255
    assert np.abs(across - expected).max() < 3


def test_files_of_one_survey_share_their_stretch(make_raster: MakeRaster, tmp_path: Path) -> None:
    """Alone the dark file would be drawn as bright as the other."""
    step = 400 * 0.5 / np.cos(np.radians(47.5)) / 111_319.49
    dark = make_raster(tmp_path / "a.tif", ramp(300, 600, "uint16"), crs="EPSG:3857").path
    bright = make_raster(
        tmp_path / "b.tif", ramp(600, 3000, "uint16"), crs="EPSG:3857", lon_deg=8.3 + step
    ).path
    one, other = open_sources([dark, bright])
    assert one.stretch == other.stretch
    assert one.stretch != open_sources([dark])[0].stretch
    (folder,) = open_sources([tmp_path])
    assert folder.stretch == one.stretch
    assert folder.kind == "rasters"
    left = seen([dark, bright], tmp_path / "m.mbtiles").image.mean()
    assert left < 40


def test_surveys_of_other_pixels_keep_their_own_stretch(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    fine = make_raster(tmp_path / "a.tif", ramp(300, 600, "uint16")).path
    coarse = make_raster(tmp_path / "b.tif", ramp(600, 3000, "uint16"), gsd_m=2.0).path
    one, other = open_sources([fine, coarse])
    assert one.stretch != other.stretch


def test_a_frame_of_zeros_does_not_darken_a_scene(make_raster: MakeRaster, tmp_path: Path) -> None:
    def framed(column: F64, _row: F64) -> Any:
        value = np.where(column < 250, 0, 1000 + column)
        return value[..., None].repeat(3, axis=2).astype(np.uint16)

    (source,) = open_sources([make_raster(tmp_path / "map.tif", framed).path])
    assert all(1245 < black < 1260 for black, _ in source.stretch)


def test_values_that_are_no_number_are_no_imagery(make_raster: MakeRaster, tmp_path: Path) -> None:
    def holed(column: F64, _row: F64) -> Any:
        value = np.where(column < 200, np.nan, 0.1 + column / 1000)
        return value[..., None].repeat(3, axis=2).astype(np.float32)

    patch = seen([make_raster(tmp_path / "m.tif", holed, crs="EPSG:3857").path], tmp_path / "m")
    assert not patch.mask[:, :48].any()
    assert patch.mask[:, 52:].all()


def test_deep_nodata_is_left_out(make_raster: MakeRaster, tmp_path: Path) -> None:
    def half(column: F64, _row: F64) -> Any:
        value = np.where(column < 200, 65535, 900 + column)
        return value[..., None].repeat(3, axis=2).astype(np.uint16)

    path = make_raster(tmp_path / "m.tif", half, crs="EPSG:3857", nodata=65535).path
    (source,) = open_sources([path])
    assert all(white < 1400 for _, white in source.stretch)
    patch = seen([path], tmp_path / "m")
    assert not patch.mask[:, :48].any()
    assert patch.mask[:, 52:].all()


def test_bands_are_taken_by_what_they_are_called(make_raster: MakeRaster, tmp_path: Path) -> None:
    """Blue, green, red and near infrared, in the order of many satellites."""

    def paint(column: F64, _row: F64) -> Any:
        return np.broadcast_to(np.array([30, 60, 90, 240], np.uint8), (*column.shape, 4))

    path = make_raster(tmp_path / "m.tif", paint, photometric="MINISBLACK", alpha="NO").path
    with rasterio.open(path, "r+") as file:
        nir = getattr(ColorInterp, "nir", ColorInterp.undefined)
        file.colorinterp = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, nir)
    patch = seen([path], tmp_path / "m")
    assert patch.mask.all()
    assert patch.image.mean(axis=(0, 1)) == pytest.approx([90, 60, 30], abs=2)


def test_eight_bands_with_three_named_are_used(make_raster: MakeRaster, tmp_path: Path) -> None:
    def paint(column: F64, _row: F64) -> Any:
        return np.broadcast_to(np.arange(10, 90, 10, dtype=np.uint8), (*column.shape, 8))

    path = make_raster(tmp_path / "m.tif", paint, photometric="MINISBLACK", alpha="NO").path
    with rasterio.open(path, "r+") as file:
        names = [ColorInterp.undefined] * 8
        names[5], names[3], names[1] = ColorInterp.red, ColorInterp.green, ColorInterp.blue
        file.colorinterp = tuple(names)
    assert seen([path], tmp_path / "m").image.mean(axis=(0, 1)) == pytest.approx(
        [60, 40, 20], abs=2
    )


def test_a_palette_is_expanded_before_anything_is_mixed(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    """Numbers 0 and 2 side by side: their mean is number 1, which is another colour."""

    def stripes(column: F64, _row: F64) -> Any:
        return np.where(column.astype(int) % 2, 2, 0)[..., None].astype(np.uint8)

    path = make_raster(
        tmp_path / "m.tif", stripes, photometric="PALETTE", gsd_m=0.1, side=1600
    ).path
    with rasterio.open(path, "r+") as file:
        file.write_colormap(
            1, {0: (10, 200, 30, 255), 1: (255, 0, 255, 255), 2: (30, 160, 10, 255)}
        )
    patch = seen([path], tmp_path / "m")
    assert patch.mask.all()
    assert patch.image.mean(axis=(0, 1)) == pytest.approx([20, 180, 20], abs=4)


def test_nodata_of_a_palette_is_left_out(make_raster: MakeRaster, tmp_path: Path) -> None:
    def half(column: F64, _row: F64) -> Any:
        return np.where(column < 200, 7, 3)[..., None].astype(np.uint8)

    options = {"photometric": "PALETTE", "nodata": 7, "crs": "EPSG:3857"}
    path = make_raster(tmp_path / "m.tif", half, **options).path
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, dict.fromkeys(range(256), (90, 80, 70, 255)))
    patch = seen([path], tmp_path / "m")
    assert not patch.mask[:, :48].any()
    assert patch.mask[:, 52:].all()
    assert patch.image[:, 55:].mean(axis=(0, 1)) == pytest.approx([90, 80, 70], abs=3)


def test_a_mask_inside_the_file_is_kept_to(make_raster: MakeRaster, tmp_path: Path) -> None:
    """As orthophotos with JPEG compression carry it."""

    def grey(column: F64, _row: F64) -> Any:
        return np.full((*column.shape, 3), 120, np.uint8)

    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = make_raster(tmp_path / "m.tif", grey, crs="EPSG:3857").path
        with rasterio.open(path, "r+") as file:
            mask = np.full((400, 400), 255, np.uint8)
            mask[:, :200] = 0
            file.write_mask(mask)
    patch = seen([path], tmp_path / "m")
    assert not patch.mask[:, :48].any()
    assert patch.mask[:, 52:].all()


def test_a_colour_with_zeros_is_not_nodata(make_raster: MakeRaster, tmp_path: Path) -> None:
    def red(column: F64, _row: F64) -> Any:
        return np.broadcast_to(np.array([200, 0, 0], np.uint8), (*column.shape, 3))

    path = make_raster(tmp_path / "m.tif", red, nodata=0).path
    assert seen([path], tmp_path / "m").mask.all()


def test_an_alpha_band_of_16_bits_is_kept_to(make_raster: MakeRaster, tmp_path: Path) -> None:
    def half(column: F64, _row: F64) -> Any:
        value = (1000 + column)[..., None].repeat(4, axis=2)
        value[..., 3] = np.where(column < 200, 0, 65535)
        return value.astype(np.uint16)

    path = make_raster(
        tmp_path / "m.tif", half, crs="EPSG:3857", photometric="RGB", alpha="YES"
    ).path
    patch = seen([path], tmp_path / "m")
    assert not patch.mask[:, :48].any()
    assert patch.mask[:, 52:].all()


def test_complex_values_are_refused(make_raster: MakeRaster, tmp_path: Path) -> None:
    def radar(column: F64, _row: F64) -> Any:
        return np.ones((*column.shape, 1), np.complex64)

    path = make_raster(tmp_path / "m.tif", radar).path
    with pytest.raises(ImageryError, match="complex64; expected bands of one type"):
        open_sources([path])


def test_deep_imagery_without_a_value_is_refused(make_raster: MakeRaster, tmp_path: Path) -> None:
    path = make_raster(tmp_path / "m.tif", ramp(0, 0, "uint16"), nodata=0).path
    with pytest.raises(ImageryError, match="no visible pixel"):
        open_sources([path])
