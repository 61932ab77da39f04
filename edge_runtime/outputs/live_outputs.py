"""Outputs to peers that listen now: NMEA sentences, and records as JSON datagrams."""

import time
from collections.abc import Callable

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.outputs.nmea_sentences import sentences
from edge_runtime.outputs.ports import Port
from edge_runtime.outputs.reported import without_doubtful_position

_EPOCH_BYTES = 290
"""The longest four sentences of a fix, with room to spare."""


class Pace:
    """Says whether it is time again; a rate it is asked for too often is kept on average."""

    def __init__(self, rate_hz: float | None, clock: Callable[[], float]) -> None:
        """At most `rate_hz`; None is as often as asked."""
        self._every_s = 0.0 if rate_hz is None else 1.0 / rate_hz
        self._clock = clock
        self._next_s: float | None = None

    def due(self) -> bool:
        """Whether to send now."""
        now_s = self._clock()
        # A tenth early is in time: frames do not come evenly.
        if self._next_s is not None and now_s < self._next_s - 0.1 * self._every_s:
            return False
        behind = self._next_s is None or now_s - self._next_s > self._every_s
        self._next_s = (now_s if behind or self._next_s is None else self._next_s) + self._every_s
        return True


class NmeaOutput:
    """Sentences of each fix, as often as the line carries them."""

    def __init__(
        self,
        name: str,
        port: Port,
        *,
        rate_hz: float | None = None,
        talker: str = "GP",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Send to a port.

        Args:
            name: for messages.
            port: owned from now on.
            rate_hz: fixes a second at most; None is what the line carries.
            talker: two letters in front of each sentence's name.
            clock: seconds, monotonic.

        Raises:
            InputError: the line is too slow for the rate, or the talker is not two letters.
        """
        most_hz = None if port.bytes_per_s is None else port.bytes_per_s / _EPOCH_BYTES
        if len(talker) != 2 or not (talker.isascii() and talker.isalpha() and talker.isupper()):
            msg = f"output {name}: talker is {talker!r}; expected two capital letters, as GP"
            raise InputError(msg)
        if rate_hz is not None and most_hz is not None and rate_hz > most_hz:
            msg = (
                f"output {name}: the line carries {most_hz:.1f} fixes a second, not {rate_hz:g}; "
                "give a lower rate_hz or a higher baud"
            )
            raise InputError(msg)
        self.name = name
        self._port = port
        self._talker = talker
        self._pace = Pace(most_hz if rate_hz is None else rate_hz, clock)

    def write(self, fix: Fix) -> None:
        """Send one fix, or leave it out if the last was a moment ago.

        Raises:
            OSError: the peer is gone.
        """
        if self._pace.due():
            self._port.send(sentences(fix, self._talker))

    def close(self) -> None:
        """Close the port."""
        self._port.close()


class JsonDatagrams:
    """One datagram a fix: its record as in the log, with no position unless it is OK."""

    def __init__(self, name: str, port: Port) -> None:
        """Send to a port."""
        self.name = name
        self._port = port

    def write(self, fix: Fix) -> None:
        """Send one fix.

        Raises:
            OSError: the peer is gone.
        """
        self._port.send(without_doubtful_position(fix).to_json().encode())

    def close(self) -> None:
        """Close the port."""
        self._port.close()
