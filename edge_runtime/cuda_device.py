"""What the CUDA driver says of this machine, asked without making a CUDA context.

TensorRT without a GPU crashes the process on first use, so a device count comes before any object
of it. The functions of the driver and of NVML are those of their C interfaces (CUDA Driver API,
`cuda.h`; NVML, `nvml.h`). Not run on a GPU yet; tested against a stand-in for the driver.
"""

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import BackendError

CudaLibrary = Any
"""A loaded C library: its functions are looked up by name."""

# CUdevice_attribute of cuda.h.
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76
_INTEGRATED = 18

_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_MEMORY_INFO = Path("/proc/meminfo")


@dataclass(frozen=True, kw_only=True)
class CudaDevice:
    """The first CUDA device this process may use."""

    name: str
    """As the driver names it: "Orin", "NVIDIA H200"."""
    compute_capability: str
    """Such as "8.7"."""
    total_bytes: int
    """Its memory; on a Jetson this is the whole machine's."""
    free_bytes: int | None
    """Of it, free now; None where nothing says so without a CUDA context."""
    integrated: bool
    """Whether it shares the machine's memory, as on a Jetson."""
    cuda_driver: str
    """Newest CUDA the driver can run, such as "12.6"."""
    driver: str
    """Version of the NVIDIA kernel module, such as "540.4.0"; "unknown" where none is told."""


def cuda_device_count() -> int:
    """CUDA devices the driver reports; 0 without a driver. Makes no CUDA context."""
    driver = cuda_driver_library()
    count = ctypes.c_int(0)
    if driver is None or driver.cuInit(0) != 0:
        return 0
    return count.value if driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def cuda_device() -> CudaDevice:
    """Describe the first device. Makes no CUDA context.

    Raises:
        BackendError: no driver, no device, or the driver refuses to answer.
    """
    driver = cuda_driver_library()
    if driver is None or cuda_device_count() == 0:
        msg = (
            "no CUDA device was found (driver missing or no GPU); an engine is built and run on "
            "the machine with the GPU. See skyfix doctor"
        )
        raise BackendError(msg)
    handle, number = ctypes.c_int(0), ctypes.c_int(0)
    total = ctypes.c_size_t(0)
    text = ctypes.create_string_buffer(256)
    _checked(driver, "cuDeviceGet", ctypes.byref(handle), 0)
    _checked(driver, "cuDeviceGetName", text, len(text), handle)
    _checked(driver, "cuDeviceTotalMem_v2", ctypes.byref(total), handle)
    attributes = []
    for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR, _INTEGRATED):
        _checked(driver, "cuDeviceGetAttribute", ctypes.byref(number), attribute, handle)
        attributes.append(number.value)
    major, minor, integrated = attributes
    _checked(driver, "cuDriverGetVersion", ctypes.byref(number))
    address = ctypes.create_string_buffer(64)
    _checked(driver, "cuDeviceGetPCIBusId", address, len(address), handle)
    return CudaDevice(
        name=text.value.decode(errors="replace"),
        compute_capability=f"{major}.{minor}",
        total_bytes=total.value,
        free_bytes=_free_of_machine() if integrated else _free_of_board(address.value),
        integrated=bool(integrated),
        cuda_driver=_cuda_version(number.value),
        driver=_kernel_module(),
    )


def cuda_runtime_version() -> str | None:
    """Version of the CUDA runtime library this process would load; None if there is none."""
    for name in ("libcudart.so.13", "libcudart.so.12", "libcudart.so"):
        runtime = _library(name)
        number = ctypes.c_int(0)
        if runtime is not None and runtime.cudaRuntimeGetVersion(ctypes.byref(number)) == 0:
            return _cuda_version(number.value)
    return None


def cuda_driver_library() -> CudaLibrary | None:
    """The driver's library, or None where there is none."""
    return _library("libcuda.so.1")


def _library(name: str) -> CudaLibrary | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _checked(driver: CudaLibrary, function: str, *arguments: Any) -> None:
    status = getattr(driver, function)(*arguments)
    if status != 0:
        msg = (
            f"the CUDA driver answers {function} with error {status}; restart the machine or "
            "install its driver again, then see skyfix doctor"
        )
        raise BackendError(msg)


def _cuda_version(number: int) -> str:
    """CUDA counts 1000 a major and 10 a minor version."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _kernel_module() -> str:
    try:
        text = _KERNEL_MODULE.read_text(errors="replace")
    except OSError:
        return "unknown"
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return found[0] if found else "unknown"


def _free_of_machine() -> int | None:
    """Bytes a process could take of the machine's memory, as the kernel estimates."""
    try:
        text = _MEMORY_INFO.read_text()
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


class _NvmlMemory(ctypes.Structure):
    """`nvmlMemory_t`, bytes."""

    _fields_ = [
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    ]


def _free_of_board(pci_address: bytes) -> int | None:
    """Free bytes of a board with memory of its own, through NVML: CUDA needs a context for it."""
    nvml = _library("libnvidia-ml.so.1")
    if nvml is None or nvml.nvmlInit_v2() != 0:
        return None
    try:
        handle, memory = ctypes.c_void_p(None), _NvmlMemory()
        if nvml.nvmlDeviceGetHandleByPciBusId_v2(pci_address, ctypes.byref(handle)) != 0:
            return None
        if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0:
            return None
        return int(memory.free)
    finally:
        nvml.nvmlShutdown()
