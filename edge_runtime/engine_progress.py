"""How far an engine's build is, on a terminal or in a log."""

import sys
import time


class BuildLine:
    """One line that is rewritten on a terminal; elsewhere a line a phase, not every second."""

    def __init__(self) -> None:
        """Start the clock."""
        self._started = time.perf_counter()
        self._live = sys.stderr.isatty()
        self._phase = ""
        self._next_s = 0.0
        self._open = False

    def __call__(self, phase: str, done: int, steps: int) -> None:
        """Show how far the builder is."""
        elapsed = time.perf_counter() - self._started
        if not self._live and (phase == self._phase or elapsed < self._next_s):
            return
        self._phase, self._next_s = phase, elapsed + 10.0
        width = 24
        filled = width * done // max(steps, 1)
        line = f"[{'#' * filled}{'.' * (width - filled)}] {done}/{steps} {phase}, {elapsed:.0f} s"
        sys.stderr.write(f"\r{line[:100]:<100}" if self._live else line + "\n")
        sys.stderr.flush()
        self._open = self._live

    def close(self) -> None:
        """End the line."""
        if self._open:
            sys.stderr.write("\n")
            self._open = False
