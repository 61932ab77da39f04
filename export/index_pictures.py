"""The pictures of a tile that are embedded: cut, turned, marked, and told apart by a digest."""

import hashlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.imagery import ImageryStore
from edge_runtime.index_format import MARK_FEATURELESS, MARK_PARTIAL
from export.index_plan import MIN_TILE_COVERAGE, LeaveOut

U8 = npt.NDArray[np.uint8]

DETAIL_STEP = 4.0
"""Grey levels per pixel, after smoothing, that count as detail: JPEG of quality 75 makes hardly
any pixel of flat ground reach it."""
FEATURELESS_BELOW = 0.02
"""Share of pixels with detail below which a tile is called featureless."""

MARK_OF: dict[LeaveOut, int] = {"featureless": MARK_FEATURELESS, "partial": MARK_PARTIAL}


class Picture(NamedTuple):
    """One tile in one direction, ready to be embedded."""

    image: U8
    """(S, S, 3) uint8, RGB."""
    heading_deg: float
    marks: int
    digest: int
    """Of the pixels, 64 bits: equal pictures have equal embeddings."""


def pictures_of_tile(
    store: ImageryStore,
    lat_deg: float,
    lon_deg: float,
    *,
    size_m: float,
    size_px: int,
    headings_deg: tuple[float, ...],
    leave_out: tuple[LeaveOut, ...] = (),
) -> Iterator[Picture]:
    """Cut one tile in every direction; yields nothing where it is left out.

    Args:
        store: the imagery.
        lat_deg: latitude of the tile's centre.
        lon_deg: longitude of the tile's centre.
        size_m: its side on the ground.
        size_px: side of a picture.
        headings_deg: directions that are up, beginning with 0.
        leave_out: marks with which a tile is left out.
    """
    north_up = store.patch(lat_deg, lon_deg, size_m=size_m, size_px=size_px)
    if np.count_nonzero(north_up.mask) < MIN_TILE_COVERAGE * north_up.mask.size:
        return
    marks = MARK_FEATURELESS if detail_share(north_up.image) < FEATURELESS_BELOW else 0
    unwanted = sum(MARK_OF[name] for name in leave_out)
    # The tile decides for all its directions: a place is in the index or it is not.
    if (marks | _partial(north_up.mask)) & unwanted:
        return
    wide = None
    for heading_deg in headings_deg:
        image, mask = north_up.image, north_up.mask
        if heading_deg:
            if wide is None:
                wide_px = 2 * math.ceil(size_px * math.sqrt(0.5)) + 2 + size_px % 2
                wide = store.patch(
                    lat_deg, lon_deg, size_m=size_m * wide_px / size_px, size_px=wide_px
                )
            image = turned(wide.image, heading_deg, size_px)
            mask = turned(wide.mask, heading_deg, size_px)
        digest = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
        yield Picture(image, heading_deg, marks | _partial(mask), int.from_bytes(digest, "little"))


def turned(north_up: U8, heading_deg: float, size_px: int) -> U8:
    """Turn a north-up picture about its middle so that a direction is up, and cut it.

    Args:
        north_up: (W, W) or (W, W, 3) uint8; W - size_px even, W at least the diagonal.
        heading_deg: what is up afterwards, clockwise from north.
        size_px: side of the result.

    Returns:
        (S, S) or (S, S, 3), a fresh array.
    """
    cos, sin = math.cos(math.radians(heading_deg)), math.sin(math.radians(heading_deg))
    there, here = (north_up.shape[0] - 1) / 2, (size_px - 1) / 2
    # From a pixel of the result, right and down of its middle, to one of the picture.
    turn = np.array([[cos, -sin], [sin, cos]])
    shift = there - turn @ np.array([here, here])
    return np.asarray(
        cv2.warpAffine(
            north_up,
            np.column_stack([turn, shift]),
            (size_px, size_px),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        ),
        np.uint8,
    )


def detail_share(image: U8) -> float:
    """Share of a picture's pixels, 0..1, where brightness changes by DETAIL_STEP or more a pixel.

    Args:
        image: (H, W, 3) uint8, RGB.
    """
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
    # Scharr's kernel sums 3 + 10 + 3 differences over two pixels: 32 times the change per pixel.
    east = cv2.Scharr(grey, cv2.CV_32F, 1, 0, scale=1 / 32)
    south = cv2.Scharr(grey, cv2.CV_32F, 0, 1, scale=1 / 32)
    return float(np.mean(np.hypot(east, south) >= DETAIL_STEP))


def _partial(mask: U8) -> int:
    return 0 if mask.all() else MARK_PARTIAL
