"""Energy of an NVIDIA GPU's board by NVML, which comes with the driver.

From Volta on GPUs count their energy themselves, in millijoules since the driver was loaded; others
give power, which is sampled. Both move every 20 to 100 ms (NVML API reference, device queries).
"""

import ctypes
import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks.energy.power_sampling import Consumed, SampledPower

_LIBRARY = "libnvidia-ml.so.1"
_EVERY_S = 0.05
_LEAST_S = 2.0


class Nvml:
    """The few calls that are needed, of one GPU."""

    def __init__(self, library: Any, gpu: str = "0") -> None:
        """Open the GPU.

        Args:
            library: libnvidia-ml, loaded by ctypes.
            gpu: its number in NVML's order, or its UUID.

        Raises:
            OSError: NVML refuses.
        """
        self._library = library
        self._handle = ctypes.c_void_p()
        self._ask("nvmlInit_v2")
        if gpu.isdigit():
            found = ctypes.c_uint(int(gpu)), ctypes.byref(self._handle)
            self._ask("nvmlDeviceGetHandleByIndex_v2", *found)
        else:
            self._ask("nvmlDeviceGetHandleByUUID", gpu.encode(), ctypes.byref(self._handle))

    def joules(self) -> float:
        """Since the driver was loaded.

        Raises:
            OSError: not supported by this GPU.
        """
        value = ctypes.c_ulonglong()
        self._ask("nvmlDeviceGetTotalEnergyConsumption", self._handle, ctypes.byref(value))
        return value.value / 1e3

    def watts(self) -> float:
        """Now.

        Raises:
            OSError: not supported by this GPU.
        """
        value = ctypes.c_uint()
        self._ask("nvmlDeviceGetPowerUsage", self._handle, ctypes.byref(value))
        return value.value / 1e3

    def _ask(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            explain = self._library.nvmlErrorString
            explain.restype = ctypes.c_char_p
            msg = f"{name}: {(explain(code) or b'unknown').decode(errors='replace')}"
            raise OSError(msg)


class NvmlCounter:
    """A meter of the GPU's own energy counter."""

    least_s = _LEAST_S

    def __init__(
        self,
        joules: Callable[[], float],
        *,
        source: str,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Prepare a meter; `joules` reads the counter."""
        self.source = source
        self._joules, self._clock_s = joules, clock_s
        self._began = (0.0, 0.0)

    def start(self) -> None:
        """Begin."""
        self._began = (self._joules(), self._clock_s())

    def stop(self) -> Consumed:
        """End, and give what was consumed since start."""
        joules, began_s = self._began
        return Consumed(joules=self._joules() - joules, seconds=self._clock_s() - began_s)


def open_nvml(library: Any = None, gpu: str | None = None) -> NvmlCounter | SampledPower | str:
    """A meter of the GPU, or why there is none.

    Args:
        library: libnvidia-ml; loaded here where none is given.
        gpu: number in NVML's order, which is that of the PCI bus, or UUID; the first of
            CUDA_VISIBLE_DEVICES by default, else 0.
    """
    chosen = gpu or os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"
    try:
        nvml = Nvml(ctypes.CDLL(_LIBRARY) if library is None else library, chosen)
    except (OSError, AttributeError) as error:
        return (
            f"NVML does not open ({error}): no NVIDIA driver, or hidden from this container. Check "
            "with: nvidia-smi"
        )
    source = f"NVML GPU {chosen}"
    try:
        nvml.joules()
    except (OSError, AttributeError):
        try:
            nvml.watts()
        except (OSError, AttributeError) as error:
            return f"{source} gives neither energy nor power ({error})"
        return SampledPower(nvml.watts, source=f"{source}, sampled power", every_s=_EVERY_S)
    return NvmlCounter(nvml.joules, source=f"{source}, energy counter")
