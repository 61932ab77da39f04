import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import ImageryError, InputError
from edge_runtime.geodesy import enu_offset_m, move_lat_lon
from edge_runtime.imagery import ImageryStore, Patch
from edge_runtime.map_sources.crop_area import CropArea
from edge_runtime.satellite_imagery import write_mbtiles

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
MakeRaster = Callable[..., Any]
Ring = list[list[float]]


def plain(column: F64, _row: F64) -> U8:
    return np.full((*column.shape, 3), (90, 120, 60), np.uint8)


def ring_of(lat_deg: float, lon_deg: float, corners_m: list[tuple[float, float]]) -> Ring:
    """Closed, of corners east and north of a place."""
    points = []
    for east, north in [*corners_m, corners_m[0]]:
        at = move_lat_lon(lat_deg, lon_deg, east, north)
        points.append([float(at.lon_deg), float(at.lat_deg)])
    return points


SQUARE = [(-40.0, -40.0), (40.0, -40.0), (40.0, 40.0), (-40.0, 40.0)]


def saved(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document))
    return path


@contextmanager
def opened(path: Path) -> Iterator[ImageryStore]:
    store = ImageryStore(path)
    try:
        yield store
    finally:
        store.close()


def cropped(
    make_raster: MakeRaster, folder: Path, crop: Path, lat_deg: float, lon_deg: float, crs: str
) -> Patch:
    """What is left of a map of 200 m, seen over 160 m at 1 m per pixel."""
    path = make_raster(folder / "map.tif", plain, lat_deg=lat_deg, lon_deg=lon_deg, crs=crs).path
    write_mbtiles([path], folder / "m.mbtiles", crop=crop)
    with opened(folder / "m.mbtiles") as store:
        return store.patch(lat_deg, lon_deg, size_m=160, size_px=160)


@pytest.mark.parametrize("clockwise", [False, True])
@pytest.mark.parametrize(
    ("lat_deg", "lon_deg", "crs"),
    [
        pytest.param(47.5, 8.3, "EPSG:32632", id="north"),
        pytest.param(70.0, 25.5, "EPSG:32635", id="70 N"),
        pytest.param(-33.9, 151.2, "EPSG:32756", id="south"),
        pytest.param(-17.0, 180.0, "EPSG:32701", id="across the antimeridian"),
    ],
)
def test_what_lies_outside_is_left_out_to_the_pixel(
    clockwise: bool,
    lat_deg: float,
    lon_deg: float,
    crs: str,
    make_raster: MakeRaster,
    tmp_path: Path,
) -> None:
    ring = ring_of(lat_deg, lon_deg, SQUARE[::-1] if clockwise else SQUARE)
    crop = saved(tmp_path / "a.json", {"type": "Polygon", "coordinates": [ring]})
    patch = cropped(make_raster, tmp_path, crop, lat_deg, lon_deg, crs)
    assert patch.mask[42:118, 42:118].all()
    inside = np.zeros((160, 160), np.bool_)
    inside[38:122, 38:122] = True
    assert not patch.mask[~inside].any()


def test_a_polygon_cut_at_the_antimeridian_is_whole_again(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    """RFC 7946, section 3.1.9: two polygons, one ending at 180, one beginning at -180."""
    d_lat, d_lon = 40 / 110_660, 40 / (111_320 * math.cos(math.radians(17)))
    parts = []
    for west, east in ((180 - d_lon, 180.0), (-180.0, -180 + d_lon)):
        south, north = -17 - d_lat, -17 + d_lat
        parts.append([[[west, south], [east, south], [east, north], [west, north], [west, south]]])
    crop = saved(tmp_path / "a.json", {"type": "MultiPolygon", "coordinates": parts})
    patch = cropped(make_raster, tmp_path, crop, -17.0, 180.0, "EPSG:4326")
    assert patch.mask[43:117, 43:117].all()
    assert not patch.mask[:, :37].any()
    assert not patch.mask[:, 123:].any()
    with opened(tmp_path / "m.mbtiles") as store:
        box = store.bounds
    assert (box.west_deg, box.east_deg) == pytest.approx((180 - d_lon, 180 + d_lon), abs=1e-7)
    assert (box.south_deg, box.north_deg) == pytest.approx((-17 - d_lat, -17 + d_lat), abs=1e-7)


def test_holes_and_several_features_are_kept_to(make_raster: MakeRaster, tmp_path: Path) -> None:
    hole = [(-10.0, -10.0), (10.0, -10.0), (10.0, 10.0), (-10.0, 10.0)]
    apart = [(60.0, 60.0), (75.0, 60.0), (75.0, 75.0), (60.0, 75.0)]
    rings = [ring_of(47.5, 8.3, SQUARE), ring_of(47.5, 8.3, hole)]
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": part}}
        for part in (rings, [ring_of(47.5, 8.3, apart)])
    ]
    crop = saved(tmp_path / "a.json", {"type": "FeatureCollection", "features": features})
    mask = cropped(make_raster, tmp_path, crop, 47.5, 8.3, "EPSG:32632").mask
    assert not mask[72:88, 72:88].any()
    assert mask[45:65, 45:115].all()
    assert mask[7:18, 142:153].all()
    assert not mask[22:36, 124:138].any()


def test_tiles_are_sorted_as_their_pixels_say(tmp_path: Path) -> None:
    """Against every pixel of every tile of a star-shaped area, tested by crossing numbers."""
    rng = np.random.default_rng(3)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 17))
    radii = rng.uniform(60, 400, 17)
    star = [
        (float(r * np.cos(a)), float(r * np.sin(a))) for a, r in zip(angles, radii, strict=True)
    ]
    ring = ring_of(60.0, 10.0, star)
    area = CropArea(saved(tmp_path / "a.json", {"type": "Polygon", "coordinates": [ring]}))
    zoom = 18
    n = 2**zoom
    cx = math.floor((10.0 + 180) / 360 * n)
    cy = math.floor((1 - math.asinh(math.tan(math.radians(60))) / math.pi) / 2 * n)
    counts = {"none": 0, "part": 0, "all": 0}
    for x in range(cx - 8, cx + 9, 2):
        for y in range(cy - 8, cy + 9, 2):
            columns, rows = np.meshgrid(*[(np.arange(256) + 0.5) / 256] * 2)
            lon = (x + columns) / n * 360 - 180
            lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (y + rows) / n))))
            inside = np.zeros(lon.shape, np.bool_)
            for (x0, y0), (x1, y1) in pairwise(ring):
                if y0 != y1:
                    crosses = (y0 > lat) != (y1 > lat)
                    inside ^= crosses & (lon < x0 + (lat - y0) / (y1 - y0) * (x1 - x0))
            said = area.covers(zoom, x, y)
            counts[said] += 1
            if said == "part":
                assert np.count_nonzero(area.mask(zoom, x, y) != inside) <= 4
            else:
                assert inside.all() if said == "all" else not inside.any()
    assert min(counts.values()) >= 3


def test_edges_are_straight_in_degrees_not_on_the_map(tmp_path: Path) -> None:
    """RFC 7946, section 3.1.1. A straight line on the map would lie kilometres away."""
    ring = [[0.0, 40.0], [10.0, 60.0], [0.0, 60.0], [0.0, 40.0]]
    area = CropArea(saved(tmp_path / "a.json", {"type": "Polygon", "coordinates": [ring]}))
    zoom, n = 12, 2**12
    for lon, lat, inside in ((4.9, 50.0, True), (5.1, 50.0, False)):
        x = math.floor((lon + 180) / 360 * n)
        y = math.floor((1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2 * n)
        assert area.covers(zoom, x, y) == ("all" if inside else "none")


def test_sources_outside_the_area_are_left_out_and_not_recorded(
    make_raster: MakeRaster, tmp_path: Path
) -> None:
    near = make_raster(tmp_path / "near.tif", plain).path
    far = make_raster(tmp_path / "far.tif", plain, lat_deg=47.6).path
    ring = ring_of(47.5, 8.3, SQUARE)
    crop = saved(tmp_path / "a.json", {"type": "Polygon", "coordinates": [ring]})
    drawn = write_mbtiles([near, far], tmp_path / "m.mbtiles", crop=crop)
    assert [source.path for source in drawn] == [near]
    with opened(tmp_path / "m.mbtiles") as store:
        box = store.bounds
    size = enu_offset_m(box.south_deg, box.west_deg, box.north_deg, box.east_deg)
    assert float(size.north_m) == pytest.approx(80, abs=0.1)
    with pytest.raises(ImageryError, match=r"no imagery lies inside .*a\.json"):
        write_mbtiles([far], tmp_path / "n.mbtiles", crop=crop)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not json", "is not a GeoJSON file"),
        ('{"type": "Point", "coordinates": [1, 2]}', "has no polygon; expected"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}', "ring of 2 points"),
        ('{"type": "Polygon", "coordinates": [["a", "b", "c", "d"]]}', "no list of positions"),
        (
            '{"type": "Polygon", "coordinates": '
            "[[[5e5, 5e6], [6e5, 5e6], [6e5, 6e6], [5e5, 5e6]]]}",
            "ogr2ogr -t_srs EPSG:4326",
        ),
        (
            '{"type": "Polygon", "coordinates": '
            "[[[-180, 70], [-60, 70], [60, 70], [170, 70], [-180, 70]]]}",
            "around a pole",
        ),
    ],
)
def test_an_area_that_is_none_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=says):
        CropArea(tmp_path / "a.json")
