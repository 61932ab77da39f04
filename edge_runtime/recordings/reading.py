"""Recordings as a whole: the segments of a folder, oldest first."""

import re
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.errors import InputError
from edge_runtime.recordings.segment_file import SUFFIX, Segment, has_start, read_segment

_NAME = re.compile(rf"(\d{{6,}})(\.kept)?{re.escape(SUFFIX)}")


def segment_name(number: int, *, kept: bool = False) -> str:
    """File name of a segment; `kept` ones are not thrown away for their age."""
    return f"{number:06d}{'.kept' if kept else ''}{SUFFIX}"


def number_of(path: Path) -> int | None:
    """Number of a segment file, None for other files."""
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else None


def is_kept(path: Path) -> bool:
    """Whether it is not thrown away for its age."""
    return path.name.endswith(f".kept{SUFFIX}")


def segment_paths(folder: Path) -> list[Path]:
    """Segment files of a recording, oldest first."""
    numbered = [(number_of(path), path) for path in folder.iterdir()]
    return [path for _, path in sorted((n, p) for n, p in numbered if n is not None)]


def read_recording(folder: Path) -> Iterator[Segment]:
    """Give the segments of a recording, oldest first; replay each on its own.

    A last segment that was cut off before its first record is left out.

    Raises:
        InputError: no recording there, or a segment is altered.
    """
    try:
        paths = segment_paths(folder)
    except OSError as error:
        msg = f"{folder} cannot be read ({error}); expected a folder of skyfix run --record"
        raise InputError(msg) from error
    if not paths:
        msg = f"{folder} has no segments (*{SUFFIX}); expected a folder of skyfix run --record"
        raise InputError(msg)
    for path in paths:
        if path != paths[-1] or has_start(path):
            yield read_segment(path)
