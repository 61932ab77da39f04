"""The one form every data set takes: images by row, and which photo shows which tile.

A reader of `train.datasets` turns files into a `PairTable` to learn from and into `RetrievalTask`s
to be measured on. Nothing after it knows where the images came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

View = Literal["photo", "tile"]
"""Which of the encoder's two input sizes an image is resized to."""

Geometry = Literal["panorama", "drone", "aligned"]
"""How photo and tile hang together, and so how they may be turned.

panorama: a north-up tile and a panorama whose columns are headings; turning the tile rolls the
panorama. drone: the photo's heading is unknown; the tile alone is turned. aligned: both are
north-up views of the same ground at the same scale; both turn together.
"""


class UnreadableImageError(InputError):
    """One image cannot be read. Training counts and skips it; anything else stops."""


class ImageSource(Protocol):
    """Images by row: files, arrays, or views made when asked for."""

    def __len__(self) -> int:
        """Number of images N."""
        ...

    def read(self, row: int, rng: np.random.Generator) -> U8:
        """One image.

        Args:
            row: 0 to N - 1.
            rng: for sources that make their images; the same state gives the same image.

        Returns:
            (H, W, 3) uint8 RGB, any size. Not to be written to.

        Raises:
            UnreadableImageError: the image is missing or broken; it is named.
        """
        ...

    def name(self, row: int) -> str:
        """What people call the image: a path, or a place."""
        ...


@dataclass(frozen=True)
class ImageFiles:
    """Images in files, decoded when asked for."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def read(self, row: int, rng: np.random.Generator) -> U8:
        """Decode a file; see `ImageSource`."""
        path = self.paths[row]
        try:
            data = np.fromfile(path, np.uint8)
        except OSError as error:
            msg = f"image {path} cannot be read ({error.strerror}); expected a JPEG or PNG file"
            raise UnreadableImageError(msg) from error
        # Colours are asked for as RGB here, so that no later step has to know OpenCV's order.
        whole = len(data) and not _is_cut_jpeg(data.tobytes())
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if whole else None
        if image is None:
            msg = f"image {path} cannot be decoded; expected a whole JPEG or PNG file"
            raise UnreadableImageError(msg)
        return np.asarray(image, np.uint8)

    def name(self, row: int) -> str:
        """The path."""
        return str(self.paths[row])


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG file ends before its image does, which OpenCV would fill with grey.

    The end marker must come after the last start of a scan; an embedded thumbnail has both of its
    own, before the image's. Inside of a scan neither can occur.
    """
    return data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")


@dataclass(frozen=True)
class ImageArray:
    """Images in memory."""

    images: U8
    """(N, H, W, 3) uint8 RGB."""
    names: Sequence[str] = ()
    """(N,) or none."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def read(self, row: int, rng: np.random.Generator) -> U8:
        """A view of the array."""
        image: U8 = self.images[row]
        return image

    def name(self, row: int) -> str:
        """Its name, or its number."""
        return self.names[row] if self.names else f"image {row}"


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """N images of one view and, where known, the ground they show."""

    images: ImageSource
    view: View
    lat_deg: F64 | None = None
    """(N,) latitude of the ground's centre."""
    lon_deg: F64 | None = None
    """(N,) its longitude."""
    size_m: F64 | None = None
    """(N,) side of the square of ground; of north-up tiles."""

    def __post_init__(self) -> None:
        """Refuse columns of another length.

        Raises:
            InputError: a column does not have N rows.
        """
        for name in ("lat_deg", "lon_deg", "size_m"):
            column = getattr(self, name)
            if column is not None and column.shape != (len(self.images),):
                msg = f"{name} has shape {column.shape}; expected ({len(self.images)},)"
                raise InputError(msg)

    def __len__(self) -> int:
        """Number of images N."""
        return len(self.images)


@dataclass(frozen=True, kw_only=True)
class PairTable:
    """P photos, each with the tile that shows the same ground: what training draws from."""

    name: str
    """As `vigor-same/train`."""
    photos: ImageSet
    tiles: ImageSet
    tile_of_photo: I64
    """(P,) row of each photo's tile. Several photos may share one; a tile may have none."""
    geometry: Geometry
    margin: float = 1.0
    """Images are this much larger than the encoder's view, so it can be shifted inside them."""
    semi_positives: I64 = field(default_factory=lambda: np.empty((0, 0), np.int64))
    """(P, S) further tiles that overlap each photo's own, or empty: VIGOR's have S = 3."""

    def __post_init__(self) -> None:
        """Refuse rows that point nowhere.

        Raises:
            InputError: a row is out of range or a column has another length.
        """
        if self.tile_of_photo.shape != (len(self.photos),):
            msg = f"{len(self.photos)} photos but tile_of_photo has {self.tile_of_photo.shape}"
            raise InputError(msg)
        if not len(self.photos):
            msg = f"{self.name} holds no pair"
            raise InputError(msg)
        rows = np.concatenate([self.tile_of_photo, self.semi_positives.ravel()])
        if rows.min() < 0 or rows.max() >= len(self.tiles):
            msg = f"{self.name} names tile {rows.max()}; expected 0 to {len(self.tiles) - 1}"
            raise InputError(msg)
        if self.semi_positives.size and len(self.semi_positives) != len(self.photos):
            msg = f"{len(self.photos)} photos, semi-positives of {len(self.semi_positives)}"
            raise InputError(msg)

    def __len__(self) -> int:
        """Number of pairs P."""
        return len(self.photos)


@dataclass(frozen=True, kw_only=True)
class RetrievalTask:
    """Q queries to be found in a gallery of R references."""

    name: str
    """As `university1652/drone-to-satellite`."""
    queries: ImageSet
    gallery: ImageSet
    query_labels: I64
    """(Q,) place shown."""
    gallery_labels: I64
    """(R,) place shown; a label no query has is a distractor."""
    semi_positives: I64 = field(default_factory=lambda: np.empty((0, 0), np.int64))
    """(Q, S) gallery rows that overlap each query's true one, or empty."""

    def __post_init__(self) -> None:
        """Refuse labels of another length.

        Raises:
            InputError: a column has another length, or there are no queries or references.
        """
        sizes = (len(self.queries), len(self.gallery))
        if (len(self.query_labels), len(self.gallery_labels)) != sizes or 0 in sizes:
            msg = (
                f"{self.name}: {sizes} queries and references, but "
                f"{len(self.query_labels)} and {len(self.gallery_labels)} labels"
            )
            raise InputError(msg)
