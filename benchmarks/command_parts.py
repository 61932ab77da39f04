"""What the commands' arguments and output have in common."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from benchmarks.accuracy import FALSE_FIX_M
from benchmarks.rows import append_rows, why_not_writable
from benchmarks.scored_flight import Score
from edge_runtime.command_line import HelpFormatter
from edge_runtime.errors import InputError


def add_command(
    add: Any, name: str, purpose: str, run: Callable[[argparse.Namespace], int | None]
) -> argparse.ArgumentParser:
    """A command's own parser, in a parser's subparsers."""
    parser: argparse.ArgumentParser = add.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_flight(
    parser: argparse.ArgumentParser, *, source: str = "folder of photographs", truth: bool = False
) -> None:
    """Options for what a flight is made of.

    Args:
        parser: of a command.
        source: what its frames may be.
        truth: the command needs to know where they were taken.
    """
    for name, what in (
        ("bundle", "encoder folder"),
        ("index", "satellite index folder"),
        ("source", source),
        ("telemetry", "CSV with filename, height_m, yaw_deg, …"),
        *([("truth", "CSV with filename, lat_deg, lon_deg (degrees)")] if truth else []),
        ("camera", "camera JSON"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=what)


def add_score(parser: argparse.ArgumentParser) -> None:
    """Option for which point is compared with the truth."""
    parser.add_argument(
        "--score",
        choices=get_args(Score),
        default="drone",
        help="compare the drone's position, or the point its optical axis meets",
    )


def add_false_fix(parser: argparse.ArgumentParser) -> None:
    """Option for what counts as a false fix."""
    parser.add_argument(
        "--false-fix-m", type=float, default=FALSE_FIX_M, help="an answer further off is false, m"
    )


def add_output(parser: argparse.ArgumentParser, *, goes_on: bool = False) -> None:
    """Options for where rows go.

    Args:
        parser: of a command.
        goes_on: what the file has is not measured again, and `--again` asks for it.
    """
    what = "append rows to this .jsonl"
    if goes_on:
        parser.add_argument(
            "--again", action="store_true", help="measure what has its row in --out too"
        )
        what += "; what this commit measured on this machine with these settings is kept"
    parser.add_argument("--out", type=rows_path, help=what)
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")


def rows_path(text: str) -> Path:
    """A file that rows can be appended to: said before they are measured, not afterwards.

    Raises:
        ArgumentTypeError: they cannot.
    """
    return _writable(text, "a .jsonl")


def page_path(text: str) -> Path:
    """A file that a page can be written to.

    Raises:
        ArgumentTypeError: it cannot.
    """
    return _writable(text, "a file")


def folder_path(text: str) -> Path:
    """A folder, or where one can be made.

    Raises:
        ArgumentTypeError: a file lies there.
    """
    path = Path(text)
    if path.exists() and not path.is_dir():
        msg = f"{path} is a file; expected a folder, or a name for a new one"
        raise argparse.ArgumentTypeError(msg)
    return path


def seed(text: str) -> int:
    """A number that random numbers begin with.

    Raises:
        ArgumentTypeError: none, or below 0.
    """
    if not text.isdecimal():
        msg = f"{text!r} is no seed; expected a whole number, 0 or more"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _writable(text: str, what: str) -> Path:
    path = Path(text)
    reason = why_not_writable(path)
    if reason:
        msg = f"{path} {reason}; expected {what} that can be written"
        raise argparse.ArgumentTypeError(msg)
    return path


def emit(args: argparse.Namespace, rows: Sequence[Any]) -> None:
    """Append rows to the file that was given, and print them where a program reads."""
    if args.out is not None:
        append_rows(args.out, list(rows))
    if args.json:
        for row in rows:
            print(json.dumps(asdict(row)))


def say(line: str) -> None:
    """What goes on: not the command's answer."""
    print(line, file=sys.stderr, flush=True)


def require_counts(**counts: int | None) -> None:
    """Refuse options below 1; None is none given.

    Raises:
        InputError: one of them.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            msg = f"--{name.replace('_', '-')} is {count}; expected at least 1"
            raise InputError(msg)
