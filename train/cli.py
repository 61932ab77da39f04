"""`python -m train …`: make a world, train, adapt, evaluate, bring weights in."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runtime.command_line import HelpFormatter, run_command
from train import commands
from train.config import TrainConfig
from train.data_arguments import add_data_arguments, add_simulation_arguments

_SETTINGS = ", ".join(field.name for field in dataclasses.fields(TrainConfig))


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn deliberate errors into exit status 2."""
    args = _parser().parse_args(argv)
    hint = "; go on with --resume" if args.command in ("fit", "adapt") else ""
    return run_command(
        "train", lambda: args.run(args), stopped=f"stopped; what was finished is kept{hint}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train Sample4Geo encoders that match drone views with satellite imagery.",
    )
    add = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_world(add)
    _add_fit(add)
    _add_adapt(add)
    _add_eval(add)
    _add_import_weights(add)
    return parser


def _command(add: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = add.add_parser(
        name, help=summary, epilog=f"Example: {example}", formatter_class=HelpFormatter
    )
    return parser


def _add_world(add: Any) -> None:
    world = _command(
        add,
        "world",
        "make a seeded world to train and fly in",
        "python -m train world world --seed 7",
    )
    world.add_argument("out", type=Path, help="folder to write; must not exist or be empty")
    world.add_argument("--seed", type=int, default=7, help="another seed, another world")
    world.add_argument("--train-m", type=float, default=2000.0, help="side of training ground, m")
    world.add_argument("--train-photos", type=int, default=1500, help="photographs over it")
    world.add_argument("--held-out-m", type=float, default=1500.0, help="side of other ground, m")
    world.add_argument("--flights", type=int, default=2, help="flights over the other ground")
    world.add_argument("--frames", type=int, default=100, help="frames per flight, 2 per second")
    world.set_defaults(run=commands.world)


def _add_fit(add: Any) -> None:
    fit = _command(
        add,
        "fit",
        "train an encoder",
        "python -m train fit --world world --out ckpt --set epochs=20\n"
        "         torchrun --nproc-per-node 4 -m train fit --preset cvusa --data CVUSA --out ckpt",
    )
    add_data_arguments(fit, part="train")
    _add_run_arguments(fit)
    fit.add_argument("--from", dest="start", type=Path, help="checkpoint folder to start from")
    _add_weights_argument(fit)
    fit.add_argument("--teacher", type=Path, help="checkpoint to distil: --set distillation=…")
    fit.add_argument(
        "--gpu-gib", type=int, choices=(8, 12, 24), help="make the preset fit one such GPU"
    )
    fit.add_argument(
        "--evaluate", action="store_true", help="measure on the evaluation part as it trains"
    )
    fit.set_defaults(run=commands.fit)


def _add_adapt(add: Any) -> None:
    adapt = _command(
        add,
        "adapt",
        "fine-tune on the imagery of where you will fly, before any flight",
        "python -m train adapt --imagery area.tif --from ckpt --out adapted",
    )
    adapt.add_argument("--imagery", type=Path, required=True, help="georeferenced raster")
    adapt.add_argument(
        "--from", dest="start", type=Path, required=True, help="checkpoint folder to start from"
    )
    _add_run_arguments(adapt)
    adapt.add_argument("--camera", type=Path, help="JSON of the drone's camera")
    add_simulation_arguments(adapt)
    adapt.set_defaults(run=commands.adapt)


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument(
        "--resume", action="store_true", help="go on where the same command was interrupted"
    )
    _add_set_argument(parser)


def _add_set_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"a training setting: {_SETTINGS}",
    )


def _add_weights_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        default=None,
        help="file of pretrained weights; `hub` fetches timm's, `none` starts from nothing. "
        "Presets of public data sets fetch, the made-up world starts from nothing",
    )
    parser.add_argument(
        "--model-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="passed on to timm, as pad_type=same, img_size=256 or num_classes=512 (a head)",
    )


def _add_eval(add: Any) -> None:
    evaluate = _command(
        add,
        "eval",
        "retrieval metrics of a checkpoint",
        "python -m train eval ckpt --world world\n"
        "         python -m train eval ckpt --preset cvact --data CVACT --per-query queries.csv",
    )
    evaluate.add_argument("checkpoint", type=Path, help="folder written by fit")
    add_data_arguments(evaluate, part="held_out")
    evaluate.add_argument("--task", help="only the task of this name")
    evaluate.add_argument("--embedding-size", type=int, help="use so many numbers of an embedding")
    evaluate.add_argument(
        "--fuse", type=int, default=1, help="average so many photos of a place into one query"
    )
    evaluate.add_argument("--out", type=Path, help="write the metrics as JSON here")
    evaluate.add_argument("--per-query", type=Path, help="write a line for every query here (CSV)")
    evaluate.add_argument("--json", action="store_true", help="print the metrics as JSON")
    _add_set_argument(evaluate)
    evaluate.set_defaults(run=commands.evaluate)


def _add_import_weights(add: Any) -> None:
    weights = _command(
        add,
        "import-weights",
        "make a checkpoint of weights from elsewhere",
        "python -m train import-weights weights.safetensors "
        "--architecture mobilenetv2_100 --out ckpt\n"
        "         python -m train import-weights sample4geo.pth --preset cvusa --out ckpt",
    )
    weights.add_argument(
        "weights", type=Path, help="a timm state dict, or an official Sample4Geo checkpoint"
    )
    weights.add_argument("--architecture", help="timm name; known for Sample4Geo checkpoints")
    weights.add_argument("--preset", help="data set the weights were trained on: sets photo sizes")
    weights.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    weights.add_argument("--size-px", type=int, help="side of the square input; else timm's")
    weights.add_argument("--mean", type=float, nargs=3, help="RGB, 0..1; else timm's")
    weights.add_argument("--std", type=float, nargs=3, help="RGB, 0..1; else timm's")
    weights.add_argument("--ground-size-m", type=float, help="ground that the encoder looks at")
    weights.add_argument(
        "--model-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="passed on to timm, as pad_type=same or img_size=256",
    )
    weights.set_defaults(run=commands.import_weights)
