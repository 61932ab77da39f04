"""Which pairs meet in which batch: the epoch's plan, made alike on every rank."""

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from train.config import TrainConfig
from train.distributed import Ranks
from train.embedding import Progress, embed_set
from train.encoder import Encoder
from train.hard_negative_batches import (
    EpochCoverage,
    hard_negative_batches,
    random_batches,
)
from train.neighbours import gps_neighbours, similarity_neighbours
from train.pair_table import PairTable
from train.tile_overlap import TileExclusions, overlapping_tiles

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


class BatchPlan:
    """Chooses each epoch's batches and keeps the neighbour table between refreshes.

    An epoch's batches depend on the seed, the epoch and the table alone, so a run that is resumed
    goes on with the batches it would have had.
    """

    def __init__(self, table: PairTable, config: TrainConfig) -> None:
        """Find the neighbours on the ground, where they are asked for.

        Raises:
            InputError: GPS sampling without positions, or no footprints to exclude by.
        """
        self._table, self._config = table, config
        self.neighbours: I32 | None = None
        """(N, K) tile rows: by tile after GPS, by pair after a similarity refresh."""
        self.name = "chance"
        self.coverage: EpochCoverage | None = None
        """Of the last epoch planned: what did not fit into a batch."""
        self.excluded = _exclusions(table, config)
        if config.sampling in ("gps", "both"):
            lat_deg, lon_deg = _positions(table)
            most = 0 if self.excluded is None else int(self.excluded.counts().max(initial=0))
            found = gps_neighbours(
                lat_deg, lon_deg, config.neighbours + most, mode=config.gps_distance
            )
            self.neighbours = _allowed(found, self.excluded, config.neighbours)
            self.name = "distance on the ground"

    def restore(self, neighbours: I32 | None, name: str) -> None:
        """Go on with the table of an interrupted run."""
        self.neighbours, self.name = neighbours, name

    def due(self, epoch: int) -> bool:
        """Whether neighbours are to be computed anew before this epoch, counted from 0."""
        learned = self._config.sampling in ("similarity", "both")
        return learned and epoch > 0 and epoch % self._config.refresh_epochs == 0

    def refresh(self, encoder: Encoder, epoch: int, ranks: Ranks, progress: Progress) -> int:
        """Take the encoder's own eyes for neighbours; the work is shared between ranks.

        Returns:
            How many images could not be read; they count as like nothing in particular.
        """
        table = self._table
        photos, tiles = (
            embed_set(
                encoder,
                images,
                self._config,
                margin=table.margin,
                ranks=ranks,
                stage=f"neighbours: {images.view}s",
                progress=progress,
            )
            for images in (table.photos, table.tiles)
        )
        own = similarity_neighbours(
            photos.embeddings,
            tiles.embeddings,
            self._config.neighbours,
            tile_of_query=table.tile_of_photo,
            excluded=self.excluded,
            rows=ranks.span(len(table)),
        )
        self.neighbours = ranks.joined(own)
        self.name = f"similarity after epoch {epoch}"
        return ranks.total(len(photos.unreadable) + len(tiles.unreadable))

    def epoch(self, epoch: int) -> list[I64]:
        """The batches of an epoch, counted from 0, each (batch_size,) pair rows."""
        config, table = self._config, self._table
        rng = np.random.default_rng([config.seed, epoch])
        tiles = table.tile_of_photo
        if self.neighbours is None:
            drawn = random_batches(
                tiles, batch_size=config.batch_size, rng=rng, excluded=self.excluded
            )
        else:
            by_pair = self.name.startswith("similarity")
            drawn = hard_negative_batches(
                tiles,
                self.neighbours,
                np.arange(len(tiles), dtype=np.int64) if by_pair else tiles,
                batch_size=config.batch_size,
                select=config.select,
                rng=rng,
                excluded=self.excluded,
            )
        batches = list(drawn)
        self.coverage = drawn.coverage
        return batches


def _positions(table: PairTable) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    tiles = table.tiles
    if tiles.lat_deg is None or tiles.lon_deg is None:
        msg = f"{table.name} has no positions; choose sampling=similarity or random"
        raise InputError(msg)
    return tiles.lat_deg, tiles.lon_deg


def _exclusions(table: PairTable, config: TrainConfig) -> TileExclusions | None:
    if config.exclude == "none":
        return None
    if config.exclude == "semi-positives":
        if not table.semi_positives.size:
            return None
        return TileExclusions.from_semi_positives(
            table.tile_of_photo, table.semi_positives, count=len(table.tiles)
        )
    lat_deg, lon_deg = _positions(table)
    if table.tiles.size_m is None:
        msg = f"{table.name} does not say how large its tiles are; choose exclude=none"
        raise InputError(msg)
    return overlapping_tiles(
        lat_deg, lon_deg, table.tiles.size_m, min_overlap=config.exclude_overlap
    )


def _allowed(found: I32, excluded: TileExclusions | None, k: int) -> I32:
    """(T, K) the first K neighbours of each tile that are not excluded by it."""
    if excluded is None:
        return found[:, :k]
    count = len(found)
    tile, other = excluded.pairs_of(np.arange(count))
    barred = np.isin(np.arange(count)[:, None] * count + found, tile * count + other)
    # Stable: what is allowed keeps its order and comes first.
    order = np.argsort(barred, axis=1, kind="stable")
    kept = max(1, min(k, int((~barred).sum(axis=1).min())))
    return np.take_along_axis(found, order, axis=1)[:, :kept]
