"""Opening a learned matcher beside the encoder: proven on a drawn picture, with SIFT behind it."""

import math
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.artefact import sha256_of
from edge_runtime.backends.protocol import BackendInfo
from edge_runtime.correlation import GreyPatch
from edge_runtime.errors import BackendError, InputError
from edge_runtime.feature_agreement import MIN_INLIERS, FeatureMatch
from edge_runtime.learned_matcher import CELL_PX, LearnedMatcher, unreadable
from edge_runtime.local_features import FeatureMatcher
from edge_runtime.sources.notices import Notices

U8 = npt.NDArray[np.uint8]

_TEST_SHIFT_PX = (6, -4)
"""By which a test picture is moved right and down at opening."""
_TEST_ERROR_PX = 1.0


class ResilientMatcher:
    """A learned matcher that leaves a pair to SIFT where it fails, and says so once.

    Whether it fails depends on the pair alone, so a replay takes the same turns.
    """

    def __init__(self, learned: LearnedMatcher, said: str) -> None:
        """Wrap a matcher.

        Args:
            learned: the matcher.
            said: about it, for the events.
        """
        self._learned, self._sift = learned, FeatureMatcher()
        self._notices = Notices()
        self._notices.say(said)
        self.failures = 0
        """Pairs that it failed on."""

    def match(self, view: GreyPatch, imagery: GreyPatch, *, reach_px: float) -> FeatureMatch | None:
        """As `PairMatcher.match`. Never raises for what the file does."""
        try:
            return self._learned.match(view, imagery, reach_px=reach_px)
        except BackendError as error:
            self.failures += 1
            if self.failures == 1:
                self._notices.say(f"{error}; SIFT matches where it fails")
            return self._sift.match(view, imagery, reach_px=reach_px)

    def events(self) -> list[str]:
        """What happened since the last call, one line each."""
        return self._notices.taken()

    def close(self) -> None:
        """Free the session. Calling it twice is harmless."""
        self._learned.close()


def open_matcher(
    path: Path,
    encoder: BackendInfo,
    *,
    sides_px: Sequence[int],
    reach_px: float,
    threads: int | None = None,
) -> ResilientMatcher:
    """Open a matcher beside an encoder and prove it on a drawn picture.

    Args:
        path: of the ONNX file.
        encoder: tells what to run on.
        sides_px: of the patches in flight; each is tried.
        reach_px: as in flight.
        threads: on the CPU; by default one for each core this process may use.

    Raises:
        BackendError: it cannot be run here, does not match, or the patches are too small for it.
        InputError: there is no such file.
    """
    smallest = min(sides_px)
    if math.ceil(smallest / CELL_PX) ** 2 < 2 * MIN_INLIERS:
        msg = (
            f"the map's tiles are compared at {smallest} pixels, which hold too few independent "
            f"points for a matcher; expected more than {3 * CELL_PX}. Make an index with larger "
            "tiles, or fly without --matcher"
        )
        raise BackendError(msg)
    on_gpu = encoder.name in ("ort-cuda", "ort-tensorrt", "tensorrt")
    provider = "CUDAExecutionProvider" if on_gpu else "CPUExecutionProvider"
    learned = LearnedMatcher(path, provider=provider, threads=threads)
    try:
        took_ms = [check(learned, side_px, reach_px=reach_px) for side_px in sides_px]
    except BackendError:
        learned.close()
        raise
    said = (
        f"local features by matcher {path.name} ({learned.format.name}) on {learned.provider}, "
        f"{max(took_ms):.0f} ms a pair"
    )
    return ResilientMatcher(learned, said)


def matcher_sha256(path: Path) -> str:
    """Digest of a matcher's file, which a run's settings keep.

    Raises:
        InputError: there is no such file.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(unreadable(path, error)) from error


def require_matcher(path: Path, sha256: str) -> None:
    """Refuse another file than the one that a flight had.

    Raises:
        InputError: another one, or none.
    """
    found = matcher_sha256(path)
    if found != sha256:
        msg = (
            f"matcher {path} has digest {found[:12]}, the flight's had {sha256[:12]}; put the "
            "flight's file there"
        )
        raise InputError(msg)


def check(matcher: LearnedMatcher, side_px: int, *, reach_px: float) -> float:
    """Match a drawn picture with itself, moved; this also makes the session's work space.

    Args:
        matcher: to be proven.
        side_px: of the patches in flight.
        reach_px: as in flight.

    Returns:
        Milliseconds that the second time took.

    Raises:
        BackendError: it cannot run, or does not find what was moved where it is.
    """
    right, down = _TEST_SHIFT_PX
    picture = _drawn(side_px + 2 * max(abs(right), abs(down)))
    edge = (len(picture) - side_px) // 2
    whole = np.full((side_px, side_px), 255, np.uint8)
    view, imagery = (
        GreyPatch(np.ascontiguousarray(picture[y : y + side_px, x : x + side_px]), whole)
        for x, y in ((edge + right, edge + down), (edge, edge))
    )
    matcher.match(view, imagery, reach_px=reach_px)
    started_s = time.perf_counter()
    found = matcher.match(view, imagery, reach_px=reach_px)
    took_ms = 1000 * (time.perf_counter() - started_s)
    if found is None or np.hypot(found.column - right, found.row - down) > _TEST_ERROR_PX:
        seen = "nothing" if found is None else f"{found.column:.1f}, {found.row:.1f}"
        msg = (
            f"matcher {matcher.path} finds a test picture of {side_px} pixels that was moved by "
            f"{right}, {down} pixels moved by {seen}; expected at most {_TEST_ERROR_PX:g} "
            "pixel of error. Are its points in pixels of its input, column first, and its images "
            "0..1? Export it again, or fly without --matcher"
        )
        raise BackendError(msg)
    return took_ms


def _drawn(side_px: int) -> U8:
    """(S, S) grey: fields, roofs and grain, always the same."""
    rng = np.random.default_rng(1652)
    picture = np.full((side_px, side_px), 120, np.uint8)
    for _ in range(max(60, side_px * side_px // 250)):
        x, y = rng.uniform(0, side_px, 2).tolist()
        width, height, turn = rng.uniform((5, 5, 0), (28, 28, 180)).tolist()
        corners = cv2.boxPoints(((x, y), (width, height), turn)).round().astype(np.int32)
        cv2.fillConvexPoly(picture, corners, int(rng.integers(20, 236)), cv2.LINE_AA)
    smooth = cv2.GaussianBlur(picture, (0, 0), 0.8).astype(np.float32)
    smooth += cv2.GaussianBlur(rng.normal(0, 12, picture.shape).astype(np.float32), (0, 0), 1.0)
    return np.clip(smooth, 0, 255).astype(np.uint8)
