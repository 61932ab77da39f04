from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from train.augmentation import PairAugmentation, cut
from train.config import TrainConfig
from train.pair_table import Geometry, ImageArray, ImageSet, PairTable

U8 = npt.NDArray[np.uint8]
CONFIG = TrainConfig(size_px=64, ground_size_m=48.0, shift_m=0.0, recolour=0.0)


class Made:
    """Noise images, known to the test."""

    def __init__(self, photos: U8, tiles: U8, geometry: Geometry, margin: float) -> None:
        self.photos, self.tiles = photos, tiles
        self.table = PairTable(
            name="made",
            photos=ImageSet(images=ImageArray(photos), view="photo"),
            tiles=ImageSet(images=ImageArray(tiles), view="tile"),
            tile_of_photo=np.arange(len(photos), dtype=np.int64),
            geometry=geometry,
            margin=margin,
        )


def made_pairs(count: int = 12, *, same: bool = True, side: int = 80) -> Made:
    rng = np.random.default_rng(1)
    photos = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    tiles = photos if same else rng.integers(0, 256, photos.shape, np.uint8)
    return Made(photos, tiles, "aligned", 1.25)


def augmented(config: TrainConfig, pairs: Made, seed: int = 2) -> tuple[U8, U8]:
    augmentation = PairAugmentation(config)
    drawn = [
        augmentation.pair(pairs.table, row, np.random.default_rng([seed, row]))
        for row in range(len(pairs.table))
    ]
    return np.stack([photo for photo, _ in drawn]), np.stack([tile for _, tile in drawn])


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


@pytest.mark.parametrize(("side", "margin"), [(80, 1.25), (64, 1.0)])
def test_evaluation_sees_the_middle(side: int, margin: float) -> None:
    image = made_pairs(1, side=side).photos[0]
    edge = (side - 64) // 2
    expected = image[edge : edge + 64, edge : edge + 64]
    assert np.array_equal(cut(image, (64, 64), margin), expected)


def test_an_image_of_another_size_is_stretched_whole() -> None:
    image = np.zeros((30, 70, 3), np.uint8)
    image[:, 35:] = 200
    found = cut(image, (64, 64), 1.0)
    assert found.shape == (64, 64, 3)
    assert found[:, 0].max() == 0
    assert found[:, -1].min() == 200


def panoramas(*, flip: float, rotate: float) -> tuple[list[tuple[U8, U8]], U8, U8]:
    """A panorama whose columns tell their heading, and a tile whose edges do."""
    photo = np.zeros((16, 64, 3), np.uint8)
    photo[..., 0] = np.arange(64) // 16  # North, east, south, west.
    tile = np.zeros((64, 64, 3), np.uint8)
    # What lies there is painted at the tile's edge: up is north.
    tile[:8, 8:-8, 0], tile[8:-8, -8:, 0] = 10, 11
    tile[-8:, 8:-8, 0], tile[8:-8, :8, 0] = 12, 13
    made = Made(np.repeat(photo[None], 40, 0), np.repeat(tile[None], 40, 0), "panorama", 1.0)
    config = replace(CONFIG, photo_height_px=16, flip=flip, rotate=rotate)
    augmentation = PairAugmentation(config)
    drawn = [
        augmentation.pair(made.table, row, np.random.default_rng([3, row])) for row in range(40)
    ]
    return drawn, photo, tile


def test_a_turned_tile_and_its_rolled_panorama_show_the_same_heading_first() -> None:
    drawn, _, _ = panoramas(flip=0.0, rotate=1.0)
    seen = set()
    for photo, tile in drawn:
        # The panorama's first quarter shows the heading that is up in the tile, and so clockwise.
        ahead = [int(photo[0, 16 * k + 8, 0]) for k in range(4)]
        edges = [tile[2, 32, 0], tile[32, -3, 0], tile[-3, 32, 0], tile[32, 2, 0]]
        assert [int(edge) - 10 for edge in edges] == ahead
        seen.add(ahead[0])
    assert seen == {1, 2, 3}


def test_a_flip_mirrors_panorama_and_tile() -> None:
    drawn, photo, tile = panoramas(flip=1.0, rotate=0.0)
    for flipped_photo, flipped_tile in drawn:
        assert np.array_equal(flipped_photo, photo[:, ::-1])
        assert np.array_equal(flipped_tile, tile[:, ::-1])


def test_a_drone_photo_of_unknown_heading_is_not_turned_with_its_tile() -> None:
    pairs = made_pairs(40, side=64)
    made = Made(pairs.photos, pairs.tiles, "drone", 1.0)
    photos, tiles = augmented(replace(CONFIG, flip=0.0, rotate=1.0), made)
    assert np.array_equal(photos, made.photos)
    assert not any(np.array_equal(a, b) for a, b in zip(tiles, made.tiles, strict=True))


def test_a_heading_error_turns_the_photo_alone_about_its_middle() -> None:
    pairs = made_pairs(6)
    config = replace(CONFIG, flip=0.0, rotate=0.0, heading_error_deg=20.0)
    photos, tiles = augmented(config, pairs)
    assert np.array_equal(tiles, pairs.tiles[:, 8:72, 8:72])
    assert not np.array_equal(photos, pairs.photos[:, 8:72, 8:72])
    smooth = np.zeros((80, 80, 3), np.uint8)
    smooth[36:44, 36:44] = 255
    turned_deg = cut(smooth, (64, 64), 1.25, turn_deg=90.0)
    assert abs(turned_deg.astype(int) - smooth[8:72, 8:72]).max() <= 1
