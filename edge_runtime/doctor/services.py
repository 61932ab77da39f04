"""What starts skyfix and watches it, and the network ports it would use."""

import os
import re
from collections.abc import Iterator, Mapping

from edge_runtime.doctor.finding import Finding
from edge_runtime.doctor.system_files import SystemFiles

_LISTENING = {"tcp": "0A", "udp": "07"}
"""States of proc_net: a TCP socket that listens, a UDP socket that is bound."""
_SOCKET = re.compile(
    r"^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2})", re.MULTILINE
)
"""A line of /proc/net/tcp or udp: local and remote address, state."""
_PORTS = (("udp", 14550, "MAVLink"), ("tcp", 8080, "live page"))


def watchdog(
    system: SystemFiles, environment: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Whether systemd is here, and whether it or the hardware restarts what hangs."""
    environment = os.environ if environment is None else environment
    if not system.exists("/run/systemd/system"):
        yield Finding(
            what="systemd",
            verdict="missing",
            detail="does not run here: nothing restarts a run that hangs",
        )
    elif "WATCHDOG_USEC" in environment and "NOTIFY_SOCKET" in environment:
        seconds = int(environment["WATCHDOG_USEC"]) / 1e6
        yield Finding(what="systemd", verdict="works", detail=f"watches this unit: {seconds:g} s")
    else:
        yield Finding(
            what="systemd",
            verdict="works",
            detail="runs here; a unit with Type=notify, WatchdogSec=10 and Restart=always restarts "
            "a run that hangs",
        )
    node = next((name for name in ("watchdog0", "watchdog") if system.exists(f"/dev/{name}")), "")
    identity = system.text("/sys/class/watchdog/watchdog0/identity")
    yield Finding(
        what="hardware watchdog",
        verdict="works" if node else "missing",
        detail=f"/dev/{node}{f' ({identity})' if identity else ''}; RuntimeWatchdogSec=20 in "
        "/etc/systemd/system.conf restarts a machine that hangs"
        if node
        else "none",
    )


def ports(system: SystemFiles) -> Iterator[Finding]:
    """Whether somebody else has the ports that skyfix uses unless told otherwise."""
    for protocol, port, what in _PORTS:
        taken = port in _bound(system, protocol)
        yield Finding(
            what=f"port {port}",
            verdict="note" if taken else "works",
            detail=f"{protocol.upper()}, {what}: {'taken by another program' if taken else 'free'}",
            remedy=f"sudo ss -lnp | grep :{port}, or choose another port" if taken else "",
        )


def _bound(system: SystemFiles, protocol: str) -> set[int]:
    """Ports in use, from /proc/net: local addresses are hexadecimal (proc_net(5))."""
    text = "\n".join(system.text(f"/proc/net/{name}") for name in (protocol, f"{protocol}6"))
    return {int(port, 16) for port, state in _SOCKET.findall(text) if state == _LISTENING[protocol]}
