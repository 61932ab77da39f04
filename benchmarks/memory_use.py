"""The most memory that a piece of work held: of the machine, and of the GPU.

The kernel keeps a process's highest resident memory (`VmHWM`, proc_pid_status(5)) since it began.
Writing 5 to `clear_refs` (proc_pid_clear_refs(5)) starts that anew, so that work measured later in
a process is not charged for what came before. Where a system refuses it, `in_child` gives the work
a process of its own.

On a GPU no driver keeps a process's highest memory. It is looked at where it is highest: after
loading and after calls, when frameworks and engines hold on to all they ever asked for.
"""

import importlib
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from benchmarks.measurement import Memory
from benchmarks.rows import output_of
from edge_runtime.cuda_device import cuda_device, cuda_device_count
from edge_runtime.errors import BackendError, InputError

Result = TypeVar("Result")
GpuMib = Callable[[], float | None]
"""What this process holds on the GPU now; None where that is not told."""
Resident: TypeAlias = Literal["VmRSS", "VmHWM", "RssAnon", "RssFile"]
"""Now, at its highest; now its own, and mapped files (proc_pid_status(5))."""

_OWN = Path("/proc/self")


class MemoryWatch:
    """From its making on, the most memory that this process held."""

    def __init__(
        self,
        *,
        process: Path = _OWN,
        of_process: GpuMib | None = None,
        of_gpu: GpuMib | None = None,
    ) -> None:
        """Begin.

        Args:
            process: folder of the process in /proc.
            of_process: this process's memory on the GPU; asks NVML or nvidia-smi by default.
            of_gpu: memory in use on the whole GPU; asks the driver by default.

        Raises:
            InputError: the system does not tell a process's memory.
        """
        self._process = process
        self._of_process = of_process or process_gpu_mib
        self._of_gpu = of_gpu or whole_gpu_mib
        self._gpu_before = self._of_gpu()
        self._gpu_peak: float | None = None
        self._peak_was_cleared = forget_peak(process)
        self._peak_before = resident_mib("VmHWM", process)
        self._before = resident_mib("VmRSS", process)
        self.look()

    def look(self) -> None:
        """Look at the GPU's memory: call it after loading and after calls."""
        if self._gpu_before is None:
            return
        held = self._of_process()
        if held is None:
            # The driver does not know its processes by this container's numbers.
            now = self._of_gpu()
            held = None if now is None else max(now - self._gpu_before, 0.0)
        if held is not None:
            self._gpu_peak = max(self._gpu_peak or 0.0, held)

    @property
    def is_exact(self) -> bool:
        """Whether the peak is of this watch's time; else it may be of what came before it."""
        return self._peak_was_cleared or (resident_mib("VmHWM", self._process) > self._peak_before)

    def memory(self) -> Memory:
        """What was held until now."""
        self.look()
        return Memory(
            host_peak_mib=resident_mib("VmHWM", self._process),
            host_before_mib=self._before,
            gpu_peak_mib=self._gpu_peak,
        )


def forget_peak(process: Path = _OWN) -> bool:
    """Let a process's highest memory be what it holds now; False where the system refuses.

    Args:
        process: its folder in /proc.
    """
    try:
        (process / "clear_refs").write_text("5")
    except OSError:
        return False
    # Kernels from before 4.0 take the number and do nothing; some sandboxes too.
    return resident_mib("VmHWM", process) <= 1.05 * resident_mib("VmRSS", process)


def resident_mib(name: Resident, process: Path = _OWN) -> float:
    """Resident memory of a process, MiB; see `Resident`.

    Raises:
        InputError: the system does not tell.
    """
    try:
        lines = (process / "status").read_text().splitlines()
        found = next(line for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration) as error:
        msg = f"{process / 'status'} does not tell {name}; expected Linux's /proc. Measure on Linux"
        raise InputError(msg) from error
    return int(found.split()[1]) / 1024


def in_child(work: Callable[..., Result], *arguments: Any) -> Result:
    """Do work in a new process, so that its memory is its own.

    Args:
        work: a function of a module; it and its arguments and result are pickled.
        *arguments: of it.

    Raises:
        BackendError: the process was killed, as by a lack of memory.
        Exception: what the work raises.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except BrokenProcessPool as error:
            msg = (
                "the process that measured was killed, as by a lack of memory; see the kernel's "
                "log, or measure something smaller"
            )
            raise BackendError(msg) from error


def process_gpu_mib() -> float | None:
    """What this process holds on its GPUs, by NVML or else by nvidia-smi; None where not told."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return _of_nvidia_smi()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        held = [
            process.usedGpuMemory
            for k in range(nvml.nvmlDeviceGetCount())
            for process in nvml.nvmlDeviceGetComputeRunningProcesses(
                nvml.nvmlDeviceGetHandleByIndex(k)
            )
            if process.pid == os.getpid()
        ]
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()
    # Within some containers the number of the process is right and its memory is not told.
    told = [used for used in held if used]
    return sum(told) / 2**20 if told else None


def whole_gpu_mib() -> float | None:
    """Memory in use on the first GPU, by whomever; None without one that has memory of its own."""
    if cuda_device_count() == 0:
        return None
    try:
        device = cuda_device()
    except BackendError:
        return None
    if device.free_bytes is None or device.integrated:
        return None
    return (device.total_bytes - device.free_bytes) / 2**20


def _of_nvidia_smi() -> float | None:
    asked = "--query-compute-apps=pid,used_memory"
    found = [
        line.split(",")
        for line in output_of("nvidia-smi", asked, "--format=csv,noheader,nounits").splitlines()
    ]
    own = str(os.getpid())
    held = [int(used) for pid, used in found if pid.strip() == own and used.strip().isdigit()]
    return float(sum(held)) if held else None
