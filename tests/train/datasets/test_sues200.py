import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import InputError
from tests.train.datasets.tiny_datasets import (
    SUES_TEST,
    SUES_TRAIN,
    SUES_VIEWS,
    make_sues200,
    make_sues200_split,
)
from train.datasets.sues200 import HEIGHTS_M, TEST_PLACES, Sues200
from train.pair_table import ImageSet

FORMATS = Path(os.environ.get("SKYFIX_DATA", "not-set")) / "formats"
LAYOUTS = {"published": make_sues200, "split": make_sues200_split}


@pytest.fixture(params=list(LAYOUTS))
def sues(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    LAYOUTS[request.param](tmp_path / "SUES")
    return tmp_path / "SUES"


def places(images: ImageSet) -> list[str]:
    """The part of each path that is a place."""
    known = set(SUES_TRAIN + SUES_TEST)
    names = [Path(images.images.name(row)) for row in range(len(images))]
    return [next(part for part in name.parts if part in known) for name in names]


def heights(images: ImageSet) -> set[str]:
    names = [Path(images.images.name(row)) for row in range(len(images))]
    return {part for name in names for part in name.parts if part in {"150", "200", "250", "300"}}


def test_training_takes_all_heights_together(sues: Path) -> None:
    table = Sues200().training(sues)
    assert (len(table), len(table.tiles)) == (
        len(SUES_TRAIN) * len(HEIGHTS_M) * SUES_VIEWS,
        len(SUES_TRAIN),
    )
    assert heights(table.photos) == {"150", "200", "250", "300"}
    assert table.geometry == "drone"
    tiles = places(table.tiles)
    assert tiles == list(SUES_TRAIN)
    assert places(table.photos) == [tiles[row] for row in table.tile_of_photo]


def test_one_height_can_be_trained_alone(sues: Path) -> None:
    table = Sues200(name="sues200-250", heights_m=(250,)).training(sues)
    assert len(table) == len(SUES_TRAIN) * SUES_VIEWS
    assert heights(table.photos) == {"250"}


def test_there_are_two_directions_at_four_heights(sues: Path) -> None:
    tasks = Sues200().tasks(sues)
    assert [task.name for task in tasks] == [
        f"sues200/{direction}-{height}"
        for height in (150, 200, 250, 300)
        for direction in ("drone-to-satellite", "satellite-to-drone")
    ]
    every = len(SUES_TRAIN + SUES_TEST)
    for task, height in zip(tasks, np.repeat(HEIGHTS_M, 2), strict=True):
        drone, satellite = task.queries, task.gallery
        sizes = (len(SUES_TEST) * SUES_VIEWS, every)
        if "satellite-to-drone" in task.name:
            drone, satellite, sizes = task.gallery, task.queries, (every * SUES_VIEWS, 3)
        assert (len(drone), len(satellite)) == sizes
        assert (drone.view, satellite.view) == ("photo", "tile")
        assert heights(drone) == {str(height)}


def test_queries_are_of_test_places_and_galleries_of_all(sues: Path) -> None:
    for task in Sues200().tasks(sues):
        assert set(places(task.queries)) == set(SUES_TEST)
        assert set(places(task.gallery)) == set(SUES_TRAIN + SUES_TEST)
        assert [int(place) for place in places(task.gallery)] == task.gallery_labels.tolist()
        assert [int(place) for place in places(task.queries)] == task.query_labels.tolist()
        asked = np.isin(task.gallery_labels, task.query_labels)
        assert {int(place) for place in SUES_TEST} == set(task.gallery_labels[asked])


def test_the_split_may_lie_in_the_readmes_dataset_folder(tmp_path: Path) -> None:
    make_sues200_split(tmp_path / "SUES/Dataset")
    assert len(Sues200().tasks(tmp_path / "SUES")) == 8


def test_the_published_layout_goes_before_a_split_beside_it(tmp_path: Path) -> None:
    make_sues200(tmp_path)
    make_sues200_split(tmp_path)
    shutil.rmtree(tmp_path / "Testing/150/query_drone")
    tasks = Sues200().tasks(tmp_path)
    assert "drone_view_512" in tasks[0].queries.images.name(0)


def test_an_incomplete_split_names_what_is_missing(tmp_path: Path) -> None:
    make_sues200_split(tmp_path)
    shutil.rmtree(tmp_path / "Testing/250/gallery_satellite")
    with pytest.raises(InputError, match=r"no Testing/250/gallery_satellite; expected"):
        Sues200().tasks(tmp_path)


def test_a_place_without_a_height_is_refused_as_incomplete(tmp_path: Path) -> None:
    make_sues200(tmp_path)
    for place in SUES_TEST:
        shutil.rmtree(tmp_path / "drone_view_512" / place / "200")
    with pytest.raises(InputError, match=r"sues200/drone-to-satellite-200 has no query image"):
        Sues200().tasks(tmp_path)


def test_another_folder_is_told_from_sues200(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"^SUES-200 in .*: no satellite-view, drone_view_512; expected .* "
        r"https://github\.com/Reza-Zhu/SUES-200-Benchmark$",
    ):
        Sues200().training(tmp_path)


def test_80_places_are_for_testing() -> None:
    assert len(TEST_PLACES) == 80
    assert {f"{number:04d}" for number in range(1, 201)} >= TEST_PLACES


@pytest.mark.skipif(not FORMATS.is_dir(), reason="SKYFIX_DATA has no index")
def test_test_places_are_those_the_owners_index_leaves() -> None:
    index = re.findall(r"'(\d{4})'", (FORMATS / "sues200/indexs.yaml").read_text())
    assert len(index) == 120
    assert {f"{number:04d}" for number in range(1, 201)} - set(index) == TEST_PLACES
