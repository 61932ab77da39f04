"""What each part of training is worth: the same start, one thing changed, several seeds.

For every seed an encoder with pretrained weights is first trained with shuffled batches, so that
it knows the task: hard negatives teach a beginner next to nothing. Every variant goes on from there
for the same number of epochs and is measured on ground that no variant saw: photographs of the
held-out flights against a grid of tiles over their whole map, as an index holds them.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.ablation_ground import Ground, Say, in_runs, read_ground, turned
from benchmarks.ablation_variants import GOING_ON, START, STUDENT, VARIANTS, Group, Variant
from benchmarks.rows import Provenance, append_rows, cpu_name, provenance, read_rows
from train.config import TrainConfig
from train.encoder import Encoder, load_checkpoint, new_encoder
from train.evaluation import evaluate_task
from train.fit import fit
from train.run_state import run_folder
from train.settings import with_settings


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
        task = replace(task, queries=turned(task.queries, variant.turned_deg, config))
    tiles_by = None
    if variant.asymmetric:
        tiles_by = _teacher(seed, ground, work)
    elif variant.fuse > 1:
        task = in_runs(task, variant.fuse)
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
