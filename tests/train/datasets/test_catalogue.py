from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import InputError
from tests.train.datasets.tiny_datasets import make_tiny
from train.datasets.catalogue import DATASETS, read_tasks, read_training

NAMES = (
    "cvusa",
    "cvact",
    "cvact-test",
    "university1652",
    "vigor-same",
    "vigor-cross",
    "sues200",
    "sues200-150",
    "sues200-200",
    "sues200-250",
    "sues200-300",
    "folder",
)
RNG = np.random.default_rng(0)


def test_every_data_set_has_its_name() -> None:
    assert tuple(DATASETS) == NAMES
    assert all(vars(reader)["name"] == name for name, reader in DATASETS.items())


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_is_read_whole(name: str, tmp_path: Path) -> None:
    root = make_tiny(name, tmp_path / name)
    table = read_training(name, root)
    assert table.name == f"{name}/train"
    assert (table.photos.view, table.tiles.view) == ("photo", "tile")
    sets = [table.photos, table.tiles]
    for task in read_tasks(name, root):
        assert task.name.startswith(f"{name}/")
        assert np.isin(task.query_labels, task.gallery_labels).all()
        sets += [task.queries, task.gallery]
    for images in sets:
        for row in (0, len(images) - 1):
            image = images.images.read(row, RNG)
            assert (image.dtype.name, image.ndim, image.shape[2]) == ("uint8", 3, 3)


@pytest.mark.parametrize("name", NAMES)
def test_every_photo_looks_more_like_its_own_tile_than_like_most(name: str, tmp_path: Path) -> None:
    """So pairs can be learnt, and are not mixed up. Resized to 8 x 8 and without its mean."""
    import cv2

    table = read_training(name, make_tiny(name, tmp_path / name))

    def look(image: np.ndarray) -> np.ndarray:
        small = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).astype(float)
        return np.ravel(small - small.mean())

    tiles = np.stack([look(table.tiles.images.read(k, RNG)) for k in range(len(table.tiles))])
    ranks = []
    for row in range(len(table)):
        apart = np.linalg.norm(tiles - look(table.photos.images.read(row, RNG)), axis=1)
        ranks.append(int((apart < apart[table.tile_of_photo[row]]).sum()))
    assert np.mean(np.array(ranks) == 0) > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    source = "See docs/datasets.md" if name == "folder" else "Its owners publish it at https://"
    for read in (read_training, read_tasks):
        with pytest.raises(InputError, match=rf"^[^\n]*; expected [^\n]*\. {source}[^\n]*$"):
            read(name, tmp_path)
        with pytest.raises(InputError, match="there is no such folder"):
            read(name, tmp_path / "not there")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("cvsua", "cvusa"),
        ("vigor", "vigor-same"),
        ("vigor_cross", "vigor-cross"),
        ("University-1652", "university1652"),
        ("SUES-200", "sues200"),
        ("cvact_test", "cvact-test"),
    ],
)
def test_a_near_miss_gets_the_nearest_name(typed: str, meant: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"no data set '{typed}'; did you mean {meant}\? Known: "):
        read_training(typed, tmp_path)


def test_a_name_like_none_gets_the_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data set 'zzz'; Known: cvusa, cvact, cvact-test, "):
        read_tasks("zzz", tmp_path)


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    root = make_tiny("cvusa", tmp_path)
    (root / "split_locations/all.csv").unlink()
    told: list[str] = []
    read_training("cvusa", root, note=told.append)
    read_tasks("cvusa", root, note=told.append)
    assert len(told) == 2
