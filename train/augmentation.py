"""What training does to a pair before the encoder sees it.

Geometry is shared by both views: they are north-up and aligned, so a flip or turn of one without
the other would be another place. Colours are not shared.
"""

import albumentations
import numpy as np
import numpy.typing as npt

from train.config import TrainConfig
from train.pairs import Pairs

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


class PairAugmentation:
    """Cuts, turns and recolours pairs. Deterministic for a seed; not thread-safe."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._size_px = config.size_px
        # The recipe of Deuser et al. 2023, section 4; compression is already in the photographs.
        self._colours = albumentations.Compose(
            [
                albumentations.ColorJitter(
                    brightness=(0.85, 1.15),
                    contrast=(0.85, 1.15),
                    saturation=(0.85, 1.15),
                    hue=(-0.15, 0.15),
                    p=0.5 * config.recolour,
                ),
                albumentations.OneOf(
                    [
                        albumentations.GaussianBlur(blur_limit=(3, 5)),
                        albumentations.Sharpen(),
                    ],
                    p=0.3 * config.recolour,
                ),
                albumentations.CoarseDropout(
                    num_holes_range=(4, 12),
                    hole_height_range=(0.05, 0.12),
                    hole_width_range=(0.05, 0.12),
                    p=0.3 * config.recolour,
                ),
            ],
            seed=config.seed,
        )

    def batch(self, pairs: Pairs, rows: I64, rng: np.random.Generator) -> tuple[U8, U8]:
        """Augment some pairs.

        Args:
            pairs: all pairs, MARGIN times larger than the encoder's view.
            rows: (N,) which.
            rng: source of randomness for the geometry.

        Returns:
            Photos and tiles, each (N, size_px, size_px, 3) uint8.
        """
        drawn = [self._pair(pairs.photos[row], pairs.tiles[row], rng) for row in rows]
        return np.stack([p for p, _ in drawn]), np.stack([t for _, t in drawn])

    def _pair(self, photo: U8, tile: U8, rng: np.random.Generator) -> tuple[U8, U8]:
        config = self._config
        limit = int(config.shift_m / config.ground_size_m * self._size_px)
        dy, dx = (int(v) for v in rng.integers(-limit, limit + 1, 2))
        views = [middle(photo, self._size_px), middle(tile, self._size_px, dy, dx)]
        if rng.random() < config.flip:
            views = [v[:, ::-1] for v in views]
        if rng.random() < config.rotate:
            turns = int(rng.integers(1, 4))
            views = [np.rot90(v, turns) for v in views]
        coloured = [self._colours(image=np.ascontiguousarray(v))["image"] for v in views]
        return coloured[0], coloured[1]


def middle(image: U8, size_px: int, down_px: int = 0, right_px: int = 0) -> U8:
    """Cut the middle of an image, or a place beside it."""
    top = (image.shape[0] - size_px) // 2 + down_px
    left = (image.shape[1] - size_px) // 2 + right_px
    return image[top : top + size_px, left : left + size_px]


def as_evaluated(images: U8, size_px: int) -> U8:
    """(P, S, S, 3) pairs' images to the encoder's view, untouched otherwise."""
    return np.stack([middle(image, size_px) for image in images])
