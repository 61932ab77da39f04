"""When frames were exposed, by each kind of time stamp."""

import itertools
import math

import numpy as np
import pytest

pytest.importorskip("cv2")

from edge_runtime.sources.frame_times import Clock, FileTimes, LiveTimes
from edge_runtime.sources.video import next_due_s

UNIX_AHEAD_S = 1.79e9


class HandClock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.now_s, self.ahead_s = 1000.0, UNIX_AHEAD_S

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now_s, unix=lambda: self.now_s + self.ahead_s)


def test_a_kernel_stamp_is_put_on_the_unix_clock() -> None:
    said: list[str] = []
    hand = HandClock()
    times = LiveTimes("kernel", said.append, clock=hand.clock())
    assert times.exposed_s(999.96) == pytest.approx(UNIX_AHEAD_S + 999.96, abs=1e-6)
    assert said == []


def test_latency_is_taken_off_every_kind_of_time() -> None:
    for stamps, capture_s in (("kernel", 999.96), ("none", math.nan), ("stream", 3.0)):
        plain, late = (
            LiveTimes(stamps, print, latency_s=latency_s, clock=HandClock().clock())  # type: ignore[arg-type]
            for latency_s in (0.0, 0.08)
        )
        assert plain.exposed_s(capture_s) - late.exposed_s(capture_s) == pytest.approx(0.08)


@pytest.mark.parametrize("capture_s", [0.0, 1.79e9, 990.0, 1001.0, math.nan])
def test_a_stamp_of_another_clock_is_not_believed_and_said_once(capture_s: float) -> None:
    said: list[str] = []
    hand = HandClock()
    times = LiveTimes("kernel", said.append, clock=hand.clock())
    for _ in range(3):
        hand.now_s += 0.1
        assert times.exposed_s(capture_s) == pytest.approx(UNIX_AHEAD_S + hand.now_s, abs=1e-6)
    assert len(said) == 1
    assert "not of this machine's monotonic clock; the time of arrival is used" in said[0]


def test_times_grow_whatever_a_driver_says() -> None:
    hand = HandClock()
    times = LiveTimes("kernel", print, clock=hand.clock())
    given = []
    for capture_s in (999.9, 999.9, 999.8, 999.95):
        hand.now_s += 0.01
        given.append(times.exposed_s(capture_s))
    assert all(b > a for a, b in itertools.pairwise(given))


def test_a_clock_that_is_set_back_is_followed_and_said() -> None:
    said: list[str] = []
    hand = HandClock()
    times = LiveTimes("none", said.append, clock=hand.clock())
    before = times.exposed_s(math.nan)
    hand.now_s += 0.1
    hand.ahead_s -= 3600
    assert times.exposed_s(math.nan) - before == pytest.approx(-3599.9)
    assert said == ["this machine's clock was set by -3600.0 s"]


def test_jitter_of_the_network_is_taken_out_of_a_stream() -> None:
    """Exposures are 40 ms apart, packets wait 20 ms and on some frames up to 200 ms more."""
    rng = np.random.default_rng(0)
    hand = HandClock()
    times = LiveTimes("stream", print, clock=hand.clock())
    errors_s, arrival_errors_s = [], []
    arrival_s = 0.0
    for k in range(500):
        exposed_s = 1000 + 0.04 * k
        arrival_s = max(arrival_s, exposed_s + 0.02 + rng.exponential(0.05))
        hand.now_s = arrival_s
        given_s = times.exposed_s(5.0 + 0.04 * k)
        errors_s.append(given_s - (exposed_s + UNIX_AHEAD_S))
        arrival_errors_s.append(arrival_s - exposed_s)
    assert np.std(errors_s[100:]) < 0.004
    assert np.std(arrival_errors_s[100:]) > 0.03
    assert np.mean(errors_s[100:]) == pytest.approx(0.02, abs=0.01)


def test_the_drift_of_a_streams_clock_is_followed() -> None:
    hand = HandClock()
    times = LiveTimes("stream", print, clock=hand.clock())
    worst_s = 0.0
    for k in range(20_000):
        hand.now_s = 1000 + 0.1 * k
        given_s = times.exposed_s(0.1 * k * (1 + 100e-6)) - UNIX_AHEAD_S
        worst_s = max(worst_s, abs(given_s - hand.now_s))
    assert worst_s < 0.005


def test_a_stream_that_counts_anew_is_laid_anew() -> None:
    hand = HandClock()
    times = LiveTimes("stream", print, clock=hand.clock())
    times.exposed_s(100.0)
    hand.now_s += 3
    assert times.exposed_s(0.0) == pytest.approx(UNIX_AHEAD_S + hand.now_s, abs=1e-6)


def test_a_stream_without_stamps_takes_the_time_of_arrival() -> None:
    said: list[str] = []
    hand = HandClock()
    times = LiveTimes("stream", said.append, clock=hand.clock())
    assert times.exposed_s(math.nan) == pytest.approx(UNIX_AHEAD_S + 1000)
    assert len(said) == 1


# --- files -----------------------------------------------------------------------------------


def test_a_file_counts_from_its_first_frame_by_its_own_stamps() -> None:
    times = FileTimes(30.0, print)
    assert [times.at_s(t) for t in (7.5, 7.6, 8.9)] == pytest.approx([0, 0.1, 1.4])


@pytest.mark.parametrize("odd", [[0.0], [-1.0], [math.nan], [0.1]])
def test_stamps_that_do_not_grow_are_repaired_and_said_once(odd: list[float]) -> None:
    said: list[str] = []
    times = FileTimes(20.0, said.append)
    given = [times.at_s(t) for t in (0.0, 0.1, *odd, *odd, 0.3)]
    assert given == pytest.approx([0.0, 0.1, 0.15, 0.2, 0.3])
    assert len(said) == 1
    assert "do not grow after 0.100 s" in said[0]


@pytest.mark.parametrize("rate_hz", [1.0, 7.0, 20.0, 29.0, 30.0, 100.0])
def test_a_rate_holds_on_average(rate_hz: float) -> None:
    due_s, taken = 0.0, 0
    for k in range(3000):
        t_s = k / 30
        if t_s >= due_s - 1e-3:
            taken += 1
            due_s = next_due_s(due_s, t_s, 1 / rate_hz)
    assert taken / 100 == pytest.approx(min(rate_hz, 30), rel=0.01, abs=0.011)


def test_a_gap_is_not_made_up_for_by_a_burst() -> None:
    due_s = next_due_s(1.0, 9.0, 0.5)
    assert due_s == pytest.approx(9.5)
