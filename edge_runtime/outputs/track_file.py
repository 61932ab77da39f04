"""Map files of points, track lines and gaps: what GeoJSON and KML have in common."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_runtime.fix import Fix
from edge_runtime.outputs.reported import Position, iso_utc_of, position_of
from edge_runtime.outputs.tailed_file import TailedFile

LINE_POINTS = 100
"""A track line is finished after so many points and the next one begins at its end, so that what
is rewritten for each fix stays small."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A time without a position."""

    begin: Fix
    """The first fix without one."""
    end: Fix
    """The last one so far."""
    fixes: int

    def seconds(self) -> float:
        """How long, by the frames' clock."""
        return max(0.0, self.end.t_exposure_s - self.begin.t_exposure_s)

    def grown_by(self, fix: Fix) -> "Gap":
        """The gap with one fix more."""
        return Gap(begin=self.begin, end=fix, fixes=self.fixes + 1)


class TrackFormat(Protocol):
    """How a file format writes the parts of a track, each without a trailing separator."""

    head: str
    separator: str
    """Between two parts."""
    end: str

    def point(self, fix: Fix, position: Position) -> str:
        """One fix."""
        ...

    def line(self, positions: list[Position]) -> str:
        """A stretch of track, two positions or more."""
        ...

    def gap(self, gap: Gap) -> str:
        """A stretch without positions."""
        ...


class TrackFile:
    """Writes fixes as points, and between them lines where the track is unbroken and gaps else."""

    def __init__(self, name: str, path: Path, track_format: TrackFormat) -> None:
        """Begin the file.

        Raises:
            OSError: it cannot be written.
        """
        self.name = name
        self._format = track_format
        self._line: list[Position] = []
        self._track = 0
        self._gap: Gap | None = None
        self._any = False
        self._file = TailedFile(path, track_format.head, track_format.end)

    def write(self, fix: Fix) -> None:
        """Add one fix.

        Raises:
            OSError: no room or the medium is gone.
        """
        before = (self._line, self._track, self._gap, self._any)
        try:
            finished = self._step(fix)
            body = self._joined(finished)
            self._any = self._any or bool(finished)
            self._file.append(body, self._joined(self._open_parts()) + self._format.end)
        except OSError:
            # The same fix is given again.
            self._line, self._track, self._gap, self._any = before
            raise

    def close(self) -> None:
        """Close the file, which is complete already."""
        self._file.close()

    def _step(self, fix: Fix) -> list[str]:
        """Take the fix in; parts that are finished by it."""
        finished = []
        position = position_of(fix)
        if position is None:
            finished += self._lines()
            self._line = []
            self._gap = (
                Gap(begin=fix, end=fix, fixes=1) if self._gap is None else self._gap.grown_by(fix)
            )
            return finished
        if self._gap is not None:
            finished.append(self._format.gap(self._gap))
            self._gap = None
        jumped = self._line and (
            fix.reset_counter != self._track or abs(position.lon_deg - self._line[-1].lon_deg) > 180
        )
        if jumped:
            finished += self._lines()
            self._line = []
        elif len(self._line) >= LINE_POINTS:
            finished += self._lines()
            self._line = self._line[-1:]
        self._track = fix.reset_counter
        self._line = [*self._line, position]
        finished.append(self._format.point(fix, position))
        return finished

    def _lines(self) -> list[str]:
        return [self._format.line(self._line)] if len(self._line) > 1 else []

    def _open_parts(self) -> list[str]:
        return self._lines() + ([] if self._gap is None else [self._format.gap(self._gap)])

    def _joined(self, parts: list[str]) -> str:
        text = self._format.separator.join(parts)
        return self._format.separator + text if parts and self._any else text


def time_words(fix: Fix) -> str:
    """The date of a fix, or the seconds of its clock."""
    return iso_utc_of(fix) or f"{fix.t_exposure_s:.3f} s"
