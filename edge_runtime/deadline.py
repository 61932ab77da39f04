"""The time a frame may take, and what is left out to keep it.

What is left out first costs least: the fine repetition of the best matches (metres), then windows
of imagery (the chance to find the place), then the frame altogether.
"""

from typing import NamedTuple

_MARGIN_MS = 2.0
"""For what comes after refinement: the track and the record."""
_FORGETTING = 0.2
"""Weight of the newest frame in the times that are expected."""


class Effort(NamedTuple):
    """How much of a frame's refinement there is time for."""

    windows: int
    """Windows of imagery to look at; 0 leaves the frame out."""
    fine: bool
    """Whether the best matches are repeated at the fine resolution."""


class Deadline:
    """Learns how long refinement takes here, and cuts it to what is left. Not thread-safe."""

    def __init__(self, deadline_ms: float | None) -> None:
        """Give None for as long as it takes."""
        self.deadline_ms = deadline_ms
        self._window_ms = 3.0
        self._fine_ms = 8.0

    def afford(self, windows: int, elapsed_ms: float) -> tuple[Effort, tuple[str, ...]]:
        """What can be done in the time left, and what has to be shed for it.

        Args:
            windows: wanted.
            elapsed_ms: of this frame.

        Returns:
            The effort, and the names of what is shed: "refine", "candidates", "frame".
        """
        if self.deadline_ms is None or windows == 0:
            return Effort(windows, True), ()
        left_ms = self.deadline_ms - elapsed_ms - _MARGIN_MS
        if left_ms >= windows * self._window_ms + self._fine_ms:
            return Effort(windows, True), ()
        affordable = int(left_ms / max(self._window_ms, 0.05))
        if affordable >= windows:
            return Effort(windows, False), ("refine",)
        if affordable >= 1:
            return Effort(affordable, False), ("refine", "candidates")
        # A frame that is left out teaches nothing, so what is expected grows milder until one is
        # tried again: a slow start, or a stall, must not shed for ever.
        self._window_ms *= 1 - _FORGETTING
        return Effort(0, False), ("frame",)

    def spent(self, effort: Effort, coarse_ms: float, fine_ms: float) -> None:
        """Learn from a frame's refinement."""
        if effort.windows:
            self._window_ms += _FORGETTING * (coarse_ms / effort.windows - self._window_ms)
        if effort.windows and effort.fine:
            self._fine_ms += _FORGETTING * (fine_ms - self._fine_ms)

    def missed(self, elapsed_ms: float) -> bool:
        """Whether a frame took too long."""
        return self.deadline_ms is not None and elapsed_ms > self.deadline_ms
