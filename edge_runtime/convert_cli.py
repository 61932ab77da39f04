"""`skyfix convert`: a log as a map file, after the flight."""

import argparse
import sys
from pathlib import Path
from typing import Any


def add_convert_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", formatter: Any
) -> None:
    """Add `convert`."""
    convert = commands.add_parser(
        "convert",
        help="make a map or a table of a log",
        formatter_class=formatter,
        epilog="Example: skyfix convert fixes.jsonl track.kml",
    )
    convert.add_argument("log", type=Path, help="log written by skyfix run")
    convert.add_argument(
        "out", help="file that ends in .geojson, .kml, .gpx or .csv, or as kml:track.kml?circles=95"
    )
    convert.set_defaults(run=run_command, stopped="stopped; the file holds the fixes up to here")


def run_command(args: argparse.Namespace) -> int:
    """Write every fix of a log into a file.

    Raises:
        InputError: the log is missing or damaged, or the file is of no kind that there is.
        OSError: the file cannot be written to its end.
    """
    from contextlib import closing
    from itertools import chain

    from edge_runtime.errors import InputError
    from edge_runtime.flight_log import read_log
    from edge_runtime.outputs.opening import FILE_KINDS, LIVE_KINDS, open_output
    from edge_runtime.outputs.reported import position_of

    if args.out.partition(":")[0].lower() in LIVE_KINDS:
        msg = (
            f"{args.out} is a peer that listens in flight; expected a file that ends in "
            f".{', .'.join(FILE_KINDS)}"
        )
        raise InputError(msg)
    fixes = read_log(args.log)
    # The log is looked at first: a mistake in its name must not replace an older file.
    first = next(fixes, None)
    if first is None:
        msg = f"log {args.log} has no records; expected a log of a flight"
        raise InputError(msg)
    positions = count = 0
    with closing(open_output(args.out)) as output:
        for fix in chain((first,), fixes):
            output.write(fix)
            count += 1
            positions += position_of(fix) is not None
    sys.stdout.write(f"{count} records, {positions} with a position, written to {args.out}\n")
    return 0
