"""Sparse matching of a ground view against imagery by OpenCV's SIFT, all features upright.

Gives metres where the imagery is sharp, and a second opinion on the dense match.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.correlation import GreyPatch
from edge_runtime.feature_agreement import MIN_INLIERS, FeatureMatch, agreement

__all__ = ["MIN_INLIERS", "FeatureMatcher", "near_cosines", "upright"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_MAX_FEATURES = 600
_RATIO = 0.85
"""Lowe's ratio test; loose, because matches are also limited in place."""
_BLOCK = 16
"""Features whose neighbours are looked up together."""
_UNTHREADED = 1 << 18
"""Multiplications up to which OpenBLAS, NumPy's library, stays on the calling thread. Its threads
spin while they wait and take the cores from OpenCV, the encoder and the camera (measured on two
cores that others used too: 160 ms for a whole-map frame with them, 85 without)."""


class FeatureMatcher:
    """Keeps one SIFT detector. Not thread-safe; one per thread."""

    def __init__(self) -> None:
        self._sift = cv2.SIFT.create(nfeatures=_MAX_FEATURES, contrastThreshold=0.02)

    def match(self, view: GreyPatch, imagery: GreyPatch, *, reach_px: float) -> FeatureMatch | None:
        """As `PairMatcher.match`."""
        points_v, descriptors_v = self._describe(view)
        points_i, descriptors_i = self._describe(imagery)
        if len(points_v) < MIN_INLIERS or len(points_i) < MIN_INLIERS:
            return None
        # From north to south, so that what is near enough lies in a band.
        rows_v, rows_i = (np.argsort(p[:, 1], kind="stable") for p in (points_v, points_i))
        similarity = near_cosines(
            points_v[rows_v],
            descriptors_v[rows_v],
            points_i[rows_i],
            descriptors_i[rows_i],
            reach_px=reach_px,
        )
        every = np.arange(len(points_v))
        best = similarity.argmax(axis=1)
        first = similarity[every, best]
        similarity[every, best] = -np.inf
        second = similarity.max(axis=1)
        similarity[every, best] = first
        # Unit descriptors: distance squared is 2 - 2 cosine.
        distance, other = (np.sqrt(np.maximum(2 - 2 * top, 0)) for top in (first, second))
        good = np.flatnonzero((first > 0) & (distance < _RATIO * other))
        good = good[similarity[:, best[good]].argmax(axis=0) == good]
        # In the order of the detector, which decides what RANSAC draws.
        good = good[np.argsort(rows_v[good])]
        return agreement(
            points_v[rows_v[good]],
            points_i[rows_i[best[good]]],
            size_px=view.image.shape[0],
            reach_px=reach_px,
        )

    def _describe(self, patch: GreyPatch) -> tuple[F64, F32]:
        """Feature positions (F, 2) and unit RootSIFT descriptors (F, 128)."""
        mask = cv2.erode(patch.mask, np.ones((9, 9), np.uint8))
        detected = upright(self._sift.detect(patch.image, mask))
        keypoints, descriptors = self._sift.compute(patch.image, detected)
        if descriptors is None or not keypoints:
            return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
        points = np.array([k.pt for k in keypoints], np.float64)
        # RootSIFT (Arandjelovic and Zisserman 2012): L1-normalise, then square root.
        root = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
        return points, np.asarray(root, np.float32)


def upright(keypoints: Sequence[cv2.KeyPoint]) -> list[cv2.KeyPoint]:
    """Features that all look north, each place and size once.

    SIFT turns a descriptor by the strongest gradient around it, so that pictures may lie in any
    direction. Ours lie in the same one within a few degrees, and at that the turn only loses: on
    another day's picture another gradient may be the strongest.

    Args:
        keypoints: as detected; where two gradients are about as strong, the same place twice.
            Their angles are changed.
    """
    once: dict[tuple[float, float, float], cv2.KeyPoint] = {}
    for keypoint in keypoints:
        keypoint.angle = 0.0
        column, row = keypoint.pt
        once.setdefault((column, row, keypoint.size), keypoint)
    return list(once.values())


def near_cosines(
    points_a: F64, descriptors_a: F32, points_b: F64, descriptors_b: F32, *, reach_px: float
) -> F32:
    """Cosines of features that lie near each other; -1 for all others.

    Args:
        points_a: (A, 2) column and row, ascending by row.
        descriptors_a: (A, D) unit length.
        points_b: (B, 2), ascending by row too.
        descriptors_b: (B, D) unit length.
        reach_px: features farther apart are not compared.

    Returns:
        (A, B) float32.
    """
    cosines = np.full((len(points_a), len(points_b)), -1.0, np.float32)
    columns_b = descriptors_b.T
    most = max(1, _UNTHREADED // (_BLOCK * descriptors_a.shape[1]))
    tops = points_a[::_BLOCK, 1] - reach_px
    bottoms = points_a[np.minimum(np.arange(len(tops)) * _BLOCK + _BLOCK, len(points_a)) - 1, 1]
    begins = np.searchsorted(points_b[:, 1], tops, side="left")
    ends = np.searchsorted(points_b[:, 1], bottoms + reach_px, side="right")
    for k, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        block = slice(k * _BLOCK, (k + 1) * _BLOCK)
        for start in range(int(begin), int(end), most):
            band = slice(start, min(start + most, int(end)))
            apart = np.square(np.subtract.outer(points_a[block, 0], points_b[band, 0]))
            apart += np.square(np.subtract.outer(points_a[block, 1], points_b[band, 1]))
            products = descriptors_a[block] @ columns_b[:, band]
            np.copyto(cosines[block, band], products, where=apart <= reach_px**2)
    return cosines
