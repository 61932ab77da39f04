import math
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import memory_use
from benchmarks.memory_use import (
    MemoryWatch,
    forget_peak,
    in_child,
    process_gpu_mib,
    resident_mib,
    whole_gpu_mib,
)
from edge_runtime.errors import BackendError, InputError

MIB = 1 << 20


def filled(mib: int) -> np.ndarray:
    return np.ones(mib * MIB, np.uint8)


def nothing() -> None:
    return None


def watch(process: Path = Path("/proc/self")) -> MemoryWatch:
    return MemoryWatch(process=process, of_process=nothing, of_gpu=nothing)


def process_folder(folder: Path, *, now_kib: int, peak_kib: int) -> Path:
    (folder / "status").write_text(
        f"Name:\tpython\nVmHWM:\t{peak_kib:8} kB\nVmRSS:\t{now_kib:8} kB\nThreads:\t1\n"
    )
    return folder


def test_memory_that_was_given_back_is_in_the_peak() -> None:
    watched = watch()
    # Given back for certain: what malloc takes it may keep.
    with mmap.mmap(-1, 96 * MIB) as room:
        for page in range(0, len(room), mmap.PAGESIZE):
            room[page] = 1
    found = watched.memory()
    assert found.host_peak_mib >= found.host_before_mib + 95
    assert resident_mib("VmRSS") < found.host_before_mib + 60
    assert watched.is_exact


def test_what_came_before_is_not_charged() -> None:
    array = filled(96)
    del array
    if not forget_peak():
        pytest.skip("this system does not let a process forget its peak")
    watched = watch()
    small = filled(8)
    found = watched.memory()
    del small
    assert found.host_peak_mib < found.host_before_mib + 60


def test_where_a_peak_stays_it_is_said(tmp_path: Path) -> None:
    process = process_folder(tmp_path, now_kib=51_200, peak_kib=204_800)
    (process / "clear_refs").mkdir()  # What refuses to be written.
    watched = watch(process)
    assert not watched.is_exact
    process_folder(tmp_path, now_kib=102_400, peak_kib=204_800)
    assert not watched.is_exact
    process_folder(tmp_path, now_kib=102_400, peak_kib=307_200)
    assert watched.is_exact
    found = watched.memory()
    assert (found.host_before_mib, found.host_peak_mib, found.gpu_peak_mib) == (50.0, 300.0, None)


def test_a_system_that_takes_the_number_and_does_nothing_is_seen(tmp_path: Path) -> None:
    assert not forget_peak(process_folder(tmp_path, now_kib=51_200, peak_kib=204_800))
    assert (tmp_path / "clear_refs").read_text() == "5"
    assert forget_peak(process_folder(tmp_path, now_kib=51_200, peak_kib=51_200))


def test_a_system_without_proc_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not tell VmRSS; expected Linux"):
        resident_mib("VmRSS", tmp_path)


def test_a_child_is_another_process_and_its_errors_arrive() -> None:
    assert in_child(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match=r"domain|nonnegative"):
        in_child(math.sqrt, -1.0)


def test_a_child_begins_with_little_memory() -> None:
    array = filled(256)
    assert in_child(resident_mib, "VmHWM") < resident_mib("VmRSS") - 128
    del array


def test_a_killed_child_is_named() -> None:
    with pytest.raises(BackendError, match="was killed, as by a lack of memory"):
        in_child(os._exit, 1)


def values(*numbers: float | None) -> Callable[[], float | None]:
    given = iter(numbers)
    return lambda: next(given)


def test_the_gpus_peak_is_the_highest_look() -> None:
    watched = MemoryWatch(of_process=values(None, 700.0, 500.0), of_gpu=values(900.0, 900.0))
    watched.look()
    assert watched.memory().gpu_peak_mib == 700.0


def test_without_numbers_of_processes_the_growth_of_the_gpu_counts() -> None:
    watched = MemoryWatch(of_process=nothing, of_gpu=values(900.0, 900.0, 1500.0, 1400.0))
    watched.look()
    assert watched.memory().gpu_peak_mib == 600.0


def test_without_a_gpu_nobody_is_asked() -> None:
    def asked() -> float | None:
        raise AssertionError

    assert MemoryWatch(of_process=asked, of_gpu=nothing).memory().gpu_peak_mib is None


class Nvml:
    """Two GPUs; this process is on both."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, used: int | None = 300 * MIB, broken: str = "") -> None:
        self.used, self.broken, self.open = used, broken, 0

    def nvmlInit(self) -> None:  # noqa: N802 - its name in NVML
        if self.broken == "init":
            raise self.NVMLError
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[SimpleNamespace]:  # noqa: N802
        if self.broken == "processes":
            raise self.NVMLError
        return [
            SimpleNamespace(pid=os.getpid(), usedGpuMemory=self.used),
            SimpleNamespace(pid=os.getpid() + 1, usedGpuMemory=5000 * MIB),
        ]


@pytest.mark.parametrize(
    ("nvml", "expected"),
    [
        (Nvml(), 600.0),
        (Nvml(used=None), None),
        (Nvml(used=0), None),
        (Nvml(broken="init"), None),
        (Nvml(broken="processes"), None),
    ],
)
def test_nvml_is_asked_for_this_process_and_closed(
    nvml: Nvml, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert process_gpu_mib() == expected
    assert nvml.open == 0


def test_without_nvml_the_drivers_program_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    told = f"{os.getpid()}, 412\n{os.getpid() + 1}, 7000\n{os.getpid()}, [N/A]\n"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(memory_use, "output_of", lambda *_: told)
    assert process_gpu_mib() == 412.0
    monkeypatch.setattr(memory_use, "output_of", lambda *_: "")
    assert process_gpu_mib() is None


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ({"free_bytes": 3 << 30, "integrated": False}, 1024.0),
        ({"free_bytes": None, "integrated": False}, None),
        ({"free_bytes": 3 << 30, "integrated": True}, None),
    ],
)
def test_a_boards_memory_in_use_is_what_is_not_free(
    device: dict[str, object], expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_use, "cuda_device_count", lambda: 1)
    found = SimpleNamespace(total_bytes=4 << 30, **device)
    monkeypatch.setattr(memory_use, "cuda_device", lambda: found)
    assert whole_gpu_mib() == expected
