import json
import os
import platform
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import machine as machine_module
from benchmarks.machine import WorkWatch, clocks_mhz, machine, power_mode, temperatures_c


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What programs print, by what is in their command line; others are missing."""
    answers: dict[str, str] = {}

    def output_of(*command: str) -> str:
        line = " ".join(command)
        return next((text for key, text in answers.items() if key in line), "")

    monkeypatch.setattr(machine_module, "output_of", output_of)
    return answers


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_this_machine_can_be_described_and_written() -> None:
    found = machine()
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.memory_mib > 256
    assert found.cpu
    assert found.system.startswith("Linux ")
    assert found.python == platform.python_version()
    assert "numpy" in found.libraries
    assert json.loads(json.dumps(asdict(found)))["load_1min"] >= 0


def test_a_boards_clocks_are_those_of_its_cores_and_its_gpu(
    tmp_path: Path, told: dict[str, str]
) -> None:
    """As a Jetson shows them: kHz for cores, Hz for the GPU; a core that is off cannot be read."""
    write(
        tmp_path,
        {
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "729600\n",
            "sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq": "",
            "sys/class/devfreq/17000000.gpu/cur_freq": "918000000\n",
            "sys/class/devfreq/3d00000.mc/cur_freq": "1\n",
        },
    )
    assert clocks_mhz(tmp_path) == {"cpu": 1120.0, "gpu": 918.0}
    told["clocks.sm"] = "[N/A], [N/A]"
    assert clocks_mhz(tmp_path)["gpu"] == 918.0


def test_a_desktops_clocks_are_those_of_cpuinfo_and_the_driver(
    tmp_path: Path, told: dict[str, str]
) -> None:
    write(tmp_path, {"proc/cpuinfo": "cpu MHz\t\t: 2000.0\nflags: a\ncpu MHz\t\t: 3000.0\n"})
    told["clocks.sm"] = "1980, 2619\n1200, 2619"
    assert clocks_mhz(tmp_path) == {"cpu": 2500.0, "gpu": 1980.0, "memory": 2619.0}
    assert clocks_mhz(tmp_path / "nothing") == {"gpu": 1980.0, "memory": 2619.0}


def test_temperatures_are_by_sensor_and_broken_ones_are_left_out(
    tmp_path: Path, told: dict[str, str]
) -> None:
    zone = "sys/class/thermal/thermal_zone"
    write(
        tmp_path,
        {
            f"{zone}0/type": "cpu-thermal\n", f"{zone}0/temp": "47312\n",
            f"{zone}1/type": "cv0-thermal\n", f"{zone}1/temp": "",
            f"{zone}2/temp": "40000\n",
        },
    )  # fmt: skip
    assert temperatures_c(tmp_path) == {"cpu-thermal": 47.312}
    told["temperature.gpu"] = "61"
    assert temperatures_c(tmp_path) == {"cpu-thermal": 47.312, "gpu": 61.0}


def test_a_jetsons_power_mode_comes_before_a_governor(tmp_path: Path, told: dict[str, str]) -> None:
    assert power_mode(tmp_path) is None
    write(tmp_path, {"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n"})
    assert power_mode(tmp_path) == "schedutil"
    told["nvpmodel"] = "NV Power Mode: MAXN_SUPER\n2"
    assert power_mode(tmp_path) == "MAXN_SUPER"


def test_load_is_from_before_the_work_and_the_clocks_are_from_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Afterwards the work itself would be in the load, and an idle machine's clocks are low."""
    before = replace(machine(), load_1min=-1.0, clocks_mhz={"cpu": -1.0}, temperatures_c={"x": 1.0})
    monkeypatch.setattr("benchmarks.machine.machine", lambda: before)
    work = WorkWatch()
    monkeypatch.setattr("benchmarks.machine.OtherPrograms.cores", lambda _: 0.12345)
    after = work.machine()
    assert after.load_1min == -1.0
    assert after.others_cores == 0.123
    assert after.clocks_mhz == clocks_mhz()
    assert "x" not in after.temperatures_c
