"""A log's frames gone through again, as `skyfix replay` does, for what they showed."""

from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.flight_camera import find_camera
from edge_runtime.flight_log import RunSettings
from edge_runtime.flight_opening import is_live, open_localizer, opened, settings_of
from edge_runtime.flight_page.flight_table import FlightTable
from edge_runtime.localizer import Localizer
from edge_runtime.recordings.reading import read_recording
from edge_runtime.sight import Sight

U8 = npt.NDArray[np.uint8]


class Passed(NamedTuple):
    """One frame that was localised again."""

    row: int
    """Of the table; -1 for a frame whose record is not in the log."""
    frame_rgb: U8 | None
    sight: Sight | None
    """Good until the next frame."""
    same: bool
    """Whether the answer came out as in the log."""


def frames_of_source(
    settings: RunSettings, table: FlightTable, chosen: Collection[int]
) -> Generator[Passed, None, None]:
    """Localise a log's frames again, up to the last that is chosen.

    Args:
        settings: of the run.
        table: of the log.
        chosen: rows that are asked for; runs without any are not flown.

    Raises:
        SkyfixError: something that the settings name is missing or altered, or the source gives
            other frames than the log has.
    """
    if is_live(settings.source):
        msg = (
            f"the source {settings.source} was live and its frames are gone; give the "
            "folder that skyfix run --record wrote, as --recording"
        )
        raise InputError(msg)
    settings = find_camera(settings).settings
    for rows in table.runs():
        wanted = [row for row in rows if row in chosen]
        if wanted:
            yield from _one_run(settings, table, rows, wanted[-1])


def frames_to_pass(table: FlightTable, chosen: Collection[int]) -> int:
    """How many frames `frames_of_source` localises, about."""
    count = 0
    for rows in table.runs():
        wanted = [row for row in rows if row in chosen]
        if wanted:
            count += table.column("seq")[wanted[-1]] + 1
    return count


def recorded_rows(folder: Path, table: FlightTable) -> list[int]:
    """Rows whose frames a recording holds, ascending.

    Raises:
        InputError: no recording, or it is altered.
    """
    row_of = _row_of(table)
    found = {
        row
        for segment in read_recording(folder)
        for recorded in segment.records()
        if (row := row_of.get(_identity(recorded.fix))) is not None
    }
    return sorted(found)


def recorded_fixes(folder: Path) -> Iterator[Fix]:
    """The records that a recording holds, oldest first.

    Raises:
        InputError: no recording, or it is altered.
    """
    for segment in read_recording(folder):
        for recorded in segment.records():
            yield recorded.fix


def settings_of_recording(folder: Path) -> RunSettings:
    """What the newest run of a recording was made of.

    Raises:
        InputError: no recording, or of another version.
    """
    newest = None
    for segment in read_recording(folder):
        newest = segment
    if newest is None:
        msg = f"{folder} holds no frame; expected a folder of skyfix run --record"
        raise InputError(msg)
    return settings_of(newest.settings, newest.path)


def frames_of_recording(
    folder: Path, table: FlightTable, chosen: Collection[int], *, index: Path | None = None
) -> Generator[Passed, None, None]:
    """Localise the frames of a recording again: the segments that hold a chosen one.

    Each segment begins with the localizer's state, so those before it need not be flown.

    Args:
        folder: of the recording.
        table: of its records, or of the log beside it.
        chosen: rows that are asked for.
        index: where the satellite index is now; None for where it was.

    Raises:
        SkyfixError: something that the recording names is missing or altered.
    """
    row_of = _row_of(table)
    localizer: Localizer | None = None
    of_run: dict[str, Any] = {}
    try:
        for segment in read_recording(folder):
            rows = [row_of.get(_identity(recorded.fix), -1) for recorded in segment.records()]
            wanted = [k for k, row in enumerate(rows) if row in chosen]
            if not wanted:
                continue
            if localizer is not None and segment.settings != of_run:
                localizer.close()
                localizer = None
            if localizer is None:
                of_run = segment.settings
                values = of_run if index is None else of_run | {"index": str(index)}
                localizer = open_localizer(settings_of(values, segment.path))
            localizer.restore(segment.snapshot)
            for k, recorded in enumerate(segment.records()):
                frame = recorded.frame
                fix = localizer.step(
                    frame.image,
                    recorded.state,
                    frame_name=frame.name,
                    capture_ms=frame.capture_ms,
                    problem=frame.problem,
                    effort=None if rows[k] < 0 else table.effort(rows[k]),
                )
                same = rows[k] < 0 or _is_same(table, rows[k], fix)
                yield Passed(rows[k], frame.image, localizer.sight, same)
                if k == wanted[-1]:
                    break
    finally:
        if localizer is not None:
            localizer.close()


def _one_run(
    settings: RunSettings, table: FlightTable, rows: range, last: int
) -> Generator[Passed, None, None]:
    row_of = {seq: row for row, seq in zip(rows, table.column("seq")[rows.start :], strict=False)}
    row = -1
    with opened(settings) as flight:
        for seq, frame in enumerate(flight.source.frames()):
            row = row_of.get(seq, -1)
            if row >= 0 and table.names[row] != frame.name:
                msg = (
                    f"{settings.source} gives {frame.name!r} where the log has "
                    f"{table.names[row]!r}: frames were added, taken away or renamed"
                )
                raise InputError(msg)
            fix = flight.step(frame, effort=None if row < 0 else table.effort(row))
            same = row < 0 or _is_same(table, row, fix)
            yield Passed(row, frame.image, flight.localizer.sight, same)
            if row == last:
                return
    msg = f"{settings.source} ends before frame {table.names[last]!r} of the log"
    raise InputError(msg)


def _is_same(table: FlightTable, row: int, fix: Fix) -> bool:
    """Whether status and place are as in the log, to a decimetre."""
    if fix.status != table.status(row):
        return False
    before = table.place(row)
    if before is None or fix.lat_deg is None or fix.lon_deg is None:
        return before is None and fix.lat_deg is None
    return abs(before[0] - fix.lat_deg) < 1e-6 and abs(before[1] - fix.lon_deg) < 1e-6


def _identity(fix: Fix) -> tuple[int, str, float]:
    return fix.seq, fix.frame, float(fix.t_exposure_s)


def _row_of(table: FlightTable) -> dict[tuple[int, str, float], int]:
    """Rows by what tells their frames from all others, also of other runs."""
    seqs, times = table.column("seq"), table.column("t_exposure_s")
    return {key: row for row, key in enumerate(zip(seqs, table.names, times, strict=True))}
