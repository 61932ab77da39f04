"""The ONNX files that can find corresponding points, and how each is asked and read.

* `pipeline`: what LightGlue-ONNX exports since its version 2.0 (July 2024, read again in its state
  of 2026): SuperPoint, DISK or ALIKED with LightGlue in one file. `images` (2, C, H, W) float in
  0..1, C = 1 (luma) or 3 (RGB) -> `keypoints` (2, N, 2) column and row in pixels of the input,
  `matches` (M, 3) pair of images, row of the first, row of the second, `mscores` (M,) 0..1.
* `end2end`: what its release 1.0.0 (November 2023) called so: `image0`, `image1` (1, C, H, W) ->
  `kpts0` (1, N, 2), `kpts1` (1, K, 2) in pixels, `matches0` (M, 2), `mscores0` (M,).
* `pairs`: our own, for any other matcher: `image0`, `image1` (1, 1 or 3, H, W) float in 0..1 ->
  `points0` (M, 2), `points1` (M, 2) column and row in pixels, `confidence` (M,).

Extractors without a matcher and matchers without an extractor are not taken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import BackendError

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
FormatName = Literal["pipeline", "end2end", "pairs"]

_INPUTS: dict[FormatName, tuple[str, ...]] = {
    "pipeline": ("images",),
    "end2end": ("image0", "image1"),
    "pairs": ("image0", "image1"),
}
_OUTPUTS: dict[FormatName, tuple[str, ...]] = {
    "pipeline": ("keypoints", "matches", "mscores"),
    "end2end": ("kpts0", "kpts1", "matches0", "mscores0"),
    "pairs": ("points0", "points1", "confidence"),
}
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_MULTIPLE_PX = 32
"""Sides that a file leaves open are filled up to this: SuperPoint needs a multiple of 8, DISK of
16, ALIKED of 32."""
_KNOWN = "; ".join(f"{', '.join(_INPUTS[name])} -> {', '.join(_OUTPUTS[name])}" for name in _INPUTS)


class Tensor(Protocol):
    """An input or output as ONNX Runtime describes it."""

    name: str
    shape: Sequence[int | str | None]
    """A word or None where the file leaves the size open."""
    type: str


class PointPairs(NamedTuple):
    """Points of two images that a matcher takes to be the same."""

    first: F64
    """(M, 2) column and row, pixels; the first pixel's centre is 0, 0."""
    second: F64
    """(M, 2), of the other image."""
    confidence: F64
    """(M,), more is better."""


@dataclass(frozen=True, kw_only=True)
class MatcherFormat:
    """How one file is asked and read."""

    name: FormatName
    channels: int
    """1, or 3 times the same grey."""
    fixed_px: tuple[int | None, int | None]
    """Height and width that the file insists on; None where it leaves them open."""
    half: bool
    """Whether it takes float16."""

    @property
    def outputs(self) -> list[str]:
        """What is asked of it."""
        return list(_OUTPUTS[self.name])

    def canvas(self, side_px: int) -> tuple[int, int, int]:
        """Height and width of the input for a square picture, and the side it has in there.

        The picture keeps its shape and lies in the upper left corner. It keeps its size, and so its
        sharpness, where the file leaves the size open.
        """
        height, width = self.fixed_px
        inside = min((side for side in (height, width) if side is not None), default=side_px)
        filled = math.ceil(inside / _MULTIPLE_PX) * _MULTIPLE_PX
        return height or filled, width or filled, inside

    def inputs(self, first: F32, second: F32) -> dict[str, npt.NDArray[np.floating]]:
        """What the session is given.

        Args:
            first: (H, W) float32, 0..1, of the canvas's size.
            second: the same.
        """
        kind = np.float16 if self.half else np.float32
        images = [np.broadcast_to(i, (self.channels, *i.shape)) for i in (first, second)]
        if self.name == "pipeline":
            return {"images": np.stack(images).astype(kind)}
        return {
            name: image[None].astype(kind)
            for name, image in zip(_INPUTS[self.name], images, strict=True)
        }

    def read(self, outputs: Sequence[npt.NDArray[np.generic]]) -> PointPairs:
        """What the session gave, in the order of `outputs`.

        Raises:
            BackendError: it is not what the format promises.
        """
        arrays = [np.asarray(output) for output in outputs]
        if self.name == "pairs":
            first, second, confidence = arrays
        elif self.name == "end2end":
            points0, points1, matches, confidence = arrays
            _require(matches, (None, 2), "matches0")
            first = _rows(points0, matches[:, 0], "kpts0")
            second = _rows(points1, matches[:, 1], "kpts1")
        else:
            points, matches, confidence = arrays
            _require(points, (2, None, 2), "keypoints")
            _require(matches, (None, 3), "matches")
            if np.any(matches[:, 0] != 0):
                msg = "matches name a pair of images other than 0, and one pair was given"
                raise BackendError(msg)
            first = _rows(points[:1], matches[:, 1], "keypoints")
            second = _rows(points[1:], matches[:, 2], "keypoints")
        _require(first, (None, 2), self.outputs[0])
        _require(second, (len(first), 2), self.outputs[1])
        _require(confidence, (len(first),), self.outputs[-1])
        pairs = PointPairs(*(np.asarray(a, np.float64) for a in (first, second, confidence)))
        if not all(np.isfinite(values).all() for values in pairs):
            msg = f"{', '.join(self.outputs)} hold numbers that are not finite"
            raise BackendError(msg)
        return pairs


def format_of(inputs: Sequence[Tensor], outputs: Sequence[Tensor], file: str) -> MatcherFormat:
    """Recognise a file by its inputs and outputs.

    Raises:
        BackendError: it is none of those that are known, or its images are not.
    """
    asked, given = {i.name for i in inputs}, {o.name for o in outputs}
    for name, wanted in _INPUTS.items():
        if asked == set(wanted) and given >= set(_OUTPUTS[name]):
            break
    else:
        msg = (
            f"matcher {file} has {', '.join(i.name for i in inputs)} -> "
            f"{', '.join(o.name for o in outputs)}, expected one of: {_KNOWN}. Export extractor "
            "and matcher as one file; see docs/matcher.md"
        )
        raise BackendError(msg)
    shapes = [_image_shape(image, 2 if name == "pipeline" else 1, file) for image in inputs]
    kinds = {i.type for i in inputs}
    if len(set(shapes)) > 1 or len(kinds) > 1:
        msg = (
            f"matcher {file} wants images of unlike shape or type ({_words(inputs)}), expected two "
            "alike; export it again so"
        )
        raise BackendError(msg)
    return MatcherFormat(
        name=name,
        channels=shapes[0][0],
        fixed_px=shapes[0][1:],
        half=_FLOATS[kinds.pop()] is np.float16,
    )


def _image_shape(image: Tensor, batch: int, file: str) -> tuple[int, int | None, int | None]:
    """Channels, and height and width where they are fixed."""
    shape = [side if isinstance(side, int) else None for side in image.shape]
    if (
        image.type not in _FLOATS
        or len(shape) != 4
        or shape[0] not in (batch, None)
        or shape[1] not in (1, 3)
    ):
        msg = (
            f"matcher {file} takes {_words([image])}, expected float or float16 of ({batch}, 1 or "
            "3, height, width); export it again so"
        )
        raise BackendError(msg)
    return shape[1], shape[2], shape[3]


def _words(tensors: Sequence[Tensor]) -> str:
    return ", ".join(f"{t.name} {t.type} {list(t.shape)}" for t in tensors)


def _require(array: npt.NDArray[np.generic], shape: tuple[int | None, ...], name: str) -> None:
    fits = array.ndim == len(shape) and all(
        wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True)
    )
    if not fits:
        words = " x ".join("any" if side is None else str(side) for side in shape)
        msg = f"{name} is of shape {array.shape}, expected {words}"
        raise BackendError(msg)


def _rows(
    points: npt.NDArray[np.generic], rows: npt.NDArray[np.generic], name: str
) -> npt.NDArray[np.generic]:
    """Points (1, N, 2) that matches name by their rows."""
    _require(points, (1, None, 2), name)
    count = points.shape[1]
    if not np.issubdtype(rows.dtype, np.integer):
        msg = f"the matches are {rows.dtype}, expected whole numbers"
        raise BackendError(msg)
    if len(rows) and not (np.min(rows) >= 0 and np.max(rows) < count):
        msg = f"the matches name rows that {name}, with {count} of them, does not have"
        raise BackendError(msg)
    chosen: npt.NDArray[np.generic] = points[0, rows]
    return chosen
