"""The ground of an ablation: what is trained on, and unseen photographs against a grid of tiles."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_runtime.geodesy import distance_m
from edge_runtime.imagery import ImageryStore
from edge_runtime.satellite_imagery import write_mbtiles
from export.index_plan import grid_positions
from train.augmentation import cut
from train.config import MARGIN, TrainConfig
from train.pair_table import ImageArray, ImageSet, PairTable, RetrievalTask
from train.pairs import joined, load_pairs, world_folders

Say = Callable[[str], None]

STRIDE_M = 24.0
"""Distance between the gallery's tiles: a quarter of a tile."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A made-up world in memory."""

    training: PairTable
    task: RetrievalTask
    start: Path
    """Checkpoint with pretrained weights."""
    settings: Sequence[str] = ()
    """`NAME=VALUE`, of every config that goes on from there."""
    margin: float = MARGIN


def seed_of_world(world: Path) -> int:
    """The seed that a world was made with.

    Raises:
        InputError: not a world, or one without flights.
    """
    world_folders(world, "held_out")
    return int(json.loads((world / "world.json").read_text())["config"]["seed"])


def read_ground(world: Path, config: TrainConfig, *, start: Path, say: Say) -> Ground:
    """The training pairs, and held-out photographs against a grid of tiles.

    Raises:
        InputError: not a world, or one without flights.
    """
    say("reading the world")

    def pairs(part: str) -> PairTable:
        return joined(
            [
                load_pairs(
                    folder.photos,
                    folder.imagery,
                    telemetry=folder.telemetry,
                    truth=folder.truth,
                    camera=folder.camera,
                    size_m=config.ground_size_m,
                    size_px=config.size_px,
                )
                for folder in world_folders(world, part)
            ]
        )

    training, flown = pairs("train"), pairs("held_out")
    big_px = round(config.size_px * MARGIN)
    big_m = config.ground_size_m * big_px / config.size_px
    with tempfile.TemporaryDirectory() as scratch:
        mbtiles = Path(scratch) / "held_out.mbtiles"
        write_mbtiles([world / "held_out" / "imagery.tif"], mbtiles)
        store = ImageryStore(mbtiles)
        grid = grid_positions(store.bounds, config.ground_size_m, STRIDE_M)
        tiles = np.stack(
            [
                store.patch(lat, lon, size_m=big_m, size_px=big_px).image
                for lat, lon in grid[["lat_deg", "lon_deg"]].tolist()
            ]
        )
        store.close()
    gallery = ImageSet(
        images=ImageArray(tiles),
        view="tile",
        lat_deg=np.ascontiguousarray(grid["lat_deg"]),
        lon_deg=np.ascontiguousarray(grid["lon_deg"]),
    )
    return Ground(training=training, task=nearest_tile_task(flown.photos, gallery), start=start)


def nearest_tile_task(photos: ImageSet, gallery: ImageSet) -> RetrievalTask:
    """Photographs against a grid; the nearest tile is the true one."""
    lat, lon = photos.lat_deg, photos.lon_deg
    if lat is None or lon is None or gallery.lat_deg is None or gallery.lon_deg is None:
        msg = "photographs and tiles need positions"
        raise RuntimeError(msg)
    apart = np.stack(
        [
            distance_m(gallery.lat_deg, gallery.lon_deg, float(a), float(b))
            for a, b in zip(lat, lon, strict=True)
        ]
    )
    return RetrievalTask(
        name="held-out/photo-to-grid",
        queries=photos,
        gallery=gallery,
        query_labels=apart.argmin(axis=1).astype(np.int64),
        gallery_labels=np.arange(len(gallery), dtype=np.int64),
    )


def in_runs(task: RetrievalTask, size: int) -> RetrievalTask:
    """Frames in the order they were flown, in runs that share the label of their middle one."""
    labels = task.query_labels.copy()
    for start in range(0, len(labels), size):
        run = slice(start, start + size)
        labels[run] = task.query_labels[run][len(task.query_labels[run]) // 2]
    return replace(task, query_labels=labels)


def turned(photos: ImageSet, limit_deg: float, config: TrainConfig) -> ImageSet:
    """Photographs as a compass that is off by up to this would turn them."""
    rng = np.random.default_rng(0)
    views = []
    for row in range(len(photos)):
        whole = photos.images.read(row, rng)
        side = round(config.size_px * MARGIN)
        views.append(
            cut(whole, (side, side), 1.0, turn_deg=float(rng.uniform(-limit_deg, limit_deg)))
        )
    return replace(photos, images=ImageArray(np.stack(views)))
