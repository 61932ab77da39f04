"""The command `skyfix`. Heavy modules load inside the commands, so help is instant."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runtime.command_line import HelpFormatter, run_command
from edge_runtime.convert_cli import add_convert_command
from edge_runtime.engine_cli import add_engine_commands
from edge_runtime.index_cli import add_index_commands
from edge_runtime.page_cli import add_page_command
from edge_runtime.run_cli import BACKEND_CHOICES, add_run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn deliberate errors into exit status 2."""
    args = _parser().parse_args(argv)
    return run_command("skyfix", lambda: args.run(args), stopped=args.stopped)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="skyfix",
        description="Where is the drone? Matches what its camera sees against satellite imagery "
        "carried on board, without GNSS.",
        epilog="Start with: skyfix doctor",
    )
    parser.set_defaults(stopped="stopped; the log holds every finished frame")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def shown(example: str) -> dict[str, Any]:
        return {"formatter_class": HelpFormatter, "epilog": f"Example: skyfix {example}"}

    add_run_command(commands, HelpFormatter)

    replay = commands.add_parser(
        "replay",
        help="run a log's or a recording's frames again and compare every fix",
        **shown("replay fixes.jsonl"),
    )
    replay.add_argument(
        "log", type=Path, help="log written by skyfix run, or folder written by its --record"
    )
    replay.add_argument(
        "--run",
        dest="run_number",
        type=int,
        metavar="K",
        help="one of the runs of a log that was gone on with, from 1; all by default",
    )
    replay.set_defaults(run=_replay)

    add_page_command(commands, HelpFormatter)
    add_convert_command(commands, HelpFormatter)

    bundle = commands.add_parser(
        "bundle", help="look at an encoder bundle", **shown("bundle verify bundle")
    )
    bundle_commands = bundle.add_subparsers(required=True, metavar="COMMAND")
    verify = bundle_commands.add_parser(
        "verify",
        help="check every file, and the probes on a backend",
        **shown("bundle verify bundle"),
    )
    verify.add_argument("bundle", type=Path, help="encoder folder")
    verify.add_argument("--backend", choices=BACKEND_CHOICES, default="auto", help="what runs it")
    verify.set_defaults(run=_bundle_verify)

    add_index_commands(commands, HelpFormatter)
    add_engine_commands(commands, HelpFormatter)

    doctor = commands.add_parser(
        "doctor", help="what works on this machine", **shown("doctor --bundle bundle --index index")
    )
    doctor.add_argument("--bundle", type=Path, help="also check this encoder folder")
    doctor.add_argument(
        "--index", type=Path, help="also check this index, against the bundle if given"
    )
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.set_defaults(run=_doctor)
    return parser


def _replay(args: argparse.Namespace) -> int:
    from edge_runtime.opencv_settings import prepare_opencv
    from edge_runtime.replaying import replay
    from edge_runtime.terminal_progress import TerminalProgress

    prepare_opencv()
    summary = replay(args.log, run=args.run_number, watch=TerminalProgress())
    for note in summary.notes:
        print(f"Note: {note}.")
    if summary.different:
        for line in summary.different[:20]:
            print(line)
        print(f"{len(summary.different)} of {summary.frames} frames came out otherwise.")
        return 1
    print(f"{summary.frames} frames, every fix the same.")
    return 0


def _bundle_verify(args: argparse.Namespace) -> int:
    from edge_runtime.backends.protocol import check_probes, open_backend
    from edge_runtime.bundle import Bundle

    bundle = Bundle.open(args.bundle)
    print(f"{args.bundle}: {bundle.id}, {bundle.spec.architecture}, every file as it was written")
    for precision in sorted(bundle.precisions):
        backend = open_backend(bundle, args.backend, precision=precision)
        report = check_probes(bundle, backend)
        print(
            f"{precision} on {backend.info.provider}: lowest probe cosine {report.min_cosine:.6f}"
            + (f"; {backend.info.engine}" if backend.info.engine else "")
        )
        for note in backend.info.notes:
            print(f"  {note}")
        backend.close()
    return 0


def _doctor(args: argparse.Namespace) -> int:
    import json
    import os
    import shutil
    import sys
    from dataclasses import asdict

    from edge_runtime.doctor import examine, page

    findings = examine(args.bundle, args.index)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        width = min(shutil.get_terminal_size((110, 24)).columns, 110)
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print(page(findings, width=width, colour=colour))
    return 1 if any(f.needed and f.verdict != "works" for f in findings) else 0
