"""Which camera a run has: of a file, of the photographs themselves, or of a field of view."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from edge_runtime.camera import Camera
from edge_runtime.camera_exif import camera_from_exif
from edge_runtime.errors import InputError
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.run_settings import RunSettings
from edge_runtime.sources.opening import open_frames
from edge_runtime.sources.uri import parse_source
from edge_runtime.states.photos import SUFFIXES

MOUNTING = ("mount_yaw_deg", "mount_pitch_deg", "mount_roll_deg")
CAMERA_OPTIONS = ("hfov_deg", "camera", *MOUNTING)
"""Options of a run that say something of its camera."""
_FRAMES_LOOKED_AT = 50
"""For one that has a picture, to know its size."""
_MOST_SCALE_SIGMA = 0.3


class FoundCamera(NamedTuple):
    """What a run is flown with where no camera file was given."""

    settings: RunSettings
    """With the camera in its options, so that a replay does not look for it again."""
    note: str
    """One line on how it was found and how far off it may be; empty for a camera file."""


def find_camera(settings: RunSettings) -> FoundCamera:
    """Settle the camera of a run that names no camera file.

    What the field of view may be off is off in the height too, so it is added to the error of the
    scale that is searched.

    Raises:
        InputError: no camera file, and nothing else that says a field of view.
    """
    options = dict(settings.options)
    hfov_deg = options.pop("hfov_deg", None)
    if settings.camera:
        if hfov_deg is not None:
            msg = (
                f"--hfov-deg {hfov_deg:g} and the camera file {settings.camera} both say a field "
                "of view; give one of them"
            )
            raise InputError(msg)
        return FoundCamera(settings, "")
    if "camera" in options:
        return FoundCamera(settings, "")
    if hfov_deg is not None:
        camera = Camera.from_hfov(*_frame_size_px(settings.source), hfov_deg)
        return FoundCamera(_with(settings, camera, options), "")
    found = camera_from_exif(_photograph(settings.source))
    sigma_rad = math.radians(found.hfov_sigma_deg)
    scale_sigma = sigma_rad / math.sin(math.radians(found.hfov_deg))
    known = options.get("scale_sigma", LocalizerConfig().scale_sigma)
    options["scale_sigma"] = round(min(math.hypot(known, scale_sigma), _MOST_SCALE_SIGMA), 4)
    note = (
        f"field of view {found.hfov_deg:.1f} +- {found.hfov_sigma_deg:.1f} degrees by {found.how}, "
        f"so heights may be {scale_sigma:.1%} off; a calibrated camera file is better"
    )
    return FoundCamera(_with(settings, found.camera, options), note)


def camera_of(settings: RunSettings) -> Camera:
    """The camera of settled settings, mounted as the options say.

    Raises:
        InputError: the camera file is missing or unreadable, or values that no camera has.
    """
    options = settings.options
    if settings.camera:
        camera = Camera.load(Path(settings.camera))
    else:
        values = dict(options["camera"])
        camera = Camera(**{**values, "distortion": tuple(values["distortion"])})
    return camera.mounted(
        **{name.removeprefix("mount_"): options[name] for name in MOUNTING if name in options}
    )


def _with(settings: RunSettings, camera: Camera, options: dict[str, object]) -> RunSettings:
    return replace(settings, options={**options, "camera": asdict(camera)})


def _photograph(uri: str) -> Path:
    folder = Path(uri)
    paths = (
        sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        if folder.is_dir()
        else []
    )
    if not paths:
        msg = (
            f"there is no camera file, and {parse_source(uri).shown} is no folder of JPEG "
            "photographs whose EXIF may say the field of view; give --camera, or --hfov-deg"
        )
        raise InputError(msg)
    return paths[0]


def _frame_size_px(uri: str) -> tuple[int, int]:
    """Width and height of the frames of a folder or a video file."""
    source = parse_source(uri)
    if source.kind != "file" or source.truth("realtime"):
        msg = f"--hfov-deg is for photographs and video files, not {source.shown}; give --camera"
        raise InputError(msg)
    frames = open_frames(uri)
    try:
        for number, frame in enumerate(frames.frames()):
            if frame.image is not None:
                height_px, width_px = frame.image.shape[:2]
                return width_px, height_px
            if number == _FRAMES_LOOKED_AT:
                break
    finally:
        frames.close()
    msg = f"{source.shown} has no picture among its first frames to tell their size; give --camera"
    raise InputError(msg)
