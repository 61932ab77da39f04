"""Example matches: a camera frame beside the imagery at the place that was found."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.report_map import Place, true_place
from benchmarks.scored_flight import Attempt, Flight, Score
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.geodesy import enu_offset_m
from edge_runtime.imagery import ImageryStore

U8 = npt.NDArray[np.uint8]

WIDTH_PX = 420
"""Width of each of the two pictures."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """Two pictures of one frame."""

    what: str
    """Why it was chosen."""
    flight: str
    attempt: Attempt
    frame: U8
    """(H, W, 3) RGB: what the camera saw."""
    imagery: U8
    """(H, W, 3) RGB: the imagery, turned to the same heading."""
    heading_deg: float
    """Direction of both pictures' upper edge, clockwise from north."""
    at_truth: bool
    """Whether the imagery is at the true place, because none was found."""


def choose(flights: Sequence[Flight]) -> list[tuple[str, Flight, Attempt]]:
    """Up to eight frames that show the range: best to worst answer, and what was not answered."""
    answers = sorted(
        ((f, a) for f in flights for a in f.attempts if a.answered), key=lambda p: p[1].ok_error_m
    )
    chosen: list[tuple[str, Flight, Attempt]] = []
    for what, share in (
        ("best answer", 0.0),
        ("better than 3 of 4", 0.25),
        ("median answer", 0.5),
        ("worse than 3 of 4", 0.75),
        ("worse than 9 of 10", 0.9),
        ("worst answer", 1.0),
    ):
        if answers:
            flight, attempt = answers[round(share * (len(answers) - 1))]
            if all(attempt is not a for _, _, a in chosen):
                chosen.append((what, flight, attempt))
    for status, what in (
        ("ABSTAIN", "abstained"),
        ("LOST", "lost"),
        ("DEGRADED", "dead reckoning"),
    ):
        found = [(f, a) for f in flights for a in f.attempts if a.fix and a.fix.status == status]
        if found and len(chosen) < 8:
            flight, attempt = found[len(found) // 2]
            chosen.append((what, flight, attempt))
    return chosen


def examples(
    flights: Sequence[Flight],
    frames: dict[str, Path],
    imagery: ImageryStore,
    *,
    score: Score,
    camera: Camera | None,
    ground_m: float,
) -> list[Example]:
    """Cut the pictures of the chosen frames.

    Args:
        flights: scored flights.
        frames: folder of frames by flight name; flights without one give no examples.
        imagery: the map.
        score: what was scored, for the true place.
        camera: scales the imagery to what the camera sees, with the truth's height.
        ground_m: short side of the imagery on the ground where that is not known.

    Raises:
        InputError: a frame cannot be read.
    """
    made = []
    for what, flight, attempt in choose([f for f in flights if f.name in frames]):
        path = frames[flight.name] / attempt.truth.frame
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
        if bgr is None:
            msg = (
                f"frame {path} cannot be read; expected the folder of frames that the log "
                f"{flight.log} was made from, or '-' for none"
            )
            raise InputError(msg)
        height_px = round(WIDTH_PX * bgr.shape[0] / bgr.shape[1])
        small = cv2.resize(bgr, (WIDTH_PX, height_px), interpolation=cv2.INTER_AREA)
        place, at_truth = _place(attempt, score)
        heading = (_heading_deg(attempt) + (camera.mount_yaw_deg if camera else 0.0)) % 360
        short_m = _ground_short_side_m(attempt, camera) or ground_m
        metres_per_px = short_m / min(small.shape[:2])
        cut = _turned(imagery, place, heading, metres_per_px, WIDTH_PX, height_px)
        truth = true_place(attempt, "look" if attempt.truth.look_lat_deg is not None else score)
        _mark(cut, place, truth, heading, metres_per_px, ring=not at_truth)
        made.append(
            Example(
                what=what,
                flight=flight.name,
                attempt=attempt,
                frame=np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8),
                imagery=cut,
                heading_deg=heading,
                at_truth=at_truth,
            )
        )
    return made


def _place(attempt: Attempt, score: Score) -> tuple[Place, bool]:
    """Where the picture's centre was found; the truth where it was not."""
    fix = attempt.fix
    if fix is not None and attempt.error_m is not None:
        if fix.look_lat_deg is not None and fix.look_lon_deg is not None:
            return Place(fix.look_lat_deg, fix.look_lon_deg), False
        if fix.lat_deg is not None and fix.lon_deg is not None:
            return Place(fix.lat_deg, fix.lon_deg), False
    has_look = attempt.truth.look_lat_deg is not None
    return true_place(attempt, "look" if has_look else score), True


def _heading_deg(attempt: Attempt) -> float:
    if attempt.fix is not None and attempt.fix.yaw_deg is not None and attempt.error_m is not None:
        return attempt.fix.yaw_deg
    return attempt.truth.yaw_deg or 0.0


def _ground_short_side_m(attempt: Attempt, camera: Camera | None) -> float | None:
    """Ground along the frame's short side when looking straight down."""
    height_m = attempt.truth.height_m
    if camera is None or height_m is None:
        return None
    return height_m * min(camera.width_px / camera.fx_px, camera.height_px / camera.fy_px)


def _turned(
    imagery: ImageryStore,
    place: Place,
    heading_deg: float,
    metres_per_px: float,
    width_px: int,
    height_px: int,
) -> U8:
    """(height_px, width_px, 3) imagery around a place with a heading at its upper edge."""
    side_px = math.ceil(math.hypot(width_px, height_px)) + 2
    patch = imagery.patch(
        place.lat_deg, place.lon_deg, size_m=side_px * metres_per_px, size_px=side_px
    )
    centre = (side_px - 1) / 2
    turn = cv2.getRotationMatrix2D((centre, centre), heading_deg, 1.0)
    turn[0, 2] += (width_px - 1) / 2 - centre
    turn[1, 2] += (height_px - 1) / 2 - centre
    return np.asarray(cv2.warpAffine(patch.image, turn, (width_px, height_px)), np.uint8)


def _mark(
    image: U8,
    place: Place,
    truth: Place,
    heading_deg: float,
    metres_per_px: float,
    *,
    ring: bool,
) -> None:
    """Draw a ring where it was found (the centre) and a cross at the truth, into the image."""
    offset = enu_offset_m(place.lat_deg, place.lon_deg, truth.lat_deg, truth.lon_deg)
    east, north = float(offset.east_m) / metres_per_px, float(offset.north_m) / metres_per_px
    angle = math.radians(heading_deg)
    right = east * math.cos(angle) - north * math.sin(angle)
    up = east * math.sin(angle) + north * math.cos(angle)
    height, width = image.shape[:2]
    centre = (width // 2, height // 2)
    at = (round((width - 1) / 2 + right), round((height - 1) / 2 - up))
    for colour, thick in (((0, 0, 0), 4), ((255, 255, 255), 2)):
        if ring:
            cv2.circle(image, centre, 11, colour, thick, cv2.LINE_AA)
        if 0 <= at[0] < width and 0 <= at[1] < height:
            cv2.drawMarker(image, at, colour, cv2.MARKER_CROSS, 12, thick, cv2.LINE_AA)
