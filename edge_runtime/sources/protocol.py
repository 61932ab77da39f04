"""What every source of frames is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame, or the news that there was none."""

    name: str
    """File name of a photograph; else a number that counts the source's frames, as 000123. Records
    of a camera's silence count too, so that no name comes twice."""
    image: U8 | None
    """(H, W, 3) uint8 RGB, not to be written into; None when it could not be read, did not come, or
    shows nothing to match."""
    t_s: float | None
    """Exposure time: Unix seconds of a live source, seconds from the first frame of a video file
    (played in real time too), Unix seconds of a photograph whose EXIF says it; None where it is not
    known."""
    capture_ms: float
    """Time to read and decode it."""
    problem: str = ""
    """Why there is no image; empty where there is one."""
    dropped: int = 0
    """Frames since the one before that were thrown away because a newer one had come."""


class FrameSource(Protocol):
    """Frames, one after another. Not thread-safe for its reader."""

    live: bool
    """Whether frames come at their own pace and a slow reader loses some."""
    left_out: Sequence[str]
    """Files of the source that are not given, by name."""

    def frames(self) -> Iterator[Frame]:
        """Give each frame; of a live source the newest, and at least one record per stall timeout.

        A live source that stalls or dies is reopened; the iterator ends only when the source is
        over (files) or closed.
        """
        ...

    def count(self) -> int | None:
        """Frames that will be given, about; None when that is not known."""
        ...

    def events(self) -> list[str]:
        """What happened since the last call, one line each: stalled, reopened, changed its size."""
        ...

    def close(self) -> None:
        """Stop threads and give devices back. Safe to call twice."""
        ...
