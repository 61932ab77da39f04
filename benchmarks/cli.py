"""Measure: accuracy of flights against the truth, latency of backends and stages, and a report."""

import argparse
import difflib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from benchmarks.accuracy import FALSE_FIX_M, AccuracyRow, Score
from benchmarks.rows import append_rows
from edge_runtime.backends.protocol import BACKENDS
from edge_runtime.bundle import Precision
from edge_runtime.command_line import HelpFormatter, run_command
from edge_runtime.errors import InputError

COMMANDS = (
    "ablation",
    "accuracy",
    "evidence",
    "latency",
    "loading",
    "parity",
    "photographs",
    "report",
    "retrieval",
    "sampling",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn deliberate errors into one line and exit status 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    work = {
        "accuracy": _accuracy,
        "latency": _latency,
        "evidence": _evidence,
        "retrieval": _retrieval,
        "ablation": _ablation,
        "sampling": _sampling,
        "loading": _loading,
        "parity": _parity,
        "photographs": _photographs,
        "report": _report,
    }

    def run() -> None:
        _check_command(arguments)
        args = _parser().parse_args(arguments)
        args.command_line = shlex.join(["python", "-m", "benchmarks", *arguments])
        work[args.command](args)

    return run_command("benchmarks", run, stopped="stopped; rows written so far are kept")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    accuracy = _add(commands, "accuracy", "compare logs with the truth, over all attempts")
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

    evidence = _add(commands, "evidence", "what one frame alone can say, without a track")
    _add_flight(evidence)
    evidence.add_argument(
        "--tolerance-m", type=float, default=20.0, help="a match this near the truth is right, m"
    )
    evidence.add_argument("--json", action="store_true", help="print as JSON")

    retrieval = _add(commands, "retrieval", "how far the most similar tiles lie from the truth")
    _add_flight(retrieval)
    retrieval.add_argument(
        "--box",
        type=float,
        nargs=4,
        metavar=("WEST", "SOUTH", "EAST", "NORTH"),
        help="only frames that look into this box, degrees",
    )
    _add_output(retrieval)

    ablation = _add(commands, "ablation", "what each part of training is worth, by seed")
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

    sampling = _add(commands, "sampling", "cost of samplers and ranking at published sizes")
    sampling.add_argument("--runs", type=int, default=3, help="of each case")
    sampling.add_argument("--embedding-size", type=int, default=64, help="numbers of an embedding")
    _add_output(sampling)

    loading = _add(commands, "loading", "images a second that one core reads and augments")
    loading.add_argument("--runs", type=int, default=5, help="repetitions")
    _add_output(loading)

    parity = _add(commands, "parity", "exported encoders against PyTorch, every family")
    parity.add_argument("--photographs", type=Path, required=True, help="folder of JPEGs or PNGs")
    parity.add_argument("--architecture", nargs="+", help="timm names; every family by default")
    parity.add_argument("--size-px", nargs="+", type=int, default=[224, 384], help="sides")
    parity.add_argument("--pictures", type=int, default=12, help="compared, and calibrated on")
    _add_output(parity)

    latency = _add(commands, "latency", "time a bundle's backends, and the stages of logs")
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
        commands, "photographs", "bring a set of real photographs into the commands' form"
    )
    photographs.add_argument("set", choices=("fengyuan", "ariel"), help="docs/photographs.md")
    photographs.add_argument("data", type=Path, help="the set's folder")
    photographs.add_argument("out", type=Path, help="folder to write map, telemetry, truth into")

    report = _add(commands, "report", "one HTML page with every figure, readable offline")
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
    return parser


def _add(commands: Any, name: str, purpose: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        formatter_class=HelpFormatter,
    )
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


def _accuracy(args: argparse.Namespace) -> None:
    from benchmarks.accuracy import accuracy_row, score_flight
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
    _emit(args, rows)
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


def _evidence(args: argparse.Namespace) -> None:
    from benchmarks.evidence import QUANTILES, evidence, open_localizer
    from benchmarks.tables import share

    localizer = open_localizer(args.bundle, args.index, args.camera)
    try:
        found = evidence(
            localizer,
            args.source,
            args.telemetry,
            args.truth,
            tolerance_m=args.tolerance_m,
            look=args.score == "look",
        )
    finally:
        localizer.close()
    if args.json:
        print(json.dumps(asdict(found)))
        return
    print(f"{found.frames} frames, each alone against the whole map")
    print(f"right place among the matches: {share(found.found)}")
    print(f"right place has the strongest evidence: {share(found.first)}")
    print(f"percentiles          {'  '.join(f'{q:>6g}' for q in QUANTILES)}")
    for name in ("right_excess", "chance_excess", "right_evidence", "chance_evidence"):
        print(f"{name:<20} {'  '.join(f'{v:>6.2f}' for v in getattr(found, name))}")


def _retrieval(args: argparse.Namespace) -> None:
    from benchmarks.evidence import open_localizer
    from benchmarks.retrieval import retrieval_row
    from benchmarks.tables import share

    def inside(lat: float, lon: float) -> bool:
        if args.box is None:
            return True
        west, south, east, north = args.box
        return bool(south <= lat <= north and west <= lon <= east)

    localizer = open_localizer(args.bundle, args.index, args.camera)
    try:
        row = retrieval_row(
            localizer,
            args.source,
            args.telemetry,
            args.truth,
            look=args.score == "look",
            within=inside,
        )
    finally:
        localizer.close()
    _emit(args, [row])
    if args.json:
        return
    gallery = f"{row.tiles} tiles of {row.tile_m:g} m, {row.stride_m:g} m apart"
    print(f"{row.frames} frames, each alone against {gallery}")
    for name, found in row.success.items():
        print(
            f"first tile within {name:>5}: {share(found)}; of five: {share(row.success_of_5[name])}"
        )
    print(f"first tile: median {row.median_m:.1f} m, mean {row.dis_at_1_m:.1f} m")


def _ablation(args: argparse.Namespace) -> None:
    from benchmarks.ablation import ablate, print_ablation
    from benchmarks.rows import read_rows

    world_seed = json.loads((args.world / "world.json").read_text())["config"]["seed"]
    ablate(
        args.world,
        args.work,
        args.out,
        start=args.start,
        groups=args.group or ("samplers", "beyond", "distillation"),
        seeds=args.seeds,
        world_seed=world_seed,
        settings=args.set,
        say=lambda line: print(line, flush=True),
    )
    print_ablation(read_rows(args.out, kind="ablation"))


def _sampling(args: argparse.Namespace) -> None:
    from benchmarks.sampling import print_sampling, run

    rows = run(runs=args.runs, embedding_size=args.embedding_size)
    _emit(args, rows)
    if not args.json:
        print_sampling(rows)


def _parity(args: argparse.Namespace) -> None:
    from benchmarks.parity import FAMILIES, ParityRow, parity_rows
    from benchmarks.tables import print_parity
    from edge_runtime.source import PHOTO_SUFFIXES

    if not args.photographs.is_dir():
        msg = f"{args.photographs} is not a folder; expected photographs"
        raise InputError(msg)
    files = sorted(p for p in args.photographs.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
    rows: list[ParityRow] = []

    def done(row: ParityRow) -> None:
        rows.append(row)
        _emit(args, [row])
        if not args.json:
            print(f"{row.architecture} {row.size_px} px: done", file=sys.stderr)

    parity_rows(
        args.architecture or FAMILIES, args.size_px, files, pictures=args.pictures, done=done
    )
    if not args.json:
        print_parity(rows)


def _loading(args: argparse.Namespace) -> None:
    from benchmarks.loading import loading_rows

    rows = loading_rows(runs=args.runs)
    _emit(args, rows)
    if not args.json:
        for row in rows:
            spread = f"{row.images_per_s_low:.0f} to {row.images_per_s_high:.0f}"
            print(
                f"{row.recipe}: {row.images_per_s:.0f} images/s a core ({spread}), "
                f"{row.source_px} JPEG of {row.source_kib:.0f} KiB to {row.encoder_px}"
            )


def _photographs(args: argparse.Namespace) -> None:
    from benchmarks.photographs import prepare

    photos = prepare(args.set, args.data, args.out)
    print(f"Photographs are in {photos}; map, telemetry, truth and camera in {args.out}.")
    print(f"next: python -m export index --imagery {args.out}/map.tif --bundle BUNDLE --out INDEX")


def _row(flights: Any, args: argparse.Namespace, make: Any) -> AccuracyRow:
    row: AccuracyRow = make(flights, score=args.score, false_fix_m=args.false_fix_m)
    return row


def _latency(args: argparse.Namespace) -> None:
    from benchmarks.accuracy import read_log
    from benchmarks.latency import LatencyRow, StageRow, measure_backend, stage_rows
    from benchmarks.tables import print_latency, print_stages
    from edge_runtime.bundle import Bundle

    if args.bundle is None and not args.log:
        msg = "nothing to measure; give --bundle (a folder) or --log (a .jsonl)"
        raise InputError(msg)
    stages: list[StageRow] = []
    for log in args.log:
        stages += stage_rows(read_log(log), log.name.removesuffix(".jsonl"), device=args.device)
    timed: list[LatencyRow] = []
    if args.bundle is not None:
        bundle = Bundle.open(args.bundle)
        for backend in args.backend:
            for precision in args.precision or [None]:
                for batch in args.batch:
                    if not args.json:
                        what = f"{backend} {precision or ''}".strip()
                        print(f"timing {what}, batch {batch}: {args.calls} calls", file=sys.stderr)
                    timed.append(
                        measure_backend(
                            bundle,
                            backend,
                            precision=precision,
                            batch=batch,
                            calls=args.calls,
                            warmup=args.warmup,
                            threads=args.threads,
                        )
                    )
    _emit(args, [*timed, *stages])
    if args.json:
        return
    if timed:
        print_latency(timed)
    if stages:
        print_stages(stages)
    rows = shlex.quote(str(args.out or "rows.jsonl"))
    print(
        "next: python -m benchmarks report --index INDEX --flight LOG TRUTH FRAMES_DIR "
        f"--latency {rows} --out report.html"
    )


def _report(args: argparse.Namespace) -> None:
    from benchmarks.accuracy import read_log
    from benchmarks.latency import stage_rows
    from benchmarks.report import ReportSources, read_evaluation, write_report
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


def _emit(args: argparse.Namespace, rows: Sequence[Any]) -> None:
    if args.out is not None:
        append_rows(args.out, list(rows))
    if args.json:
        for row in rows:
            print(json.dumps(asdict(row)))
