"""`python -m export …`: checkpoints to bundles, imagery to indexes."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runtime.command_line import HelpFormatter, run_command
from edge_runtime.precision import PRECISIONS
from export.index_cli import add_index


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn deliberate errors into exit status 2."""
    args = _parser().parse_args(argv)
    return run_command(
        "export",
        lambda: args.run(args),
        stopped="stopped; nothing half-written was left, and an index goes on where it was",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export", description="Make what flies: encoder bundles, satellite indexes."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_bundle(commands)
    add_index(commands)
    _add_inspect(commands)
    return parser


def _add_bundle(commands: Any) -> None:
    bundle = commands.add_parser(
        "bundle",
        help="checkpoint to ONNX and TensorRT, through gates",
        epilog="Example: python -m export bundle --checkpoint ckpt --out bundle --calibration "
        "photos area.tif",
        formatter_class=HelpFormatter,
    )
    bundle.add_argument(
        "--checkpoint",
        required=True,
        help="folder of train fit, official Sample4Geo file, timm weights file, or timm name",
    )
    bundle.add_argument("--architecture", help="timm name, for a file that does not say its own")
    bundle.add_argument("--size-px", type=int, help="side of the input, for a file or timm name")
    bundle.add_argument("--out", type=Path, required=True, help="bundle folder to write")
    bundle.add_argument(
        "--calibration",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="photographs and maps of yours: folders, images, GeoTIFFs; made-up images without",
    )
    bundle.add_argument("--tile-m", type=float, help="side of the squares cut from maps, m")
    bundle.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=["fp32", "fp16"],
        help="what to export; fp32 always is",
    )
    bundle.add_argument(
        "--int8-target",
        choices=("cpu", "tensorrt"),
        default="cpu",
        help="whose kernels an INT8 encoder is for",
    )
    bundle.add_argument(
        "--index", type=Path, help="satellite index to look places up in, as the last gate"
    )
    bundle.add_argument(
        "--embedding-size", type=int, help="keep so many numbers of an embedding (Matryoshka)"
    )
    bundle.add_argument(
        "--engine", action="store_true", help="build the TensorRT engine of this machine too"
    )
    bundle.set_defaults(run=_bundle)


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="layers, precisions, FLOPs, bytes and rooflines of an encoder",
        epilog='Example: python -m export inspect bundle --device "Orin NX 16GB"',
        formatter_class=HelpFormatter,
    )
    inspect.add_argument("encoder", type=Path, help="bundle folder, or an ONNX file")
    inspect.add_argument("--batch", type=int, default=1, help="images at a time")
    inspect.add_argument(
        "--device",
        nargs="+",
        metavar="NAME",
        help="devices of the roofline; all known ones and this machine by default",
    )
    inspect.add_argument("--nodes", action="store_true", help="list every node too")
    inspect.add_argument("--json", action="store_true", help="for programs")
    inspect.set_defaults(run=_inspect)


def _bundle(args: argparse.Namespace) -> None:
    from export.bundle_export import export_bundle
    from export.checkpoint_source import open_checkpoint
    from train.progress import progress_bars

    if args.engine:
        from edge_runtime.backends.trt_library import require_tensorrt

        require_tensorrt()  # Before minutes are spent on the rest.
    opened = open_checkpoint(args.checkpoint, architecture=args.architecture, size_px=args.size_px)
    with progress_bars() as progress:
        done = export_bundle(
            opened,
            args.out,
            calibration=args.calibration,
            precisions=["fp32", *(p for p in args.precision if p != "fp32")],
            embedding_size=args.embedding_size,
            index=args.index,
            int8_target=args.int8_target,
            tile_m=args.tile_m,
            say=progress.say,
            progress=progress,
        )
    print(f"Bundle with {', '.join(done.shipped)} written to {args.out}.")
    if args.engine:
        _build_engine(args.out)
    print(f"Next: python -m export index --bundle {args.out} --imagery MAP.tif --out index")


def _build_engine(root: Path) -> None:
    from edge_runtime.backends.trt_engines import build_engine
    from edge_runtime.bundle import Bundle
    from edge_runtime.engine_progress import BuildLine
    from edge_runtime.engine_store import EngineOptions, engines_of

    bundle, line = Bundle.open(root), BuildLine()
    try:
        record = build_engine(bundle, EngineOptions(), progress=line)
    finally:
        line.close()
    print(f"Engine written to {engines_of(bundle) / record.name}.")


def _inspect(args: argparse.Namespace) -> None:
    from export.inspection import DEVICE_NAMES, as_text, inspect_encoder

    found = inspect_encoder(args.encoder, batch=args.batch, devices=args.device or DEVICE_NAMES)
    if args.json:
        print(json.dumps([inspection.to_json() for inspection in found]))
    else:
        print(as_text(found, nodes=args.nodes))
