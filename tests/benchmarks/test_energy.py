"""Meters on made-up machines: known integrals, counters that run over, and why there is none."""

import ctypes
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.energy import rapl
from benchmarks.energy.ina3221 import open_ina3221
from benchmarks.energy.meter import measured, open_meter
from benchmarks.energy.nvml import NvmlCounter, open_nvml
from benchmarks.energy.power_sampling import Consumed, Repeater, SampledPower, joules_of
from benchmarks.energy.rapl import RaplMeter, open_rapl
from edge_runtime.errors import InputError

NEVER_S = 1e4
"""Between samples, so that only those at both ends are taken: nothing depends on the clock."""


def ticking(*times_s: float) -> Callable[[], float]:
    left: Iterator[float] = iter(times_s)
    return lambda: next(left)


def package(root: Path, zone: str, *, name: str, uj: int, most: int = 1000) -> Path:
    folder = root / "sys/class/powercap" / zone
    folder.mkdir(parents=True)
    for file, value in (("name", name), ("energy_uj", uj), ("max_energy_range_uj", most)):
        (folder / file).write_text(f"{value}\n")
    return folder


def monitor(root: Path, number: int, rails: dict[str, tuple[int, int]], chip: str) -> Path:
    folder = root / f"sys/class/hwmon/hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{chip}\n")
    for k, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        (folder / f"in{k}_label").write_text(f"{label}\n")
        (folder / f"in{k}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{k}_input").write_text(f"{milliamperes}\n")
    return folder


class FakeNvml:
    """As libnvidia-ml answers, with a GPU that may lack a counter or both."""

    def __init__(self, *, millijoules: int | None, milliwatts: int | None) -> None:
        self.millijoules, self.milliwatts = millijoules, milliwatts
        self.asked: list[Any] = []
        self.nvmlErrorString = self._explain

    @staticmethod
    def _explain(code: int) -> bytes:
        return {3: b"Not Supported", 9: b"Driver Not Loaded"}[code]

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, handle: Any) -> int:  # noqa: N802
        self.asked.append(index.value)
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        self.asked.append(uuid)
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, value: Any) -> int:  # noqa: N802
        return self._give(self.millijoules, value)

    def nvmlDeviceGetPowerUsage(self, handle: Any, value: Any) -> int:  # noqa: N802
        return self._give(self.milliwatts, value)

    @staticmethod
    def _give(number: int | None, value: Any) -> int:
        if number is None:
            return 3
        value._obj.value = number
        return 0


class FakeMeter:
    """Gives what it is told to, one after the other; an error is raised at its stop."""

    source, least_s = "made up", 1.0

    def __init__(self, *answers: Consumed | OSError) -> None:
        self.answers = list(answers)
        self.running = False

    def start(self) -> None:
        assert not self.running
        self.running = True

    def stop(self) -> Consumed:
        self.running = False
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


def test_the_integral_of_a_ramp_is_exact_whatever_the_steps() -> None:
    """From 10 W, 4 W more every second, for 3 s: 10 * 3 + 4 * 3**2 / 2."""
    times_s = [0.0, 0.1, 0.75, 2.0, 3.0]
    assert joules_of(times_s, [10 + 4 * t for t in times_s]) == pytest.approx(48.0)


def test_sampled_power_is_integrated_between_start_and_stop() -> None:
    watts = ticking(5.0, 15.0, 7.0, 7.0)
    meter = SampledPower(watts, source="s", every_s=NEVER_S, clock_s=ticking(1.0, 3.0, 4.0, 5.0))
    meter.start()
    assert meter.stop() == Consumed(joules=20.0, seconds=2.0)
    meter.start()
    assert meter.stop() == Consumed(joules=7.0, seconds=1.0)


def test_power_is_sampled_while_the_calls_run() -> None:
    seen = threading.Semaphore(0)

    def watts() -> float:
        seen.release()
        return 8.0

    meter = SampledPower(watts, source="s", every_s=0.001)
    meter.start()
    for _ in range(5):
        assert seen.acquire(timeout=30)
    found = meter.stop()
    assert found.watts == pytest.approx(8.0)
    assert not [thread for thread in threading.enumerate() if thread.name == "energy"]


def test_a_sensor_that_fails_in_between_spoils_the_measurement() -> None:
    failed = threading.Event()
    answers = iter([1.0])

    def watts() -> float:
        try:
            return next(answers)
        except StopIteration:
            failed.set()
            raise OSError("the sensor went away") from None

    meter = SampledPower(watts, source="s", every_s=0.001)
    meter.start()
    assert failed.wait(30)
    with pytest.raises(OSError, match="the sensor went away"):
        meter.stop()


def test_a_meter_is_started_before_it_is_stopped() -> None:
    with pytest.raises(InputError, match="stopped before it was started"):
        Repeater(lambda: None, every_s=1.0).stop()


def test_rapl_adds_its_packages_and_counts_over_the_end_of_their_range(tmp_path: Path) -> None:
    first = package(tmp_path, "intel-rapl:0", name="package-0", uj=900_000, most=1_000_000)
    second = package(tmp_path, "intel-rapl:1", name="package-1", uj=100_000, most=1_000_000)
    package(tmp_path, "intel-rapl:0:0", name="core", uj=1)
    package(tmp_path, "intel-rapl:2", name="psys", uj=1)
    meter = open_rapl(tmp_path)
    assert isinstance(meter, RaplMeter)
    assert meter.source == "RAPL package-0 + package-1"
    meter = RaplMeter([first, second], every_s=NEVER_S, clock_s=ticking(10.0, 12.0))
    meter.start()
    (first / "energy_uj").write_text("50000\n")
    (second / "energy_uj").write_text("350000\n")
    found = meter.stop()
    assert found.joules == pytest.approx(0.15 + 0.25)
    assert found.seconds == 2.0
    assert found.watts == pytest.approx(0.2)


def test_rapl_counts_a_range_that_was_used_up_more_than_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three quarters of the range every reading: the last alone would look like a quarter less."""
    zone = package(tmp_path, "intel-rapl:0", name="package-0", uj=0, most=1_000_000)
    reads = threading.Semaphore(0)
    state = {"uj": -750_000}

    def read(path: Path) -> str:
        if path.name != "energy_uj":
            return path.read_text().strip()
        state["uj"] += 750_000
        reads.release()
        return str(state["uj"] % 1_000_000)

    monkeypatch.setattr(rapl, "_read", read)
    meter = RaplMeter([zone], every_s=0.001)
    before = state["uj"] + 750_000  # As the first reading of start finds it.
    meter.start()
    for _ in range(6):
        assert reads.acquire(timeout=30)
    assert meter.stop().joules == pytest.approx((state["uj"] - before) / 1e6)


def test_a_machine_without_rapl_says_so(tmp_path: Path) -> None:
    assert "modprobe intel_rapl_msr" in str(open_meter("cpu", tmp_path))


def test_rapl_for_root_alone_names_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, whom file modes do not stop."""
    package(tmp_path, "intel-rapl:0", name="package-0", uj=1)

    def read(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError
        return path.read_text().strip()

    monkeypatch.setattr(rapl, "_read", read)
    assert f"sudo chmod a+r {tmp_path}/sys/class/powercap" in str(open_rapl(tmp_path))


def test_rapl_files_without_numbers_are_a_reason(tmp_path: Path) -> None:
    zone = package(tmp_path, "intel-rapl:0", name="package-0", uj=1)
    (zone / "energy_uj").write_text("nothing\n")
    assert "cannot be read" in str(open_rapl(tmp_path))


def test_a_jetsons_input_rail_is_taken_for_cpu_and_gpu_alike(tmp_path: Path) -> None:
    monitor(tmp_path, 0, {"SOMETHING": (1, 1)}, "tmp451")
    rails = {"VDD_IN": (5000, 1200), "VDD_CPU_GPU_CV": (5000, 400), "VDD_SOC": (5000, 300)}
    monitor(tmp_path, 1, rails, "ina3221")
    for meter in (open_meter("cpu", tmp_path), open_meter("gpu", tmp_path)):
        assert isinstance(meter, SampledPower)
        assert meter.source == "INA3221 VDD_IN"
        meter.start()
        assert meter.stop().watts == pytest.approx(6.0)


def test_an_agx_orin_has_no_input_rail_so_its_three_are_added(tmp_path: Path) -> None:
    rails = {"VDD_GPU_SOC": (19000, 200), "VDD_CPU_CV": (19000, 100), "VIN_SYS_5V0": (5000, 700)}
    monitor(tmp_path, 3, rails, "ina3221")
    monitor(tmp_path, 4, {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (5000, 100)}, "ina3221")
    meter = open_ina3221(tmp_path)
    assert meter is not None
    assert meter.source == "INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    meter.start()
    assert meter.stop().watts == pytest.approx(3.8 + 1.9 + 3.5)


def test_monitors_without_known_or_readable_rails_are_none(tmp_path: Path) -> None:
    assert open_ina3221(tmp_path) is None
    folder = monitor(tmp_path, 0, {"VDD_IN": (5000, 1000)}, "ina3221")
    (folder / "curr1_input").unlink()
    assert open_ina3221(tmp_path) is None


def test_a_gpu_with_a_counter_is_read_at_both_ends() -> None:
    library = FakeNvml(millijoules=500_000, milliwatts=1)
    meter = open_nvml(library, "1")
    assert isinstance(meter, NvmlCounter)
    assert (meter.source, library.asked) == ("NVML GPU 1, energy counter", [1])
    timed = NvmlCounter(ticking(500.0, 530.0), source="gpu", clock_s=ticking(2.0, 5.0))
    timed.start()
    assert timed.stop() == Consumed(joules=30.0, seconds=3.0)
    meter.start()
    library.millijoules = 530_000
    assert meter.stop().joules == pytest.approx(30.0)


def test_a_gpu_without_a_counter_is_sampled() -> None:
    meter = open_nvml(FakeNvml(millijoules=None, milliwatts=42_000), "GPU-1234")
    assert isinstance(meter, SampledPower)
    assert meter.source == "NVML GPU GPU-1234, sampled power"
    meter.start()
    assert meter.stop().watts == pytest.approx(42.0)


def test_a_gpu_that_gives_nothing_says_so() -> None:
    reason = open_nvml(FakeNvml(millijoules=None, milliwatts=None), "0")
    assert reason == (
        "NVML GPU 0 gives neither energy nor power (nvmlDeviceGetPowerUsage: Not Supported)"
    )


def test_the_gpu_that_cuda_would_take_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml(millijoules=1, milliwatts=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    open_nvml(library)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-9f")
    open_nvml(library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    open_nvml(library)
    assert library.asked == [3, b"GPU-9f", 0]


def test_a_missing_driver_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = FakeNvml(millijoules=1, milliwatts=1)
    monkeypatch.setattr(library, "nvmlInit_v2", lambda: 9)
    assert "Driver Not Loaded" in str(open_nvml(library, "0"))

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    reason = open_meter("gpu", tmp_path)
    assert isinstance(reason, str)
    assert "libnvidia-ml.so.1: cannot open" in reason
    assert "nvidia-smi" in reason


def test_idle_power_is_measured_before_the_calls_and_not_subtracted() -> None:
    meter = FakeMeter(Consumed(joules=30.0, seconds=3.0), Consumed(joules=100.0, seconds=4.0))
    slept: list[float] = []
    done: list[bool] = []

    def calls() -> int:
        done.append(meter.running)
        return 50

    energy = measured(meter, calls, idle_s=0.2, sleep=slept.append)
    assert (slept, done) == ([1.0], [True])  # As long as the meter needs.
    assert energy.source == "made up"
    assert (energy.idle_watts, energy.watts, energy.joules_per_call) == (10.0, 25.0, 2.0)
    assert energy.skipped == ""


@pytest.mark.parametrize(
    ("meter", "made", "reason"),
    [
        pytest.param("no meter here", 5, "no meter here", id="no meter"),
        pytest.param(
            FakeMeter(Consumed(1.0, 2.0), Consumed(1.0, 0.25)),
            5,
            "5 calls took 0.25 s; made up needs at least 1.0 s",
            id="too short",
        ),
        pytest.param(FakeMeter(Consumed(1.0, 2.0), Consumed(1.0, 2.0)), 0, "0 calls", id="no call"),
        pytest.param(
            FakeMeter(Consumed(1.0, 2.0), OSError("gone")), 5, "could not be read", id="fails late"
        ),
        pytest.param(FakeMeter(OSError("gone")), 5, "could not be read", id="fails early"),
    ],
)
def test_what_could_not_be_measured_has_its_reason_and_no_number(
    meter: FakeMeter | str, made: int, reason: str
) -> None:
    energy = measured(meter, lambda: made, sleep=lambda _: None)
    assert reason in energy.skipped
    assert (energy.source, energy.watts, energy.idle_watts, energy.joules_per_call) == (
        "",
        None,
        None,
        None,
    )


def test_calls_that_fail_are_no_failure_of_the_meter() -> None:
    meter = FakeMeter(Consumed(1.0, 2.0), Consumed(1.0, 2.0))

    def calls() -> int:
        raise InputError("the encoder cannot run")

    with pytest.raises(InputError, match="the encoder cannot run"):
        measured(meter, calls, sleep=lambda _: None)
    assert not meter.running
