"""`python -m benchmarks matrix`: arguments, and what it prints."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from benchmarks.command_parts import folder_path, require_counts, rows_path, say
from benchmarks.matrix.plan import NUMBERS, RUNTIMES
from edge_runtime.command_line import HelpFormatter
from edge_runtime.errors import InputError

_FLIGHT = ("index", "source", "telemetry", "truth", "camera")


def add_matrix(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    purpose = "every encoder on every runtime that this machine has, and why not the others"
    parser: argparse.ArgumentParser = add.add_parser(
        "matrix",
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}. See docs/matrix.md.",
        epilog="Example: python -m benchmarks matrix --encoder resnet18-224 --seconds 2",
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=matrix)
    which = parser.add_argument_group("what")
    which.add_argument(
        "--encoder",
        nargs="+",
        default=[],
        metavar="NAME",
        help="of --list, or ARCHITECTURE:SIZE_PX; by default all of --list, or the bundles given",
    )
    which.add_argument("--runtime", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    which.add_argument("--precision", nargs="+", choices=NUMBERS, default=list(NUMBERS))
    which.add_argument("--batch", nargs="+", type=int, default=[1], help="pictures a call")
    which.add_argument(
        "--size-px", nargs="+", type=int, default=[], help="sides, in place of each encoder's own"
    )
    which.add_argument(
        "--bundle", type=Path, action="append", default=[], help="a ready encoder; repeatable"
    )
    which.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        default=[],
        help="of a bundle given, so that torch can run it; repeatable",
    )
    which.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="pretrained weights in place of random ones; repeatable",
    )
    flight = parser.add_argument_group(
        "pictures", "a flight to measure quality on; a made-up one by default"
    )
    for name, what in zip(
        _FLIGHT,
        (
            "satellite index folder",
            "folder of photographs",
            "CSV with filename, height_m, yaw_deg, …",
            "CSV with filename, lat_deg, lon_deg (degrees)",
            "camera JSON",
        ),
        strict=True,
    ):
        flight.add_argument(f"--{name}", type=Path, help=what)
    how = parser.add_argument_group("how")
    how.add_argument("--seconds", type=float, default=10.0, help="of timed calls a measurement")
    how.add_argument("--calls", type=int, default=30, help="timed at least")
    how.add_argument(
        "--quality-s", type=float, default=20.0, help="seconds that pictures may take, about"
    )
    how.add_argument("--timeout-s", type=float, default=900.0, help="of a measurement")
    how.add_argument("--runs", type=int, default=1, help="of everything, one after the other")
    how.add_argument("--threads", type=int, help="of the CPU (default: all)")
    how.add_argument("--again", action="store_true", help="measure what was measured before, too")
    how.add_argument("--list", action="store_true", help="show the plan and measure nothing")
    how.add_argument(
        "--work",
        type=folder_path,
        default=Path("out/matrix"),
        help="folder for encoders and pictures",
    )
    how.add_argument(
        "--out", type=rows_path, help="rows, .jsonl; goes on with it (default: in --work)"
    )
    how.add_argument("--json", action="store_true", help="print rows as JSON lines")


def matrix(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        InputError: options that do not go together.
    """
    from benchmarks.matrix.encoders import chosen
    from benchmarks.matrix.plan import Effort, Wanted, cells
    from benchmarks.matrix.table import print_matrix, print_plan

    require_counts(runs=args.runs, threads=args.threads)
    if args.checkpoint and not args.bundle:
        msg = "--checkpoint is of a --bundle, and none was given; give the bundle too"
        raise InputError(msg)
    effort = Effort(
        seconds=args.seconds,
        least_calls=args.calls,
        quality_s=args.quality_s,
        timeout_s=args.timeout_s,
    )
    choices = chosen(
        args.encoder, args.size_px, _weights(args.weights), args.bundle, args.checkpoint
    )
    wanted = Wanted(args.runtime, args.precision, args.batch)
    planned = list(cells([choice.name for choice in choices], wanted))
    if args.list:
        print_plan(planned, choices, effort, args.runs)
        print(f"next: {_command(args)}")
        return
    rows, out = _run(args, choices, planned, effort)
    if args.json:
        for row in rows:
            print(json.dumps(row))
        return
    print_matrix(rows)
    print(f"rows are in {out}")
    print(f"next: python -m benchmarks results {shlex.quote(str(out))} --out results.html")


def _run(args: argparse.Namespace, choices: Any, planned: Any, effort: Any) -> tuple[Any, Path]:
    from benchmarks.matrix.flight_pictures import Flight, made_up_flight
    from benchmarks.matrix.measure import Workplace, run_matrix
    from edge_runtime.backends.protocol import usable_cores

    given = {name: getattr(args, name) for name in _FLIGHT}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if 0 < len(missing) < len(_FLIGHT):
        msg = f"a flight needs {', '.join(missing)} too; give all five or none"
        raise InputError(msg)
    if gone := [path for path in given.values() if path is not None and not path.exists()]:
        msg = f"{gone[0]} does not exist; expected what --index, --source and so on name"
        raise InputError(msg)
    args.work.mkdir(parents=True, exist_ok=True)
    flight = made_up_flight(args.work, say=say)
    imagery = args.work / "world" / "held_out" / "imagery.tif"
    if not missing:
        flight = Flight(
            **{name: given[name] for name in _FLIGHT},
            imagery=args.index / "imagery.mbtiles",
            data=f"flight {args.source.parent.name or args.source.name}",
        )
    out = args.out or args.work / "rows.jsonl"
    place = Workplace(
        work=args.work,
        out=out,
        threads=args.threads or usable_cores(),
        effort=effort,
        again=args.again,
    )
    rows = run_matrix(place, choices, planned, flight, imagery, runs=args.runs, say=say)
    return rows, out


def _weights(given: list[str]) -> dict[str, Path]:
    """Files by encoder names.

    Raises:
        InputError: not NAME=FILE, or no such file.
    """
    found = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or not Path(file).is_file():
            msg = f"--weights {text!r}: expected NAME=FILE with a file that is there"
            raise InputError(msg)
        found[name] = Path(file)
    return found


def _command(args: argparse.Namespace) -> str:
    return str(getattr(args, "command_line", "python -m benchmarks matrix")).replace(" --list", "")
