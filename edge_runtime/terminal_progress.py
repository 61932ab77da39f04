"""How a run goes on, for somebody who watches."""

import sys
import time
from contextlib import suppress

from edge_runtime.fix import Fix


class TerminalProgress:
    """One line that is rewritten on a terminal, a line every tenth elsewhere.

    Nobody needs to read it: once the terminal is gone nothing is shown any more.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._live = sys.stderr.isatty()
        self._ok = 0
        self._gone = False

    def __call__(self, fix: Fix, done: int, total: int | None) -> None:
        """Show how far the run is, and what happened."""
        self._ok += fix.status == "OK"
        if self._gone:
            return
        self._gone = True
        with suppress(OSError):
            self._show(fix, done, total)
            self._gone = False

    def _show(self, fix: Fix, done: int, total: int | None) -> None:
        for event in fix.events:
            sys.stderr.write(f"\r{event:<90}\n" if self._live else event + "\n")
        if total is None:
            self._show_endless(fix, done)
            return
        tenth = max(1, total // 10)
        if not self._live and done % tenth and done != total:
            return
        elapsed = time.perf_counter() - self._started
        left_s = elapsed / done * (total - done)
        width = 24
        filled = width * done // max(total, 1)
        line = (
            f"[{'#' * filled}{'.' * (width - filled)}] {done}/{total} frames, {self._ok} OK, "
            f"{fix.latency_ms['total']:.0f} ms, {left_s:.0f} s left"
        )
        end = "\n" if not self._live or done == total else ""
        sys.stderr.write(f"\r{line:<90}{end}" if self._live else line + "\n")
        sys.stderr.flush()

    def _show_endless(self, fix: Fix, done: int) -> None:
        """A line of a source without an end: on a terminal rewritten, else every 600 frames."""
        if not self._live and done % 600 != 1:
            return
        place = "" if fix.lat_deg is None else f" {fix.lat_deg:.5f}, {fix.lon_deg:.5f}"
        eph = "" if fix.eph_m is None else f" +-{fix.eph_m:.1f} m"
        line = (
            f"{fix.status}{place}{eph}  {done} frames, {self._ok} OK, "
            f"{fix.latency_ms['total']:.0f} ms"
        )
        sys.stderr.write(f"\r{line:<90}" if self._live else line + "\n")
        sys.stderr.flush()
