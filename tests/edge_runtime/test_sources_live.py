"""A camera that stalls, dies, hangs, sends rubbish or repeats itself: none stops the reader."""

import gc
import itertools
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("cv2")

from edge_runtime.errors import InputError
from edge_runtime.sources.capture import Capture, CaptureSpec, NoMoreFrames
from edge_runtime.sources.capture_thread import CaptureThread
from edge_runtime.sources.frame_times import Clock
from edge_runtime.sources.live import LiveSource
from edge_runtime.sources.newest import NewestFrame
from edge_runtime.sources.notices import MAX_UNREAD, Notices
from edge_runtime.sources.protocol import Frame

U8 = npt.NDArray[np.uint8]
LONG_S = 30.0
"""Longer than anything here takes on the slowest machine."""
SPEC = CaptureSpec(shown="cam", target="cam", engine="v4l2", stamps="none", open_timeout_s=0.5)

FAIL = "fail"
BROKEN = "broken"
END = "end"


def scene(seed: int, height: int = 24, width: int = 32) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class PlayedCapture:
    """Grabs what its script says. When the script is over it waits as a camera without frames."""

    def __init__(self, script: Iterable[Any], quit_: threading.Event) -> None:
        self._script = iter(script)
        self._quit = quit_
        self._image: U8 | None = None
        self.held = threading.Event()
        """Set when the script has come to an event it waits for: all before is laid down."""
        self.script_over = threading.Event()
        self.released = threading.Event()
        self.wishes: list[str] = []

    def grab(self) -> bool:
        for step in self._script:
            if isinstance(step, threading.Event):
                self.held.set()
                step.wait(LONG_S)
                continue
            if isinstance(step, str):
                if step == END:
                    raise NoMoreFrames
                self._image = None
                return step == BROKEN
            self._image = step
            return True
        self.script_over.set()
        self._quit.wait(LONG_S)
        return False

    def retrieve(self) -> U8 | None:
        return self._image

    def time_s(self) -> float:
        return math.nan

    def length(self) -> tuple[float, int]:
        return 0.0, 0

    def differences(self) -> list[str]:
        return self.wishes

    def release(self) -> None:
        self.released.set()


class Driver:
    """Opens scripted captures one after another; None where there is nothing to open."""

    def __init__(self) -> None:
        self.quit = threading.Event()
        self.captures: list[PlayedCapture | None] = []
        self.opened = 0
        self._lock = threading.Lock()

    def add(self, *script: Any) -> PlayedCapture:
        capture = PlayedCapture(script, self.quit)
        self.captures.append(capture)
        return capture

    def absent(self, times: int = 1) -> None:
        self.captures += [None] * times

    def open(self, _: CaptureSpec) -> Capture | None:
        with self._lock:
            k = self.opened
            self.opened += 1
        return self.captures[k] if k < len(self.captures) else None


@pytest.fixture
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.quit.set()


@pytest.fixture
def open_live(driver: Driver) -> Iterator[Callable[..., LiveSource]]:
    sources = []

    def make(**options: Any) -> LiveSource:
        options = {"stall_s": LONG_S, "back_off_s": (0.001, 0.01), **options}
        source = LiveSource(SPEC, open_capture=driver.open, **options)
        sources.append(source)
        return source

    yield make
    driver.quit.set()
    for source in sources:
        source.close()


class ToldTime:
    """Passes when told, so that no pause of this machine is a stall."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.clock = Clock(monotonic=lambda: self.now_s, unix=self.unix)

    def unix(self) -> float:
        return 1.7e9 + self.now_s


def until(true: Callable[[], object]) -> None:
    end_s = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.001)


# --- the newest frame ------------------------------------------------------------------------


def test_the_newest_frame_wins_and_what_it_replaces_is_counted(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    go_on = threading.Event()
    first, second = [scene(k) for k in range(5)], [scene(k) for k in range(5, 8)]
    capture = driver.add(*first, go_on, *second)
    source = open_live()
    frames = source.frames()
    until(lambda: source.dropped == 4)
    one = next(frames)
    assert (one.name, one.dropped) == ("000004", 4)
    assert one.image is not None
    assert np.array_equal(one.image, first[-1][..., ::-1])
    go_on.set()
    assert capture.script_over.wait(LONG_S)
    two = next(frames)
    assert (two.name, two.dropped) == ("000007", 2)
    assert source.dropped == 6
    assert source.count() is None
    assert source.live


def test_frames_carry_the_time_they_came(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    before_s = time.time()
    driver.add(scene(0))
    frame = next(open_live(latency_s=100.0).frames())
    assert frame.t_s is not None
    assert before_s - 100.01 <= frame.t_s <= time.time() - 99.99
    assert frame.capture_ms >= 0


def test_only_frames_that_are_due_are_decoded(driver: Driver) -> None:
    """Decoding costs a core that the matching needs; grabbing costs nothing."""
    decoded: list[float] = []

    class Timed(PlayedCapture):
        at_s = -0.04

        def grab(self) -> bool:
            self.at_s += 0.04
            if self.at_s > 10:
                raise NoMoreFrames
            return True

        def retrieve(self) -> U8 | None:
            decoded.append(self.at_s)
            return scene(len(decoded))

        def time_s(self) -> float:
            return self.at_s

    thread = CaptureThread(
        SPEC,
        lambda _: Timed((), driver.quit),
        NewestFrame(),
        Notices(),
        itertools.count(),
        rate_hz=5.0,
        latency_s=0.0,
        back_off_s=(0.001, 0.01),
        is_file=True,
        clock=Clock(),
        seed=0,
    )
    thread.start()
    thread.join(LONG_S)
    assert thread.over.is_set()
    assert decoded == pytest.approx(np.arange(len(decoded)) * 0.2, abs=0.021)
    assert len(decoded) == 51


# --- failures --------------------------------------------------------------------------------


def test_a_stall_is_a_record_and_an_event_and_so_is_its_end(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    go_on, time_ = threading.Event(), ToldTime()
    capture = driver.add(scene(0), go_on, scene(1))
    source = open_live(stall_s=0.05, clock=time_.clock)
    frames = source.frames()
    assert capture.held.wait(LONG_S)
    assert next(frames).image is not None
    for silent in ("0.1", "0.2", "0.3"):
        time_.now_s += 0.1
        stalled = next(frames)
        assert stalled.image is None
        assert stalled.problem == f"no frame from cam for {silent} s"
        assert stalled.t_s == time_.unix()
    go_on.set()
    after = next(frame for frame in frames if frame.image is not None)
    assert after.problem == ""
    assert source.stalls == 1
    events = source.events()
    assert len([e for e in events if e.startswith("no frame from cam for")]) == 1
    assert len([e for e in events if e.startswith("cam gives frames again after")]) == 1
    assert source.events() == []


def test_names_never_repeat_through_stalls_and_reopening(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    go_on, time_ = threading.Event(), ToldTime()
    first = driver.add(scene(0), go_on, FAIL, FAIL, FAIL)
    second = driver.add(scene(1))
    frames = open_live(stall_s=0.02, clock=time_.clock).frames()
    assert first.held.wait(LONG_S)
    names = [next(frames).name]
    time_.now_s += 0.03
    names += [next(frames).name for _ in range(2)]
    go_on.set()
    assert second.script_over.wait(LONG_S)
    names.append(next(frames).name)
    time_.now_s += 0.03
    names += [next(frames).name for _ in range(2)]
    assert names == [f"{k:06d}" for k in range(6)]


def test_a_camera_that_is_unplugged_is_opened_again_when_it_is_back(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    first = driver.add(scene(0), FAIL, FAIL, FAIL)
    driver.absent(7)
    driver.add(scene(1))
    source = open_live()
    until(lambda: source.reopened == 1)
    frame = next(frame for frame in source.frames() if frame.name == "000001")
    assert frame.image is not None
    assert first.released.is_set()
    events = source.events()
    assert events[0] == "cam gives no more frames; it is opened again"
    assert events[1].startswith("cam is open again after ")
    assert events[1].endswith(" s and 8 tries")


def test_a_camera_that_never_comes_back_gives_a_record_per_time_out(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    gone = driver.add(scene(0), FAIL, FAIL, FAIL)
    source = open_live(stall_s=0.02)
    frames = source.frames()
    assert gone.released.wait(LONG_S)
    assert next(frames).image is not None
    problems = [next(frames).problem for _ in range(5)]
    assert all(problem.startswith("no frame from cam for") for problem in problems)
    until(lambda: driver.opened > 2)


def test_one_grab_that_fails_does_not_close_the_camera(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    driver.add(scene(0), FAIL, FAIL, scene(1), FAIL, scene(2))
    source = open_live()
    until(lambda: source.dropped == 2)
    assert next(source.frames()).name == "000002"
    assert source.reopened == 0
    assert source.events() == []


def test_a_frame_that_cannot_be_decoded_is_a_record_and_an_event(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    good = threading.Event()
    driver.add(BROKEN, BROKEN, good, scene(1))
    source = open_live()
    frames = source.frames()
    until(lambda: source.dropped == 1)
    frame = next(frames)
    assert (frame.image, frame.problem) == (None, "the frame cannot be decoded")
    good.set()
    assert next(frames).image is not None
    assert source.events() == [
        "cam: frames come that cannot be decoded",
        "frames can be decoded again after 2 that could not",
    ]


def test_a_camera_that_sends_nothing_but_rubbish_is_opened_again(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    driver.add(*[BROKEN] * 1000)
    driver.add(scene(0))
    source = open_live()
    until(lambda: source.reopened == 1)


@pytest.mark.parametrize(
    ("value", "problem"), [(0, "the picture is black"), (255, "the picture is white")]
)
def test_a_picture_that_shows_nothing_is_a_record_and_an_event(
    driver: Driver, open_live: Callable[..., LiveSource], value: int, problem: str
) -> None:
    driver.add(np.full((24, 32, 3), value, np.uint8))
    source = open_live()
    frame = next(source.frames())
    assert (frame.image, frame.problem) == (None, problem)
    assert source.events() == [problem]


def test_a_camera_that_repeats_itself_is_a_record_and_an_event(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    driver.add(*[scene(0)] * 9)
    source = open_live()
    until(lambda: source.dropped == 8)
    assert next(source.frames()).problem == "the camera shows the same picture for 9 frames"
    assert source.events() == ["the camera shows the same picture for 5 frames"]


def test_frames_of_changing_size_are_given_with_an_event(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    go_on = threading.Event()
    driver.add(scene(0), go_on, scene(1, 48, 64))
    source = open_live()
    frames = source.frames()
    assert next(frames).image is not None
    go_on.set()
    image = next(frames).image
    assert image is not None
    assert image.shape == (48, 64, 3)
    assert source.events() == ["the frames changed their size from 32x24 to 64x48"]


def test_what_the_camera_does_not_do_as_asked_is_said(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    driver.add(scene(0)).wishes = ["width 1280 was asked, 640 is given"]
    source = open_live()
    next(source.frames())
    assert source.events() == ["cam: width 1280 was asked, 640 is given"]


# --- hanging drivers -------------------------------------------------------------------------


def test_a_driver_that_hangs_is_left_and_the_camera_opened_beside_it(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    hanging = driver.add(scene(0), driver.quit, scene(9))
    driver.add(scene(1))
    source = open_live(stall_s=0.05)
    frames = source.frames()
    assert hanging.held.wait(LONG_S)
    assert next(frames).name == "000000"
    after = next(frame for frame in frames if frame.image is not None)
    assert after.image is not None
    assert np.array_equal(after.image, scene(1)[..., ::-1])
    assert "cam hangs in its driver; it is opened anew beside it" in source.events()
    driver.quit.set()
    assert hanging.released.wait(LONG_S)


def test_drivers_that_hang_do_not_pile_up_threads(
    driver: Driver, open_live: Callable[..., LiveSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.sources.live._HANG_GRACE_S", 0.0)
    for k in range(20):
        driver.add(scene(k), driver.quit)
    source = open_live(stall_s=0.005)
    frames = source.frames()
    until(lambda: next(frames) and driver.opened == 4)
    for _ in range(100):
        next(frames)
    assert driver.opened == 4


def test_closing_does_not_wait_for_a_driver_that_hangs(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    hanging = driver.add(scene(0), driver.quit)
    source = open_live()
    assert hanging.held.wait(LONG_S)
    started_s = time.monotonic()
    source.close()
    source.close()
    assert time.monotonic() - started_s < LONG_S / 2
    assert source.events() == ["cam hangs in its driver; it is left to itself"]


def test_closing_ends_the_frames_and_gives_the_device_back(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    capture = driver.add(*(scene(k) for k in range(3)), *[FAIL] * 2, scene(4))
    source = open_live()
    assert capture.script_over.wait(LONG_S)
    got: list[Frame] = []
    reader = threading.Thread(target=lambda: got.extend(source.frames()))
    reader.start()
    until(lambda: got)
    driver.quit.set()
    source.close()
    reader.join(LONG_S)
    assert not reader.is_alive()
    assert capture.released.wait(LONG_S)
    assert list(source.frames()) == []


def test_a_source_that_has_an_end_gives_its_last_frame_and_ends(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    driver.add(scene(0), scene(1), END)
    source = open_live()
    assert [frame.name for frame in source.frames()][-1] == "000001"
    assert source.reopened == 0


# --- at the start ----------------------------------------------------------------------------


def test_a_camera_that_is_not_there_at_the_start_is_refused(driver: Driver) -> None:
    with pytest.raises(InputError, match=r"cam cannot be opened within 1 s; is it there"):
        LiveSource(SPEC, open_capture=driver.open, open_s=1.0, back_off_s=(0.001, 0.01))


def test_a_camera_whose_opening_hangs_at_the_start_is_refused(driver: Driver) -> None:
    def hang(_: CaptureSpec) -> Capture | None:
        driver.quit.wait(LONG_S)
        return None

    with pytest.raises(InputError, match=r"cam does not answer within 0.05 s"):
        LiveSource(SPEC, open_capture=hang, open_s=0.05)


def test_a_camera_that_comes_up_late_is_waited_for(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    driver.absent(5)
    driver.add(scene(0))
    assert next(open_live(open_s=LONG_S).frames()).image is not None


def test_pauses_between_tries_grow_to_a_limit_and_are_not_all_alike(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    thread = CaptureThread(
        SPEC,
        driver.open,
        NewestFrame(),
        Notices(),
        itertools.count(),
        rate_hz=None,
        latency_s=0.0,
        back_off_s=(0.1, 5.0),
        is_file=False,
        clock=Clock(),
        seed=7,
    )

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        if len(waited) == 40:
            thread.stop()
        return False

    monkeypatch.setattr(thread._stopped, "wait", wait)
    thread.run()
    expected = np.minimum(5.0, 0.1 * 2.0 ** np.arange(40))
    assert np.all(np.abs(np.array(waited) / expected - 1) <= 0.25)
    assert len(set(waited[10:])) == 30


# --- for hours -------------------------------------------------------------------------------


def test_thousands_of_frames_leave_none_alive(
    driver: Driver, open_live: Callable[..., LiveSource]
) -> None:
    """Ten minutes at 10 Hz, with a camera that dies every thousand frames."""
    alive: list[weakref.ref[U8]] = []

    def play() -> Iterator[U8]:
        for k in range(1000):
            image = np.full((24, 32, 3), k % 200, np.uint8)
            image[::2] ^= 31
            alive.append(weakref.ref(image))
            yield image
            del image

    for _ in range(6):
        script = itertools.chain(play(), [FAIL] * 3)
        driver.captures.append(PlayedCapture(script, driver.quit))
    last = driver.add()
    source = open_live()
    given = 0
    frames = source.frames()
    for frame in frames:
        given += 1
        if frame.name >= "005990":
            break
    del frame
    assert last.script_over.wait(LONG_S)
    assert len(alive) == 6000
    assert source.dropped + given >= 5990
    gc.collect()
    # The newest, and the one the watch compares the next with.
    assert sum(ref() is not None for ref in alive) <= 3
    source.close()
    assert len(source.events()) <= MAX_UNREAD + 1


def test_events_that_nobody_takes_do_not_grow() -> None:
    notices = Notices()
    for k in range(10 * MAX_UNREAD):
        notices.say(str(k))
    lines = notices.taken()
    assert lines[0] == f"{9 * MAX_UNREAD} earlier events were not kept"
    assert lines[-1] == str(10 * MAX_UNREAD - 1)
    assert len(lines) == MAX_UNREAD + 1
