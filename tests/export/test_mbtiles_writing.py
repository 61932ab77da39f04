import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import rasterio

from edge_runtime.errors import ImageryError, InputError
from edge_runtime.geodesy import move_lat_lon
from edge_runtime.imagery import ImageryStore, painted_over
from edge_runtime.satellite_imagery import ImageFormat, open_sources, write_mbtiles

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
MakeRaster = Callable[..., Any]
Key = tuple[int, int, int]


def plain(*colour: int) -> Callable[[F64, F64], U8]:
    return lambda column, _row: np.broadcast_to(
        np.array(colour, np.uint8), (*column.shape, len(colour))
    )


@contextmanager
def opened(path: Path) -> Iterator[ImageryStore]:
    store = ImageryStore(path)
    try:
        yield store
    finally:
        store.close()


def tiles_of(path: Path) -> dict[Key, bytes]:
    """By zoom, column and row counted from the north."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT zoom_level, tile_column, tile_row, tile_data FROM tiles")
        return {(z, x, 2**z - 1 - tms): bytes(data) for z, x, tms, data in rows}


def coloured_tile(seed: int, suffix: str = ".jpg") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (256, 256, 3), np.uint8)
    return cv2.imencode(suffix, np.asarray(cv2.GaussianBlur(noise, (0, 0), 4)))[1].tobytes()


def folder_of(path: Path, tiles: dict[Key, bytes], suffix: str = ".jpg") -> Path:
    for (z, x, y), data in tiles.items():
        file = path / str(z) / str(x) / f"{y}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


BLOCK: dict[Key, bytes] = {
    (16, 34000 + i, 23000 + j): coloured_tile(2 * i + j) for i in range(2) for j in range(2)
}


# --- resolutions -------------------------------------------------------------------------------


def test_coarse_imagery_is_not_blown_up_around_a_fine_patch(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    coarse = make_raster(tmp_path / "coarse.tif", plain(200, 20, 20), gsd_m=8.0, side=400).path
    fine = make_raster(tmp_path / "fine.tif", plain(20, 200, 20), gsd_m=0.5, side=300).path
    write_mbtiles([fine, coarse], tmp_path / "both.mbtiles")
    write_mbtiles([fine], tmp_path / "fine.mbtiles")
    both, alone = tiles_of(tmp_path / "both.mbtiles"), tiles_of(tmp_path / "fine.mbtiles")
    deepest = max(z for z, _, _ in both)
    assert {k for k in both if k[0] == deepest} == {k for k in alone if k[0] == deepest}
    with opened(tmp_path / "both.mbtiles") as store:
        beside = move_lat_lon(47.5, 8.3, 800.0, 300.0)
        patch = store.patch(*map(float, beside), size_m=60, size_px=120)
        assert patch.mask.all()
        assert patch.image.mean(axis=(0, 1)) == pytest.approx([200, 20, 20], abs=6)
        here, there = store.gsd_at_m(47.5, 8.3), store.gsd_at_m(*map(float, beside))
        assert here == pytest.approx(store.gsd_m(47.5))
        assert there is not None
        assert 6.0 < there < 10.0
        assert store.gsd_at_m(10.0, 8.3) is None


@pytest.mark.parametrize("finer_first", [True, False])
def test_of_two_sources_at_one_zoom_the_finer_is_seen(
    finer_first: bool, make_raster: MakeRaster, tmp_path: Path
) -> None:
    coarse = make_raster(tmp_path / "coarse.tif", plain(200, 20, 20), gsd_m=0.6).path
    fine = make_raster(tmp_path / "fine.tif", plain(20, 200, 20), gsd_m=0.4).path
    sources = open_sources([fine, coarse] if finer_first else [coarse, fine])
    assert sources[0].layers[0].zoom == sources[1].layers[0].zoom
    write_mbtiles(sources, tmp_path / "m.mbtiles")
    with opened(tmp_path / "m.mbtiles") as store:
        patch = store.patch(47.5, 8.3, size_m=100, size_px=50)
    assert patch.image.mean(axis=(0, 1)) == pytest.approx([20, 200, 20], abs=6)


def test_there_is_no_seam_where_fine_imagery_meets_coarse(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    """Masks, colours and places agree across the edge, through zooms that lie between."""
    coarse = make_raster(tmp_path / "coarse.tif", plain(90, 120, 60), gsd_m=4.0, side=400).path
    fine = make_raster(tmp_path / "fine.tif", plain(90, 120, 60), gsd_m=0.5, side=400).path
    write_mbtiles([coarse, fine], tmp_path / "m.mbtiles")
    with opened(tmp_path / "m.mbtiles") as store:
        for size_m in (30, 120, 500):
            edge = move_lat_lon(47.5, 8.3, 100.0, 100.0)
            patch = store.patch(*map(float, edge), size_m=size_m, size_px=128)
            assert patch.mask.all()
            assert np.abs(patch.image.astype(int) - (90, 120, 60)).max() <= 6


def test_an_enlarged_place_lies_where_it_was(make_raster: MakeRaster, tmp_path: Path) -> None:
    """A dot of the coarse source, seen through three zooms of nothing."""

    def dot(column: F64, row: F64) -> U8:
        light = np.exp(-((column - 231.4) ** 2 + (row - 180.2) ** 2) / 8)
        return np.asarray(np.round(60 + 180 * light)[..., None].repeat(3, axis=2), np.uint8)

    coarse = make_raster(tmp_path / "coarse.tif", dot, gsd_m=4.0, crs="EPSG:3857")
    far = move_lat_lon(47.5, 8.3, 500.0, 500.0)
    fine = make_raster(
        tmp_path / "fine.tif",
        plain(60, 60, 60),
        gsd_m=0.5,
        side=100,
        lat_deg=float(far.lat_deg),
        lon_deg=float(far.lon_deg),
    )
    write_mbtiles([coarse.path, fine.path], tmp_path / "m.mbtiles")
    # EPSG:3857 back to degrees, by the formulas of the OpenStreetMap wiki.
    x, y = coarse.transform @ (231.4, 180.2)
    lat = math.degrees(math.atan(math.sinh(y / 6378137)))
    with opened(tmp_path / "m.mbtiles") as store:
        patch = store.patch(lat, math.degrees(x / 6378137), size_m=60, size_px=120)
    weight = np.clip(patch.image.mean(axis=2) - 75, 0, None)
    rows, columns = np.mgrid[:120, :120] + 0.5
    assert patch.mask.all()
    assert (weight * columns).sum() / weight.sum() * 0.5 == pytest.approx(30, abs=0.4)
    assert (weight * rows).sum() / weight.sum() * 0.5 == pytest.approx(30, abs=0.4)


def test_pyramids_of_several_depths_keep_each_and_leave_overviews_out(tmp_path: Path) -> None:
    deep = {(17, 68000 + i, 46000 + j): coloured_tile(9 + i) for i in range(2) for j in range(2)}
    world = {(3, 4, 2): coloured_tile(77)}
    source = folder_of(tmp_path / "in", BLOCK | deep | world)
    write_mbtiles([source], tmp_path / "m.mbtiles")
    written = tiles_of(tmp_path / "m.mbtiles")
    assert {k for k in written if k[0] == 17} == set(deep)
    assert {k for k in written if k[0] == 16} == set(BLOCK)
    assert written[16, 34000, 23000] != BLOCK[16, 34000, 23000]  # Drawn again from what is deeper.
    assert written[16, 34001, 23001] == BLOCK[16, 34001, 23001]
    assert min(z for z, _, _ in written) > 3  # A base map of the world is no imagery.


def test_of_two_pyramids_the_deeper_is_seen(tmp_path: Path) -> None:
    blue = cv2.imencode(".png", np.full((256, 256, 3), (250, 0, 0), np.uint8))[1].tobytes()
    deep = folder_of(tmp_path / "deep", {(17, 68000, 46000): blue}, ".png")
    wide = folder_of(tmp_path / "wide", BLOCK)
    write_mbtiles([deep, wide], tmp_path / "m.mbtiles")
    image = cv2.imdecode(
        np.frombuffer(tiles_of(tmp_path / "m.mbtiles")[16, 34000, 23000], np.uint8), 1
    )
    assert image is not None
    assert image[20:108, 20:108].mean(axis=(0, 1)) == pytest.approx([250, 0, 0], abs=6)
    assert image[150:, 150:].mean(axis=(0, 1)) != pytest.approx([250, 0, 0], abs=60)


# --- compression -------------------------------------------------------------------------------


def test_map_tiles_are_kept_byte_for_byte_until_a_quality_is_asked_for(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", BLOCK)
    write_mbtiles([source], tmp_path / "kept.mbtiles")
    assert {k: v for k, v in tiles_of(tmp_path / "kept.mbtiles").items() if k[0] == 16} == BLOCK
    write_mbtiles([source], tmp_path / "small.mbtiles", quality=30)
    small = tiles_of(tmp_path / "small.mbtiles")
    assert all(len(small[key]) < len(data) for key, data in BLOCK.items())


@pytest.mark.parametrize(("image_format", "magic"), [("jpeg", b"\xff\xd8"), ("webp", b"RIFF")])
def test_the_format_asked_for_is_written_and_read(
    image_format: ImageFormat, magic: bytes, make_raster: MakeRaster, tmp_path: Path
) -> None:
    path = make_raster(tmp_path / "map.tif", plain(90, 120, 60), gsd_m=0.5, side=1200).path
    out = tmp_path / "m.mbtiles"
    write_mbtiles([path], out, image_format=image_format, quality=80)
    written = tiles_of(out)
    deepest = max(z for z, _, _ in written)
    kinds = {data[:2] for key, data in written.items() if key[0] == deepest}
    assert magic[:2] in kinds
    assert kinds <= {magic[:2], b"\x89P"}  # JPEG knows no transparency: PNG at the edges.
    with opened(out) as store:
        patch = store.patch(47.5, 8.3, size_m=200, size_px=100)
        assert store.metadata["format"] == ("jpg" if image_format == "jpeg" else "webp")
        edge = move_lat_lon(47.5, 8.3, 300.0, 0.0)
        half = store.patch(*map(float, edge), size_m=100, size_px=100).mask
    assert patch.image.mean(axis=(0, 1)) == pytest.approx([90, 120, 60], abs=4)
    assert half[:, :45].all()
    assert not half[:, 55:].any()


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_gdal_opens_what_was_written(
    image_format: ImageFormat, make_raster: MakeRaster, tmp_path: Path
) -> None:
    path = make_raster(tmp_path / "map.tif", plain(90, 120, 60)).path
    write_mbtiles([path], tmp_path / "m.mbtiles", image_format=image_format, attribution="Maker")
    (tmp_path / "m.mbtiles").chmod(0o444)
    with rasterio.open(tmp_path / "m.mbtiles") as file:
        assert file.driver == "MBTiles"
        assert file.crs.to_epsg() == 3857
        assert file.tags()["attribution"] == "Maker"
        image = file.read()
        middle = image[:3, image.shape[1] // 2, image.shape[2] // 2].astype(float)
        assert middle == pytest.approx([90, 120, 60], abs=4)


def test_the_file_says_that_it_is_mbtiles(tmp_path: Path) -> None:
    """The application id and the rows of metadata of the specification, version 1.3."""
    write_mbtiles([folder_of(tmp_path / "in", BLOCK)], tmp_path / "m.mbtiles")
    assert (tmp_path / "m.mbtiles").read_bytes()[68:72] == b"MPBX"
    with opened(tmp_path / "m.mbtiles") as store:
        said = store.metadata
        assert said["bounds"] == ",".join(f"{v:.9f}" for v in np.array(store.bounds)[[1, 0, 3, 2]])
        assert json.loads(said["sources"])[0]["kind"] == "tile folder"
    assert {"name", "format", "bounds", "center", "minzoom", "maxzoom"} <= said.keys()


def test_the_same_imagery_gives_the_same_bytes(make_raster: MakeRaster, tmp_path: Path) -> None:
    raster = make_raster(tmp_path / "map.tif", plain(90, 120, 60), side=700).path
    tiles = folder_of(tmp_path / "in", BLOCK)
    digests = set()
    for name in ("a", "b"):
        write_mbtiles([raster, tiles], tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_failure_leaves_no_half_map(make_raster: MakeRaster, tmp_path: Path) -> None:
    good = make_raster(tmp_path / "good.tif", plain(9, 9, 9)).path
    bad = make_raster(tmp_path / "bad.tif", plain(0, 0, 0), nodata=0).path
    with pytest.raises(ImageryError, match="no visible pixel"):
        write_mbtiles([good, bad], tmp_path / "m.mbtiles")
    assert not (tmp_path / "m.mbtiles").exists()


def test_a_file_that_is_there_is_not_written_over(make_raster: MakeRaster, tmp_path: Path) -> None:
    (tmp_path / "m.mbtiles").write_bytes(b"precious")
    good = make_raster(tmp_path / "good.tif", plain(9, 9, 9)).path
    with pytest.raises(InputError, match="is there already"):
        write_mbtiles([good], tmp_path / "m.mbtiles")
    assert (tmp_path / "m.mbtiles").read_bytes() == b"precious"


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_that_is_none_is_refused(quality: int, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "in", BLOCK)
    with pytest.raises(InputError, match="expected 1 to 100"):
        write_mbtiles([source], tmp_path / "m.mbtiles", quality=quality)


def test_sources_opened_before_are_written_as_they_are(tmp_path: Path) -> None:
    sources = open_sources([folder_of(tmp_path / "in", BLOCK)], captured="2024-05")
    (written,) = write_mbtiles(sources, tmp_path / "m.mbtiles")
    assert written.provenance.captured == "2024-05"


def test_painting_over_is_porter_and_duffs(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    above, below = rng.integers(0, 256, (2, 8, 8, 4), np.uint8)
    above[0, :, 3], above[1, :, 3], below[2, :, 3] = 0, 255, 0
    out = painted_over(above, below).astype(float)
    for i in range(8):
        for j in range(8):
            a, b = above[i, j] / 255, below[i, j] / 255
            alpha = a[3] + b[3] * (1 - a[3])
            colour = (a[:3] * a[3] + b[:3] * b[3] * (1 - a[3])) / max(alpha, 1e-9)
            assert out[i, j, 3] == pytest.approx(255 * alpha, abs=0.51)
            if alpha > 0:
                assert out[i, j, :3] == pytest.approx(255 * colour, abs=0.51)
