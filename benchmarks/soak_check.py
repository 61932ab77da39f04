"""What a long run must show: flat memory, and no frame or fix that is missing anywhere."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.flight_laws import Law
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.outputs.reported import position_of

SETTLED_S = 300.0
"""Memory counts from here on: pools fill, the map around the flight is read."""
MOST_GROWTH_MB = 5.0
LEAST_S = 3600.0
"""What counts as a long run."""
_KIB_MB = 1024 / 1e6


class Sample(NamedTuple):
    """What the process used at a moment."""

    t_s: float
    """Seconds since its start."""
    rss_kib: float
    anonymous_kib: float
    """Without the pages of files, which the kernel takes back when it likes."""
    threads: int
    files: int
    """Open file descriptors."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How memory went after it had settled."""

    seconds: float
    """From the first settled sample to the last."""
    by_line_mb: float
    """Of the least-squares line over that time; megabytes, 10^6 bytes."""
    most_mb: float
    """The highest sample over the first settled one."""
    threads: int
    """More threads in the last tenth than in the first."""
    files: int
    """The same of open files."""


@dataclass(frozen=True, kw_only=True)
class Completeness:
    """Whether every frame has its record and every output its fixes."""

    records: int
    dropped: int
    """Frames that records count as thrown away."""
    missing: int
    """Frame numbers neither recorded nor counted as dropped."""
    repeated: int
    """Frames that do not come after the one before."""
    wanting: dict[str, int]
    """By output: fixes it should have and has not."""
    surplus: dict[str, int]
    """By output: entries that are no fix of the log, or come twice."""


def growth_of(samples: Sequence[Sample], *, settled_s: float = SETTLED_S) -> Growth:
    """Judge memory after it has settled.

    Raises:
        InputError: fewer than three samples since.
    """
    settled = [s for s in samples if s.t_s >= settled_s]
    if len(settled) < 3:
        msg = f"{len(settled)} samples after {settled_s:g} s; expected at least 3, run for longer"
        raise InputError(msg)
    t_s = np.array([s.t_s for s in settled])
    rss_mb = np.array([s.rss_kib for s in settled]) * _KIB_MB
    slope = float(np.polyfit(t_s - t_s[0], rss_mb, 1)[0])
    tenth = max(1, len(settled) // 10)
    first, last = settled[:tenth], settled[-tenth:]
    return Growth(
        seconds=float(t_s[-1] - t_s[0]),
        by_line_mb=slope * float(t_s[-1] - t_s[0]),
        most_mb=float(rss_mb.max() - rss_mb[0]),
        threads=max(s.threads for s in last) - max(s.threads for s in first),
        files=max(s.files for s in last) - max(s.files for s in first),
    )


def completeness(records: Iterable[Fix], outputs: Mapping[str, Sequence[int]]) -> Completeness:
    """Compare frame numbers with each other, and outputs with the log.

    Args:
        records: the log, of a source that numbers its frames.
        outputs: sequence numbers of the fixes in each output; of names that begin with "positions"
            only fixes with a position are expected.

    Raises:
        InputError: no records, or frames that have no number.
    """
    count = dropped = missing = repeated = 0
    before: int | None = None
    every: set[int] = set()
    placed: set[int] = set()
    for fix in records:
        if not fix.frame.isdigit():
            msg = f"frame {fix.frame!r} has no number; expected the log of a video or camera"
            raise InputError(msg)
        number = int(fix.frame)
        # Frames before the first record may have been dropped too; the source counts from 0.
        gap = number - (-1 if before is None else before) - 1
        repeated += gap < 0
        missing += max(0, gap - fix.dropped)
        dropped += fix.dropped
        count, before = count + 1, number
        every.add(fix.seq)
        if position_of(fix) is not None:
            placed.add(fix.seq)
    if not count:
        msg = "the log has no records; expected those of a run"
        raise InputError(msg)
    wanting, surplus = {}, {}
    for name, seqs in outputs.items():
        expected = placed if name.startswith("positions") else every
        there = set(seqs)
        wanting[name] = len(expected - there)
        surplus[name] = len(seqs) - len(there & expected)
    return Completeness(
        records=count,
        dropped=dropped,
        missing=missing,
        repeated=repeated,
        wanting=wanting,
        surplus=surplus,
    )


def laws(
    growth: Growth, complete: Completeness, *, seconds: float, settled_s: float = SETTLED_S
) -> list[Law]:
    """Judge a run.

    Args:
        growth: of memory.
        complete: of records and outputs.
        seconds: how long the run was.
        settled_s: from when on `growth` is; too early, and it says nothing of a long run.
    """
    settled = settled_s >= SETTLED_S
    flat = max(growth.by_line_mb, growth.most_mb) <= MOST_GROWTH_MB
    short = "" if seconds >= LEAST_S else f"{seconds / 60:.1f} minutes; an hour is asked"
    wrong = {k: v for k, v in (complete.wanting | complete.surplus).items() if v}
    several = [*complete.wanting.values(), *complete.surplus.values()]
    return [
        Law(
            name="memory",
            required=f"grows by <= {MOST_GROWTH_MB:g} MB after it has settled",
            seen=f"{growth.by_line_mb:+.2f} MB by the line, at most {growth.most_mb:+.2f} MB, "
            f"in {growth.seconds / 60:.1f} minutes",
            holds=flat if settled else None,
            note=short,
        ),
        Law(
            name="threads and open files",
            required="no more at the end than at first",
            seen=f"{growth.threads:+d} and {growth.files:+d}",
            holds=growth.threads <= 0 and growth.files <= 0,
            note=short,
        ),
        Law(
            name="frames",
            required="each recorded, or counted as dropped",
            seen=f"{complete.records} records, {complete.dropped} dropped, {complete.missing} "
            f"missing, {complete.repeated} out of order",
            holds=complete.missing == 0 and complete.repeated == 0,
        ),
        Law(
            name="outputs",
            required="every fix in each, once",
            seen=f"{sum(several)} wrong" + (f": {wrong}" if wrong else ""),
            holds=not any(several),
        ),
    ]


def seqs_of_csv(path: Path) -> list[int]:
    """Sequence numbers of the rows of a CSV output.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open(newline="") as stream:
            return [int(row["seq"]) for row in csv.DictReader(stream)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path} cannot be read as a table of fixes ({error!r}); expected skyfix's CSV output"
        raise InputError(msg) from error


def seqs_of_geojson(path: Path) -> list[int]:
    """Sequence numbers of the points of a GeoJSON output.

    Raises:
        InputError: it cannot be read.
    """
    try:
        features = json.loads(path.read_text())["features"]
        points = [f["properties"] for f in features if f["properties"].get("kind") == "fix"]
        return [int(p["seq"]) for p in points]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path} cannot be read as GeoJSON ({error!r}); expected skyfix's GeoJSON output"
        raise InputError(msg) from error
