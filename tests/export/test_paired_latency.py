"""Timing in turns: the ratio, its spread, and who goes first."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from export.paired_latency import paired_latency, summarise


class ToldClock:
    """Passes while a call works, by as much as the test says."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def work(self, took_s: Callable[[], float]) -> Callable[[], None]:
        def call() -> None:
            self.now_s += took_s()

        return call


def test_what_is_timed_is_the_call() -> None:
    found = paired_latency(
        lambda: time.sleep(0.002), lambda: time.sleep(0.004), threads=1, rounds=8, max_rounds=8
    )
    assert found.base_ms >= 2
    assert found.other_ms >= 4


def test_the_slower_one_is_found_with_its_factor() -> None:
    rng, clock = np.random.default_rng(1), ToldClock()
    base, other = (
        clock.work(lambda least=least: least + rng.exponential(0.0002))  # type: ignore[misc]
        for least in (0.002, 0.006)
    )
    found = paired_latency(base, other, threads=1, rounds=16, max_rounds=16, clock=clock)
    assert found.ratio == pytest.approx(3, rel=0.1)
    assert found.ratio_low <= found.ratio <= found.ratio_high
    assert found.ratio_low > 1
    assert (found.rounds, found.threads) == (16, 1)


def test_both_take_turns_in_going_first() -> None:
    calls: list[str] = []
    paired_latency(lambda: calls.append("base"), lambda: calls.append("other"), threads=1, rounds=8)
    timed = calls[-16:]
    firsts = timed[::2]
    assert firsts == ["other", "base"] * 4
    assert calls.count("base") == calls.count("other")


def test_a_busy_machine_is_asked_more_often() -> None:
    rng, clock = np.random.default_rng(2), ToldClock()
    erratic = clock.work(lambda: rng.uniform(0.0001, 0.002))
    found = paired_latency(erratic, erratic, threads=1, rounds=8, max_rounds=32, clock=clock)
    assert found.rounds == 32
    steady = clock.work(lambda: rng.normal(0.005, 0.0001))
    found = paired_latency(steady, steady, threads=1, rounds=8, max_rounds=512, clock=clock)
    assert found.rounds < 512
    assert found.ratio == pytest.approx(1, abs=0.03)


def test_a_machine_that_slows_down_slows_both() -> None:
    """A drift of ten between the first and the last round leaves the ratio as it is."""
    drift = np.linspace(1, 10, 60)
    found = summarise(np.stack([drift, 0.7 * drift], axis=1) / 1e3, threads=2)
    assert found.ratio == found.ratio_low == found.ratio_high == pytest.approx(0.7)
    assert found.base_ms == pytest.approx(5.5)


def test_the_interval_holds_the_true_median_about_95_times_in_100() -> None:
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        took = np.stack([np.ones(60), rng.lognormal(np.log(0.8), 0.3, 60)], axis=1)
        found = summarise(took, threads=1)
        held += found.ratio_low <= 0.8 <= found.ratio_high
    assert 0.93 <= held / 400 <= 0.995
