"""`python -m benchmarks end-to-end`, `start-up` and `soak`: arguments, and what they print."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.flight_laws import Law
from benchmarks.rows import append_rows
from edge_runtime.backends.protocol import BACKENDS
from edge_runtime.command_line import HelpFormatter


def add_end_to_end(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = _command(
        add,
        "end-to-end",
        "skyfix beside a plain loop of OpenCV, ONNX Runtime and NumPy, in one run",
        end_to_end,
    )
    _add_flight(parser)
    parser.add_argument("--truth", type=Path, help="CSV with filename, lat_deg, lon_deg (degrees)")
    parser.add_argument("--tiles", type=int, default=10_000, help="refuse a map of fewer")
    parser.add_argument("--block", type=int, default=10, help="photographs in a row, per contender")
    parser.add_argument("--warmup", type=int, default=20, help="photographs that do not count")
    parser.add_argument("--frames", type=int, help="photographs that count; all by default")
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="of skyfix")
    parser.add_argument("--threads", type=int, help="CPU threads of skyfix's encoder")
    _add_output(parser)


def _command(add: Any, name: str, purpose: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = add.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_flight(parser: argparse.ArgumentParser) -> None:
    for name, what in (
        ("bundle", "encoder folder"),
        ("index", "satellite index folder"),
        ("source", "folder of photographs"),
        ("telemetry", "CSV with filename, height_m, yaw_deg, …"),
        ("camera", "camera JSON"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=what)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="append rows to this .jsonl")
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")


def end_to_end(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.end_to_end import SpeedPlan, compare
    from benchmarks.end_to_end_rows import laws
    from benchmarks.end_to_end_table import print_speed

    plan = SpeedPlan(
        bundle=args.bundle,
        index=args.index,
        source=args.source,
        telemetry=args.telemetry,
        camera=args.camera,
        truth=args.truth,
        backend=args.backend,
        threads=args.threads,
        block=args.block,
        warmup=args.warmup,
        frames=args.frames,
        tiles=args.tiles,
    )
    rows = compare(plan, say=_say)
    _emit(args, rows)
    if not args.json:
        print_speed(rows)
        print_laws(laws(rows))


def print_laws(laws: Sequence[Law]) -> None:
    """One line a law."""
    for law in laws:
        verdict = {True: "holds", False: "FAILS", None: "-"}[law.holds]
        note = f" ({law.note})" if law.note else ""
        print(f"{verdict:<6} {law.name}: {law.seen}; required {law.required}{note}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _emit(args: argparse.Namespace, rows: Sequence[Any]) -> None:
    if args.out is not None:
        append_rows(args.out, list(rows))
    if args.json:
        for row in rows:
            print(json.dumps(asdict(row)))
