"""Photographs and videos as frames: all of them, in order, made ready ahead."""

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("cv2")

import cv2

import edge_runtime
from edge_runtime.errors import InputError
from edge_runtime.sources.live import LiveSource
from edge_runtime.sources.opening import open_frames
from edge_runtime.sources.photographs import PhotographSource, natural_order
from edge_runtime.sources.protocol import Frame, FrameSource
from edge_runtime.sources.read_ahead import ReadAhead
from edge_runtime.sources.video import VideoSource

U8 = npt.NDArray[np.uint8]
LONG_S = 30.0
FPS = 10.0


def scene(seed: int, height: int = 48, width: int = 64) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, rgb: U8) -> None:
    assert cv2.imwrite(str(path), rgb[..., ::-1])


# --- folders ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photographs, written in another order than their names', and other files."""
    for k, name in enumerate(("DJI_10.png", "DJI_2.png", "x.JPG", "DJI_1.png")):
        save(tmp_path / name, scene(k))
    (tmp_path / "notes.txt").write_text("not a photograph")
    (tmp_path / "d.png").mkdir()
    return tmp_path


def test_photographs_come_in_the_order_a_person_would_count(folder: Path) -> None:
    source = open_frames(str(folder))
    frames = list(source.frames())
    names = ["DJI_1.png", "DJI_2.png", "DJI_10.png", "x.JPG"]
    assert [frame.name for frame in frames] == names
    assert source.count() == 4
    assert source.left_out == []
    assert not source.live
    assert all(frame.capture_ms > 0 and frame.dropped == 0 for frame in frames)
    assert source.events() == []


@pytest.mark.parametrize(
    "names",
    [
        ["DJI_0002.JPG", "DJI_0010.JPG", "DJI_0100.JPG"],
        ["a1b2", "a1b10", "a2b1"],
        ["1.jpg", "2.jpg", "10.jpg", "x.jpg"],
        ["IMG_1.JPG", "img_2.jpg", "IMG_3.JPG"],
        ["a.jpg", "a1.jpg"],
    ],
)
def test_the_natural_order_is_one(names: list[str]) -> None:
    mixed = [*names[1:], names[0]]
    assert sorted(mixed, key=natural_order) == names


def test_photographs_are_rgb_whatever_they_were(tmp_path: Path) -> None:
    save(tmp_path / "a.png", scene(0))
    assert cv2.imwrite(str(tmp_path / "b.png"), scene(0)[..., 0])
    assert cv2.imwrite(str(tmp_path / "c.png"), np.dstack([scene(0), scene(0)[..., :1]]))
    images = [frame.image for frame in open_frames(str(tmp_path)).frames()]
    assert images[0] is not None
    assert np.array_equal(images[0], scene(0))
    assert all(image is not None and image.shape == (48, 64, 3) for image in images)


def test_photographs_that_are_not_named_are_left_out_and_listed(folder: Path) -> None:
    source = open_frames(str(folder), names={"x.JPG", "DJI_2.png", "never.png"})
    assert [frame.name for frame in source.frames()] == ["DJI_2.png", "x.JPG"]
    assert source.left_out == ["DJI_1.png", "DJI_10.png"]


def test_names_of_other_photographs_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"names none of the 4 photographs .* is DJI_1\.png"):
        open_frames(str(folder), names={"x.png"})


def test_a_folder_can_be_read_twice_and_left_early(folder: Path) -> None:
    source = open_frames(str(folder))
    assert next(iter(source.frames())).name == "DJI_1.png"
    assert len(list(source.frames())) == 4


def test_a_folder_that_loops_begins_again(folder: Path) -> None:
    source = open_frames(str(folder), loop=True)
    names = [frame.name for frame, _ in zip(source.frames(), range(9), strict=False)]
    assert names[:4] == names[4:8]
    assert source.count() is None


@pytest.mark.parametrize("data", [b"", b"cut off", b"\xff\xd8\xff\xe0"])
def test_a_photograph_that_breaks_in_flight_is_a_record(folder: Path, data: bytes) -> None:
    source = open_frames(str(folder))
    (folder / "DJI_1.png").write_bytes(data)
    (folder / "DJI_2.png").unlink()
    frames = {frame.name: frame for frame in source.frames()}
    assert frames["DJI_1.png"].image is None
    assert (
        "cannot be read" in frames["DJI_1.png"].problem or "cut off" in frames["DJI_1.png"].problem
    )
    assert frames["DJI_2.png"].problem == "cannot be read (No such file or directory)"
    assert frames["DJI_10.png"].image is not None


def test_a_photograph_that_shows_nothing_is_a_record_and_an_event(folder: Path) -> None:
    save(folder / "DJI_2.png", np.zeros((48, 64, 3), np.uint8))
    source = open_frames(str(folder))
    frames = {frame.name: frame for frame in source.frames()}
    assert frames["DJI_2.png"].problem == "the picture is black"
    assert source.events() == [
        "DJI_2.png: the picture is black",
        "DJI_10.png: the picture is no longer black",
    ]


@pytest.mark.parametrize("data", [b"", b"no image"])
def test_a_photograph_that_is_none_is_refused_by_its_name(folder: Path, data: bytes) -> None:
    (folder / "x.JPG").write_bytes(data)
    with pytest.raises(InputError, match=r"x\.JPG cannot be read as an image; copy it again"):
        open_frames(str(folder))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_photograph_that_is_cut_off_is_refused(
    tmp_path: Path, suffix: str, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"a{suffix}"
    save(path, scene(0, 240, 320))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match=r"a\.\w+ is cut off .*; copy it again"):
        open_frames(str(tmp_path))
    assert capfd.readouterr().err == ""
    path.write_bytes(whole + b"camera's own data" * 3000)
    assert open_frames(str(tmp_path)).count() == 1


def _with_exif(path: Path, tiff: bytes) -> None:
    segment = b"Exif\0\0" + tiff
    jpeg = path.read_bytes()
    size = (len(segment) + 2).to_bytes(2, "big")
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + size + segment + jpeg[2:])


def test_an_orientation_in_exif_does_not_turn_the_photograph(tmp_path: Path) -> None:
    """The camera's calibration holds for the pixels as they were read from the sensor."""
    path = tmp_path / "a.jpg"
    save(path, scene(0))
    _with_exif(path, b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")
    turned = cv2.imread(str(path))
    assert turned is not None
    assert turned.shape == (64, 48, 3)
    image = next(iter(open_frames(str(tmp_path)).frames())).image
    assert image is not None
    assert image.shape == (48, 64, 3)


def test_the_time_of_a_photograph_is_its_exifs(tmp_path: Path) -> None:
    """2026-11-23 10:11:12.250 +02:00 is 1795421472.25 seconds after 1970."""
    save(tmp_path / "a.jpg", scene(0))
    save(tmp_path / "b.jpg", scene(1))
    texts = [(0x9003, b"2026:11:23 10:11:12\0"), (0x9011, b"+02:00\0"), (0x9291, b"25\0")]
    start = 8 + 2 + 12 + 4
    entries, data = b"", b""
    after = start + 2 + 12 * len(texts) + 4
    for tag, text in sorted(texts):
        value = text.ljust(4, b"\0") if len(text) <= 4 else (after + len(data)).to_bytes(4, "big")
        entries += tag.to_bytes(2, "big") + b"\0\x02" + len(text).to_bytes(4, "big") + value
        data += text if len(text) > 4 else b""
    pointer = b"\x87\x69\0\x04\0\0\0\x01" + start.to_bytes(4, "big")
    tiff = b"MM\0*\0\0\0\x08\0\x01" + pointer + b"\0\0\0\0"
    tiff += len(texts).to_bytes(2, "big") + entries + b"\0\0\0\0" + data
    _with_exif(tmp_path / "a.jpg", tiff)
    times_s = [frame.t_s for frame in open_frames(str(tmp_path)).frames()]
    assert times_s == [pytest.approx(1795421472.25, abs=1e-3), None]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("absent", r"does not exist; expected a folder of photographs, a video file, or a camera"),
        ("empty", r"has no photographs; expected files ending in \.jpg"),
        ("empty?realtime=1", r"is a folder; only a video file plays in real time"),
    ],
)
def test_what_gives_no_frames_is_refused(tmp_path: Path, name: str, match: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=match):
        open_frames(str(tmp_path / name))


# --- videos ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds; frame n has the grey level 40 + 8 n on its left half, and is a little red."""
    path = tmp_path_factory.mktemp("sources") / "flight.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (64, 48))
    assert writer.isOpened()
    for number in range(20):
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, :32] = (40 + 8 * number, 40 + 8 * number, 80 + 8 * number)
        writer.write(image)
    writer.release()
    return path


def left_half(frame: Frame) -> npt.NDArray[np.float64]:
    assert frame.image is not None
    return np.asarray(frame.image[:, :24].mean(axis=(0, 1)), np.float64)


def test_a_video_gives_every_frame_in_order_as_rgb_at_its_own_time(video: Path) -> None:
    source = open_frames(str(video))
    frames = list(source.frames())
    assert len(frames) == source.count() == 20
    assert [frame.name for frame in frames] == [f"{n:06d}" for n in range(20)]
    assert [frame.t_s for frame in frames] == pytest.approx(np.arange(20) / FPS)
    for number, frame in enumerate(frames):
        grey = 40 + 8 * number
        assert np.abs(left_half(frame) - (grey + 40, grey, grey)).max() < 6
    assert source.events() == []
    assert not source.live


@pytest.mark.parametrize(
    ("rate_hz", "numbers"),
    [
        (None, list(range(20))),
        (10.0, list(range(20))),
        (1000.0, list(range(20))),
        (5.0, list(range(0, 20, 2))),
        (2.0, [0, 5, 10, 15]),
        (0.1, [0]),
        (4.0, [0, 3, 5, 8, 10, 13, 15, 18]),
    ],
)
def test_a_rate_keeps_frames_by_their_times(
    video: Path, rate_hz: float | None, numbers: list[int]
) -> None:
    source = open_frames(str(video), rate_hz=rate_hz)
    assert [int(frame.name) for frame in source.frames()] == numbers
    assert source.count() == len(numbers)


def test_a_video_can_be_left_and_read_again(video: Path) -> None:
    source = open_frames(str(video))
    frames = source.frames()
    next(frames)
    assert next(frames).name == "000001"
    assert next(source.frames()).name == "000000"
    source.close()
    source.close()
    assert list(frames) == []


def test_a_video_that_loops_goes_on_with_growing_times_and_numbers(video: Path) -> None:
    source = open_frames(str(video), loop=True)
    frames = [frame for frame, _ in zip(source.frames(), range(50), strict=False)]
    assert [frame.name for frame in frames] == [f"{n:06d}" for n in range(50)]
    assert [frame.t_s for frame in frames] == pytest.approx(np.arange(50) / FPS)
    assert np.array_equal(left_half(frames[3]), left_half(frames[43]))
    assert source.count() is None
    assert isinstance(source, VideoSource)
    assert source.length_s == pytest.approx(2.0)


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """Two seconds with frames too large for a decoder to make sense of one that is damaged."""
    path = tmp_path / "noisy.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (64, 48))
    for number in range(20):
        writer.write(scene(number))
    writer.release()
    return path


def jpeg_starts(data: bytes) -> list[int]:
    return [k for k in range(len(data)) if data.startswith(b"\xff\xd8\xff", k)]


def test_a_broken_frame_in_a_video_is_a_record_and_not_the_end(noisy: Path, tmp_path: Path) -> None:
    data = bytearray(noisy.read_bytes())
    starts = jpeg_starts(bytes(data))
    assert len(starts) == 20
    for k in (5, 6):
        data[starts[k] : starts[k] + 600] = bytes(600)
    path = tmp_path / "broken.avi"
    path.write_bytes(data)
    source = open_frames(str(path))
    frames = list(source.frames())
    assert [frame.name for frame in frames] == [f"{n:06d}" for n in range(20)]
    assert [int(frame.name) for frame in frames if frame.image is None] == [5, 6]
    assert {frame.problem for frame in frames[5:7]} == {"the frame cannot be decoded"}
    assert [frame.t_s for frame in frames] == pytest.approx(np.arange(20) / FPS)
    assert source.events() == [
        f"{path}: frame 000005 cannot be decoded",
        "frames can be decoded again after 2 that could not",
    ]


def test_a_video_that_is_cut_off_gives_what_it_has_and_says_so(video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(data[: jpeg_starts(data)[11]])
    source = open_frames(str(path))
    assert len(list(source.frames())) == 11
    assert source.events() == [f"{path} ends after 11 of 20 frames; is it cut off?"]


class UnevenFile:
    """A file whose head says 30 frames per second and whose frames come as they like."""

    def __init__(self, times_s: list[float]) -> None:
        self._times_s = times_s
        self._k = -1

    def grab(self) -> bool:
        self._k += 1
        return self._k < len(self._times_s)

    def retrieve(self) -> U8 | None:
        return scene(self._k)

    def time_s(self) -> float:
        return self._times_s[self._k]

    def length(self) -> tuple[float, int]:
        return 30.0, len(self._times_s)

    def differences(self) -> list[str]:
        return []

    def release(self) -> None:
        pass


def test_the_times_of_a_video_are_its_containers_and_not_its_frame_rates(video: Path) -> None:
    times_s = [2.0, 2.05, 2.3, 2.3, 4.0]
    source = open_frames(str(video), open_capture=lambda _: UnevenFile(times_s))
    given = [frame.t_s for frame in source.frames()]
    assert given == pytest.approx([0, 0.05, 0.3, 0.3 + 1 / 30, 2.0])
    assert len(source.events()) == 1


@pytest.mark.parametrize("data", [b"", b"no video at all" * 100])
def test_a_file_that_is_no_video_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "flight.mp4"
    path.write_bytes(data)
    for suffix in ("", "?realtime=1"):
        with pytest.raises(InputError, match=r"flight\.mp4 cannot be opened as a video"):
            open_frames(f"file://{path}{suffix}")


# --- a file that plays a camera's part ---------------------------------------------------------


def test_a_video_in_real_time_is_a_camera_at_the_files_own_pace(video: Path) -> None:
    started_s = time.monotonic()
    source = open_frames(f"file://{video}?realtime=1")
    assert isinstance(source, LiveSource)
    assert source.live
    frames = list(source.frames())
    assert time.monotonic() - started_s > 1.7
    assert frames[-1].name == "000019"
    assert frames[-1].t_s == pytest.approx(1.9)
    assert len(frames) + source.dropped == 20
    source.close()


def test_a_slow_reader_of_a_video_in_real_time_loses_frames_and_knows_how_many(
    video: Path,
) -> None:
    source = open_frames(f"file://{video}?realtime=1", loop=True)
    frames = source.frames()
    numbers, dropped = [], 0
    for _ in range(4):
        frame = next(frames)
        numbers.append(int(frame.name))
        dropped += frame.dropped
        time.sleep(0.35)
    source.close()
    assert dropped == numbers[-1] + 1 - len(numbers)
    assert dropped >= 4


@pytest.mark.parametrize("query", ["", "?realtime=1"])
def test_a_process_that_forgets_to_close_a_source_ends_well(video: Path, query: str) -> None:
    """Without care it is killed by C++ in about one end of three."""
    code = (
        "import sys, time\n"
        "from edge_runtime.sources.opening import open_frames\n"
        f"frames = open_frames({f'file://{video}{query}'!r}, loop=True).frames()\n"
        "for _ in range(3): next(frames)\n"
    )
    root = Path(edge_runtime.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- made ready ahead ------------------------------------------------------------------------


def blank(k: int) -> Frame:
    return Frame(name=str(k), image=None, t_s=None, capture_ms=0.0)


def test_frames_are_made_while_the_reader_is_busy_but_only_a_few() -> None:
    made: list[int] = []
    some = threading.Event()

    def make() -> Generator[Frame, None, None]:
        for k in range(100):
            made.append(k)
            if k == 3:
                some.set()
            yield blank(k)

    ahead = ReadAhead(make, frames=3)
    frames = ahead.frames()
    assert next(frames).name == "0"
    assert some.wait(LONG_S)
    for _ in range(50):
        time.sleep(0.001)
        assert len(made) <= 5
    assert [frame.name for frame in frames] == [str(k) for k in range(1, 100)]


def test_an_exception_while_reading_ahead_reaches_the_reader() -> None:
    def make() -> Generator[Frame, None, None]:
        yield blank(0)
        raise InputError("the disk is gone")

    frames = ReadAhead(make, frames=3).frames()
    assert next(frames).name == "0"
    with pytest.raises(InputError, match="the disk is gone"):
        next(frames)


def test_closing_does_not_wait_for_a_read_that_hangs() -> None:
    quit_ = threading.Event()

    def make() -> Generator[Frame, None, None]:
        yield blank(0)
        quit_.wait(LONG_S)

    ahead = ReadAhead(make, frames=3)
    next(ahead.frames())
    assert not ahead.close()
    quit_.set()


def test_a_long_video_leaves_no_frames_alive(video: Path) -> None:
    """Ten minutes at 10 Hz."""
    source = open_frames(str(video), loop=True)
    alive: list[weakref.ref[U8]] = []
    frames = source.frames()
    for frame in frames:
        assert frame.image is not None
        alive.append(weakref.ref(frame.image))
        if len(alive) == 6000:
            break
    del frame
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= 1
    source.close()


# --- real photographs ------------------------------------------------------------------------


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrameSource]:
    import os

    folder = Path(os.environ.get("SKYFIX_DATA", "")) / "fengyuan" / "photos"
    if not os.environ.get("SKYFIX_DATA") or not folder.is_dir():
        pytest.skip("SKYFIX_DATA has no fengyuan photographs")
    source = open_frames(str(folder))
    yield source
    source.close()


def test_a_drones_photographs_are_read_in_their_order_at_their_times(real: FrameSource) -> None:
    assert isinstance(real, PhotographSource)
    times_s = []
    for frame, _ in zip(real.frames(), range(6), strict=False):
        assert frame.image is not None, frame.problem
        times_s.append(frame.t_s)
    assert None not in times_s
    assert times_s == sorted(times_s, key=lambda t: t or 0.0)
    assert real.events() == []
