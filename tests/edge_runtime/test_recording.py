"""Recordings that give back exactly what was seen, within limits, whatever the medium does."""

import errno
import json
import math
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.recordings.pixels import packed, unpacked
from edge_runtime.recordings.reading import read_recording, segment_paths
from edge_runtime.recordings.recorder import Recorder
from edge_runtime.recordings.segment_file import Recorded, SegmentWriter, read_segment
from edge_runtime.sources.protocol import Frame
from edge_runtime.state import VehicleState

U8 = npt.NDArray[np.uint8]
SMALL = (6, 8, 3)
LONG_S = 60.0
"""Longer than anything here takes on the busiest machine."""


def step(seq: int, *, shape: tuple[int, int, int] = SMALL, status: str = "OK") -> Recorded:
    image = np.random.default_rng(seq).integers(0, 256, shape, np.uint8)
    return Recorded(
        frame=Frame(name=f"{seq:06d}", image=image, t_s=0.1 * seq, capture_ms=1 / 3, dropped=seq),
        state=VehicleState(t_s=0.1 * seq, height_m=1e2 / 3, yaw_deg=None, pitch_deg=-0.0),
        fix=Fix(
            seq=seq,
            frame=f"{seq:06d}",
            t_exposure_s=0.1 * seq,
            t_fix_s=0.1,
            status=status,  # type: ignore[arg-type]
            mode="TRACK",
            reason="é",
            lat_deg=47.123456789012345,
            latency_ms={"total": 20.0},
            events=("one", "two"),
        ),
    )


def assert_same(a: Recorded, b: Recorded) -> None:
    assert replace(a.frame, image=None) == replace(b.frame, image=None)
    assert (a.state, a.fix) == (b.state, b.fix)
    assert a.fix.to_json() == b.fix.to_json()
    if a.frame.image is None or b.frame.image is None:
        assert a.frame.image is b.frame.image
    else:
        np.testing.assert_array_equal(a.frame.image, b.frame.image)


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Loop:
    """What a loop does with a recorder; its localizer counts its steps."""

    def __init__(self, recorder: Recorder, clock: Clock) -> None:
        self.recorder = recorder
        self.clock = clock
        self.steps = 0

    def fly(self, steps: int, *, status: str = "OK", every_s: float = 0.125) -> None:
        for _ in range(steps):
            self.recorder.before_step(lambda: {"steps": self.steps})
            recorded = step(self.steps, status=status)
            self.recorder.offer(recorded.frame, recorded.state, recorded.fix)
            assert self.recorder.flush(LONG_S)
            self.steps += 1
            self.clock.now_s += every_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def recorder(folder: Path, clock: Clock, **options: Any) -> Recorder:
    defaults = {"max_bytes": 1 << 20, "segment_s": 1.0, "min_free_bytes": 0}
    return Recorder(folder, clock=clock, **{**defaults, **options})


def seqs(folder: Path) -> list[list[int]]:
    return [[r.fix.seq for r in segment.records()] for segment in read_recording(folder)]


# --- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 1, 3), (1, 7, 3), (90, 160, 3), (4, 4, 1)])
@pytest.mark.parametrize("kind", ["noise", "black", "white", "ramp"])
def test_pixels_come_back_as_they_were(shape: tuple[int, int, int], kind: str) -> None:
    count = math.prod(shape)
    image: U8 = {
        "noise": np.random.default_rng(3).integers(0, 256, shape, np.uint8),
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "ramp": np.arange(count).astype(np.uint8).reshape(shape),
    }[kind]
    before = image.copy()
    back = unpacked(packed(image), shape)
    np.testing.assert_array_equal(back, before)
    np.testing.assert_array_equal(image, before)
    assert back.flags.writeable


def test_a_view_of_a_larger_image_is_packed_as_it_looks() -> None:
    image = np.random.default_rng(3).integers(0, 256, (20, 20, 3), np.uint8)[::2, 5:15, ::-1]
    np.testing.assert_array_equal(unpacked(packed(image), image.shape), image)


# --- segments ------------------------------------------------------------------------------------


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    writer = SegmentWriter(tmp_path / "000001.skyrec", {"x": 0.1, "n": None}, {"index": "i"})
    for seq in range(3):
        writer.write(step(seq))
    writer.finish()
    writer.finish()
    return writer.path


def test_a_segment_gives_back_what_was_written(segment: Path) -> None:
    read = read_segment(segment)
    assert (read.snapshot, read.settings) == ({"x": 0.1, "n": None}, {"index": "i"})
    assert read.is_whole()
    records = list(read.records())
    assert len(records) == 3
    for seq, recorded in enumerate(records):
        assert_same(recorded, step(seq))


def test_a_frame_without_an_image_and_numbers_that_are_none_come_back(tmp_path: Path) -> None:
    recorded = replace(
        step(0),
        frame=Frame(name="000000", image=None, t_s=None, capture_ms=0.0, problem="stalled"),
        state=VehicleState(t_s=math.inf, height_m=np.float64(1 / 3)),
    )
    writer = SegmentWriter(tmp_path / "000001.skyrec", {}, {})
    writer.write(recorded)
    writer.finish()
    [back] = read_segment(writer.path).records()
    assert_same(back, recorded)


def test_a_segment_cut_at_any_byte_is_readable_up_to_the_cut(segment: Path) -> None:
    whole = segment.read_bytes()
    counts = []
    for size in range(len(whole)):
        segment.write_bytes(whole[:size])
        found = [
            [recorded.fix.seq for recorded in part.records()]
            for part in read_recording(segment.parent)
        ]
        assert found in ([], [[]], [[0]], [[0, 1]], [[0, 1, 2]])
        counts.append(sum(map(len, found)))
        if found:
            assert not read_segment(segment).is_whole()
    assert counts == sorted(counts)
    assert counts[-1] == 3


def test_zeros_that_a_power_cut_leaves_are_a_cut(segment: Path) -> None:
    whole = bytearray(segment.read_bytes())
    whole[-60:] = bytes(60)
    segment.write_bytes(whole)
    assert [r.fix.seq for r in read_segment(segment).records()] == [0, 1]


def test_a_byte_that_has_changed_anywhere_is_found(segment: Path) -> None:
    whole = segment.read_bytes()
    refused = 0
    for position in range(0, len(whole), 7):
        altered = bytearray(whole)
        altered[position] ^= 0x10
        segment.write_bytes(altered)
        try:
            read = read_segment(segment)
            found = list(read.records())
        except InputError:
            refused += 1
        else:
            # A length that points beyond the end looks like a cut: less is read, nothing is wrong.
            assert not read.is_whole()
            for seq, recorded in enumerate(found):
                assert_same(recorded, step(seq))
    assert refused > 0.9 * len(whole) / 7


@pytest.mark.parametrize("content", [b"not a recording", b"\x89PNG\r\n\x1a\n" + bytes(100)])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "000001.skyrec").write_bytes(content)
    with pytest.raises(InputError, match="is no segment of a recording"):
        list(read_recording(tmp_path))


def test_a_folder_without_segments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no segments"):
        list(read_recording(tmp_path))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_recording(tmp_path / "absent"))


# --- the recorder --------------------------------------------------------------------------------


def test_every_segment_has_all_steps_since_its_snapshot(tmp_path: Path, clock: Clock) -> None:
    opened = recorder(tmp_path, clock, settings={"bundle": "b"})
    Loop(opened, clock).fly(30)
    opened.close()
    opened.close()
    assert seqs(tmp_path) == [
        list(range(8)),
        list(range(8, 16)),
        list(range(16, 24)),
        list(range(24, 30)),
    ]
    segments = list(read_recording(tmp_path))
    assert [s.snapshot for s in segments] == [{"steps": k} for k in (0, 8, 16, 24)]
    assert all(s.is_whole() and s.settings == {"bundle": "b"} for s in segments)
    assert opened.events() == []


def test_a_snapshot_is_taken_only_when_a_segment_begins(tmp_path: Path, clock: Clock) -> None:
    opened = recorder(tmp_path, clock)
    taken: list[int] = []
    for k in range(25):
        opened.before_step(lambda k=k: {"taken": taken.append(k)})  # type: ignore[func-returns-value,misc]
        assert opened.flush(LONG_S)
        clock.now_s += 0.125
    opened.close()
    assert taken == [0, 8, 16, 24]


def test_bytes_stay_below_the_limit_and_the_newest_is_kept(tmp_path: Path, clock: Clock) -> None:
    opened = recorder(tmp_path, clock, max_bytes=65536, segment_s=100.0)
    loop = Loop(opened, clock)
    for _ in range(40):
        loop.fly(10)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 65536
    opened.close()
    found = [seq for part in seqs(tmp_path) for seq in part]
    assert found == list(range(found[0], 400))
    assert 0 < found[0] < 390


def test_segments_older_than_the_limit_go(tmp_path: Path, clock: Clock) -> None:
    opened = recorder(tmp_path, clock, max_s=3.0)
    Loop(opened, clock).fly(80)
    opened.close()
    found = seqs(tmp_path)
    assert found[-1][-1] == 79
    assert 40 <= found[0][0] <= 56


def test_only_the_time_before_being_lost_is_kept_if_asked(tmp_path: Path, clock: Clock) -> None:
    opened = recorder(tmp_path, clock, max_s=2.0, only_lost=True)
    loop = Loop(opened, clock)
    loop.fly(52)
    loop.fly(2, status="LOST")
    loop.fly(60)
    opened.close()
    found = [seq for part in seqs(tmp_path) for seq in part]
    assert found == list(range(found[0], 56))
    assert 24 <= found[0] <= 36
    assert any("lost, the last 2 s are kept" in event for event in opened.events())


def test_nothing_is_left_of_a_flight_that_was_never_lost(tmp_path: Path, clock: Clock) -> None:
    opened = recorder(tmp_path, clock, max_s=2.0, only_lost=True)
    Loop(opened, clock).fly(30)
    assert segment_paths(tmp_path)
    opened.close()
    assert segment_paths(tmp_path) == []


def test_a_recorder_goes_on_in_a_folder_and_counts_what_is_there(
    tmp_path: Path, clock: Clock
) -> None:
    for _ in range(3):
        opened = recorder(tmp_path, clock, max_bytes=65536, segment_s=5.0)
        Loop(opened, clock).fly(120)
        opened.close()
    names = [path.name for path in segment_paths(tmp_path)]
    assert names == sorted(names)
    assert sum(path.stat().st_size for path in segment_paths(tmp_path)) <= 65536
    assert len(set(names)) == len(names)


def test_a_medium_that_hangs_holds_no_frame_up_and_breaks_no_segment(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    pwrite = os.pwrite

    def hanging(fd: int, data: bytes, offset: int) -> int:
        released.wait(2 * LONG_S)
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", hanging)
    opened = recorder(tmp_path, clock, queue_frames=4, segment_s=100.0)
    for seq in range(20):
        opened.before_step(lambda seq=seq: {"steps": seq})  # type: ignore[misc]
        recorded = step(seq)
        opened.offer(recorded.frame, recorded.state, recorded.fix)
    released.set()
    assert opened.flush(LONG_S)
    for seq in range(20, 23):
        opened.before_step(lambda seq=seq: {"steps": seq})  # type: ignore[misc]
        recorded = step(seq)
        opened.offer(recorded.frame, recorded.state, recorded.fix)
    opened.close()
    assert any("too slow" in event for event in opened.events())
    for part in read_recording(tmp_path):
        found = [r.fix.seq for r in part.records()]
        assert found == list(range(part.snapshot["steps"], part.snapshot["steps"] + len(found)))
    assert seqs(tmp_path)[-1] == [20, 21, 22]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_a_medium_that_fails_ends_a_segment_and_a_new_one_begins_later(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    failing = False
    pwrite = os.pwrite

    def sometimes(fd: int, data: bytes, offset: int) -> int:
        if failing and len(data) < 100:
            raise OSError(code, os.strerror(code))
        return pwrite(fd, data[: len(data) // 2] if failing else data, offset)

    monkeypatch.setattr(os, "pwrite", sometimes)
    opened = recorder(tmp_path, clock, segment_s=100.0)
    loop = Loop(opened, clock)
    loop.fly(5)
    failing = True
    loop.fly(5)
    assert [os.strerror(code) in event for event in opened.events()] == [True]
    failing = False
    loop.fly(40)
    opened.close()
    assert any("goes on" in event for event in opened.events())
    found = seqs(tmp_path)
    assert found[0] == list(range(5))
    assert found[-1] == list(range(found[-1][0], 50))
    assert list(read_recording(tmp_path))[-1].snapshot == {"steps": found[-1][0]}


def test_room_is_left_for_the_log(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage: Callable[[Path], Any] = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=5 << 20))
    opened = recorder(tmp_path, clock, min_free_bytes=64 << 20)
    Loop(opened, clock).fly(5)
    opened.close()
    assert segment_paths(tmp_path) == []
    assert any("only 5 MiB free, 64 are left alone" in event for event in opened.events())


@pytest.mark.parametrize(
    "wrong", [{"max_bytes": 10}, {"segment_s": 0.0}, {"queue_frames": 1}, {"max_s": 0.0}], ids=str
)
def test_limits_that_make_no_sense_are_refused(
    tmp_path: Path, clock: Clock, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="expected at least 65536 bytes"):
        recorder(tmp_path, clock, **wrong)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="choose another folder"):
        recorder(tmp_path / "file", clock)


def test_the_beginning_of_a_segment_is_plain_json(segment: Path) -> None:
    raw = segment.read_bytes()
    assert json.loads(raw[17 : raw.index(b"}}", 17) + 2])["schema"] == 1
