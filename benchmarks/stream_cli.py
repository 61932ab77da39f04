"""`python -m benchmarks single-stream` and `multi-stream`: arguments, and what they print."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from benchmarks.command_parts import add_command, add_output, emit, require_counts, say, seed
from benchmarks.resuming import measured_rows, say_kept
from edge_runtime.backends.protocol import BACKENDS
from edge_runtime.errors import BackendError, BundleError
from edge_runtime.precision import Precision

if TYPE_CHECKING:
    from benchmarks.measurement import MeasurementRow
    from benchmarks.stream_plan import StreamPlan


def add_single_stream(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    from benchmarks.single_stream import QUERIES, SECONDS

    parser = add_command(
        add,
        "single-stream",
        "one query after the other for a duration, by its p90, as MLPerf's SingleStream (600 s)",
        single_stream,
    )
    _add_stream(parser, seconds=SECONDS, queries=QUERIES)


def add_multi_stream(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    from benchmarks.multi_stream import QUERIES, SAMPLES_PER_QUERY, SECONDS

    parser = add_command(
        add,
        "multi-stream",
        "queries of 8 samples for a duration, by their p99, as MLPerf's MultiStream (600 s)",
        multi_stream,
    )
    _add_stream(parser, seconds=SECONDS, queries=QUERIES)
    parser.add_argument(
        "--samples-per-query", type=int, default=SAMPLES_PER_QUERY, help="images in a call"
    )


def single_stream(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.single_stream import PERCENTILE
    from benchmarks.single_stream import single_stream as plan

    _measure(args, [plan(args.bundle, **values) for values in _each(args)], PERCENTILE)


def multi_stream(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.multi_stream import PERCENTILE
    from benchmarks.multi_stream import multi_stream as plan

    each = [
        plan(args.bundle, samples_per_query=args.samples_per_query, **values)
        for values in _each(args)
    ]
    _measure(args, each, PERCENTILE)


def _measure(args: argparse.Namespace, plans: Sequence["StreamPlan"], percentile: int) -> None:
    """Every plan that has no row yet, each in a process of its own."""
    from benchmarks.memory_use import in_child
    from benchmarks.query_stream import kept_row, measure_stream, not_run

    kept = measured_rows(args, "measurement")
    reasons: list[str] = []
    for number, plan in enumerate(plans, start=1):
        what = f"[{number}/{len(plans)}] {plan.backend} {plan.precision or ''}".strip()
        before = kept_row(plan, kept)
        if before is not None:
            say_kept(args, f"{what}, run {plan.run}", before)
            continue
        say(f"{what}, run {plan.run}: at least {plan.seconds:g} s and {plan.queries} queries")
        try:
            row: MeasurementRow = in_child(measure_stream, plan)
        except (BackendError, BundleError) as error:
            failed = not_run(plan, " ".join(str(error).split()))
            emit(args, [failed])
            say(f"not run: {failed.reason}")
            reasons.append(failed.reason)
            continue
        emit(args, [row])
        if not args.json:
            time, quality = row.time, row.quality
            cosine = "-" if quality is None else f"{quality.min_cosine:.6f}"
            judged = time.percentiles_ms[percentile]
            print(
                f"{row.encoder} {row.provider} {row.precision}, {row.threads} threads: "
                f"p{percentile} {judged:.2f} ms (p50 {time.p50_ms:.2f}, p99 {time.p99_ms:.2f}, "
                f"max {time.max_ms:.2f}; {time.n} queries of {row.batch}, "
                f"{time.throughput_per_s:.1f} samples/s), lowest cosine {cosine}"
            )
            if row.fallback:
                print(f"  NOT what was asked for: {row.fallback}")
    if reasons and len(reasons) == len(plans):
        raise BackendError(reasons[-1])
    if not args.json:
        rows = shlex.quote(str(args.out or "ROWS.jsonl"))
        print(f"next: python -m benchmarks compare BEFORE.jsonl {rows}")


def _each(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run 0 of all, then run 1 of all: noise hits all alike."""
    require_counts(runs=args.runs)
    return [
        {
            "backend": backend,
            "precision": precision,
            "seconds": args.seconds,
            "queries": args.queries,
            "threads": args.threads,
            "photographs": args.photographs,
            "samples": args.samples,
            "seed": args.seed,
            "run": run,
        }
        for run in range(args.runs)
        for backend in args.backend
        for precision in args.precision
    ]


def _add_stream(parser: argparse.ArgumentParser, *, seconds: float, queries: int) -> None:
    parser.add_argument("--bundle", type=Path, required=True, help="encoder folder")
    parser.add_argument(
        "--backend", nargs="+", choices=BACKENDS, default=["auto"], help="each a row of its own"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=get_args(Precision),
        default=[None],
        help="ONNX files; the backend's own choice by default",
    )
    parser.add_argument("--seconds", type=float, default=seconds, help="of queries, at least")
    parser.add_argument("--queries", type=int, default=queries, help="at least")
    parser.add_argument("--threads", type=int, help="CPU threads; all by default")
    parser.add_argument(
        "--photographs", type=Path, help="folder of samples; the bundle's probes by default"
    )
    parser.add_argument("--samples", type=int, default=1024, help="at most so many")
    parser.add_argument("--seed", type=seed, default=0, help="of the samples' order")
    parser.add_argument("--runs", type=int, default=1, help="repetitions of all, for compare")
    add_output(parser, goes_on=True)
