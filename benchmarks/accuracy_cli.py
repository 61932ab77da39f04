"""`python -m benchmarks accuracy`, `localisation`, `report`, `photographs`: flights and truth."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from benchmarks.accuracy import AccuracyRow
from benchmarks.command_parts import (
    add_command,
    add_false_fix,
    add_output,
    add_score,
    emit,
    folder_path,
    page_path,
)
from edge_runtime.errors import InputError


def add_accuracy(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add, "accuracy", "compare logs with the truth, over all attempts", accuracy
    )
    parser.add_argument(
        "--log", type=Path, action="append", required=True, help="fix records, .jsonl; repeatable"
    )
    parser.add_argument(
        "--truth",
        type=Path,
        action="append",
        required=True,
        help="CSV with filename, lat_deg, lon_deg (degrees); one per --log, in the same order",
    )
    _add_scoring(parser)
    add_output(parser)


def add_localisation(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
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
    add_score(parser)
    add_false_fix(parser)
    parser.add_argument("--device", default="", help="name of the machine the logs were made on")
    parser.add_argument("--run", type=int, default=0, dest="number", help="of the repetition")
    add_output(parser)


def add_report(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add,
        "report",
        "one HTML page of flights on their map; for rows of any command: results",
        report,
    )
    parser.add_argument("--index", type=Path, required=True, help="index folder: the map's imagery")
    parser.add_argument(
        "--flight",
        nargs=3,
        action="append",
        required=True,
        metavar=("LOG", "TRUTH", "FRAMES_DIR"),
        help="log (.jsonl), truth (.csv), folder of frames ('-' for none); repeatable",
    )
    parser.add_argument("--latency", type=Path, help="rows of python -m benchmarks latency, .jsonl")
    parser.add_argument(
        "--eval", type=Path, help="JSON with r_at_1 (share, 0..1) and gallery (tiles)"
    )
    parser.add_argument("--camera", type=Path, help="camera JSON: draws matches at the true scale")
    parser.add_argument("--title", default="Flight report", help="headline of the page")
    parser.add_argument("--out", type=page_path, required=True, help="HTML file to write")
    _add_scoring(parser)


def add_photographs(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add, "photographs", "bring a set of real photographs into the commands' form", photographs
    )
    parser.add_argument("set", choices=("fengyuan", "ariel"), help="docs/photographs.md")
    parser.add_argument("data", type=Path, help="the set's folder")
    parser.add_argument("out", type=folder_path, help="folder to write map, telemetry, truth into")


def accuracy(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.accuracy import accuracy_row
    from benchmarks.scored_flight import score_flight
    from benchmarks.tables import print_accuracy

    if len(args.log) != len(args.truth):
        msg = f"{len(args.log)} --log and {len(args.truth)} --truth; expected one truth per log"
        raise InputError(msg)
    flights = [
        score_flight(log, truth, score=args.score, logged_only=args.logged_only)
        for log, truth in zip(args.log, args.truth, strict=True)
    ]
    rows = [_row([flight], args, accuracy_row) for flight in flights]
    if len(flights) > 1:
        rows.append(_row(flights, args, accuracy_row))
    emit(args, rows)
    if args.json:
        return
    print_accuracy(rows)
    for flight, row in zip(flights, rows, strict=False):
        if row.missing.count:
            print(
                f"{flight.name}: {row.missing.count} frames of the truth are not in the log and "
                "count as not answered (--logged-only leaves them out)"
            )
        if flight.untrue_frames:
            print(f"{flight.name}: {flight.untrue_frames} frames have no truth and are left out")
    pairs = " ".join(
        f"--flight {shlex.quote(str(log))} {shlex.quote(str(truth))} FRAMES_DIR"
        for log, truth in zip(args.log, args.truth, strict=True)
    )
    print(f"next: python -m benchmarks report --index INDEX {pairs} --out report.html")


def localisation(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.localisation_rows import in_words, localisation_rows
    from benchmarks.scored_flight import score_flight

    if args.number < 0:
        msg = f"--run is {args.number}; expected 0 or more"
        raise InputError(msg)
    logs, truths = list(args.log), list(args.truth)
    if args.logs is not None:
        found = sorted(args.logs.glob("*.truth.csv"))
        if not found:
            msg = f"{args.logs} has no NAME.truth.csv; expected a folder as flights writes it"
            raise InputError(msg)
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
        emit(args, rows)
        if not args.json:
            print("\n".join(map(in_words, rows)))
    if not args.json:
        after = shlex.quote(str(args.out or "ROWS.jsonl"))
        print(f"next: python -m benchmarks compare BEFORE.jsonl {after}")


def report(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.report import ReportSources, read_evaluation, write_report
    from benchmarks.scored_flight import read_log
    from benchmarks.stage_latency import stage_rows
    from benchmarks.tables import print_accuracy, print_stages

    sources = ReportSources(
        index=args.index,
        flights=tuple(
            (Path(log), Path(truth), None if frames == "-" else Path(frames))
            for log, truth, frames in args.flight
        ),
        latency=args.latency,
        evaluation=args.eval,
        camera=args.camera,
        title=args.title,
        score=args.score,
        false_fix_m=args.false_fix_m,
        logged_only=args.logged_only,
        command_line=args.command_line,
    )
    rows = write_report(sources, args.out)
    print_accuracy(rows)
    fixes = [fix for log, _, _ in sources.flights for fix in read_log(log)]
    print_stages(stage_rows(fixes, "all flights" if len(sources.flights) > 1 else rows[0].flight))
    print(f"embedded by {', '.join(sorted({fix.engine_id for fix in fixes}))}")
    if args.eval is not None:
        found = read_evaluation(args.eval)
        print(f"retrieval alone, photo to tile: R@1 {found.r_at_1:.1%} of {found.gallery} tiles")
    size_mib = args.out.stat().st_size / 2**20
    print(f"{args.out}: {size_mib:.1f} MiB, needs no network")
    print(f"next: open {shlex.quote(str(args.out))} in a browser")


def photographs(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.photographs import prepare

    photos = prepare(args.set, args.data, args.out)
    print(f"Photographs are in {photos}; map, telemetry, truth and camera in {args.out}.")
    print(f"next: python -m export index --imagery {args.out}/map.tif --bundle BUNDLE --out INDEX")


def _row(flights: Any, args: argparse.Namespace, make: Any) -> AccuracyRow:
    row: AccuracyRow = make(flights, score=args.score, false_fix_m=args.false_fix_m)
    return row


def _add_scoring(parser: argparse.ArgumentParser) -> None:
    add_score(parser)
    add_false_fix(parser)
    parser.add_argument(
        "--logged-only",
        action="store_true",
        help="leave out frames that the log does not have (else they count as not answered)",
    )
