import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.correlation import GreyPatch
from edge_runtime.local_features import MIN_INLIERS, FeatureMatcher, upright

U8 = npt.NDArray[np.uint8]

SIZE_PX = 200
SEEN = np.full((SIZE_PX, SIZE_PX), 255, np.uint8)


def ground(seed: int) -> U8:
    """(400, 400) grey: rectangles of every size, as roofs and fields."""
    rng = np.random.default_rng(seed)
    grey = np.full((400, 400), 120, np.uint8)
    for _ in range(260):
        x, y = rng.integers(0, 400, 2)
        box = ((float(x), float(y)), tuple(rng.uniform(5, 40, 2)), float(rng.uniform(0, 180)))
        corners = cv2.boxPoints(box).round().astype(np.int32)
        cv2.fillConvexPoly(grey, corners, int(rng.integers(20, 236)), cv2.LINE_AA)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), 0.8), np.uint8)


def cut(
    world: U8, *, right_px: float = 0.0, down_px: float = 0.0, turn_deg: float = 0, zoom: float = 1
) -> GreyPatch:
    """Look at the world's middle from `right_px`, `down_px`: turned clockwise and magnified."""
    a = np.radians(turn_deg)
    r = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) / zoom
    middle = np.array([199.5 + right_px, 199.5 + down_px])
    matrix = np.column_stack([r, middle - r @ np.full(2, (SIZE_PX - 1) / 2)])
    image = cv2.warpAffine(
        world, matrix, (SIZE_PX, SIZE_PX), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    )
    return GreyPatch(np.asarray(image, np.uint8), SEEN.copy())


@pytest.mark.parametrize(
    ("right", "down", "turn", "zoom"),
    [
        (0.0, 0.0, 0.0, 1.0),
        (6.25, -4.5, 0.0, 1.0),
        (-3.0, 5.0, 6.0, 1.0),
        (2.0, 2.0, -8.0, 1.07),
        (0.0, -6.0, 3.0, 0.92),
    ],
)
def test_a_known_similarity_is_recovered(
    right: float, down: float, turn: float, zoom: float
) -> None:
    world = ground(1)
    view = cut(world, right_px=right, down_px=down, turn_deg=-turn, zoom=1 / zoom)
    match = FeatureMatcher().match(view, cut(world), reach_px=30.0)
    assert match is not None
    assert (match.column, match.row) == pytest.approx((right, down), abs=0.3)
    assert match.yaw_deg == pytest.approx(turn, abs=0.3)
    assert match.scale == pytest.approx(zoom, abs=0.005)
    assert match.inliers >= MIN_INLIERS
    assert match.reprojection_px < 1.0


def test_the_same_patches_give_the_same_match_every_time() -> None:
    world = ground(2)
    view, imagery = cut(world, right_px=3, turn_deg=4), cut(world)
    matcher = FeatureMatcher()
    first = matcher.match(view, imagery, reach_px=30.0)
    cv2.setRNGSeed(99)
    assert first is not None
    assert matcher.match(view, imagery, reach_px=30.0) == first


def test_a_brighter_and_flatter_view_still_matches() -> None:
    world = ground(3)
    view = cut(world, right_px=4, down_px=-2)
    pale = GreyPatch(np.asarray(view.image * 0.5 + 100, np.uint8), view.mask)
    match = FeatureMatcher().match(pale, cut(world), reach_px=30.0)
    assert match is not None
    assert (match.column, match.row) == pytest.approx((4, -2), abs=0.3)


@pytest.mark.parametrize("seed", range(5))
def test_unrelated_patches_do_not_match(seed: int) -> None:
    view, imagery = cut(ground(30 + seed)), cut(ground(40 + seed))
    assert FeatureMatcher().match(view, imagery, reach_px=30.0) is None


def test_features_beyond_reach_are_not_compared() -> None:
    world = ground(4)
    view = cut(world, right_px=25.0)
    assert FeatureMatcher().match(view, cut(world), reach_px=10.0) is None
    assert FeatureMatcher().match(view, cut(world), reach_px=40.0) is not None


@pytest.mark.parametrize(("turn", "zoom"), [(14.0, 1.0), (0.0, 1.2), (0.0, 0.8)])
def test_what_a_small_correction_could_not_be_is_no_match(turn: float, zoom: float) -> None:
    world = ground(5)
    view = cut(world, turn_deg=turn, zoom=zoom)
    assert FeatureMatcher().match(view, cut(world), reach_px=60.0) is None


def test_masked_ground_gives_no_features() -> None:
    world = ground(6)
    view, imagery = cut(world), cut(world)
    view.mask[:] = 0
    assert FeatureMatcher().match(view, imagery, reach_px=30.0) is None
    assert FeatureMatcher().match(imagery, view, reach_px=30.0) is None


def test_plain_ground_gives_no_match() -> None:
    plain = GreyPatch(np.full((SIZE_PX, SIZE_PX), 90, np.uint8), SEEN.copy())
    assert FeatureMatcher().match(plain, plain, reach_px=30.0) is None


def test_a_place_that_was_found_in_two_directions_is_one_feature_that_looks_north() -> None:
    found = [
        cv2.KeyPoint(10.5, 20.25, 4.0, 30.0, 0.9, 1),
        cv2.KeyPoint(10.5, 20.25, 4.0, 210.0, 0.9, 1),
        cv2.KeyPoint(10.5, 20.25, 8.0, 75.0, 0.5, 2),
        cv2.KeyPoint(3.0, 20.25, 4.0, 0.0, 0.4, 1),
    ]
    kept = upright(found)
    assert [(k.pt, k.size, k.octave) for k in kept] == [
        ((10.5, 20.25), 4.0, 1),
        ((10.5, 20.25), 8.0, 2),
        ((3.0, 20.25), 4.0, 1),
    ]
    assert {k.angle for k in kept} == {0.0}


def test_light_from_another_side_costs_hardly_any_feature() -> None:
    """Roofs keep their borders while the brighter slope changes sides."""
    rng = np.random.default_rng(8)
    borders, shades = ground(8).astype(float), rng.uniform(-30, 30, (2, 14, 14))
    views = [
        np.clip(borders + cv2.resize(shade, (400, 400), interpolation=cv2.INTER_CUBIC), 0, 255)
        for shade in shades
    ]
    one, other = (cut(np.asarray(view, np.uint8)) for view in views)
    match = FeatureMatcher().match(one, other, reach_px=12.0)
    assert match is not None
    assert (match.column, match.row) == pytest.approx((0, 0), abs=0.3)
    assert match.inliers > 60
