"""The machine and its state at the time of a measurement."""

import os
import platform
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.other_programs import OtherPrograms
from benchmarks.rows import cpu_name, gpu_name, output_of

LIBRARIES = (
    "numpy", "opencv-python-headless", "opencv-python", "onnxruntime", "onnxruntime-gpu",
    "openvino", "torch", "timm", "onnx", "tensorrt", "pycuda", "usearch",
)  # fmt: skip
"""Whose versions are recorded, by their names as packages."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the numbers of a row depend on besides the program."""

    cpu: str
    cores: int
    """That this process may use."""
    memory_mib: int
    """Of the whole machine."""
    gpu: str | None
    gpu_driver: str | None
    system: str
    """Kernel and its release."""
    python: str
    libraries: dict[str, str]
    """Versions of those that are installed."""
    power_mode: str | None
    """nvpmodel's name on a Jetson, the CPU's scaling governor elsewhere; None where unreadable."""
    clocks_mhz: dict[str, float]
    """Right after the work, by name: "cpu" (mean), "gpu", "memory"; those that can be read."""
    temperatures_c: dict[str, float]
    """Right after the work, by sensor."""
    load_1min: float
    """Runnable processes before the work, mean of a minute; this program's last work included."""
    others_cores: float | None = None
    """Cores that other programs kept busy during the work, see `OtherPrograms`."""


class WorkWatch:
    """From its making on: the machine that something is measured on, and what else it did."""

    def __init__(self) -> None:
        """Begin, before the work and what it loads."""
        self._before = machine()
        self._others = OtherPrograms()

    def machine(self) -> Machine:
        """The machine with the clocks and temperatures that the work so far led to."""
        others = self._others.cores()
        return replace(
            self._before,
            others_cores=None if others is None else round(others, 3),
            clocks_mhz=clocks_mhz(),
            temperatures_c=temperatures_c(),
        )


def machine() -> Machine:
    """This machine now, where nothing is measured on it; else see `WorkWatch`."""
    driver = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return Machine(
        cpu=cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        gpu=gpu_name(),
        gpu_driver=driver.splitlines()[0].strip() if driver else None,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libraries=library_versions(),
        power_mode=power_mode(),
        clocks_mhz=clocks_mhz(),
        temperatures_c=temperatures_c(),
        load_1min=round(os.getloadavg()[0], 2),
    )


def power_mode(root: Path = Path("/")) -> str | None:
    """How the machine trades speed for power; None where it does not say.

    Args:
        root: of the file system.
    """
    for line in output_of("nvpmodel", "-q").splitlines():
        if line.startswith("NV Power Mode:"):
            return line.partition(":")[2].strip()
    try:
        return (root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None


def clocks_mhz(root: Path = Path("/")) -> dict[str, float]:
    """Clocks now, by "cpu" (mean of its cores), "gpu" and "memory"; those that can be read.

    Args:
        root: of the file system.
    """
    cores = root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")
    hertz = [found for path in cores if (found := _number_in(path)) is not None]
    megahertz = [kilo / 1e3 for kilo in hertz] or _megahertz_of_cpuinfo(root)
    clocks = {"cpu": sum(megahertz) / len(megahertz)} if megahertz else {}
    # On a Jetson the GPU is a device of the board, as 17000000.gpu; its file is in Hz.
    for path in root.glob("sys/class/devfreq/*.gpu/cur_freq"):
        if (found := _number_in(path)) is not None:
            clocks["gpu"] = found / 1e6
    asked = "--query-gpu=clocks.sm,clocks.mem"
    of_gpu = output_of("nvidia-smi", asked, "--format=csv,noheader,nounits").splitlines()
    for name, value in zip(("gpu", "memory"), of_gpu[0].split(",") if of_gpu else (), strict=False):
        if value.strip().isdigit():
            clocks[name] = float(value)
    return clocks


def temperatures_c(root: Path = Path("/")) -> dict[str, float]:
    """Temperatures now, degrees Celsius, by the sensor's own name.

    Args:
        root: of the file system.
    """
    found = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        thousandths = _number_in(zone / "temp")
        try:
            name = (zone / "type").read_text().strip()
        except OSError:
            continue
        if thousandths is not None:
            found[name] = thousandths / 1e3
    of_gpu = output_of("nvidia-smi", "--query-gpu=temperature.gpu", "--format=csv,noheader")
    if of_gpu.splitlines() and of_gpu.splitlines()[0].strip().isdigit():
        found["gpu"] = float(of_gpu.splitlines()[0])
    return found


def _number_in(path: Path) -> float | None:
    """A file's number; None where it has none: what is switched off refuses to be read."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _megahertz_of_cpuinfo(root: Path) -> list[float]:
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]


def library_versions() -> dict[str, str]:
    """Installed versions of LIBRARIES."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
