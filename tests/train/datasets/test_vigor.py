import os
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import InputError
from edge_runtime.geodesy import enu_offset_m
from tests.train.datasets.tiny_datasets import (
    VIGOR_CITIES,
    VIGOR_SIDE,
    VIGOR_TEST,
    VIGOR_TRAIN,
    make_vigor,
)
from train.datasets.layout import read_lines, web_tile_size_m
from train.datasets.vigor import (
    PUBLICATION,
    Vigor,
    panorama_positions,
    read_labels,
    tile_positions,
)

FORMATS = Path(os.environ.get("SKYFIX_DATA", "not-set")) / "formats/vigor"
needs_lists = pytest.mark.skipif(not FORMATS.is_dir(), reason="SKYFIX_DATA has no VIGOR lists")
TILES = VIGOR_SIDE**2
CROSS = Vigor(name="vigor-cross", area="cross")


@pytest.fixture
def vigor(tmp_path: Path) -> Path:
    make_vigor(tmp_path / "VIGOR")
    return tmp_path / "VIGOR"


def city(name: str) -> str:
    return Path(name).parts[-3]


def test_same_area_trains_and_tests_in_all_four_cities(vigor: Path) -> None:
    table = Vigor().training(vigor)
    (task,) = Vigor().tasks(vigor)
    assert (len(table), len(table.tiles)) == (4 * VIGOR_TRAIN, 4 * TILES)
    assert (len(task.queries), len(task.gallery)) == (4 * VIGOR_TEST, 4 * TILES)
    assert (table.name, task.name, table.geometry) == (
        "vigor-same/train",
        "vigor-same/test",
        "panorama",
    )
    train = {table.photos.images.name(k) for k in range(len(table))}
    test = {task.queries.images.name(k) for k in range(len(task.queries))}
    assert not train & test
    assert {city(name) for name in train} == {city(name) for name in test} == set(VIGOR_CITIES)


def test_cross_area_tests_in_cities_it_did_not_train_in(vigor: Path) -> None:
    table = CROSS.training(vigor)
    (task,) = CROSS.tasks(vigor)
    every = VIGOR_TRAIN + VIGOR_TEST
    assert (len(table), len(table.tiles)) == (2 * every, 2 * TILES)
    assert (len(task.queries), len(task.gallery)) == (2 * every, 2 * TILES)
    assert {city(table.photos.images.name(k)) for k in range(len(table))} == {"NewYork", "Seattle"}
    assert {city(task.gallery.images.name(k)) for k in range(len(task.gallery))} == {
        "SanFrancisco",
        "Chicago",
    }


def test_positives_and_semi_positives_are_those_of_the_labels(vigor: Path) -> None:
    """Also beyond the first city, whose tiles come before."""
    table = Vigor().training(vigor)
    said = {}
    for place in VIGOR_CITIES:
        text = (vigor / f"splits/{place}/same_area_balanced_train.txt").read_text()
        for line in text.splitlines():
            fields = line.split(" ")
            said[place, fields[0]] = [fields[1], fields[4], fields[7], fields[10]]
    assert table.semi_positives.shape == (len(table), 3)
    for row in range(len(table)):
        photo = table.photos.images.name(row)
        rows = [int(table.tile_of_photo[row]), *map(int, table.semi_positives[row])]
        names = [table.tiles.images.name(tile) for tile in rows]
        assert [Path(name).name for name in names] == said[city(photo), Path(photo).name]
        assert {city(name) for name in names} == {city(photo)}


def test_labels_of_the_gallery_are_its_rows(vigor: Path) -> None:
    (task,) = Vigor().tasks(vigor)
    assert task.gallery_labels.tolist() == list(range(4 * TILES))
    line = (vigor / "splits/NewYork/same_area_balanced_test.txt").read_text().split()
    assert Path(task.gallery.images.name(int(task.query_labels[0]))).name == line[1]
    assert [Path(task.gallery.images.name(int(row))).name for row in task.semi_positives[0]] == [
        line[4],
        line[7],
        line[10],
    ]


def test_positions_come_from_names(vigor: Path) -> None:
    table = Vigor().training(vigor)
    assert table.photos.lat_deg is not None
    assert table.photos.lon_deg is not None
    assert table.tiles.lat_deg is not None
    assert table.tiles.lon_deg is not None
    offset = enu_offset_m(
        table.tiles.lat_deg[table.tile_of_photo],
        table.tiles.lon_deg[table.tile_of_photo],
        table.photos.lat_deg,
        table.photos.lon_deg,
    )
    assert np.abs(offset.east_m).max() < 20
    assert np.abs(offset.north_m).max() < 20
    assert panorama_positions(["a-_,41.877949,-87.689396,.jpg"]).lon_deg.tolist() == [-87.689396]
    assert tile_positions(["satellite_41.5_-87.25.png"]).lat_deg.tolist() == [41.5]


@pytest.mark.parametrize(
    ("place", "gsd_m"),
    [("Chicago", 0.111), ("NewYork", 0.113), ("SanFrancisco", 0.118), ("Seattle", 0.101)],
)
def test_tiles_have_the_size_that_slicematch_measured(place: str, gsd_m: float) -> None:
    """Lentsch et al. 2023, supplement A, rounded to a millimetre a pixel."""
    size_m = web_tile_size_m(VIGOR_CITIES[place][0], zoom=20, size_px=640)
    assert size_m / 640 == pytest.approx(gsd_m, abs=6e-4)


def test_corrected_labels_stand_in_for_the_original(tmp_path: Path) -> None:
    make_vigor(tmp_path / "original")
    make_vigor(tmp_path / "corrected", corrected=True)
    for reader in (Vigor(), CROSS):
        a, b = reader.training(tmp_path / "original"), reader.training(tmp_path / "corrected")
        assert np.array_equal(a.tile_of_photo, b.tile_of_photo)
        assert np.array_equal(a.semi_positives, b.semi_positives)


def test_the_original_labels_are_read_where_both_are_there(vigor: Path) -> None:
    corrected = vigor / "splits__corrected"
    for place in VIGOR_CITIES:
        (corrected / place).mkdir(parents=True)
        tiles = (vigor / f"splits/{place}/satellite_list.txt").read_bytes()
        (corrected / place / "satellite_list.txt").write_bytes(tiles)
        name = "same_area_balanced_train"
        lines = (vigor / f"splits/{place}/{name}.txt").read_text().splitlines()
        (corrected / place / f"{name}__corrected.txt").write_text("\r\n".join(lines[:2]))
    assert len(Vigor().training(vigor)) == 4 * VIGOR_TRAIN
    assert len(Vigor(labels="corrected").training(vigor)) == 4 * 2
    assert len(Vigor(labels="original").training(vigor)) == 4 * VIGOR_TRAIN


def test_missing_images_are_counted(vigor: Path) -> None:
    (vigor / "Seattle/satellite/satellite_47.6_-122.33.png").unlink()
    (vigor / "Chicago/satellite/satellite_41.85_-87.69.png").unlink()
    with pytest.raises(
        InputError,
        match=r"vigor-same/train lacks 2 of the 96 images that splits/<City>/ names, the first is "
        r"Seattle/satellite/satellite_47\.6_-122\.33\.png",
    ):
        Vigor().training(vigor)
    with pytest.raises(InputError, match=r"vigor-cross/test lacks 1 of the 56 images"):
        CROSS.tasks(vigor)


def test_tiles_resized_to_jpeg_are_read(vigor: Path) -> None:
    for path in (vigor / "Chicago/satellite").iterdir():
        path.rename(path.with_suffix(".jpg"))
    assert len(Vigor().training(vigor)) == 4 * VIGOR_TRAIN


def test_a_label_outside_the_tile_list_is_refused(vigor: Path) -> None:
    tiles = vigor / "splits/Seattle/satellite_list.txt"
    tiles.write_text("\n".join(tiles.read_text().splitlines()[1:]))
    with pytest.raises(
        InputError, match=r"names satellite_47\.6_-122\.33\.png, which splits/Seattle/satellite_l"
    ):
        Vigor().training(vigor)


def test_a_line_with_other_than_13_fields_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a,1,2,.jpg satellite_1_2.png 0 0\n")
    with pytest.raises(InputError, match=r"labels\.txt line 1 has 4 fields; expected 13"):
        read_labels(tmp_path / "labels.txt", tmp_path)


@pytest.mark.parametrize("name", ["pano.jpg", "a,north,2.0,.jpg", "a,95.0,2.0,.jpg"])
def test_a_panorama_without_a_position_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"expected a name as <id>,<latitude>|outside \[-90, 90\]"):
        panorama_positions([name])


def test_another_folder_is_told_from_vigor(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"^VIGOR in .*: no splits/NewYork/satellite_list\.txt, splits/NewYork/same_area_bala"
        r"nced_train\.txt, NewYork/panorama, .* https://github\.com/Jeff-Zilence/VIGOR",
    ):
        Vigor().training(tmp_path)


@needs_lists
@pytest.mark.parametrize(
    ("place", "tiles"),
    [("Chicago", 22308), ("NewYork", 23279), ("SanFrancisco", 24255), ("Seattle", 20776)],
)
def test_real_tile_lists_are_whole(place: str, tiles: int) -> None:
    """New York's has CRLF and no final newline. Together 90,618 (Zhu et al. 2021, table 2)."""
    path = FORMATS / f"splits__corrected/{place}/satellite_list.txt"
    names = read_lines(path, PUBLICATION, FORMATS)
    assert len(names) == len(set(names)) == tiles
    at = tile_positions(names)
    lat, lon = VIGOR_CITIES[place]
    assert np.abs(at.lat_deg - lat).max() < 0.1
    assert np.abs(at.lon_deg - lon).max() < 0.1


@needs_lists
@pytest.mark.parametrize(
    ("place", "part", "lines"),
    [
        ("Chicago", "train", 823),
        ("Chicago", "test", 823),
        ("NewYork", "train", 923),
        ("NewYork", "test", 923),
        ("Seattle", "train", 808),
        ("Seattle", "test", 808),
    ],
)
def test_real_labels_name_tiles_of_their_city(place: str, part: str, lines: int) -> None:
    folder = FORMATS / "splits__corrected" / place
    labels = read_labels(folder / f"same_area_balanced_{part}__corrected.txt", FORMATS)
    assert len(labels.panoramas) == len(labels.tiles) == lines
    known = set(read_lines(folder / "satellite_list.txt", PUBLICATION, FORMATS))
    assert all(len(set(names)) == 4 and known.issuperset(names) for names in labels.tiles)
    photo, tile = panorama_positions(labels.panoramas), tile_positions([t[0] for t in labels.tiles])
    offset = enu_offset_m(tile.lat_deg, tile.lon_deg, photo.lat_deg, photo.lon_deg)
    # Positives are those in whose middle half the panorama lies: at most 18.2 m off either way.
    assert max(np.abs(offset.east_m).max(), np.abs(offset.north_m).max()) < 19.0


@needs_lists
def test_the_first_real_label_is_read_as_it_stands() -> None:
    path = FORMATS / "splits__corrected/Chicago/same_area_balanced_test__corrected.txt"
    labels = read_labels(path, FORMATS)
    assert labels.panoramas[0] == "L-1poX8YZAmBZVLMqBu-4w,41.877949,-87.689396,.jpg"
    assert labels.tiles[0] == [
        "satellite_41.877971796211014_-87.68943505304125.png",
        "satellite_41.877971796211014_-87.68899446364951.png",
        "satellite_41.877643723758375_-87.68943505304125.png",
        "satellite_41.877643723758375_-87.68899446364951.png",
    ]


@needs_lists
@pytest.mark.parametrize("place", ["Chicago", "NewYork", "Seattle"])
def test_tile_sizes_agree_with_the_pixel_offsets_of_real_labels(place: str) -> None:
    """The panorama's offsets in two tiles, less each other, are the tiles' own distance."""
    path = FORMATS / f"splits__corrected/{place}/same_area_balanced_test__corrected.txt"
    gsd_m: list[float] = []
    for line in read_lines(path, PUBLICATION, FORMATS):
        fields = line.split()
        south_px = np.array(fields[2::3], float)
        at = tile_positions(fields[1::3])
        moved = enu_offset_m(at.lat_deg[0], at.lon_deg[0], at.lat_deg[1:], at.lon_deg[1:])
        apart_px = south_px[1:] - south_px[0]
        far = np.abs(apart_px) > 100
        gsd_m += (moved.north_m[far] / apart_px[far]).tolist()
    size_m = web_tile_size_m(VIGOR_CITIES[place][0], zoom=20, size_px=640)
    assert size_m == pytest.approx(640 * np.median(gsd_m), rel=0.005)
