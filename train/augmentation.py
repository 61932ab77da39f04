"""What training does to a pair before the encoder sees it.

Geometry is drawn once for both views, because a flip or turn of one without the other would show
another place; how a turn of the tile changes the photo depends on the data (`Geometry`). Colours
are drawn apart. (Deuser et al. 2023, section 4.)
"""

import albumentations
import cv2
import numpy as np
import numpy.typing as npt

from train.config import TrainConfig
from train.pair_table import PairTable, View

U8 = npt.NDArray[np.uint8]

_JITTER = (0.85, 1.15)


class PairAugmentation:
    """Cuts, turns and recolours pairs. A pure function of the generator; one per thread."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._compression = albumentations.Compose(
            [albumentations.ImageCompression(quality_range=(90, 100), p=0.5 * config.recolour)]
        )
        self._colours: dict[View, albumentations.Compose] = {
            "photo": _colours(config.recolour, config.photo_grid),
            "tile": _colours(config.recolour, config.tile_grid),
        }

    def pair(self, table: PairTable, row: int, rng: np.random.Generator) -> tuple[U8, U8]:
        """One augmented pair.

        Args:
            table: where it comes from.
            row: which pair.
            rng: the only source of randomness.

        Returns:
            Photo and tile at the encoder's two sizes, (H, W, 3) uint8 RGB.

        Raises:
            UnreadableImageError: one of the two images cannot be read.
        """
        config = self._config
        photo = table.photos.images.read(row, rng)
        tile = table.tiles.images.read(int(table.tile_of_photo[row]), rng)
        flip = rng.random() < config.flip
        turns = int(rng.integers(1, 4)) if rng.random() < config.rotate else 0
        shift = (0, 0)
        if table.geometry == "aligned":
            limit = int(config.largest_shift_m / config.ground_size_m * config.size_px)
            down, right = rng.integers(-limit, limit + 1, 2)
            shift = (int(down), int(right))
        if recoloured := config.recolour > 0:
            photo, tile = (self._apply(self._compression, image, rng) for image in (photo, tile))
        photo = cut(photo, config.photo_size_px, table.margin, exact=True, turn_deg=self._turn(rng))
        tile = cut(tile, config.tile_size_px, table.margin, exact=True, shift_px=shift)
        if flip:
            photo, tile = photo[:, ::-1], tile[:, ::-1]
        if turns:
            tile = np.rot90(tile, turns)
            if table.geometry == "panorama":
                # What was east is up now, so the panorama begins a quarter later.
                photo = np.roll(photo, -(photo.shape[1] // 4) * turns, axis=1)
            elif table.geometry == "aligned":
                photo = np.rot90(photo, turns)
        photo, tile = np.ascontiguousarray(photo), np.ascontiguousarray(tile)
        if recoloured:
            photo = self._apply(self._colours["photo"], photo, rng)
            tile = self._apply(self._colours["tile"], tile, rng)
        return photo, tile

    def _turn(self, rng: np.random.Generator) -> float:
        limit = self._config.heading_error_deg
        return float(rng.uniform(-limit, limit)) if limit else 0.0

    @staticmethod
    def _apply(transform: albumentations.Compose, image: U8, rng: np.random.Generator) -> U8:
        transform.set_random_seed(int(rng.integers(2**31)))
        return np.asarray(transform(image=image)["image"], np.uint8)


def cut(
    image: U8,
    size_px: tuple[int, int],
    margin: float,
    *,
    shift_px: tuple[int, int] = (0, 0),
    turn_deg: float = 0.0,
    exact: bool = False,
) -> U8:
    """Stretch an image to the encoder's size and leave its margin away.

    Args:
        image: (H, W, 3) uint8, `margin` times larger than the view.
        size_px: (height, width) of the view.
        margin: 1 for none.
        shift_px: (down, right) the view is moved inside the margin.
        turn_deg: counter-clockwise turn about the middle; what it uncovers mirrors the border.
        exact: bilinear-exact, the recipe's choice in training; else what evaluation and flight do.

    Returns:
        (height, width, 3) uint8.
    """
    height, width = (round(side * margin) for side in size_px)
    if image.shape[:2] != (height, width):
        how = cv2.INTER_LINEAR_EXACT if exact else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
    if turn_deg:
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn_deg, 1.0)
        turned = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        image = np.asarray(turned, np.uint8)
    top = (height - size_px[0]) // 2 + shift_px[0]
    left = (width - size_px[1]) // 2 + shift_px[1]
    return image[top : top + size_px[0], left : left + size_px[1]]


def _colours(factor: float, grid: float) -> albumentations.Compose:
    """Jitter, blur or sharpen, and dropout, with the recipe's probabilities times a factor."""
    return albumentations.Compose(
        [
            albumentations.ColorJitter(
                brightness=_JITTER,
                contrast=_JITTER,
                saturation=_JITTER,
                hue=(-0.15, 0.15),
                p=0.5 * factor,
            ),
            albumentations.OneOf(
                [albumentations.GaussianBlur(blur_limit=(3, 5), p=1), albumentations.Sharpen(p=1)],
                p=0.3 * factor,
            ),
            albumentations.OneOf(
                [
                    albumentations.GridDropout(ratio=grid, p=1) if grid else albumentations.NoOp(),
                    albumentations.CoarseDropout(
                        num_holes_range=(10, 25),
                        hole_height_range=(0.1, 0.2),
                        hole_width_range=(0.1, 0.2),
                        p=1,
                    ),
                ],
                p=0.3 * factor,
            ),
        ]
    )
