"""What makes a computer slower than it could be: power modes, governors, heat."""

import re
import subprocess
from collections.abc import Iterator

from edge_runtime.doctor.finding import Finding
from edge_runtime.doctor.system_files import SystemFiles

_CPUS = "/sys/devices/system/cpu"
_HOT_C = 85.0
"""Where nothing says at which temperature it slows down."""
_SMALL_BOARD_FAULTS = {
    0: "voltage too low now",
    1: "clock limited now",
    2: "throttled now",
    3: "soft temperature limit now",
    16: "voltage was too low since start",
    17: "clock was limited since start",
    18: "was throttled since start",
}
"""Bits of get_throttled (Raspberry Pi documentation, "vcgencmd")."""


def jetson_power_mode(system: SystemFiles) -> Iterator[Finding]:
    """nvpmodel: how many watts, and so which clocks, a Jetson may use."""
    if not system.is_jetson:
        return
    modes = {
        int(number): name
        for number, name in re.findall(
            r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", system.text("/etc/nvpmodel.conf")
        )
    }
    current = _current_mode(system)
    if current is None:
        yield Finding(
            what="power mode",
            verdict="note",
            detail="nothing says which power mode is set",
            remedy="sudo nvpmodel -q",
        )
        return
    name = modes.get(current, f"mode {current}")
    # Where there are several, the longest name is the newest: MAXN_SUPER over MAXN.
    fastest = max((k for k, mode in modes.items() if mode.startswith("MAXN")), default=None,
                  key=lambda k: len(modes[k]))  # fmt: skip
    best = fastest is None or current == fastest
    yield Finding(
        what="power mode",
        verdict="works" if best else "note",
        detail=name if best else f"{name}; {modes[fastest or 0]} is faster",
        remedy="" if best else f"sudo nvpmodel -m {fastest}, if battery and cooling allow",
    )


def _current_mode(system: SystemFiles) -> int | None:
    kept = re.search(r"pmode:(\d+)", system.text("/var/lib/nvpmodel/status"))
    if kept:
        return int(kept[1])
    if not system.is_real:
        return None
    try:
        told = subprocess.run(
            ["nvpmodel", "-q"], capture_output=True, text=True, timeout=5, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.search(r"^(\d+)\s*$", told, re.MULTILINE)
    return int(number[1]) if number else None


def governors(system: SystemFiles) -> Iterator[Finding]:
    """Which clocks the kernel gives the cores."""
    found, limited = set(), []
    fixed = True
    for cpu in system.each(_CPUS, "cpu[0-9]*"):
        folder = f"{_CPUS}/{cpu.name}/cpufreq"
        governor = system.text(f"{folder}/scaling_governor")
        if not governor:
            continue
        found.add(governor)
        most = system.number(f"{folder}/cpuinfo_max_freq")
        allowed = system.number(f"{folder}/scaling_max_freq")
        least = system.number(f"{folder}/scaling_min_freq")
        fixed &= least is not None and least == most
        if most and allowed and allowed < most:
            limited.append(f"{cpu.name} to {allowed / 1e6:.2f} of {most / 1e6:.2f} GHz")
    if not found:
        yield Finding(
            what="CPU clocks", verdict="works", detail="not steered here, as in virtual machines"
        )
        return
    fast = fixed or found == {"performance"}
    jetson = "sudo jetson_clocks" if system.is_jetson else ""
    yield Finding(
        what="CPU clocks",
        verdict="works" if fast and not limited else "note",
        detail=f"governor {', '.join(sorted(found))}"
        + (", fixed at the highest" if fixed else "")
        + (f"; limited: {', '.join(limited)}" if limited else ""),
        remedy=""
        if fast and not limited
        else jetson
        or f"echo performance | sudo tee {_CPUS}/cpu*/cpufreq/scaling_governor: frames come at a "
        "steady pace only from steady clocks",
    )


def heat(system: SystemFiles) -> Iterator[Finding]:
    """The hottest thermal zone against the temperature at which it slows the machine down."""
    zones = []
    for zone in system.each("/sys/class/thermal", "thermal_zone*"):
        folder = f"/sys/class/thermal/{zone.name}"
        milli = system.number(f"{folder}/temp")
        if milli is None or not 0 < milli < 200_000:
            continue  # A sensor that is switched off.
        trips = [
            system.number(str(path).replace("_type", "_temp").removeprefix(str(system.root)))
            for path in system.each(folder, "trip_point_*_type")
            if path.read_text().strip() in ("passive", "hot", "critical")
        ]
        limit_c = min((t / 1e3 for t in trips if t and t > 0), default=_HOT_C)
        zones.append((limit_c - milli / 1e3, milli / 1e3, limit_c, system.text(f"{folder}/type")))
    if not zones:
        yield Finding(what="temperature", verdict="works", detail="no sensor tells")
    else:
        room_c, now_c, limit_c, name = min(zones)
        near = room_c < 5.0
        yield Finding(
            what="temperature",
            verdict="note" if near else "works",
            detail=f"{name or 'hottest zone'} {now_c:.0f} °C, slows down at {limit_c:.0f} °C",
            remedy="cool it, or fly with a smaller encoder: skyfix run --rate-hz" if near else "",
        )
    throttled = system.text("/sys/devices/platform/soc/soc:firmware/get_throttled")
    if throttled:
        bits = int(throttled, 16)
        faults = [text for bit, text in _SMALL_BOARD_FAULTS.items() if bits >> bit & 1]
        yield Finding(
            what="power supply",
            verdict="note" if faults else "works",
            detail=", ".join(faults) or "never too low",
            remedy="use a stronger supply and cool the board" if faults else "",
        )
