"""Probe images: what a backend must embed correctly before it may fly."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.preprocess import EncoderSpec, resize_to_encoder

U8 = npt.NDArray[np.uint8]

MAX_PROBES = 64


def probe_images(paths: Sequence[Path], spec: EncoderSpec, *, made_up: int = 16) -> U8:
    """Probe images at the encoder's size: crops of the given photographs, then made-up ones.

    Made-up probes have structure at several scales, so an encoder that swaps channels, transposes
    or mis-scales its input answers differently on them too.

    Args:
        paths: photographs or tiles; may be empty.
        spec: the encoder's contract.
        made_up: how many made-up probes to add.

    Returns:
        (P, H, W, 3) uint8, RGB.

    Raises:
        InputError: a photograph cannot be read.
    """
    chosen = paths[:: max(1, -(-len(paths) // (MAX_PROBES - made_up)))] if paths else []
    images = []
    for path in chosen:
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is None:
            msg = f"probe image {path} cannot be read; expected a JPEG, PNG or TIFF file"
            raise InputError(msg)
        images.append(resize_to_encoder(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), spec))
    rng = np.random.default_rng(1652)
    images += [_made_up(rng, spec) for _ in range(made_up)]
    return np.stack(images)


def resize_probes(spec: EncoderSpec) -> tuple[U8, U8]:
    """Made-up pictures of another size and aspect, and what resizing makes of them here.

    Returns:
        (2, h, w, 3) and (2, H, W, 3) uint8, RGB.
    """
    larger = replace(spec, height_px=spec.height_px * 3 // 2, width_px=spec.width_px * 2 + 1)
    rng = np.random.default_rng(384)
    raw = np.stack([_made_up(rng, larger) for _ in range(2)])
    return raw, np.stack([resize_to_encoder(image, spec) for image in raw])


def _made_up(rng: np.random.Generator, spec: EncoderSpec) -> U8:
    """Smooth colour noise at three scales with a few hard-edged shapes."""
    size = (spec.width_px, spec.height_px)
    image = np.zeros((spec.height_px, spec.width_px, 3), np.float32)
    for cells, weight in ((3, 60.0), (9, 40.0), (40, 25.0)):
        noise = rng.normal(size=(cells, cells, 3)).astype(np.float32) * weight
        image += cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    image += rng.uniform(60, 190, 3)
    for _ in range(6):
        centre = rng.uniform(0, [spec.width_px, spec.height_px])
        extent = rng.uniform(0.05, 0.5, 2) * size
        corners = cv2.boxPoints((tuple(centre), tuple(extent), float(rng.uniform(0, 180))))
        colour = tuple(float(c) for c in rng.uniform(0, 255, 3))
        cv2.fillConvexPoly(image, corners.astype(np.int32), colour, cv2.LINE_8)
    return np.clip(image, 0, 255).astype(np.uint8)
