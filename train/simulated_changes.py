"""What changed on the ground since the imagery was taken: cars, roofs, fields."""

import math

import cv2
import numpy as np
import numpy.typing as npt

from train.simulated_config import SimulationConfig

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

_CAR_M = ((3.6, 5.2), (1.6, 2.1))
"""Length and width of a car, least and most."""
_PAINTS = np.array(
    [[0.9, 0.9, 0.9], [0.1, 0.1, 0.12], [0.5, 0.5, 0.52], [0.6, 0.1, 0.1], [0.15, 0.2, 0.5]]
)


def changed(rgb: F32, step_m: float, config: SimulationConfig, rng: np.random.Generator) -> F32:
    """Repaint some surfaces, take some cars away and bring others.

    Args:
        rgb: (S, S, 3) float32, RGB, 0..1.
        step_m: ground metres per pixel.
        config: how many.
        rng: the only source of randomness.

    Returns:
        (S, S, 3) float32: a fresh array.
    """
    rgb = rgb.copy()
    hectares = (rgb.shape[0] * step_m) ** 2 / 1e4
    surfaces = rng.poisson(rng.uniform(0, config.repainted_per_hectare) * hectares)
    cars = rng.poisson(rng.uniform(0, config.cars_per_hectare) * hectares)
    if surfaces:
        _repaint(rgb, step_m, int(surfaces), rng)
    _remove_cars(rgb, step_m, int(cars), rng)
    _add_cars(rgb, step_m, int(cars), rng)
    return rgb


def _repaint(rgb: F32, step_m: float, count: int, rng: np.random.Generator) -> None:
    """Give the surface around a point another colour and keep its detail: a roof, a field."""
    size = rgb.shape[0]
    flat = cv2.medianBlur((rgb * 255).astype(np.uint8), 5)
    reach = max(2, round(25 / step_m))
    for _ in range(count):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        left, top = max(0, x - reach), max(0, y - reach)
        window = np.ascontiguousarray(flat[top : y + reach, left : x + reach])
        mask = np.zeros((window.shape[0] + 2, window.shape[1] + 2), np.uint8)
        tolerance = (float(rng.uniform(6, 18)),) * 3
        cv2.floodFill(
            window, mask, (x - left, y - top), (0, 0, 0), tolerance, tolerance,
            4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE,
        )  # fmt: skip
        surface = mask[1:-1, 1:-1] > 0
        area = rgb[top : y + reach, left : x + reach]
        colour = np.clip(rng.uniform(0.1, 0.95) + rng.uniform(-0.25, 0.25, 3), 0, 1)
        share = rng.uniform(0.3, 1.0)
        old = area[surface]
        area[surface] = np.clip(old + share * (colour - old.mean(axis=0)), 0, 1)


def _remove_cars(rgb: F32, step_m: float, count: int, rng: np.random.Generator) -> None:
    """Cover car-sized spots with the ground beside them."""
    size = rgb.shape[0]
    half = max(1, round(2.6 / step_m))
    for _ in range(count):
        x, y = (int(v) for v in rng.integers(2 * half, max(2 * half + 1, size - 2 * half), 2))
        around = rgb[y - 2 * half : y + 2 * half + 1, x - 2 * half : x + 2 * half + 1]
        rgb[y - half : y + half + 1, x - half : x + half + 1] = np.median(around, axis=(0, 1))


def _add_cars(rgb: F32, step_m: float, count: int, rng: np.random.Generator) -> None:
    """Draw cars, most in one of two directions at right angles, each with its shadow."""
    street = rng.uniform(0, math.pi)
    shadow_m = rng.uniform(-1.2, 1.2, 2)
    for _ in range(count):
        centre_m = rng.uniform(0, rgb.shape[0] * step_m, 2)
        length_m, width_m = (rng.uniform(*span) for span in _CAR_M)
        angle = street + rng.integers(0, 2) * math.pi / 2 + rng.normal(0, 0.1)
        paint = _PAINTS[rng.integers(0, len(_PAINTS))] * rng.uniform(0.7, 1.1)
        across = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        box = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2 * [length_m, width_m] @ across
        for offset_m, colour in ((shadow_m, np.full(3, 0.08)), (np.zeros(2), paint)):
            corners = (centre_m + offset_m + box) / step_m * 16
            cv2.fillConvexPoly(
                rgb, np.round(corners).astype(np.int32), colour.tolist(), cv2.LINE_AA, 4
            )
