"""Map sources as people publish them. Skipped where SKYFIX_DATA does not name the sets."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runtime.errors import ImageryError
from edge_runtime.imagery import ImageryStore
from edge_runtime.satellite_imagery import open_sources, write_mbtiles

DATA = Path(os.environ.get("SKYFIX_DATA", "not-set"))


def needs(folder: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not (DATA / folder).is_dir(), reason=f"SKYFIX_DATA does not hold {folder}"
    )


@needs("ariel/tiles")
def test_a_flat_folder_of_tiles_is_kept_as_it_is(tmp_path: Path) -> None:
    (source,) = write_mbtiles([DATA / "ariel/tiles"], tmp_path / "m.mbtiles")
    assert source.kind == "tile folder"
    said = [json.loads(file.read_text()) for file in (DATA / "ariel/tiles").glob("*.json")]
    assert source.bounds.north_deg == pytest.approx(max(tile["north"] for tile in said), abs=1e-6)
    assert source.bounds.west_deg == pytest.approx(min(tile["west"] for tile in said), abs=1e-6)
    assert source.gsd_m == pytest.approx(said[0]["gsd_m"], rel=0.01)
    store = ImageryStore(tmp_path / "m.mbtiles")
    tile = said[17]
    original = cv2.imread(str(DATA / f"ariel/tiles/18_{tile['tile_x']}_{tile['tile_y']}.jpg"))
    lat, lon = (tile["north"] + tile["south"]) / 2, (tile["east"] + tile["west"]) / 2
    patch = store.patch(lat, lon, size_m=tile["gsd_m"] * 200, size_px=200)
    store.close()
    assert original is not None
    reference = original[28:228, 28:228, ::-1].astype(float)
    assert patch.mask.all()
    assert np.corrcoef(patch.image.ravel(), reference.ravel())[0, 1] > 0.98


@needs("fengyuan")
def test_a_picture_with_corners_in_json(tmp_path: Path) -> None:
    (source,) = open_sources([DATA / "fengyuan/map.json"])
    said = json.loads((DATA / "fengyuan/map.json").read_text())
    assert source.gsd_m == pytest.approx(min(said["gsd_x_m"], said["gsd_y_m"]), rel=0.01)
    assert source.bounds.south_deg == said["bottom_right_lat"]
    assert source.bounds.east_deg == said["bottom_right_lon"]
    with pytest.raises(ImageryError, match="has no georeference"):
        open_sources([DATA / "fengyuan/map.jpg"])


@needs("textures/wildnav")
def test_the_map_csv_of_wildnav_makes_one_map_without_gaps(tmp_path: Path) -> None:
    (source,) = write_mbtiles([DATA / "textures/wildnav/map.csv"], tmp_path / "m.mbtiles")
    assert len(source.layers) == 12
    assert 0.11 < source.gsd_m < 0.14
    store = ImageryStore(tmp_path / "m.mbtiles")
    # Where sat_map_00 and _01 meet, by the file's own numbers.
    patch = store.patch(60.4032, 22.464056, size_m=60, size_px=240)
    store.close()
    assert patch.mask.all()
    with pytest.raises(ImageryError, match=r"names 15 pictures of 15 .* sat_map_00.png first"):
        open_sources([DATA / "textures/wildnav/map_original.csv"])


@needs("formats/uav_visloc")
@pytest.mark.parametrize(
    "name", ["satellite_coordinates_range.csv", "coordinates_with_all_info.csv"]
)
def test_the_tables_of_uav_visloc_are_read_to_the_last_line(name: str, tmp_path: Path) -> None:
    table = DATA / "formats/uav_visloc" / name
    (tmp_path / name).write_bytes(table.read_bytes())
    lines = [line.split(",") for line in table.read_text().splitlines()[1:] if line.strip()]
    for number, line in enumerate(lines):
        folder = tmp_path / f"{number:02d}"
        folder.mkdir()
        cv2.imwrite(str(folder / line[0]), np.full((40, 40, 3), 90, np.uint8))
    (source,) = open_sources([tmp_path / name])
    assert len(source.layers) == len(lines)
    west = min(float(line[2]) for line in lines)
    assert source.bounds.west_deg == pytest.approx(west)


@needs("srt/mandi")
def test_a_world_file_in_web_mercator(tmp_path: Path) -> None:
    picture = DATA / "srt/mandi/satellite_map.png"
    with pytest.raises(ImageryError, match="--crs EPSG:"):
        open_sources([picture])
    (source,) = write_mbtiles([picture], tmp_path / "m.mbtiles", crs="EPSG:3857")
    assert source.gsd_m == pytest.approx(1.12, abs=0.01)
    # The drone's own positions lie on it.
    store = ImageryStore(tmp_path / "m.mbtiles")
    text = (DATA / "srt/mandi/DJI_0995_part.SRT").read_text()
    lat = float(text.split("[latitude: ")[1].split("]")[0])
    lon = float(text.split("[longitude: ")[1].split("]")[0])
    assert store.patch(lat, lon, size_m=100, size_px=50).mask.all()
    store.close()
