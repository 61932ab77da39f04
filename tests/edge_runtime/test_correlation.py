from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.correlation import GreyPatch, Warp, correlate, gradient_field, warped

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]

GSD_M = 0.5
SIZE_PX = 96
VIEW_PX = 140
WINDOW_PX = 144
NOMINAL = Warp(yaw_deg=0.0, scale=1.0)
TURNS = [Warp(yaw_deg=yaw, scale=1.0) for yaw in (0.0, -9.0, -6.0, -3.0, 3.0, 6.0, 9.0)]
SCALES = [Warp(yaw_deg=0.0, scale=scale) for scale in (1.0, 0.86, 0.93, 1.07, 1.14)]


def ground(seed: int) -> U8:
    """(400, 400) grey with detail at every size."""
    rng = np.random.default_rng(seed)
    total = np.zeros((400, 400))
    for sigma in (1.5, 4.0, 12.0):
        layer = cv2.GaussianBlur(rng.normal(size=(400, 400)), (0, 0), sigma)
        total += layer / layer.std()
    return np.asarray(np.clip(128 + 30 * total, 0, 255), np.uint8)


def cut(
    world: U8,
    size_px: int,
    *,
    right_px: float = 0.0,
    down_px: float = 0.0,
    turn_deg: float = 0.0,
    zoom: float = 1.0,
) -> GreyPatch:
    """Look at the world's middle from `right_px`, `down_px`: turned clockwise and magnified."""
    a = np.radians(turn_deg)
    # Patch pixel p shows the world at centre + R(-turn) p / zoom.
    r = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) / zoom
    middle = np.array([199.5 + right_px, 199.5 + down_px])
    matrix = np.column_stack([r, middle - r @ np.full(2, (size_px - 1) / 2)])
    image = cv2.warpAffine(
        world, matrix, (size_px, size_px), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    )
    return GreyPatch(np.asarray(image, np.uint8), np.full((size_px, size_px), 255, np.uint8))


def field_slowly(image: U8) -> npt.NDArray[np.complex128]:
    """Twice the gradient's angle at every inner pixel, by central differences."""
    grey = cv2.GaussianBlur(image.astype(np.float64), (0, 0), 0.7)
    gy, gx = np.gradient(grey)
    return np.asarray(np.exp(2j * np.arctan2(gy, gx)))


def test_the_field_points_twice_as_far_round_as_the_gradient() -> None:
    patch = cut(ground(1), 120)
    field = gradient_field(patch, GSD_M)[5:-5, 5:-5]
    found = field[..., 0] + 1j * field[..., 1]
    slow = field_slowly(patch.image)[5:-5, 5:-5]
    strong = np.abs(found) > 0.5
    agreement = np.real(found * np.conj(slow))[strong] / np.abs(found)[strong]
    assert np.median(agreement) > 0.99
    assert agreement.mean() > 0.95


def test_the_field_of_the_negative_is_the_same() -> None:
    patch = cut(ground(1), 120)
    negative = GreyPatch(255 - patch.image, patch.mask)
    assert np.allclose(gradient_field(patch, GSD_M), gradient_field(negative, GSD_M), atol=1e-3)


def test_the_field_is_silent_where_the_mask_is() -> None:
    patch = cut(ground(1), 120)
    patch.mask[:, 50:] = 0
    field = gradient_field(patch, GSD_M)
    assert not field[:, 48:].any()
    assert field[:, 10:40].any()


@pytest.mark.parametrize("change", [Warp(yaw_deg=30.0, scale=1.0), Warp(yaw_deg=-7.0, scale=1.1)])
def test_a_warp_turns_clockwise_and_magnifies(change: Warp) -> None:
    world = ground(2)
    found = warped(cut(world, 160), change, SIZE_PX)
    expected = cut(world, SIZE_PX, turn_deg=change.yaw_deg, zoom=change.scale)
    assert found.image.shape == found.mask.shape == (SIZE_PX, SIZE_PX)
    difference = np.abs(found.image.astype(int) - expected.image)[found.mask > 0]
    assert difference.mean() < 2.0


def test_no_warp_cuts_the_middle() -> None:
    patch = cut(ground(2), 140)
    assert np.array_equal(warped(patch, NOMINAL, 100).image, patch.image[20:120, 20:120])


@pytest.mark.parametrize("east", [-15.25, 0.0, 8.5, 20.0])
@pytest.mark.parametrize("south", [-11.5, 0.0, 13.0])
def test_a_shifted_view_is_found_to_a_third_of_a_pixel(east: float, south: float) -> None:
    world = ground(3)
    view = cut(world, VIEW_PX, right_px=east, down_px=south)
    (peak,) = correlate(view, [cut(world, WINDOW_PX)], [NOMINAL], size_px=SIZE_PX, gsd_m=GSD_M)
    assert peak.column == pytest.approx(east, abs=0.3)
    assert peak.row == pytest.approx(south, abs=0.3)
    assert peak.ncc > 0.6


@pytest.mark.parametrize("warp", TURNS)
def test_a_turned_view_is_found_with_the_turn_that_undoes_it(warp: Warp) -> None:
    world = ground(4)
    view = cut(world, VIEW_PX, right_px=5, down_px=-7, turn_deg=-warp.yaw_deg)
    (peak,) = correlate(view, [cut(world, WINDOW_PX)], TURNS, size_px=SIZE_PX, gsd_m=GSD_M)
    assert peak.warp == warp
    assert (peak.column, peak.row) == pytest.approx((5, -7), abs=0.3)


@pytest.mark.parametrize("warp", SCALES)
def test_a_scaled_view_is_found_with_the_scale_that_undoes_it(warp: Warp) -> None:
    world = ground(5)
    view = cut(world, VIEW_PX, right_px=-4, down_px=6, zoom=1 / warp.scale)
    (peak,) = correlate(view, [cut(world, WINDOW_PX)], SCALES, size_px=SIZE_PX, gsd_m=GSD_M)
    assert peak.warp == warp
    assert (peak.column, peak.row) == pytest.approx((-4, 6), abs=0.3)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda grey: 255 - grey, id="negative"),
        pytest.param(lambda grey: 0.4 * grey + 90, id="haze"),
        pytest.param(lambda grey: 255 * (grey / 255) ** 2, id="gamma"),
    ],
)
def test_other_light_does_not_matter(change: Callable[[F64], F64]) -> None:
    world = ground(6)
    view = cut(world, VIEW_PX, right_px=9, down_px=3)
    other = np.asarray(np.clip(change(view.image.astype(np.float64)), 0, 255), np.uint8)
    (peak,) = correlate(
        GreyPatch(other, view.mask),
        [cut(world, WINDOW_PX)],
        [NOMINAL],
        size_px=SIZE_PX,
        gsd_m=GSD_M,
    )
    assert (peak.column, peak.row) == pytest.approx((9, 3), abs=0.3)


def test_the_right_window_stands_out_from_unrelated_ones() -> None:
    view = cut(ground(7), VIEW_PX)
    windows = [cut(ground(seed), WINDOW_PX) for seed in (20, 21, 7, 22)]
    peaks = correlate(view, windows, TURNS, size_px=SIZE_PX, gsd_m=GSD_M)
    assert [p.window for p in peaks] == [0, 1, 2, 3]
    z = [p.z for p in peaks]
    assert int(np.argmax(z)) == 2
    assert z[2] > 12
    assert max(z[0], z[1], z[3]) < 8


def test_a_view_seen_in_part_is_found() -> None:
    world = ground(8)
    view = cut(world, VIEW_PX, right_px=6, down_px=-2)
    view.mask[: VIEW_PX // 2] = 0
    view.image[: VIEW_PX // 2] = 128
    (peak,) = correlate(view, [cut(world, WINDOW_PX)], [NOMINAL], size_px=SIZE_PX, gsd_m=GSD_M)
    assert (peak.column, peak.row) == pytest.approx((6, -2), abs=0.3)


@pytest.mark.parametrize("view", ["plain", "masked"])
def test_a_featureless_view_has_no_peaks(view: str) -> None:
    patch = cut(ground(9), VIEW_PX)
    if view == "plain":
        patch.image[:] = 90
    else:
        patch.mask[:] = 0
    windows = [cut(ground(9), WINDOW_PX)]
    assert correlate(patch, windows, TURNS, size_px=SIZE_PX, gsd_m=GSD_M) == []


def test_a_featureless_window_does_not_win() -> None:
    world = ground(10)
    plain = cut(world, WINDOW_PX)
    plain.image[:] = 90
    peaks = correlate(
        cut(world, VIEW_PX),
        [plain, cut(world, WINDOW_PX)],
        [NOMINAL],
        size_px=SIZE_PX,
        gsd_m=GSD_M,
    )
    assert peaks[1].ncc > 0.6
    assert abs(peaks[0].ncc) < 0.05


def test_windows_without_imagery_do_not_make_a_chance_agreement_certain() -> None:
    blank = GreyPatch(
        np.zeros((WINDOW_PX, WINDOW_PX), np.uint8), np.zeros((WINDOW_PX, WINDOW_PX), np.uint8)
    )
    view, unrelated = cut(ground(11), VIEW_PX), cut(ground(12), WINDOW_PX)
    alone = correlate(view, [unrelated], TURNS, size_px=SIZE_PX, gsd_m=GSD_M)
    beside = correlate(view, [unrelated, blank, blank], TURNS, size_px=SIZE_PX, gsd_m=GSD_M)
    assert beside[0].z < 2 * alone[0].z


def test_no_windows_have_no_peaks() -> None:
    assert correlate(cut(ground(1), VIEW_PX), [], TURNS, size_px=SIZE_PX, gsd_m=GSD_M) == []
