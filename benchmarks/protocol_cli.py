"""`python -m benchmarks single-stream`, `multi-stream`, `localisation` and `training-speed`."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from benchmarks.accuracy import FALSE_FIX_M, Score
from benchmarks.rows import append_rows, read_rows
from edge_runtime.backends.protocol import BACKENDS
from edge_runtime.command_line import HelpFormatter
from edge_runtime.errors import BackendError, BundleError, InputError
from edge_runtime.precision import Precision

if TYPE_CHECKING:
    from benchmarks.measurement import MeasurementRow
    from benchmarks.query_stream import StreamPlan


def add_single_stream(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    from benchmarks.single_stream import QUERIES, SECONDS

    parser = _command(
        add,
        "single-stream",
        "one query after the other for a duration, by its p90, as MLPerf's SingleStream (600 s)",
        single_stream,
    )
    _add_stream(parser, seconds=SECONDS, queries=QUERIES)


def add_multi_stream(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    from benchmarks.multi_stream import QUERIES, SAMPLES_PER_QUERY, SECONDS

    parser = _command(
        add,
        "multi-stream",
        "queries of 8 samples for a duration, by their p99, as MLPerf's MultiStream (600 s)",
        multi_stream,
    )
    _add_stream(parser, seconds=SECONDS, queries=QUERIES)
    parser.add_argument(
        "--samples-per-query", type=int, default=SAMPLES_PER_QUERY, help="images in a call"
    )


def add_localisation(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = _command(
        add,
        "localisation",
        "logs against the truth as rows with times: all attempts, with and without a prior",
        localisation,
    )
    for name, what in (
        ("log", "fix records, .jsonl; repeatable"),
        ("truth", "CSV with filename, lat_deg, lon_deg; one per --log, in the same order"),
    ):
        parser.add_argument(f"--{name}", type=Path, action="append", default=[], help=what)
    parser.add_argument(
        "--logs", type=Path, help="folder of NAME.jsonl and NAME.truth.csv, as flights writes them"
    )
    parser.add_argument(
        "--score", choices=get_args(Score), default="drone", help="compare this point"
    )
    parser.add_argument(
        "--false-fix-m", type=float, default=FALSE_FIX_M, help="an answer further off is false, m"
    )
    parser.add_argument("--device", default="", help="name of the machine the logs were made on")
    parser.add_argument("--run", type=int, default=0, dest="number", help="of the repetition")
    _add_output(parser)


def add_training_speed(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = _command(
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
    _add_output(parser)


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


def localisation(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.accuracy import score_flight
    from benchmarks.localisation_rows import in_words, localisation_rows

    logs, truths = list(args.log), list(args.truth)
    if args.logs is not None:
        found = sorted(args.logs.glob("*.truth.csv"))
        truths += found
        logs += [path.with_name(path.name.replace(".truth.csv", ".jsonl")) for path in found]
    if not logs or len(logs) != len(truths):
        msg = f"{len(logs)} logs and {len(truths)} truths; expected one truth for each log"
        raise InputError(msg)
    for log, truth in zip(logs, truths, strict=True):
        rows = localisation_rows(
            score_flight(log, truth, score=args.score),
            score=args.score,
            false_fix_m=args.false_fix_m,
            device=args.device,
            run=args.number,
        )
        _emit(args, rows)
        if not args.json:
            print("\n".join(map(in_words, rows)))
    _next(args)


def training_speed(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.loading import loading_rows
    from benchmarks.training_speed import TrainingSpeedPlan, in_words
    from benchmarks.training_speed import training_speed as measured

    loading = []
    if not args.no_loading:
        _say("loading: two recipes on one core")
        loading = loading_rows()
        _emit(args, loading)
    for run in range(args.runs):
        for architecture in args.architecture:
            plan = TrainingSpeedPlan(
                recipe=args.recipe,
                architecture=architecture,
                size_px=args.size_px,
                pairs=args.pairs,
                seconds=args.seconds,
                threads=args.threads,
                run=run,
            )
            _say(f"[{run + 1}/{args.runs}] steps of {plan.config().architecture}")
            row = measured(plan)
            _emit(args, [row])
            if not args.json:
                print("\n".join(in_words(row, loading)))
    _next(args)


def _measure(args: argparse.Namespace, plans: Sequence["StreamPlan"], percentile: int) -> None:
    """Every plan that has no row yet, each in a process of its own."""
    from benchmarks.memory_use import in_child
    from benchmarks.query_stream import is_done, measure_stream, not_run

    kept = args.out is not None and args.out.exists() and not args.again
    done = read_rows(args.out, kind="measurement") if kept else []
    reasons: list[str] = []
    for number, plan in enumerate(plans, start=1):
        what = f"[{number}/{len(plans)}] {plan.backend} {plan.precision or ''}".strip()
        if is_done(plan, done):
            _say(f"{what}, run {plan.run}: has its row")
            continue
        _say(f"{what}, run {plan.run}: at least {plan.seconds:g} s and {plan.queries} queries")
        try:
            row: MeasurementRow = in_child(measure_stream, plan)
        except (BackendError, BundleError) as error:
            failed = not_run(plan, " ".join(str(error).split()))
            _emit(args, [failed])
            _say(f"not run: {failed.reason}")
            reasons.append(failed.reason)
            continue
        _emit(args, [row])
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
    _next(args)


def _each(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run 0 of all, then run 1 of all: noise hits all alike."""
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
    parser.add_argument("--seed", type=int, default=0, help="of the samples' order")
    parser.add_argument("--runs", type=int, default=1, help="repetitions of all, for compare")
    parser.add_argument("--again", action="store_true", help="measure what has a row in --out too")
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


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="append rows to this .jsonl; goes on with it")
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _emit(args: argparse.Namespace, rows: Sequence[Any]) -> None:
    if args.out is not None:
        append_rows(args.out, list(rows))
    if args.json:
        for row in rows:
            print(json.dumps(asdict(row)))


def _next(args: argparse.Namespace) -> None:
    if not args.json:
        rows = shlex.quote(str(args.out or "ROWS.jsonl"))
        print(f"next: python -m benchmarks compare BEFORE.jsonl {rows}")
