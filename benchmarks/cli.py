"""Measure: accuracy of flights against the truth, speed, memory, and a report of it all."""

import argparse
import difflib
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from benchmarks import commands
from benchmarks.accuracy import FALSE_FIX_M, Score
from benchmarks.calibrate_cli import add_calibrate
from benchmarks.compare_cli import add_compare, add_interleave
from benchmarks.flight_cli import add_flights
from benchmarks.matrix_cli import add_matrix
from benchmarks.protocol_cli import (
    add_localisation,
    add_multi_stream,
    add_single_stream,
    add_training_speed,
)
from benchmarks.report_rows_cli import add_readme_table, add_results
from benchmarks.speed_cli import add_end_to_end, add_soak, add_start_up
from edge_runtime.backends.protocol import BACKENDS
from edge_runtime.command_line import HelpFormatter, run_command
from edge_runtime.errors import InputError
from edge_runtime.index_format import VectorType
from edge_runtime.map_ambiguity import LIKENESS
from edge_runtime.precision import Precision

COMMANDS = (
    "ablation",
    "accuracy",
    "ambiguity",
    "calibrate",
    "compare",
    "end-to-end",
    "evidence",
    "flights",
    "interleave",
    "latency",
    "loading",
    "localisation",
    "matrix",
    "multi-stream",
    "parity",
    "photographs",
    "readme-table",
    "report",
    "results",
    "retrieval",
    "sampling",
    "search",
    "single-stream",
    "soak",
    "start-up",
    "training-speed",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn deliberate errors into one line and exit status 2.

    Returns:
        The command's own exit status, which only those that judge have; 0 for others.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)

    def run() -> int | None:
        _check_command(arguments)
        args = _parser().parse_args(arguments)
        args.command_line = shlex.join(["python", "-m", "benchmarks", *arguments])
        status: int | None = args.run(args)
        return status

    return run_command("benchmarks", run, stopped="stopped; rows written so far are kept")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    accuracy = _add(add, commands.accuracy, "compare logs with the truth, over all attempts")
    accuracy.add_argument(
        "--log", type=Path, action="append", required=True, help="fix records, .jsonl; repeatable"
    )
    accuracy.add_argument(
        "--truth",
        type=Path,
        action="append",
        required=True,
        help="CSV with filename, lat_deg, lon_deg (degrees); one per --log, in the same order",
    )
    _add_scoring(accuracy)
    _add_output(accuracy)

    evidence = _add(add, commands.evidence, "what one frame alone can say, without a track")
    _add_flight(evidence)
    evidence.add_argument(
        "--tolerance-m", type=float, default=20.0, help="a match this near the truth is right, m"
    )
    evidence.add_argument("--json", action="store_true", help="print as JSON")

    retrieval = _add(add, commands.retrieval, "how far the most similar tiles lie from the truth")
    _add_flight(retrieval)
    retrieval.add_argument(
        "--box",
        type=float,
        nargs=4,
        metavar=("WEST", "SOUTH", "EAST", "NORTH"),
        help="only frames that look into this box, degrees",
    )
    _add_output(retrieval)

    ablation = _add(add, commands.ablation, "what each part of training is worth, by seed")
    ablation.add_argument("--world", type=Path, required=True, help="of python -m train world")
    ablation.add_argument(
        "--from",
        dest="start",
        type=Path,
        required=True,
        help="checkpoint of pretrained weights: python -m train import-weights",
    )
    ablation.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    ablation.add_argument("--out", type=Path, required=True, help="rows, .jsonl; goes on with it")
    ablation.add_argument(
        "--group",
        action="append",
        choices=("samplers", "beyond", "distillation"),
        help="which variants; all by default",
    )
    ablation.add_argument("--seeds", type=int, default=3, help="train with seeds 1 to this")
    ablation.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a training setting of every variant, as freeze_norms=true",
    )

    sampling = _add(add, commands.sampling, "cost of samplers and ranking at published sizes")
    sampling.add_argument("--runs", type=int, default=3, help="of each case")
    sampling.add_argument("--embedding-size", type=int, default=64, help="numbers of an embedding")
    _add_output(sampling)

    loading = _add(add, commands.loading, "images a second that one core reads and augments")
    loading.add_argument("--runs", type=int, default=5, help="repetitions")
    _add_output(loading)

    parity = _add(add, commands.parity, "exported encoders against PyTorch, every family")
    parity.add_argument("--photographs", type=Path, required=True, help="folder of JPEGs or PNGs")
    parity.add_argument("--architecture", nargs="+", help="timm names; every family by default")
    parity.add_argument("--size-px", nargs="+", type=int, default=[224, 384], help="sides")
    parity.add_argument("--pictures", type=int, default=12, help="compared, and calibrated on")
    _add_output(parity)

    ambiguity = _add(add, commands.ambiguity, "does a map's ambiguity say where retrieval errs?")
    ambiguity.add_argument("--bundle", type=Path, required=True, help="encoder folder")
    ambiguity.add_argument("--index", type=Path, required=True, help="satellite index folder")
    ambiguity.add_argument("--views", type=int, default=1000, help="simulated views")
    ambiguity.add_argument(
        "--likeness", type=float, nargs="+", default=[LIKENESS], help="of the scores"
    )
    for name in ("photos", "telemetry", "camera", "truth"):
        ambiguity.add_argument(f"--{name}", type=Path, help="of a flight, all four or none")
    _add_output(ambiguity)

    search = _add(add, commands.search, "search of an index beside faiss and NumPy, on one core")
    search.add_argument("--tiles", type=int, default=100_000, help="of a simulated map")
    search.add_argument("--dimensions", type=int, default=1024, help="numbers of an embedding")
    search.add_argument("--vectors", choices=get_args(VectorType), default="f16", help="as stored")
    search.add_argument("--radius-m", type=float, default=2000.0, help="of the circle of a prior")
    search.add_argument("--queries", type=int, default=1, help="in a call")
    search.add_argument("--calls", type=int, default=1000, help="timed per task")
    search.add_argument(
        "--contender",
        nargs="+",
        choices=("skyfix", "faiss flat", "faiss hnsw", "numpy"),
        default=("skyfix", "faiss flat", "faiss hnsw", "numpy"),
        help="whom to measure; faiss is left out where it is not installed",
    )
    search.add_argument("--work", type=Path, help="folder for files; a temporary one by default")
    _add_output(search)

    latency = _add(add, commands.latency, "time a bundle's backends, and the stages of logs")
    latency.add_argument("--bundle", type=Path, help="folder written by python -m export bundle")
    latency.add_argument(
        "--backend", nargs="+", choices=BACKENDS, default=["auto"], help="backends to time"
    )
    latency.add_argument(
        "--precision",
        nargs="+",
        choices=get_args(Precision),
        default=None,
        help="ONNX files to time (default: the backend's own choice)",
    )
    latency.add_argument("--batch", nargs="+", type=int, default=[1], help="images per call")
    latency.add_argument(
        "--calls", type=int, default=200, help="timed calls per row; times are in ms"
    )
    latency.add_argument("--warmup", type=int, default=20, help="calls before the timed ones")
    latency.add_argument("--threads", type=int, default=None, help="CPU threads (default: all)")
    latency.add_argument(
        "--log", type=Path, action="append", default=[], help="fix records, .jsonl; repeatable"
    )
    latency.add_argument("--device", default="", help="name of the machine the logs were made on")
    _add_output(latency)

    photographs = _add(
        add, commands.photographs, "bring a set of real photographs into the commands' form"
    )
    photographs.add_argument("set", choices=("fengyuan", "ariel"), help="docs/photographs.md")
    photographs.add_argument("data", type=Path, help="the set's folder")
    photographs.add_argument("out", type=Path, help="folder to write map, telemetry, truth into")

    report = _add(
        add,
        commands.report,
        "one HTML page of flights on their map; for rows of any command: results",
    )
    report.add_argument("--index", type=Path, required=True, help="index folder: the map's imagery")
    report.add_argument(
        "--flight",
        nargs=3,
        action="append",
        required=True,
        metavar=("LOG", "TRUTH", "FRAMES_DIR"),
        help="log (.jsonl), truth (.csv), folder of frames ('-' for none); repeatable",
    )
    report.add_argument("--latency", type=Path, help="rows of python -m benchmarks latency, .jsonl")
    report.add_argument(
        "--eval", type=Path, help="JSON with r_at_1 (share, 0..1) and gallery (tiles)"
    )
    report.add_argument("--camera", type=Path, help="camera JSON: draws matches at the true scale")
    report.add_argument("--title", default="Flight report", help="headline of the page")
    report.add_argument("--out", type=Path, required=True, help="HTML file to write")
    _add_scoring(report)

    for add_command in (
        add_flights,
        add_calibrate,
        add_end_to_end,
        add_start_up,
        add_soak,
        add_matrix,
        add_single_stream,
        add_multi_stream,
        add_localisation,
        add_training_speed,
        add_compare,
        add_interleave,
        add_results,
        add_readme_table,
    ):
        add_command(add)
    return parser


def _add(
    add: Any, run: Callable[[argparse.Namespace], int | None], purpose: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = add.add_parser(
        run.__name__,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_flight(parser: argparse.ArgumentParser) -> None:
    for name, what in (
        ("bundle", "encoder folder"),
        ("index", "satellite index folder"),
        ("source", "folder of photographs"),
        ("telemetry", "CSV with filename, height_m, yaw_deg, …"),
        ("truth", "CSV with filename, lat_deg, lon_deg (degrees)"),
        ("camera", "camera JSON"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=what)
    parser.add_argument(
        "--score", choices=get_args(Score), default="drone", help="compare this point"
    )


def _add_scoring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--score",
        choices=get_args(Score),
        default="drone",
        help="compare the drone's position, or the point its optical axis meets",
    )
    parser.add_argument(
        "--false-fix-m", type=float, default=FALSE_FIX_M, help="an answer further off is false, m"
    )
    parser.add_argument(
        "--logged-only",
        action="store_true",
        help="leave out frames that the log does not have (else they count as not answered)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=None, help="append rows to this .jsonl")
    parser.add_argument("--json", action="store_true", help="print rows as JSON lines")


def _check_command(arguments: Sequence[str]) -> None:
    """Refuse an unknown command and name the nearest right one."""
    if not arguments or arguments[0].startswith("-") or arguments[0] in COMMANDS:
        return
    near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(COMMANDS)}"
    msg = f"unknown command {arguments[0]!r}; {hint}"
    raise InputError(msg)
