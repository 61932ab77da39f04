"""`python -m benchmarks search`: its arguments, and what it prints."""

import argparse
from pathlib import Path
from typing import Any, get_args

from benchmarks.command_parts import add_command, add_output, emit, say
from benchmarks.resuming import MeasuredRows, Row, measured_rows, say_kept
from edge_runtime.index_format import VectorType


def add_search(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add, "search", "search of an index beside faiss and NumPy, on one core", search
    )
    parser.add_argument("--tiles", type=int, default=100_000, help="of a simulated map")
    parser.add_argument("--dimensions", type=int, default=1024, help="numbers of an embedding")
    parser.add_argument("--vectors", choices=get_args(VectorType), default="f16", help="as stored")
    parser.add_argument("--radius-m", type=float, default=2000.0, help="of the circle of a prior")
    parser.add_argument("--queries", type=int, default=1, help="in a call")
    parser.add_argument("--calls", type=int, default=1000, help="timed per task")
    parser.add_argument(
        "--contender",
        nargs="+",
        choices=("skyfix", "faiss flat", "faiss hnsw", "numpy"),
        default=("skyfix", "faiss flat", "faiss hnsw", "numpy"),
        help="whom to measure; faiss is left out where it is not installed",
    )
    parser.add_argument("--work", type=Path, help="folder for files; a temporary one by default")
    add_output(parser, goes_on=True)


def search(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.search import SearchRow, run
    from benchmarks.tables import print_search

    rows: list[SearchRow] = []
    left = []
    kept = measured_rows(args, "search")
    for contender in args.contender:
        before = _kept(kept, contender, args)
        for row in before:
            say_kept(args, f"{contender}, {row['task']}", row)
            rows.append(SearchRow(**row))
        if not before:
            left.append(contender)

    def done(measured: list[SearchRow]) -> None:
        emit(args, measured)
        rows.extend(measured)

    if left:
        run(
            tiles=args.tiles,
            dimensions=args.dimensions,
            dtype=args.vectors,
            radius_m=args.radius_m,
            batch=args.queries,
            calls=args.calls,
            contenders=tuple(left),
            folder=args.work,
            done=done,
            said=say,
        )
    if not args.json:
        print_search(rows)


def _kept(kept: MeasuredRows, contender: str, args: argparse.Namespace) -> list[Row]:
    """A contender's rows of all three tasks; none where one is missing."""

    def so_stored(row: Row) -> bool:
        # The others hold float32 whatever is asked for.
        return contender != "skyfix" or str(row["stored_as"]).startswith(f"{args.vectors},")

    found = []
    for task, values in (
        ("open", {}),
        ("whole map", {"queries_per_call": args.queries, "calls": args.calls}),
        (
            "circle",
            {"queries_per_call": args.queries, "calls": args.calls, "radius_m": args.radius_m},
        ),
    ):
        row = kept.find(
            where=so_stored,
            contender=contender,
            task=task,
            tiles=args.tiles,
            dimensions=args.dimensions,
            **values,
        )
        if row is None:
            return []
        found.append(row)
    return found
