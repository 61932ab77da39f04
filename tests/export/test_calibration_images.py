"""What an encoder is calibrated on: real photographs and maps, reproducible, some held out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import ImageryError, InputError
from edge_runtime.preprocess import EncoderSpec
from export.calibration_images import calibration_images
from export.probes import probe_images

U8 = npt.NDArray[np.uint8]
SPEC = EncoderSpec(
    architecture="none",
    height_px=32,
    width_px=32,
    embedding_size=8,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    ground_size_m=40.0,
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for k in range(9):
        photo = np.asarray(rng.integers(0, 256, (90, 160, 3)), np.uint8)
        cv2.imwrite(str(folder / f"{k}.png"), photo)
    return folder


def _rows(images: U8) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_the_same_seed_gives_the_same_images_and_another_seed_others(
    photos: Path,
    tmp_path: Path,
    make_raster: Callable[..., Any],
    coloured_noise: Callable[..., Any],
) -> None:
    map_path = make_raster(tmp_path / "map.tif", coloured_noise()).path
    one, same, other = (
        calibration_images([photos, map_path], SPEC, images=36, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(one.calibration, same.calibration)
    assert np.array_equal(one.held_out, same.held_out)
    assert not np.array_equal(one.calibration, other.calibration)
    assert (one.photographs, one.places, one.made_up) == (9, 18, 0)
    assert one.calibration.dtype == np.uint8
    assert one.calibration.shape[1:] == (32, 32, 3)
    assert len(one.calibration) + len(one.held_out) == 36


def test_no_photograph_is_both_calibrated_on_and_held_out(tmp_path: Path) -> None:
    folder = tmp_path / "grey"
    folder.mkdir()
    for k in range(9):  # One grey each: every view of a photograph shows which one it is.
        cv2.imwrite(str(folder / f"{k}.png"), np.full((60, 60, 3), 20 * k, np.uint8))
    made = calibration_images([folder], SPEC, images=36)
    kept, held = (set(images[:, 0, 0, 0].tolist()) for images in (made.calibration, made.held_out))
    assert kept | held == {20 * k for k in range(9)}
    assert len(held) == 3
    assert not kept & held


def test_made_up_images_are_not_the_probes_that_judge_the_result() -> None:
    made = calibration_images([], SPEC, images=30)
    probes = _rows(probe_images(SPEC))
    both = _rows(made.calibration) | _rows(made.held_out)
    assert len(both) == 30
    assert not both & probes
    assert not _rows(made.calibration) & _rows(made.held_out)
    assert "30 made-up images; INT8 needs photographs or maps of your own area" in made.note()


def test_few_photographs_are_cut_more_often_and_never_mixed_with_made_up_ones(
    photos: Path,
) -> None:
    for count, images in ((1, 24), (2, 24), (9, 36)):
        paths = sorted(photos.iterdir())[:count]
        made = calibration_images(paths, SPEC, images=40)
        assert (made.photographs, made.made_up) == (count, 0)
        assert made.real
        assert len(made.calibration) + len(made.held_out) == images
        assert len(made.held_out) >= 8
        assert made.note() == f"calibration: {images} images of {count} photographs"
    assert not calibration_images([], SPEC, images=40).real


def test_places_lie_in_every_corner_of_the_map(
    tmp_path: Path, make_raster: Callable[..., Any]
) -> None:
    def position(column: npt.NDArray[np.float64], row: npt.NDArray[np.float64]) -> U8:
        return np.asarray(np.stack([column / 2, row / 2, 0 * row], -1), np.uint8)

    raster = make_raster(tmp_path / "map.tif", position, side=400)  # 200 m at 0.5 m.
    made = calibration_images([raster.path], SPEC, images=32)
    places = np.concatenate([made.calibration, made.held_out])[:, 16, 16, :2].astype(float) * 2
    quadrants, counts = np.unique(places > 200, axis=0, return_counts=True)
    assert len(quadrants) == 4
    assert counts.min() >= 5


def test_a_square_shows_the_ground_it_should_north_up_in_rgb(
    tmp_path: Path, make_raster: Callable[..., Any]
) -> None:
    """Red counts metres to the east, green metres to the south: the encoder's 40 m must show."""

    def metres(column: npt.NDArray[np.float64], row: npt.NDArray[np.float64]) -> U8:
        return np.asarray(np.stack([column * 0.5, row * 0.5, 0 * row + 7], -1), np.uint8)

    raster = make_raster(tmp_path / "map.tif", metres, side=400)
    made = calibration_images([raster.path], SPEC, images=12)
    for square in made.calibration.astype(float):
        across = square[16, 31, 0] - square[16, 0, 0]
        down = square[31, 16, 1] - square[0, 16, 1]
        # UTM's north turns by a degree here, and pixels are whole numbers: 1.5 m of doubt.
        assert across == pytest.approx(40 * 31 / 32, abs=1.5)
        assert down == pytest.approx(40 * 31 / 32, abs=1.5)


def test_a_tiff_without_a_georeference_is_a_photograph(tmp_path: Path) -> None:
    path = tmp_path / "photo.tif"
    cv2.imwrite(str(path), np.full((64, 64, 3), 9, np.uint8))
    assert calibration_images([path], SPEC, images=12).photographs == 1


def test_nothing_that_cannot_be_used_is_passed_over(
    tmp_path: Path, make_raster: Callable[..., Any], coloured_noise: Callable[..., Any]
) -> None:
    map_path = make_raster(tmp_path / "map.tif", coloured_noise()).path
    with pytest.raises(InputError, match="is not there; expected a folder"):
        calibration_images([tmp_path / "nothing"], SPEC)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"has no images; expected files ending in .jpg"):
        calibration_images([empty], SPEC)
    (empty / "broken.jpg").write_bytes(b"not a photograph")
    with pytest.raises(InputError, match=r"broken.jpg cannot be read"):
        calibration_images([empty], SPEC)
    with pytest.raises(InputError, match="expected at least 12"):
        calibration_images([], SPEC, images=4)
    nowhere = replace(SPEC, ground_size_m=None)
    with pytest.raises(InputError, match="give --tile-m"):
        calibration_images([map_path], nowhere)
    assert calibration_images([map_path], nowhere, size_m=30.0, images=24).places == 24
    with pytest.raises(ImageryError, match="no square of 4000 m is 90% visible"):
        calibration_images([map_path], SPEC, size_m=4000.0)
