"""Where bytes go: UDP, TCP and serial ports. None of them blocks for longer than a second."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from edge_runtime.errors import InputError

TIMEOUT_S = 1.0
DEFAULT_BAUD = 9600


class Port(Protocol):
    """Sends bytes to one place; a port that failed opens itself anew on the next send."""

    bytes_per_s: float | None
    """What it can carry, where that is known to be little."""

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: nobody there, or it takes too long.
        """
        ...

    def close(self) -> None:
        """Close. Safe to call twice."""
        ...


class UdpPort:
    """Datagrams to one address; a host that answers "nobody here" is an error of the next send."""

    bytes_per_s: float | None = None

    def __init__(self, host: str, port: int) -> None:
        """Remember where to; the name is looked up on the first send."""
        self._address = (host, port)
        self._socket: socket.socket | None = None

    def send(self, data: bytes) -> None:
        """Send one datagram.

        Raises:
            OSError: name not known, no route, or the peer's computer refused the one before.
        """
        if self._socket is None:
            family, kind, protocol, _, address = socket.getaddrinfo(
                *self._address, type=socket.SOCK_DGRAM
            )[0]
            opened = socket.socket(family, kind, protocol)
            try:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                opened.settimeout(TIMEOUT_S)
                opened.connect(address)
            except OSError:
                opened.close()
                raise
            self._socket = opened
        self._socket.send(data)

    def close(self) -> None:
        """Close. Safe to call twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class TcpPort:
    """A connection to a server; opened anew after every failure."""

    bytes_per_s: float | None = None

    def __init__(self, host: str, port: int) -> None:
        """Remember where to; the connection is made on the first send."""
        self._address = (host, port)
        self._socket: socket.socket | None = None

    def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            OSError: nobody listens, or the peer reads nothing.
        """
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, timeout=TIMEOUT_S)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(data)
        except OSError:
            # Half a sentence may be on its way: only a new connection begins cleanly.
            self.close()
            raise

    def close(self) -> None:
        """Close. Safe to call twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class SerialPort:
    """A serial line, 8 data bits, no parity, 1 stop bit, no flow control (POSIX)."""

    def __init__(self, device: Path, baud: int) -> None:
        """Remember the line; it is opened on the first send.

        Raises:
            InputError: no such speed.
        """
        import termios

        speed = getattr(termios, f"B{baud}", None)
        if speed is None or baud <= 0:
            msg = (
                f"a serial line at {baud} baud cannot be set here; usual: 4800, 9600, 57600, 115200"
            )
            raise InputError(msg)
        self.bytes_per_s: float | None = baud / 10
        self._device = device
        self._speed = int(speed)
        self._fd: int | None = None

    def send(self, data: bytes) -> None:
        """Hand all of it to the line.

        Raises:
            OSError: no such device, unplugged, or the line takes nothing.
        """
        import select

        try:
            if self._fd is None:
                self._fd = self._opened()
            done = 0
            while done < len(data):
                if not select.select([], [self._fd], [], TIMEOUT_S)[1]:
                    raise TimeoutError(f"{self._device} has taken nothing for {TIMEOUT_S:.0f} s")
                done += os.write(self._fd, data[done:])
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close at once, whatever is still on its way. Safe to call twice."""
        if self._fd is None:
            return
        import termios
        from contextlib import suppress

        fd, self._fd = self._fd, None
        with suppress(termios.error):
            termios.tcflush(fd, termios.TCOFLUSH)
        os.close(fd)

    def _opened(self) -> int:
        import termios

        fd = os.open(self._device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            settings = termios.tcgetattr(fd)
            settings[0] = settings[1] = settings[3] = 0
            settings[2] = termios.CS8 | termios.CREAD | termios.CLOCAL
            settings[4] = settings[5] = self._speed
            termios.tcsetattr(fd, termios.TCSANOW, settings)
        except termios.error as error:
            os.close(fd)
            raise OSError(error.args[0], f"{self._device} is not a serial line") from error
        return fd


def parse_place(text: str) -> tuple[str, dict[str, str]]:
    """Split `place?name=value&…`; the place and its options."""
    place, _, query = text.partition("?")
    return place, dict(parse_qsl(query, keep_blank_values=True))


def open_port(place: str, options: Mapping[str, str], *, default_baud: int = DEFAULT_BAUD) -> Port:
    """Make a port from `udp://host:port`, `tcp://host:port` or the path of a serial line.

    Args:
        place: where to.
        options: `baud` for a serial line.
        default_baud: without that option.

    Raises:
        InputError: not such a place.
    """
    if "://" not in place:
        baud = options.get("baud", str(default_baud))
        if not place or not baud.isascii() or not baud.isdigit():
            msg = f"serial line {place!r} with baud {baud!r}; expected as /dev/ttyUSB0?baud=9600"
            raise InputError(msg)
        return SerialPort(Path(place), int(baud))
    try:
        parts = urlsplit(place)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        msg = f"{place!r} is no address ({error}); expected udp://host:port or tcp://host:port"
        raise InputError(msg) from error
    if parts.scheme not in ("udp", "tcp") or not host or not port or "baud" in options:
        msg = f"{place!r} is no address; expected udp://host:port or tcp://host:port"
        raise InputError(msg)
    return UdpPort(host, port) if parts.scheme == "udp" else TcpPort(host, port)
