"""Cameras and serial ports, and whether this user may open them."""

import re
from collections.abc import Iterator

from edge_runtime.doctor.finding import Finding
from edge_runtime.doctor.system_files import SystemFiles

_SERIAL = re.compile(r"tty(USB|ACM|THS|AMA|mxc)\d+")
_CSI = re.compile(r"vi-output|unicam|rp1-cfe|csi", re.IGNORECASE)
"""Drivers of cameras on a ribbon cable: NVIDIA's, Raspberry Pi's."""


def cameras(system: SystemFiles) -> Iterator[Finding]:
    """Video devices that give pictures."""
    csi = False
    found = False
    for entry in system.each("/sys/class/video4linux", "video*"):
        folder = f"/sys/class/video4linux/{entry.name}"
        if system.number(f"{folder}/index") not in (0, None):
            continue  # A second node of the same camera, for metadata.
        name = system.text(f"{folder}/name") or "unnamed"
        is_csi = bool(_CSI.search(name))
        csi, found = csi or is_csi, True
        uri = "csi://0" if is_csi and system.is_jetson else f"v4l2:///dev/{entry.name}"
        yield _device(system, f"camera {entry.name}", f"/dev/{entry.name}", name, "video", uri)
    if system.is_jetson and not csi:
        yield Finding(
            what="CSI camera",
            verdict="missing",
            detail="no camera on a CSI connector is configured",
            remedy="sudo /opt/nvidia/jetson-io/jetson-io.py, if one is connected",
        )
    if not found:
        yield Finding(
            what="camera",
            verdict="missing",
            detail="no video device; videos, photographs and network streams need none",
            remedy="connect one, then: ls /dev/video*",
        )


def serial_ports(system: SystemFiles) -> Iterator[Finding]:
    """Where an autopilot may be connected."""
    by_id = {link.resolve().name: link.name for link in system.each("/dev/serial/by-id", "*")}
    names = [p.name for p in system.each("/sys/class/tty", "tty*") if _SERIAL.fullmatch(p.name)]
    for name in names:
        product = by_id.get(name, "")
        yield _device(system, f"serial {name}", f"/dev/{name}", product, "dialout", f"/dev/{name}")
    if not names:
        yield Finding(
            what="serial port",
            verdict="missing",
            detail="none; an autopilot over the network needs none",
            remedy="connect one, then: ls /dev/ttyUSB* /dev/ttyACM*",
        )


def _device(system: SystemFiles, what: str, path: str, name: str, group: str, use: str) -> Finding:
    about = f"{path} ({name})" if name else path
    if not system.exists(path):
        return Finding(
            what=what,
            verdict="broken",
            detail=f"{about} is known to the kernel and has no node here",
            remedy=f"in a container: docker run --device {path}",
        )
    if not system.may_open(system.path(path)):
        return Finding(
            what=what,
            verdict="broken",
            detail=f"this user may not open {about}",
            remedy=f"sudo usermod -aG {group} $USER, then log in again",
        )
    return Finding(what=what, verdict="works", detail=f"{about}, as {use}")
