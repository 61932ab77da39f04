"""pymavlink, as far as this project uses it: links to autopilots, and their logs."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from edge_runtime.errors import InputError
from edge_runtime.states.mavlink_messages import Message

DEFAULT_BAUD = 57600


class Received(Message, Protocol):
    """A message with its sender and, in logs, its time."""

    _timestamp: float

    def get_srcSystem(self) -> int:  # noqa: N802 - pymavlink's name
        """Number of the vehicle."""
        ...

    def get_srcComponent(self) -> int:  # noqa: N802 - pymavlink's name
        """Number of the part of it; 1 is the autopilot."""
        ...


class Link(Protocol):
    """An open connection or log."""

    def recv_match(
        self, *, type: list[str] | None = None, blocking: bool = False, timeout: float | None = None
    ) -> Received | None:
        """The next message, or None: at the end of a log, or when none came in time."""
        ...

    def close(self) -> None:
        """Give the port back."""
        ...


Connect = Callable[[str], Link]


def connect(address: str) -> Link:
    """Open a link.

    Args:
        address: as pymavlink takes it; a serial port may be followed by a comma and its baud rate.

    Raises:
        InputError: no pymavlink, or an address it cannot take.
        OSError: nobody there for now.
    """
    mavutil = _mavutil()
    device, _, baud = address.partition(",")
    try:
        link = mavutil.mavlink_connection(
            device, baud=int(baud) if baud else DEFAULT_BAUD, retries=1, autoreconnect=False
        )
    except (ValueError, IndexError) as error:
        msg = (
            f"MAVLink address {address!r} cannot be taken ({error}); expected udpin:HOST:PORT, "
            "tcp:HOST:PORT or /dev/PORT,BAUD"
        )
        raise InputError(msg) from error
    # pymavlink prints and goes on reading a closed socket; here the reader opens a new one.
    link.handle_eof = link.handle_disconnect = _ended
    opened: Link = link
    return opened


def open_log(path: Path) -> Link:
    """Open a .tlog or .bin log.

    Raises:
        InputError: no pymavlink, or the file cannot be read.
    """
    mavutil = _mavutil()
    try:
        log: Link = mavutil.mavlink_connection(str(path), robust_parsing=True)
    except (OSError, ValueError, IndexError, AttributeError) as error:
        msg = f"log {path} cannot be read ({error}); expected a MAVLink .tlog or ArduPilot .bin"
        raise InputError(msg) from error
    return log


def _mavutil() -> Any:
    try:
        return importlib.import_module("pymavlink.mavutil")
    except ImportError as error:
        msg = (
            f"MAVLink needs {error.name}, which is not installed; install it with: "
            "pip install 'skyfix[mavlink]' (serial ports also need pyserial)"
        )
        raise InputError(msg) from error


def _ended() -> None:
    msg = "the other side closed the connection"
    raise ConnectionResetError(msg)
