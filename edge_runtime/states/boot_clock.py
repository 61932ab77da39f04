"""The autopilot's time since boot on this computer's clock, from when its messages arrive."""

_WINDOW_S = 60.0
"""Over this the two clocks drift apart by less than a few milliseconds."""
_REBOOT_S = 2.0
"""Packets may overtake each other, but not by this much."""


class BootClock:
    """Finds the offset of two clocks by the messages that were delayed least.

    A message arrives after it was sent, by the link's delay and however long it waited; the
    smallest difference over a while is the link's alone (a minimum filter, as in Paxson 1998,
    "On calibrating measurements of packet transit times"). What the link always takes cannot be
    seen one way and stays in the times.
    """

    def __init__(self) -> None:
        self._last_boot_s: float | None = None
        self._offset_s = 0.0
        self._coming_s = 0.0
        self._window_began_s = 0.0

    def local_s(self, boot_s: float, arrival_s: float) -> tuple[float, bool]:
        """When a message was made, on the clock of its arrival, and whether the sender rebooted."""
        delay_s = arrival_s - boot_s
        last = self._last_boot_s
        rebooted = last is not None and boot_s < last - _REBOOT_S
        if last is None or rebooted:
            self._last_boot_s = boot_s
            self._offset_s = self._coming_s = delay_s
            self._window_began_s = arrival_s
            return arrival_s, rebooted
        self._last_boot_s = max(last, boot_s)
        self._offset_s = min(self._offset_s, delay_s)
        self._coming_s = min(self._coming_s, delay_s)
        if arrival_s - self._window_began_s > _WINDOW_S:
            # What the last window saw takes the place of older minima, so drift is followed.
            self._offset_s, self._coming_s = self._coming_s, delay_s
            self._window_began_s = arrival_s
        return boot_s + self._offset_s, False
