from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from train.augmentation import PairAugmentation, as_evaluated, middle
from train.config import TrainConfig
from train.pairs import Pairs

U8 = npt.NDArray[np.uint8]
CONFIG = TrainConfig(size_px=64, ground_size_m=48.0, shift_m=0.0, recolour=0.0)


def made_pairs(count: int = 12, *, same: bool = True, side: int = 80) -> Pairs:
    rng = np.random.default_rng(1)
    photos = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    tiles = photos if same else rng.integers(0, 256, photos.shape, np.uint8)
    where = np.zeros(count)
    return Pairs(photos=photos, tiles=tiles, lat_deg=where, lon_deg=where)


def augmented(config: TrainConfig, pairs: Pairs, seed: int = 2) -> tuple[U8, U8]:
    rows = np.arange(len(pairs))
    return PairAugmentation(config).batch(pairs, rows, np.random.default_rng(seed))


def turned(image: U8) -> list[U8]:
    """The eight ways to lay a square down."""
    return [np.rot90(i, k) for i, k in product((image, image[:, ::-1]), range(4))]


def test_both_views_get_the_same_geometry() -> None:
    photos, tiles = augmented(CONFIG, made_pairs(40))
    assert np.array_equal(photos, tiles)


def test_geometry_is_a_flip_and_a_quarter_turn_and_all_eight_occur() -> None:
    pairs = made_pairs(80)
    photos, _ = augmented(CONFIG, pairs)
    seen = set()
    for before, after in zip(pairs.photos, photos, strict=True):
        ways = [np.array_equal(after, way) for way in turned(before[8:72, 8:72])]
        assert sum(ways) == 1
        seen.add(ways.index(True))
    assert seen == set(range(8))


@pytest.mark.parametrize(
    ("change", "share"),
    [
        pytest.param({"flip": 0.0, "rotate": 0.0}, 1.0, id="neither"),
        pytest.param({"flip": 1.0, "rotate": 0.0}, 0.0, id="always mirrored"),
        pytest.param({"flip": 0.0, "rotate": 1.0}, 0.0, id="always turned"),
        pytest.param({"flip": 0.5, "rotate": 0.75}, 0.125, id="the recipe"),
    ],
)
def test_views_are_left_as_they_are_as_often_as_the_settings_say(
    change: dict[str, float], share: float
) -> None:
    pairs = made_pairs(400)
    photos, _ = augmented(replace(CONFIG, **change), pairs)  # type: ignore[arg-type]
    untouched = np.mean(
        [np.array_equal(a, b[8:72, 8:72]) for a, b in zip(photos, pairs.photos, strict=True)]
    )
    # Three standard deviations of 400 draws with probability 1/8 are 0.05.
    assert untouched == pytest.approx(share, abs=0.05 if 0 < share < 1 else 0)


def test_a_shift_moves_the_tile_alone_and_not_too_far() -> None:
    config = replace(CONFIG, flip=0.0, rotate=0.0, shift_m=3.0)  # 4 px.
    pairs = made_pairs(60)
    photos, tiles = augmented(config, pairs)
    moves = set()
    for photo, tile, whole in zip(photos, tiles, pairs.tiles, strict=True):
        assert np.array_equal(photo, whole[8:72, 8:72])
        found = [
            (dy, dx)
            for dy, dx in product(range(-8, 9), repeat=2)
            if np.array_equal(tile, whole[8 + dy : 72 + dy, 8 + dx : 72 + dx])
        ]
        assert len(found) == 1
        moves.add(found[0])
    assert {abs(v) for move in moves for v in move} == set(range(5))


def test_the_widest_shift_stays_inside_the_picture() -> None:
    config = replace(CONFIG, shift_m=6.0)  # The margin's 8 px.
    photos, tiles = augmented(config, made_pairs(30))
    assert photos.shape == tiles.shape == (30, 64, 64, 3)


def test_outputs_are_uint8_of_the_encoders_size_with_everything_on() -> None:
    config = replace(CONFIG, recolour=1.0, shift_m=4.0)
    photos, tiles = augmented(config, made_pairs(30))
    for views in (photos, tiles):
        assert views.shape == (30, 64, 64, 3)
        assert views.dtype == np.uint8
        assert views.flags.c_contiguous


def test_colours_are_not_shared() -> None:
    config = replace(CONFIG, recolour=1.0)
    photos, tiles = augmented(config, made_pairs(40))
    assert np.mean([np.array_equal(a, b) for a, b in zip(photos, tiles, strict=True)]) < 0.6


def test_a_seed_gives_the_same_views_again() -> None:
    config = replace(CONFIG, recolour=1.0, shift_m=4.0)
    pairs = made_pairs(20, same=False)
    first, again = augmented(config, pairs), augmented(config, pairs)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], augmented(config, pairs, seed=3)[0])


def test_the_pairs_themselves_stay_as_they_were() -> None:
    pairs = made_pairs(20, same=False)
    before = pairs.photos.copy(), pairs.tiles.copy()
    augmented(replace(CONFIG, recolour=1.0, shift_m=4.0), pairs)
    assert np.array_equal(pairs.photos, before[0])
    assert np.array_equal(pairs.tiles, before[1])


@pytest.mark.parametrize(("side", "size"), [(80, 64), (40, 32), (64, 64)])
def test_evaluation_sees_the_middle(side: int, size: int) -> None:
    images = made_pairs(3, side=side).photos
    edge = (side - size) // 2
    expected = images[:, edge : edge + size, edge : edge + size]
    assert np.array_equal(as_evaluated(images, size), expected)
    assert np.array_equal(middle(images[0], size), expected[0])
