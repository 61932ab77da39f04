"""The recorder: a ring of segments on disk, written on a thread that never holds a frame up."""

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.recordings.reading import is_kept, number_of, segment_name, segment_paths
from edge_runtime.recordings.segment_file import Recorded, SegmentWriter
from edge_runtime.sources.protocol import Frame
from edge_runtime.state import VehicleState

SEGMENT_S = 10.0
QUEUE_FRAMES = 16
MIN_FREE_BYTES = 256 << 20
"""Left to the log and everything else on the medium."""
_RETRY_S = 2.0
_SEGMENTS_OF_RING = 4
"""A segment ends at this part of the limit, so that deleting one leaves most of the ring."""


class _Begin(NamedTuple):
    snapshot: dict[str, Any]


class Recorder:
    """Keeps the newest segments of a flight within a limit of bytes and of age.

    The loop calls `before_step` before and `offer` after each step of the localizer. A segment has
    every step since its snapshot: where one could not be recorded, a new segment begins.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        max_s: float | None = None,
        only_lost: bool = False,
        settings: dict[str, Any] | None = None,
        segment_s: float = SEGMENT_S,
        queue_frames: int = QUEUE_FRAMES,
        min_free_bytes: int = MIN_FREE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Go on with a folder; segments that are there count towards the limits.

        Args:
            folder: made if missing.
            max_bytes: of all segments together; the oldest go first.
            max_s: segments that ended longer ago go; None keeps them while there is room.
            only_lost: keep the segments of the last `max_s` (60 without) when the status turns
                LOST, and no others.
            settings: JSON values that say what the run was made of; stored in each segment.
            segment_s: a new segment begins after this time.
            queue_frames: frames that wait for the medium.
            min_free_bytes: nothing is recorded where less is free.
            clock: seconds, monotonic.

        Raises:
            InputError: the folder cannot be written, or a limit makes no sense.
        """
        ages = segment_s > 0 and (max_s is None or max_s > 0)
        if max_bytes < 1 << 16 or queue_frames < 2 or not ages:
            msg = (
                f"recording {folder}: limits {max_bytes} bytes, {max_s} s, segments of "
                f"{segment_s} s, queue of {queue_frames}; expected at least 65536 bytes, times "
                "above 0 and a queue of 2"
            )
            raise InputError(msg)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._finished = {path: path.stat().st_size for path in segment_paths(folder)}
        except OSError as error:
            msg = f"recording {folder} cannot be written ({error.strerror}); choose another folder"
            raise InputError(msg) from error
        self.folder = folder
        self._max_bytes = max_bytes
        self._max_s = 60.0 if only_lost and max_s is None else max_s
        self._only_lost = only_lost
        self._settings = settings or {}
        self._segment_s = segment_s
        self._queue_frames = queue_frames
        self._min_free_bytes = min_free_bytes
        self._clock = clock
        self._number = max((number_of(path) or 0 for path in self._finished), default=0)
        self._ended_s = dict.fromkeys(self._finished, clock())
        self._waiting: deque[_Begin | Recorded] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._busy = False
        self._events: list[str] = []
        # The loop's side: whether frames may be offered to the segment it has begun.
        self._open = False
        self._begun_s = 0.0
        self._break = False
        self._not_before_s = 0.0
        self._dropped = 0
        # The thread's side.
        self._writer: SegmentWriter | None = None
        self._keep = False
        self._was_lost = False
        self._failing = False
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def before_step(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        """Begin a segment if one is due; then only, `snapshot` is called."""
        now_s = self._clock()
        with self._changed:
            if self._closing or now_s < self._not_before_s:
                self._open = False
                return
            due = not self._open or self._break or now_s - self._begun_s >= self._segment_s
            if not due or len(self._waiting) >= self._queue_frames:
                return
        begin = _Begin(snapshot())
        with self._changed:
            self._waiting.append(begin)
            self._open, self._break, self._begun_s = True, False, now_s
            self._changed.notify_all()

    def offer(self, frame: Frame, state: VehicleState, fix: Fix) -> None:
        """Take one step to be recorded. The image must not be written to any more."""
        with self._changed:
            if not self._open or self._closing:
                return
            if len(self._waiting) >= self._queue_frames:
                self._open = False
                self._dropped += 1
                if self._dropped == 1:
                    self._events.append(
                        f"recording {self.folder.name}: the medium is too slow, frames are left out"
                    )
                return
            self._waiting.append(Recorded(frame=frame, state=state, fix=fix))
            self._changed.notify_all()

    def events(self) -> list[str]:
        """What happened since the last call, one line each: failing, too slow, kept, again."""
        with self._changed:
            told, self._events = self._events, []
            return told

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything offered so far is written or given up."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits and finish the segment, in bounded time. Safe to call twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._waiting) or self._closing)
                if not self._waiting:
                    break
                item = self._waiting.popleft()
                self._busy = True
            try:
                if isinstance(item, _Begin):
                    self._begin(item)
                else:
                    self._record(item)
            except OSError as error:
                self._give_up(error)
        with suppress(OSError):
            self._finish()
            if self._only_lost:
                for path in [p for p in self._finished if not is_kept(p)]:
                    self._remove(path)

    def _begin(self, begin: _Begin) -> None:
        self._finish()
        self._prune()
        free = shutil.disk_usage(self.folder).free
        if free < self._min_free_bytes:
            raise OSError(
                f"only {free >> 20} MiB free, {self._min_free_bytes >> 20} are left alone"
            )
        self._number += 1
        path = self.folder / segment_name(self._number)
        self._writer = SegmentWriter(path, begin.snapshot, self._settings)

    def _record(self, recorded: Recorded) -> None:
        if self._writer is None:
            return
        self._writer.write(recorded)
        if self._failing:
            self._failing = False
            self._tell(f"recording {self.folder.name} goes on")
        lost = recorded.fix.status == "LOST"
        if self._only_lost and lost and not self._was_lost:
            self._keep_all()
        self._was_lost = lost
        if self._writer.size > self._max_bytes / _SEGMENTS_OF_RING:
            with self._changed:
                self._break = True
        self._prune()

    def _keep_all(self) -> None:
        """Take the segment at hand and those before it out of the ring."""
        self._keep = True
        for path in [path for path in self._finished if not is_kept(path)]:
            self._rename_kept(path)
        self._tell(f"recording {self.folder.name}: lost, the last {self._max_s:.0f} s are kept")

    def _rename_kept(self, path: Path) -> None:
        kept = path.with_name(segment_name(number_of(path) or 0, kept=True))
        path.rename(kept)
        self._finished[kept] = self._finished.pop(path)
        self._ended_s[kept] = self._ended_s.pop(path)

    def _finish(self) -> None:
        writer, self._writer = self._writer, None
        keep, self._keep = self._keep, False
        if writer is None:
            return
        try:
            writer.finish()
        finally:
            self._finished[writer.path] = writer.size
            self._ended_s[writer.path] = self._clock()
        if keep:
            self._rename_kept(writer.path)

    def _prune(self) -> None:
        """Remove the oldest segments that are over a limit, never the one at hand."""
        now_s = self._clock()
        if self._max_s is not None:
            for path in [p for p in self._finished if not is_kept(p)]:
                if now_s - self._ended_s[path] > self._max_s:
                    self._remove(path)
        total = sum(self._finished.values()) + (self._writer.size if self._writer else 0)
        for path in sorted(self._finished, key=lambda p: (is_kept(p), number_of(p))):
            if total <= self._max_bytes:
                return
            total -= self._finished[path]
            self._remove(path)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        del self._finished[path], self._ended_s[path]

    def _give_up(self, error: OSError) -> None:
        """Leave the segment as it is, make room, and let the loop begin another one later."""
        with suppress(OSError):
            self._finish()
        plain = [p for p in self._finished if not is_kept(p)]
        if plain and self._failing:
            with suppress(OSError):
                self._remove(plain[0])
        if not self._failing:
            self._failing = True
            self._tell(
                f"recording {self.folder.name} stopped ({error.strerror or error}), trying again"
            )
        with self._changed:
            self._break = True
            self._not_before_s = self._clock() + _RETRY_S

    def _tell(self, event: str) -> None:
        with self._changed:
            self._events.append(event)
