"""Seeded noise: periodic rasters and smooth functions of position."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


def fractal_noise(
    side_px: int,
    rng: np.random.Generator,
    *,
    shortest_px: float,
    longest_px: float,
    slope: float = 1.0,
    stretch: float = 1.0,
) -> F32:
    """Band-limited noise that wraps at its borders.

    Args:
        side_px: height and width.
        rng: the only source of randomness.
        shortest_px: wavelengths below are left out.
        longest_px: wavelengths above are left out.
        slope: amplitude falls as frequency to this power; 0 is white within the band.
        stretch: wavelengths along x are this many times longer.

    Returns:
        (side_px, side_px) float32, mean 0, standard deviation 1.
    """
    white = rng.standard_normal((side_px, side_px), dtype=np.float32)
    fy = fft.fftfreq(side_px).astype(np.float32)[:, None]
    fx = fft.rfftfreq(side_px).astype(np.float32)[None, :] * stretch
    frequency = np.sqrt(fx * fx + fy * fy)
    gain = np.where(
        (frequency >= 1 / longest_px) & (frequency <= 1 / shortest_px),
        np.maximum(frequency, 1e-6) ** -slope,
        0.0,
    ).astype(np.float32)
    noise = fft.irfft2(fft.rfft2(white) * gain, s=(side_px, side_px))
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-9), np.float32)


@dataclass(frozen=True, kw_only=True)
class SmoothField:
    """A sum of plane waves: a smooth function of position with unit standard deviation."""

    waves: F64
    """(K, 3) rows of angular frequency along x and y (rad/m) and phase (rad)."""

    @classmethod
    def random(
        cls, rng: np.random.Generator, *, shortest_m: float, longest_m: float, waves: int = 14
    ) -> "SmoothField":
        """Waves in random directions, wavelengths log-uniform between two lengths."""
        wavelength_m = np.exp(rng.uniform(np.log(shortest_m), np.log(longest_m), waves))
        direction = rng.uniform(0, 2 * np.pi, waves)
        k = 2 * np.pi / wavelength_m
        phase = rng.uniform(0, 2 * np.pi, waves)
        return cls(waves=np.stack([k * np.cos(direction), k * np.sin(direction), phase], axis=1))

    def at(self, points_m: F64) -> F64:
        """Values at (N, 2) positions in metres, (N,)."""
        phase = points_m @ self.waves[:, :2].T + self.waves[:, 2]
        return np.asarray(np.sin(phase).sum(axis=1) * np.sqrt(2 / len(self.waves)))
