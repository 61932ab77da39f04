"""All checks, one after the other; none can stop the rest."""

from collections.abc import Iterable
from pathlib import Path

from edge_runtime.doctor import (
    artefacts,
    clock,
    devices,
    graphics,
    libraries,
    machine,
    power,
    services,
)
from edge_runtime.doctor.finding import Check, Finding, Group, examined
from edge_runtime.doctor.system_files import SystemFiles


def examine(
    bundle: Path | None = None,
    index: Path | None = None,
    *,
    system: SystemFiles | None = None,
    folder: Path | None = None,
) -> list[Finding]:
    """Look at this machine and, if given, at a bundle, an index, or both together.

    Args:
        bundle: an encoder's folder.
        index: a satellite index's folder.
        system: where the machine's files are; by default at /.
        folder: where logs would go; by default the working folder.
    """
    system = system or SystemFiles()
    given = tuple(path for path in (bundle, index) if path is not None)
    checks: list[tuple[Group, Check]] = [
        ("machine", machine.python),
        ("machine", _named("computer", lambda: machine.computer(system))),
        ("machine", _named("memory", lambda: machine.memory(system))),
        ("machine", _named("disk", lambda: machine.disk(folder or Path.cwd()))),
        ("power", _named("power mode", lambda: power.jetson_power_mode(system))),
        ("power", _named("CPU clocks", lambda: power.governors(system))),
        ("power", _named("temperature", lambda: power.heat(system))),
        ("clock", _named("clock", lambda: clock.clock(system, given))),
        ("libraries", libraries.packages),
        ("libraries", libraries.conflicts),
        ("libraries", _named("video", lambda: libraries.video_backends(system))),
        ("GPU", graphics.providers),
        ("GPU", graphics.gpu),
        ("devices", _named("cameras", lambda: devices.cameras(system))),
        ("devices", _named("serial ports", lambda: devices.serial_ports(system))),
        ("services", _named("watchdog", lambda: services.watchdog(system))),
        ("services", _named("ports", lambda: services.ports(system))),
    ]
    if given:
        checks.append(
            ("artefacts", _named("artefacts", lambda: artefacts.bundle_and_index(bundle, index)))
        )
    return [finding for group, check in checks for finding in examined(group, check)]


def _named(name: str, check: Check) -> Check:
    """A check with a name to report it by, if it fails itself."""

    def run() -> Iterable[Finding]:
        return check()

    run.__name__ = name
    return run
