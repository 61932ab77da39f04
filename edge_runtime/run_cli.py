"""`skyfix run`: its options and what it prints."""

import argparse
import signal
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
)
"""Options that are stored with the run only where the user gave them."""


def add_run_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", formatter: Any
) -> None:
    """Add `run`."""
    run = commands.add_parser(
        "run",
        help="localise the frames of a camera, a video or a folder",
        formatter_class=formatter,
        epilog="Example: skyfix run --bundle bundle --index index --source photos "
        "--telemetry telemetry.csv --camera camera.json",
    )
    run.add_argument("--bundle", type=Path, required=True, help="encoder folder")
    run.add_argument("--index", type=Path, required=True, help="satellite index folder")
    run.add_argument("--camera", type=Path, required=True, help="lens and mounting, JSON or YAML")
    _add_source(run)
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
    group.add_argument("--deadline-ms", type=float, help="time a frame may take; work is shed")


def _add_outputs(run: argparse.ArgumentParser) -> None:
    group = run.add_argument_group("what comes out")
    group.add_argument("--out", type=Path, default=Path("fixes.jsonl"), help="log to write")
    group.add_argument("--append", action="store_true", help="go on with the log that is there")
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
        "--record", type=Path, metavar="FOLDER", help="keep frames and states for skyfix replay"
    )
    group.add_argument("--record-gb", type=float, default=4.0, help="most the recording may take")
    group.add_argument(
        "--record-only-lost", action="store_true", help="keep only what led to being lost"
    )
    group.add_argument(
        "--health-file", type=Path, help="JSON that says how the run is doing, every second"
    )


def run_command(args: argparse.Namespace) -> int:
    """Fly, and say what it came to."""
    from edge_runtime.flight_log import RunSettings
    from edge_runtime.opencv_settings import prepare_opencv
    from edge_runtime.run import RunOutputs, TerminalProgress, run

    prepare_opencv()
    # systemd stops a service with SIGTERM; the run then ends as it does by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options: dict[str, Any] = {
        "yaw_sigma_deg": args.yaw_sigma_deg,
        "attitude_sigma_deg": args.attitude_sigma_deg,
        **({"loop": True} if args.loop else {}),
    }
    options |= {k: getattr(args, k) for k in _OPTIONAL if getattr(args, k) is not None}
    source = _absolute(args.source)
    settings = RunSettings(
        source=source,
        telemetry=_absolute(args.telemetry or args.source),
        camera=str(args.camera.resolve()),
        bundle=str(args.bundle.resolve()),
        index=str(args.index.resolve()),
        backend=args.backend,
        options=options,
    )
    outputs = RunOutputs(
        uris=tuple(args.output),
        serve=None if args.serve is None else _host_and_port(args.serve),
        record=args.record,
        record_gb=args.record_gb,
        record_only_lost=args.record_only_lost,
        health_file=args.health_file,
        append=args.append,
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
    if summary.lost_records:
        print(f"{summary.lost_records} records are not in the log: its medium took them not.")
    print(f"Log written to {args.out}. Next: skyfix replay {args.record or args.out}")
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
