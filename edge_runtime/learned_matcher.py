"""A learned matcher as an ONNX file in place of SIFT: `skyfix run --matcher FILE.onnx`.

It finds the points; whether they agree, and what that proves, is judged as for SIFT
(`feature_agreement`). Which files are taken, see `matcher_formats`. ONNX Runtime runs it where the
encoder runs: on the CPU, or on CUDA.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.backends.protocol import usable_cores
from edge_runtime.correlation import GreyPatch
from edge_runtime.errors import BackendError, InputError
from edge_runtime.feature_agreement import FeatureMatch, agreement
from edge_runtime.matcher_formats import PointPairs, format_of

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

CELL_PX = 20
"""Of the points in a square of the view of this side only the surest counts. A network sees much
ground around each point, so near ones are wrong together, and the evidence takes them for
independent witnesses. With a small network 940 pairs of unrelated places gave 49 that were believed
with squares of 6 pixels (evidence up to 43), 16 with 12, 1 with 16, none with 20."""
_EDGE_PX = 4
"""Points this near to the border of what was seen may be the border's and not the ground's."""


class LearnedMatcher:
    """One ONNX session. Not thread-safe; one per thread."""

    def __init__(self, path: Path, *, provider: str, threads: int | None = None) -> None:
        """Load a file and see what it is.

        Args:
            path: of the ONNX file, its weights inside.
            provider: of ONNX Runtime.
            threads: on the CPU; by default one for each core this process may use.

        Raises:
            BackendError: ONNX Runtime is missing, cannot load the file or has no such provider, or
                the file is not a matcher in a known format.
            InputError: there is no such file.
        """
        self.path = path
        try:
            model = path.read_bytes()
        except OSError as error:
            raise InputError(unreadable(path, error)) from error
        self._session: Any = _session(path, model, provider, threads)
        self.provider: str = self._session.get_providers()[0]
        self.format = format_of(self._session.get_inputs(), self._session.get_outputs(), path.name)
        self._mask_eater = np.ones((2 * _EDGE_PX + 1, 2 * _EDGE_PX + 1), np.uint8)

    def match(self, view: GreyPatch, imagery: GreyPatch, *, reach_px: float) -> FeatureMatch | None:
        """As `PairMatcher.match`.

        Raises:
            BackendError: the file cannot be run, or answers what its format does not allow.
        """
        found = self.pairs(view.image, imagery.image)
        near = np.hypot(*(found.second - found.first).T) <= reach_px
        near &= self._seen(view.mask, found.first) & self._seen(imagery.mask, found.second)
        chosen = np.flatnonzero(near)
        chosen = chosen[_surest(found.first[chosen], found.confidence[chosen])]
        return agreement(
            found.first[chosen],
            found.second[chosen],
            size_px=view.image.shape[0],
            reach_px=reach_px,
        )

    def pairs(self, first: U8, second: U8) -> PointPairs:
        """All pairs of points, wherever they lie.

        Args:
            first: (S, S) grey.
            second: of the same size.

        Raises:
            BackendError: as `match`.
        """
        if self._session is None:
            msg = f"matcher {self.path} was closed; open another"
            raise BackendError(msg)
        side_px = len(first)
        height, width, inside_px = self.format.canvas(side_px)
        inputs = self.format.inputs(
            *(_on_canvas(image, height, width, inside_px) for image in (first, second))
        )
        try:
            outputs = self._session.run(self.format.outputs, inputs)
        except Exception as error:
            msg = f"matcher {self.path} cannot run: {_first_line(error)}"
            raise BackendError(msg) from error
        try:
            found = self.format.read(outputs)
        except BackendError as error:
            msg = f"matcher {self.path}: {error}"
            raise BackendError(msg) from error
        scale = side_px / inside_px
        back = [(points + 0.5) * scale - 0.5 for points in (found.first, found.second)]
        return PointPairs(back[0], back[1], found.confidence)

    def close(self) -> None:
        """Free the session. Calling it twice is harmless."""
        self._session = None

    def _seen(self, mask: U8, points: F64) -> npt.NDArray[np.bool_]:
        """Whether points (P, 2) lie well inside of what was seen."""
        inside = cv2.erode(mask, self._mask_eater, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        last = len(mask) - 1
        nearest = np.rint(points)
        on = np.all((nearest >= 0) & (nearest <= last), axis=1)
        columns, rows = np.clip(nearest, 0, last).astype(np.intp).T
        return np.asarray(on & (np.asarray(inside)[rows, columns] > 0))


def _session(path: Path, model: bytes, provider: str, threads: int | None) -> Any:
    """Make a session as the encoder's backend does, but let the CPU have what a GPU does not take.

    Matchers look up and cut by counts that only the run knows, which CUDA leaves to the CPU.
    """
    try:
        import onnxruntime
    except ImportError as error:
        msg = (
            f"matcher {path} needs ONNX Runtime ({' '.join(str(error).split())}). Install one of: "
            "pip install 'skyfix[cpu]', pip install 'skyfix[gpu]'"
        )
        raise BackendError(msg) from error
    if provider not in onnxruntime.get_available_providers():
        msg = (
            f"the encoder runs on a GPU and this ONNX Runtime {onnxruntime.__version__} has no "
            f"{provider} for matcher {path}; install it with pip install 'skyfix[gpu]', or fly "
            "without --matcher"
        )
        raise BackendError(msg)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or usable_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = list(dict.fromkeys([provider, "CPUExecutionProvider"]))
    try:
        # From memory: weights beside the file would not be in its digest.
        session = onnxruntime.InferenceSession(model, sess_options=options, providers=providers)
    except Exception as error:
        msg = (
            f"ONNX Runtime cannot load matcher {path} on {provider}: {_first_line(error)}. "
            "Expected an ONNX file with its weights inside"
        )
        raise BackendError(msg) from error
    really = session.get_providers()[0]
    if really != provider:
        msg = (
            f"{provider} was asked for matcher {path} and ONNX Runtime fell back to {really}; see "
            "skyfix doctor"
        )
        raise BackendError(msg)
    return session


def _on_canvas(image: U8, height: int, width: int, inside_px: int) -> F32:
    """A picture in the upper left corner, 0..1; nothing beside it."""
    if len(image) != inside_px:
        shrinks = inside_px < len(image)
        image = np.asarray(
            cv2.resize(
                image,
                (inside_px, inside_px),
                interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
            ),
            np.uint8,
        )
    canvas = np.zeros((height, width), np.float32)
    np.divide(image, 255, out=canvas[:inside_px, :inside_px], dtype=np.float32)
    return canvas


def _surest(points: F64, confidence: F64) -> npt.NDArray[np.intp]:
    """Rows of the surest point in each cell, the surest first."""
    order = np.argsort(-confidence, kind="stable")
    cells = np.floor(points[order] / CELL_PX).astype(np.int64)
    _, first = np.unique(cells, axis=0, return_index=True)
    return np.asarray(order[np.sort(first)])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def unreadable(path: Path, error: OSError) -> str:
    """What to say of a file that is not there."""
    return f"matcher {path} cannot be read ({error.strerror or error}); expected an ONNX file"
