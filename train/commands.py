"""What each `python -m train` command does. Heavy imports wait until a command runs."""

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.artefact import sha256_of, write_atomically
from edge_runtime.errors import InputError
from train.config import TrainConfig, config_from_json
from train.data_arguments import find_tasks, find_training, preset_of, simulated_table
from train.presets import PRESETS, scaled_to_memory
from train.settings import name_value, with_settings

if TYPE_CHECKING:
    from train.distributed import Ranks
    from train.encoder import Encoder
    from train.fit import EpochReport
    from train.pair_table import PairTable, RetrievalTask
    from train.progress import ProgressBars


_ALIGNED = (None, "world", "imagery")
"""Presets whose photos are north-up views of a known size on the ground."""


def world(args: argparse.Namespace) -> None:
    """`python -m train world`."""
    from train.progress import progress_bars
    from train.world import WorldConfig, make_world

    config = WorldConfig(
        seed=args.seed,
        train_size_m=args.train_m,
        train_photos=args.train_photos,
        held_out_size_m=args.held_out_m,
        flights=args.flights,
        frames_per_flight=args.frames,
    )
    with progress_bars() as progress:
        make_world(args.out, config, progress=progress)
    print(f"World written to {args.out}. Next: python -m train fit --world {args.out} --out ckpt")


def fit(args: argparse.Namespace) -> None:
    """`python -m train fit`."""
    config = preset_of(args)
    if args.gpu_gib:
        config = scaled_to_memory(config, args.gpu_gib)
    config = with_settings(_suited(config, args), args.set)
    _check_start(args)
    with _run() as (ranks, progress):
        table_of = find_training(args, config, progress.say)
        tasks_of = find_tasks(args, config, progress.say) if args.evaluate else None
        encoder, config = _start(args, config)
        teacher = None
        if args.teacher is not None:
            from train.encoder import load_checkpoint

            teacher = load_checkpoint(args.teacher).encoder
        table = table_of(config, progress)
        tasks = tasks_of(config, progress)[0] if tasks_of else []
        _fit(args, encoder, table, config, ranks, progress, tasks=tasks, teacher=teacher)


def adapt(args: argparse.Namespace) -> None:
    """`python -m train adapt`."""
    config = with_settings(PRESETS["imagery"], args.set)
    _check_start(args)
    with _run() as (ranks, progress):
        encoder, config = _start(args, config)
        table = simulated_table(args, config, progress)
        extra = {"simulation": args.simulate, "adapted_to": args.imagery.name}
        _fit(args, encoder, table, config, ranks, progress, extra=extra)


def evaluate(args: argparse.Namespace) -> None:
    """`python -m train eval`."""
    from train.encoder import load_checkpoint
    from train.evaluation import evaluate_task

    opened = load_checkpoint(args.checkpoint)
    spec = opened.encoder.spec
    # How the encoder was trained decides the photo's size; imported weights take the preset's.
    trained = opened.config.get("training")
    config = config_from_json(trained) if trained else preset_of(args)
    config = dataclasses.replace(
        config,
        size_px=spec.width_px,
        ground_size_m=spec.ground_size_m or config.ground_size_m,
        shift_m=None,
    )
    config = with_settings(config, args.set)
    rows = []
    with _run(data_out=args.json) as (ranks, progress):
        encoder = opened.encoder.to(ranks.device)
        tasks, margin = find_tasks(args, config, progress.say)(config, progress)
        for task in _named(tasks, args.task):
            found = evaluate_task(
                encoder,
                task,
                config,
                margin=margin,
                embedding_size=args.embedding_size,
                fuse=args.fuse,
                ranks=ranks,
                progress=progress,
            )
            for metrics in filter(None, (found.metrics, found.without_distractors)):
                rows.append({"task": task.name, **metrics.to_json()})
                if not args.json:
                    progress.say(f"{task.name}: {metrics}")
            if ranks.first and args.per_query is not None:
                several = len(tasks) > 1 and args.task is None
                found.write_queries(_one_of_several(args.per_query, task, several=several))
        if not ranks.first:
            return
    if args.out:
        write_atomically(args.out, (json.dumps(rows, indent=1) + "\n").encode())
    if args.json:
        print(json.dumps(rows))


def import_weights(args: argparse.Namespace) -> None:
    """`python -m train import-weights`."""
    from train.encoder import save_checkpoint
    from train.weights import encoder_from_file

    if args.preset is not None and args.preset not in PRESETS:
        msg = f"there is no preset {args.preset!r}; there are {', '.join(sorted(PRESETS))}"
        raise InputError(msg)
    encoder = encoder_from_file(
        args.weights,
        architecture=args.architecture,
        size_px=args.size_px,
        mean=tuple(args.mean) if args.mean else None,
        std=tuple(args.std) if args.std else None,
        photo_size_px=PRESETS[args.preset].photo_size_px if args.preset else None,
        ground_size_m=args.ground_size_m,
        model_args=dict(map(_model_arg, args.model_arg)),
    )
    extra: dict[str, Any] = {
        "imported_from": args.weights.name,
        "imported_sha256": sha256_of(args.weights),
    }
    if args.preset is not None:
        extra["training"] = dataclasses.asdict(PRESETS[args.preset])
    save_checkpoint(args.out, encoder, extra)
    print(
        f"Checkpoint written to {args.out}. "
        f"Next: python -m export bundle --checkpoint {args.out} --out bundle"
    )


@contextmanager
def _run(*, data_out: bool = False) -> "Iterator[tuple[Ranks, ProgressBars]]":
    """Peers and progress of a command; only the first rank shows any.

    Args:
        data_out: standard output is for a program; progress goes to standard error.
    """
    from train.distributed import joined_ranks
    from train.progress import ProgressBars, progress_bars

    with joined_ranks() as ranks:
        if ranks.first:
            with progress_bars(sys.stderr if data_out else None) as progress:
                yield ranks, progress
        else:
            yield ranks, ProgressBars.silent()


def _check_start(args: argparse.Namespace) -> None:
    """Refuse to write over a run that could be resumed, or to resume what is not there."""
    from train.run_state import run_folder

    state = run_folder(args.out) / "state"
    if args.resume and not state.is_dir():
        msg = f"there is no run to resume at {state}; start it without --resume"
        raise InputError(msg)
    if not args.resume and state.is_dir():
        values = json.loads((state / "state.json").read_text())
        if values["epoch"] < values["config"]["epochs"]:
            msg = (
                f"{state} is an unfinished run, {values['epoch']} of "
                f"{values['config']['epochs']} epochs; add --resume, choose another --out, "
                "or remove it"
            )
            raise InputError(msg)


def _start(args: argparse.Namespace, config: TrainConfig) -> "tuple[Encoder, TrainConfig]":
    """The encoder to train, and the config with its sizes."""
    import torch

    from train.encoder import load_checkpoint, new_encoder

    if args.start is not None:
        encoder = load_checkpoint(args.start).encoder
        return encoder, _continued(encoder, config, args)
    weights = args.weights or ("none" if args.preset in _ALIGNED else "hub")
    model_args = dict(map(_model_arg, args.model_arg))
    torch.manual_seed(config.seed)  # Of the weights; fit seeds what comes after them.
    shape: dict[str, Any] = {
        "size_px": config.size_px,
        "photo_size_px": config.photo_size_px,
        # Only aligned views have a scale that the encoder learns.
        "ground_size_m": config.ground_size_m if args.preset in _ALIGNED else None,
        "model_args": model_args,
    }
    if weights == "none":
        return new_encoder(config.architecture, **shape), config
    from train.weights import encoder_from_file, pretrained_encoder

    if weights == "hub":
        return pretrained_encoder(config.architecture, **shape), config
    file = Path(weights)
    return encoder_from_file(file, architecture=config.architecture, **shape), config


def _continued(encoder: "Encoder", config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """The config of training that goes on from a checkpoint: its sizes, unless others are given."""
    given = dict(map(name_value, args.set))
    spec = encoder.spec
    ground_size_m = spec.ground_size_m
    if ground_size_m is None or "ground_size_m" in given:
        ground_size_m = config.ground_size_m
    size_px = config.size_px if "size_px" in given else spec.width_px
    if args.command == "adapt" or args.preset in _ALIGNED:
        encoder.spec = dataclasses.replace(
            spec, height_px=size_px, width_px=size_px, ground_size_m=ground_size_m
        )
    return dataclasses.replace(
        config,
        architecture=spec.architecture,
        size_px=size_px,
        ground_size_m=ground_size_m,
    )


def _suited(config: TrainConfig, args: argparse.Namespace) -> TrainConfig:
    """A preset's learning rate for another network, unless one is given."""
    names = dict(map(name_value, args.set))
    if args.preset in _ALIGNED or "architecture" not in names or "learning_rate" in names:
        return config
    from train.encoder_families import family_of

    own, other = (
        family_of(name).learning_rate for name in (config.architecture, names["architecture"])
    )
    return dataclasses.replace(config, learning_rate=config.learning_rate * other / own)


def _fit(
    args: argparse.Namespace,
    encoder: "Encoder",
    table: "PairTable",
    config: TrainConfig,
    ranks: "Ranks",
    progress: "ProgressBars",
    **options: Any,
) -> None:
    from train.fit import fit as train

    def report(epoch: "EpochReport") -> None:
        found = "".join(
            f", {name} R@1 {metrics['r_at_1']:.1%}" for name, metrics in epoch.retrieval.items()
        )
        skipped = f", {epoch.unreadable} pairs left out" if epoch.unreadable else ""
        progress.say(
            f"epoch {epoch.epoch}/{config.epochs}: loss {epoch.loss:.3f} nats, "
            f"{epoch.pairs_per_s:.0f} pairs/s, batches by {epoch.sampler}{found}{skipped}"
        )

    train(
        encoder,
        table,
        config,
        args.out,
        ranks=ranks,
        resume=args.resume,
        report=report,
        say=progress.say,
        progress=progress,
        command_line=shlex.join(["python", "-m", "train", *sys.argv[1:]]),
        **options,
    )
    if ranks.first:
        from train.run_state import run_folder

        progress.say(
            f"Checkpoint written to {args.out}, curves to {run_folder(args.out)}/summary.html. "
            f"Next: python -m export bundle --checkpoint {args.out} --out bundle"
        )


def _named(tasks: "Sequence[RetrievalTask]", name: str | None) -> "Sequence[RetrievalTask]":
    if name is None:
        return tasks
    chosen = [task for task in tasks if name in (task.name, task.name.split("/", 1)[-1])]
    if not chosen:
        msg = f"there is no task {name!r}; there are {', '.join(task.name for task in tasks)}"
        raise InputError(msg)
    return chosen


def _one_of_several(path: Path, task: "RetrievalTask", *, several: bool) -> Path:
    """A path of the task's own where there are several."""
    if not several:
        return path
    return path.with_name(f"{path.stem}-{task.name.replace('/', '-')}{path.suffix}")


def _model_arg(item: str) -> tuple[str, Any]:
    """Numbers and booleans as JSON writes them; anything else is text."""
    name, text = name_value(item)
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text
