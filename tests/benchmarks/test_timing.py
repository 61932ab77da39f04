import time

import pytest

from benchmarks.clock_cost import ClockCost, clock_cost_ns
from benchmarks.stage_times import StageTimes
from benchmarks.timing import TimedCalls, timed_calls, timed_for
from edge_runtime.errors import InputError


class Device:
    """A clock in hand, and a device that works by itself until somebody waits for it."""

    def __init__(self) -> None:
        self.now = 0
        self._busy_until = 0

    def clock_ns(self) -> int:
        return self.now

    def host(self, ms: float) -> None:
        self.now += round(ms * 1e6)

    def launch(self, ms: float) -> None:
        self.host(0.01)
        self._busy_until = max(self.now, self._busy_until) + round(ms * 1e6)

    def synchronise(self) -> None:
        self.now = max(self.now, self._busy_until)


def by_hand(device: Device, ms_of_call: dict[int, float], *, calls: int, warmup: int) -> TimedCalls:
    return timed_calls(
        lambda k: device.host(ms_of_call.get(k, 1.0)),
        calls=calls,
        warmup=warmup,
        clock_ns=device.clock_ns,
    )


def test_work_on_a_device_is_missed_without_synchronising_and_counted_with_it() -> None:
    def timed(*, waits: bool) -> TimedCalls:
        device = Device()
        return timed_calls(
            lambda _: device.launch(8.0),
            calls=5,
            warmup=1,
            synchronise=device.synchronise if waits else None,
            clock_ns=device.clock_ns,
        )

    assert timed(waits=False).calls_ms == (0.01,) * 5
    assert timed(waits=True).calls_ms == (8.01,) * 5


def test_work_from_before_is_not_the_first_calls() -> None:
    device = Device()
    device.launch(500.0)
    timed = timed_calls(
        lambda _: device.launch(1.0),
        calls=1,
        warmup=0,
        synchronise=device.synchronise,
        clock_ns=device.clock_ns,
    )
    assert timed.first_ms == 1.01


def test_a_slow_tail_is_in_p99_and_max_and_not_in_the_median() -> None:
    tail = {10 + 37: 20.0, 10 + 81: 20.0}
    found = by_hand(Device(), tail, calls=100, warmup=10).summary()
    assert (found.p50_ms, found.p90_ms, found.p95_ms) == (1.0, 1.0, 1.0)
    assert (found.p99_ms, found.max_ms, found.n) == (20.0, 20.0, 100)


def test_no_call_is_left_out() -> None:
    timed = by_hand(Device(), {57: 1e6}, calls=100, warmup=0)
    assert len(timed.calls_ms) == 100
    assert timed.summary().max_ms == 1e6
    assert timed.wall_s == pytest.approx(sum(timed.calls_ms) / 1e3)


def test_the_first_call_stands_by_itself() -> None:
    timed = by_hand(Device(), {0: 2000.0}, calls=5, warmup=3)
    assert (timed.first_ms, timed.calls_ms, timed.warmup) == (2000.0, (1.0,) * 5, 3)
    cold = by_hand(Device(), {0: 2000.0}, calls=2, warmup=0)
    assert (cold.first_ms, cold.calls_ms, cold.warmup) == (2000.0, (2000.0, 1.0), 0)


@pytest.mark.parametrize(
    ("warmup", "warmup_s", "made"), [(3, 0.05, 50), (80, 0.05, 80), (0, 0.0105, 11), (4, 0.0, 4)]
)
def test_a_warm_up_has_both_its_calls_and_its_seconds(
    warmup: int, warmup_s: float, made: int
) -> None:
    device = Device()
    seen: list[int] = []

    def call(k: int) -> None:
        seen.append(k)
        device.host(1.0)

    timed = timed_calls(call, calls=2, warmup=warmup, warmup_s=warmup_s, clock_ns=device.clock_ns)
    assert timed.warmup == made
    assert seen == list(range(made + 2))


@pytest.mark.parametrize(("least", "made"), [(1, 20), (35, 35)])
def test_a_duration_ends_when_time_and_number_are_reached(least: int, made: int) -> None:
    device = Device()
    timed = timed_for(
        lambda _: device.host(5.0),
        seconds=0.1,
        least_calls=least,
        warmup=2,
        clock_ns=device.clock_ns,
    )
    assert len(timed.calls_ms) == made
    assert timed.wall_s == pytest.approx(made * 5e-3)


def test_the_call_that_crosses_the_end_counts() -> None:
    device = Device()
    timed = timed_for(
        lambda k: device.host(900.0 if k == 3 else 1.0),
        seconds=0.01,
        warmup=0,
        clock_ns=device.clock_ns,
    )
    assert timed.calls_ms == (1.0, 1.0, 1.0, 900.0)


def test_time_between_calls_lowers_throughput_and_not_latency() -> None:
    device = Device()

    def clock_ns() -> int:
        device.host(0.5)  # Each read is late by half a millisecond.
        return device.now

    found = timed_calls(lambda _: device.host(1.0), calls=10, warmup=0, clock_ns=clock_ns)
    assert found.summary().p50_ms == 1.5
    assert found.summary().throughput_per_s == pytest.approx(10 / (10 * 2.0 - 0.5) * 1e3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"least_calls": 0}, "at least 1"),
        ({"warmup": -1}, "at least 1 after 0 or more"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"warmup_s": -1.0}, "warmup_s is -1.0"),
    ],
)
def test_measuring_nothing_is_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        timed_for(lambda _: None, **{"seconds": 0.0, **options})  # type: ignore[arg-type]


def test_each_stage_has_its_own_device_work() -> None:
    device = Device()
    stages = StageTimes(synchronise=device.synchronise, clock_ns=device.clock_ns)
    device.launch(100.0)  # Not of the call.
    for _ in range(3):
        with stages.call():
            with stages.stage("copy"):
                device.launch(2.0)
            with stages.stage("GPU"):
                device.launch(7.0)
            device.host(0.5)  # Between stages: of the total only.
            with stages.stage("copy"):
                device.launch(1.0)
    found = stages.summaries(warmup=2)
    assert {name: s.p50_ms for name, s in found.items()} == {
        "copy": 3.02,
        "GPU": 7.01,
        "total": pytest.approx(10.53),
    }
    assert (found["GPU"].n, found["GPU"].warmup) == (3, 2)


def test_without_synchronising_the_wait_lands_in_the_wrong_stage() -> None:
    device = Device()
    stages = StageTimes(clock_ns=device.clock_ns)
    with stages.call():
        with stages.stage("GPU"):
            device.launch(7.0)
        with stages.stage("read back"):
            device.synchronise()
    found = stages.summaries()
    assert found["GPU"].p50_ms == 0.01
    assert found["read back"].p50_ms == 7.0


def test_a_stage_that_some_calls_lack_has_fewer_times() -> None:
    device = Device()
    stages = StageTimes(clock_ns=device.clock_ns)
    for k in range(4):
        with stages.call(), stages.stage("refine" if k == 2 else "track"):
            device.host(1.0)
    assert {name: s.n for name, s in stages.summaries().items()} == {
        "track": 3, "refine": 1, "total": 4,
    }  # fmt: skip
    stages.clear()
    with pytest.raises(InputError, match="at least one"):
        stages.summaries()


def test_stages_that_would_be_counted_twice_are_refused() -> None:
    stages = StageTimes()
    with pytest.raises(InputError, match="outside of a call"), stages.stage("a"):
        pass
    within = pytest.raises(InputError, match="within stage 'a'")
    with within, stages.call(), stages.stage("a"), stages.stage("b"):
        pass
    with pytest.raises(InputError, match="one after the other"), stages.call(), stages.call():
        pass
    assert stages.calls_ns == []
    with stages.call(), stages.stage("b"):
        pass
    assert len(stages.calls_ns) == 1


def test_a_call_that_raises_is_not_kept() -> None:
    stages = StageTimes()
    with pytest.raises(ZeroDivisionError), stages.call(), stages.stage("a"):
        raise ZeroDivisionError
    assert (stages.calls_ns, stages.stages_ns) == ([], [])


def test_a_sleep_of_5_ms_is_in_its_stage_and_only_there() -> None:
    stages = StageTimes()
    for _ in range(20):
        with stages.call():
            with stages.stage("capture"):
                pass
            with stages.stage("search"):
                time.sleep(0.005)
            with stages.stage("track"):
                pass
    found = stages.summaries()
    # Medians: a loaded machine may hold up single calls anywhere.
    assert found["search"].percentiles_ms[0] >= 5.0
    assert found["capture"].p50_ms < 1.0
    assert found["track"].p50_ms < 1.0


def test_stages_never_add_up_to_more_than_their_call() -> None:
    stages = StageTimes()
    for k in range(200):
        with stages.call():
            for name in ("a", "b", "c"):
                with stages.stage(name):
                    sum(range(10 * k))
    pairs = list(zip(stages.stages_ns, stages.calls_ns, strict=True))
    assert len(pairs) == 200
    assert all(sum(parts.values()) <= total for parts, total in pairs)


def test_a_real_sleep_is_measured() -> None:
    timed = timed_calls(lambda _: time.sleep(0.002), calls=5, warmup=1)
    assert min(timed.calls_ms) >= 2.0
    assert timed.wall_s >= 0.010


def test_the_clock_costs_what_it_costs() -> None:
    steps = iter([0, 40, 80, 80, 130, 1000])
    assert clock_cost_ns(reads=6, clock_ns=lambda: next(steps)) == ClockCost(
        p50_ns=40.0, p99_ns=870.0, resolution_ns=40
    )


def test_this_machines_clock_is_cheap_enough_to_time_a_millisecond() -> None:
    cost = clock_cost_ns()
    assert 0 <= cost.p50_ns <= 10_000
    assert cost.p50_ns <= cost.p99_ns
    assert 1 <= cost.resolution_ns <= 1_000_000


@pytest.mark.parametrize("times", [[5, 5, 5], [9, 3, 4]])
def test_a_clock_that_stands_or_runs_backwards_is_refused(times: list[int]) -> None:
    reads = iter(times)
    with pytest.raises(InputError, match="expected a monotonic clock"):
        clock_cost_ns(reads=3, clock_ns=lambda: next(reads))


def test_the_clocks_cost_is_said_only_where_it_matters() -> None:
    cost = ClockCost(p50_ns=50.0, p99_ns=90.0, resolution_ns=10)
    assert cost.note(0.0051) == ""
    assert "takes 50 ns (p99 90, steps of 10)" in cost.note(0.0049)
    coarse = ClockCost(p50_ns=0.0, p99_ns=15e6, resolution_ns=15_000_000)
    assert coarse.note(20.0)
