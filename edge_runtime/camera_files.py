"""Lens calibrations as other programs write them: OpenCV's FileStorage and ROS' camera_info.

OpenCV's calibration programs write `camera_matrix`, `distortion_coefficients`, `image_width` and
`image_height` as YAML, XML or JSON; ROS' camera_calibration the same names as plain YAML, with a
`distortion_model`. Both are read by OpenCV itself, so no YAML library is needed.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from edge_runtime.errors import InputError

_MATRIX = ("camera_matrix", "Camera_Matrix", "K")
_DISTORTION = ("distortion_coefficients", "Distortion_Coefficients", "dist_coeffs", "D")
_WIDTH = ("image_width", "image_Width")
_HEIGHT = ("image_height", "image_Height")
_PINHOLE_MODELS = ("", "plumb_bob", "rational_polynomial", "radtan")
"""ROS' and Kalibr's names of OpenCV's polynomial model (REP 104)."""
_LENGTHS = (4, 5, 8, 12, 14)

_Numbers = Callable[[str], list[float]]


class Calibration(NamedTuple):
    """Intrinsics for one picture size, pixels; distortion in OpenCV's order."""

    width_px: int
    height_px: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    distortion: tuple[float, ...]


def is_foreign(path: Path, text: str) -> bool:
    """Whether a camera file is another program's and not our JSON."""
    if not text.lstrip().startswith("{"):
        return path.suffix.lower() != ".json"
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        return False
    return isinstance(values, dict) and any(name in values for name in _MATRIX)


def read_calibration(path: Path, text: str) -> Calibration:
    """Read a calibration.

    Args:
        path: for messages.
        text: content of the file.

    Raises:
        InputError: not such a file, something missing, or a lens model that is not OpenCV's
            polynomial one.
    """
    numbers, word = _json(text) if text.lstrip().startswith("{") else _file_storage(path, text)
    model = word("distortion_model").lower()
    if model not in _PINHOLE_MODELS or any(numbers("fisheye_model")):
        msg = (
            f"camera file {path} is for a {model or 'fisheye'} lens; only OpenCV's polynomial "
            "model is supported (plumb_bob, rational_polynomial): undistort the frames first, or "
            "calibrate with that model"
        )
        raise InputError(msg)
    matrix = _first(numbers, _MATRIX)
    size = [_first(numbers, names) for names in (_WIDTH, _HEIGHT)]
    distortion = _first(numbers, _DISTORTION)
    if len(matrix) != 9 or any(len(values) != 1 for values in size):
        msg = (
            f"camera file {path} has no camera_matrix of 3x3 with image_width and image_height; "
            "expected a calibration of OpenCV or ROS, or JSON with width_px, height_px, hfov_deg"
        )
        raise InputError(msg)
    while len(distortion) > 4 and distortion[-1] == 0 and len(distortion) not in _LENGTHS:
        distortion = distortion[:-1]
    if distortion and len(distortion) not in _LENGTHS:
        msg = (
            f"camera file {path} has {len(distortion)} distortion coefficients; expected "
            f"{', '.join(map(str, _LENGTHS))} in OpenCV's order"
        )
        raise InputError(msg)
    if not all(map(math.isfinite, (*matrix, *distortion))):
        msg = f"camera file {path} has values that are not finite; calibrate again"
        raise InputError(msg)
    return Calibration(
        width_px=int(size[0][0]),
        height_px=int(size[1][0]),
        fx_px=matrix[0],
        fy_px=matrix[4],
        cx_px=matrix[2],
        cy_px=matrix[5],
        distortion=tuple(distortion) if any(distortion) else (),
    )


def _first(numbers: _Numbers, names: tuple[str, ...]) -> list[float]:
    return next((found for name in names if (found := numbers(name))), [])


def _json(text: str) -> tuple[_Numbers, Callable[[str], str]]:
    values: dict[str, Any] = json.loads(text)

    def numbers(name: str) -> list[float]:
        found = values.get(name)
        return _flat(found.get("data") if isinstance(found, dict) else found)

    return numbers, lambda name: str(values.get(name, ""))


def _flat(value: object) -> list[float]:
    if isinstance(value, list):
        return [number for item in value for number in _flat(item)]
    return [float(value)] if isinstance(value, int | float) else []


def _file_storage(path: Path, text: str) -> tuple[_Numbers, Callable[[str], str]]:
    import cv2

    xml = text.lstrip().startswith("<")
    if not xml and not text.lstrip().startswith("%YAML"):
        # ROS leaves out what OpenCV tells a YAML file by.
        text = "%YAML:1.0\n---\n" + text
    kind = cv2.FILE_STORAGE_FORMAT_XML if xml else cv2.FILE_STORAGE_FORMAT_YAML
    try:
        storage = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY | kind)
        storage.getNode(_MATRIX[0])  # Fails where the file is a list.
    except (cv2.error, SystemError) as error:
        msg = (
            f"camera file {path} cannot be read as YAML or XML ({_reason(error)}); expected a "
            "calibration of OpenCV or ROS, or JSON"
        )
        raise InputError(msg) from error

    def numbers(name: str) -> list[float]:
        return _numbers_of(storage.getNode(name))

    def word(name: str) -> str:
        node = storage.getNode(name)
        return str(node.string()) if node.isString() else ""

    return numbers, word


def _numbers_of(node: Any) -> list[float]:  # cv2.FileNode, a type only where cv2 is installed.
    if node.isInt() or node.isReal():
        return [float(node.real())]
    if node.isMap():
        return _numbers_of(node.getNode("data"))
    if node.isSeq():
        return [number for k in range(node.size()) for number in _numbers_of(node.at(k))]
    return []


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120]
