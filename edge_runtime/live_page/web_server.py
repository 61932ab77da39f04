"""The HTTP server below the page: who may connect, how many at a time, and how it ends."""

import errno
import ipaddress
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edge_runtime.errors import InputError

_MOST_CONNECTIONS = 64
"""A browser holds up to six."""
_PORTS_TRIED = 100
_CLOSING_S = 5.0


class PageServer(ThreadingHTTPServer):
    """A thread per connection, and no more connections than are good for a drone."""

    daemon_threads = True
    # On Windows the option lets two servers share one port.
    allow_reuse_address = os.name != "nt"
    request_queue_size = 16

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        """Take the port.

        Raises:
            InputError: the port or the address is not to be had.
        """
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        try:
            super().__init__((host, port), handler)
        except (OSError, OverflowError, UnicodeError) as error:
            raise _refused(host, port, error, self.address_family) from error
        self.server_port = int(self.server_address[1])

    def server_bind(self) -> None:
        """Bind without asking a name server who we are, which takes long without a network."""
        # TCPServer's own, past HTTPServer's.
        self.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, int(self.allow_reuse_address)
        )
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the connection's thread, or hang up where there are too many."""
        with self._changed:
            full = len(self._open) >= _MOST_CONNECTIONS
            if not full:
                self._open.add(request)
        if full:
            self.shutdown_request(request)
            return
        _give_up_on_gone_peers(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._open.discard(request)
                self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: what goes wrong in an answer is told by the handler."""

    def hang_up(self) -> None:
        """Stop listening and end every connection, whatever it is doing."""
        self.shutdown()
        self.server_close()
        with self._changed:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
            self._changed.wait_for(lambda: not self._open, _CLOSING_S)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def may_be_named(host: str, names: frozenset[str]) -> bool:
    """Whether a Host header names this server by something no stranger's name server decides.

    DNS rebinding makes a web page of somewhere else speak to this server under that page's own
    name. Addresses and this machine's names cannot be used so.

    Args:
        host: the header, with or without a port.
        names: what this machine is called, lower case.
    """
    name = host.strip().lower()
    if name.startswith("["):
        name, closed, rest = name[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            return False
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    name = name.removesuffix(".")
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def own_names(host: str) -> frozenset[str]:
    """What this machine may be called in a Host header."""
    machine = socket.gethostname().lower()
    return frozenset({"localhost", host.lower(), machine, f"{machine}.local"})


def reachable_at(host: str) -> str:
    """The address to tell others when listening on all of them."""
    if host not in ("0.0.0.0", "::"):
        return host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Connecting a datagram socket sends nothing: it only chooses the way out (RFC 5737, 3849).
    target = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()


def _give_up_on_gone_peers(connection: socket.socket) -> None:
    """Let the system drop a peer that acknowledges nothing for 15 s: it went out of range."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        connection.setsockopt(socket.IPPROTO_TCP, option, 15_000)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _refused(host: str, port: int, error: Exception, family: int) -> InputError:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        free = _next_free(host, port, family)
        instead = "another port" if free is None else f"port {free}, which is free"
        return InputError(f"port {port} of {host} is taken; expected a free one: use {instead}")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return InputError(
            f"port {port} of {host} may not be used by this user; expected 1024 or higher: use 8080"
        )
    if not 0 <= port <= 65535:
        return InputError(f"the port is {port}; expected a number from 0 to 65535, as 8080")
    return InputError(
        f"the live page cannot listen on {host} ({error}); expected an address of this machine: "
        "use 127.0.0.1 for this machine alone, 0.0.0.0 for everyone on the network"
    )


def _next_free(host: str, port: int, family: int) -> int | None:
    until = time.monotonic() + 1.0
    for candidate in range(port + 1, min(port + _PORTS_TRIED, 65536)):
        if time.monotonic() > until:
            break
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
            return candidate
    return None
