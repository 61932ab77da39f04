"""Smooth random fields for simulated views. Cheap: one is drawn for every image."""

import math

import cv2
import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


def smooth_field(size_px: int, rng: np.random.Generator, *, wavelength_px: float) -> F32:
    """Noise at random places of a coarse grid, smoothly interpolated.

    Args:
        size_px: height and width.
        rng: the only source of randomness.
        wavelength_px: distance from hill to hill, about; at least 2 pixels.

    Returns:
        (S, S) float32, mean about 0, standard deviation about 1.
    """
    cells = max(2, math.ceil(2 * size_px / max(wavelength_px, 2.0)) + 3)
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    cell_px = max(wavelength_px, 2.0) / 2
    shift = rng.uniform(0, 1, 2)
    grid = np.array([[1 / cell_px, 0, shift[0] + 1], [0, 1 / cell_px, shift[1] + 1]])
    fine = cv2.warpAffine(
        coarse,
        grid,
        (size_px, size_px),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    # Interpolation between independent values takes away about a third of their spread.
    return np.asarray(fine * np.float32(1.4), np.float32)
