"""What the driver is asked, and what is made of its answers."""

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge_runtime import cuda_device as asked
from edge_runtime.cuda_device import CudaDevice, cuda_device, cuda_device_count
from edge_runtime.errors import BackendError

if TYPE_CHECKING:
    from tests.edge_runtime.engines.stand_in_cuda import Gpu


class Nvml:
    """libnvidia-ml.so.1 of a board with 5 GiB free."""

    def __init__(self, fails_at: str = "") -> None:
        self.fails_at = fails_at
        self.shut_down = False

    def __getattr__(self, name: str) -> Any:
        functions = {
            "nvmlInit_v2": lambda: 0,
            "nvmlDeviceGetHandleByPciBusId_v2": self._handle,
            "nvmlDeviceGetMemoryInfo": self._memory,
            "nvmlShutdown": self._end,
        }
        return (lambda *_: 9) if name == self.fails_at else functions[name]

    def _handle(self, address: bytes, handle: Any) -> int:
        assert address == b"0000:01:00.0"
        handle._obj.value = 42
        return 0

    def _memory(self, handle: Any, memory: Any) -> int:
        assert handle.value == 42
        memory._obj.total, memory._obj.free = 16 << 30, 5 << 30
        return 0

    def _end(self) -> int:
        self.shut_down = True
        return 0


def test_a_jetson_is_described(gpu: "Gpu") -> None:
    assert cuda_device() == CudaDevice(
        name="Orin",
        compute_capability="8.7",
        total_bytes=8 << 30,
        free_bytes=4 << 30,
        integrated=True,
        cuda_driver="12.6",
        driver="540.4.0",
    )


@pytest.mark.parametrize(("number", "version"), [(12060, "12.6"), (13000, "13.0"), (11040, "11.4")])
def test_cuda_versions_are_read_as_cuda_writes_them(gpu: "Gpu", number: int, version: str) -> None:
    gpu.cuda_driver = number
    assert cuda_device().cuda_driver == version
    assert asked.cuda_runtime_version() == version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 2025\n"
            "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n",
            "570.86.15",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n",
            "540.4.0",
        ),
        ("something else", "unknown"),
    ],
)
def test_the_kernel_module_is_found_in_what_it_says(
    gpu: "Gpu", monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, version: str
) -> None:
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(asked, "_KERNEL_MODULE", tmp_path / "version")
    assert cuda_device().driver == version


def test_what_no_file_tells_is_unknown(
    gpu: "Gpu", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(asked, "_KERNEL_MODULE", tmp_path / "absent")
    monkeypatch.setattr(asked, "_MEMORY_INFO", tmp_path / "absent")
    device = cuda_device()
    assert (device.driver, device.free_bytes) == ("unknown", None)


@pytest.mark.parametrize(
    ("fails_at", "free"),
    [("", 5 << 30), ("nvmlInit_v2", None), ("nvmlDeviceGetMemoryInfo", None)],
)
def test_a_boards_free_memory_is_asked_of_nvml(
    gpu: "Gpu", monkeypatch: pytest.MonkeyPatch, fails_at: str, free: int | None
) -> None:
    nvml, before = Nvml(fails_at), asked._library
    monkeypatch.setattr(
        asked, "_library", lambda name: nvml if "nvidia-ml" in name else before(name)
    )
    gpu.integrated = False
    assert cuda_device().free_bytes == free
    assert nvml.shut_down is (fails_at != "nvmlInit_v2")


def test_without_a_driver_there_are_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert cuda_device_count() == 0
    assert asked.cuda_runtime_version() is None
    with pytest.raises(BackendError, match=r"no CUDA device was found .* See skyfix doctor"):
        cuda_device()


def test_a_driver_without_a_device_counts_none(gpu: "Gpu") -> None:
    gpu.count = 0
    assert cuda_device_count() == 0


def test_a_driver_that_refuses_is_named_with_its_error(
    gpu: "Gpu", monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = asked.cuda_driver_library()
    monkeypatch.setattr(type(driver), "cuDeviceTotalMem_v2", lambda *_: 999)
    with pytest.raises(BackendError, match="cuDeviceTotalMem_v2 with error 999"):
        cuda_device()
