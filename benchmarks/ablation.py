"""What each part of training is worth: the same start, one thing changed, several seeds.

For every seed an encoder with pretrained weights is first trained with shuffled batches, so that
it knows the task: hard negatives teach a beginner next to nothing. Every variant goes on from there
for the same number of epochs and is measured on ground that no variant saw: photographs of the
held-out flights against a grid of tiles over their whole map, as an index holds them.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.rows import Provenance, append_rows, cpu_name, provenance, read_rows
from edge_runtime.geodesy import distance_m
from edge_runtime.imagery import ImageryStore
from edge_runtime.satellite_imagery import write_mbtiles
from export.index_build import grid_positions
from train.augmentation import cut
from train.config import MARGIN, TrainConfig
from train.encoder import Encoder, load_checkpoint, new_encoder
from train.evaluation import evaluate_task
from train.fit import fit
from train.pair_table import ImageArray, ImageSet, PairTable, RetrievalTask
from train.pairs import joined, load_pairs, world_folders
from train.run_state import run_folder
from train.settings import with_settings

Group = Literal["samplers", "beyond", "distillation"]
Say = Callable[[str], None]

STRIDE_M = 24.0
"""Distance between the gallery's tiles: a quarter of a tile."""

START = replace(
    TrainConfig(),
    size_px=64,
    epochs=3,
    learning_rate=1e-3,
    sampling="random",
    exclude="overlap",
    schedule="constant",
)
"""Shuffled batches, from pretrained weights."""

GOING_ON = replace(
    START, epochs=4, learning_rate=1e-3, warmup_epochs=0.5, schedule="cosine", refresh_epochs=1
)
"""As the paper's 40 epochs, in small: neighbours on the ground for a tenth to a quarter of them."""

STUDENT = replace(
    TrainConfig(),
    size_px=START.size_px,
    epochs=10,
    sampling="random",
    exclude="overlap",
)
"""Smaller and faster than its teacher, and from nothing."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One thing changed."""

    name: str
    group: Group
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the config it goes on with."""
    embedding_size: int | None = None
    """Measured with this prefix of the embedding."""
    turned_deg: float = 0.0
    """Measured with photographs turned by up to this."""
    fuse: int = 1
    """Measured with so many frames averaged."""
    like: str | None = None
    """Trained as this other variant, whose weights are measured."""
    distils: bool = False
    """A student from nothing; with a teacher where its settings say so."""
    asymmetric: bool = False
    """The gallery is the teacher's: photographs by the student, tiles by the teacher."""


VARIANTS = (
    Variant(name="shuffled", group="samplers"),
    Variant(name="GPS", group="samplers", settings={"sampling": "gps"}),
    Variant(name="similarity", group="samplers", settings={"sampling": "similarity"}),
    Variant(name="GPS, then similarity", group="samplers", settings={"sampling": "both"}),
    Variant(
        name="GPS, then similarity; overlapping tiles as negatives",
        group="samplers",
        settings={"sampling": "both", "exclude": "none"},
    ),
    Variant(
        name="shuffled; overlapping tiles as negatives",
        group="samplers",
        settings={"exclude": "none"},
    ),
    Variant(name="photos as negatives too", group="beyond", settings={"photo_negatives": True}),
    Variant(name="weights averaged", group="beyond", settings={"ema_decay": 0.95}),
    Variant(
        name="first 64 numbers, as trained", group="beyond", like="shuffled", embedding_size=64
    ),
    Variant(
        name="first 64 numbers, trained to (Matryoshka)",
        group="beyond",
        settings={"embedding_sizes": (64, 256)},
        embedding_size=64,
    ),
    Variant(
        name="all numbers, trained so",
        group="beyond",
        like="first 64 numbers, trained to (Matryoshka)",
    ),
    Variant(name="heading 30 deg off, as trained", group="beyond", like="shuffled", turned_deg=30),
    Variant(
        name="heading 30 deg off, trained to",
        group="beyond",
        settings={"heading_error_deg": 30.0},
        turned_deg=30,
    ),
    Variant(
        name="heading right, trained so", group="beyond", like="heading 30 deg off, trained to"
    ),
    Variant(name="three frames fused", group="beyond", like="shuffled", fuse=3),
    Variant(name="student alone", group="distillation", distils=True),
    Variant(
        name="student of relations",
        group="distillation",
        settings={"distillation": "relations"},
        distils=True,
    ),
    Variant(
        name="student of embeddings",
        group="distillation",
        settings={"distillation": "embeddings"},
        distils=True,
    ),
    Variant(
        name="student's photos, teacher's tiles",
        group="distillation",
        like="student of embeddings",
        distils=True,
        asymmetric=True,
    ),
)


@dataclass(frozen=True, kw_only=True)
class AblationRow(Provenance):
    """One variant, one seed."""

    kind: str = "ablation"
    variant: str
    group: Group
    seed: int
    world_seed: int
    settings: dict[str, Any]
    epochs: int
    seconds: float
    """Training alone."""
    cpu: str
    queries: int
    gallery: int
    r_at_1: float
    """The nearest tile comes first."""
    success_at_20_m: float
    success_at_50_m: float
    median_m: float


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
            [store.patch(*place, size_m=big_m, size_px=big_px).image for place in grid.tolist()]
        )
        store.close()
    gallery = ImageSet(
        images=ImageArray(tiles),
        view="tile",
        lat_deg=np.ascontiguousarray(grid["lat_deg"]),
        lon_deg=np.ascontiguousarray(grid["lon_deg"]),
    )
    return Ground(training=training, task=_task(flown.photos, gallery), start=start)


def ablate(
    world: Path,
    work: Path,
    out: Path,
    *,
    start: Path,
    groups: Sequence[Group],
    seeds: int,
    world_seed: int,
    settings: Sequence[str] = (),
    say: Say,
) -> list[AblationRow]:
    """Train and measure every variant for every seed that `out` does not have yet.

    Args:
        world: folder of `python -m train world`.
        work: checkpoints; those that are there already are used.
        out: rows, appended one by one, so that an interrupted run goes on.
        start: checkpoint with pretrained weights.
        groups: which variants.
        seeds: 1 to this.
        world_seed: recorded.
        settings: `NAME=VALUE` of the training config, for every variant but students.
        say: told each result.

    Returns:
        The new rows.
    """
    known = set()
    if out.exists():
        known = {(row["variant"], row["seed"]) for row in read_rows(out, kind="ablation")}
    wanted = [variant for variant in VARIANTS if variant.group in groups]
    missing = [
        (seed, variant)
        for seed in range(1, seeds + 1)
        for variant in wanted
        if (variant.name, seed) not in known
    ]
    if not missing:
        return []
    config = with_settings(START, settings)
    ground = replace(read_ground(world, config, start=start, say=say), settings=settings)
    rows = []
    for seed, variant in missing:
        row = _measured(variant, seed, ground, work, world_seed=world_seed)
        append_rows(out, [row])
        rows.append(row)
        say(
            f"seed {seed}, {variant.name}: success@50 m {row.success_at_50_m:.1%}, "
            f"@20 m {row.success_at_20_m:.1%}, median {row.median_m:.1f} m ({row.seconds:.0f} s)"
        )
    return rows


def print_ablation(rows: Sequence[Mapping[str, Any]]) -> None:
    """Means over the seeds, and the difference from the first variant seed by seed."""
    table = Table("variant", "seeds", "success@50 m", "by seed", "success@20 m", "R@1", "median m")
    names = list(dict.fromkeys(row["variant"] for row in rows))
    for name in names:
        own = [row for row in rows if row["variant"] == name]
        fifty = [row["success_at_50_m"] for row in own]
        table.add_row(
            name,
            str(len(own)),
            f"{statistics.mean(fifty):.1%}",
            " ".join(f"{value:.1%}" for value in fifty),
            f"{statistics.mean(row['success_at_20_m'] for row in own):.1%}",
            f"{statistics.mean(row['r_at_1'] for row in own):.1%}",
            f"{statistics.mean(row['median_m'] for row in own):.1f}",
        )
    Console().print(table)


def _measured(
    variant: Variant, seed: int, ground: Ground, work: Path, *, world_seed: int
) -> AblationRow:
    trained = next(v for v in VARIANTS if v.name == (variant.like or variant.name))
    config = _config(trained, seed, ground)
    encoder, seconds = _trained(trained, config, seed, ground, work)
    task = ground.task
    if variant.turned_deg:
        task = replace(task, queries=_turned(task.queries, variant.turned_deg, config))
    tiles_by = None
    if variant.asymmetric:
        tiles_by = _teacher(seed, ground, work)
    elif variant.fuse > 1:
        task = _in_runs(task, variant.fuse)
    found = evaluate_task(
        encoder,
        task,
        config,
        margin=ground.margin,
        embedding_size=variant.embedding_size,
        fuse=variant.fuse,
        gallery_encoder=tiles_by,
    ).metrics
    if found.metres is None:
        msg = "the world's tiles have no positions"
        raise RuntimeError(msg)
    return AblationRow(
        **provenance(),
        variant=variant.name,
        group=variant.group,
        seed=seed,
        world_seed=world_seed,
        settings={
            **dict(trained.settings),
            "embedding_size": variant.embedding_size,
            "turned_deg": variant.turned_deg,
            "fuse": variant.fuse,
        },
        epochs=config.epochs,
        seconds=seconds,
        cpu=cpu_name(),
        queries=found.queries,
        gallery=found.gallery,
        r_at_1=found.r_at_1,
        success_at_20_m=found.metres.success_at_20_m,
        success_at_50_m=found.metres.success_at_50_m,
        median_m=found.metres.median_m,
    )


def _config(variant: Variant, seed: int, ground: Ground) -> TrainConfig:
    going_on = with_settings(GOING_ON, ground.settings)
    base = going_on
    if variant.distils:
        base = replace(
            STUDENT,
            size_px=going_on.size_px,
            precision=going_on.precision,
            threads=going_on.threads,
        )
    return replace(base, seed=seed, **variant.settings)


def _trained(
    variant: Variant, config: TrainConfig, seed: int, ground: Ground, work: Path
) -> tuple[Encoder, float]:
    """A variant's encoder, trained now or before, and the seconds it took."""
    label = "".join(c if c.isalnum() else "_" for c in variant.name)
    out = work / f"{label}_{seed}"
    if not _finished(out, config):
        _train(variant, config, seed, ground, work, out)
    opened = load_checkpoint(out)
    return opened.encoder, sum(epoch["wall_s"] for epoch in opened.config["history"])


def _finished(out: Path, config: TrainConfig) -> bool:
    """Whether a run of so many epochs lies there already."""
    if not (out / "manifest.json").is_file():
        return False
    return len(load_checkpoint(out).config["history"]) == config.epochs


def _train(
    variant: Variant, config: TrainConfig, seed: int, ground: Ground, work: Path, out: Path
) -> None:
    teacher = None
    if variant.distils:
        torch.manual_seed(seed)
        # A head gives the student the teacher's embedding size, so that all students are alike.
        size = _teacher(seed, ground, work).spec.embedding_size
        encoder = new_encoder(
            config.architecture,
            size_px=config.size_px,
            ground_size_m=config.ground_size_m,
            model_args={"num_classes": size},
        )
        if config.distillation != "none":
            teacher = _teacher(seed, ground, work)
    else:
        encoder = _start(seed, ground, work)
    fit(
        encoder,
        ground.training,
        config,
        out,
        teacher=teacher,
        extra={"variant": variant.name},
        resume=(run_folder(out) / "state").is_dir(),
    )


def _start(seed: int, ground: Ground, work: Path) -> Encoder:
    """The encoder every variant of a seed goes on from."""
    out, config = work / f"start_{seed}", replace(with_settings(START, ground.settings), seed=seed)
    if _finished(out, config):
        return load_checkpoint(out).encoder
    encoder = load_checkpoint(ground.start).encoder
    encoder.spec = replace(
        encoder.spec,
        height_px=config.size_px,
        width_px=config.size_px,
        ground_size_m=config.ground_size_m,
    )
    return fit(encoder, ground.training, config, out)


def _teacher(seed: int, ground: Ground, work: Path) -> Encoder:
    """The better trained large encoder of a seed."""
    both = next(v for v in VARIANTS if v.name == "GPS, then similarity")
    return _trained(both, _config(both, seed, ground), seed, ground, work)[0]


def _task(photos: ImageSet, gallery: ImageSet) -> RetrievalTask:
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


def _in_runs(task: RetrievalTask, size: int) -> RetrievalTask:
    """Frames in the order they were flown, in runs that share the label of their middle one."""
    labels = task.query_labels.copy()
    for start in range(0, len(labels), size):
        run = slice(start, start + size)
        labels[run] = task.query_labels[run][len(task.query_labels[run]) // 2]
    return replace(task, query_labels=labels)


def _turned(photos: ImageSet, limit_deg: float, config: TrainConfig) -> ImageSet:
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
