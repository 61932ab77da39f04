"""Whether corresponding points of two patches agree on one small similarity, beyond chance.

SIFT and learned matchers alike find the points; here they are judged, by the same numbers.
"""

import math
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.correlation import GreyPatch

F64 = npt.NDArray[np.float64]

MIN_INLIERS = 8
"""Fewer agreeing features than this give no stable similarity."""
MIN_LOG_EVIDENCE = 2.0
"""Agreement that chance explains better than this is not used."""
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


class PairMatcher(Protocol):
    """Finds the similarity between a view and imagery by local features."""

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
        ...


def agreement(source: F64, target: F64, *, size_px: int, reach_px: float) -> FeatureMatch | None:
    """The similarity that most correspondences agree on, and how surprising that is.

    Args:
        source: (P, 2) column and row in the view; their order decides what RANSAC draws.
        target: (P, 2) where each lies in the imagery, none farther away than `reach_px`.
        size_px: side of both patches.
        reach_px: how far apart two points that have nothing in common could have been.

    Returns:
        As `PairMatcher.match`.
    """
    if len(source) < MIN_INLIERS:
        return None
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
    middle = (size_px - 1) / 2
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
