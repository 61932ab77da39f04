"""The encoder's input contract, in one place for training, export and flight.

Encoders take uint8 RGB already at their own size; normalisation lives inside the graph. The only
thing left to do outside is the resize, and this is the only function that does it.
"""

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.artefact import sha256_of_json
from edge_runtime.errors import InputError

U8 = npt.NDArray[np.uint8]

RESIZE_RULE = "stretch, bilinear, no antialias"
"""Sample4Geo's evaluation transform (Deuser et al. 2023): the whole image, whatever its aspect."""


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """What an encoder takes and gives."""

    architecture: str
    """timm name."""
    height_px: int
    """Input height."""
    width_px: int
    """Input width."""
    embedding_size: int
    """Length D of an embedding."""
    mean: tuple[float, float, float]
    """Subtracted from RGB in 0..1, inside the graph."""
    std: tuple[float, float, float]
    """Divided by after that, inside the graph."""
    ground_size_m: float | None = None
    """Side of the ground square the encoder was trained to look at; None when it was not."""
    resize: str = RESIZE_RULE
    """How an image of another size is brought to height x width."""

    def __post_init__(self) -> None:
        """Refuse what no encoder has."""
        if min(self.height_px, self.width_px) < 16 or self.embedding_size < 1:
            msg = (
                f"encoder input {self.height_px}x{self.width_px} px, embedding size "
                f"{self.embedding_size}: expected at least 16x16 px and 1"
            )
            raise InputError(msg)
        if self.resize != RESIZE_RULE:
            msg = f"resize rule {self.resize!r} is not known here; expected {RESIZE_RULE!r}"
            raise InputError(msg)

    def preprocessing_hash(self) -> str:
        """Hex sha256 of everything that changes what the encoder sees."""
        value = asdict(self)
        del value["architecture"], value["embedding_size"]
        # 100 and 100.0 are equal but differ as JSON.
        value["mean"], value["std"] = [[float(v) for v in c] for c in (self.mean, self.std)]
        if self.ground_size_m is not None:
            value["ground_size_m"] = float(self.ground_size_m)
        return sha256_of_json(value)


def spec_from_json(value: dict[str, Any]) -> EncoderSpec:
    """Inverse of `dataclasses.asdict` after a trip through JSON.

    Raises:
        InputError: names are missing or unknown.
    """
    try:
        colours = {name: tuple(value[name]) for name in ("mean", "std")}
        return EncoderSpec(**(value | colours))
    except (KeyError, TypeError) as error:
        msg = f"not an encoder description ({error}); was it written by another version of skyfix?"
        raise InputError(msg) from error


def resize_to_encoder(image: U8, spec: EncoderSpec) -> U8:
    """Stretch an image to the encoder's input size.

    Args:
        image: (H, W, 3) uint8, RGB.
        spec: the encoder's contract.

    Returns:
        (height_px, width_px, 3) uint8, RGB; the same array if the size already fits.

    Raises:
        InputError: not an (H, W, 3) uint8 image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        msg = f"image is {image.dtype} of shape {image.shape}; expected uint8 of (H, W, 3), RGB"
        raise InputError(msg)
    if image.shape[:2] == (spec.height_px, spec.width_px):
        return image
    size = (spec.width_px, spec.height_px)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
