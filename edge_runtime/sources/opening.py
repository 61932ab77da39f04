"""Opens whatever gives frames, by its URI."""

import math
from collections.abc import Container
from pathlib import Path

from edge_runtime.errors import InputError
from edge_runtime.sources.capture import (
    Capture,
    CaptureSpec,
    Engine,
    OpenCapture,
    has_ffmpeg,
    has_gstreamer,
    open_with_opencv,
    prepare_opencv,
)
from edge_runtime.sources.devices import check_device
from edge_runtime.sources.frame_times import Clock
from edge_runtime.sources.live import LiveSource
from edge_runtime.sources.notices import Notices
from edge_runtime.sources.photographs import PhotographSource
from edge_runtime.sources.protocol import FrameSource
from edge_runtime.sources.uri import SourceUri, parse_source
from edge_runtime.sources.video import PacedFile, VideoFile, VideoSource

_APPSINK = "appsink drop=true max-buffers=1 sync=false"


def open_frames(
    uri: str,
    *,
    rate_hz: float | None = None,
    loop: bool = False,
    stall_s: float = 2.0,
    latency_ms: float | None = None,
    names: Container[str] | None = None,
    open_capture: OpenCapture = open_with_opencv,
) -> FrameSource:
    """Open a source of frames.

    Args:
        uri: a folder of photographs, a video file, v4l2:///dev/video0, usb://0, csi://0,
            rtsp://..., udp://..., http://... or gst:PIPELINE; options as a query. See
            docs/cameras.md.
        rate_hz: frames per second to give at most; None for all.
        loop: begin a file or folder again at its end, for ever.
        stall_s: without a frame of a camera for this long a record says so.
        latency_ms: of a camera, from exposure to time stamp; None for what the URI says, or 0.
        names: photographs of a folder to give; None for all.
        open_capture: opens cameras and videos; tests play them.

    Returns:
        The source, open. Close it.

    Raises:
        InputError: not understood, not there, nothing usable in it, or not to be opened.
    """
    if rate_hz is not None and not 0 < rate_hz < math.inf:
        msg = f"the rate is {rate_hz} frames per second; give a positive number"
        raise InputError(msg)
    if not 0 < stall_s < math.inf:
        msg = f"the stall time-out is {stall_s} s; give a positive number"
        raise InputError(msg)
    if latency_ms is not None and not 0 <= latency_ms < 60_000:
        msg = f"the camera's latency is {latency_ms} ms; give a number from 0 to 60000"
        raise InputError(msg)
    source = parse_source(uri)
    if source.kind == "file":
        return _open_file(source, rate_hz, stall_s, names, open_capture, loop=loop)
    if loop:
        msg = f"{source.shown} has no end, so it cannot be looped; leave the loop out"
        raise InputError(msg)
    spec = _spec_of(source, stall_s)
    if latency_ms is None:
        latency_ms = source.number("latency_ms", 0.0) or 0.0
    return LiveSource(
        spec,
        stall_s=stall_s,
        rate_hz=rate_hz,
        latency_s=1e-3 * latency_ms,
        open_s=source.number("open_s") or spec.open_timeout_s,
        open_capture=open_capture,
    )


def _open_file(
    source: SourceUri,
    rate_hz: float | None,
    stall_s: float,
    names: Container[str] | None,
    open_capture: OpenCapture,
    *,
    loop: bool,
) -> FrameSource:
    path = Path(source.target)
    realtime = source.truth("realtime")
    if not path.exists():
        msg = (
            f"{source.target} does not exist; expected a folder of photographs, a video file, or "
            "a camera as v4l2:///dev/video0, csi://0 or rtsp://host/path"
        )
        raise InputError(msg)
    if path.is_dir():
        if realtime:
            msg = f"{source.shown} is a folder; only a video file plays in real time"
            raise InputError(msg)
        return PhotographSource(path, names=names, loop=loop)
    prepare_opencv(stall_s=stall_s)
    spec = CaptureSpec(
        shown=str(path), target=str(path), engine="ffmpeg", stamps="container", read_timeout_s=30.0
    )
    if not realtime:
        return VideoSource(spec, rate_hz=rate_hz, loop=loop, open_capture=open_capture)
    # Whether it is a video at all is found here, where the error reaches the user.
    VideoFile(spec, open_capture, lambda _: None).release()

    notices = Notices()

    def open_paced(again: CaptureSpec) -> Capture | None:
        return PacedFile(VideoFile(again, open_capture, notices.say, loop=loop), Clock())

    return LiveSource(
        spec,
        stall_s=stall_s,
        rate_hz=rate_hz,
        open_capture=open_paced,
        is_file=True,
        notices=notices,
    )


def _spec_of(source: SourceUri, stall_s: float) -> CaptureSpec:
    match source.kind:
        case "v4l2":
            return _device(source, stall_s)
        case "network":
            return _stream(source, stall_s)
        case _:
            return _pipeline(source, stall_s)


def _device(source: SourceUri, stall_s: float) -> CaptureSpec:
    check_device(source.target)
    fourcc = source.options.get("fourcc")
    if fourcc is not None and (len(fourcc) != 4 or not fourcc.isascii()):
        msg = f"{source.shown}: fourcc={fourcc} has not four letters; give one as fourcc=MJPG"
        raise InputError(msg)
    prepare_opencv(stall_s=stall_s)
    return CaptureSpec(
        shown=source.target,
        target=source.target,
        engine="v4l2",
        stamps="kernel",
        width_px=source.whole("width"),
        height_px=source.whole("height"),
        fps=source.number("fps"),
        fourcc=fourcc,
        buffers=source.whole("buffers"),
        read_timeout_s=max(1.0, math.ceil(stall_s)),
    )


def _stream(source: SourceUri, stall_s: float) -> CaptureSpec:
    scheme = source.target.partition(":")[0].lower()
    backend = source.one_of("backend", ("auto", "ffmpeg", "gstreamer"))
    engine: Engine = "gstreamer" if backend == "gstreamer" or not has_ffmpeg() else "ffmpeg"
    transport = source.one_of("transport", ("tcp", "udp"))
    prepare_opencv(stall_s=stall_s)
    target, options = source.target, None
    if scheme.startswith("rtsp"):
        options = f"rtsp_transport;{transport}|fflags;nobuffer|flags;low_delay|max_delay;200000"
    if engine == "gstreamer":
        _need_gstreamer(source)
        if not scheme.startswith("rtsp"):
            msg = (
                f"{source.shown}: GStreamer is used for rtsp:// here; for {scheme}:// write the "
                "pipeline out, as gst:udpsrc port=5600 ! ... ! appsink"
            )
            raise InputError(msg)
        target = (
            f"rtspsrc location={_quoted(target)} latency=0 protocols={transport} "
            "drop-on-latency=true ! decodebin ! videoconvert ! video/x-raw,format=BGR ! "
            f"{_APPSINK}"
        )
    elif scheme == "udp" and "overrun_nonfatal" not in target:
        # A burst that overruns the buffer must not end the stream.
        target += ("&" if "?" in target else "?") + "overrun_nonfatal=1"
    return CaptureSpec(
        shown=source.shown,
        target=target,
        engine=engine,
        stamps="stream" if engine == "ffmpeg" else "none",
        ffmpeg_options=options,
        read_timeout_s=stall_s,
    )


def _pipeline(source: SourceUri, stall_s: float) -> CaptureSpec:
    _need_gstreamer(source)
    prepare_opencv(stall_s=stall_s)
    target = source.target if source.kind == "gst" else csi_pipeline(source)
    return CaptureSpec(
        shown=source.shown, target=target, engine="gstreamer", stamps="none", read_timeout_s=stall_s
    )


def csi_pipeline(source: SourceUri) -> str:
    """The GStreamer pipeline of a camera on a Jetson's CSI port.

    Raises:
        InputError: an option is no number.
    """
    width, height = source.whole("width") or 1280, source.whole("height") or 720
    fps, flip = source.number("fps", 30.0) or 30.0, source.whole("flip") or 0
    if flip > 7:
        msg = f"{source.shown}: flip={flip} is not known; give 0 to 7, 2 turns by 180 degrees"
        raise InputError(msg)
    rate = f"{round(fps)}/1" if fps == round(fps) else f"{round(1000 * fps)}/1000"
    return (
        f"nvarguscamerasrc sensor-id={source.target} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={rate},format=NV12 ! "
        f"nvvidconv flip-method={flip} ! video/x-raw,format=BGRx ! "
        f"videoconvert ! video/x-raw,format=BGR ! {_APPSINK}"
    )


def _need_gstreamer(source: SourceUri) -> None:
    if not has_gstreamer():
        msg = (
            f"{source.shown} needs an OpenCV with GStreamer, which the one installed here has not; "
            "on a Jetson use the system's OpenCV: pip uninstall opencv-python-headless"
        )
        raise InputError(msg)


def _quoted(address: str) -> str:
    return '"' + address.replace("\\", "\\\\").replace('"', '\\"') + '"'
