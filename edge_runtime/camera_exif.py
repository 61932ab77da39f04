"""A camera from what its photographs say, and how far to trust it."""

import math
from pathlib import Path
from typing import NamedTuple

from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.states.exif import PhotoFacts, read_exif

_FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
_FULL_WIDTH_ASPECT = 4 / 3
"""A picture wider than the sensor is cut from its full width."""

SENSOR_WIDTH_MM: dict[str, tuple[float, str]] = {
    "FC300S": (6.17, 'DJI Phantom 3 Professional, specifications: 1/2.3", FOV 94 deg at 20 mm'),
    "FC300X": (6.17, 'DJI Phantom 3 Professional, specifications: 1/2.3", FOV 94 deg at 20 mm'),
    "FC6310": (13.2, 'DJI Phantom 4 Pro, specifications: 1", FOV 84 deg, 8.8 mm'),
    "FC6310R": (13.2, 'DJI Phantom 4 RTK, specifications: 1", FOV 84 deg, 8.8 mm'),
    "FC6310S": (13.2, 'DJI Phantom 4 Pro V2.0, specifications: 1", FOV 84 deg, 8.8 mm'),
    "FC7303": (6.17, 'DJI Mini 2, specifications: 1/2.3"; 69 deg measured over known distances'),
}
"""Width of the sensor by EXIF model, where the maker's figures agree with each other."""


class EstimatedCamera(NamedTuple):
    """A camera, how it was found and how far off its field of view may be."""

    camera: Camera
    hfov_deg: float
    hfov_sigma_deg: float
    how: str
    """One line for the user."""


def camera_from_exif(path: Path) -> EstimatedCamera:
    """The camera of a photograph, by the best that its metadata offer.

    In this order: the maker's calibration of this very camera; a known sensor's width and the focal
    length; pixels per millimetre and the focal length; the focal length as for 35 mm film. The last
    is written by two conventions, against the diagonal or the width of the film, in whole
    millimetres and rounded: it may be 5 % off in scale and more.

    Raises:
        InputError: not a JPEG, digital zoom, or nothing that gives a field of view.
    """
    facts = read_exif(path)
    if facts.zoom is not None and facts.zoom > 1.0:
        msg = (
            f"photograph {path} was taken with {facts.zoom:g} times digital zoom, which makers "
            "write down differently; give a camera file or --hfov-deg"
        )
        raise InputError(msg)
    found = _calibrated(facts) or _known_sensor(facts) or _focal_plane(facts) or _film(facts)
    if found is None:
        msg = (
            f"photograph {path} says nothing about its field of view (no focal length, or no "
            "sensor size); give a camera file or --hfov-deg"
        )
        raise InputError(msg)
    return found


def hfov_of_film_deg(focal_35mm_mm: float, width_px: int, height_px: int) -> float:
    """Horizontal field of view of a focal length as for 35 mm film, against the film's diagonal.

    A picture wider than 4:3 is taken to be cut from the full width of a 4:3 sensor, as drones'
    videos are; a 3:2 one to be the whole sensor.
    """
    aspect = width_px / height_px
    sensor = aspect if aspect < 1.6 else _FULL_WIDTH_ASPECT
    width_mm = _FILM_DIAGONAL_MM * sensor / math.hypot(sensor, 1.0)
    return math.degrees(2 * math.atan(width_mm / 2 / focal_35mm_mm))


def _calibrated(facts: PhotoFacts) -> EstimatedCamera | None:
    if not facts.calibrated:
        return None
    fx, fy, cx, cy, *distortion = facts.calibrated
    # A photograph that was reduced keeps in EXIF the size it had, which the calibration is for.
    scale = facts.width_px / (facts.exif_width_px or facts.width_px)
    if not 0.2 < fx * scale / facts.width_px < 10:
        return None
    camera = Camera(
        width_px=facts.width_px,
        height_px=facts.height_px,
        fx_px=fx * scale,
        fy_px=fy * scale,
        cx_px=(facts.width_px - 1) / 2 + cx * scale,
        cy_px=(facts.height_px - 1) / 2 + cy * scale,
        distortion=tuple(distortion),
    )
    hfov_deg = math.degrees(2 * math.atan(facts.width_px / 2 / camera.fx_px))
    return EstimatedCamera(camera, hfov_deg, 0.3, "the maker's calibration of this camera (XMP)")


def _known_sensor(facts: PhotoFacts) -> EstimatedCamera | None:
    known = SENSOR_WIDTH_MM.get(facts.model)
    if known is None or facts.focal_mm is None:
        return None
    width_mm, source = known
    return _ideal(facts, width_mm / facts.focal_mm, 1.0, source)


def _focal_plane(facts: PhotoFacts) -> EstimatedCamera | None:
    if facts.pixels_per_mm is None or facts.focal_mm is None:
        return None
    width_mm = facts.width_px / facts.pixels_per_mm
    if not 1.0 < width_mm < 60.0:
        return None
    how = f"EXIF: a sensor {width_mm:.2f} mm wide behind {facts.focal_mm:g} mm"
    return _ideal(facts, width_mm / facts.focal_mm, 1.5, how)


def _film(facts: PhotoFacts) -> EstimatedCamera | None:
    if facts.focal_35mm_mm is None:
        return None
    hfov_deg = hfov_of_film_deg(facts.focal_35mm_mm, facts.width_px, facts.height_px)
    how = f"EXIF: {facts.focal_35mm_mm:g} mm as for 35 mm film, taken against the diagonal"
    return _ideal(facts, 2 * math.tan(math.radians(hfov_deg / 2)), 3.0, how)


def _ideal(
    facts: PhotoFacts, width_over_focal: float, sigma_deg: float, how: str
) -> EstimatedCamera | None:
    hfov_deg = math.degrees(2 * math.atan(width_over_focal / 2))
    if not 5 <= hfov_deg <= 150:
        return None
    camera = Camera.from_hfov(facts.width_px, facts.height_px, hfov_deg)
    return EstimatedCamera(camera, hfov_deg, sigma_deg, how)
