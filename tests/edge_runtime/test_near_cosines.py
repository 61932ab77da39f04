"""Descriptors are compared in bands of near features; the plain product says the same."""

import numpy as np
import pytest

from edge_runtime.local_features import F32, F64, near_cosines


def features(count: int, seed: int) -> tuple[F64, F32]:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 128, (count, 2))
    descriptors = rng.random((count, 128)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return points[np.argsort(points[:, 1])], descriptors


def slow(a: tuple[F64, F32], b: tuple[F64, F32], reach_px: float) -> F32:
    expected = np.full((len(a[0]), len(b[0])), -1.0, np.float32)
    for i, here in enumerate(a[0]):
        for j, there in enumerate(b[0]):
            if np.hypot(*(here - there)) <= reach_px:
                expected[i, j] = np.dot(a[1][i].astype(np.float64), b[1][j])
    return expected


@pytest.mark.parametrize(
    ("count_a", "count_b", "reach_px"),
    [
        pytest.param(90, 75, 12.0, id="a band"),
        pytest.param(8, 8, 12.0, id="fewer than a block"),
        pytest.param(33, 400, 500.0, id="everything is near, in several pieces"),
        pytest.param(40, 40, 0.0, id="nothing is near"),
    ],
)
def test_near_features_have_their_cosine_and_others_have_minus_one(
    count_a: int, count_b: int, reach_px: float
) -> None:
    a, b = features(count_a, 1), features(count_b, 2)
    found = near_cosines(*a, *b, reach_px=reach_px)
    np.testing.assert_allclose(found, slow(a, b, reach_px), rtol=1e-5)


def test_features_on_the_same_spot_are_near_at_any_reach() -> None:
    points, descriptors = features(50, 3)
    found = near_cosines(points, descriptors, points, descriptors, reach_px=0.0)
    np.testing.assert_allclose(np.diag(found), 1.0, rtol=1e-5)
