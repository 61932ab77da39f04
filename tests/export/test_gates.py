import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from edge_runtime.errors import GateError
from edge_runtime.preprocess import EncoderSpec
from export.gates import MIN_TOP1_AGREEMENT, run_gates
from export.probes import MAX_PROBES, probe_images
from train.encoder import Encoder

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Export = Callable[[str], Any]


def unit(rows: npt.NDArray[Any]) -> F32:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def spread_rows(count: int = 40, size: int = 24, seed: int = 1) -> F32:
    return unit(np.random.default_rng(seed).normal(size=(count, size)))


def refused(found: F32, reference: F32, precision: Any = "fp32") -> str:
    """Run gates that must fail; returns their one line, which begins with the precision."""
    with pytest.raises(GateError) as caught:
        run_gates(found, reference, precision)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{precision}: ")
    return line


def number_after(text: str, line: str) -> float:
    found = re.search(re.escape(text) + r"\s*(-?[\d.]+(?:e[+-]?\d+)?)", line)
    assert found, line
    return float(found[1])


# --- a sound export ----------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_same_embeddings_pass(precision: Any) -> None:
    report = run_gates(spread_rows(), spread_rows(), precision)
    assert report.precision == precision
    assert report.probes == 40
    assert report.min_cosine == pytest.approx(1.0, abs=1e-6)
    assert report.min_cosine <= report.p1_cosine <= 1.0 + 1e-6
    assert report.top1_agreement == 1.0
    assert json.loads(json.dumps(report.to_json())) == report.to_json()


def test_rounding_of_half_precision_passes_as_fp16() -> None:
    reference = spread_rows()
    found = unit(reference.astype(np.float16).astype(np.float32))
    assert run_gates(found, reference, "fp16").min_cosine > 0.9999


def test_half_precision_may_differ_more_than_full_precision() -> None:
    reference = spread_rows()
    noise = 0.02 * spread_rows(seed=2)
    found = unit(reference + noise)
    assert run_gates(found, reference, "fp16").min_cosine < 0.9999
    assert "expected >= 0.9999" in refused(found, reference, "fp32")


# --- planted faults in the embeddings ----------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_caught(value: float) -> None:
    found = spread_rows()
    found[7, 3] = value
    assert "1 of 40 probes gave a non-finite embedding" in refused(found, spread_rows())


def test_only_nan_is_caught() -> None:
    found = np.full((40, 24), np.nan, np.float32)
    assert "40 of 40 probes" in refused(found, spread_rows())


def test_a_constant_embedding_is_caught_even_where_the_trained_encoder_gives_it_too() -> None:
    constant = unit(np.ones((40, 24)))
    assert "constant" in refused(constant, spread_rows())
    assert "constant" in refused(constant, constant)


def test_a_trained_encoder_that_gives_nan_passes_nothing() -> None:
    refused(spread_rows(), np.full((40, 24), np.nan, np.float32))


@pytest.mark.parametrize("scale", [0.1, 0.99, 1.01, 30.0])
def test_embeddings_that_are_not_of_unit_length_are_caught_with_how_far_off_they_are(
    scale: float,
) -> None:
    line = refused(scale * spread_rows(), spread_rows())
    assert number_after("off by", line) == pytest.approx(abs(scale - 1), rel=0.06)


def test_one_embedding_of_another_length_is_caught() -> None:
    found = spread_rows()
    found[9] *= 1.5
    assert number_after("off by", refused(found, spread_rows())) == pytest.approx(0.5, rel=0.05)


def test_one_wrong_probe_of_many_is_caught_with_its_cosine() -> None:
    found = spread_rows()
    found[11] = found[12]
    expected = float(found[12] @ spread_rows()[11])
    line = refused(found, spread_rows())
    assert number_after("trained encoder", line) == pytest.approx(expected, abs=1e-5)


def test_neighbours_that_changed_are_caught_though_every_cosine_is_high() -> None:
    # All rows lie so close together that noise below the cosine's limit reorders them.
    rng = np.random.default_rng(3)
    reference = unit(10.0 + 0.01 * rng.normal(size=(60, 24)))
    found = unit(reference + 0.0005 * rng.normal(size=(60, 24)))
    line = refused(found, reference)
    assert "keep their nearest neighbour" in line
    assert f"expected >= {MIN_TOP1_AGREEMENT:.0%}" in line
    assert number_after("fp32:", line) < 97


def test_neighbours_that_tie_where_the_trained_encoders_do_not_count_as_changed() -> None:
    # Three of the export's probes fall together: their neighbours are a matter of luck.
    angles = np.linspace(0, 1, 12) ** 2
    reference = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    reference[[0, 1, 2]] = unit(
        np.array([[1, 0, 0], [1, 1e-3, 0], [1, 0, 3e-3]])[:, :2].astype(np.float32)
    )
    found = reference.copy()
    found[[0, 1, 2]] = found[0]
    assert "keep their nearest neighbour" in refused(found, reference)


def test_shapes_that_differ_and_too_few_probes_are_refused() -> None:
    assert "need >= 4 probes" in refused(spread_rows(40, 24), spread_rows(40, 25))
    assert "need >= 4 probes" in refused(spread_rows(39, 24), spread_rows(40, 24))
    assert "need >= 4 probes" in refused(spread_rows(3), spread_rows(3))


# --- planted faults in what the encoder sees ---------------------------------------------------


@torch.inference_mode()
def embedded(encoder: Encoder, images: npt.NDArray[Any]) -> F32:
    return np.asarray(encoder(torch.from_numpy(np.ascontiguousarray(images))).numpy())


@torch.inference_mode()
def with_pixels(encoder: Encoder, images: U8, mean: float, std: float, divide: float) -> F32:
    """What the body makes of pixels that were normalised with other constants."""
    pixels = (images.astype(np.float32) / divide - np.float32(mean)) / np.float32(std)
    body = encoder.body(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))))
    return unit(body.numpy())


FAULTS: dict[str, Callable[[Encoder, U8], F32]] = {
    "channels swapped": lambda e, x: embedded(e, x[..., ::-1]),
    "rows and columns swapped": lambda e, x: embedded(e, x.transpose(0, 2, 1, 3)),
    "upside down": lambda e, x: embedded(e, x[:, ::-1]),
    "mirrored": lambda e, x: embedded(e, x[:, :, ::-1]),
    "red everywhere": lambda e, x: embedded(e, x[..., :1].repeat(3, axis=3)),
    "shifted by a pixel": lambda e, x: embedded(e, np.roll(x, 1, axis=2)),
    "no normalisation": lambda e, x: with_pixels(e, x, 0.0, 1.0, 255.0),
    "mean and deviation of a half": lambda e, x: with_pixels(e, x, 0.5, 0.5, 255.0),
    "not divided by 255": lambda e, x: with_pixels(e, x, 0.45, 0.225, 1.0),
}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_export_that_sees_other_pixels_is_caught_on_the_made_up_probes(
    fault: str, precision: Any, exported: Export
) -> None:
    encoder = exported("test_convnext").encoder
    images = probe_images([], encoder.spec)
    reference = embedded(encoder, images)
    assert run_gates(reference, reference, precision).top1_agreement == 1.0
    line = refused(FAULTS[fault](encoder, images), reference, precision)
    assert number_after("trained encoder", line) < 0.9995


# --- probes ------------------------------------------------------------------------------------

SPEC = EncoderSpec(
    architecture="any",
    height_px=48,
    width_px=64,
    embedding_size=8,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)


def test_made_up_probes_are_the_same_every_time_and_all_different() -> None:
    first, again = probe_images([], SPEC), probe_images([], SPEC)
    assert first.shape == (16, 48, 64, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    flat = first.reshape(16, -1).astype(np.float64)
    apart = np.abs(flat[:, None] - flat).mean(axis=2)[~np.eye(16, dtype=bool)]
    assert apart.min() > 15


def test_photographs_come_first_at_the_encoders_size_in_rgb(tmp_path: Any) -> None:
    import cv2

    path = tmp_path / "red.png"
    cv2.imwrite(str(path), np.full((30, 50, 3), (0, 0, 250), np.uint8))
    found = probe_images([path], SPEC)
    assert found.shape == (17, 48, 64, 3)
    assert np.all(found[0] == (250, 0, 0))


@pytest.mark.parametrize("count", [1, 47, 48, 49, 200])
def test_many_photographs_are_thinned_out_evenly(count: int, tmp_path: Any) -> None:
    import cv2

    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    found = probe_images([path] * count, SPEC)
    assert min(count, 24) + 16 <= len(found) <= MAX_PROBES


def test_a_probe_that_cannot_be_read_is_named(tmp_path: Any) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read"):
        probe_images([tmp_path / "broken.jpg"], SPEC)
