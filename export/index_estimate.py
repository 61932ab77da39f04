"""What an index will cost, before it is built: tiles, hours, megabytes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.backends.protocol import Backend
from edge_runtime.bundle import Bundle
from edge_runtime.imagery import ImageryStore
from edge_runtime.index_format import TILE_DTYPE
from edge_runtime.satellite_imagery import Progress
from export.index_assembly import SearchOptions
from export.index_embedding import BATCH, cutting_threads
from export.index_folder import BuildFolder, build_folder_of
from export.index_pictures import pictures_of_tile
from export.index_plan import PlanOptions
from export.index_preparation import BuildOptions, Prepared, prepare, require_square
from export.index_vectors import CONNECTIVITY, EXACT_NUMBERS

SAMPLED_PLACES = 2000
"""Cut to see how many are left out; maps of fewer places are counted exactly."""
_TIMED_BATCHES = 3
_NUMBER_BYTES = {"f16": 2, "f32": 4, "i8": 1}
_LINK_BYTES = 10
"""Of a neighbour in usearch's graph: the lowest level has twice the connectivity, others few."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a build was found to cost."""

    places: int
    """Where tiles may lie."""
    tiles: int
    """Rows of the index: places that are not left out, times directions."""
    counted: bool
    """Every place was looked at, so `tiles` is exact; else a sample was."""
    rows_per_s: float
    """Measured: cutting and embedding."""
    hours: float
    """Of one process."""
    imagery_mb: float
    vectors_mb: float
    area_km2: float
    """Ground between the tiles of the smallest size."""

    @property
    def index_mb(self) -> float:
        """Of the whole folder."""
        return self.imagery_mb + self.vectors_mb

    @property
    def mb_per_km2(self) -> float:
        """What a square kilometre costs on board; 0 where there is nothing."""
        return self.index_mb / self.area_km2 if self.area_km2 else 0.0

    def as_text(self) -> str:
        """For people, one line a fact."""
        about = "" if self.counted else "about "
        return "\n".join(
            [
                f"{about}{self.tiles} tiles, of {self.places} places looked at",
                f"{_duration(self.hours)} at {self.rows_per_s:.1f} tiles a second in one process",
                f"{self.index_mb:.1f} MB: imagery {self.imagery_mb:.1f}, "
                f"vectors and tables {self.vectors_mb:.1f}",
                f"{self.area_km2:.2f} km2, {self.mb_per_km2:.1f} MB/km2",
            ]
        )


def estimate_index(
    imagery: Sequence[Path],
    out: Path,
    bundle: Bundle,
    backend: Backend,
    plan: PlanOptions,
    options: BuildOptions,
    *,
    say: Callable[[str], None] = lambda _line: None,
    progress: Progress = lambda _stage, _done: None,
) -> Estimate:
    """Say what `build_index` with the same arguments will cost.

    The imagery is made for this and left for the build, which begins with it.

    Args:
        imagery: as there.
        out: as there.
        bundle: as there.
        backend: as there.
        plan: as there.
        options: as there.
        say: told a line that people should see.
        progress: told the stage and the fraction done.
    """
    require_square(bundle)
    folder = BuildFolder(build_folder_of(out))
    if options.restart:
        folder.remove()
    ready = prepare(
        folder, imagery, bundle, backend, plan, options, dry=True, say=say, progress=progress
    )
    return estimate(ready, bundle, backend, options.search, progress)


def estimate(
    prepared: Prepared,
    bundle: Bundle,
    backend: Backend,
    search: SearchOptions,
    progress: Progress = lambda _stage, _done: None,
) -> Estimate:
    """Cut a sample of the places, embed a few batches, and say what all of them will cost.

    Args:
        prepared: staged imagery and planned places.
        bundle: the encoder.
        backend: where it runs.
        search: how vectors will be stored.
        progress: told the stage and the fraction done.
    """
    options, places = prepared.options, prepared.places
    count = len(places)
    sampled = np.unique(np.linspace(0, count - 1, min(count, SAMPLED_PLACES)).astype(int))
    looked = np.zeros(len(options.sizes))
    kept = np.zeros(len(options.sizes))
    batch: list[npt.NDArray[np.uint8]] = []
    store = ImageryStore(prepared.folder.imagery)
    started_s = time.perf_counter()
    for n, place in enumerate(sampled.tolist()):
        level = places.level_of(place)
        pictures = list(
            pictures_of_tile(
                store,
                float(places.lat_deg[place]),
                float(places.lon_deg[place]),
                size_m=options.sizes[level].size_m,
                size_px=bundle.spec.width_px,
                headings_deg=options.headings_deg,
                leave_out=options.leave_out,
            )
        )
        looked[level] += 1
        kept[level] += bool(pictures)
        batch = (batch + [picture.image for picture in pictures])[-BATCH:]
        progress("looking at places", (n + 1) / len(sampled))
    store.close()
    cut_s = (time.perf_counter() - started_s) / max(len(sampled), 1)
    per_level = np.diff(places.level_starts)
    tiles_of = np.where(looked > 0, kept / np.maximum(looked, 1), 0.0) * per_level
    tiles_of = np.round(tiles_of * options.headings).astype(int)
    tiles = int(tiles_of.sum())
    embed_s = _embedding_s(backend, batch)
    # A build cuts ahead while it embeds; on a CPU both want the same cores, so they are added.
    seconds = count * cut_s / cutting_threads() + tiles * embed_s
    smallest = options.sizes[0]
    return Estimate(
        places=count,
        tiles=tiles,
        counted=len(sampled) == count,
        rows_per_s=tiles / seconds if seconds else 0.0,
        hours=seconds / 3600,
        imagery_mb=prepared.folder.imagery.stat().st_size / 1e6,
        vectors_mb=tiles * _row_bytes(bundle.spec.embedding_size, tiles, search) / 1e6,
        area_km2=float(tiles_of[0]) / options.headings * smallest.stride_m**2 / 1e6,
    )


def _embedding_s(backend: Backend, batch: list[npt.NDArray[np.uint8]]) -> float:
    """Seconds per picture, of whole batches."""
    if not batch:
        return 0.0
    images = np.stack((batch * BATCH)[:BATCH])
    backend.embed(images)  # The first call allocates and is not like the others.
    started_s = time.perf_counter()
    for _ in range(_TIMED_BATCHES):
        backend.embed(images)
    return (time.perf_counter() - started_s) / (_TIMED_BATCHES * BATCH)


def _row_bytes(embedding_size: int, rows: int, search: SearchOptions) -> float:
    stored = embedding_size * _NUMBER_BYTES[search.dtype] + TILE_DTYPE.itemsize
    if search.kind == "graph" or (search.kind == "auto" and rows * embedding_size > EXACT_NUMBERS):
        stored += embedding_size + 2 * CONNECTIVITY * _LINK_BYTES
    return stored


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"
