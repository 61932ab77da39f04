"""Power of a Jetson's rails, by the INA3221 monitors on the module (Linux driver ina3221).

Volts and amperes come from sysfs, in millivolts and milliamperes by channel. Orin Nano, Orin NX and
Xavier NX have a rail for the whole module, VDD_IN (NVIDIA Jetson Linux Developer Guide, "Power
Monitor"). AGX Orin and AGX Thor have none here, so the three rails that feed them are added.
"""

from pathlib import Path
from typing import NamedTuple

from benchmarks.energy.power_sampling import SampledPower

_WHOLE = "VDD_IN"
_PARTS = (
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
)
"""Of AGX Orin and of AGX Thor."""
_CHANNELS = (1, 2, 3)
_EVERY_S = 0.05


class Rail(NamedTuple):
    """One channel of a monitor."""

    name: str
    millivolts: Path
    milliamperes: Path

    def watts(self) -> float:
        """Now.

        Raises:
            OSError: the sensor cannot be read.
            ValueError: it gave no number.
        """
        return int(self.millivolts.read_text()) * int(self.milliamperes.read_text()) / 1e6


def open_ina3221(root: Path = Path("/")) -> SampledPower | None:
    """A meter of the whole module; None where there are no such rails.

    Args:
        root: of the file system.
    """
    found = {rail.name: rail for rail in rails(root)}
    choices: list[tuple[str, ...]] = [(_WHOLE,), *_PARTS]
    chosen = next((names for names in choices if all(name in found for name in names)), None)
    if chosen is None:
        return None
    taken = [found[name] for name in chosen]
    return SampledPower(
        lambda: sum(rail.watts() for rail in taken),
        source=f"INA3221 {' + '.join(chosen)}",
        every_s=_EVERY_S,
    )


def rails(root: Path = Path("/")) -> list[Rail]:
    """All channels of all INA3221 monitors that have a name and can be read.

    Args:
        root: of the file system.
    """
    found = []
    for monitor in sorted(root.glob("sys/class/hwmon/hwmon*")):
        for channel in _CHANNELS:
            try:
                if (monitor / "name").read_text().strip() != "ina3221":
                    break
                rail = Rail(
                    name=(monitor / f"in{channel}_label").read_text().strip(),
                    millivolts=monitor / f"in{channel}_input",
                    milliamperes=monitor / f"curr{channel}_input",
                )
                rail.watts()
            except (OSError, ValueError):
                continue  # A channel without a name is not connected.
            found.append(rail)
    return found
