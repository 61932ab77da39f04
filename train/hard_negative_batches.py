"""Batches in which every pair has to be told from its neighbours.

(Deuser et al. 2023, section 3.2: GPS sampling for the first epochs, then dynamic similarity
sampling; both fill batches by the same rule from a different neighbour table.)
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError

I64 = npt.NDArray[np.int64]


def hard_negative_batches(
    neighbours: I64, *, batch_size: int, select: int, rng: np.random.Generator
) -> Iterator[I64]:
    """Yield the batches of one epoch.

    A random unused location opens a batch. Of its K neighbours the nearest `select / 2` and as
    many random ones of the others are added, each if this epoch has not used it yet; then the next
    seed, until the batch is full.

    Args:
        neighbours: (T, K) the K locations hardest to tell from each, hardest first.
        batch_size: locations per batch.
        select: neighbours taken per seed, half always and half at random; at most K are.
        rng: the only source of randomness.

    Yields:
        (batch_size,) locations, each at most once per epoch. A last batch that cannot be filled
        is dropped.

    Raises:
        InputError: fewer locations than a batch.
    """
    count, k = neighbours.shape
    if count < batch_size:
        msg = (
            f"{count} locations cannot fill a batch of {batch_size} in which none comes twice; "
            "use a smaller batch size or more data"
        )
        raise InputError(msg)
    nearest = min(select // 2, k)
    random = min(select - nearest, k - nearest)
    used = np.zeros(count, bool)
    batch: list[int] = []
    for seed in rng.permutation(count):
        if used[seed]:
            continue
        row = neighbours[seed]
        others = rng.choice(k - nearest, size=random, replace=False) + nearest
        group = np.concatenate([[seed], row[:nearest], row[others]])
        for location in group[~used[group]]:
            # A seed's neighbours are distinct, so the mask above is enough.
            used[location] = True
            batch.append(int(location))
            if len(batch) == batch_size:
                yield np.array(batch, np.int64)
                batch = []
                break


def random_batches(count: int, *, batch_size: int, rng: np.random.Generator) -> Iterator[I64]:
    """Yield an epoch of plain shuffled batches; a last one that is not full is dropped.

    Raises:
        InputError: fewer locations than a batch.
    """
    if count < batch_size:
        msg = f"{count} locations cannot fill a batch of {batch_size}; use a smaller batch size"
        raise InputError(msg)
    order = rng.permutation(count).astype(np.int64)
    for start in range(0, count - batch_size + 1, batch_size):
        yield order[start : start + batch_size]
