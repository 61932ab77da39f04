"""What lens, sensor and compression do to a simulated view."""

import cv2
import numpy as np
import numpy.typing as npt

from train.simulated_config import SimulationConfig
from train.simulated_fields import smooth_field

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]


def resolved(rgb: F32, step_m: float, config: SimulationConfig, rng: np.random.Generator) -> F32:
    """Make the view sharper or softer than the imagery, with detail that the imagery lacks.

    Args:
        rgb: (S, S, 3) float32, RGB, 0..1.
        step_m: ground metres per pixel.
        config: how much.
        rng: the only source of randomness.
    """
    if config.texture:
        # Detail of leaves, tiles and gravel: strong in some places, none in others.
        size = rgb.shape[0]
        grain = smooth_field(size, rng, wavelength_px=rng.uniform(2, 5))
        where = np.clip(smooth_field(size, rng, wavelength_px=rng.uniform(20, 80)) + 0.3, 0, 1.5)
        rgb = rgb + (rng.uniform(0, config.texture) * grain * where)[..., None]
    if rng.random() < 0.5:
        sigma_px = rng.uniform(0.6, 1.8)
        soft = cv2.GaussianBlur(rgb, (0, 0), sigma_px)
        rgb = rgb + rng.uniform(0, config.sharpen) * (rgb - soft)
    else:
        rgb = blurred(rgb, rng.uniform(0, config.blur_m) / step_m)
    return np.asarray(np.clip(rgb, 0, 1), np.float32)


def other_detail(
    rgb: F32, elsewhere: F32, step_m: float, config: SimulationConfig, rng: np.random.Generator
) -> F32:
    """Exchange fine detail: what a photograph shows between the lines of the imagery is its own.

    Leaves, clutter on roofs, shadows and markings of a photograph cannot be made from imagery that
    does not resolve them, but detail of the same kind is elsewhere on it.

    Args:
        rgb: (S, S, 3) float32, RGB, 0..1.
        elsewhere: (S, S, 3) float32, imagery of another place, sharp.
        step_m: ground metres per pixel.
        config: how much, and how coarse.
        rng: the only source of randomness.
    """
    sigma_px = config.detail_m * rng.uniform(0.15, 1.0) / step_m
    kept = 1 - rng.uniform(0, config.lost_detail)
    gain = rng.uniform(0, config.foreign_detail)
    own, foreign = (v - blurred(v, sigma_px) for v in (rgb, elsewhere))
    return np.asarray(np.clip(rgb + (kept - 1) * own + gain * foreign, 0, 1), np.float32)


def blurred(image: F32, sigma_px: float) -> F32:
    """Gaussian blur; none where sigma is too small to matter."""
    if sigma_px < 0.2:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.float32)


def recorded(rgb: F32, config: SimulationConfig, rng: np.random.Generator) -> U8:
    """Sensor noise and JPEG: (S, S, 3) float32 in 0..1 to uint8."""
    sigma = np.float32(rng.uniform(0, config.noise))
    noisy = rgb + sigma * rng.standard_normal(rgb.shape, dtype=np.float32)
    image = np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    quality = int(rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1))
    # JPEG is told that red is blue: both chroma channels are treated alike.
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)
