"""The camera as the ground view needs it: pinhole intrinsics, lens distortion, mounting angles.

Angle conventions (aerospace, as DJI gimbals and MAVLink report them): yaw clockwise from north,
pitch positive nose up, roll positive right side down, applied in the order yaw, pitch, roll. A
camera's own axes are forward = optical axis, right = image right, down = image down; so pitch
-90 looks straight down with the top of the image towards the heading, and pitch 0 looks at the
horizon.
"""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.camera_files import is_foreign, read_calibration
from edge_runtime.errors import InputError

F64 = npt.NDArray[np.float64]

_LENGTHS = (0, 4, 5, 8, 12, 14)
"""How many coefficients OpenCV's polynomial lens model can have."""

_FORWARD_RIGHT_DOWN_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A calibrated camera and how it is mounted. Pixel centres are at integer coordinates."""

    width_px: int
    """Image width the intrinsics hold for."""
    height_px: int
    """Image height the intrinsics hold for."""
    fx_px: float
    """Focal length along the width, pixels."""
    fy_px: float
    """Focal length along the height, pixels."""
    cx_px: float
    """Principal point from the left, pixels."""
    cy_px: float
    """Principal point from the top, pixels."""
    distortion: tuple[float, ...] = ()
    """OpenCV's k1, k2, p1, p2[, k3[, k4, k5, k6[, s1, s2, s3, s4[, tau x, tau y]]]]; empty for
    none."""
    mount_yaw_deg: float = 0.0
    """Camera yaw relative to the airframe's nose, degrees clockwise."""
    mount_pitch_deg: float = -90.0
    """Camera pitch: -90 looks straight down."""
    mount_roll_deg: float = 0.0
    """Camera roll, degrees."""
    stabilised: bool = True
    """True: a gimbal keeps pitch and roll relative to the horizon; the airframe's are ignored."""

    def __post_init__(self) -> None:
        """Refuse intrinsics that cannot be a camera's."""
        if self.width_px < 16 or self.height_px < 16:
            msg = f"camera size {self.width_px}x{self.height_px} px is too small; expected >= 16x16"
            raise InputError(msg)
        if not (self.fx_px > 0 and self.fy_px > 0):
            msg = f"focal lengths are {self.fx_px}, {self.fy_px} px; both must be positive"
            raise InputError(msg)
        if not isinstance(self.distortion, tuple) or len(self.distortion) not in _LENGTHS:
            msg = (
                f"camera distortion is {self.distortion!r}; expected 0, 4, 5, 8, 12 or 14 "
                "coefficients (OpenCV order)"
            )
            raise InputError(msg)
        for name, value in asdict(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(isinstance(v, Real) and math.isfinite(v) for v in numbers):
                msg = f"camera {name} is {value!r}; expected finite numbers, or true or false"
                raise InputError(msg)

    @classmethod
    def from_hfov(cls, width_px: int, height_px: int, hfov_deg: float, **mounting: Any) -> "Camera":
        """Ideal camera with square pixels and a horizontal field of view in degrees."""
        if not 1 <= hfov_deg <= 170:
            msg = f"horizontal field of view {hfov_deg} is outside [1, 170] degrees"
            raise InputError(msg)
        focal_px = width_px / 2 / math.tan(math.radians(hfov_deg) / 2)
        return cls(
            width_px=width_px,
            height_px=height_px,
            fx_px=focal_px,
            fy_px=focal_px,
            cx_px=(width_px - 1) / 2,
            cy_px=(height_px - 1) / 2,
            **mounting,
        )

    @classmethod
    def load(cls, path: Path) -> "Camera":
        """Read a camera file.

        Ours is JSON: the fields of this class, or `hfov_deg` for the focal length. Calibrations of
        OpenCV (YAML, XML, JSON) and ROS (camera_info YAML) are read too; they say nothing about
        the mounting, which is then straight down until `mounted` says otherwise.

        Raises:
            InputError: unreadable, unknown or missing names, values no camera has, a fisheye lens.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
            if is_foreign(path, text):
                return cls(**read_calibration(path, text)._asdict())
            values = json.loads(text)
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            msg = (
                f"camera file {path} cannot be read ({error}); expected JSON with width_px, "
                "height_px, hfov_deg"
            )
            raise InputError(msg) from error
        if not isinstance(values, dict):
            msg = (
                f"camera file {path} holds a {type(values).__name__}; expected an object with "
                "named values"
            )
            raise InputError(msg)
        known = {field.name for field in fields(cls)} | {"hfov_deg"}
        unknown = sorted(set(values) - known)
        if unknown:
            msg = f"camera file {path} has unknown names {unknown}; known: {sorted(known)}"
            raise InputError(msg)
        if isinstance(values.get("distortion"), list):
            values["distortion"] = tuple(values["distortion"])
        try:
            return cls.from_hfov(**values) if "hfov_deg" in values else cls(**values)
        except TypeError as error:
            msg = (
                f"camera file {path}: {error}; give width_px, height_px and either hfov_deg or "
                "fx_px, fy_px, cx_px, cy_px"
            )
            raise InputError(msg) from error

    def mounted(
        self,
        *,
        yaw_deg: float | None = None,
        pitch_deg: float | None = None,
        roll_deg: float | None = None,
        stabilised: bool | None = None,
    ) -> "Camera":
        """The same camera held another way; what is not given stays.

        Raises:
            InputError: an angle that is not finite.
        """
        return replace(
            self,
            mount_yaw_deg=self.mount_yaw_deg if yaw_deg is None else yaw_deg,
            mount_pitch_deg=self.mount_pitch_deg if pitch_deg is None else pitch_deg,
            mount_roll_deg=self.mount_roll_deg if roll_deg is None else roll_deg,
            stabilised=self.stabilised if stabilised is None else stabilised,
        )

    def to_json(self) -> str:
        """This camera as JSON that `load` reads."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def scaled_to(self, width_px: int, height_px: int) -> "Camera":
        """The same camera for a resized image of the same aspect ratio (within 2 %).

        Raises:
            InputError: the aspect ratio differs, so the image was cropped and not resized.
        """
        if (width_px, height_px) == (self.width_px, self.height_px):
            return self
        sx, sy = width_px / self.width_px, height_px / self.height_px
        if abs(sx / sy - 1) > 0.02:
            msg = (
                f"the frame is {width_px}x{height_px} px but the camera file is for "
                f"{self.width_px}x{self.height_px} px: "
                "another aspect ratio means a crop; give the camera file of this mode"
            )
            raise InputError(msg)
        return replace(
            self,
            width_px=width_px,
            height_px=height_px,
            fx_px=self.fx_px * sx,
            fy_px=self.fy_px * sy,
            cx_px=(self.cx_px + 0.5) * sx - 0.5,
            cy_px=(self.cy_px + 0.5) * sy - 0.5,
        )

    def matrix(self) -> F64:
        """(3, 3) intrinsic matrix K, pixels."""
        return np.array(
            [[self.fx_px, 0.0, self.cx_px], [0.0, self.fy_px, self.cy_px], [0.0, 0.0, 1.0]],
            np.float64,
        )


def rotation_ned(yaw_deg: float, pitch_deg: float, roll_deg: float) -> F64:
    """(3, 3) rotation from forward-right-down axes to north-east-down, angles in degrees."""
    y, p, r = (math.radians(a) for a in (yaw_deg, pitch_deg, roll_deg))
    rz = np.array([[math.cos(y), -math.sin(y), 0], [math.sin(y), math.cos(y), 0], [0, 0, 1]])
    ry = np.array([[math.cos(p), 0, math.sin(p)], [0, 1, 0], [-math.sin(p), 0, math.cos(p)]])
    rx = np.array([[1, 0, 0], [0, math.cos(r), -math.sin(r)], [0, math.sin(r), math.cos(r)]])
    return np.asarray(rz @ ry @ rx, np.float64)


def optical_to_ned(
    camera: Camera,
    *,
    yaw_deg: float,
    pitch_deg: float = 0.0,
    roll_deg: float = 0.0,
    gimbal_pitch_deg: float | None = None,
    gimbal_roll_deg: float | None = None,
    gimbal_yaw_deg: float | None = None,
) -> F64:
    """(3, 3) rotation from optical axes (right, down, forward) to north-east-down.

    Args:
        camera: gives the mounting angles and whether a gimbal stabilises them.
        yaw_deg: heading of the airframe, clockwise from north.
        pitch_deg: pitch of the airframe; ignored for a stabilised camera.
        roll_deg: roll of the airframe; ignored for a stabilised camera.
        gimbal_pitch_deg: measured camera pitch relative to the horizon, in place of the mount's.
        gimbal_roll_deg: measured camera roll relative to the horizon, in place of the mount's.
        gimbal_yaw_deg: measured camera yaw clockwise from north, in place of heading plus mount.
    """
    measured = gimbal_pitch_deg is not None
    if camera.stabilised or measured:
        frd_to_ned = rotation_ned(
            yaw_deg + camera.mount_yaw_deg if gimbal_yaw_deg is None else gimbal_yaw_deg,
            camera.mount_pitch_deg if gimbal_pitch_deg is None else gimbal_pitch_deg,
            camera.mount_roll_deg if gimbal_roll_deg is None else gimbal_roll_deg,
        )
    else:
        frd_to_ned = rotation_ned(yaw_deg, pitch_deg, roll_deg) @ rotation_ned(
            camera.mount_yaw_deg, camera.mount_pitch_deg, camera.mount_roll_deg
        )
    return np.asarray(frd_to_ned @ _FORWARD_RIGHT_DOWN_FROM_OPTICAL)


def ground_to_image(camera: Camera, ned_from_optical: F64, height_m: float) -> F64:
    """(3, 3) homography from flat ground to pixels.

    Ground points are (east, north, 1), metres from the point below the camera.

    Points behind the camera get a negative third coordinate.
    """
    ground_to_ned = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, height_m]])
    return np.asarray(camera.matrix() @ ned_from_optical.T @ ground_to_ned)
