"""Telling systemd how the service is (sd_notify(3)), without libsystemd.

One datagram a message to the socket in NOTIFY_SOCKET. Outside of systemd every call does nothing.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping


class ServiceNotifier:
    """Messages to the service manager. Nothing here blocks or raises in flight."""

    def __init__(
        self,
        address: str | None,
        *,
        watchdog_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect to the manager's socket.

        Args:
            address: a path, or @name for an abstract socket; None is no manager.
            watchdog_s: the manager restarts the service when it is not told for so long.
            clock: seconds, monotonic.
        """
        self.watchdog_s = watchdog_s
        self.failed = 0
        """Messages that the manager did not take."""
        self._clock = clock
        self._last_ping_s: float | None = None
        self._status = ""
        self._socket: socket.socket | None = None
        if address and address[0] in "@/":
            self._address = "\0" + address[1:] if address[0] == "@" else address
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "ServiceNotifier":
        """What systemd set for this process: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID."""
        values = os.environ if environment is None else environment
        interval = values.get("WATCHDOG_USEC", "")
        for_us = values.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        known = interval.isascii() and interval.isdigit() and int(interval) > 0 and for_us
        return cls(values.get("NOTIFY_SOCKET"), watchdog_s=int(interval) / 1e6 if known else None)

    @property
    def active(self) -> bool:
        """Whether there is a manager to tell."""
        return self._socket is not None

    def ready(self, status: str = "") -> None:
        """Start-up is finished; from now on the watchdog counts."""
        self._send("READY=1", *self._status_lines(status))
        self._last_ping_s = self._clock()

    def advanced(self) -> None:
        """The loop has finished a step: tell the watchdog, at most four times an interval."""
        if self.watchdog_s is None:
            return
        now_s = self._clock()
        if self._last_ping_s is None or now_s - self._last_ping_s >= self.watchdog_s / 4:
            self._last_ping_s = now_s
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; sent where it has changed."""
        if lines := self._status_lines(text):
            self._send(*lines)

    def stopping(self) -> None:
        """The service is about to end."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Close the socket. Safe to call twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _status_lines(self, text: str) -> list[str]:
        line = " ".join(text.split())
        if not line or line == self._status:
            return []
        self._status = line
        return [f"STATUS={line}"]

    def _send(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            # The manager is busy or was restarted; the next message may get through.
            self.failed += 1
