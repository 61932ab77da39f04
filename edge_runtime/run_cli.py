"""`skyfix run`: its options and what it prints."""

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

BACKEND_CHOICES = ("auto", "ort-cpu", "openvino", "ort-cuda", "tensorrt", "ort-tensorrt")
_LOOPBACK = "127.0.0.1"
_OPTIONAL = (
    "start",
    "height_range_m",
    "deadline_ms",
    "rate_hz",
    "threads",
    "ignore",
    "precision",
    "stall_s",
    "latency_ms",
    "time_offset_s",
    "max_gap_s",
    "heading",
    "hfov_deg",
    "mount_yaw_deg",
    "mount_pitch_deg",
    "mount_roll_deg",
    "takeoff",
    "false_fix_rate",
)
"""Options that are stored with the run only where the user gave them."""


def add_run_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", formatter: Any
) -> None:
    """Add `run`."""
    run = commands.add_parser(
        "run",
        help="localise the frames of a camera, a video or a folder",
        usage="%(prog)s --bundle BUNDLE --index INDEX --source SOURCE [OPTION ...]",
        formatter_class=formatter,
        epilog="Example: skyfix run --bundle bundle --index index --source photos "
        "--telemetry telemetry.csv --camera camera.json",
    )
    run.add_argument("--bundle", type=Path, required=True, help="encoder folder")
    run.add_argument("--index", type=Path, required=True, help="satellite index folder")
    _add_source(run)
    _add_camera(run)
    _add_knowledge(run)
    _add_work(run)
    _add_outputs(run)
    run.set_defaults(run=run_command)


def _add_source(run: argparse.ArgumentParser) -> None:
    group = run.add_argument_group("frames and states")
    group.add_argument(
        "--source",
        required=True,
        help="folder of photographs, video file, or camera: v4l2:///dev/video0, csi://0, "
        "rtsp://..., udp://..., gst:...; see docs/cameras.md",
    )
    group.add_argument(
        "--telemetry",
        help="CSV, DJI .SRT, .tlog, or mavlink:udpin:0.0.0.0:14550; the photographs' own EXIF by "
        "default; see docs/telemetry.md",
    )
    group.add_argument("--rate-hz", type=float, help="frames per second to match at most")
    group.add_argument(
        "--loop", action="store_true", help="begin a video or folder again at its end, for ever"
    )
    group.add_argument(
        "--stall-s", type=float, help="report a camera that gives no frame for this long (2)"
    )
    group.add_argument(
        "--camera-latency-ms",
        dest="latency_ms",
        type=float,
        help="from exposure to time stamp, taken off a camera's times",
    )
    group.add_argument(
        "--time-offset-s", type=float, help="added to a frame's time to get the telemetry's"
    )
    group.add_argument("--max-gap-s", type=float, help="telemetry older than this is not used (1)")
    group.add_argument(
        "--heading",
        choices=("telemetry", "track", "track-held"),
        help="track: from recorded positions while moving; track-held: also at rest",
    )
    group.add_argument(
        "--ignore", nargs="+", metavar="FIELD", help="telemetry to leave out, as yaw_deg"
    )


def _add_camera(run: argparse.ArgumentParser) -> None:
    group = run.add_argument_group("the camera")
    group.add_argument(
        "--camera",
        type=Path,
        help="lens and mounting, JSON or YAML; by default what photographs say of themselves",
    )
    group.add_argument(
        "--hfov-deg", type=float, help="field of view along the width, in place of a camera file"
    )
    for angle, words in (
        ("yaw", "clockwise from the drone's nose"),
        ("pitch", "-90 straight down"),
        ("roll", "right side down"),
    ):
        group.add_argument(
            f"--mount-{angle}-deg",
            type=float,
            metavar="DEG",
            help=f"in place of the file's: {words}",
        )


def _add_knowledge(run: argparse.ArgumentParser) -> None:
    group = run.add_argument_group("what is known")
    group.add_argument(
        "--start",
        type=float,
        nargs=3,
        metavar=("LAT", "LON", "SIGMA_M"),
        help="position prior in degrees with its 1-sigma error in metres; none by default",
    )
    group.add_argument("--yaw-sigma-deg", type=float, default=5.0, help="1-sigma of the heading")
    group.add_argument(
        "--attitude-sigma-deg",
        type=float,
        default=1.0,
        help="1-sigma of the camera's pitch and roll; larger where they are assumed",
    )
    group.add_argument(
        "--height-range-m",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="heights above ground to search when the telemetry has none",
    )
    group.add_argument(
        "--terrain",
        type=Path,
        help="heights of the ground, SRTM .hgt tiles or GeoTIFF: makes heights above take-off ones "
        "above the ground",
    )
    group.add_argument(
        "--takeoff",
        type=float,
        nargs=2,
        metavar=("LAT", "LON"),
        help="place of take-off in degrees, for --terrain",
    )


def _add_work(run: argparse.ArgumentParser) -> None:
    group = run.add_argument_group("how it runs")
    group.add_argument(
        "--backend",
        choices=BACKEND_CHOICES,
        default="auto",
        help="what runs the encoder; auto measures and says what it took",
    )
    group.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="which of the bundle's encoders; fp16 on GPUs and fp32 on CPUs by default",
    )
    group.add_argument("--threads", type=int, help="CPU threads of the encoder; all by default")
    group.add_argument(
        "--matcher",
        type=Path,
        metavar="FILE.onnx",
        help="learned matcher in place of SIFT features; see docs/matcher.md",
    )
    group.add_argument(
        "--false-fix-rate",
        type=float,
        help="abstain so that at most this share of answered stretches of flight is false, as the "
        "index's calibration proves",
    )
    group.add_argument(
        "--no-calibration",
        action="store_true",
        help="state the assumed accuracy even where the index has a calibration",
    )
    group.add_argument("--deadline-ms", type=float, help="time a frame may take; work is shed")


def _add_outputs(run: argparse.ArgumentParser) -> None:
    group = run.add_argument_group("what comes out")
    group.add_argument("--out", type=Path, default=Path("fixes.jsonl"), help="log to write")
    group.add_argument("--append", action="store_true", help="go on with the log that is there")
    group.add_argument(
        "--log-part-mib", type=float, default=64.0, help="the log is split into parts of this size"
    )
    group.add_argument(
        "--log-keep-parts", type=int, help="full parts kept beside the newest; all by default"
    )
    group.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="URI",
        help="also write track.geojson, .kml, .gpx, .csv, nmea:/dev/ttyUSB0, "
        "mavlink:udpout:HOST:PORT, udp://HOST:PORT; may be given again; see docs/outputs.md",
    )
    group.add_argument(
        "--serve",
        nargs="?",
        const=f"{_LOOPBACK}:8080",
        metavar="HOST:PORT",
        help="show the flight in a browser while it goes on; for this machine alone unless told, "
        "as 0.0.0.0:8080",
    )
    group.add_argument(
        "--serve-title", default="skyfix", help="the page's name, where there are several drones"
    )
    group.add_argument(
        "--record", type=Path, metavar="FOLDER", help="keep frames and states for skyfix replay"
    )
    group.add_argument("--record-gb", type=float, default=4.0, help="most the recording may take")
    group.add_argument(
        "--record-seconds", type=float, help="the recording keeps no more than this long"
    )
    group.add_argument(
        "--record-only-lost", action="store_true", help="keep only what led to being lost"
    )
    group.add_argument(
        "--health-file", type=Path, help="JSON that says how the run is doing, every second"
    )
    group.add_argument(
        "--health-port", type=int, help="the same at http://127.0.0.1:PORT/health, 503 if it stalls"
    )


def run_command(args: argparse.Namespace) -> int:
    """Fly, and say what it came to."""
    from edge_runtime.opencv_settings import prepare_opencv
    from edge_runtime.run import RunOutputs, run
    from edge_runtime.run_settings import RunSettings
    from edge_runtime.terminal_progress import TerminalProgress

    prepare_opencv()
    terminated = False

    def terminate(number: int, _: object) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt(number)

    # systemd stops a service with SIGTERM; the run then ends as it does by Ctrl-C, and well.
    signal.signal(signal.SIGTERM, terminate)
    options: dict[str, Any] = {
        "yaw_sigma_deg": args.yaw_sigma_deg,
        "attitude_sigma_deg": args.attitude_sigma_deg,
        **({"loop": True} if args.loop else {}),
        **({"calibrated": False} if args.no_calibration else {}),
        **({"terrain": str(args.terrain.resolve())} if args.terrain else {}),
    }
    if args.matcher is not None:
        from edge_runtime.matcher_opening import matcher_sha256

        options["matcher"] = str(args.matcher.resolve())
        options["matcher_sha256"] = matcher_sha256(args.matcher)
    options |= {k: getattr(args, k) for k in _OPTIONAL if getattr(args, k) is not None}
    source = _absolute(args.source)
    settings = RunSettings(
        source=source,
        telemetry=_absolute(args.telemetry or args.source),
        camera="" if args.camera is None else str(args.camera.resolve()),
        bundle=str(args.bundle.resolve()),
        index=str(args.index.resolve()),
        backend=args.backend,
        options=options,
    )
    outputs = RunOutputs(
        uris=tuple(args.output),
        serve=None if args.serve is None else _host_and_port(args.serve),
        serve_title=args.serve_title,
        record=args.record,
        record_seconds=args.record_seconds,
        record_gb=args.record_gb,
        record_only_lost=args.record_only_lost,
        health_file=args.health_file,
        health_port=args.health_port,
        append=args.append,
        log_part_bytes=round(args.log_part_mib * 2**20),
        log_keep_parts=args.log_keep_parts,
    )
    summary = run(settings, args.out, outputs=outputs, watch=TerminalProgress())
    print(
        f"{summary.frames} frames: {summary.ok} OK, {summary.degraded} degraded, "
        f"{summary.abstained} abstained, {summary.lost} lost; median {summary.median_ms:.0f} ms "
        f"a frame on {summary.provider}."
    )
    for note in summary.notes:
        print(f"Note: {note}.")
    if summary.dropped or summary.missed:
        print(f"{summary.dropped} frames dropped, {summary.missed} took longer than the deadline.")
    if summary.left_out:
        print(f"{summary.left_out} photographs have no row of telemetry and were left out.")
    for event in summary.last_events:
        print(f"After the last record: {event}.")
    recording = f" --recording {args.record}" if args.record else ""
    print(f"Log written to {args.out}. Next: skyfix page {args.out}{recording}")
    if summary.lost_records:
        sys.stderr.write(
            f"skyfix: {summary.lost_records} of {summary.frames} records are not in the log "
            f"{args.out}; its medium was full or gone, so give --out on another one\n"
        )
        return 1
    if summary.stopped:
        sys.stderr.write("skyfix: stopped; the log holds every finished frame\n")
        return 0 if terminated else 130
    return 0


def _absolute(source: str) -> str:
    """A path made absolute, its query kept, so that a replay finds it; other URIs as they are."""
    if "://" in source or source.startswith(("gst:", "mavlink:", "/dev/")):
        return source
    path, mark, query = source.partition("?")
    if Path(source).exists():
        path, mark, query = source, "", ""
    return f"{Path(path).resolve()}{mark}{query}"


def _host_and_port(text: str) -> tuple[str, int]:
    """Split HOST:PORT, or a port alone.

    Raises:
        InputError: neither.
    """
    from edge_runtime.errors import InputError

    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        msg = f"--serve is {text!r}; expected a port or HOST:PORT, as 0.0.0.0:8080"
        raise InputError(msg)
    return host.strip("[]") or _LOOPBACK, int(port)
