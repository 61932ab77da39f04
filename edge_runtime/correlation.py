"""Dense matching of a ground view against imagery by the directions of their gradients.

Seasons, sensors and light change colours and even invert contrasts, but the borders of roads, roofs
and fields keep their direction. Each pixel becomes a complex number whose angle is twice its
gradient direction (so that light-to-dark and dark-to-light agree) and whose length is its
gradient relative to its surroundings; views are compared by complex cross-correlation in the
Fourier domain, for a few headings and scales around what the state says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
C64 = npt.NDArray[np.complex64]

_BLUR_PX = 0.7
"""Gaussian sigma before differentiating: suppresses sensor noise, keeps kerbs."""
_SURROUNDINGS_M = 25.0
"""Gradients are judged against the mean of a square of this side."""
_NOISE_FLOOR = 20.0
"""Scharr magnitude (8-bit grey levels x 32) added to the mean, so flat ground stays silent."""
_MAX_WEIGHT = 2.0
"""A single strong edge counts at most this many times its surroundings."""
_NOISE_SAMPLES = 20_000
"""About how many samples of the surfaces tell their noise: its error is then below 1 %."""
_NEIGHBOURS = np.ones((5, 5), np.uint8)
"""What blur and gradient of a pixel look at."""
_INVERSE = cv2.DFT_INVERSE | cv2.DFT_SCALE
_MIN_RELATIVE_ENERGY = 0.3
"""Windows with less texture than this part of the richest one are not scaled up any further."""


class GreyPatch(NamedTuple):
    """A north-up grey image and where it is valid."""

    image: U8
    """(S, S) uint8."""
    mask: U8
    """(S, S) uint8, 255 where valid."""


@dataclass(frozen=True, kw_only=True)
class Warp:
    """How a view is turned and scaled before it is compared."""

    yaw_deg: float
    """Added to the heading the view was made with, clockwise."""
    scale: float
    """Factor on the height the view was made with."""


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The best agreement of one window with the view."""

    window: int
    """Which window."""
    warp: Warp
    """Which turn and scale of the view."""
    row: float
    """Where the view's centre lies, pixels below the window's centre."""
    column: float
    """The same, pixels right of the window's centre."""
    ncc: float
    """Normalised correlation, -1..1."""
    z: float
    """The correlation in standard deviations of the surfaces where there is texture."""


def gradient_field(patch: GreyPatch, gsd_m: float) -> F32:
    """Doubled-angle gradient directions.

    Args:
        patch: grey image and mask.
        gsd_m: ground metres per pixel.

    Returns:
        (S, S, 2) float32: real and imaginary part; zero where the mask is.
    """
    grey = cv2.GaussianBlur(patch.image.astype(np.float32), (0, 0), _BLUR_PX)
    gx = cv2.Scharr(grey, cv2.CV_32F, 1, 0)
    gy = cv2.Scharr(grey, cv2.CV_32F, 0, 1)
    xx, yy = gx * gx, gy * gy
    square = xx + yy
    magnitude = np.sqrt(square)
    side = max(3, int(_SURROUNDINGS_M / gsd_m)) | 1
    weight = np.asarray(cv2.blur(magnitude, (side, side)), np.float32)
    weight += _NOISE_FLOOR
    np.divide(magnitude, weight, out=weight)
    np.minimum(weight, _MAX_WEIGHT, out=weight)
    weight /= np.maximum(square, 1e-6, out=square)
    weight *= cv2.erode(patch.mask, _NEIGHBOURS) > 0
    field = np.empty((*grey.shape, 2), np.float32)
    np.multiply(np.subtract(xx, yy, out=xx), weight, out=field[..., 0])
    gx *= 2
    np.multiply(np.multiply(gx, gy, out=gx), weight, out=field[..., 1])
    return field


def warped(patch: GreyPatch, warp: Warp, size_px: int) -> GreyPatch:
    """Turn and scale a patch about its centre and cut its middle.

    Args:
        patch: a larger patch, so that turning does not run out of pixels.
        warp: the correction to apply; a heading that grows turns the ground view clockwise.
        size_px: side of the result, at the same ground resolution.
    """
    middle = (patch.image.shape[0] - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), -warp.yaw_deg, warp.scale)
    matrix[:, 2] += (size_px - 1) / 2 - middle
    size = (size_px, size_px)
    image = cv2.warpAffine(patch.image, matrix, size, flags=cv2.INTER_LINEAR)
    mask = cv2.warpAffine(patch.mask, matrix, size, flags=cv2.INTER_NEAREST)
    return GreyPatch(np.asarray(image, np.uint8), np.asarray(mask, np.uint8))


def correlate(
    view: GreyPatch,
    windows: Sequence[GreyPatch],
    warps: Sequence[Warp],
    *,
    size_px: int,
    gsd_m: float,
) -> list[Peak]:
    """Slide a view over windows of imagery, for every warp.

    Args:
        view: the ground view, larger than `size_px` so that it can be turned.
        windows: same-sized patches of imagery, larger than `size_px`.
        warps: turns and scales to try; the first is the nominal one.
        size_px: side of the template cut from the middle of the view.
        gsd_m: ground metres per pixel of view and windows.

    Returns:
        The best peak of each window, in the order of the windows; none where the view is
        featureless.
    """
    if not windows:
        return []
    window_px = windows[0].image.shape[0]
    reach = window_px - size_px
    n = int(cv2.getOptimalDFTSize(window_px))
    fields = [gradient_field(window, gsd_m) for window in windows]
    spectra = [_spectrum(field, n) for field in fields]
    templates, norms, nominal = [], [], None
    for warp in warps:
        cut = warped(view, warp, size_px)
        field = gradient_field(cut, gsd_m)
        templates.append(np.conj(_spectrum(field, n)))
        norms.append(cv2.norm(field))
        nominal = cut if nominal is None else nominal
    if nominal is None or min(norms) < 1e-3:
        return []
    seen = np.conj(_spectrum(_real(nominal.mask > 0), n))
    energies = np.stack([_energy(field, seen, n, reach) for field in fields])
    floor = _MIN_RELATIVE_ENERGY * float(energies.max())
    surfaces = np.empty((len(windows), len(warps), reach + 1, reach + 1), np.float32)
    product = np.empty((n, n), np.complex64)
    plane = np.empty((n, n, 2), np.float32)
    for w, spectrum in enumerate(spectra):
        scale = 1.0 / np.sqrt(np.maximum(energies[w], max(floor, 1e-6)))
        for t, template in enumerate(templates):
            np.multiply(spectrum, template, out=product)
            cv2.dft(_parts(product), plane, _INVERSE)
            np.multiply(plane[: reach + 1, : reach + 1, 0], scale / norms[t], out=surfaces[w, t])
    noise = _noise(surfaces, energies >= floor)
    return [_best_peak(w, surfaces[w], warps, noise) for w in range(len(windows))]


def _noise(surfaces: F32, textured: npt.NDArray[np.bool_]) -> float:
    """Standard deviation of what chance gives, by the median: peaks do not move it.

    Args:
        surfaces: (windows, warps, R, R) float32.
        textured: (windows, R, R) bool. Silent ground correlates with nothing: counted as noise, it
            would make any chance certain.
    """
    # Neighbours say much the same, so some of them say it as well.
    windows, warps, reach, _ = surfaces.shape
    step = max(1, math.isqrt(windows * warps * reach * reach // _NOISE_SAMPLES))
    some = np.moveaxis(surfaces[..., ::step, ::step], 1, -1)[textured[:, ::step, ::step]]
    return 1.4826 * float(np.median(np.abs(some))) if some.size else 0.0


def _spectrum(field: F32, n: int) -> C64:
    """(n, n) complex64: the transform of a field of (S, S, 2), real and imaginary part."""
    padded = np.zeros((n, n, 2), np.float32)
    padded[: field.shape[0], : field.shape[1]] = field
    return np.asarray(cv2.dft(padded), np.float32).view(np.complex64)[..., 0]


def _parts(plane: C64) -> F32:
    """The same memory as OpenCV takes complex numbers: (n, n, 2)."""
    return plane.view(np.float32).reshape(*plane.shape, 2)


def _real(values: npt.NDArray[np.generic]) -> F32:
    """(S, S, 2) float32 with no imaginary part."""
    field = np.zeros((*values.shape, 2), np.float32)
    field[..., 0] = values
    return field


def _energy(field: F32, seen: C64, n: int, reach: int) -> F32:
    """Sum of squared gradients of the window under the mask, for every shift.

    Args:
        field: of the window.
        seen: (n, n) conjugate spectrum of the mask.
        n: side of the transforms.
        reach: largest shift.
    """
    real, imaginary = field[..., 0], field[..., 1]
    square = _spectrum(_real(real * real + imaginary * imaginary), n)
    plane = cv2.dft(_parts(square * seen), flags=_INVERSE)
    return np.asarray(plane[: reach + 1, : reach + 1, 0], np.float32)


def _best_peak(window: int, surface: F32, warps: Sequence[Warp], noise: float) -> Peak:
    """Highest point over all warps, to a fraction of a pixel."""
    t, row, column = (int(v) for v in np.unravel_index(int(surface.argmax()), surface.shape))
    plane = surface[t]
    middle = (plane.shape[0] - 1) / 2
    ncc = float(plane[row, column])
    return Peak(
        window=window,
        warp=warps[t],
        row=row + _vertex(plane[:, column], row) - middle,
        column=column + _vertex(plane[row], column) - middle,
        ncc=ncc,
        z=ncc / max(noise, 1e-6),
    )


def _vertex(line: F32, k: int) -> float:
    """Offset of a parabola's vertex through three samples around the maximum, -0.5..0.5."""
    if not 0 < k < len(line) - 1:
        return 0.0
    left, middle, right = (float(line[k + d]) for d in (-1, 0, 1))
    curvature = left - 2 * middle + right
    return 0.0 if curvature >= 0 else 0.5 * (left - right) / curvature
