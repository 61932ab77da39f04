"""Every kind of map source, written in its true format, at places where maps go wrong."""

import csv
import gzip
import json
import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform

from edge_runtime.errors import ImageryError, InputError
from edge_runtime.geodesy import enu_offset_m, move_lat_lon
from edge_runtime.imagery import ImageryStore
from edge_runtime.satellite_imagery import ImagerySource, open_sources, write_mbtiles

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]


class Place(NamedTuple):
    lat_deg: float
    lon_deg: float
    utm: str


class Written(NamedTuple):
    paths: list[Path]
    options: dict[str, Any]


Write = Callable[[Path, Place], Written]

PLACES = [
    pytest.param(Place(70.0, 25.5, "EPSG:32635"), id="70 N"),
    pytest.param(Place(-17.0, 180.0, "EPSG:32701"), id="across the antimeridian"),
    pytest.param(Place(-33.9, 151.2, "EPSG:32756"), id="southern hemisphere"),
    pytest.param(Place(0.001, 30.0, "EPSG:32636"), id="equator"),
]
ZOOM = 18
GSD_M = 0.5


def dot_of(place: Place) -> tuple[float, float]:
    """A position that lies on no grid."""
    at = move_lat_lon(place.lat_deg, place.lon_deg, 7.3, -4.9)
    return float(at.lat_deg), float(at.lon_deg)


def seen_at(place: Place, lat: F64, lon: F64) -> U8:
    """(H, W, 3) RGB: grey ground with a soft bright dot of 1.2 m sigma at `dot_of`."""
    offset = enu_offset_m(*dot_of(place), lat, lon)
    light = np.exp(-(offset.east_m**2 + offset.north_m**2) / (2 * 1.2**2))
    return np.asarray(np.round(60 + 180 * light)[..., None].repeat(3, axis=-1), np.uint8)


# --- rasters -------------------------------------------------------------------------------------


def grid_of(place: Place, crs: str, side: int = 200) -> Affine:
    """A square around the place, pixels of about GSD_M on the ground."""
    xs, ys = transform("EPSG:4326", crs, [place.lon_deg], [place.lat_deg])[:2]
    step = GSD_M
    if crs == "EPSG:3857":
        step /= math.cos(math.radians(place.lat_deg))
    if crs == "EPSG:4326":
        step /= 111_320
        wide = step / math.cos(math.radians(place.lat_deg))
        return Affine(wide, 0, xs[0] - side / 2 * wide, 0, -step, ys[0] + side / 2 * step)
    return Affine(step, 0, xs[0] - side / 2 * step, 0, -step, ys[0] + side / 2 * step)


def painted(place: Place, crs: str, grid: Affine, side: int = 200) -> U8:
    columns, rows = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    xs, ys = grid.c + columns * grid.a, grid.f + rows * grid.e
    lon, lat = transform(crs, "EPSG:4326", xs.ravel().tolist(), ys.ravel().tolist())[:2]
    return seen_at(place, np.reshape(lat, xs.shape), np.reshape(lon, xs.shape))


def geotiff(crs: str | None, driver: str = "GTiff", dtype: str = "uint8") -> Write:
    def write(folder: Path, place: Place) -> Written:
        own = crs or place.utm
        grid = grid_of(place, own)
        image = painted(place, own, grid).transpose(2, 0, 1).astype(dtype)
        if dtype != "uint8":
            image = image * 9 + 300
        profile = {"width": 200, "height": 200, "count": 3, "dtype": dtype}
        file = folder / "map.tif"
        with rasterio.open(file, "w", driver=driver, crs=own, transform=grid, **profile) as out:
            out.write(image)
        return Written([file], {})

    return write


def two_halves(folder: Path, place: Place) -> Written:
    file = geotiff(None)(folder, place).paths[0]
    parts = []
    with rasterio.open(file) as whole:
        for k in range(2):
            part = folder / f"half{k}.tif"
            grid = whole.transform @ Affine.translation(100 * k, 0)
            profile = {**whole.profile, "width": 100, "transform": grid}
            with rasterio.open(part, "w", **profile) as out:
                out.write(whole.read(window=((0, 200), (100 * k, 100 * k + 100))))
            parts.append(part)
    file.unlink()
    return Written(parts, {})


def folder_of_halves(folder: Path, place: Place) -> Written:
    two_halves(folder, place)
    return Written([folder], {})


def vrt(folder: Path, place: Place) -> Written:
    halves = two_halves(folder, place).paths
    with rasterio.open(halves[0]) as first:
        g, crs = first.transform, first.crs.to_wkt().replace('"', "&quot;")
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{b}"><ColorInterp>{name}</ColorInterp>'
        + "".join(
            f'<SimpleSource><SourceFilename relativeToVRT="1">{half.name}</SourceFilename>'
            f'<SourceBand>{b}</SourceBand><SrcRect xOff="0" yOff="0" xSize="100" ySize="200"/>'
            f'<DstRect xOff="{100 * k}" yOff="0" xSize="100" ySize="200"/></SimpleSource>'
            for k, half in enumerate(halves)
        )
        + "</VRTRasterBand>"
        for b, name in enumerate(("Red", "Green", "Blue"), 1)
    )
    (folder / "map.vrt").write_text(
        f'<VRTDataset rasterXSize="200" rasterYSize="200"><SRS>{crs}</SRS><GeoTransform>'
        f"{g.c},{g.a},0,{g.f},0,{g.e}</GeoTransform>{bands}</VRTDataset>"
    )
    return Written([folder / "map.vrt"], {})


def world_file(suffix: str, world: str, crs: str | None, *, prj: bool) -> Write:
    def write(folder: Path, place: Place) -> Written:
        own = crs or place.utm
        grid = grid_of(place, own)
        image = np.ascontiguousarray(painted(place, own, grid)[..., ::-1])
        file = folder / f"map{suffix}"
        assert cv2.imwrite(str(file), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
        # A world file gives the centre of the upper left pixel.
        numbers = (grid.a, 0.0, 0.0, grid.e, grid.c + grid.a / 2, grid.f + grid.e / 2)
        (folder / f"map{world}").write_text("\n".join(f"{v:.12f}" for v in numbers) + "\n")
        if prj:
            (folder / "map.prj").write_text(CRS.from_user_input(own).to_wkt())
            return Written([file], {})
        return Written([file], {"crs": own})

    return write


# --- corners -------------------------------------------------------------------------------------


def placed_picture(folder: Path, place: Place) -> tuple[str, list[float]]:
    """A picture linear in degrees; upper left lat, lon, lower right lat, lon as people write."""
    grid = grid_of(place, "EPSG:4326")
    bgr = np.ascontiguousarray(painted(place, "EPSG:4326", grid)[..., ::-1])
    (folder / "deep").mkdir(exist_ok=True)
    assert cv2.imwrite(str(folder / "sat_00.png"), bgr)
    east = (grid.c + 200 * grid.a + 180) % 360 - 180
    return "sat_00.png", [grid.f, grid.c, grid.f + 200 * grid.e, east]


def wildnav_csv(folder: Path, place: Place) -> Written:
    name, corners = placed_picture(folder, place)
    numbers = ",   ".join(f"{v:.12f}" for v in corners)
    (folder / "map.csv").write_text(
        "Filename, Top_left_lat,Top_left_lon,Bottom_right_lat,Bottom_right_long\n"
        f'"{name}",   {numbers}\n'
    )
    return Written([folder / "map.csv"], {})


def visloc_csv(folder: Path, place: Place) -> Written:
    name, corners = placed_picture(folder, place)
    (folder / "01").mkdir()
    (folder / name).rename(folder / "01" / "satellite01.png")
    with (folder / "satellite_ coordinates_range.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        columns = ["mapname", "LT_lat_map", "LT_lon_map", "RB_lat_map", "RB_lon_map", "region"]
        writer.writerow(columns)
        writer.writerow(["satellite01.png", *corners, "Changjiang-20"])
    return Written([folder / "satellite_ coordinates_range.csv"], {})


def corner_json(folder: Path, place: Place) -> Written:
    name, corners = placed_picture(folder, place)
    keys = ("top_left_lat", "top_left_lon", "bottom_right_lat", "bottom_right_lon")
    document = {"image": name, "width_px": 200, **dict(zip(keys, corners, strict=True))}
    (folder / "map.json").write_text(json.dumps(document))
    return Written([folder / "map.json"], {})


def picture_and_option(folder: Path, place: Place) -> Written:
    name, corners = placed_picture(folder, place)
    return Written([folder / name], {"corners": corners})


# --- tiles ---------------------------------------------------------------------------------------


def tiles_of(
    place: Place, px: int = 256, suffix: str = ".png"
) -> dict[tuple[int, int, int], bytes]:
    """3 x 3 XYZ tiles around the place, by the formulas of the OpenStreetMap wiki."""
    zoom = ZOOM - (px == 512)
    n = 2**zoom
    phi = math.radians(place.lat_deg)
    cx = math.floor((place.lon_deg + 180) / 360 * n)
    cy = math.floor((1 - math.asinh(math.tan(phi)) / math.pi) / 2 * n)
    found = {}
    for x in range(cx - 1, cx + 2):
        for y in range(cy - 1, cy + 2):
            columns, rows = np.meshgrid(*[(np.arange(px) + 0.5) / px] * 2)
            lon = (x + columns) / n * 360 - 180
            lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (y + rows) / n))))
            bgr = np.ascontiguousarray(seen_at(place, lat, lon)[..., ::-1])
            data = cv2.imencode(suffix, bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
            found[zoom, x % n, y] = data
    return found


def tile_folder(pattern: str, *, tms: str = "", px: int = 256) -> Write:
    suffix = Path(pattern).suffix

    def write(folder: Path, place: Place) -> Written:
        for (z, x, y), data in tiles_of(place, px, suffix).items():
            row = 2**z - 1 - y if tms else y
            file = folder / pattern.format(z=z, x=x, y=row)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        if tms == "xml":  # As gdal2tiles writes it.
            (folder / "tilemapresource.xml").write_text(
                '<?xml version="1.0" encoding="utf-8"?><TileMap version="1.0.0" tilemapservice='
                '"http://tms.osgeo.org/1.0.0"><Title>map</Title><SRS>EPSG:3857</SRS>'
                '<TileFormat width="256" height="256" mime-type="image/png" extension="png"/>'
                '<TileSets profile="mercator"><TileSet href="18" units-per-pixel="0.59716428"'
                ' order="18"/></TileSets></TileMap>'
            )
        return Written([folder], {"tms": True} if tms == "option" else {})

    return write


def make_mbtiles_file(path: Path, tiles: dict[tuple[int, int, int], bytes], **said: str) -> Path:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE metadata (name text, value text)")
        db.execute(
            "CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, "
            "tile_data blob)"
        )
        db.executemany("INSERT INTO metadata VALUES (?,?)", said.items())
        rows = [(z, x, 2**z - 1 - y, data) for (z, x, y), data in tiles.items()]
        db.executemany("INSERT INTO tiles VALUES (?,?,?,?)", rows)
    return path


def mbtiles(folder: Path, place: Place) -> Written:
    file = make_mbtiles_file(folder / "m.mbtiles", tiles_of(place), name="m", format="png")
    return Written([file], {})


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def hilbert_id(z: int, x: int, y: int) -> int:
    """The tile id of the PMTiles 3 specification, from its text."""
    total: int = sum(4**k for k in range(z))
    d, s = 0, (1 << z) // 2
    while s > 0:
        rx, ry = int((x & s) > 0), int((y & s) > 0)
        d += s * s * ((3 * rx) ^ ry)
        if ry == 0:
            if rx == 1:
                x, y = (1 << z) - 1 - x, (1 << z) - 1 - y
            x, y = y, x
        s //= 2
    return total + d


def make_pmtiles(path: Path, tiles: dict[tuple[int, int, int], bytes], kind: int = 2) -> Path:
    """A PMTiles 3 file with one leaf, by the specification; `kind` 1 is MVT, 2 PNG."""
    entries = sorted((hilbert_id(*key), data) for key, data in tiles.items())

    def directory(rows: list[tuple[int, int, int, int]]) -> bytes:
        out, last = varint(len(rows)), 0
        for tile_id, *_ in rows:
            out, last = out + varint(tile_id - last), tile_id
        for column in (1, 2, 3):
            out += b"".join(varint(row[column] + (column == 3)) for row in rows)
        return gzip.compress(out, mtime=0)

    rows, blob = [], b""
    for tile_id, data in entries:
        rows.append((tile_id, 1, len(data), len(blob)))
        blob += data
    leaf = directory(rows)
    root = directory([(rows[0][0], 0, len(leaf), 0)])
    metadata = gzip.compress(b'{"attribution": "<a href=\\"x\\">Maker &amp; Co</a>"}', mtime=0)
    at = 127
    header = b"PMTiles\x03"
    for part in (root, metadata, leaf, blob):
        header += at.to_bytes(8, "little") + len(part).to_bytes(8, "little")
        at += len(part)
    header += len(rows).to_bytes(8, "little") * 3
    zooms = [z for z, _, _ in tiles]
    header += bytes([1, 2, 1, kind, min(zooms), max(zooms)]) + bytes(16) + bytes([0]) + bytes(8)
    path.write_bytes(header + root + metadata + leaf + blob)
    return path


def pmtiles(folder: Path, place: Place) -> Written:
    pytest.importorskip("pmtiles", reason="the extra `maps` is not installed")
    return Written([make_pmtiles(folder / "m.pmtiles", tiles_of(place))], {})


KINDS = [
    pytest.param(geotiff(None), id="GeoTIFF in UTM"),
    pytest.param(geotiff("EPSG:3857"), id="GeoTIFF in Web Mercator"),
    pytest.param(geotiff("EPSG:4326"), id="GeoTIFF in degrees"),
    pytest.param(geotiff(None, "COG"), id="COG"),
    pytest.param(geotiff(None, dtype="uint16"), id="16 bits"),
    pytest.param(two_halves, id="two files"),
    pytest.param(folder_of_halves, id="a folder of files"),
    pytest.param(vrt, id="VRT"),
    pytest.param(world_file(".png", ".pgw", "EPSG:3857", prj=False), id="PNG, pgw, --crs"),
    pytest.param(world_file(".jpg", ".jgw", None, prj=True), id="JPEG, jgw, prj"),
    pytest.param(world_file(".tif", ".tfw", None, prj=False), id="TIFF, tfw, --crs"),
    pytest.param(wildnav_csv, id="CSV of wildnav"),
    pytest.param(visloc_csv, id="CSV of UAV-VisLoc"),
    pytest.param(corner_json, id="JSON of corners"),
    pytest.param(picture_and_option, id="--corners"),
    pytest.param(tile_folder("{z}/{x}/{y}.png"), id="XYZ folder"),
    pytest.param(tile_folder("{z}/{x}/{y}.png", px=512), id="XYZ folder of 512 px"),
    pytest.param(tile_folder("{z}/{x}/{y}.webp"), id="XYZ folder of WebP"),
    pytest.param(tile_folder("{z}_{x}_{y}.jpg"), id="flat XYZ folder"),
    pytest.param(tile_folder("{z}/{x}/{y}.png", tms="xml"), id="TMS folder of gdal2tiles"),
    pytest.param(tile_folder("{z}_{x}_{y}.png", tms="option"), id="flat TMS folder"),
    pytest.param(mbtiles, id="MBTiles"),
    pytest.param(pmtiles, id="PMTiles"),
]


def centroid(image: U8) -> tuple[float, float]:
    """(column, row) of what is brighter than the ground, in pixels from the left upper edge."""
    weight = np.clip(image.astype(np.float64).mean(axis=2) - image.min() - 25, 0, None)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    total = weight.sum()
    return float((weight * columns).sum() / total), float((weight * rows).sum() / total)


@contextmanager
def opened(path: Path) -> Iterator[ImageryStore]:
    store = ImageryStore(path)
    try:
        yield store
    finally:
        store.close()


@pytest.mark.parametrize("write", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_known_point_comes_back_within_half_a_pixel(
    write: Write, place: Place, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    paths, options = write(tmp_path / "in", place)
    found = write_mbtiles(paths, tmp_path / "map.mbtiles", **options)
    with opened(tmp_path / "map.mbtiles") as store:
        view = move_lat_lon(*dot_of(place), 5.0, 3.0)
        patch = store.patch(float(view.lat_deg), float(view.lon_deg), size_m=30, size_px=240)
        box = store.bounds
    assert patch.mask.all()
    column, row = centroid(patch.image)
    half = found[-1].gsd_m / 2
    assert (column - 120) / 8 == pytest.approx(-5.0, abs=half)
    assert (row - 120) / 8 == pytest.approx(3.0, abs=half)
    assert 0.1 < found[-1].gsd_m < 0.7
    # Not around the world: the box is that of a few hundred metres.
    assert 0 < box.east_deg - box.west_deg < 0.02
    assert (place.lon_deg - box.west_deg) % 360 < 0.02


def test_a_polar_grid_across_the_antimeridian(tmp_path: Path) -> None:
    place = Place(70.0, 180.0, "EPSG:3413")  # NSIDC polar stereographic.
    paths, _ = geotiff("EPSG:3413")(tmp_path, place)
    write_mbtiles(paths, tmp_path / "map.mbtiles")
    with opened(tmp_path / "map.mbtiles") as store:
        patch = store.patch(*dot_of(place), size_m=20, size_px=160)
        assert store.bounds.east_deg - store.bounds.west_deg < 0.02
    assert patch.mask.all()
    assert centroid(patch.image) == pytest.approx((80, 80), abs=2)


# --- what a source says of itself ----------------------------------------------------------------


def one(path: Path, **options: Any) -> ImagerySource:
    (source,) = open_sources([path], **options)
    return source


def test_what_nobody_said_is_unknown(tmp_path: Path) -> None:
    source = one(geotiff(None)(tmp_path, Place(47.5, 8.3, "EPSG:32632")).paths[0])
    assert source.provenance.unknown() == ["captured", "attribution", "licence"]
    assert source.to_json()["licence"] == "unknown"


def test_a_tiff_tells_its_date_and_owner(tmp_path: Path) -> None:
    (path,), _ = geotiff(None)(tmp_path, Place(47.5, 8.3, "EPSG:32632"))
    with rasterio.open(path, "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2023:06:01 10:20:30", TIFFTAG_COPYRIGHT="Survey A")
    said = one(path).provenance
    assert (said.captured, said.attribution, said.licence) == ("2023-06-01", "Survey A", "unknown")


def test_a_stac_item_beside_a_raster_goes_before_its_tags(tmp_path: Path) -> None:
    (path,), _ = geotiff(None)(tmp_path, Place(47.5, 8.3, "EPSG:32632"))
    with rasterio.open(path, "r+") as file:
        file.update_tags(TIFFTAG_DATETIME="2025:01:01 00:00:00")
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "properties": {
            "datetime": None,
            "start_datetime": "2023-04-01T00:00:00Z",
            "end_datetime": "2023-09-30T00:00:00Z",
            "license": "CC-BY-4.0",
            "providers": [{"name": "Agency"}],
        },
    }
    path.with_suffix(".json").write_text(json.dumps(item))
    said = one(path).provenance
    assert said.captured == "2023-04-01/2023-09-30"
    assert (said.attribution, said.licence) == ("Agency", "CC-BY-4.0")


def test_what_the_user_says_goes_first_and_is_kept_in_the_map(tmp_path: Path) -> None:
    tiles = tiles_of(Place(47.5, 8.3, ""))
    path = make_mbtiles_file(tmp_path / "a.mbtiles", tiles, attribution="<b>Old</b>", format="png")
    assert one(path).provenance.attribution == "Old"
    write_mbtiles([path], tmp_path / "b.mbtiles", attribution="New", captured="2024", licence="L")
    with opened(tmp_path / "b.mbtiles") as store:
        assert store.metadata["attribution"] == "New"
        (said,) = json.loads(store.metadata["sources"])
    assert (said["captured"], said["attribution"], said["licence"]) == ("2024", "New", "L")
    # A map of ours that becomes a source again has forgotten nothing.
    again = one(tmp_path / "b.mbtiles").provenance
    assert (again.captured, again.attribution, again.licence) == ("2024", "New", "L")


def test_pmtiles_tell_their_attribution_without_markup(tmp_path: Path) -> None:
    source = one(pmtiles(tmp_path, Place(47.5, 8.3, "")).paths[0])
    assert source.provenance.attribution == "Maker & Co"


# --- refusals ------------------------------------------------------------------------------------


def refused(path: Path, says: str, **options: Any) -> None:
    with pytest.raises(ImageryError, match=says) as caught:
        write_mbtiles([path], path.parent / "refused.mbtiles", **options)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


HERE = Place(47.5, 8.3, "EPSG:32632")


def test_a_world_file_without_a_crs_is_refused(tmp_path: Path) -> None:
    (path,), _ = world_file(".png", ".pgw", None, prj=False)(tmp_path, HERE)
    refused(path, r"no coordinate system; .* Give it with: --crs EPSG:")


@pytest.mark.parametrize("word", ["EPSG:999999", "nowhere", "+proj=nonsense"])
def test_a_crs_that_proj_does_not_know_is_refused(word: str, tmp_path: Path) -> None:
    (path,), _ = world_file(".png", ".pgw", None, prj=False)(tmp_path, HERE)
    refused(path, r"--crs says .* that PROJ does not know; expected a code", crs=word)


def test_a_local_grid_is_refused(tmp_path: Path) -> None:
    (path,), _ = world_file(".png", ".pgw", None, prj=False)(tmp_path, HERE)
    (tmp_path / "map.prj").write_text('LOCAL_CS["Site",UNIT["metre",1]]')
    refused(path, r"which PROJ cannot bring to latitude and longitude; expected a known CRS")


def test_a_wrong_crs_that_leaves_the_map_is_refused(tmp_path: Path) -> None:
    (path,), _ = world_file(".png", ".pgw", "EPSG:32632", prj=False)(tmp_path, HERE)
    refused(path, r"expected", crs="EPSG:4326")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Filename,Top_left_lat\na.png,1\n", "has the columns filename, top_left_lat; expected"),
        ("image,lt_lat,lt_lon,rb_lat,rb_lon\nb.png,1,2,0,3\n", "1 pictures of 1 .* b.png first"),
        ("image,lt_lat,lt_lon,rb_lat,rb_lon\na.png,0,2,1,3\n", "entry 1 .*no upper left"),
        ("image,lt_lat,lt_lon,rb_lat,rb_lon\na.png,0,2,x,3\n", "entry 1 .*no numbers"),
        ("image,lt_lat,lt_lon,rb_lat,rb_lon\n", "names no picture"),
    ],
)
def test_a_corner_table_that_is_none_is_refused(text: str, says: str, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "map.csv").write_text(text)
    refused(tmp_path / "map.csv", says)


def test_corners_for_two_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="expected one picture"):
        open_sources([tmp_path / "a.png", tmp_path / "b.png"], corners=[1, 0, 0, 1])
    with pytest.raises(InputError, match="expected degrees, in this order"):
        open_sources([tmp_path / "a.png"], corners=[0, 0, 1, 1])


def test_a_folder_without_imagery_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo.jpg").write_bytes(b"")
    refused(tmp_path / "in", "neither map tiles .* nor georeferenced rasters")


def test_tiles_in_degrees_are_refused(tmp_path: Path) -> None:
    (folder,), _ = tile_folder("{z}/{x}/{y}.png", tms="xml")(tmp_path, HERE)
    resource = folder / "tilemapresource.xml"
    text = resource.read_text().replace("EPSG:3857", "EPSG:4326").replace("mercator", "geodetic")
    resource.write_text(text)
    with pytest.raises(ImageryError, match=r"gdal2tiles\.py --profile=mercator"):
        open_sources([folder])


def test_a_damaged_tile_is_named(tmp_path: Path) -> None:
    (folder,), _ = tile_folder("{z}/{x}/{y}.png")(tmp_path / "in", HERE)
    file = sorted(folder.rglob("*.png"))[4]
    file.write_bytes(file.read_bytes()[:40])
    name = f"18/{file.parent.name}/{file.stem}"
    with pytest.raises(ImageryError, match=f"tile {name} is no image of 8 bits; .* again"):
        write_mbtiles([folder], tmp_path / "m.mbtiles")


def test_vector_tiles_are_refused(tmp_path: Path) -> None:
    path = make_mbtiles_file(tmp_path / "v.mbtiles", tiles_of(HERE), format="pbf")
    refused(path, "holds vector tiles .* expected images")
    pytest.importorskip("pmtiles", reason="the extra `maps` is not installed")
    refused(make_pmtiles(tmp_path / "v.pmtiles", tiles_of(HERE), kind=1), "holds MVT tiles")


def test_pmtiles_without_the_library_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pmtiles", "pmtiles.reader", "pmtiles.tile"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    refused(tmp_path / "a.pmtiles", r"pip install 'skyfix\[maps\]'")


@pytest.mark.parametrize("suffix", [".mbtiles", ".pmtiles"])
@pytest.mark.parametrize("content", [b"", b"not an archive" * 20])
def test_an_archive_that_is_none_is_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    if suffix == ".pmtiles":
        pytest.importorskip("pmtiles", reason="the extra `maps` is not installed")
    path = tmp_path / f"map{suffix}"
    path.write_bytes(content)
    refused(path, "is not (an MBTiles file|PMTiles of version 3)")


def test_truncated_pmtiles_are_refused(tmp_path: Path) -> None:
    path = pmtiles(tmp_path, HERE).paths[0]
    whole = path.read_bytes()
    for share in (0.01, 0.2, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(path, "is (damaged|not PMTiles of version 3)")
