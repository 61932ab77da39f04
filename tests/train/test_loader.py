"""What a pair looks like depends on seed, epoch and row alone."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from train.config import TrainConfig
from train.loader import Batch, evaluation_batches, training_batches, worker_count
from train.pair_table import (
    ImageArray,
    ImageFiles,
    ImageSet,
    PairTable,
    UnreadableImageError,
    View,
)

CONFIG = TrainConfig(size_px=64, ground_size_m=48.0, shift_m=4.0, recolour=1.0, workers=0, seed=5)


@pytest.fixture
def table(tmp_path: Path) -> PairTable:
    rng = np.random.default_rng(0)
    sets = []
    views: tuple[View, View] = ("photo", "tile")
    for view in views:
        paths = []
        for k in range(12):
            paths.append(tmp_path / f"{view}_{k:02}.png")
            image = rng.integers(0, 256, (80, 80, 3), np.uint8)
            assert cv2.imwrite(str(paths[-1]), image)
        sets.append(ImageSet(images=ImageFiles(paths), view=view))
    return PairTable(
        name="files",
        photos=sets[0],
        tiles=sets[1],
        tile_of_photo=np.arange(12),
        geometry="aligned",
        margin=1.25,
    )


def batches(
    table: PairTable, config: TrainConfig, rows: list[list[int]], epoch: int
) -> list[Batch]:
    return list(training_batches(table, config, [np.array(r) for r in rows], epoch=epoch))


def test_a_pair_is_drawn_alike_in_any_batch_by_any_worker(table: PairTable) -> None:
    (whole,) = batches(table, CONFIG, [[3, 7, 1, 9]], 2)
    split = batches(table, dataclasses.replace(CONFIG, workers=1), [[9, 1], [7, 3]], 2)
    by_row = {
        int(row): (batch.photos[k], batch.tiles[k])
        for batch in split
        for k, row in enumerate(batch.rows)
    }
    for k, row in enumerate(map(int, whole.rows)):
        assert np.array_equal(whole.photos[k], by_row[row][0])
        assert np.array_equal(whole.tiles[k], by_row[row][1])


def test_another_epoch_or_seed_draws_another_view(table: PairTable) -> None:
    (first,) = batches(table, CONFIG, [[3, 7]], 0)
    (later,) = batches(table, CONFIG, [[3, 7]], 1)
    (other,) = batches(table, dataclasses.replace(CONFIG, seed=6), [[3, 7]], 0)
    assert not np.array_equal(first.photos, later.photos)
    assert not np.array_equal(first.photos, other.photos)


def test_colours_come_as_rgb(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    assert cv2.imwrite(str(path), np.full((8, 8, 3), (0, 0, 255), np.uint8))  # BGR.
    image = ImageFiles([path]).read(0, np.random.default_rng(0))
    assert image[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("damage", ["missing", "empty", "cut short at the start"])
def test_a_broken_image_is_named_and_left_out(table: PairTable, damage: str) -> None:
    images = table.photos.images
    assert isinstance(images, ImageFiles)
    path = images.paths[7]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else 20])
    (batch,) = batches(table, CONFIG, [[3, 7, 1]], 0)
    assert batch.rows.tolist() == [3, 1]
    assert len(batch.photos) == len(batch.tiles) == 2
    (reason,) = batch.unreadable
    assert str(path) in reason
    assert "expected a" in reason


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
def test_a_jpeg_cut_short_is_no_grey_image(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)
    assert ImageFiles([path]).read(0, np.random.default_rng(0)).shape == (64, 64, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(UnreadableImageError, match=r"cut\.jpg cannot be decoded; expected a whole"):
        ImageFiles([path]).read(0, np.random.default_rng(0))


def test_a_batch_of_broken_images_is_empty(table: PairTable) -> None:
    images = table.photos.images
    assert isinstance(images, ImageFiles)
    images.paths[3].unlink()
    (batch,) = batches(table, CONFIG, [[3]], 0)
    assert batch.photos.shape == (0, 64, 64, 3)
    assert len(batch.unreadable) == 1


def test_evaluation_reads_in_order_and_leaves_colours_alone(table: PairTable) -> None:
    found = list(
        evaluation_batches(
            table.tiles, CONFIG, rows=np.arange(12), size_px=(64, 64), margin=1.25, batch_size=5
        )
    )
    assert [len(part.images) for part in found] == [5, 5, 2]
    whole = np.concatenate([part.images for part in found])
    expected = table.tiles.images.read(6, np.random.default_rng(0))[8:72, 8:72]
    assert np.array_equal(whole[6], expected)


def test_images_in_memory_need_no_workers(table: PairTable) -> None:
    automatic = dataclasses.replace(CONFIG, workers=None)
    array = ImageSet(images=ImageArray(np.zeros((2, 8, 8, 3), np.uint8)), view="tile")
    assert worker_count(automatic, array) == 0
    assert worker_count(automatic, array, table.photos) >= 1
    assert worker_count(dataclasses.replace(CONFIG, workers=3), array) == 3
