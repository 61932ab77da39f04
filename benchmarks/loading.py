"""How fast one core reads and augments training images.

**What is inside the clock**: files on disk (in the page cache) to augmented uint8 arrays at the
encoder's size, by the recipe of the paper, in this process alone: one core.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.rows import Provenance, cpu_name, provenance
from train.loader import training_batches
from train.pair_table import Geometry, ImageFiles, ImageSet, PairTable
from train.presets import CVUSA, UNIVERSITY1652

U8 = npt.NDArray[np.uint8]

RECIPES = ("university1652", "cvusa")
"""The paper's, of which rows are made, in this order."""

_FILES = 24
_JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class LoadingRow(Provenance):
    """Images per second of one kind of data."""

    kind: str = "loading"
    recipe: str
    source_px: str
    """(height x width) of the files."""
    source_kib: float
    """Mean size of a file."""
    encoder_px: str
    """Sizes of photo and tile."""
    cpu: str
    runs: int
    images_per_s: float
    """Median of the runs, one core."""
    images_per_s_low: float
    images_per_s_high: float


def loading_rows(*, runs: int = 5, pairs: int = 96) -> list[LoadingRow]:
    """Measure the paper's two recipes.

    Args:
        runs: repetitions.
        pairs: read in each.
    """
    with tempfile.TemporaryDirectory() as folder:
        return [
            _row("university1652", Path(folder) / "a", (512, 512), "drone", runs, pairs),
            _row("cvusa", Path(folder) / "b", (224, 1232), "panorama", runs, pairs),
        ]


def textured(height: int, width: int, seed: int) -> U8:
    """An image with the spectrum of photographs: amplitude falls as 1 / frequency."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    planes = []
    for _ in range(3):
        phase = rng.uniform(0, 2 * np.pi, amplitude.shape)
        plane = np.fft.irfft2(amplitude * np.exp(1j * phase), s=(height, width))
        planes.append(plane / plane.std())
    # Colours of photographs are mostly alike.
    grey = np.mean(planes, axis=0)
    mixed = np.stack([0.8 * grey + 0.3 * plane for plane in planes], axis=-1)
    return np.asarray(np.clip(128 + 50 * mixed, 0, 255), np.uint8)


def _row(
    recipe: str, folder: Path, size_px: tuple[int, int], geometry: Geometry, runs: int, pairs: int
) -> LoadingRow:
    config = replace(CVUSA if recipe == "cvusa" else UNIVERSITY1652, workers=0)
    folder.mkdir()
    photos = [_write(folder / f"photo_{k}.jpg", textured(*size_px, k)) for k in range(_FILES)]
    tiles = [_write(folder / f"tile_{k}.jpg", textured(512, 512, k + 100)) for k in range(_FILES)]
    table = PairTable(
        name=recipe,
        photos=ImageSet(
            images=ImageFiles([photos[k % _FILES] for k in range(pairs)]), view="photo"
        ),
        tiles=ImageSet(images=ImageFiles([tiles[k % _FILES] for k in range(pairs)]), view="tile"),
        tile_of_photo=np.arange(pairs),
        geometry=geometry,
    )
    batches = [np.arange(start, min(start + 16, pairs)) for start in range(0, pairs, 16)]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    speeds = []
    try:
        for run in range(runs + 1):
            began = time.perf_counter()
            count = sum(
                2 * len(b.rows) for b in training_batches(table, config, batches, epoch=run)
            )
            speeds.append(count / (time.perf_counter() - began))
    finally:
        cv2.setNumThreads(threads)
    measured = speeds[1:]  # The first builds what is built once.
    sizes = [path.stat().st_size for path in (*photos, *tiles)]
    return LoadingRow(
        **provenance(),
        recipe=recipe,
        source_px=f"{size_px[0]}x{size_px[1]} and 512x512",
        source_kib=statistics.mean(sizes) / 1024,
        encoder_px=f"{config.photo_size_px} and {config.tile_size_px}",
        cpu=cpu_name(),
        runs=runs,
        images_per_s=statistics.median(measured),
        images_per_s_low=min(measured),
        images_per_s_high=max(measured),
    )


def _write(path: Path, rgb: U8) -> Path:
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    path.write_bytes(data.tobytes())
    return path
