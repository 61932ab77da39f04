"""What a source may be called, and what is said of a name that is not understood."""

import re
from pathlib import Path

import pytest

pytest.importorskip("cv2")

from edge_runtime.errors import InputError
from edge_runtime.sources.devices import check_device, video_devices
from edge_runtime.sources.opening import csi_pipeline, open_frames
from edge_runtime.sources.uri import parse_source, without_password


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("photos", "file", "photos"),
        ("flight.mp4?realtime=1", "file", "flight.mp4"),
        ("file:///data/a%20b.mp4", "file", "/data/a b.mp4"),
        ("v4l2:///dev/video2?width=640", "v4l2", "/dev/video2"),
        ("/dev/video0", "v4l2", "/dev/video0"),
        ("/dev/v4l/by-id/usb-cam-index0?fps=30", "v4l2", "/dev/v4l/by-id/usb-cam-index0"),
        ("usb://1", "v4l2", "/dev/video1"),
        ("csi://0?flip=2", "csi", "0"),
        ("rtsp://10.0.0.2:8554/main", "network", "rtsp://10.0.0.2:8554/main"),
        ("udp://@:5600", "network", "udp://@:5600"),
        ("gst:videotestsrc ! appsink", "gst", "videotestsrc ! appsink"),
    ],
)
def test_a_source_is_taken_apart(text: str, kind: str, target: str) -> None:
    source = parse_source(text)
    assert (source.kind, source.target) == (kind, target)


def test_a_file_that_exists_is_meant_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "rtsp:what?width=3"
    path.touch()
    assert parse_source(str(path)).target == str(path)


def test_a_camera_keeps_the_options_of_its_own_address() -> None:
    source = parse_source("rtsp://10.0.0.2/cam?channel=1&latency_ms=80&subtype=0&transport=udp")
    assert source.target == "rtsp://10.0.0.2/cam?channel=1&subtype=0"
    assert source.options == {"latency_ms": "80", "transport": "udp"}


def test_an_address_without_our_options_is_left_as_it_was_written() -> None:
    text = "http://10.0.0.2:8080/?action=stream&x=a%2Fb;c"
    assert parse_source(text).target == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:hunter2@10.0.0.2/main", "rtsp://***@10.0.0.2/main"),
        ("rtsp://admin@10.0.0.2/main", "rtsp://***@10.0.0.2/main"),
        ("http://a:hunter2@h:81/x", "http://***@h:81/x"),
        ("rtsp://10.0.0.2/main", "rtsp://10.0.0.2/main"),
    ],
)
def test_a_password_is_not_shown(text: str, shown: str) -> None:
    assert without_password(text) == shown
    assert parse_source(text).shown == shown
    assert parse_source(text).target == text


def test_a_password_of_a_pipeline_is_not_shown() -> None:
    source = parse_source("gst:rtspsrc location=rtsp://a:hunter2@h/x ! decodebin ! appsink")
    assert "hunter2" not in source.shown
    assert "hunter2" in source.target


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("rstp://10.0.0.2/main", r"no kind of source 'rstp'; did you mean rtsp:"),
        ("rstp://a:hunter2@10.0.0.2/main", r"rstp://\*\*\*@10"),
        ("v412:///dev/video0", r"did you mean v4l2:"),
        ("zzz://x", r"known: file, v4l2"),
        ("rtsp:/10.0.0.2", r"expected rtsp:// with two slashes"),
        ("rtsp:///main", r"expected a host"),
        ("v4l2:///dev/video0?widht=640", r"no option 'widht' here; did you mean width\?"),
        ("/dev/video0?zzz=1", r"known: width, height, fps, fourcc"),
        ("csi://front", r"expected the number of the sensor, as csi://0"),
        ("gst:videotestsrc ! fakesink", r"has no appsink .* end it with ! videoconvert"),
    ],
)
def test_what_is_not_understood_is_refused_with_what_is(text: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        parse_source(text)


@pytest.mark.parametrize("value", ["-3", "x", "nan", "inf", "0", "1e9", ""])
def test_an_option_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(InputError, match=r"width=.* is no positive number; give one as width=30"):
        parse_source(f"/dev/video0?width={value}").number("width")


def test_an_option_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(InputError, match=r"width=3.5 is no whole number"):
        parse_source("/dev/video0?width=3.5").whole("width")


def test_the_pipeline_of_a_jetson_camera_says_size_rate_and_flip() -> None:
    """As in NVIDIA's accelerated GStreamer guide: nvarguscamerasrc, NVMM memory, nvvidconv."""
    pipeline = csi_pipeline(parse_source("csi://1?width=1920&height=1080&fps=29.97&flip=2"))
    elements = [element.strip() for element in pipeline.split("!")]
    assert elements == [
        "nvarguscamerasrc sensor-id=1",
        "video/x-raw(memory:NVMM),width=1920,height=1080,framerate=29970/1000,format=NV12",
        "nvvidconv flip-method=2",
        "video/x-raw,format=BGRx",
        "videoconvert",
        "video/x-raw,format=BGR",
        "appsink drop=true max-buffers=1 sync=false",
    ]


def test_a_flip_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match=r"flip=8 is not known; give 0 to 7"):
        csi_pipeline(parse_source("csi://0?flip=8"))


# --- devices ---------------------------------------------------------------------------------


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """Two cameras as the kernel lists them."""
    for number, name in ((10, "HD Webcam"), (2, "Thermal")):
        (tmp_path / f"video{number}").mkdir()
        (tmp_path / f"video{number}" / "name").write_text(name + "\n")
    (tmp_path / "v4l-subdev0").mkdir()
    return tmp_path


def test_devices_are_listed_by_number_with_their_names(system: Path) -> None:
    assert video_devices(system) == [("/dev/video2", "Thermal"), ("/dev/video10", "HD Webcam")]


def test_a_device_that_is_absent_is_refused_with_those_there_are(system: Path) -> None:
    there = re.escape("there are /dev/video2 (Thermal), /dev/video10 (HD Webcam)")
    with pytest.raises(InputError, match=rf"/dev/video77 does not exist; {there}"):
        check_device("/dev/video77", system)


def test_a_machine_without_a_camera_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this machine has no camera at all"):
        check_device("/dev/video77", tmp_path / "none")


def test_a_file_is_not_a_device(tmp_path: Path) -> None:
    path = tmp_path / "video0"
    path.touch()
    with pytest.raises(InputError, match=r"is not a device; expected a V4L2 camera"):
        check_device(str(path))


# --- refusals before anything is opened ------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rate_hz": 0.0}, "the rate is 0"),
        ({"rate_hz": float("nan")}, "the rate is nan"),
        ({"stall_s": 0.0}, "the stall time-out is 0"),
        ({"latency_ms": -1.0}, "latency is -1"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, float], match: str) -> None:
    with pytest.raises(InputError, match=match):
        open_frames("flight.mp4", **options)  # type: ignore[arg-type]


def test_a_stream_cannot_be_looped() -> None:
    with pytest.raises(InputError, match="has no end, so it cannot be looped"):
        open_frames("rtsp://127.0.0.1/x", loop=True)


def test_a_pipeline_without_gstreamer_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.sources.opening.has_gstreamer", lambda: False)
    with pytest.raises(InputError, match=r"needs an OpenCV with GStreamer.*pip uninstall opencv"):
        open_frames("csi://0")
