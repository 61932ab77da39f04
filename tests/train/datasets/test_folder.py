import copy
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge_runtime.errors import InputError, SkyfixError
from edge_runtime.geodesy import distance_m, move_lat_lon
from edge_runtime.satellite_imagery import write_mbtiles
from tests.train.datasets.tiny_datasets import (
    FOLDER_AT,
    FOLDER_M,
    FOLDER_PHOTOS,
    folder_positions,
    make_tiny,
    texture,
    view,
    write,
    write_exif_photo,
)
from train.datasets.folder import (
    Folder,
    ImageryTiles,
    exif_position,
    find_imagery,
    read_positions,
)
from train.datasets.layout import images_in
from train.mbtiles_file import MbtilesFile
from train.pair_table import UnreadableImageError

U8 = npt.NDArray[np.uint8]
DATA = Path(os.environ.get("SKYFIX_DATA", "not-set"))
RNG = np.random.default_rng(0)
SMALL = Folder(tile_px=64)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs over imagery. Read only: it is shared."""
    return make_tiny("folder", tmp_path_factory.mktemp("folder") / "mine")


@pytest.fixture
def over_imagery(made: Path, tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(made, tmp_path / "mine"))


@pytest.fixture
def with_tiles(tmp_path: Path) -> Path:
    for k in range(4):
        write(tmp_path / "photos" / f"{k}.jpg", view(f"own {k}", 0))
        write(tmp_path / "tiles" / f"{k}.png", texture(f"own {k}"))
    return tmp_path


def test_a_tile_has_the_name_of_its_photograph(with_tiles: Path) -> None:
    write(with_tiles / "tiles/0a.png", texture("nobody's"))
    table = SMALL.training(with_tiles)
    assert (len(table), len(table.tiles), table.geometry) == (4, 5, "drone")
    for photo, tile in enumerate(table.tile_of_photo):
        name = table.tiles.images.name(int(tile))
        assert Path(table.photos.images.name(photo)).stem == Path(name).stem


def test_tiles_of_no_photograph_are_distractors(with_tiles: Path) -> None:
    write(with_tiles / "tiles/0a.png", texture("nobody's"))
    (task,) = SMALL.tasks(with_tiles)
    assert (len(task.queries), len(task.gallery)) == (4, 5)
    assert task.gallery_labels.tolist() == [0, 1, 2, 3, 4]
    assert task.query_labels.tolist() == [0, 2, 3, 4]


def test_photographs_without_a_tile_are_refused(with_tiles: Path) -> None:
    (with_tiles / "tiles/2.png").unlink()
    with pytest.raises(InputError, match=r"1 of 4 photographs have no tile .* first is 2\.jpg"):
        SMALL.training(with_tiles)


def test_two_tiles_of_one_name_are_refused(with_tiles: Path) -> None:
    write(with_tiles / "tiles/2.jpg", texture("another"))
    with pytest.raises(InputError, match="differ in their suffix only"):
        SMALL.training(with_tiles)


def test_positions_beside_tiles_are_read(with_tiles: Path) -> None:
    lines = [f"{k}.jpg,{47 + k},{9 - k}" for k in (3, 1, 0, 2)]
    (with_tiles / "positions.csv").write_text("filename,lat_deg,lon_deg\n" + "\n".join(lines))
    table = SMALL.training(with_tiles)
    for images in (table.photos, table.tiles):
        assert images.lat_deg is not None
        assert images.lon_deg is not None
        assert images.lat_deg.tolist() == [47, 48, 49, 50]
        assert images.lon_deg.tolist() == [9, 8, 7, 6]


def test_positions_that_lack_a_photograph_with_a_tile_are_refused(with_tiles: Path) -> None:
    (with_tiles / "positions.csv").write_text("filename,lat_deg,lon_deg\n0.jpg,47,9\n")
    with pytest.raises(InputError, match=r"lacks 3 of 4 photographs, the first is 1\.jpg"):
        SMALL.training(with_tiles)


def test_parts_are_read_where_they_are_there(tmp_path: Path, with_tiles: Path) -> None:
    root = tmp_path / "parted"
    for part in ("train", "test"):
        for kind in ("photos", "tiles"):
            shutil.copytree(with_tiles / kind, root / part / kind)
    for kind in ("photos/3.jpg", "tiles/3.png"):
        (root / "test" / kind).unlink()
    assert len(SMALL.training(root)) == 4
    assert len(SMALL.tasks(root)[0].queries) == 3


def test_tiles_show_the_ground_of_their_photographs(over_imagery: Path) -> None:
    """Photographs are 100 m of the imagery, to the nearest metre."""
    table = SMALL.training(over_imagery)
    assert len(table) == len(table.tiles) == FOLDER_PHOTOS
    tiles = [table.tiles.images.read(row, RNG).astype(float) for row in range(len(table))]
    for row in range(len(table)):
        photo = table.photos.images.read(row, RNG).astype(float)
        apart = [np.abs(photo - tile).mean() for tile in tiles]
        assert int(np.argmin(apart)) == table.tile_of_photo[row]
        assert min(apart) < 8


def test_positions_come_from_exif(over_imagery: Path) -> None:
    table = SMALL.training(over_imagery)
    expected = [move_lat_lon(*FOLDER_AT, east, -south) for south, east in folder_positions()]
    assert table.photos.lat_deg is not None
    assert table.photos.lon_deg is not None
    off_m = distance_m(
        table.photos.lat_deg,
        table.photos.lon_deg,
        [at.lat_deg for at in expected],
        [at.lon_deg for at in expected],
    )
    assert off_m.max() < 0.001
    assert table.tiles.size_m is not None
    assert set(table.tiles.size_m) == {100.0}


def test_a_csv_goes_before_exif_and_may_say_the_size(over_imagery: Path) -> None:
    lat, lon = map(float, move_lat_lon(*FOLDER_AT, 300, -300))
    (over_imagery / "positions.csv").write_text(
        "filename,lat_deg,lon_deg,size_m\n"
        f"DJI_0003.JPG,{lat},{lon},80\nDJI_0007.JPG,{lat + 0.001},{lon},\n"
    )
    told: list[str] = []
    table = SMALL.training(over_imagery, note=told.append)
    assert table.photos.lat_deg is not None
    assert table.photos.lat_deg.tolist() == pytest.approx([lat, lat + 0.001])
    assert table.tiles.size_m is not None
    assert table.tiles.size_m[table.tile_of_photo].tolist() == [80, 100]
    left = FOLDER_PHOTOS - 2
    assert told == [
        f"folder: {left} of {FOLDER_PHOTOS} photographs left out, without a line in positions.csv"
    ]


def test_photographs_outside_the_imagery_are_left_out_and_counted(over_imagery: Path) -> None:
    lat, lon = FOLDER_AT
    for k, (east, south) in enumerate([(-500.0, 300.0), (20.0, 300.0)]):
        at = map(float, move_lat_lon(lat, lon, east, -south))
        write_exif_photo(over_imagery / f"photos/A_{k}.jpg", view("away", k), *at)
    told: list[str] = []
    table = SMALL.training(over_imagery, note=told.append)
    assert len(table) == FOLDER_PHOTOS
    assert Path(table.photos.images.name(0)).name == "DJI_0000.JPG"
    assert told == [f"folder: 2 of {FOLDER_PHOTOS + 2} photographs left out, outside the imagery"]


def test_nothing_on_the_imagery_is_refused(over_imagery: Path) -> None:
    with pytest.raises(InputError, match=r"none of the 16 photographs .* lies on the imagery"):
        Folder(ground_size_m=5 * FOLDER_M).training(over_imagery)


def test_photographs_without_gps_are_left_out_and_counted(over_imagery: Path) -> None:
    write(over_imagery / "photos/plain.jpg", view("plain", 0))
    (over_imagery / "photos/broken.jpg").write_bytes(b"\xff\xd8\xff")
    told: list[str] = []
    assert len(SMALL.training(over_imagery, note=told.append)) == FOLDER_PHOTOS
    assert told == ["folder: 2 of 18 photographs left out, without EXIF GPS tags"]


def test_no_position_at_all_is_refused(over_imagery: Path) -> None:
    for path in (over_imagery / "photos").iterdir():
        write(path, view("plain", 0))
    with pytest.raises(InputError, match=r"none of the 16 photographs .* has EXIF GPS tags; expec"):
        SMALL.training(over_imagery)


def test_photographs_of_one_place_share_its_tile(over_imagery: Path) -> None:
    first = over_imagery / "photos/DJI_0000.JPG"
    shutil.copy(first, over_imagery / "photos/DJI_0000_again.JPG")
    table = SMALL.training(over_imagery)
    assert (len(table), len(table.tiles)) == (FOLDER_PHOTOS + 1, FOLDER_PHOTOS)
    names = [Path(table.photos.images.name(row)).name for row in range(len(table))]
    rows = [table.tile_of_photo[names.index(f"DJI_0000{end}.JPG")] for end in ("", "_again")]
    assert rows[0] == rows[1]


def test_mbtiles_are_used_as_they_are(over_imagery: Path) -> None:
    from_raster = SMALL.training(over_imagery)
    write_mbtiles([over_imagery / "imagery.tif"], over_imagery / "imagery.mbtiles")
    (over_imagery / "imagery.tif").unlink()
    table = SMALL.training(over_imagery)
    assert table.tiles.images.name(0).startswith(str(over_imagery / "imagery.mbtiles"))
    assert np.array_equal(table.tiles.images.read(3, RNG), from_raster.tiles.images.read(3, RNG))


def test_a_folder_of_rasters_is_one_imagery(over_imagery: Path) -> None:
    (over_imagery / "imagery").mkdir()
    (over_imagery / "imagery.tif").rename(over_imagery / "imagery/north.tif")
    (over_imagery / "imagery/north.tfw").touch()
    assert find_imagery(over_imagery) == [over_imagery / "imagery/north.tif"]
    assert len(SMALL.training(over_imagery)) == FOLDER_PHOTOS


def test_a_raster_without_georeference_is_refused(over_imagery: Path) -> None:
    (over_imagery / "imagery.tif").unlink()
    write(over_imagery / "imagery.png", texture("nowhere"))
    with pytest.raises(SkyfixError, match="has no georeference"):
        SMALL.training(over_imagery)


def test_a_temporary_imagery_goes_with_its_table(over_imagery: Path) -> None:
    table = SMALL.training(over_imagery)
    scratch = Path(table.tiles.images.name(0).split(" at ")[0])
    assert scratch.is_file()
    del table
    assert not scratch.parent.exists()


def test_a_failed_import_leaves_no_temporary_folder(
    over_imagery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (over_imagery / "imagery.tif").write_bytes(b"no raster")
    with pytest.raises(SkyfixError, match="cannot be read as satellite imagery"):
        SMALL.training(over_imagery)
    assert not list((tmp_path / "scratch").iterdir())


def read_sum(tiles: ImageryTiles, row: int) -> int:
    return int(tiles.read(row, np.random.default_rng(0)).sum())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 and later.
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_cut_the_same_tiles(over_imagery: Path, start: str) -> None:
    table = SMALL.training(over_imagery)
    tiles = table.tiles.images
    assert isinstance(tiles, ImageryTiles)
    expected = [read_sum(tiles, row) for row in range(3)]
    # This process has opened the file, and the others must not use what it opened.
    with get_context(start).Pool(1) as pool:
        assert pool.starmap(read_sum, [(tiles, row) for row in range(3)]) == expected
    assert [read_sum(tiles, row) for row in range(3)] == expected


def test_threads_cut_the_same_tiles(over_imagery: Path) -> None:
    tiles = SMALL.training(over_imagery).tiles.images
    assert isinstance(tiles, ImageryTiles)
    expected = [read_sum(tiles, row) for row in range(len(tiles))]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: read_sum(tiles, row), range(len(tiles)))) == expected


def test_a_copy_does_not_remove_the_imagery(over_imagery: Path) -> None:
    table = SMALL.training(over_imagery)
    twin = copy.deepcopy(table.tiles.images)
    name = twin.name(0)
    del twin
    assert table.tiles.images.name(0) == name
    assert table.tiles.images.read(0, RNG).shape == (64, 64, 3)


def test_imagery_that_went_away_is_an_unreadable_image(tmp_path: Path) -> None:
    tiles = ImageryTiles(MbtilesFile(tmp_path / "gone.mbtiles"), np.array([[47.0, 9.0, 50.0]]), 64)
    with pytest.raises(UnreadableImageError, match=r"gone\.mbtiles is not an MBTiles file"):
        tiles.read(0, RNG)


@pytest.mark.parametrize(
    ("lat_deg", "lon_deg"), [(47.5, 9.25), (-35.3082, 149.1244), (51.4779, -0.0015)]
)
def test_exif_positions_have_their_hemispheres(
    tmp_path: Path, lat_deg: float, lon_deg: float
) -> None:
    write_exif_photo(tmp_path / "a.jpg", view("exif", 0), lat_deg, lon_deg)
    at = exif_position(tmp_path / "a.jpg")
    assert at is not None
    assert (at.lat_deg, at.lon_deg) == pytest.approx((lat_deg, lon_deg), abs=1e-8)


def test_zeros_of_a_camera_without_a_fix_are_no_position(tmp_path: Path) -> None:
    write_exif_photo(tmp_path / "a.jpg", view("exif", 0), 0.0, 0.0)
    assert exif_position(tmp_path / "a.jpg") is None


@pytest.mark.parametrize(
    "gps",
    [
        {1: "N", 2: (47.0, 0.0, 0.0)},
        {1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (9.0, 0.0, 0.0)},
        {1: "N", 2: (47.0, 0.0), 3: "E", 4: (9.0, 0.0)},
    ],
    ids=["no longitude", "no latitude that can be", "no seconds"],
)
def test_half_a_position_is_none(tmp_path: Path, gps: dict[int, object]) -> None:
    exif = Image.Exif()
    exif[0x8825] = gps
    Image.fromarray(view("exif", 0)).save(tmp_path / "a.jpg", exif=exif)
    assert exif_position(tmp_path / "a.jpg") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file,lat_deg,lon_deg\na.jpg,1,2\n", "lacks filename; expected CSV with filename"),
        ("filename,lat_deg,lon_deg\na.jpg,1\n", "a.jpg: could not convert"),
        ("filename,lat_deg,lon_deg\na.jpg,100,2\n", r"a.jpg: latitude 100\.0"),
        ("filename,lat_deg,lon_deg,size_m\na.jpg,1,2,-5\n", "a.jpg: size_m is -5"),
    ],
)
def test_positions_that_cannot_be_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "positions.csv").write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_positions(tmp_path / "positions.csv")


def test_tiles_and_imagery_together_are_refused(over_imagery: Path) -> None:
    (over_imagery / "tiles").mkdir()
    with pytest.raises(InputError, match="both tiles/ and imagery; expected photos/ with either"):
        SMALL.training(over_imagery)


def test_photographs_alone_are_refused(over_imagery: Path) -> None:
    (over_imagery / "imagery.tif").unlink()
    with pytest.raises(InputError, match=r"neither tiles/ nor imagery; .*docs/datasets\.md"):
        SMALL.training(over_imagery)


def test_an_empty_folder_of_photographs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="no JPEG or PNG file in photos"):
        SMALL.training(tmp_path)


@pytest.mark.parametrize("size_m", [0.0, -1.0, float("nan"), float("inf")])
def test_tiles_without_a_size_are_refused(size_m: float) -> None:
    with pytest.raises(InputError, match="expected sizes above 0"):
        Folder(ground_size_m=size_m)


def test_a_tile_is_as_large_as_asked(over_imagery: Path) -> None:
    """A square of twice the side, shrunk to half, shows the same middle."""
    near = Folder(tile_px=64).training(over_imagery)
    wide = Folder(tile_px=128, ground_size_m=200).training(over_imagery)
    lat, lon = near.tiles.lat_deg, near.tiles.lon_deg
    wide_lat, wide_lon = wide.tiles.lat_deg, wide.tiles.lon_deg
    assert lat is not None
    assert lon is not None
    assert wide_lat is not None
    assert wide_lon is not None
    matched = 0
    for row in range(len(wide.tiles)):
        (same,) = np.flatnonzero((lat == wide_lat[row]) & (lon == wide_lon[row]))
        middle = wide.tiles.images.read(row, RNG)[32:96, 32:96].astype(float)
        one = near.tiles.images.read(int(same), RNG).astype(float)
        assert np.abs(middle - one).mean() < 3
        matched += 1
    assert matched


def test_cv2_and_pillow_agree_on_the_photographs(over_imagery: Path) -> None:
    """Photographs are decoded by OpenCV; EXIF tags must not have spoilt them."""
    table = SMALL.training(over_imagery)
    path = Path(table.photos.images.name(0))
    with Image.open(path) as image:
        pillow = np.asarray(image.convert("RGB"), float)
    assert np.abs(table.photos.images.read(0, RNG) - pillow).mean() < 2
    assert cv2.haveImageReader(os.fspath(path))


@pytest.mark.skipif(not (DATA / "fengyuan").is_dir(), reason="SKYFIX_DATA has no photographs")
def test_exif_positions_of_a_real_drone_are_those_of_its_telemetry() -> None:
    known = read_positions(DATA / "fengyuan/telemetry.csv")
    photos = images_in(DATA / "fengyuan/photos")
    assert len(photos) == 32
    for path in photos:
        at, expected = exif_position(path), known[path.name]
        assert at is not None
        # EXIF holds thousandths of a second of arc: 3 cm.
        assert distance_m(at.lat_deg, at.lon_deg, expected.lat_deg, expected.lon_deg) < 0.03
