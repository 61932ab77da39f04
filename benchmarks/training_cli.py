"""`python -m benchmarks ablation`, `sampling`, `loading` and `training-speed`."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.command_parts import (
    add_command,
    add_output,
    emit,
    folder_path,
    require_counts,
    rows_path,
    say,
)
from benchmarks.resuming import measured_rows, say_kept
from benchmarks.rows import read_rows

if TYPE_CHECKING:
    from benchmarks.loading import LoadingRow


_LOADING_RUNS = 5


def add_ablation(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(add, "ablation", "what each part of training is worth, by seed", ablation)
    parser.add_argument("--world", type=Path, required=True, help="of python -m train world")
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        required=True,
        help="checkpoint of pretrained weights: python -m train import-weights",
    )
    parser.add_argument("--work", type=folder_path, required=True, help="folder for checkpoints")
    parser.add_argument(
        "--out", type=rows_path, required=True, help="rows, .jsonl; goes on with it"
    )
    parser.add_argument(
        "--group",
        action="append",
        choices=("samplers", "beyond", "distillation"),
        help="which variants; all by default",
    )
    parser.add_argument("--seeds", type=int, default=3, help="train with seeds 1 to this")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a training setting of every variant, as freeze_norms=true",
    )


def add_sampling(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add, "sampling", "cost of samplers and ranking at published sizes", sampling
    )
    parser.add_argument("--runs", type=int, default=3, help="of each case")
    parser.add_argument("--embedding-size", type=int, default=64, help="numbers of an embedding")
    add_output(parser, goes_on=True)


def add_loading(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add, "loading", "images a second that one core reads and augments", loading
    )
    parser.add_argument("--runs", type=int, default=_LOADING_RUNS, help="repetitions")
    add_output(parser, goes_on=True)


def add_training_speed(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add,
        "training-speed",
        "images a second of training steps and of one core's loading, and memory",
        training_speed,
    )
    parser.add_argument("--recipe", default="world", help="of python -m train")
    parser.add_argument(
        "--architecture", nargs="+", default=[None], help="timm names; the recipe's by default"
    )
    parser.add_argument("--size-px", type=int, help="side of the pictures; the recipe's by default")
    parser.add_argument("--pairs", type=int, help="in a step; the recipe's by default")
    parser.add_argument("--seconds", type=float, default=10.0, help="of steps, at least")
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument("--runs", type=int, default=1, help="repetitions of all")
    parser.add_argument("--no-loading", action="store_true", help="steps alone")
    add_output(parser, goes_on=True)


def ablation(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.ablation import ablate, print_ablation
    from benchmarks.ablation_ground import seed_of_world

    require_counts(seeds=args.seeds)
    ablate(
        args.world,
        args.work,
        args.out,
        start=args.start,
        groups=args.group or ("samplers", "beyond", "distillation"),
        seeds=args.seeds,
        world_seed=seed_of_world(args.world),
        settings=args.set,
        say=lambda line: print(line, flush=True),
    )
    print_ablation(read_rows(args.out, kind="ablation"))


def sampling(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.sampling import CASES, SamplingRow, print_sampling, run

    require_counts(runs=args.runs, embedding_size=args.embedding_size)
    kept = measured_rows(args, "sampling")
    rows: list[SamplingRow] = []

    def done(row: SamplingRow) -> None:
        rows.append(row)
        emit(args, [row])

    for case in CASES:
        # Where nothing is compared the size of embeddings is no matter.
        sizes = {args.embedding_size, None}
        before = kept.find(
            where=lambda row: row["embedding_size"] in sizes,  # noqa: B023  (called at once)
            runs=args.runs,
            **case._asdict(),
        )
        if before is None:
            run([case], runs=args.runs, embedding_size=args.embedding_size, done=done)
        else:
            say_kept(args, f"{case.what}, {case.like}", before)
            rows.append(SamplingRow(**before))
    if not args.json:
        print_sampling(rows)


def loading(args: argparse.Namespace) -> None:
    """Run the command."""
    require_counts(runs=args.runs)
    rows = _loading(args, args.runs)
    if not args.json:
        for row in rows:
            spread = f"{row.images_per_s_low:.0f} to {row.images_per_s_high:.0f}"
            print(
                f"{row.recipe}: {row.images_per_s:.0f} images/s a core ({spread}), "
                f"{row.source_px} JPEG of {row.source_kib:.0f} KiB to {row.encoder_px}"
            )


def training_speed(args: argparse.Namespace) -> None:
    """Run the command."""
    import torch

    from benchmarks.training_speed import TrainingSpeedPlan, in_words
    from benchmarks.training_speed import training_speed as measured

    require_counts(runs=args.runs)
    plans = [
        TrainingSpeedPlan(
            recipe=args.recipe,
            architecture=architecture,
            size_px=args.size_px,
            pairs=args.pairs,
            seconds=args.seconds,
            threads=args.threads,
            run=run,
        )
        for run in range(args.runs)
        for architecture in args.architecture
    ]
    configs = [plan.config() for plan in plans]
    loaded = [] if args.no_loading else _loading(args, _LOADING_RUNS)
    kept = measured_rows(args, "training-speed")
    for plan, config in zip(plans, configs, strict=True):
        what = f"[{plan.run + 1}/{args.runs}] steps of {config.architecture}"
        before = kept.find(
            least_calls=plan.steps,
            least_s=plan.seconds,
            items=2 * config.batch_size,
            recipe=plan.recipe,
            architecture=config.architecture,
            size_px=config.size_px,
            pairs=config.batch_size,
            precision=config.precision,
            threads=config.threads or torch.get_num_threads(),
            run=plan.run,
        )
        if before is not None:
            say_kept(args, what, before)
            continue
        say(what)
        row = measured(plan)
        emit(args, [row])
        if not args.json:
            print("\n".join(in_words(row, loaded)))
    if not args.json:
        rows = shlex.quote(str(args.out or "ROWS.jsonl"))
        print(f"next: python -m benchmarks compare BEFORE.jsonl {rows}")


def _loading(args: argparse.Namespace, runs: int) -> "list[LoadingRow]":
    """Both recipes' rows, measured now where the file does not have them."""
    from benchmarks.loading import RECIPES, LoadingRow, loading_rows

    kept = measured_rows(args, "loading")
    before = [kept.find(recipe=recipe, runs=runs) for recipe in RECIPES]
    found = [row for row in before if row is not None]
    if len(found) == len(RECIPES):
        for row in found:
            say_kept(args, f"loading, {row['recipe']}", row)
        return [LoadingRow(**row) for row in found]
    say("loading: two recipes on one core")
    rows = loading_rows(runs=runs)
    emit(args, rows)
    return rows
