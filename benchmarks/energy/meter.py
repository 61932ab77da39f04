"""The meter of this machine, and what calls take by it."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

from benchmarks.energy.ina3221 import open_ina3221
from benchmarks.energy.nvml import open_nvml
from benchmarks.energy.power_sampling import Consumed
from benchmarks.energy.rapl import open_rapl
from benchmarks.measurement import Energy

_IDLE_S = 3.0


class EnergyMeter(Protocol):
    """Counts energy between start and stop. One user at a time."""

    source: str
    """What is measured, as "RAPL package-0"."""
    least_s: float
    """Shorter measurements say nothing: the sensor's own steps are too coarse."""

    def start(self) -> None:
        """Begin; what was counted before is forgotten."""
        ...

    def stop(self) -> Consumed:
        """End, and give joules and seconds since start."""
        ...


def open_meter(device: Literal["cpu", "gpu"], root: Path = Path("/")) -> EnergyMeter | str:
    """The meter that covers what runs the calls, or the reason why there is none.

    A Jetson's input rail covers CPU, GPU and memory together; elsewhere RAPL covers the CPU's
    packages and NVML the GPU's board, each without the other.

    Args:
        device: which of them runs the calls.
        root: of the file system.
    """
    jetson = open_ina3221(root)
    if jetson is not None:
        return jetson
    return open_nvml() if device == "gpu" else open_rapl(root)


def measured(
    meter: EnergyMeter | str,
    calls: Callable[[], int],
    *,
    idle_s: float = _IDLE_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy:
    """Measure the idle machine, then the calls.

    Args:
        meter: as from `open_meter`; a reason makes a row that says it, and the calls are not made.
        calls: makes the calls, lasting at least the meter's `least_s`, and says how many.
        idle_s: how long the idle machine is measured before.
        sleep: waits so many seconds.

    Returns:
        A row's energy. Nothing is subtracted: joules a call hold the idle power as well.
    """
    if isinstance(meter, str):
        return not_measured(meter)
    try:
        meter.start()
        sleep(max(idle_s, meter.least_s))
        idle = meter.stop()
        meter.start()
    except (OSError, ValueError) as error:
        return not_measured(_unreadable(meter, error))
    try:
        made = calls()
    except BaseException:
        with suppress(OSError, ValueError):
            meter.stop()
        raise
    try:
        busy = meter.stop()
    except (OSError, ValueError) as error:
        return not_measured(_unreadable(meter, error))
    if made < 1 or busy.seconds < meter.least_s:
        return not_measured(
            f"{made} calls took {busy.seconds:.2f} s; {meter.source} needs at least "
            f"{meter.least_s:.1f} s. Measure for longer"
        )
    return Energy(
        source=meter.source,
        watts=busy.watts,
        idle_watts=idle.watts,
        joules_per_call=busy.joules / made,
        skipped="",
    )


def _unreadable(meter: EnergyMeter, error: Exception) -> str:
    return f"{meter.source} could not be read to the end ({error})"


def not_measured(reason: str) -> Energy:
    """A row's energy where there is none."""
    return Energy(source="", watts=None, idle_watts=None, joules_per_call=None, skipped=reason)
