"""Whether this machine's clock can be believed: frames and telemetry are matched by time."""

import ctypes
import json
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from edge_runtime.artefact import MANIFEST
from edge_runtime.doctor.finding import Finding
from edge_runtime.doctor.system_files import SystemFiles

_FIRST_RELEASE_S = 1_760_000_000.0
"""9 October 2025: no clock that is right shows less."""
_SLACK_S = 120.0
_STA_UNSYNC = 0x0040
"""timex.h: the kernel's clock is not synchronised."""


class _Timex(ctypes.Structure):
    """The beginning of `struct timex` (adjtimex(2)), with room for the rest."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    ]


def clock(
    system: SystemFiles, artefacts: tuple[Path, ...] = (), *, now_s: float | None = None
) -> Iterator[Finding]:
    """The time, and who keeps it right.

    Args:
        system: where to look.
        artefacts: folders whose manifests say when they were made.
        now_s: Unix seconds; by default this machine's.
    """
    now_s = time.time() if now_s is None else now_s
    newest_s, newest = max(
        ((_made_s(folder), str(folder)) for folder in artefacts),
        default=(_FIRST_RELEASE_S, "this version of skyfix"),
    )
    shown = datetime.fromtimestamp(now_s, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    if now_s < max(newest_s, _FIRST_RELEASE_S) - _SLACK_S:
        name = newest if newest_s > _FIRST_RELEASE_S else "this version of skyfix"
        yield Finding(
            what="clock",
            verdict="broken",
            detail=f"{shown} is before {name} was made",
            remedy="connect to a network once, or: sudo timedatectl set-time 'YYYY-MM-DD HH:MM:SS'",
        )
        return
    kept = system.exists("/run/systemd/timesync/synchronized") or (
        system.is_real and _kernel_says_synchronised()
    )
    yield Finding(
        what="clock",
        verdict="works" if kept else "note",
        detail=f"{shown}, {'synchronised' if kept else 'not synchronised with another clock'}",
        remedy="" if kept else "sudo timedatectl set-ntp true, with a network, before flight",
    )


def _made_s(folder: Path) -> float:
    """Unix seconds at which an artefact says it was made; 0 where it says nothing."""
    try:
        text = json.loads((folder / MANIFEST).read_text())["created_utc"]
        return (
            datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _kernel_says_synchronised() -> bool:
    """Ask with adjtimex(2), which needs no rights as long as it changes nothing."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (AttributeError, OSError, TypeError):
        return False
    state = _Timex()
    return adjtimex(ctypes.byref(state)) >= 0 and not state.status & _STA_UNSYNC
