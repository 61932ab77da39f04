"""`python -m benchmarks compare` and `interleave`: arguments, and what they print."""

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.command_parts import rows_path, seed
from benchmarks.rows import append_rows, read_rows
from edge_runtime.command_line import HelpFormatter
from edge_runtime.errors import InputError


def add_compare(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    from benchmarks.compare.metrics import METRICS
    from benchmarks.compare.verdict import Tolerance

    purpose = "two files of rows against each other, run by run; exit status 1 for a regression"
    parser: argparse.ArgumentParser = add.add_parser(
        "compare",
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("before", type=Path, help="rows, .jsonl")
    parser.add_argument("after", type=Path, help="rows of the same commands, .jsonl")
    parser.add_argument(
        "--metric",
        action="append",
        choices=tuple(METRICS),
        metavar="NAME",
        help=f"what to compare (p50); may be given again: {', '.join(METRICS)}",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=Tolerance.ratio,
        help="smallest change of times, rates and sizes that matters: 0.02 is 2 %%",
    )
    parser.add_argument(
        "--quality-tolerance",
        type=float,
        default=Tolerance.difference,
        help="the same of shares and cosines: 0.01 is one in a hundred",
    )
    parser.add_argument(
        "--other-machine", action="store_true", help="compare rows of different machines too"
    )
    parser.add_argument("--seed", type=seed, default=0, help="of the bootstrap")
    parser.add_argument("--out", type=rows_path, help="append the comparisons to this .jsonl")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print rows as JSON lines")
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")
    parser.set_defaults(run=compare)


def add_interleave(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    purpose = "one benchmark command in two checkouts, in random order pair by pair"
    parser: argparse.ArgumentParser = add.add_parser(
        "interleave",
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        formatter_class=HelpFormatter,
        usage="%(prog)s [options] --before DIR --after DIR -- COMMAND …",
    )
    for name in ("before", "after"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="checkout to run in")
        parser.add_argument(
            f"--{name}-out", type=Path, default=Path(f"{name}.jsonl"), help="rows; goes on with it"
        )
    parser.add_argument("--runs", type=int, default=30, help="pairs")
    parser.add_argument("--seed", type=int, default=0, help="of the order within pairs")
    parser.add_argument("--timeout-s", type=float, default=3600.0, help="of one run, seconds")
    parser.add_argument(
        "--program",
        default=f"{shlex.quote(sys.executable)} -m benchmarks",
        help="that gets the command",
    )
    parser.add_argument(
        "arguments", nargs="+", metavar="COMMAND", help="of python -m benchmarks, without --out"
    )
    parser.set_defaults(run=interleave)


def compare(args: argparse.Namespace) -> int:
    """Run the command: 1 when something got worse."""
    from benchmarks.compare.metrics import metric_named
    from benchmarks.compare.pairing import pair_rows
    from benchmarks.compare.text import lines, markdown
    from benchmarks.compare.verdict import Tolerance
    from benchmarks.compare.verdict import compare as judged

    tolerance = Tolerance(ratio=args.tolerance, difference=args.quality_tolerance)
    paired = pair_rows(
        read_rows(args.before), read_rows(args.after), other_machine=args.other_machine
    )
    rows = judged(
        paired,
        [metric_named(name) for name in args.metric or ["p50"]],
        tolerance=tolerance,
        seed=args.seed,
    )
    if args.out is not None:
        append_rows(args.out, rows)
    if args.json:
        for row in rows:
            print(json.dumps(asdict(row)))
    else:
        print("\n".join((markdown if args.markdown else lines)(rows, paired)))
    if paired.not_run or any(row.regression for row in rows):
        return 1
    if all(row.verdict == "too few runs" for row in rows):
        least = min(row.pairs_needed for row in rows)
        msg = (
            f"nothing can be told from at most {max(row.pairs for row in rows)} pairs; measure "
            f"{least} or more of each: python -m benchmarks interleave --runs 30 …"
        )
        raise InputError(msg)
    return 0


def interleave(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.compare.interleave import Side
    from benchmarks.compare.interleave import interleave as measure

    before = Side(name="before", checkout=args.before, rows=args.before_out)
    after = Side(name="after", checkout=args.after, rows=args.after_out)
    measure(
        before,
        after,
        [*shlex.split(args.program), *args.arguments],
        runs=args.runs,
        seed=args.seed,
        timeout_s=args.timeout_s,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    files = f"{shlex.quote(str(before.rows))} {shlex.quote(str(after.rows))}"
    print(f"next: python -m benchmarks compare {files}")
