"""Probe images: what a backend must embed correctly before it may fly."""

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.preprocess import EncoderSpec, resize_to_encoder

U8 = npt.NDArray[np.uint8]


def probe_images(spec: EncoderSpec, *, count: int = 16) -> U8:
    """Made-up pictures at the encoder's size, the same ones every time.

    They have structure at several scales, so an encoder that swaps channels, transposes or
    mis-scales its input answers differently on them.

    Args:
        spec: the encoder's contract.
        count: how many; fewer are the first of more.

    Returns:
        (count, H, W, 3) uint8, RGB.
    """
    rng = np.random.default_rng(1652)
    return np.stack([_made_up(rng, spec) for _ in range(count)])


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
