import re
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from edge_runtime.backends.protocol import check_resize
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError, GateError
from edge_runtime.gates import gate_encoder, run_gates
from edge_runtime.preprocess import EncoderSpec
from export.probes import probe_images, resize_probes
from train.encoder import Encoder

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Export = Callable[[str], Any]


def unit(rows: npt.NDArray[Any]) -> F32:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


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
    images = probe_images(encoder.spec)
    reference = embedded(encoder, images)
    assert run_gates(reference, reference, precision).top1_agreement == 1.0
    line = refused(FAULTS[fault](encoder, images), reference, precision)
    assert number_after("trained encoder", line) < 0.9995


@pytest.mark.parametrize(
    ("fault", "named"),
    [("channels swapped", "BGR in place of RGB"), ("rows and columns swapped", "rows and columns")],
)
def test_a_fault_that_can_be_undone_is_named(fault: str, named: str, exported: Export) -> None:
    encoder = exported("test_convnext").encoder
    images = probe_images(encoder.spec)
    with pytest.raises(GateError, match=named):
        gate_encoder(lambda x: FAULTS[fault](encoder, x), images, embedded(encoder, images), "fp32")


def test_another_resize_is_caught_by_the_bundles_raw_pictures(
    exported: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(exported("test_resnet").bundle)
    check_resize(bundle)
    for wrong in (cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC):
        with monkeypatch.context() as patch:
            patch.setattr("edge_runtime.preprocess.cv2.INTER_LINEAR", wrong)
            with pytest.raises(BackendError, match=r"pixels up to \d+ of 255 off"):
                check_resize(bundle)


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
    first, again = probe_images(SPEC), probe_images(SPEC)
    assert first.shape == (16, 48, 64, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    flat = first.reshape(16, -1).astype(np.float64)
    apart = np.abs(flat[:, None] - flat).mean(axis=2)[~np.eye(16, dtype=bool)]
    assert apart.min() > 15


def test_fewer_probes_are_the_first_of_more() -> None:
    assert np.array_equal(probe_images(SPEC, count=5), probe_images(SPEC)[:5])


def test_pictures_to_resize_have_another_size_and_aspect() -> None:
    raw, resized = resize_probes(SPEC)
    assert raw.shape == (2, 72, 129, 3)
    assert resized.shape == (2, 48, 64, 3)
    assert np.array_equal(raw, resize_probes(SPEC)[0])
