"""The newest frame, its ground view and the imagery it was matched with, as JPEG.

Nothing is kept of a frame unless somebody has asked for pictures within the last seconds, and
nothing is encoded until it is asked for, on a thread that does only this.
"""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ImageryError
from edge_runtime.fix import Fix
from edge_runtime.imagery import ImageryStore
from edge_runtime.sight import Sight

U8 = npt.NDArray[np.uint8]

Kind = Literal["frame", "view", "imagery"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SHORTEST_S = 0.2
"""Between two frames that are encoded."""
_WANTED_S = 5.0
"""After a request, frames are kept for the next one for this long."""
_WAIT_S = 3.0
"""Longest wait for a frame by the first request."""
_SHOTS = 4
_LONGEST_FRAME_PX, _LARGEST_VIEW_PX = 960, 512
_QUALITY = 82


class Shot(NamedTuple):
    """One frame that pictures can be had of."""

    seq: int
    name: str
    frame: U8 | None
    """At most _LONGEST_FRAME_PX long."""
    sight: Sight | None
    jpegs: dict[Kind, bytes]
    """What has been encoded of it."""


class ShotInfo(NamedTuple):
    """What there is to see of a frame."""

    seq: int
    name: str
    kinds: tuple[Kind, ...]
    size_m: float | None
    """Side of the view and of the imagery."""


class Pictures:
    """Keeps the newest frame while it is wanted. Thread-safe."""

    def __init__(self, imagery: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Open nothing yet.

        Args:
            imagery: the MBTiles file to cut from.
            clock: seconds that never go back.
        """
        self._imagery, self._clock = imagery, clock
        self._offered = threading.Condition()
        self._newest: tuple[Fix, U8 | None, Sight | None] | None = None
        self._wanted_s = -_WANTED_S
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="skyfix-live-page-pictures")
        # Only the worker's thread touches what follows.
        self._store: ImageryStore | None = None
        self._shots: dict[int, Shot] = {}
        self._shot_s = -SHORTEST_S

    def offer(self, fix: Fix, frame_rgb: U8 | None, sight: Sight | None) -> None:
        """Keep a frame if anybody looks, without copying it; the one before is let go."""
        with self._offered:
            wanted = self._clock() - self._wanted_s < _WANTED_S
            self._newest = (fix, frame_rgb, sight) if wanted else None
            self._offered.notify_all()

    def newest(self) -> ShotInfo | None:
        """Take the newest frame for encoding, at most one every SHORTEST_S.

        Returns:
            What there is to see of it; None where no frame comes.
        """
        self._wait_for_frame()
        shot = self._worker.submit(self._take_shot).result()
        return None if shot is None else _info(shot)

    def jpeg(self, kind: Kind, seq: int | None = None) -> bytes | None:
        """One picture of a frame that `newest` has named, or of the newest one.

        Raises:
            ImageryError: the imagery cannot be read.
        """
        if seq is None:
            info = self.newest()
            if info is None:
                return None
            seq = info.seq
        return self._worker.submit(self._encode, kind, seq).result()

    def close(self) -> None:
        """Let everything go. Calling it twice is harmless."""
        with self._offered:
            self._newest, self._wanted_s = None, -math.inf
        # SQLite wants to be closed on the thread that opened it.
        with suppress(RuntimeError):
            self._worker.submit(self._close_store)
        self._worker.shutdown(wait=True)

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _wait_for_frame(self) -> None:
        with self._offered:
            self._wanted_s = self._clock()
            if not self._shots:
                self._offered.wait_for(lambda: self._newest is not None, _WAIT_S)

    def _take_shot(self) -> Shot | None:
        last = next(reversed(self._shots.values()), None)
        with self._offered:
            newest, now_s = self._newest, self._clock()
        if newest is None or (last is not None and last.seq == newest[0].seq):
            return last
        if last is not None and now_s - self._shot_s < SHORTEST_S:
            return last
        fix, frame, sight = newest
        small = None if frame is None or not frame.size else _shrunk(frame, _LONGEST_FRAME_PX)
        shot = Shot(fix.seq, fix.frame, small, sight, {})
        # A page that is open while a new run begins sees sequence numbers start again.
        self._shots.pop(fix.seq, None)
        self._shots[fix.seq] = shot
        self._shot_s = now_s
        while len(self._shots) > _SHOTS:
            self._shots.pop(next(iter(self._shots)))
        return shot

    def _encode(self, kind: Kind, seq: int) -> bytes | None:
        shot = self._shots.get(seq)
        if shot is None or kind not in _info(shot).kinds:
            return None
        if kind not in shot.jpegs:
            shot.jpegs[kind] = _jpeg(self._picture(kind, shot))
        return shot.jpegs[kind]

    def _picture(self, kind: Kind, shot: Shot) -> U8:
        if kind == "frame" and shot.frame is not None:
            return shot.frame
        sight = shot.sight
        if sight is not None and kind == "view":
            return _as_matched(sight)
        if sight is None or sight.centre_lat_deg is None or sight.centre_lon_deg is None:
            msg = f"frame {shot.seq} has no {kind}"
            raise ImageryError(msg)
        if self._store is None:
            self._store = ImageryStore(self._imagery)
        return self._store.patch(
            sight.centre_lat_deg,
            sight.centre_lon_deg,
            size_m=sight.size_m,
            size_px=min(sight.view_rgb.shape[0], _LARGEST_VIEW_PX),
        ).image


def _info(shot: Shot) -> ShotInfo:
    sight = shot.sight
    found: list[Kind] = []
    if shot.frame is not None:
        found.append("frame")
    if sight is not None:
        found.append("view")
        if sight.centre_lat_deg is not None and sight.centre_lon_deg is not None:
            found.append("imagery")
    return ShotInfo(shot.seq, shot.name, tuple(found), None if sight is None else sight.size_m)


def _as_matched(sight: Sight) -> U8:
    """The view turned and scaled as the best match says; black where the camera saw nothing.

    A heading that grows turns the ground clockwise in the view, as in `correlation.warped`.
    """
    size_px = sight.view_rgb.shape[0]
    middle = (size_px - 1) / 2
    turn = cv2.getRotationMatrix2D(
        (middle, middle), -sight.yaw_correction_deg, sight.scale_correction
    )
    seen = np.where(sight.mask[..., None] > 0, sight.view_rgb, np.uint8(0))
    turned = cv2.warpAffine(np.asarray(seen, np.uint8), turn, (size_px, size_px))
    return _shrunk(np.asarray(turned, np.uint8), _LARGEST_VIEW_PX)


def _shrunk(image: U8, longest_px: int) -> U8:
    """A picture no longer than this; a copy in any case, so that the large one can go."""
    height, width = image.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return image.copy()
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _jpeg(rgb: U8) -> bytes:
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not done:
        msg = f"OpenCV cannot encode a picture of shape {rgb.shape} as JPEG"
        raise ImageryError(msg)
    return data.tobytes()
