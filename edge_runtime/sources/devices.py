"""Which V4L2 devices this machine has."""

import os
from pathlib import Path

from edge_runtime.errors import InputError

_SYSTEM = Path("/sys/class/video4linux")


def video_devices(system: Path = _SYSTEM) -> list[tuple[str, str]]:
    """Path and name of every V4L2 device, by number.

    Args:
        system: where the kernel lists them.
    """
    if not system.is_dir():
        return []
    found = []
    for entry in system.glob("video*"):
        number = entry.name.removeprefix("video")
        if not number.isdigit():
            continue
        try:
            name = (entry / "name").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            name = ""
        found.append((int(number), name))
    return [(f"/dev/video{number}", name) for number, name in sorted(found)]


def check_device(device: str, system: Path = _SYSTEM) -> None:
    """Refuse a device that is not there or may not be read.

    Raises:
        InputError: with the devices there are.
    """
    path = Path(device)
    if not path.exists():
        there = [f"{at} ({name})" if name else at for at, name in video_devices(system)]
        what = f"there are {', '.join(there)}" if there else "this machine has no camera at all"
        msg = f"{device} does not exist; {what}; is the camera plugged in?"
        raise InputError(msg)
    if not path.is_char_device():
        msg = f"{device} is not a device; expected a V4L2 camera, as /dev/video0"
        raise InputError(msg)
    if not os.access(path, os.R_OK | os.W_OK):
        msg = f"{device} may not be read by this user; add the user to the group video"
        raise InputError(msg)
