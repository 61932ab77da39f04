"""What makes a number doubtful, in words beside the number."""

from typing import Literal, NamedTuple

from benchmarks.machine import Machine
from benchmarks.measurement import MeasurementRow

FEWEST_CALLS = 30
"""Fewer say little about a median and nothing about a tail."""
MOST_DRIFT = 1.1
"""Last quarter over first: more is a machine that gets hot or busy while it is timed."""

MOST_OTHERS = 0.05
"""Share of the cores that other programs may use: what an idle system does by itself is less."""

Beside = Literal["runtime", "calls", "drift", "load", "ratio"]


class Doubt(NamedTuple):
    """One reason not to believe a number."""

    beside: Beside
    """The number it belongs to."""
    said: str
    """One sentence without its full stop."""


def doubts(row: MeasurementRow) -> list[Doubt]:
    """Why this row's numbers may be too good, or too bad, to be true."""
    found = []
    if row.fallback:
        found.append(Doubt("runtime", f"Something else ran than was asked for: {row.fallback}"))
    if row.time.n < FEWEST_CALLS:
        found.append(Doubt("calls", f"Fewer than {FEWEST_CALLS} calls were timed"))
    if row.time.drift is not None and row.time.drift > MOST_DRIFT:
        found.append(
            Doubt(
                "drift",
                f"The last quarter of the calls took more than {MOST_DRIFT:g} times as long as "
                "the first",
            )
        )
    if busy := disturbed(row.machine):
        found.append(Doubt("load", busy))
    if row.limit is not None and row.limit.ratio > 1:
        found.append(
            Doubt(
                "ratio",
                "Faster than its own limit: the ceilings were measured too low, or the clock did "
                "not see all of the work",
            )
        )
    return found


def remarks(row: MeasurementRow) -> list[Doubt]:
    """The doubts, and what else a reader must know: what is written beside the numbers."""
    note = [Doubt("runtime", row.note.rstrip("."))] if row.note else []
    return [*doubts(row), *note]


def disturbed(machine: Machine) -> str:
    """What to say of other programs during a measurement; empty where there were few.

    Rows made before they were counted have a load alone, in which work of this program just
    before is counted too.
    """
    if machine.others_cores is None:
        return busy_machine(machine.load_1min, machine.cores)
    if machine.others_cores <= MOST_OTHERS * machine.cores:
        return ""
    return f"Other programs used {machine.others_cores:.2g} of {machine.cores} cores meanwhile"


def busy_machine(load: float, cores: int) -> str:
    """What to say of the load before a measurement; empty where there was little.

    Args:
        load: runnable processes, mean of a minute.
        cores: that the measured process may use.
    """
    if load <= cores / 2:
        return ""
    return f"The machine was busy before: load {load:.0f} on {cores} cores"
