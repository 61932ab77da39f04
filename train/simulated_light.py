"""Season, sun, air and tone: why a photograph has other colours than the imagery."""

import math

import cv2
import numpy as np
import numpy.typing as npt

from train.simulated_config import SimulationConfig
from train.simulated_fields import smooth_field

F32 = npt.NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def relit(rgb: F32, step_m: float, config: SimulationConfig, rng: np.random.Generator) -> F32:
    """Another season, sun and camera.

    Args:
        rgb: (S, S, 3) float32, RGB, 0..1.
        step_m: ground metres per pixel.
        config: how much.
        rng: the only source of randomness.

    Returns:
        (S, S, 3) float32, 0..1: a fresh array.
    """
    if rng.random() < config.season:
        rgb = another_season(rgb, rng)
    if config.materials:
        rgb = other_materials(rgb, rng.uniform(0, config.materials), rng)
    if rng.random() < config.cast_shadows:
        rgb = rgb * cast_shadows(rgb, step_m, rng)
    if rng.random() < config.cloud_shadows:
        rgb = rgb * _cloud_shadow(rgb.shape[0], step_m, rng)
    rgb = another_tone(rgb, config, rng)
    share = rng.uniform(0, config.haze) * rng.random()
    air = rng.uniform(0.55, 0.95) + rng.uniform(-0.05, 0.1, 3) * np.array([-1, 0, 1])
    return np.asarray(np.clip(rgb * (1 - share) + share * air, 0, 1), np.float32)


def another_season(rgb: F32, rng: np.random.Generator) -> F32:
    """Plants of another colour and brightness; all else stays."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    # Maps often show plants teal, so nearly as much blue as green passes, as blue roofs do not.
    plants = np.clip(8 * np.minimum(green - red, green - blue + 0.05), 0, 1)[..., None]
    luma = (rgb @ _LUMA)[..., None]
    leaf = rng.uniform([0.5, 0.7, 0.3], [1.4, 1.2, 0.9]).astype(np.float32)
    share = np.float32(rng.uniform(0.2, 1.0))
    brightness = np.float32(2 ** rng.uniform(-0.7, 0.9))
    turned = (rgb * (1 - share) + share * luma * leaf) * brightness
    return np.asarray(np.clip(rgb + plants * (turned - rgb), 0, 1), np.float32)


def other_materials(rgb: F32, amount: float, rng: np.random.Generator) -> F32:
    """Colours moved by a random smooth function of colour: what looks alike still does.

    Two sensors, sun angles and map makers order surfaces differently by brightness; no tone curve
    does that, this does.

    Args:
        rgb: (S, S, 3) float32, 0..1.
        amount: largest change per wave; three waves are added.
        rng: the only source of randomness.
    """
    waves = rng.standard_normal((3, 3)) * 3.0
    phases = rng.uniform(0, 2 * math.pi, 3)
    strengths = rng.uniform(-amount, amount, (3, 1)) + rng.uniform(-amount, amount, (3, 3)) / 3
    moved = np.sin(rgb @ waves.astype(np.float32) + phases.astype(np.float32))
    return np.asarray(np.clip(rgb + moved @ strengths.astype(np.float32), 0, 1), np.float32)


def cast_shadows(rgb: F32, step_m: float, rng: np.random.Generator) -> F32:
    """(S, S, 3) factors: shadows of what is brighter than its surroundings, along one direction.

    Bright patches stand in for roofs: which of them are high is not known from above, so a random
    half of the ground casts.
    """
    size = rgb.shape[0]
    luma = np.asarray(rgb @ _LUMA, np.float32)
    around = cv2.GaussianBlur(luma, (0, 0), 8.0 / step_m)
    high = (luma > around) & (smooth_field(size, rng, wavelength_px=30 / step_m) > 0)
    high_u8 = cv2.morphologyEx(high.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    length_px, direction = rng.uniform(2, 12) / step_m, rng.uniform(0, 2 * math.pi)
    dark = np.zeros_like(high_u8)
    for part in np.arange(1.0, length_px + 1.0, 2.0):
        move = np.array([[1, 0, part * math.cos(direction)], [0, 1, part * math.sin(direction)]])
        moved = cv2.warpAffine(high_u8, move, (size, size), flags=cv2.INTER_NEAREST)
        dark = cv2.max(dark, moved)
    dark[high_u8 > 0] = 0
    soft = cv2.GaussianBlur(dark.astype(np.float32), (0, 0), 0.7)[..., None]
    depth = rng.uniform(0.3, 0.75) * np.array([1.0, 0.97, 0.9])
    return np.asarray(1 - soft * depth, np.float32)


def _cloud_shadow(size_px: int, step_m: float, rng: np.random.Generator) -> F32:
    field = smooth_field(size_px, rng, wavelength_px=rng.uniform(60, 200) / step_m)
    edge = rng.uniform(1, 6)
    return np.asarray(
        1 - rng.uniform(0.2, 0.6) * np.clip(0.5 + edge * field, 0, 1)[..., None], np.float32
    )


def another_tone(rgb: F32, config: SimulationConfig, rng: np.random.Generator) -> F32:
    """Exposure, contrast, gamma, white balance, channel mixing and saturation."""
    if rng.random() < config.equalised:
        rgb = _partly_equalised(rgb, rng.random())
    mix = rng.uniform(-1, 1, (3, 3)) * config.channel_mix
    np.fill_diagonal(mix, 0)
    mix += np.diag(1 - mix.sum(axis=1))
    mix *= 1 + rng.uniform(-1, 1, (3, 1)) * config.white_balance
    saturation = 1 + rng.uniform(-1, 1) * config.saturation
    grey = np.ones((3, 1)) @ _LUMA[None].astype(np.float64)
    mix = mix @ (saturation * np.eye(3) + (1 - saturation) * grey)
    rgb = np.clip(rgb @ mix.T.astype(np.float32), 0, 1)
    rgb = rgb ** np.float32(2 ** rng.uniform(-config.gamma, config.gamma))
    middle = np.float32(rgb.mean())
    contrast = np.float32(2 ** rng.uniform(-config.contrast, config.contrast))
    gain = np.float32(2 ** rng.uniform(-config.exposure_stops, config.exposure_stops))
    return np.asarray(np.clip(((rgb - middle) * contrast + middle) * gain, 0, 1), np.float32)


def _partly_equalised(rgb: F32, share: float) -> F32:
    """The brightness curve of a map maker: towards a flat histogram."""
    luma = np.clip(rgb @ _LUMA, 0, 1)
    histogram = np.bincount((luma * 255).astype(np.uint8).ravel(), minlength=256)
    flat = (np.cumsum(histogram) / luma.size).astype(np.float32)
    level = np.linspace(0, 1, 256, dtype=np.float32)
    curve = (1 - share) * level + share * flat
    wanted = np.interp(luma, level, curve).astype(np.float32)
    gain = (wanted / np.maximum(luma, 0.02))[..., None]
    return np.asarray(np.clip(rgb * gain, 0, 1), np.float32)
