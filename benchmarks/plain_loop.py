"""The loop a user would write in an afternoon: OpenCV, ONNX Runtime and NumPy, no skyfix.

It gets the same ONNX file, the same embeddings of the map and the same telemetry. Two steps are as
good as they can be had for nothing: the map's mean embedding is taken off, as skyfix does, and the
embeddings lie ready in memory as float32.

What it leaves out: lens, tilt, what was known a frame ago, and any idea of how sure an answer is.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.geodesy import move_lat_lon
from edge_runtime.imagery import ImageryStore

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

RATIO = 0.75
"""Lowe's ratio test, as in OpenCV's own tutorial on finding a known object."""
RANSAC_PX = 5.0
"""Reprojection threshold of the same tutorial."""
MIN_INLIERS = 10
"""Its MIN_MATCH_COUNT; fewer agreeing features are taken for no answer."""
BEST_TILES = 5


class _Features(NamedTuple):
    points: F32
    """(F, 2) column and row."""
    descriptors: F32 | None
    """(F, 128); None where there are no features."""


class Guess(NamedTuple):
    """What a loop says of one frame."""

    lat_deg: float | None
    """None where it gives no position."""
    lon_deg: float | None


@dataclass(frozen=True, kw_only=True)
class PlainMap:
    """The map as the loop holds it."""

    embeddings: F32
    """(T, D), unit length, the map's mean taken off."""
    centre: F32
    """(D,) that mean."""
    lat_deg: F64
    """(T,) of tile centres."""
    lon_deg: F64
    size_m: float
    """Side of a tile."""

    def __post_init__(self) -> None:
        """Refuse arrays of different length."""
        lengths = {len(self.embeddings), len(self.lat_deg), len(self.lon_deg)}
        if len(lengths) != 1 or self.embeddings.shape[1] != len(self.centre):
            msg = (
                f"embeddings are {self.embeddings.shape}, positions {len(self.lat_deg)} and "
                f"{len(self.lon_deg)}, the centre {self.centre.shape}; expected (T, D), T, T, (D,)"
            )
            raise InputError(msg)


class PlainLoop:
    """Photograph in, centre of the most similar tile out. Not thread-safe."""

    def __init__(self, onnx: Path, camera: Camera, tiles: PlainMap) -> None:
        """Open the encoder with ONNX Runtime's defaults.

        Raises:
            InputError: its input is not (N, H, W, 3).
        """
        self._session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
        taken = self._session.get_inputs()[0]
        self._input, shape = taken.name, taken.shape
        if len(shape) != 4 or shape[3] != 3:
            msg = f"{onnx} takes {shape}; expected (N, H, W, 3) uint8, as skyfix bundles do"
            raise InputError(msg)
        self._size = (int(shape[2]), int(shape[1]))
        self._camera, self._tiles = camera, tiles

    def locate(self, photo: Path, *, height_m: float, yaw_deg: float) -> Guess:
        """The centre of the tile most like a photograph.

        Args:
            photo: file.
            height_m: above ground.
            yaw_deg: heading, clockwise from north.
        """
        square = self._north_up_square(photo, height_m, yaw_deg)
        best = int(np.argmax(self._similarities(square)))
        return Guess(float(self._tiles.lat_deg[best]), float(self._tiles.lon_deg[best]))

    def _north_up_square(self, photo: Path, height_m: float, yaw_deg: float) -> U8:
        """(S, S, 3) BGR: the ground of one tile around the middle of the frame."""
        frame = cv2.imread(str(photo))
        if frame is None:
            msg = f"{photo} cannot be read as an image; expected a photograph"
            raise InputError(msg)
        height, width = frame.shape[:2]
        middle = ((width - 1) / 2, (height - 1) / 2)
        turn = cv2.getRotationMatrix2D(middle, -yaw_deg, 1.0)
        turned = cv2.warpAffine(frame, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
        gsd_m = height_m / (self._camera.fx_px * width / self._camera.width_px)
        half = self._tiles.size_m / gsd_m / 2
        top, bottom = max(0, round(middle[1] - half)), min(height, round(middle[1] + half))
        left, right = max(0, round(middle[0] - half)), min(width, round(middle[0] + half))
        square = turned[top:bottom, left:right]
        below, beside = round(2 * half) - square.shape[0], round(2 * half) - square.shape[1]
        if below > 0 or beside > 0:
            above, before = max(below, 0) // 2, max(beside, 0) // 2
            square = cv2.copyMakeBorder(
                square,
                above,
                max(below, 0) - above,
                before,
                max(beside, 0) - before,
                cv2.BORDER_REPLICATE,
            )
        return np.asarray(square, np.uint8)

    def _similarities(self, square: U8) -> F32:
        resized = cv2.resize(square, self._size, interpolation=cv2.INTER_AREA)
        rgb = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)
        embedding = self._session.run(None, {self._input: rgb[None]})[0][0]
        query = embedding - self._tiles.centre
        query /= np.linalg.norm(query)
        return np.asarray(self._tiles.embeddings @ query, np.float32)


class PlainLoopWithFeatures(PlainLoop):
    """The same, and then SIFT against the imagery of the best five tiles."""

    def __init__(self, onnx: Path, camera: Camera, tiles: PlainMap, imagery: ImageryStore) -> None:
        """Open the encoder as `PlainLoop` does.

        Args:
            onnx: encoder.
            camera: of the photographs.
            tiles: the map.
            imagery: gives the tiles' pictures, decoded ones from memory.
        """
        super().__init__(onnx, camera, tiles)
        self._imagery = imagery
        self._sift = cv2.SIFT.create()
        self._matcher = cv2.BFMatcher(cv2.NORM_L2)

    def locate(self, photo: Path, *, height_m: float, yaw_deg: float) -> Guess:
        """Where the middle of a photograph lies by the tile most features agree with.

        Args:
            photo: file.
            height_m: above ground.
            yaw_deg: heading, clockwise from north.
        """
        square = self._north_up_square(photo, height_m, yaw_deg)
        similarities = self._similarities(square)
        best = np.argpartition(-similarities, min(BEST_TILES, len(similarities) - 1))[:BEST_TILES]
        size_m = self._tiles.size_m
        size_px = max(16, round(size_m / self._imagery.gsd_m(float(self._tiles.lat_deg[best[0]]))))
        view = cv2.resize(square, (size_px, size_px), interpolation=cv2.INTER_AREA)
        seen = self._described(np.asarray(cv2.cvtColor(view, cv2.COLOR_BGR2GRAY), np.uint8))
        most, answer = MIN_INLIERS - 1, Guess(None, None)
        for row in best:
            lat, lon = float(self._tiles.lat_deg[row]), float(self._tiles.lon_deg[row])
            patch = self._imagery.patch(lat, lon, size_m=size_m, size_px=size_px).image
            grey = np.asarray(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), np.uint8)
            found = self._fitted(seen, self._described(grey), (size_px - 1) / 2)
            if found is not None and found[0] > most:
                most, column, line = found
                step_m = size_m / size_px
                place = move_lat_lon(lat, lon, column * step_m, -line * step_m)
                answer = Guess(float(place.lat_deg), float(place.lon_deg))
        return answer

    def _described(self, grey: U8) -> _Features:
        keypoints, descriptors = self._sift.detectAndCompute(grey, None)
        if descriptors is None:
            return _Features(np.zeros((0, 2), np.float32), None)
        points = np.array([k.pt for k in keypoints], np.float32)
        return _Features(points, np.asarray(descriptors, np.float32))

    def _fitted(
        self, seen: _Features, tile: _Features, middle: float
    ) -> tuple[int, float, float] | None:
        """Inliers, and where the view's middle lies, pixels right of and below the tile's."""
        if seen.descriptors is None or tile.descriptors is None:
            return None
        pairs = self._matcher.knnMatch(seen.descriptors, tile.descriptors, k=2)
        good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < RATIO * p[1].distance]
        if len(good) < MIN_INLIERS:
            return None
        source = seen.points[[m.queryIdx for m in good]]
        target = tile.points[[m.trainIdx for m in good]]
        homography, inlier = cv2.findHomography(source, target, cv2.RANSAC, RANSAC_PX)
        if homography is None:
            return None
        column, line, w = homography @ np.array([middle, middle, 1.0])
        if abs(w) < 1e-9:
            return None
        return int(np.count_nonzero(inlier)), column / w - middle, line / w - middle
