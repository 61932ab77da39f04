"""Batches in which every pair has to be told from its neighbours.

(Deuser et al. 2023, section 3.2: GPS sampling for the first epochs, then dynamic similarity
sampling; both fill batches by the same rule from a different neighbour table.)

A pair is a photo and its tile; several photos may show one tile. Whatever the rule, no tile comes
twice in a batch and no pair twice in an epoch: a tile that came twice would be its own negative.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from train.tile_overlap import TileExclusions

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EpochCoverage:
    """How much of the data an epoch showed. Complete once its last batch is drawn."""

    pairs: int
    batches: int
    batch_size: int
    last_batch: int
    """Pairs in the batch that could not be filled, which is dropped."""

    @property
    def dropped(self) -> int:
        """Pairs this epoch did not show: of the dropped batch, and what did not fit into it."""
        return self.pairs - self.batches * self.batch_size

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.batches} batches of {self.batch_size}, {self.dropped} of {self.pairs} pairs "
            f"left out: the last batch got no further than {self.last_batch}"
        )


class EpochBatches(Iterator[I64]):
    """The batches of one epoch, (batch_size,) int64 pair rows each; iterate once."""

    def __init__(
        self,
        tile_of_pair: I64,
        *,
        batch_size: int,
        rng: np.random.Generator,
        excluded: TileExclusions | None,
        company: Callable[[int], I32 | I64] | None,
        tiles: int,
    ) -> None:
        """Draw the first batch, so that what cannot be is refused before the epoch.

        Args:
            tile_of_pair: (P,) tile rows.
            batch_size: pairs per batch.
            rng: the only source of randomness.
            excluded: tiles that never share a batch.
            company: the distinct tiles a pair brings along when it opens or continues a batch.
            tiles: number of tiles T; every row is below.

        Raises:
            InputError: not one batch can be filled.
        """
        self._tile_of_pair = np.asarray(tile_of_pair, np.int64)
        self._batch_size, self._rng, self._tiles = batch_size, rng, tiles
        self._excluded, self._company = excluded, company
        self._done = self._last_batch = 0
        self._check()
        self._batches = self._fill()
        self._ready = next(self._batches, None)
        if self._ready is None:
            msg = (
                f"no batch of {batch_size} can be filled: after {self._last_batch} tiles, those "
                "left are all excluded by them; use a smaller batch size, or exclude less"
            )
            raise InputError(msg)

    @property
    def coverage(self) -> EpochCoverage:
        """What has been drawn so far."""
        return EpochCoverage(
            pairs=len(self._tile_of_pair),
            batches=self._done,
            batch_size=self._batch_size,
            last_batch=self._last_batch,
        )

    def __next__(self) -> I64:
        """The next batch."""
        batch = next(self._batches) if self._ready is None else self._ready
        self._ready = None
        self._done += 1
        return batch

    def _check(self) -> None:
        """Refuse what no shuffle could mend."""
        if self._batch_size < 2:
            msg = f"batch size {self._batch_size}; expected at least 2, a pair and a negative"
            raise InputError(msg)
        if self._excluded is not None and len(self._excluded) != self._tiles:
            msg = f"exclusions among {len(self._excluded)} tiles, pairs on {self._tiles}"
            raise InputError(f"{msg}; expected as many")
        distinct = len(np.unique(self._tile_of_pair))
        if distinct < self._batch_size:
            msg = (
                f"{len(self._tile_of_pair)} pairs on {distinct} tiles cannot fill a batch of "
                f"{self._batch_size} in which no tile comes twice; use a smaller batch size or "
                "more data"
            )
            raise InputError(msg)

    def _fill(self) -> Iterator[I64]:
        tile_of_pair, count = self._tile_of_pair.tolist(), len(self._tile_of_pair)
        seeds: deque[int] = deque(self._rng.permutation(count).tolist())
        # Each tile's pairs in random order; `turn` is where the next unused one may be.
        shuffled = self._rng.permutation(count)
        order = shuffled[np.argsort(self._tile_of_pair[shuffled], kind="stable")].tolist()
        unused = np.bincount(self._tile_of_pair, minlength=self._tiles)
        turn = (np.cumsum(unused) - unused).tolist()
        used = bytearray(count)
        # The last batch, by number, that bars a tile: it is in it, or excluded by one that is.
        barred_in = np.full(self._tiles, -1, np.int64)
        number, batch, skipped = 0, [], []

        def take(pair: int, tile: int) -> None:
            used[pair] = True
            unused[tile] -= 1
            barred_in[tile] = number
            if self._excluded is not None:
                barred_in[self._excluded.of(tile)] = number
            batch.append(pair)

        while seeds:
            seed = seeds.popleft()
            if used[seed]:
                continue
            tile = tile_of_pair[seed]
            if barred_in[tile] == number:
                skipped.append(seed)
                continue
            take(seed, tile)
            if self._company is not None:
                near = self._company(seed)
                near = near[(unused[near] > 0) & (barred_in[near] != number)]
                for tile in near.tolist():
                    if len(batch) == self._batch_size:
                        break
                    # One just taken may have barred it.
                    if barred_in[tile] == number:
                        continue
                    while used[order[turn[tile]]]:
                        turn[tile] += 1
                    take(order[turn[tile]], tile)
            if len(batch) == self._batch_size:
                yield np.array(batch, np.int64)
                number, batch = number + 1, []
                seeds.extendleft(reversed(skipped))
                skipped = []
        # What was skipped stays barred until this batch is full, which it cannot be.
        self._last_batch = len(batch)


def hard_negative_batches(
    tile_of_pair: I64,
    neighbours: I32 | I64,
    row_of_pair: I64,
    *,
    batch_size: int,
    select: int,
    rng: np.random.Generator,
    excluded: TileExclusions | None = None,
) -> EpochBatches:
    """Batches of one epoch.

    A random unused pair opens a batch. Of its K neighbour tiles the nearest `select / 2` and as
    many random ones of the others each add one random unused pair, if they have one and are not
    in the batch; then the next random unused pair, until the batch is full. Pairs whose tile is
    already in the batch wait for the next.

    Args:
        tile_of_pair: (P,) row of each pair's tile.
        neighbours: (N, K) the K tiles hardest to tell from a tile or a photo, hardest first.
        row_of_pair: (P,) which row of `neighbours` is each pair's.
        batch_size: pairs per batch.
        select: neighbours taken per seed, half always and half at random; at most K are.
        rng: the only source of randomness: the same state gives the same batches.
        excluded: tiles that never share a batch; None lets all do, as the published scripts.

    Returns:
        An iterator of (batch_size,) pair rows, each at most once. A last batch that cannot be
        filled is dropped; `coverage` says how much that was.

    Raises:
        InputError: columns do not fit, or not one batch can be filled; before the first batch.
    """
    rows = np.asarray(row_of_pair, np.int64)
    pairs = np.asarray(tile_of_pair, np.int64)
    if pairs.shape != rows.shape or neighbours.ndim != 2 or not len(pairs):
        msg = f"{pairs.shape} pairs, {rows.shape} rows in neighbours {neighbours.shape} do not fit"
        raise InputError(f"{msg}; expected (P,), (P,) and (N, K)")
    if not 0 <= rows.min() <= rows.max() < len(neighbours):
        msg = f"rows {rows.min()} to {rows.max()} of {len(neighbours)} rows of neighbours"
        raise InputError(f"{msg}; expected 0 to {len(neighbours) - 1}")
    if select < 0:
        msg = f"select is {select}; expected 0 or more"
        raise InputError(msg)
    tiles = _tile_count(excluded, pairs, neighbours)
    k = neighbours.shape[1]
    nearest = min(select // 2, k)
    random = min(select - nearest, k - nearest)

    def company(pair: int) -> I32 | I64:
        row = neighbours[rows[pair]]
        others = rng.choice(k - nearest, size=random, replace=False) + nearest
        return np.concatenate([row[:nearest], row[others]])

    return EpochBatches(
        pairs,
        batch_size=batch_size,
        rng=rng,
        excluded=excluded,
        company=company if nearest + random else None,
        tiles=tiles,
    )


def random_batches(
    tile_of_pair: I64,
    *,
    batch_size: int,
    rng: np.random.Generator,
    excluded: TileExclusions | None = None,
) -> EpochBatches:
    """Shuffled batches of one epoch, in which no tile comes twice either.

    See `hard_negative_batches` for the arguments, what is returned and the errors.
    """
    pairs = np.asarray(tile_of_pair, np.int64)
    return EpochBatches(
        pairs,
        batch_size=batch_size,
        rng=rng,
        excluded=excluded,
        company=None,
        tiles=_tile_count(excluded, pairs),
    )


def _tile_count(excluded: TileExclusions | None, *rows: I32 | I64) -> int:
    """Number of tiles the rows are of.

    Raises:
        InputError: a row is not one of them.
    """
    highest = max(int(found.max(initial=0)) for found in rows)
    lowest = min(int(found.min(initial=0)) for found in rows)
    count = highest + 1 if excluded is None else len(excluded)
    if lowest < 0 or highest >= count:
        msg = f"tile rows {lowest} to {highest}; expected 0 to {count - 1}"
        raise InputError(msg)
    return count
