"""The command `skyfix`. Heavy modules load inside the commands, so help is instant."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runtime.command_line import HelpFormatter, run_command
from edge_runtime.engine_cli import add_engine_commands
from edge_runtime.index_cli import add_index_commands

_BACKENDS = ("auto", "ort-cpu", "ort-cuda", "tensorrt", "ort-tensorrt")


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

    run = commands.add_parser(
        "run",
        help="localise the frames of a folder or video",
        **shown(
            "run --bundle bundle --index index --source photos --telemetry telemetry.csv "
            "--camera camera.json"
        ),
    )
    run.add_argument("--bundle", type=Path, required=True, help="encoder folder")
    run.add_argument("--index", type=Path, required=True, help="satellite index folder")
    run.add_argument("--source", type=Path, required=True, help="folder of photographs, or video")
    run.add_argument(
        "--telemetry",
        type=Path,
        required=True,
        help="CSV with filename or t_s, and height_m, yaw_deg, pitch_deg, roll_deg, "
        "velocity_east_mps, velocity_north_mps as far as known",
    )
    run.add_argument(
        "--camera",
        type=Path,
        required=True,
        help="JSON: width_px, height_px, hfov_deg (or fx_px, fy_px, cx_px, cy_px, distortion), "
        "mount_pitch_deg (-90 looks down), stabilised",
    )
    run.add_argument("--out", type=Path, default=Path("fixes.jsonl"), help="log to write")
    run.add_argument("--backend", choices=_BACKENDS, default="auto", help="what runs the encoder")
    run.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="which of the bundle's encoders; fp16 on GPUs and fp32 on CPUs by default",
    )
    run.add_argument("--threads", type=int, help="CPU threads of the encoder; all by default")
    run.add_argument(
        "--start",
        type=float,
        nargs=3,
        metavar=("LAT", "LON", "SIGMA_M"),
        help="position prior in degrees with its 1-sigma error in metres; none by default",
    )
    run.add_argument("--yaw-sigma-deg", type=float, default=5.0, help="1-sigma of the heading")
    run.add_argument(
        "--attitude-sigma-deg",
        type=float,
        default=1.0,
        help="1-sigma of the camera's pitch and roll; larger where they are assumed",
    )
    run.add_argument(
        "--height-range-m",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="heights above ground to search when the telemetry has none",
    )
    run.add_argument(
        "--ignore",
        nargs="+",
        metavar="COLUMN",
        help="telemetry columns to leave out, as yaw_deg",
    )
    run.add_argument("--deadline-ms", type=float, help="time a frame may take; work is shed")
    run.add_argument("--rate-hz", type=float, help="frames per second to keep of a video")
    run.set_defaults(run=_run)

    replay = commands.add_parser(
        "replay",
        help="run a log's frames again and compare every fix",
        **shown("replay fixes.jsonl"),
    )
    replay.add_argument("log", type=Path, help="log written by skyfix run")
    replay.set_defaults(run=_replay)

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
    verify.add_argument("--backend", choices=_BACKENDS, default="auto", help="what runs it")
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


def _run(args: argparse.Namespace) -> int:
    from edge_runtime.flight_log import RunSettings
    from edge_runtime.run import TerminalProgress, run

    _silence_opencv()
    options: dict[str, Any] = {
        "yaw_sigma_deg": args.yaw_sigma_deg,
        "attitude_sigma_deg": args.attitude_sigma_deg,
    }
    for name in (
        "start",
        "height_range_m",
        "deadline_ms",
        "rate_hz",
        "threads",
        "ignore",
        "precision",
    ):
        if getattr(args, name) is not None:
            options[name] = getattr(args, name)
    settings = RunSettings(
        source=str(args.source.resolve()),
        telemetry=str(args.telemetry.resolve()),
        camera=str(args.camera.resolve()),
        bundle=str(args.bundle.resolve()),
        index=str(args.index.resolve()),
        backend=args.backend,
        options=options,
    )
    summary = run(settings, args.out, watch=TerminalProgress())
    print(
        f"{summary.frames} frames: {summary.ok} OK, {summary.degraded} degraded, "
        f"{summary.abstained} abstained, {summary.lost} lost; median {summary.median_ms:.0f} ms "
        f"a frame on {summary.provider}."
    )
    for note in summary.notes:
        print(f"Note: {note}.")
    if summary.left_out:
        print(f"{summary.left_out} photographs have no row of telemetry and were left out.")
    print(f"Log written to {args.out}. Next: skyfix replay {args.out}")
    return 0


def _silence_opencv() -> None:
    """Keep OpenCV from writing lines of its own: what matters is said by this program."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _replay(args: argparse.Namespace) -> int:
    from edge_runtime.run import TerminalProgress, replay

    _silence_opencv()
    summary = replay(args.log, watch=TerminalProgress())
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
    from dataclasses import asdict

    from edge_runtime.doctor import examine

    findings = examine(args.bundle, args.index)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for f in findings:
            remedy = f"  -> {f.remedy}" if f.remedy else ""
            print(f"{f.verdict:>8}  {f.what:<14}  {f.detail}{remedy}")
    return 1 if any(f.needed and f.verdict != "works" for f in findings) else 0
