"""`python -m benchmarks end-to-end`, `start-up` and `soak`: arguments, and what they print."""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from benchmarks.command_parts import add_command, add_flight, add_output, emit, folder_path, say
from benchmarks.flight_laws import Law
from benchmarks.resuming import measured_rows, say_kept
from benchmarks.start_up import Cache
from edge_runtime.backends.protocol import BACKENDS


def add_end_to_end(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add,
        "end-to-end",
        "skyfix beside a plain loop of OpenCV, ONNX Runtime and NumPy, in one run",
        end_to_end,
    )
    add_flight(parser)
    parser.add_argument("--truth", type=Path, help="CSV with filename, lat_deg, lon_deg (degrees)")
    parser.add_argument("--tiles", type=int, default=10_000, help="refuse a map of fewer")
    parser.add_argument("--block", type=int, default=10, help="photographs in a row, per contender")
    parser.add_argument("--warmup", type=int, default=20, help="photographs that do not count")
    parser.add_argument("--frames", type=int, help="photographs that count; all by default")
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="of skyfix")
    parser.add_argument("--threads", type=int, help="CPU threads of skyfix's encoder")
    add_output(parser)


def add_start_up(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add, "start-up", "from starting the process to the first record and the first fix", start_up
    )
    add_flight(parser, source="folder of photographs or video")
    parser.add_argument(
        "--backend", nargs="+", choices=BACKENDS, default=["auto"], help="each a row of its own"
    )
    parser.add_argument("--runs", type=int, default=10, help="starts of each row")
    parser.add_argument(
        "--cache",
        nargs="+",
        choices=get_args(Cache),
        default=list(get_args(Cache)),
        help="cold: files are dropped from the page cache before each start, where the system lets "
        "them and no other process has them mapped",
    )
    _add_options(parser)
    add_output(parser, goes_on=True)


def add_soak(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add, "soak", "skyfix run for a long time: memory, threads, files, missing records", soak
    )
    add_flight(parser, source="video file, played in real time over and over")
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the run")
    parser.add_argument("--hz", type=float, default=10.0, help="frames per second at most")
    parser.add_argument("--every-s", type=float, default=10.0, help="seconds between two samples")
    parser.add_argument("--folder", type=folder_path, required=True, help="for all the run writes")
    _add_options(parser)
    add_output(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="TEXT",
        help="more of skyfix run's options, as --option=--deadline-ms=90; repeatable",
    )


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
    rows = compare(plan, say=say)
    emit(args, rows)
    if not args.json:
        print_speed(rows)
        print_laws(laws(rows))


def start_up(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.start_up import StartUpPlan, StartUpRow, laws, measure
    from edge_runtime.bundle import Bundle
    from edge_runtime.satellite_index import SatelliteIndex

    plan = StartUpPlan(
        bundle=args.bundle,
        index=args.index,
        source=str(args.source),
        telemetry=args.telemetry,
        camera=args.camera,
        backends=tuple(args.backend),
        runs=args.runs,
        caches=tuple(args.cache),
        options=tuple(args.option),
    )
    bundle = Bundle.open(plan.bundle)
    index = SatelliteIndex.open(plan.index, bundle)
    index.close()
    kept = measured_rows(args, "start-up")
    rows: list[StartUpRow] = []
    for cache, backend in itertools.product(plan.caches, plan.backends):
        before = kept.find(
            backend=backend,
            cache=cache,
            runs=plan.runs,
            source=plan.source,
            options=list(plan.options),
            bundle_id=bundle.id,
            index_id=index.id,
        )
        if before is not None:
            say_kept(args, f"{backend}, {cache} cache", before)
            rows.append(StartUpRow(**before))
            continue
        measured = measure(replace(plan, caches=(cache,), backends=(backend,)), say=say)
        emit(args, measured)
        rows += measured
    if args.json:
        return
    for row in rows:
        ok = "none in a run"
        if row.first_ok_s is not None:
            ok = f"{row.first_ok_s:.2f} s (slowest {row.first_ok_max_s:.2f})"
        print(
            f"{row.backend}, {row.cache} cache, {row.runs} starts: import {row.import_s:.3f} s, "
            f"first record {row.first_record_s:.2f} s (slowest {row.first_record_max_s:.2f}), "
            f"first fix {ok} after {row.frames_to_ok:g} frames; load {row.load:.1f}"
        )
    print_laws(laws(rows))


def soak(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks import soak as long_run
    from benchmarks.soak_check import laws

    plan = long_run.SoakPlan(
        bundle=args.bundle,
        index=args.index,
        source=args.source,
        telemetry=args.telemetry,
        camera=args.camera,
        folder=args.folder,
        minutes=args.minutes,
        hz=args.hz,
        every_s=args.every_s,
        options=tuple(args.option),
    )
    row = long_run.soak(plan, say=say)
    emit(args, [row])
    if args.json:
        return
    print(
        f"{row.seconds / 60:.1f} minutes, {row.records_per_s:.2f} records/s; after "
        f"{row.settled_s:.0f} s {row.rss_first_mib:.1f} MiB, at the end {row.rss_last_mib:.1f} MiB "
        f"({row.anonymous_last_mib:.1f} without files), at most {row.rss_peak_mib:.1f} MiB; "
        f"{row.threads} threads, {row.files} open files"
    )
    print_laws(laws(row.growth, row.complete, seconds=row.seconds, settled_s=row.settled_s))


def print_laws(laws: Sequence[Law]) -> None:
    """One line a law."""
    for law in laws:
        verdict = {True: "holds", False: "FAILS", None: "-"}[law.holds]
        note = f" ({law.note})" if law.note else ""
        print(f"{verdict:<6} {law.name}: {law.seen}; required {law.required}{note}")
