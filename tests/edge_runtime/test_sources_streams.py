"""Real streams over the loopback, read by OpenCV's FFmpeg: MJPEG over HTTP, MPEG-TS over UDP."""

import http.server
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("cv2")

import cv2

from edge_runtime.errors import InputError
from edge_runtime.sources.capture import Capture, CaptureSpec, has_ffmpeg, open_with_opencv
from edge_runtime.sources.live import LiveSource
from edge_runtime.sources.opening import open_frames
from edge_runtime.sources.protocol import Frame, FrameSource

U8 = npt.NDArray[np.uint8]
LONG_S = 60.0
OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
UDP, TCP = "rtsp_transport;udp", "rtsp_transport;tcp"
STREAM = CaptureSpec(
    shown="rtsp", target="rtsp://h", engine="ffmpeg", stamps="stream", ffmpeg_options=UDP
)
FILE = replace(STREAM, target="flight.mp4", stamps="container", ffmpeg_options=None)

pytestmark = pytest.mark.skipif(not has_ffmpeg(), reason="this OpenCV has no FFmpeg")


def picture(number: int) -> U8:
    """Left part as grey as the number says; the rest a pattern, so that it shows something."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, 32:] = np.random.default_rng(number).integers(0, 256, (48, 32, 3), np.uint8)
    image[:, :32] = 40 + number % 100
    return image


class MjpegCamera:
    """An IP camera that sends JPEGs one after another and can be unplugged."""

    def __init__(self) -> None:
        self.plugged = threading.Event()
        self.plugged.set()
        self.quit = threading.Event()
        self.idle = threading.Event()
        """Set when it has stopped sending because it was unplugged."""
        self.sent = 0
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not camera.plugged.is_set():
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while camera.plugged.is_set() and not camera.quit.is_set():
                        jpeg = cv2.imencode(".jpg", picture(camera.sent))[1].tobytes()
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}"
                        self.wfile.write(f"{head}\r\n\r\n".encode() + jpeg + b"\r\n")
                        camera.sent += 1
                        time.sleep(0.02)
                except OSError:
                    pass
                camera.idle.set()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.quit.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def camera() -> Iterator[MjpegCamera]:
    camera = MjpegCamera()
    yield camera
    camera.close()


def wait_for(source: FrameSource, true: Callable[[Frame], bool]) -> Frame:
    end_s = time.monotonic() + LONG_S
    for frame in source.frames():
        if true(frame):
            return frame
        assert time.monotonic() < end_s, frame
    raise AssertionError("the source ended")


def test_a_camera_that_sends_jpegs_over_http_is_unplugged_and_comes_back(
    camera: MjpegCamera,
) -> None:
    source = open_frames(f"http://user:secret@127.0.0.1:{camera.port}/?action=stream", stall_s=0.3)
    first = wait_for(source, lambda frame: frame.image is not None)
    assert first.image is not None
    assert first.image.shape == (48, 64, 3)
    assert 35 <= first.image[:, 4:28].mean() <= 145
    assert first.t_s == pytest.approx(time.time(), abs=LONG_S)
    assert isinstance(source, LiveSource)
    camera.idle.clear()
    camera.plugged.clear()
    assert camera.idle.wait(LONG_S)
    gone = wait_for(source, lambda frame: frame.image is None)
    assert gone.problem.startswith(f"no frame from http://***@127.0.0.1:{camera.port}/")
    camera.plugged.set()
    # A busy machine may still hold frames of before.
    again = wait_for(source, lambda frame: frame.image is not None and source.reopened > 0)
    assert int(again.name) > int(first.name)
    source.close()
    events = source.events()
    assert any("it is opened again" in event for event in events)
    assert any("is open again after" in event for event in events)
    assert not any("secret" in event for event in events)


def test_a_stream_over_udp_is_read_and_its_silence_is_a_record(tmp_path: Path) -> None:
    path = tmp_path / "stream.ts"
    codec = cv2.VideoWriter.fourcc(*"MPG2")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, 25.0, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MPEG-TS")
    for number in range(250):
        writer.write(picture(number))
    writer.release()
    packets = path.read_bytes()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sending, quit_ = threading.Event(), threading.Event()
    sending.set()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            while not quit_.is_set():
                for k in range(0, len(packets), 1316):
                    if not sending.wait(0.05) or quit_.is_set():
                        break
                    out.sendto(packets[k : k + 1316], ("127.0.0.1", port))
                    time.sleep(0.002)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        source = open_frames(f"udp://127.0.0.1:{port}?open_s=60", stall_s=0.5)
        frame = wait_for(source, lambda frame: frame.image is not None)
        assert frame.image is not None
        assert frame.image.shape == (48, 64, 3)
        sending.clear()
        wait_for(source, lambda frame: frame.problem.startswith("no frame from udp://"))
        sending.set()
        wait_for(source, lambda frame: frame.image is not None)
        source.close()
    finally:
        quit_.set()
        sender.join(LONG_S)


def test_an_address_where_nobody_answers_is_refused_in_time() -> None:
    specs: list[CaptureSpec] = []

    def opened(spec: CaptureSpec) -> Capture | None:
        specs.append(spec)
        return open_with_opencv(spec)

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(InputError, match=r"cannot be opened within 2 s; is it there"):
        open_frames(f"rtsp://127.0.0.1:{port}/main?transport=udp&open_s=2", open_capture=opened)
    assert {(spec.ffmpeg_options or "").partition("|")[0] for spec in specs} == {UDP}


def test_an_address_that_accepts_and_says_nothing_is_refused_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(InputError, match=r"(does not answer|cannot be opened) within 0\.3 s"):
            open_frames(f"rtsp://127.0.0.1:{port}/main?open_s=0.3")


# --- options that OpenCV takes from the environment --------------------------------------------


class Openings:
    """What OpenCV finds in the environment at each opening; none succeeds."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, target: str, *_: object) -> cv2.VideoCapture:
        self.seen.append(os.environ.get(OPTIONS))
        if target == "rtsp://hangs":
            self.begun.set()
            self.go_on.wait(LONG_S)
        return real_capture()


real_capture = cv2.VideoCapture


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> Openings:
    openings = Openings()
    monkeypatch.setattr(cv2, "VideoCapture", openings)
    monkeypatch.delenv(OPTIONS, raising=False)
    return openings


def test_a_streams_options_hold_for_its_opening_alone(openings: Openings) -> None:
    for spec in (STREAM, FILE, replace(STREAM, ffmpeg_options=TCP), FILE):
        assert open_with_opencv(spec) is None
    assert openings.seen == [UDP, None, TCP, None]
    assert OPTIONS not in os.environ


def test_options_that_the_user_has_set_stay(
    openings: Openings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OPTIONS, "flags;the_users")
    for spec in (STREAM, FILE):
        assert open_with_opencv(spec) is None
    assert openings.seen == ["flags;the_users"] * 2
    assert os.environ[OPTIONS] == "flags;the_users"


def test_an_opening_that_hangs_holds_no_other_up(
    openings: Openings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.sources.capture._LONGEST_TURN_S", 0.01)
    hangs = replace(STREAM, target="rtsp://hangs")
    hanging = threading.Thread(target=open_with_opencv, args=(hangs,), daemon=True)
    hanging.start()
    assert openings.begun.wait(LONG_S)
    assert open_with_opencv(FILE) is None
    assert openings.seen == [UDP, None]
    openings.go_on.set()
    hanging.join(LONG_S)
    assert OPTIONS not in os.environ


def test_a_video_opened_after_a_stream_has_all_its_frames(tmp_path: Path) -> None:
    """Options for little delay make FFmpeg throw away what it has looked at to know a file."""
    path = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for number in range(5):
        writer.write(picture(number))
    writer.release()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = f"rtsp://127.0.0.1:{unused.getsockname()[1]}/main"
        stream = replace(STREAM, target=target, ffmpeg_options=f"{UDP}|fflags;nobuffer")
        assert open_with_opencv(stream) is None
    assert len(list(open_frames(str(path)).frames())) == 5
