import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import InputError
from tests.train.datasets.tiny_datasets import (
    UNIVERSITY_DISTRACTORS,
    UNIVERSITY_TEST,
    UNIVERSITY_TRAIN,
    UNIVERSITY_VIEWS,
    make_tiny,
)
from train.datasets.layout import is_image
from train.datasets.university1652 import University1652

FORMATS = Path(os.environ.get("SKYFIX_DATA", "not-set")) / "formats"


@pytest.fixture
def university(tmp_path: Path) -> Path:
    return make_tiny("university1652", tmp_path / "University-Release")


def building(name: str) -> int:
    return int(Path(name).parent.name)


def test_every_drone_image_is_paired_with_its_building(university: Path) -> None:
    table = University1652().training(university)
    assert len(table) == UNIVERSITY_TRAIN * UNIVERSITY_VIEWS
    assert len(table.tiles) == UNIVERSITY_TRAIN
    assert table.geometry == "drone"
    for photo, tile in enumerate(table.tile_of_photo):
        name = table.tiles.images.name(int(tile))
        assert building(table.photos.images.name(photo)) == building(name)
        assert "/drone/" in table.photos.images.name(photo)
        assert "/satellite/" in name


def test_both_directions_rank_the_distractors_too(university: Path) -> None:
    to_satellite, to_drone = University1652().tasks(university)
    places = UNIVERSITY_TEST + UNIVERSITY_DISTRACTORS
    assert to_satellite.name == "university1652/drone-to-satellite"
    assert to_drone.name == "university1652/satellite-to-drone"
    assert len(to_satellite.queries) == UNIVERSITY_TEST * UNIVERSITY_VIEWS
    assert len(to_satellite.gallery) == places
    assert len(to_drone.queries) == UNIVERSITY_TEST
    assert len(to_drone.gallery) == places * UNIVERSITY_VIEWS
    assert (to_satellite.queries.view, to_satellite.gallery.view) == ("photo", "tile")
    assert (to_drone.queries.view, to_drone.gallery.view) == ("tile", "photo")


def test_labels_are_buildings_in_both_directions(university: Path) -> None:
    for task in University1652().tasks(university):
        for images, labels in (
            (task.queries, task.query_labels),
            (task.gallery, task.gallery_labels),
        ):
            assert [building(images.images.name(k)) for k in range(len(images))] == labels.tolist()


def test_leaving_out_what_no_query_shows_leaves_the_papers_gallery(university: Path) -> None:
    for task in University1652().tasks(university):
        asked = np.isin(task.gallery_labels, task.query_labels)
        assert len(np.unique(task.gallery_labels[~asked])) == UNIVERSITY_DISTRACTORS
        assert set(task.gallery_labels[asked]) == set(task.query_labels)


def test_street_views_and_empty_folders_are_left_alone(university: Path) -> None:
    (university / "train/google/0839").mkdir(parents=True)
    (university / "train/street/0839").mkdir(parents=True)
    (university / "train/satellite/0839/Thumbs.db").touch()
    assert len(University1652().training(university)) == UNIVERSITY_TRAIN * UNIVERSITY_VIEWS


def test_a_building_without_a_satellite_image_is_refused(university: Path) -> None:
    shutil.rmtree(university / "train/satellite/0843")
    with pytest.raises(InputError, match=r"1 places without exactly one .* the first is 0843"):
        University1652().training(university)


def test_a_query_whose_building_is_not_in_the_gallery_is_refused(university: Path) -> None:
    shutil.rmtree(university / "test/gallery_satellite/0003")
    with pytest.raises(InputError, match=r"queries of 1 places .* the first is 0003"):
        University1652().tasks(university)


def test_another_folder_is_told_from_university1652(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"^University-1652 in .*: no test/query_drone, test/gallery_satellite, .* "
        r"https://github\.com/layumi/University1652-Baseline",
    ):
        University1652().tasks(tmp_path)


@pytest.mark.skipif(not FORMATS.is_dir(), reason="SKYFIX_DATA has no lists")
def test_every_name_of_the_real_lists_is_a_numbered_building_and_an_image() -> None:
    queries = (FORMATS / "university1652/query_name.txt").read_text().split()
    gallery = (FORMATS / "university1652/gallery_name.txt").read_text().split()
    assert len({building(name) for name in queries}) == len(queries) == 701
    assert (building(queries[0]), building(gallery[0])) == (0, 0)
    assert {building(name) for name in gallery} - {building(name) for name in queries}
    assert all(is_image(Path(name).name) for name in queries + gallery)
