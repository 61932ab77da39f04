"""Energy of x86 packages by RAPL (Linux documentation, "Power Capping Framework").

The counters run over at `max_energy_range_uj`, which a busy server reaches in minutes, so they are
read in between as well. A package does not include its memory modules.
"""

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.energy.power_sampling import Consumed, Repeater

_ZONES = "sys/class/powercap"
_EVERY_S = 10.0
"""65 kJ, the smallest range in use, are used up in 10 s at 6.5 kW."""
_LEAST_S = 0.5
"""Counters move every millisecond or so."""


class RaplMeter:
    """All packages of the machine, added up."""

    least_s = _LEAST_S

    def __init__(
        self,
        zones: list[Path],
        *,
        every_s: float = _EVERY_S,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Prepare a meter.

        Args:
            zones: folders of packages.
            every_s: between two readings.
            clock_s: a monotonic clock, seconds.

        Raises:
            OSError: a file cannot be read.
        """
        self.source = "RAPL " + " + ".join(_read(zone / "name") for zone in zones)
        self._zones = zones
        self._ranges_uj = [int(_read(zone / "max_energy_range_uj")) for zone in zones]
        self._clock_s = clock_s
        self._last_uj: list[int] | None = None
        self._used_uj, self._began_s = 0, 0.0
        self._read_counters()
        self._repeater = Repeater(self._read_counters, every_s=every_s)

    def start(self) -> None:
        """Begin."""
        self._last_uj, self._used_uj = None, 0
        self._began_s = self._clock_s()
        self._repeater.start()

    def stop(self) -> Consumed:
        """End, and give what was consumed since start."""
        self._repeater.stop()
        return Consumed(joules=self._used_uj / 1e6, seconds=self._clock_s() - self._began_s)

    def _read_counters(self) -> None:
        now_uj = [int(_read(zone / "energy_uj")) for zone in self._zones]
        if self._last_uj is not None:
            for now, last, most in zip(now_uj, self._last_uj, self._ranges_uj, strict=True):
                self._used_uj += now - last if now >= last else now + most - last
        self._last_uj = now_uj


def open_rapl(root: Path = Path("/")) -> RaplMeter | str:
    """A meter of all packages, or why there is none.

    Args:
        root: of the file system.
    """
    folder = root / _ZONES
    # intel-rapl:0:1 is a part of intel-rapl:0, and psys counts packages once more.
    zones = [
        zone
        for zone in sorted(folder.glob("intel-rapl:*"))
        if zone.name.count(":") == 1 and _name(zone).startswith("package")
    ]
    if not zones:
        return (
            f"no RAPL package in {folder}: not an x86 CPU, a virtual machine that hides it, or no "
            "driver. Where the CPU has it: sudo modprobe intel_rapl_msr"
        )
    try:
        return RaplMeter(zones)
    except PermissionError:
        return (
            f"{zones[0] / 'energy_uj'} is for root alone. Until the next boot: sudo "
            f"chmod a+r {folder}/intel-rapl:*/energy_uj"
        )
    except (OSError, ValueError) as error:
        return f"RAPL in {folder} cannot be read ({error})"


def _name(zone: Path) -> str:
    try:
        return _read(zone / "name")
    except OSError:
        return ""


def _read(path: Path) -> str:
    return path.read_text().strip()
