"""`python -m benchmarks latency` and `parity`: encoders by themselves."""

import argparse
import itertools
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from benchmarks.command_parts import add_command, add_output, emit, require_counts, say
from benchmarks.resuming import measured_rows, say_kept
from edge_runtime.backends.protocol import BACKENDS
from edge_runtime.errors import InputError
from edge_runtime.precision import Precision

if TYPE_CHECKING:
    from benchmarks.measurement import MeasurementRow


def add_latency(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add, "latency", "time a bundle's backends, and the stages of logs", latency
    )
    parser.add_argument("--bundle", type=Path, help="folder written by python -m export bundle")
    parser.add_argument(
        "--backend", nargs="+", choices=BACKENDS, default=["auto"], help="backends to time"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=get_args(Precision),
        default=None,
        help="ONNX files to time (default: the backend's own choice)",
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[1], help="images per call")
    parser.add_argument(
        "--calls", type=int, default=200, help="timed calls per row; times are in ms"
    )
    parser.add_argument("--warmup", type=int, default=20, help="calls before the timed ones")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: all)")
    parser.add_argument("--runs", type=int, default=1, help="repetitions of all, for compare")
    parser.add_argument(
        "--log", type=Path, action="append", default=[], help="fix records, .jsonl; repeatable"
    )
    parser.add_argument("--device", default="", help="name of the machine the logs were made on")
    add_output(parser, goes_on=True)


def add_parity(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(add, "parity", "exported encoders against PyTorch, every family", parity)
    parser.add_argument("--photographs", type=Path, required=True, help="folder of JPEGs or PNGs")
    parser.add_argument("--architecture", nargs="+", help="timm names; every family by default")
    parser.add_argument("--size-px", nargs="+", type=int, default=[224, 384], help="sides")
    parser.add_argument("--pictures", type=int, default=12, help="compared, and calibrated on")
    add_output(parser, goes_on=True)


def latency(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.scored_flight import read_log
    from benchmarks.stage_latency import stage_rows
    from benchmarks.tables import print_latency, print_stages

    if args.bundle is None and not args.log:
        msg = "nothing to measure; give --bundle (a folder) or --log (a .jsonl)"
        raise InputError(msg)
    require_counts(
        calls=args.calls,
        warmup=args.warmup,
        threads=args.threads,
        runs=args.runs,
        batch=min(args.batch),
    )
    logs = [(log, read_log(log)) for log in args.log]
    timed = _timed(args) if args.bundle is not None else []
    stages = [
        row
        for log, fixes in logs
        for row in stage_rows(fixes, log.name.removesuffix(".jsonl"), device=args.device)
    ]
    emit(args, stages)
    if args.json:
        return
    if timed:
        print_latency(timed)
    if stages:
        print_stages(stages)
    rows = f"--latency {shlex.quote(str(args.out or 'rows.jsonl'))} " if args.bundle else ""
    print(
        "next: python -m benchmarks report --index INDEX --flight LOG TRUTH FRAMES_DIR "
        f"{rows}--out report.html"
    )


def _timed(args: argparse.Namespace) -> "list[MeasurementRow]":
    """Measure and emit what the file does not have; run 0 of all, then run 1 of all."""
    from benchmarks.latency import asked_words, measure_backend, numbered
    from edge_runtime.bundle import Bundle

    bundle = Bundle.open(args.bundle)
    kept = measured_rows(args, "measurement")
    asked = itertools.product(range(args.runs), args.backend, args.precision or [None], args.batch)
    timed = []
    for run, backend, precision, batch in asked:
        what = f"{backend} {precision or ''}".strip() + f", batch {batch}"
        what += f", run {run}" if args.runs > 1 else ""
        row_before = kept.find(
            where=lambda row: row["time"]["warmup"] >= args.warmup,
            least_calls=args.calls,
            protocol="latency",
            bundle_id=bundle.id,
            asked=asked_words(backend, precision, args.threads),
            batch=batch,
            run=run,
        )
        if row_before is not None:
            say_kept(args, what, row_before)
            continue
        say(f"timing {what}: {args.calls} calls")
        row = measure_backend(
            bundle,
            backend,
            precision=precision,
            batch=batch,
            calls=args.calls,
            warmup=args.warmup,
            threads=args.threads,
        )
        if row.fallback:
            say(f"FALLBACK: {what}: {row.fallback}")
        row = numbered(row, args.out) if args.again else replace(row, run=run)
        timed.append(row)
        emit(args, [row])  # At once: what was measured stays when the command is stopped.
    return timed


def parity(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.parity import FAMILIES, ParityRow, parity_rows, side_px
    from benchmarks.tables import print_parity
    from edge_runtime.sources.photographs import PHOTO_SUFFIXES

    require_counts(pictures=args.pictures)
    if not args.photographs.is_dir():
        msg = f"{args.photographs} is not a folder; expected photographs"
        raise InputError(msg)
    files = sorted(p for p in args.photographs.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
    kept = measured_rows(args, "parity")
    rows = []
    for architecture, size_px in itertools.product(args.architecture or FAMILIES, args.size_px):
        before = kept.find(
            architecture=architecture,
            size_px=side_px(architecture, size_px),
            photographs=args.pictures,
            folder=args.photographs.name,
        )
        if before is not None:
            say_kept(args, f"{architecture} {size_px} px", before)
            rows.append(ParityRow(**before))
            continue
        (row,) = parity_rows([architecture], [size_px], files, pictures=args.pictures)
        emit(args, [row])
        say(f"{row.architecture} {row.size_px} px: done")
        rows.append(row)
    if not args.json:
        print_parity(rows)
