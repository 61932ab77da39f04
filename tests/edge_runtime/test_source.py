"""Frames in their order, each with the state it was taken in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import InputError
from edge_runtime.source import FolderSource, VideoSource, open_source
from edge_runtime.state import Telemetry, VehicleState, read_telemetry_csv

U8 = npt.NDArray[np.uint8]


def telemetry_of(*names: str) -> Telemetry:
    states = [VehicleState(t_s=float(k), height_m=100.0 + k) for k in range(len(names))]
    by_filename = dict(zip(names, states, strict=True))
    return Telemetry(path=Path("states.csv"), by_filename=by_filename, rows=states)


def telemetry_at(*times_s: float) -> Telemetry:
    rows = [VehicleState(t_s=t, height_m=100.0 + t) for t in times_s]
    return Telemetry(path=Path("states.csv"), by_filename={}, rows=rows)


def save(path: Path, rgb: U8) -> None:
    assert cv2.imwrite(str(path), rgb[..., ::-1])


def plain(red: int, green: int, blue: int) -> U8:
    return np.full((24, 32, 3), (red, green, blue), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs, written in another order than their names', and other files."""
    for name in ("c.png", "a.png", "b.JPG"):
        save(tmp_path / name, plain(200, 10, 10))
    (tmp_path / "notes.txt").write_text("not a photograph")
    return tmp_path


# --- folders ---------------------------------------------------------------------------------


def test_photographs_come_in_the_order_of_their_names_with_their_states(folder: Path) -> None:
    source = FolderSource(folder, telemetry_of("c.png", "b.JPG", "a.png"))
    frames = list(source)
    assert len(source) == 3
    assert [frame.name for frame in frames] == ["a.png", "b.JPG", "c.png"]
    assert [frame.state.t_s for frame in frames] == [2, 1, 0]
    assert source.left_out == []
    assert all(frame.capture_ms > 0 for frame in frames)


def test_a_folder_can_be_read_twice(folder: Path) -> None:
    source = FolderSource(folder, telemetry_of("a.png", "b.JPG", "c.png"))
    assert [f.name for f in source] == [f.name for f in source]


def test_photographs_are_rgb(folder: Path) -> None:
    image = next(iter(FolderSource(folder, telemetry_of("a.png")))).image
    assert image is not None
    assert image.shape == (24, 32, 3)
    assert image[0, 0].tolist() == [200, 10, 10]


def test_a_grey_or_transparent_photograph_becomes_rgb(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.full((24, 32), 90, np.uint8))
    assert cv2.imwrite(str(tmp_path / "b.png"), np.full((24, 32, 4), 90, np.uint8))
    for frame in FolderSource(tmp_path, telemetry_of("a.png", "b.png")):
        assert frame.image is not None
        assert frame.image.shape == (24, 32, 3)
        assert frame.image[3, 4].tolist() == [90, 90, 90]


def test_photographs_without_a_row_are_left_out_and_listed(folder: Path) -> None:
    source = FolderSource(folder, telemetry_of("b.JPG", "never.png"))
    assert source.left_out == ["a.png", "c.png"]
    assert [frame.name for frame in source] == ["b.JPG"]
    assert len(source) == 1


def test_a_photograph_that_vanishes_in_flight_is_a_frame_without_image(folder: Path) -> None:
    source = FolderSource(folder, telemetry_of("a.png", "b.JPG"))
    (folder / "a.png").write_bytes(b"cut off")
    images = {frame.name: frame.image for frame in source}
    assert images["a.png"] is None
    assert images["b.JPG"] is not None


def test_an_orientation_in_exif_does_not_turn_the_photograph(tmp_path: Path) -> None:
    """The camera's calibration holds for the pixels as they were read from the sensor."""
    path = tmp_path / "a.jpg"
    save(path, plain(9, 9, 9))
    turned_90 = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"Exif\0\0" + turned_90
    jpeg = path.read_bytes()
    size = (len(segment) + 2).to_bytes(2, "big")
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + size + segment + jpeg[2:])
    turned = cv2.imread(str(path))
    assert turned is not None
    assert turned.shape == (32, 24, 3)
    image = next(iter(FolderSource(tmp_path, telemetry_of("a.jpg")))).image
    assert image is not None
    assert image.shape == (24, 32, 3)


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"has no photographs; expected files ending in \.jpg"):
        FolderSource(tmp_path, telemetry_of("a.png"))


def test_what_is_not_a_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flight.txt"
    path.touch()
    with pytest.raises(InputError, match=r"is not a folder; expected photographs or a video file"):
        open_source(path, telemetry_of("a.png"))


def test_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not exist; expected a folder of photographs"):
        open_source(tmp_path / "absent", telemetry_of("a.png"))


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\nIEND"])
def test_an_unreadable_photograph_is_refused_by_its_name(folder: Path, data: bytes) -> None:
    (folder / "b.JPG").write_bytes(data)
    with pytest.raises(InputError, match=r"b\.JPG cannot be read as an image; copy it again"):
        FolderSource(folder, telemetry_of("a.png", "b.JPG", "c.png"))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_photograph_that_is_cut_off_is_refused(
    tmp_path: Path, suffix: str, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"a{suffix}"
    save(path, np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match=r"a\.\w+ is cut off .*; copy it again"):
        FolderSource(tmp_path, telemetry_of(path.name))
    assert capfd.readouterr().err == ""
    path.write_bytes(whole + b"camera's own data" * 3000)
    assert len(FolderSource(tmp_path, telemetry_of(path.name))) == 1


def test_telemetry_of_other_photographs_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"names none of the 3 photographs .* first is a\.png"):
        FolderSource(folder, telemetry_of("x.png"))


def test_telemetry_without_names_is_refused_for_a_folder(folder: Path) -> None:
    with pytest.raises(InputError, match="filename column"):
        FolderSource(folder, telemetry_at(0.0, 1.0))


def test_a_folder_named_like_a_photograph_is_not_one(folder: Path) -> None:
    (folder / "d.png").mkdir()
    source = FolderSource(folder, telemetry_of("a.png", "b.JPG", "c.png"))
    assert [frame.name for frame in source] == ["a.png", "b.JPG", "c.png"]
    assert source.left_out == []


# --- videos ----------------------------------------------------------------------------------

FPS = 10.0


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds; frame n has the grey level 10 n, and is a little red."""
    path = tmp_path_factory.mktemp("video") / "flight.avi"
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), fourcc, FPS, (64, 48))
    assert writer.isOpened()
    for number in range(20):
        grey = 10 * number
        writer.write(np.full((48, 64, 3), (grey, grey, grey + 40), np.uint8))
    writer.release()
    return path


def test_a_video_gives_every_frame_in_order_as_rgb(video: Path) -> None:
    source = open_source(video, telemetry_at(0.0))
    assert isinstance(source, VideoSource)
    frames = list(source)
    assert len(frames) == len(source) == 20
    assert [frame.name for frame in frames] == [f"{n:06d}" for n in range(20)]
    for number, frame in enumerate(frames):
        assert frame.image is not None
        assert frame.image.shape == (48, 64, 3)
        expected = (10 * number + 40, 10 * number, 10 * number)
        assert np.abs(frame.image.mean(axis=(0, 1)) - expected).max() < 6
    assert source.left_out == []


def test_every_frame_of_a_video_has_the_state_nearest_in_time(video: Path) -> None:
    times_s = [1.42, -3.0, 0.0, 0.28, 0.71, 7.0]
    for number, frame in enumerate(VideoSource(video, telemetry_at(*times_s))):
        nearest_s = min(times_s, key=lambda t: abs(t - number / FPS))
        assert frame.state.height_m == pytest.approx(100 + nearest_s)


def test_every_frame_of_a_video_was_exposed_at_its_own_time(video: Path) -> None:
    frames = list(VideoSource(video, telemetry_at(0.0, 1.0)))
    times_s = [number / FPS for number in range(20)]
    assert [frame.state.t_s for frame in frames] == pytest.approx(times_s)


@pytest.mark.parametrize("times_s", [(1.7e9, 1.7e9 + 2), (-9.0, -0.1), (2.1,)])
def test_telemetry_of_another_time_than_the_video_is_refused(
    video: Path, times_s: tuple[float, ...]
) -> None:
    with pytest.raises(InputError, match=r"is 2\.0 s long; expected t_s in seconds from"):
        VideoSource(video, telemetry_at(*times_s))


def test_telemetry_without_times_is_refused_for_a_video(video: Path, tmp_path: Path) -> None:
    path = tmp_path / "states.csv"
    path.write_text("filename,height_m\n000000,100\n")
    with pytest.raises(InputError, match=r"has no times; expected t_s"):
        VideoSource(video, read_telemetry_csv(path))


@pytest.mark.parametrize(
    ("rate_hz", "every"), [(None, 1), (10.0, 1), (5.0, 2), (2.0, 5), (0.1, 100), (1000.0, 1)]
)
def test_a_rate_keeps_every_so_many_frames(video: Path, rate_hz: float | None, every: int) -> None:
    source = VideoSource(video, telemetry_at(0.0, 1.0), rate_hz=rate_hz)
    names = [frame.name for frame in source]
    assert names == [f"{n:06d}" for n in range(0, 20, every)]
    assert len(source) == len(names)


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, np.nan, np.inf])
def test_a_rate_that_is_none_is_refused(video: Path, rate_hz: float) -> None:
    with pytest.raises(InputError, match="rate"):
        len(VideoSource(video, telemetry_at(0.0), rate_hz=rate_hz))


def test_a_video_can_be_stopped_and_read_again(video: Path) -> None:
    source = VideoSource(video, telemetry_at(0.0))
    iterator = iter(source)
    next(iterator)
    assert next(iterator).name == "000001"
    assert next(iter(source)).name == "000000"


@pytest.mark.parametrize("data", [b"", b"no video at all" * 100])
def test_a_file_that_is_no_video_is_refused(
    tmp_path: Path, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "flight.mp4"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"flight\.mp4 cannot be opened as a video"):
        open_source(path, telemetry_at(0.0))


@pytest.mark.parametrize("telemetry", [telemetry_of("a.png")], ids=["names"])
def test_sources_of_both_kinds_say_how_many_frames_come(
    video: Path, folder: Path, telemetry: Telemetry
) -> None:
    sources: list[Callable[[], Any]] = [
        lambda: open_source(video, telemetry),
        lambda: open_source(folder, telemetry),
    ]
    for make in sources:
        source = make()
        assert len(source) == len(list(source))
