import os
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import InputError
from tests.train.datasets.tiny_datasets import CVUSA_TRAIN, CVUSA_VAL, make_tiny, texture
from train.datasets.cvusa import Cvusa, read_locations, read_split

FORMATS = Path(os.environ.get("SKYFIX_DATA", "not-set")) / "formats"
RNG = np.random.default_rng(0)


@pytest.fixture
def cvusa(tmp_path: Path) -> Path:
    return make_tiny("cvusa", tmp_path / "CVUSA")


def test_each_panorama_is_paired_with_its_aerial_image(cvusa: Path) -> None:
    table = Cvusa().training(cvusa)
    assert (len(table), len(table.tiles)) == (CVUSA_TRAIN, CVUSA_TRAIN)
    assert (table.name, table.geometry) == ("cvusa/train", "panorama")
    for photo, tile in enumerate(table.tile_of_photo):
        name = Path(table.photos.images.name(photo))
        assert name.parts[-3:-1] == ("streetview", "panos")
        assert Path(table.tiles.images.name(int(tile))).parts[-3:-1] == ("bingmap", "19")
        assert Path(table.tiles.images.name(int(tile))).name == name.name
        seen = table.tiles.images.read(int(tile), RNG).astype(float)
        assert np.abs(seen - texture(f"cvusa {name.stem}")).mean() < 10  # JPEG


def test_pairs_keep_the_order_of_the_split(cvusa: Path) -> None:
    tiles, _ = read_split(cvusa / "splits/train-19zl.csv", cvusa)
    table = Cvusa().training(cvusa)
    names = [table.tiles.images.name(k) for k in range(len(table))]
    assert names == [str(cvusa / tile) for tile in tiles]


def test_the_validation_split_is_the_task(cvusa: Path) -> None:
    (task,) = Cvusa().tasks(cvusa)
    assert (task.name, len(task.queries), len(task.gallery)) == ("cvusa/val", CVUSA_VAL, CVUSA_VAL)
    assert (task.queries.view, task.gallery.view) == ("photo", "tile")
    assert task.query_labels.tolist() == task.gallery_labels.tolist() == list(range(CVUSA_VAL))


def test_line_n_of_the_locations_is_image_number_n(cvusa: Path) -> None:
    table = Cvusa().training(cvusa)
    assert table.photos.lat_deg is not None
    assert table.tiles.lat_deg is not None
    assert table.tiles.lon_deg is not None
    for row in range(len(table)):
        number = int(Path(table.tiles.images.name(row)).stem)
        assert table.tiles.lat_deg[row] == pytest.approx(35 + number / 100)
        assert table.tiles.lon_deg[row] == pytest.approx(-90 - number / 100)
        assert table.photos.lat_deg[row] == pytest.approx(35.0001 + number / 100)


def test_without_locations_positions_are_unknown_and_that_is_told(cvusa: Path) -> None:
    (cvusa / "split_locations/all.csv").unlink()
    told: list[str] = []
    table = Cvusa().training(cvusa, note=told.append)
    assert table.photos.lat_deg is table.tiles.lon_deg is None
    assert told == [f"cvusa: no split_locations/all.csv in {cvusa}, so positions are not known"]


def test_too_few_locations_are_refused(cvusa: Path) -> None:
    path = cvusa / "split_locations/all.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:5]))
    with pytest.raises(InputError, match=r"all\.csv has 5 lines, but the splits name image \d+"):
        Cvusa().training(cvusa)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("35.0,-90.0,35.0", "line 2 is '35.0,-90.0,35.0'; expected the latitude"),
        ("35.0,-90.0,35.0,west", "line 2"),
        ("-90.0,35.0,-120.0,35.0", r"latitude -120\.0+ is outside"),
        ("35.0,-90.0,nan,-90.0", "latitude nan is outside"),
    ],
)
def test_locations_that_cannot_be_are_refused(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "all.csv").write_text(f"35.0,-90.0,35.0,-90.0,7\n{line}\n")
    with pytest.raises(InputError, match=complaint):
        read_locations(tmp_path / "all.csv", tmp_path)


def test_missing_images_are_refused_before_training(cvusa: Path) -> None:
    tiles, photos = read_split(cvusa / "splits/val-19zl.csv", cvusa)
    (cvusa / photos[2]).unlink()
    (cvusa / tiles[5]).unlink()
    with pytest.raises(InputError, match=r"cvusa/val lacks 2 of the 16 images that splits/val-19z"):
        Cvusa().tasks(cvusa)
    assert len(Cvusa().training(cvusa)) == CVUSA_TRAIN


def test_another_folder_is_told_from_cvusa(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"^CVUSA in .*: no splits/train-19zl\.csv; expected .*bingmap/19.* "
        r"https://mvrl\.cse\.wustl\.edu/datasets/cvusa/",
    ):
        Cvusa().training(tmp_path)


def test_a_split_of_one_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("bingmap/1.jpg,streetview/1.jpg\nbingmap/2.jpg\n")
    with pytest.raises(InputError, match=r"line 2 is 'bingmap/2\.jpg'; expected satellite,panoram"):
        read_split(tmp_path / "train.csv", tmp_path)


@pytest.mark.skipif(not FORMATS.is_dir(), reason="SKYFIX_DATA has no split files")
@pytest.mark.parametrize(
    ("part", "pairs", "first"),
    [
        ("train", 6647, ("bingmap/input0044192.png", "streetview/input0044192.jpg")),
        ("val", 2215, ("bingmap/input0003932.png", "streetview/input0003932.png")),
    ],
)
def test_splits_with_crlf_of_a_real_subset_are_read(
    part: str, pairs: int, first: tuple[str, str]
) -> None:
    path = FORMATS / f"cvusa_like/{part}-19zl.csv"
    tiles, photos = read_split(path, FORMATS)
    assert len(tiles) == len(photos) == pairs
    assert (tiles[0], photos[0]) == first
    assert not any(name != name.strip() for name in tiles + photos)
