"""How much of the processor other programs had while something was measured.

A load average is about the last minutes and counts the measured program too; the kernel's own
counters say what was used by whom in between (proc(5), /proc/stat).
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

_STAT = Path("/proc/stat")
_USED = (0, 1, 2, 5, 6, 7)
"""user, nice, system, irq, softirq, steal. Guests are in user already; idle and iowait are free."""
LEAST_S = 0.5
"""The kernel counts hundredths of a second: over less than this a share means nothing."""


class OtherPrograms:
    """From its making on: what processes other than this one and its descendants used."""

    def __init__(
        self,
        *,
        stat: Path = _STAT,
        clock_s: Callable[[], float] = time.monotonic,
        own_s: Callable[[], float] | None = None,
    ) -> None:
        """Begin.

        Args:
            stat: the kernel's counters.
            clock_s: a monotonic clock, seconds.
            own_s: processor time of this process and its descendants so far, seconds; the
                kernel's by default.
        """
        self._stat, self._clock_s, self._own_s = stat, clock_s, own_s or _own_s
        self._began_s = clock_s()
        self._others_s = self._count_s()

    def cores(self) -> float | None:
        """Mean number of cores that others kept busy, of those that this process may use.

        On a virtual machine its neighbours count where the host says so (steal). None where the
        system has no such counters, or less than LEAST_S after the beginning.
        """
        seconds = self._clock_s() - self._began_s
        now_s = self._count_s()
        if now_s is None or self._others_s is None or seconds < LEAST_S:
            return None
        # Both counts are rounded, so that nothing may come out as a little less than nothing.
        return max(0.0, now_s - self._others_s) / seconds

    def _count_s(self) -> float | None:
        try:
            lines = self._stat.read_text().splitlines()
            mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
            of_cores = [line.split() for line in lines if line.split(" ", 1)[0] in mine]
            ticks = sum(int(fields[1 + k]) for fields in of_cores for k in _USED)
        except (OSError, ValueError, IndexError):
            return None
        if not of_cores:
            return None
        return ticks / os.sysconf("SC_CLK_TCK") - self._own_s()


def _own_s(process: int | None = None) -> float:
    """Of a process, its children that it waited for, and those that run, as workers of torch."""
    folder = Path("/proc", str(process or os.getpid()))
    try:
        # The name, in brackets, may hold anything; utime to cstime are fields 14 to 17.
        after_name = (folder / "stat").read_text().rpartition(")")[2].split()
        spent = sum(map(int, after_name[11:15])) / os.sysconf("SC_CLK_TCK")
        children = [c for path in folder.glob("task/*/children") for c in path.read_text().split()]
    except (OSError, ValueError):  # It ended meanwhile: its parent has its time.
        return 0.0
    return spent + sum(_own_s(int(child)) for child in children)
