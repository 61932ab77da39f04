"""The pictures of a flight, as far as its frames, encoder and map are still there."""

from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from edge_runtime.errors import InputError, SkyfixError
from edge_runtime.flight_log import RunSettings
from edge_runtime.flight_page.flight_table import FlightTable
from edge_runtime.flight_page.flying_again import (
    Passed,
    frames_of_recording,
    frames_of_source,
    frames_to_pass,
    recorded_rows,
)
from edge_runtime.flight_page.picture_choice import rows_to_show
from edge_runtime.flight_page.picture_files import FramePictures, frame_pictures
from edge_runtime.imagery import ImageryStore

Progress = Callable[[int, int, int], None]
"""Told how many frames were gone through, how many there are, how many have pictures."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which pictures, and where their frames are."""

    most: int
    """Frames with pictures; 0 makes none."""
    recording: Path | None
    """Folder of a recording, in place of the run's source."""
    index: Path | None
    """Where the index is now; None for where the run had it."""


@dataclass(kw_only=True)
class Pictures:
    """What there is to see of a flight."""

    of_row: dict[int, FramePictures]
    otherwise: set[int]
    """Rows that came out otherwise than in the log."""
    passed: int = 0
    """Frames of the log that were gone through."""
    note: str = ""
    """What is missing and why, one line; empty where all that were wanted are there."""
    stopped: bool = False
    """Whether it was interrupted."""


class _Again(NamedTuple):
    rows: list[int]
    total: int
    frames: Generator[Passed, None, None]


def make_pictures(
    wanted: Wanted,
    table: FlightTable,
    settings: RunSettings | None,
    imagery: Path | None,
    progress: Progress | None = None,
) -> Pictures:
    """Go through the frames again and make pictures of some. Never raises for what is gone.

    Args:
        wanted: which, and where their frames are.
        table: of the log.
        settings: of the run; None where they are gone.
        imagery: an MBTiles file; None where it is gone.
        progress: told after every frame.
    """
    made = Pictures(of_row={}, otherwise=set())
    if wanted.most == 0:
        made.note = "no pictures were asked for"
        return made
    try:
        rows, total, frames = _again(wanted, table, settings)
        chosen = set(rows)
        with ExitStack() as stack:
            stack.enter_context(closing(frames))
            store = None if imagery is None else ImageryStore(imagery)
            if store is not None:
                stack.callback(store.close)
            for frame in frames:
                made.passed += frame.row >= 0
                if not frame.same:
                    made.otherwise.add(frame.row)
                if frame.row in chosen:
                    pictures = frame_pictures(frame.frame_rgb, frame.sight, store)
                    made.of_row[frame.row] = pictures
                if progress is not None:
                    progress(made.passed, total, len(made.of_row))
    except (SkyfixError, OSError) as error:
        made.note = f"{'no more' if made.of_row else 'no'} pictures: {error}"
    except KeyboardInterrupt:
        made.note, made.stopped = "some pictures are missing: making them was stopped", True
    return made


def _again(wanted: Wanted, table: FlightTable, settings: RunSettings | None) -> _Again:
    """Rows to make pictures of, how many frames will be gone through for them, and the frames.

    Raises:
        InputError: there are none.
    """
    if wanted.recording is not None:
        among = recorded_rows(wanted.recording, table)
        if not among:
            msg = f"{wanted.recording} holds none of the log's frames"
            raise InputError(msg)
        rows = rows_to_show(table, wanted.most, among=among)
        frames = frames_of_recording(wanted.recording, table, set(rows), index=wanted.index)
        return _Again(rows, len(among), frames)
    if settings is None:
        msg = "nothing says where the frames are"
        raise InputError(msg)
    if wanted.index is not None:
        settings = replace(settings, index=str(wanted.index))
    rows = rows_to_show(table, wanted.most)
    total = frames_to_pass(table, set(rows))
    return _Again(rows, total, frames_of_source(settings, table, set(rows)))
