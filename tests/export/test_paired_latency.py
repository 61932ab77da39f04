"""Timing in turns: the ratio, its spread, and who goes first."""

import time

import numpy as np
import pytest

from export.paired_latency import paired_latency, summarise


def test_the_slower_one_is_found_with_its_factor() -> None:
    found = paired_latency(
        lambda: time.sleep(0.002), lambda: time.sleep(0.006), threads=1, rounds=16, max_rounds=16
    )
    assert found.ratio == pytest.approx(3, rel=0.4)
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
    rng = np.random.default_rng(2)
    calls: list[float] = []

    def erratic() -> None:
        calls.append(rng.uniform(0.0, 0.002))
        time.sleep(calls[-1])

    found = paired_latency(erratic, erratic, threads=1, rounds=8, max_rounds=32)
    assert found.rounds == 32
    steady = paired_latency(
        lambda: time.sleep(0.005), lambda: time.sleep(0.005), threads=1, rounds=8, max_rounds=512
    )
    assert steady.rounds < 512
    assert steady.ratio == pytest.approx(1, abs=0.1)


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
