"""Sparse matching of a ground view against imagery by OpenCV's SIFT.

Gives metres where the imagery is sharp, and a second opinion on the dense match.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.correlation import GreyPatch

F64 = npt.NDArray[np.float64]

MIN_INLIERS = 8
"""Fewer agreeing features than this give no stable similarity."""
MIN_LOG_EVIDENCE = 2.0
"""Agreement that chance explains better than this is not used."""
_MAX_FEATURES = 600
_RATIO = 0.85
"""Lowe's ratio test; loose, because matches are also limited in place."""
_RANSAC_PX = 2.0


class FeatureMatch(NamedTuple):
    """A similarity between two patches that many features agree on."""

    column: float
    """Where the view's centre lies in the other patch, pixels right of its centre."""
    row: float
    """The same, pixels below its centre."""
    yaw_deg: float
    """Turn of the view that fits best, clockwise, added to its heading."""
    scale: float
    """Factor on the view's height that fits best."""
    inliers: int
    log_evidence: float
    """How surprising this many inliers are, by `inlier_log_evidence`."""
    reprojection_px: float
    """Root mean square distance of the inliers."""


class FeatureMatcher:
    """Keeps one SIFT detector. Not thread-safe; one per thread."""

    def __init__(self) -> None:
        self._sift = cv2.SIFT.create(nfeatures=_MAX_FEATURES, contrastThreshold=0.02)

    def match(self, view: GreyPatch, imagery: GreyPatch, *, reach_px: float) -> FeatureMatch | None:
        """Match two patches that are already aligned to within `reach_px`.

        Args:
            view: the ground view, turned and scaled to the best known alignment.
            imagery: imagery of the same size and ground resolution.
            reach_px: features farther apart than this are not compared.

        Returns:
            The similarity, or None when too few features agree to rule out chance, or the
            similarity is not one that a small correction could be (turn under 10 degrees, scale
            within 12 %).
        """
        points_v, descriptors_v = self._describe(view)
        points_i, descriptors_i = self._describe(imagery)
        if len(points_v) < MIN_INLIERS or len(points_i) < MIN_INLIERS:
            return None
        similarity = descriptors_v @ descriptors_i.T
        similarity[_apart(points_v, points_i) > reach_px**2] = -1.0
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
        if len(good) < MIN_INLIERS:
            return None
        source, target = points_v[good], points_i[best[good]]
        cv2.setRNGSeed(1652)
        matrix, inlier = cv2.estimateAffinePartial2D(
            source, target, method=cv2.RANSAC, ransacReprojThreshold=_RANSAC_PX, maxIters=1000
        )
        if matrix is None:
            return None
        chosen = inlier.ravel() > 0
        count = int(np.count_nonzero(chosen))
        scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        turn_deg = float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
        surprise = inlier_log_evidence(count, len(source), (_RANSAC_PX / reach_px) ** 2)
        if count < MIN_INLIERS or surprise < MIN_LOG_EVIDENCE:
            return None
        if abs(turn_deg) > 10.0 or abs(scale - 1) > 0.12:
            return None
        moved = source[chosen] @ matrix[:, :2].T + matrix[:, 2]
        error = np.sum((moved - target[chosen]) ** 2, axis=1)
        middle = (view.image.shape[0] - 1) / 2
        column, row = matrix[:, :2] @ np.array([middle, middle]) + matrix[:, 2] - middle
        return FeatureMatch(
            column=float(column),
            row=float(row),
            yaw_deg=turn_deg,
            scale=scale,
            inliers=count,
            log_evidence=surprise,
            reprojection_px=float(np.sqrt(error.mean())),
        )

    def _describe(self, patch: GreyPatch) -> tuple[F64, npt.NDArray[np.float32]]:
        """Feature positions (F, 2) and unit RootSIFT descriptors (F, 128)."""
        mask = cv2.erode(patch.mask, np.ones((9, 9), np.uint8))
        keypoints, descriptors = self._sift.detectAndCompute(patch.image, mask)
        if descriptors is None or not keypoints:
            return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
        points = np.array([k.pt for k in keypoints], np.float64)
        # RootSIFT (Arandjelovic and Zisserman 2012): L1-normalise, then square root.
        root = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
        return points, np.asarray(root, np.float32)


def _apart(a: F64, b: F64) -> F64:
    """(A, B) squared distances of the points (A, 2) from the points (B, 2)."""
    dx = np.subtract.outer(a[:, 0], b[:, 0])
    dy = np.subtract.outer(a[:, 1], b[:, 1])
    dx *= dx
    dy *= dy
    dx += dy
    return np.asarray(dx, np.float64)


def inlier_log_evidence(inliers: int, matches: int, chance: float) -> float:
    """How surprising it is that so many matches agree on one similarity.

    The negative logarithm of the expected number of similarities with at least as many inliers
    among random matches (the number of false alarms of Moisan and Stival 2004, section 3).

    Args:
        inliers: matches that agree, the two that define the similarity included.
        matches: all matches.
        chance: probability that a random match agrees with a given similarity.

    Returns:
        Natural logarithm; 0 or less where chance explains the agreement.
    """
    if inliers < 3 or matches < inliers:
        return -math.inf
    n, k = matches - 2, inliers - 2
    log_terms = [
        math.lgamma(n + 1)
        - math.lgamma(j + 1)
        - math.lgamma(n - j + 1)
        + j * math.log(chance)
        + (n - j) * math.log1p(-chance)
        for j in range(k, n + 1)
    ]
    top = max(log_terms)
    log_tail = top + math.log(sum(math.exp(term - top) for term in log_terms))
    log_tests = math.log(matches * (matches - 1) / 2)
    return -(log_tail + log_tests)
