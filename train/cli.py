"""`python -m train …`: make a world, train, evaluate, bring weights in."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runtime.artefact import write_atomically
from edge_runtime.errors import InputError, SkyfixError
from train.config import TrainConfig


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and the example below them on one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn deliberate errors into exit status 2."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except SkyfixError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train: stopped; what was finished is kept", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train Sample4Geo encoders that match drone views with satellite imagery.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shown: dict[str, Any] = {"formatter_class": _HelpFormatter}

    world = commands.add_parser(
        "world",
        help="make a seeded world to train and fly in",
        epilog="Example: python -m train world world --seed 7",
        **shown,
    )
    world.add_argument("out", type=Path, help="folder to write; must not exist or be empty")
    world.add_argument("--seed", type=int, default=7, help="another seed, another world")
    world.add_argument("--train-m", type=float, default=2000.0, help="side of training ground, m")
    world.add_argument("--train-photos", type=int, default=1500, help="photographs over it")
    world.add_argument("--held-out-m", type=float, default=1500.0, help="side of other ground, m")
    world.add_argument("--flights", type=int, default=2, help="flights over the other ground")
    world.add_argument("--frames", type=int, default=100, help="frames per flight, 2 per second")
    world.set_defaults(run=_world)

    fit = commands.add_parser(
        "fit",
        help="train an encoder on a world or on your own photographs",
        epilog="Example: python -m train fit --world world --out ckpt --set epochs=20",
        **shown,
    )
    _add_data_arguments(fit, part="train")
    fit.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    fit.add_argument("--from", dest="start", type=Path, help="checkpoint folder to start from")
    fit.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"a training setting: {', '.join(f.name for f in dataclasses.fields(TrainConfig))}",
    )
    fit.set_defaults(run=_fit)

    evaluate = commands.add_parser(
        "eval",
        help="retrieval metrics of a checkpoint, photo to tile",
        epilog="Example: python -m train eval ckpt --world world",
        **shown,
    )
    evaluate.add_argument("checkpoint", type=Path, help="folder written by fit")
    _add_data_arguments(evaluate, part="held_out")
    evaluate.add_argument("--out", type=Path, help="write the metrics as JSON here")
    evaluate.add_argument("--json", action="store_true", help="print the metrics as JSON")
    evaluate.set_defaults(run=_eval)

    weights = commands.add_parser(
        "import-weights",
        help="make a checkpoint of a plain timm state dict",
        epilog="Example: python -m train import-weights weights.safetensors "
        "--architecture mobilenetv2_100 --out ckpt",
        **shown,
    )
    weights.add_argument("weights", type=Path, help="safetensors file with timm's names")
    weights.add_argument("--architecture", required=True, help="timm name, as mobilenetv2_100")
    weights.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    weights.add_argument("--size-px", type=int, default=224, help="side of the square input")
    weights.add_argument("--mean", type=float, nargs=3, default=[0.485, 0.456, 0.406], help="RGB")
    weights.add_argument("--std", type=float, nargs=3, default=[0.229, 0.224, 0.225], help="RGB")
    weights.add_argument(
        "--model-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="passed on to timm, as pad_type=same or img_size=256",
    )
    weights.set_defaults(run=_import_weights)
    return parser


def _add_data_arguments(parser: argparse.ArgumentParser, *, part: str) -> None:
    data = parser.add_argument_group(
        "data", f"a world (its {part} part), or your own photographs: all five of the others"
    )
    data.add_argument("--world", type=Path, help="folder written by python -m train world")
    data.add_argument("--photos", type=Path, help="folder of photographs")
    data.add_argument("--imagery", type=Path, help="georeferenced raster below them")
    data.add_argument("--telemetry", type=Path, help="CSV: filename, height_m, yaw_deg, …")
    data.add_argument("--truth", type=Path, help="CSV: filename, lat_deg, lon_deg, height_m, …")
    data.add_argument("--camera", type=Path, help="JSON: width_px, height_px, hfov_deg, …")


def _world(args: argparse.Namespace) -> None:
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


def _fit(args: argparse.Namespace) -> None:
    config = config_with(TrainConfig(), args.set)
    folders = _folders(args, "train")

    import torch

    from train.encoder import load_checkpoint, new_encoder
    from train.fit import EpochReport, fit
    from train.progress import progress_bars

    with progress_bars() as progress:
        if args.start is not None:
            encoder = load_checkpoint(args.start).encoder
            config = dataclasses.replace(
                config,
                architecture=encoder.spec.architecture,
                size_px=encoder.spec.width_px,
                ground_size_m=encoder.spec.ground_size_m or config.ground_size_m,
            )
        else:
            torch.manual_seed(config.seed)  # Of the weights; fit seeds what comes after them.
            encoder = new_encoder(
                config.architecture, size_px=config.size_px, ground_size_m=config.ground_size_m
            )
        pairs = _pairs(folders, config.ground_size_m, config.size_px, progress)

        def report(epoch: EpochReport) -> None:
            progress.say(
                f"epoch {epoch.epoch}/{config.epochs}: loss {epoch.loss:.3f} nats, "
                f"{epoch.pairs_per_s:.0f} pairs/s, batches by {epoch.sampler}"
            )

        fit(encoder, pairs, config, args.out, report=report, progress=progress)
    print(
        f"Checkpoint written to {args.out}. "
        f"Next: python -m export bundle --checkpoint {args.out} --out bundle"
    )


def _eval(args: argparse.Namespace) -> None:
    folders = _folders(args, "held_out")

    from train.encoder import load_checkpoint
    from train.fit import evaluate
    from train.progress import progress_bars

    opened = load_checkpoint(args.checkpoint)
    spec = opened.encoder.spec
    with progress_bars() as progress:
        size_m = spec.ground_size_m or TrainConfig().ground_size_m
        pairs = _pairs(folders, size_m, spec.width_px, progress)
        metrics = evaluate(opened.encoder, pairs)
    values = metrics.to_json()
    if args.out:
        write_atomically(args.out, (json.dumps(values, indent=1) + "\n").encode())
    if args.json:
        print(json.dumps(values))
        return
    print(
        f"R@1 {metrics.r_at_1:.1%}, R@5 {metrics.r_at_5:.1%}, R@10 {metrics.r_at_10:.1%}, "
        f"R@1% {metrics.r_at_1_percent:.1%} (K = {metrics.k_of_1_percent}); "
        f"{metrics.queries} photos against {metrics.gallery} tiles"
    )


def _import_weights(args: argparse.Namespace) -> None:
    from edge_runtime.artefact import sha256_of
    from train.encoder import load_timm_weights, new_encoder, save_checkpoint

    if not args.weights.is_file():
        msg = f"{args.weights} is not a file; expected a safetensors file with timm's names"
        raise InputError(msg)
    encoder = new_encoder(
        args.architecture,
        size_px=args.size_px,
        mean=tuple(args.mean),
        std=tuple(args.std),
        model_args=dict(map(_model_arg, args.model_arg)),
    )
    load_timm_weights(encoder, args.weights)
    save_checkpoint(
        args.out,
        encoder,
        {"imported_from": args.weights.name, "imported_sha256": sha256_of(args.weights)},
    )
    print(
        f"Checkpoint written to {args.out}. "
        f"Next: python -m export bundle --checkpoint {args.out} --out bundle"
    )


def config_with(config: TrainConfig, settings: Sequence[str]) -> TrainConfig:
    """A training config with `NAME=VALUE` settings applied, checked against the field's type.

    Raises:
        InputError: an unknown name (the known ones are listed), or a value of another type, or out
            of its range.
    """
    fields = {f.name: f for f in dataclasses.fields(TrainConfig)}
    values: dict[str, Any] = {}
    for item in settings:
        name, text = _name_value(item)
        if name not in fields:
            import difflib

            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            msg = f"there is no setting {name!r}; {hint}Known: {', '.join(fields)}"
            raise InputError(msg)
        current = getattr(config, name)
        kind = int if name == "threads" else type(current)
        try:
            values[name] = kind(text)
        except ValueError as error:
            msg = f"setting {name} is {text!r}; expected {kind.__name__}"
            raise InputError(msg) from error
    return dataclasses.replace(config, **values)


def _name_value(item: str) -> tuple[str, str]:
    name, separator, value = item.partition("=")
    if not separator:
        msg = f"{item!r} is not NAME=VALUE"
        raise InputError(msg)
    return name.strip(), value.strip()


def _model_arg(item: str) -> tuple[str, Any]:
    """Numbers and booleans as JSON writes them; anything else is text."""
    name, text = _name_value(item)
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text


def _folders(args: argparse.Namespace, part: str) -> list[Any]:
    from train.pairs import PhotoFolder, world_folders

    own = {
        name: getattr(args, name) for name in ("photos", "imagery", "telemetry", "truth", "camera")
    }
    if args.world is not None:
        return list(world_folders(args.world, part))
    missing = [f"--{name}" for name, value in own.items() if value is None]
    if missing:
        msg = f"no data: give --world, or your own photographs with {', '.join(missing)} too"
        raise InputError(msg)
    return [PhotoFolder(**own)]


def _pairs(folders: Sequence[Any], size_m: float, size_px: int, progress: Any) -> Any:
    from train.pairs import joined, load_pairs

    return joined(
        [
            load_pairs(
                folder.photos,
                folder.imagery,
                telemetry=folder.telemetry,
                truth=folder.truth,
                camera=folder.camera,
                size_m=size_m,
                size_px=size_px,
                progress=progress,
            )
            for folder in folders
        ]
    )
