from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import InputError
from train.hard_negative_batches import EpochBatches, hard_negative_batches, random_batches
from train.neighbours import gps_neighbours
from train.tile_overlap import TileExclusions

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


def ring(count: int, k: int) -> I64:
    """Neighbours of places on a circle, nearest first: one ahead, one behind, two ahead, …"""
    steps = [s for n in range(1, k // 2 + 1) for s in (n, -n)]
    return np.asarray((np.arange(count)[:, None] + np.array(steps)) % count, np.int64)


def epoch(
    neighbours: I32 | I64,
    *,
    tiles: I64 | None = None,
    seed: int = 1,
    batch_size: int = 16,
    select: int = 8,
    excluded: TileExclusions | None = None,
) -> EpochBatches:
    """An epoch of a table by tile; a pair per tile unless told otherwise."""
    tiles = np.arange(len(neighbours)) if tiles is None else tiles
    return hard_negative_batches(
        tiles,
        neighbours,
        tiles,
        batch_size=batch_size,
        select=select,
        rng=np.random.default_rng(seed),
        excluded=excluded,
    )


def batches_slowly(neighbours: I32, *, batch_size: int, select: int, seed: int) -> list[list[int]]:
    """The published rule for one pair per tile, one location at a time."""
    rng = np.random.default_rng(seed)
    k = neighbours.shape[1]
    half = select // 2
    used: set[int] = set()
    done: list[list[int]] = []
    batch: list[int] = []
    seeds = rng.permutation(len(neighbours)).tolist()
    rng.permutation(len(neighbours))  # The photos of each tile are shuffled: here one of one.
    for place in seeds:
        if place in used:
            continue
        far = rng.choice(k - half, size=select - half, replace=False) + half
        wanted = [place, *neighbours[place, :half].tolist(), *neighbours[place, far].tolist()]
        for location in wanted:
            if location in used or location in batch:
                continue
            batch.append(location)
            used.add(location)
            if len(batch) == batch_size:
                done.append(batch)
                batch = []
                break
    return done


@pytest.mark.parametrize("seed", range(3))
def test_batches_equal_the_published_rule_step_by_step(seed: int) -> None:
    points = np.random.default_rng(seed).uniform(0, 0.1, (600, 2))
    neighbours = gps_neighbours(points[:, 0], points[:, 1], 32)
    slowly = batches_slowly(neighbours, batch_size=32, select=16, seed=seed + 50)
    found = epoch(neighbours, seed=seed + 50, batch_size=32, select=16)
    assert [batch.tolist() for batch in found] == slowly


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    tiles=st.integers(12, 60),
    photos_per_tile=st.floats(0.7, 6),
    batch_size=st.integers(2, 12),
    select=st.integers(0, 14),
    overlaps=st.integers(0, 40),
    by_tile=st.booleans(),
)
def test_the_laws_of_batches_hold_whatever_the_data(
    seed: int,
    tiles: int,
    photos_per_tile: float,
    batch_size: int,
    select: int,
    overlaps: int,
    by_tile: bool,
) -> None:
    rng = np.random.default_rng(seed)
    tile_of_pair = np.concatenate(
        [np.arange(12), rng.integers(0, tiles, int(tiles * photos_per_tile))]
    )
    excluded = TileExclusions.from_pairs(*rng.integers(0, tiles, (2, overlaps)), count=tiles)
    table = np.argsort(rng.random((tiles if by_tile else len(tile_of_pair), tiles)))[:, :10]
    try:
        found = hard_negative_batches(
            tile_of_pair,
            table,
            tile_of_pair if by_tile else np.arange(len(tile_of_pair)),
            batch_size=batch_size,
            select=select,
            rng=rng,
            excluded=excluded,
        )
    except InputError:
        assert overlaps, "without exclusions there is always a batch"
        return
    batches = list(found)
    pairs = np.concatenate(batches)
    assert all(batch.shape == (batch_size,) for batch in batches)
    assert len(set(pairs.tolist())) == len(pairs), "a pair at most once an epoch"
    for batch in batches:
        shown = tile_of_pair[batch].tolist()
        assert len(set(shown)) == batch_size, "a tile at most once a batch"
        for tile in shown:
            assert not set(excluded.of(tile).tolist()) & set(shown)
    coverage = found.coverage
    assert coverage.dropped == len(tile_of_pair) - len(pairs)
    assert coverage.batches == len(batches)
    assert coverage.last_batch < batch_size
    if not overlaps:
        left = np.delete(tile_of_pair, pairs)
        assert len(set(left.tolist())) == coverage.last_batch, "enough for another batch was left"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("count", "batch_size", "select"), [(500, 16, 8), (333, 64, 32), (40, 40, 8), (97, 10, 40)]
)
def test_one_pair_per_tile_loses_no_more_than_a_remainder(
    seed: int, count: int, batch_size: int, select: int
) -> None:
    found = epoch(ring(count, 32), seed=seed, batch_size=batch_size, select=select)
    drawn = np.concatenate(list(found))
    assert len(drawn) == count // batch_size * batch_size
    assert found.coverage.dropped == found.coverage.last_batch == count % batch_size


def test_a_seed_gives_the_same_epoch_again_and_another_seed_another() -> None:
    neighbours, tiles = ring(300, 16), np.repeat(np.arange(300), 3)
    first, again, other = (
        np.stack(list(epoch(neighbours, tiles=tiles, seed=seed))) for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first[: len(other)], other[: len(first)])


def test_two_epochs_of_one_generator_differ() -> None:
    rng = np.random.default_rng(1)
    places = np.arange(300)
    epochs = [
        np.stack(
            list(
                hard_negative_batches(
                    places, ring(300, 16), places, batch_size=16, select=8, rng=rng
                )
            )
        )
        for _ in range(2)
    ]
    assert not np.array_equal(epochs[0], epochs[1])


def test_the_first_seed_brings_its_nearest_half_and_as_many_random_others() -> None:
    neighbours = ring(1000, 32)
    far_seen: set[int] = set()
    for seed in range(60):
        batch = next(epoch(neighbours, seed=seed, batch_size=17, select=16))
        opened = batch[0]
        row = neighbours[opened]
        assert set(row[:8].tolist()) <= set(batch.tolist()), "the nearest half is always in"
        rest = set(batch.tolist()) - {opened, *row[:8].tolist()}
        assert len(rest) == 8
        assert rest <= set(row[8:].tolist()), "the others come from the farther neighbours"
        far_seen |= {int(np.flatnonzero(row == location)[0]) for location in rest}
    assert far_seen == set(range(8, 32)), "every farther neighbour has its chance"


@pytest.mark.parametrize("select", [32, 33, 500])
def test_selecting_more_than_there_are_takes_all(select: int) -> None:
    neighbours = ring(1000, 32)
    batch = next(epoch(neighbours, batch_size=33, select=select))
    assert set(batch.tolist()) == {int(batch[0]), *neighbours[batch[0]].tolist()}


def test_selecting_none_is_a_plain_shuffle() -> None:
    found = np.concatenate(list(epoch(ring(160, 16), select=0, seed=2)))
    assert np.array_equal(found, np.random.default_rng(2).permutation(160))


def test_a_table_by_pair_gives_each_photo_of_a_tile_its_own_neighbours() -> None:
    # Photo p of tile 0 or 1 has neighbours of its own; the tile alone could not tell them apart.
    tile_of_pair = np.concatenate([np.zeros(6, int), np.arange(1, 60)])
    table = (np.arange(65)[:, None] * 7 + np.arange(4)) % 58 + 2
    for seed in range(40):
        batch = next(
            hard_negative_batches(
                tile_of_pair,
                table,
                np.arange(65),
                batch_size=5,
                select=8,
                rng=np.random.default_rng(seed),
            )
        )
        own = tile_of_pair[batch[0]]
        wanted = {int(t) for t in table[batch[0]] if t != own}
        if len(wanted) == 4:
            assert set(tile_of_pair[batch[1:]].tolist()) == wanted


def test_a_neighbour_tile_gives_any_of_its_photos_with_equal_chance() -> None:
    # Tile 0 alone names tile 1, which has four photos; 1,000 epochs open with tile 0.
    tile_of_pair = np.array([0, 1, 1, 1, 1])
    neighbours = np.array([[1], [0]])
    counts = np.zeros(5)
    for seed in range(2000):
        batch = next(epoch(neighbours, tiles=tile_of_pair, seed=seed, batch_size=2, select=2))
        if batch[0] == 0:
            counts[batch[1]] += 1
    expected = counts.sum() / 4
    assert expected > 80
    # Chi squared with 3 degrees of freedom: above 16.3 once in a thousand.
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 16.3


def test_a_seed_whose_tile_is_in_the_batch_comes_again_in_the_next() -> None:
    # Two tiles of many photos: every batch is one of each, and nothing is lost.
    tile_of_pair = np.repeat([0, 1], 50)
    found = epoch(np.array([[1], [0]]), tiles=tile_of_pair, batch_size=2, select=0)
    drawn = np.concatenate(list(found))
    assert sorted(drawn.tolist()) == list(range(100))


def test_excluded_tiles_share_no_batch_though_they_are_each_others_neighbours() -> None:
    neighbours = ring(400, 16)
    ahead = np.arange(400)
    excluded = TileExclusions.from_pairs(ahead, (ahead + 1) % 400, count=400)
    together = [set(batch.tolist()) for batch in epoch(neighbours)]
    apart = [set(batch.tolist()) for batch in epoch(neighbours, excluded=excluded)]
    assert any((p + 1) % 400 in batch for batch in together for p in batch), "published mode"
    assert not any((p + 1) % 400 in batch for batch in apart for p in batch)
    assert len(apart) >= 0.9 * len(together)


def test_coverage_says_what_an_epoch_left_out() -> None:
    # One tile has 40 of 60 photos, so batches end when the 20 others are used up.
    tile_of_pair = np.concatenate([np.zeros(40, int), np.arange(1, 21)])
    found = random_batches(tile_of_pair, batch_size=4, rng=np.random.default_rng(1))
    batches = list(found)
    coverage = found.coverage
    assert coverage.dropped == 60 - 4 * len(batches) >= 32
    assert str(coverage) == (
        f"{len(batches)} batches of 4, {coverage.dropped} of 60 pairs left out: "
        f"the last batch got no further than {coverage.last_batch}"
    )


def own_neighbours(batches: Sequence[I64], neighbours: I32) -> npt.NDArray[np.float64]:
    """Per batch, how many of a location's own neighbours are in it, mean over its locations."""
    counts = []
    for batch in batches:
        inside = np.zeros(len(neighbours), bool)
        inside[batch] = True
        counts.append(inside[neighbours[batch]].sum(axis=1).mean())
    return np.array(counts)


def test_the_published_statistics_are_met() -> None:
    # Of the published rule on 35,532 uniform locations: 76 dropped an epoch, and 42, 36, 28, 15
    # own neighbours per batch over its quarters. Other draws of places differ by about one.
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 0.3, (35_532, 2))
    neighbours = gps_neighbours(places[:, 0], places[:, 1], 128)
    found = epoch(neighbours, batch_size=128, select=64)
    batches = list(found)
    assert found.coverage.dropped == 35_532 - 128 * len(batches) == 76
    quarters = [q.mean() for q in np.array_split(own_neighbours(batches, neighbours), 4)]
    assert quarters == pytest.approx([42, 36, 28, 15], abs=2.5)


def test_701_buildings_of_54_photos_are_shown_almost_whole() -> None:
    # University-1652's training set at batch 128: a building once per batch, 295 full batches.
    tiles = np.repeat(np.arange(701), 54)
    found = random_batches(tiles, batch_size=128, rng=np.random.default_rng(1))
    assert all(len(set(tiles[batch].tolist())) == 128 for batch in found)
    assert found.coverage.dropped < 0.01 * len(tiles)


def test_random_batches_are_full_distinct_and_seeded() -> None:
    one, again, other = (
        np.stack(
            list(random_batches(np.arange(103), batch_size=10, rng=np.random.default_rng(seed)))
        )
        for seed in (1, 1, 2)
    )
    assert one.shape == (10, 10)
    assert len(np.unique(one)) == 100
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_fewer_tiles_than_a_batch_are_refused_before_the_epoch() -> None:
    with pytest.raises(InputError, match="15 pairs on 15 tiles cannot fill a batch of 16"):
        epoch(ring(15, 8), batch_size=16)
    with pytest.raises(InputError, match="90 pairs on 9 tiles cannot fill a batch of 10"):
        random_batches(np.repeat(np.arange(9), 10), batch_size=10, rng=np.random.default_rng(1))


def test_exclusions_that_leave_no_batch_are_refused_before_the_epoch() -> None:
    every = np.divmod(np.arange(400), 20)
    excluded = TileExclusions.from_pairs(*every, count=20)
    with pytest.raises(
        InputError, match="after 1 tiles, those left are all excluded by them; use a smaller"
    ) as one:
        epoch(ring(20, 8), batch_size=4, excluded=excluded)
    with pytest.raises(InputError) as other:
        random_batches(np.arange(20), batch_size=4, rng=np.random.default_rng(1), excluded=excluded)
    assert str(one.value) == str(other.value)


@pytest.mark.parametrize(
    ("tiles", "rows", "neighbours", "select", "match"),
    [
        pytest.param(range(20), range(19), ring(20, 8), 8, "do not fit", id="rows"),
        pytest.param([], [], ring(20, 8), 8, "do not fit", id="no pairs"),
        pytest.param(range(20), range(1, 21), ring(20, 8), 8, "expected 0 to 19", id="row"),
        pytest.param(range(-1, 19), range(20), ring(20, 8), 8, "tile rows -1 to 19", id="tile"),
        pytest.param(range(20), range(20), ring(20, 8) - 1, 8, "tile rows -1", id="neighbour"),
        pytest.param(range(20), range(20), ring(20, 8), -1, "select is -1", id="select"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    tiles: Sequence[int], rows: Sequence[int], neighbours: I64, select: int, match: str
) -> None:
    with pytest.raises(InputError, match=match):
        hard_negative_batches(
            np.array(tiles, np.int64),
            neighbours,
            np.array(rows, np.int64),
            batch_size=4,
            select=select,
            rng=np.random.default_rng(1),
        )


def test_a_batch_without_a_negative_and_exclusions_of_other_tiles_are_refused() -> None:
    rng = np.random.default_rng(1)
    none = np.empty(0, np.int64)
    with pytest.raises(InputError, match="expected at least 2"):
        random_batches(np.arange(20), batch_size=1, rng=rng)
    excluded = TileExclusions.from_pairs(none, none, count=19)
    with pytest.raises(InputError, match="expected 0 to 18"):
        random_batches(np.arange(20), batch_size=4, rng=rng, excluded=excluded)
