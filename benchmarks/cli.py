"""Measure: accuracy of flights against the truth, speed, memory, and a report of it all."""

import difflib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.accuracy_cli import add_accuracy, add_localisation, add_photographs, add_report
from benchmarks.calibrate_cli import add_calibrate
from benchmarks.compare_cli import add_compare, add_interleave
from benchmarks.encoder_cli import add_latency, add_parity
from benchmarks.flight_cli import add_flights
from benchmarks.matrix_cli import add_matrix
from benchmarks.one_line_parser import OneLineParser
from benchmarks.report_rows_cli import add_readme_table, add_results
from benchmarks.retrieval_cli import add_ambiguity, add_evidence, add_retrieval
from benchmarks.search_cli import add_search
from benchmarks.speed_cli import add_end_to_end, add_soak, add_start_up
from benchmarks.stream_cli import add_multi_stream, add_single_stream
from benchmarks.training_cli import add_ablation, add_loading, add_sampling, add_training_speed
from edge_runtime.command_line import run_command
from edge_runtime.errors import InputError

COMMANDS: Mapping[str, Callable[[Any], None]] = {
    "accuracy": add_accuracy,
    "evidence": add_evidence,
    "retrieval": add_retrieval,
    "ablation": add_ablation,
    "sampling": add_sampling,
    "loading": add_loading,
    "parity": add_parity,
    "ambiguity": add_ambiguity,
    "search": add_search,
    "latency": add_latency,
    "photographs": add_photographs,
    "report": add_report,
    "flights": add_flights,
    "calibrate": add_calibrate,
    "end-to-end": add_end_to_end,
    "start-up": add_start_up,
    "soak": add_soak,
    "matrix": add_matrix,
    "single-stream": add_single_stream,
    "multi-stream": add_multi_stream,
    "localisation": add_localisation,
    "training-speed": add_training_speed,
    "compare": add_compare,
    "interleave": add_interleave,
    "results": add_results,
    "readme-table": add_readme_table,
}
"""In the order of the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn deliberate errors into one line and exit status 2.

    Returns:
        The command's own exit status, which only those that judge have; 0 for others.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)

    def run() -> int | None:
        _check_command(arguments)
        parser = _parser()
        args, unknown = parser.parse_known_args(arguments)
        args.parser.require_known(unknown)
        args.command_line = shlex.join(["python", "-m", "benchmarks", *arguments])
        status: int | None = args.run(args)
        return status

    return run_command("benchmarks", run, stopped="stopped; rows written so far are kept")


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m benchmarks", description=__doc__)
    parser.set_defaults(parser=parser)
    add = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add_one in COMMANDS.values():
        add_one(add)
    for command in add.choices.values():
        command.set_defaults(parser=command)
    return parser


def _check_command(arguments: Sequence[str]) -> None:
    """Refuse an unknown command and name the nearest right one."""
    if not arguments or arguments[0].startswith("-") or arguments[0] in COMMANDS:
        return
    near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(COMMANDS))}"
    msg = f"unknown command {arguments[0]!r}; {hint}"
    raise InputError(msg)
