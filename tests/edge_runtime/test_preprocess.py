import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import InputError
from edge_runtime.preprocess import EncoderSpec, resize_to_encoder, spec_from_json

SPEC = EncoderSpec(
    architecture="convnext_tiny",
    height_px=24,
    width_px=40,
    embedding_size=16,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    ground_size_m=100.0,
)


def stretched_slowly(image: npt.NDArray[np.uint8], height: int, width: int) -> Any:
    """Bilinear with pixel centres at half coordinates and edges repeated, pixel by pixel."""
    out = np.zeros((height, width, 3))
    for row in range(height):
        for column in range(width):
            y = np.clip((row + 0.5) * image.shape[0] / height - 0.5, 0, image.shape[0] - 1)
            x = np.clip((column + 0.5) * image.shape[1] / width - 0.5, 0, image.shape[1] - 1)
            y0, x0 = min(int(y), image.shape[0] - 2), min(int(x), image.shape[1] - 2)
            fy, fx = y - y0, x - x0
            top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
            below = image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx
            out[row, column] = top * (1 - fy) + below * fy
    return out


@pytest.mark.parametrize("shape", [(48, 80), (17, 23), (100, 30)])
def test_resizing_is_bilinear_without_antialias(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = resize_to_encoder(image, SPEC)
    assert found.shape == (24, 40, 3)
    assert found.dtype == np.uint8
    assert np.abs(found - stretched_slowly(image, 24, 40)).max() <= 1.0


def test_an_image_of_the_right_size_is_passed_through() -> None:
    image = np.zeros((24, 40, 3), np.uint8)
    assert resize_to_encoder(image, SPEC) is image


def test_a_spec_survives_json() -> None:
    spec = spec_from_json(json.loads(json.dumps(asdict(SPEC))))
    assert spec == SPEC
    assert spec.preprocessing_hash() == SPEC.preprocessing_hash()


@pytest.mark.parametrize(
    "change",
    [
        {"height_px": 25},
        {"width_px": 41},
        {"mean": (0.5, 0.456, 0.406)},
        {"std": (0.5, 0.224, 0.225)},
        {"ground_size_m": 101.0},
        {"ground_size_m": None},
    ],
)
def test_whatever_the_encoder_sees_is_in_the_hash(change: dict[str, Any]) -> None:
    assert replace(SPEC, **change).preprocessing_hash() != SPEC.preprocessing_hash()


@pytest.mark.parametrize("change", [{"architecture": "vit"}, {"embedding_size": 8}])
def test_what_the_encoder_is_made_of_is_not(change: dict[str, Any]) -> None:
    assert replace(SPEC, **change).preprocessing_hash() == SPEC.preprocessing_hash()


def test_equal_specs_have_equal_hashes() -> None:
    same = replace(SPEC, ground_size_m=100)
    assert same == SPEC
    assert same.preprocessing_hash() == SPEC.preprocessing_hash()


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((24, 40, 3), np.float32), id="float"),
        pytest.param(np.zeros((24, 40), np.uint8), id="grey"),
        pytest.param(np.zeros((24, 40, 4), np.uint8), id="four channels"),
        pytest.param(np.zeros((1, 24, 40, 3), np.uint8), id="a batch"),
        pytest.param(np.zeros((3, 24, 40), np.uint8), id="channels first"),
    ],
)
def test_what_is_not_an_rgb_image_is_refused(image: Any) -> None:
    with pytest.raises(InputError, match=r"expected uint8 of \(H, W, 3\), RGB"):
        resize_to_encoder(image, SPEC)


@pytest.mark.parametrize("change", [{"height_px": 8}, {"embedding_size": 0}])
def test_an_encoder_of_no_size_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected at least 16x16 px and 1"):
        replace(SPEC, **change)


def test_another_resize_rule_is_refused() -> None:
    with pytest.raises(InputError, match="'letterbox' is not known here; expected 'stretch"):
        replace(SPEC, resize="letterbox")


@pytest.mark.parametrize(
    "change",
    [{"mean": None}, {"colour": "bgr"}, {"height_px": "24"}, {"std": 0.5}],
    ids=["no mean", "unknown name", "text for a number", "one number for three"],
)
def test_a_foreign_description_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="another version of skyfix"):
        spec_from_json(asdict(SPEC) | change)


@pytest.mark.parametrize("missing", ["mean", "height_px", "architecture"])
def test_an_incomplete_description_is_refused(missing: str) -> None:
    value = asdict(SPEC)
    del value[missing]
    with pytest.raises(InputError, match=f"{missing}.*another version of skyfix"):
        spec_from_json(value)
