"""`python -m benchmarks flights`: its arguments, and what it prints."""

import argparse
import json
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmarks.command_parts import require_counts, rows_path, seed
from edge_runtime.command_line import HelpFormatter
from edge_runtime.errors import InputError
from edge_runtime.localizer_config import LocalizerConfig

PARTS = ("start", "whole", "moved", "off_map")


def add_flights(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser: argparse.ArgumentParser = add.add_parser(
        "flights",
        help="whole flights in a made-up world: starts, being moved, the edge of the map",
        description="Fly a made-up world and judge what must hold. Rows that are there are kept.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--world", type=Path, required=True, help="of python -m train world")
    parser.add_argument("--bundle", type=Path, required=True, help="encoder folder")
    parser.add_argument("--index", type=Path, required=True, help="of the world's held-out ground")
    parser.add_argument(
        "--out", type=rows_path, required=True, help="rows, .jsonl; goes on with it"
    )
    parser.add_argument(
        "--half-index",
        type=Path,
        help="of the ground's western half, to fly off its edge; built as INDEX.half if not there",
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, help="what to fly")
    parser.add_argument("--starts", type=int, default=60, help="random starts")
    parser.add_argument("--moves", type=int, default=10, help="times the drone is moved by 1 km")
    parser.add_argument("--flights", type=int, help="only so many of the world's flights")
    parser.add_argument("--seed", type=seed, default=1, help="of starts and moves")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the localizer, as ok_probability=0.99",
    )
    parser.add_argument("--json", action="store_true", help="print rows and laws as JSON lines")
    parser.set_defaults(run=flights)


def flights(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.flight_laws import laws
    from benchmarks.flight_run import FlightsPlan, fly, left_out_coverages

    require_counts(starts=args.starts, moves=args.moves, flights=args.flights)
    plan = FlightsPlan(
        world=args.world,
        bundle=args.bundle,
        index=args.index,
        out=args.out,
        half_index=args.half_index,
        parts=tuple(args.part),
        starts=args.starts,
        moves=args.moves,
        flights=args.flights,
        seed=args.seed,
        config=config_from(args.set),
    )
    rows = fly(plan, say=lambda line: print(line, file=sys.stderr, flush=True))
    judged = laws(rows, left_out=left_out_coverages(plan, rows))
    if args.json:
        for line in (*map(asdict, rows), *map(asdict, judged)):
            print(json.dumps(line))
        return
    for law in judged:
        verdict = {True: "holds", False: "FAILS", None: "-"}[law.holds]
        note = f" ({law.note})" if law.note else ""
        print(f"{verdict:<6} {law.name}: {law.seen}; required {law.required}{note}")


def config_from(settings: list[str]) -> LocalizerConfig:
    """A localizer's settings from NAME=VALUE texts.

    Raises:
        InputError: no such name, or not a value for it.
    """
    values: dict[str, Any] = {}
    known = {f.name for f in fields(LocalizerConfig)}
    for text in settings:
        name, _, value = text.partition("=")
        if name not in known:
            msg = f"--set {text}: there is no {name!r}; known: {', '.join(sorted(known))}"
            raise InputError(msg)
        try:
            parsed = json.loads(value)
        except ValueError as error:
            msg = f"--set {text}: {value!r} is no number; expected NAME=VALUE, as top_k=80"
            raise InputError(msg) from error
        values[name] = tuple(parsed) if isinstance(parsed, list) else parsed
    try:
        return LocalizerConfig(**values)
    except TypeError as error:
        msg = f"--set {' '.join(settings)}: a value is of another kind than its setting ({error})"
        raise InputError(msg) from error
