"""A flight's frames with what was known at each, opened as `skyfix run` opens them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from edge_runtime.sources.opening import open_frames
from edge_runtime.sources.protocol import U8
from edge_runtime.state import VehicleState, with_ground_height
from edge_runtime.states.opening import open_states
from edge_runtime.states.recording import RecordedStates


class FlownFrame(NamedTuple):
    """One frame and the state at its exposure."""

    name: str
    image: U8 | None
    """(H, W, 3) uint8 RGB; None when it shows nothing or cannot be read."""
    state: VehicleState


class FlownFrames:
    """The frames of a folder or a video file, in order. May be gone through again."""

    def __init__(self, source: Path, telemetry: Path) -> None:
        """Open both.

        Args:
            source: folder of photographs, or video file.
            telemetry: any file that `skyfix run` takes; photographs without a row are left out.

        Raises:
            InputError: either is missing or unusable, or they do not fit each other.
        """
        self._states = open_states(str(telemetry))
        names = self._states.names if isinstance(self._states, RecordedStates) else None
        self._source = open_frames(str(source), names=names or None)

    def __len__(self) -> int:
        """Number of frames, about."""
        return self._source.count() or 0

    def __iter__(self) -> Iterator[FlownFrame]:
        """Decode the frames one by one."""
        with closing(self._source):
            for frame in self._source.frames():
                state = with_ground_height(self._states.at(frame.name, frame.t_s))
                yield FlownFrame(frame.name, frame.image, state)
