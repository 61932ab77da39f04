"""`python -m export …`: checkpoints to bundles, imagery to indexes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runtime.errors import InputError, SkyfixError


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and the example below them on one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn deliberate errors into exit status 2."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except SkyfixError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("export: stopped; nothing half-written was left", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export", description="Make what flies: encoder bundles, satellite indexes."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shown: dict[str, Any] = {"formatter_class": _HelpFormatter}

    bundle = commands.add_parser(
        "bundle",
        help="checkpoint to ONNX, through gates",
        epilog="Example: python -m export bundle --checkpoint ckpt --out bundle",
        **shown,
    )
    bundle.add_argument("--checkpoint", type=Path, required=True, help="folder of train fit")
    bundle.add_argument("--out", type=Path, required=True, help="bundle folder to write")
    bundle.add_argument(
        "--probes", type=Path, help="folder of photographs to use as probes beside made-up ones"
    )
    bundle.add_argument(
        "--embedding-size", type=int, help="keep so many numbers of an embedding (Matryoshka)"
    )
    bundle.set_defaults(run=_bundle)

    index = commands.add_parser(
        "index",
        help="satellite imagery to a searchable map",
        epilog="Example: python -m export index --imagery map.tif --bundle bundle --out index",
        **shown,
    )
    index.add_argument(
        "--imagery", type=Path, nargs="+", required=True, help="georeferenced rasters (GeoTIFF, …)"
    )
    index.add_argument("--bundle", type=Path, required=True, help="encoder folder")
    index.add_argument("--out", type=Path, required=True, help="index folder to write")
    index.add_argument(
        "--tile-m",
        type=float,
        help="side of a tile on the ground, m; by default what the encoder was trained on",
    )
    index.add_argument(
        "--stride-m", type=float, help="between tile centres, m; by default a quarter of a tile"
    )
    index.add_argument("--quality", type=int, default=90, help="JPEG quality of kept imagery")
    index.add_argument("--backend", default="auto", help="auto, ort-cpu or ort-cuda")
    index.set_defaults(run=_index)
    return parser


def _bundle(args: argparse.Namespace) -> None:
    from edge_runtime.source import PHOTO_SUFFIXES
    from export.bundle_export import export_bundle

    probes: list[Path] = []
    if args.probes is not None:
        if not args.probes.is_dir():
            msg = f"{args.probes} is not a folder; expected photographs"
            raise InputError(msg)
        probes = sorted(p for p in args.probes.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
    done = export_bundle(
        args.checkpoint,
        args.out,
        probe_paths=probes,
        embedding_size=args.embedding_size,
        say=print,
    )
    print(
        f"Bundle with {', '.join(done.shipped)} written to {args.out}. "
        f"Next: python -m export index --bundle {args.out} --imagery MAP.tif --out index"
    )


def _index(args: argparse.Namespace) -> None:
    from edge_runtime.backends.protocol import BACKENDS, open_backend
    from edge_runtime.bundle import Bundle
    from export.index_build import build_index
    from train.progress import progress_bars

    if args.backend not in BACKENDS:
        msg = f"there is no backend {args.backend!r}; known: {', '.join(BACKENDS)}"
        raise InputError(msg)
    bundle = Bundle.open(args.bundle)
    size_m = bundle.spec.ground_size_m if args.tile_m is None else args.tile_m
    if size_m is None:
        msg = f"{args.bundle} does not say what ground size it was trained on; give --tile-m"
        raise InputError(msg)
    backend = open_backend(bundle, args.backend)
    try:
        with progress_bars() as progress:
            tiles = build_index(
                args.imagery,
                args.out,
                bundle,
                backend,
                size_m=size_m,
                stride_m=size_m / 4 if args.stride_m is None else args.stride_m,
                jpeg_quality=args.quality,
                progress=progress,
            )
    finally:
        backend.close()
    print(
        f"Index of {tiles} tiles written to {args.out}, embedded on {backend.info.provider}. "
        f"Next: skyfix run --bundle {args.bundle} --index {args.out} --source PHOTOS "
        "--telemetry TELEMETRY.csv --camera CAMERA.json"
    )
