"""What sampling and ranking cost at the size of the published data sets, on made-up data.

**What is inside the clock**: one call, from arrays in memory to arrays in memory. **What is inside
the memory**: the process's peak of resident memory during the calls, less what it held before the
first, inputs included. Each case runs in a fresh process, one after the other.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.memory_use import forget_peak, in_child, resident_mib
from benchmarks.rows import Provenance, cpu_name, provenance
from edge_runtime.backends.protocol import usable_cores
from edge_runtime.errors import InputError
from train.hard_negative_batches import hard_negative_batches
from train.neighbours import gps_neighbours, similarity_neighbours
from train.retrieval_metrics import rank_queries, summarise
from train.tile_overlap import TileExclusions, overlapping_tiles

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

What = Literal["gps", "overlap", "epoch", "similarity", "metrics"]
NEIGHBOURS, SELECT, BATCH_SIZE = 128, 64, 128
"""As published."""
TILE_M, SPACING_M = 72.0, 36.0
"""Of VIGOR's tiles, about."""


class Case(NamedTuple):
    """What is measured, and at what size."""

    what: What
    like: str
    """Data set whose numbers of pairs and tiles are taken."""
    pairs: int
    tiles: int


CASES = (
    Case("gps", "CVUSA", 35_532, 35_532),
    Case("gps", "VIGOR", 105_214, 90_618),
    Case("overlap", "VIGOR", 105_214, 90_618),
    Case("epoch", "CVUSA", 35_532, 35_532),
    Case("epoch", "VIGOR", 105_214, 90_618),
    Case("epoch", "University-1652", 37_854, 701),
    Case("similarity", "CVUSA", 35_532, 35_532),
    Case("metrics", "CVACT test", 92_802, 92_802),
)


@dataclass(frozen=True, kw_only=True)
class SamplingRow(Provenance):
    """Time and memory of one case. See the module for what is inside."""

    kind: Literal["sampling"] = "sampling"
    what: What
    like: str
    pairs: int
    tiles: int
    embedding_size: int | None
    """Where embeddings are compared."""
    runs: int
    median_s: float
    min_s: float
    max_s: float
    peak_mib: float | None
    """None where the kernel does not begin the peak anew and the work stayed below the old one."""
    left_out_pairs: int | None
    """Of an epoch's batches."""
    device: str
    threads: int
    """CPU cores this process may use."""


def run(
    cases: Sequence[Case] = CASES,
    *,
    runs: int = 3,
    embedding_size: int = 64,
    shrink: int = 1,
    done: Callable[[SamplingRow], None] = lambda _row: None,
) -> list[SamplingRow]:
    """Measure every case.

    Args:
        cases: what to measure.
        runs: calls of each; their median, lowest and highest time are reported.
        embedding_size: of the made-up embeddings; the paper's encoder has 1024.
        shrink: divide the numbers of pairs and tiles by this, for a quick look.
        done: called with each row as soon as it is there.

    Raises:
        InputError: a number makes no sense, or the system does not tell a process's memory.
    """
    for name, value in (("runs", runs), ("embedding_size", embedding_size), ("shrink", shrink)):
        if value < 1:
            msg = f"{name} is {value}; expected at least 1"
            raise InputError(msg)
    rows = []
    for case in cases:
        smaller = case._replace(pairs=case.pairs // shrink, tiles=case.tiles // shrink)
        row = in_child(_measure, smaller, runs, embedding_size)
        done(row)
        rows.append(row)
    return rows


def print_sampling(rows: Sequence[SamplingRow]) -> None:
    """One line per case."""
    table = Table(title="Sampling and ranking: arrays in to arrays out", title_style="")
    # Eighty columns hold it; ranges and the rest are in the rows.
    for name in ("what", "size of", "pairs", "tiles", "median s", "MiB", "left out"):
        table.add_column(
            name, no_wrap=True, justify="left" if name in ("what", "size of") else "right"
        )
    for row in rows:
        table.add_row(
            row.what,
            row.like,
            str(row.pairs),
            str(row.tiles),
            f"{row.median_s:.2f}",
            "-" if row.peak_mib is None else f"{row.peak_mib:.0f}",
            "" if row.left_out_pairs is None else str(row.left_out_pairs),
        )
    Console().print(table)
    if not rows:
        return
    sizes = sorted({row.embedding_size for row in rows if row.embedding_size is not None})
    compared = f", embeddings of {', '.join(map(str, sizes))} numbers" if sizes else ""
    print(f"{rows[0].device}, {rows[0].threads} cores, {rows[0].runs} runs each{compared}")


def _measure(case: Case, runs: int, embedding_size: int) -> SamplingRow:
    call = _prepare(case, embedding_size)
    peak_is_ours = forget_peak()
    before, peak_before = resident_mib("VmRSS"), resident_mib("VmHWM")
    times, left_out = [], None
    for _ in range(runs):
        started = time.perf_counter()
        left_out = call()
        times.append(time.perf_counter() - started)
    after = resident_mib("VmHWM")
    return SamplingRow(
        **provenance(),
        what=case.what,
        like=case.like,
        pairs=case.pairs,
        tiles=case.tiles,
        embedding_size=embedding_size if case.what in ("similarity", "metrics") else None,
        runs=runs,
        median_s=statistics.median(times),
        min_s=min(times),
        max_s=max(times),
        peak_mib=after - before if peak_is_ours or after > peak_before else None,
        left_out_pairs=left_out,
        device=cpu_name(),
        threads=usable_cores(),
    )


def _prepare(case: Case, embedding_size: int) -> Callable[[], int | None]:
    """Make the inputs; what is returned does the work to be measured."""
    rng = np.random.default_rng(1)
    tile_of_pair = rng.permutation(np.arange(case.pairs) % case.tiles)
    if case.what in ("similarity", "metrics"):
        tiles = _unit_rows(rng, case.tiles, embedding_size)
        photos = _seen_again(rng, tiles, tile_of_pair)

        def similarity() -> None:
            similarity_neighbours(photos, tiles, NEIGHBOURS, tile_of_query=tile_of_pair)

        def metrics() -> None:
            summarise(rank_queries(photos, tiles, tile_of_pair, np.arange(case.tiles)))

        return similarity if case.what == "similarity" else metrics
    lat_deg, lon_deg = _half_overlapping_grid(rng, case.tiles)
    if case.what == "gps":
        return lambda: _done(gps_neighbours(lat_deg, lon_deg, NEIGHBOURS))
    size_m = np.full(case.tiles, TILE_M)
    if case.what == "overlap":
        return lambda: _done(overlapping_tiles(lat_deg, lon_deg, size_m))
    neighbours = gps_neighbours(lat_deg, lon_deg, NEIGHBOURS)
    # Only VIGOR's tiles overlap.
    excluded = overlapping_tiles(lat_deg, lon_deg, size_m) if case.like == "VIGOR" else None

    def epoch() -> int:
        batches = hard_negative_batches(
            tile_of_pair,
            neighbours,
            tile_of_pair,
            batch_size=BATCH_SIZE,
            select=SELECT,
            rng=rng,
            excluded=excluded,
        )
        for _ in batches:
            pass
        return batches.coverage.dropped

    return epoch


def _done(_: I64 | npt.NDArray[np.int32] | TileExclusions) -> None:
    """Drop a result."""


def _unit_rows(rng: np.random.Generator, rows: int, size: int) -> F32:
    """(rows, size) directions, made in place: scratch memory would hide what is measured."""
    found = rng.standard_normal((rows, size), dtype=np.float32)
    for part in np.array_split(found, max(1, rows // 4096)):
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def _seen_again(rng: np.random.Generator, tiles: F32, tile_of_pair: I64) -> F32:
    """Photos that look like their tile, and somewhat like others."""
    photos = _unit_rows(rng, len(tile_of_pair), tiles.shape[1])
    for rows in np.array_split(np.arange(len(photos)), max(1, len(photos) // 4096)):
        photos[rows] += tiles[tile_of_pair[rows]]
        photos[rows] /= np.linalg.norm(photos[rows], axis=1, keepdims=True)
    return photos


def _half_overlapping_grid(rng: np.random.Generator, tiles: int) -> tuple[F64, F64]:
    """Tiles every SPACING_M, in random order."""
    side = int(np.ceil(np.sqrt(tiles)))
    rows, columns = np.divmod(rng.permutation(tiles), side)
    degrees = SPACING_M / 111_195.0  # Of a great circle.
    lat_deg = 40 + rows * degrees
    return lat_deg, -74 + columns * degrees / np.cos(np.radians(40))
