import math

import numpy as np
import pytest

from benchmarks.time_summary import time_summary
from edge_runtime.errors import InputError


def test_percentiles_are_times_that_were_measured() -> None:
    times = np.random.default_rng(3).lognormal(size=337)
    found = time_summary(times.tolist())
    ordered = sorted(times.tolist())
    for percent in (1, 37, 50, 90, 95, 99, 100):
        # Slow and obvious: the smallest time that at least so many do not exceed.
        wanted = next(
            t for t in ordered if sum(o <= t for o in ordered) >= percent / 100 * len(ordered)
        )
        assert found.percentiles_ms[percent] == wanted
    assert found.percentiles_ms[0] == ordered[0]
    named = (found.p50_ms, found.p90_ms, found.p95_ms, found.p99_ms, found.max_ms)
    assert named == tuple(found.percentiles_ms[k] for k in (50, 90, 95, 99, 100))


def test_nothing_is_clipped() -> None:
    found = time_summary([1.0] * 999 + [1e9])
    assert (found.n, found.max_ms, found.p99_ms) == (1000, 1e9, 1.0)
    assert found.mean_ms == pytest.approx((999 + 1e9) / 1000)


def test_two_of_a_hundred_are_in_p99_and_not_in_the_median() -> None:
    found = time_summary([*[1.0] * 49, 20.0, *[1.0] * 49, 20.0])
    assert (found.p50_ms, found.p95_ms, found.p99_ms, found.max_ms) == (1.0, 1.0, 20.0, 20.0)


def test_a_machine_that_gets_slower_drifts() -> None:
    warm = [1.0] * 25 + [1.2] * 50 + [1.5] * 25
    assert time_summary(warm).drift == 1.5
    assert time_summary(warm[::-1]).drift == pytest.approx(1 / 1.5)
    assert time_summary([1.0, 2.0] * 40).drift == 1.0
    assert time_summary([1.0] * 19).drift is None
    assert time_summary([1.0] * 20).drift == 1.0


def test_jitter_is_from_call_to_call_and_not_the_spread() -> None:
    slow_rise = np.linspace(1.0, 2.0, 101).tolist()
    assert time_summary(slow_rise).jitter_ms == pytest.approx(0.01)
    assert time_summary([1.0, 2.0] * 50).jitter_ms == 1.0
    assert time_summary([5.0]).jitter_ms == 0.0


def test_a_deadline_is_missed_by_what_takes_longer() -> None:
    found = time_summary([9.0, 10.0, 10.1, 50.0], deadline_ms=10.0)
    assert (found.deadline_misses, found.deadline_ms) == (2, 10.0)
    assert time_summary([9.0, 50.0]).deadline_misses == 0


def test_throughput_counts_items_over_the_time_that_passed() -> None:
    assert time_summary([4.0] * 10, items_per_call=8).throughput_per_s == pytest.approx(2000)
    assert time_summary([4.0] * 10, wall_s=0.05).throughput_per_s == pytest.approx(200)


def test_the_first_call_and_the_warm_up_are_kept_beside() -> None:
    found = time_summary([1.0, 1.0], warmup=7, first_ms=300.0)
    assert (found.n, found.warmup, found.first_ms, found.max_ms) == (2, 7, 300.0, 1.0)


@pytest.mark.parametrize("times", [[], [1.0, math.nan], [1.0, math.inf], [-0.1]])
def test_times_that_are_none_are_refused(times: list[float]) -> None:
    with pytest.raises(InputError, match="expected at least one, none below 0 ms"):
        time_summary(times)
