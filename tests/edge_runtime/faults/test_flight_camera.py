"""A live camera that freezes, is unplugged, or whose machine's clock is set: the flight goes on."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.fix import Fix
from edge_runtime.flight import Flight
from edge_runtime.flight_log import FlightLog, RunSettings, read_log
from edge_runtime.flight_opening import open_localizer
from edge_runtime.sources.capture import U8, Capture, CaptureSpec
from edge_runtime.sources.frame_times import Clock
from edge_runtime.sources.live import LiveSource
from edge_runtime.state import VehicleState
from edge_runtime.states.opening import open_states
from edge_runtime.states.protocol import StateSource

LONG_S = 60.0
SPEC = CaptureSpec(shown="cam", target="cam", engine="v4l2", stamps="none", open_timeout_s=LONG_S)


class Plug:
    """The device: gives the pictures it is fed, one for each frame the flight asks for."""

    def __init__(self) -> None:
        self._pictures: deque[U8] = deque()
        self._changed = threading.Condition()
        self._over = False
        self.unplugged = False
        self.opened = 0

    def feed(self, image: U8) -> None:
        with self._changed:
            self._pictures.append(image)
            self._changed.notify_all()

    def pull(self) -> None:
        with self._changed:
            self.unplugged = True
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._over = self.unplugged = True
            self._changed.notify_all()

    def open(self, _: CaptureSpec) -> Capture | None:
        with self._changed:
            if self.unplugged:
                return None
            self.opened += 1
        return PluggedCapture(self)

    def next(self) -> U8 | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._pictures) or self.unplugged, LONG_S)
            return self._pictures.popleft() if self._pictures and not self.unplugged else None


class PluggedCapture:
    def __init__(self, plug: Plug) -> None:
        self._plug = plug
        self._image: U8 | None = None

    def grab(self) -> bool:
        self._image = self._plug.next()
        return self._image is not None

    def retrieve(self) -> U8 | None:
        return self._image

    def time_s(self) -> float:
        return math.nan

    def length(self) -> tuple[float, int]:
        return 0.0, 0

    def differences(self) -> list[str]:
        return []

    def release(self) -> None:
        """Nothing is held."""


class Steady:
    """States that know height and heading at any time. A `StateSource`.

    Half a second passes from frame to frame, however fast this machine is.
    """

    live = True

    def __init__(self) -> None:
        self.silent = False
        self.frames_clock = False
        self._asked = 0

    def at(self, frame_name: str, t_s: float | None) -> VehicleState:
        self._asked += 1
        known = {} if self.silent else {"height_m": 100.0, "yaw_deg": 0.0}
        if self.frames_clock:
            return VehicleState(t_s=math.nan if t_s is None else t_s, **known)
        return VehicleState(t_s=0.5 * self._asked, **known)

    def events(self) -> list[str]:
        return []

    def close(self) -> None:
        """Nothing to close."""


class Camera:
    """A flight of a live camera, a frame at a time."""

    def __init__(
        self,
        settings: RunSettings,
        out: Path,
        *,
        clock: Clock,
        stall_s: float,
        states: StateSource | None,
    ) -> None:
        self.plug, self.steady, self.out = Plug(), Steady(), out
        self.source = LiveSource(
            SPEC,
            stall_s=stall_s,
            open_s=LONG_S,
            open_capture=self.plug.open,
            back_off_s=(0.001, 0.01),
            clock=clock,
        )
        self.flight = Flight(
            source=self.source, states=states or self.steady, localizer=open_localizer(settings)
        )
        self.with_image = 0

    def fly(self, script: Sequence[U8 | Callable[[], object]]) -> list[Fix]:
        """Feed a picture after each record that had one, or do what the script says."""
        steps = iter(script)

        def advance() -> None:
            for step in steps:
                if not callable(step):
                    self.plug.feed(step)
                    return
                step()
            self.plug.end()
            self.source.close()

        def watch(fix: Fix, done: int, total: int | None) -> None:
            if fix.reason.startswith("no frame from"):
                self.plug.unplugged = False
            else:
                advance()

        advance()
        with FlightLog(self.out) as log:
            self.flight.fly(log, watch=watch)
        return list(read_log(self.out))


@pytest.fixture
def camera(settings: RunSettings, tmp_path: Path) -> Iterator[Callable[..., Camera]]:
    made: list[Camera] = []

    def make(
        *,
        unix: Callable[[], float] = time.time,
        stall_s: float = LONG_S,
        states: StateSource | None = None,
    ) -> Camera:
        out = tmp_path / "fixes.jsonl"
        clock = Clock(unix=unix)
        made.append(Camera(settings, out, clock=clock, stall_s=stall_s, states=states))
        return made[-1]

    yield make
    for one in made:
        one.plug.end()
        one.flight.close()


def hovering(flown: Any, seed: int) -> U8:
    """The first place again, with another noise of the sensor."""
    noise = np.random.default_rng(seed).normal(0, 2, flown.images[0].shape)
    bgr = flown.images[0][..., ::-1] + noise
    return np.ascontiguousarray(np.clip(bgr, 0, 255).astype(np.uint8))


def test_a_camera_that_is_unplugged_and_plugged_in_again_flies_on(
    camera: Callable[..., Camera], flown: Any, events: Callable[[Sequence[Fix]], str]
) -> None:
    device = camera(stall_s=1.0)
    pictures = [hovering(flown, k) for k in range(12)]
    fixes = device.fly([*pictures[:6], device.plug.pull, *pictures[6:]])
    flown.assert_never_wrong(fixes, [0] * len(fixes))
    silent = [fix for fix in fixes if fix.reason.startswith("no frame from cam for")]
    assert silent
    assert {fix.status for fix in silent} <= {"DEGRADED", "ABSTAIN", "LOST"}
    assert len(fixes) == 12 + len(silent)
    assert fixes[-1].status == "OK"
    assert device.plug.opened >= 2
    said = events(fixes)
    assert "cam gives no more frames; it is opened again" in said
    assert "cam is open again after" in said
    assert "cam gives frames again after" in said


def test_a_camera_that_repeats_its_last_picture_is_not_believed(
    camera: Callable[..., Camera], flown: Any, events: Callable[[Sequence[Fix]], str]
) -> None:
    same = hovering(flown, 99)
    pictures = [hovering(flown, k) for k in range(4)]
    fixes = camera().fly([*pictures, *[same] * 8, *[hovering(flown, k) for k in range(5, 10)]])
    assert len(fixes) == 17
    # Five alike are no accident: from the fifth on none is a fix.
    assert "OK" not in {fix.status for fix in fixes[8:12]}
    assert all("the same picture for" in fix.reason for fix in fixes[8:12])
    assert fixes[-1].status == "OK"
    flown.assert_never_wrong(fixes, [0] * 17)
    assert "the picture moves again after 8 equal frames" in events(fixes)


@pytest.mark.parametrize("by_s", [-3600.0, 7200.0], ids=["back", "forward"])
def test_this_machines_clock_is_set_in_flight(
    camera: Callable[..., Camera], flown: Any, events: Callable[[Sequence[Fix]], str], by_s: float
) -> None:
    offset_s = [0.0]
    device = camera(unix=lambda: time.time() + offset_s[0])
    device.steady.frames_clock = True
    pictures = [hovering(flown, k) for k in range(14)]
    fixes = device.fly([*pictures[:6], lambda: offset_s.__setitem__(0, by_s), *pictures[6:]])
    assert len(fixes) == 14
    flown.assert_never_wrong(fixes, [0] * 14)
    assert fixes[-1].status == "OK"
    assert "clock" in events(fixes)


def test_states_that_say_nothing_stop_nothing(camera: Callable[..., Camera], flown: Any) -> None:
    device = camera()
    device.steady.silent = True
    pictures = [hovering(flown, k) for k in range(12)]
    fixes = device.fly(
        [*pictures[:5], lambda: setattr(device.steady, "silent", False), *pictures[5:]]
    )
    assert len(fixes) == 12
    assert all(fix.lat_deg is None for fix in fixes[:4])
    assert all("no height above ground" in fix.reason for fix in fixes[:4])
    assert fixes[-1].status == "OK"
    flown.assert_never_wrong(fixes, [0] * 12)


def test_a_logger_in_another_time_zone_is_understood_and_said(
    camera: Callable[..., Camera],
    flown: Any,
    events: Callable[[Sequence[Fix]], str],
    tmp_path: Path,
) -> None:
    began_s = time.time() - 60
    stamps = [datetime.fromtimestamp(began_s + 7200 + k, timezone.utc) for k in range(600)]
    rows = tmp_path / "rows.csv"
    rows.write_text(
        "time_utc,height_m,yaw_deg\n" + "".join(f"{t.isoformat()},100,0\n" for t in stamps)
    )
    fixes = camera(states=open_states(str(rows))).fly([hovering(flown, k) for k in range(8)])
    flown.assert_never_wrong(fixes, [0] * 8)
    assert [fix.status for fix in fixes[-4:]] == ["OK"] * 4
    assert "its clock is 2 h 00 min ahead of the frames', a difference of time zones" in events(
        fixes
    )
