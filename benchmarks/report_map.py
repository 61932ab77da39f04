"""The map of one flight: imagery, the true track, and every fix with its accuracy."""

import base64
import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.accuracy import WITHIN_95
from benchmarks.scored_flight import Attempt, Flight, Score
from edge_runtime.errors import ImageryError
from edge_runtime.geodesy import from_mercator_unit, mercator_metres_per_unit, mercator_unit
from edge_runtime.imagery import Bounds, ImageryStore

U8 = npt.NDArray[np.uint8]

VIEW = 1000.0
"""Width of a map in SVG units."""
_MOST_CIRCLES = 500
"""Accuracy circles drawn; of more fixes than this every n-th has one."""
_NO_IMAGERY = np.array((42, 47, 53), np.uint8)
"""Colour where the map has none."""
_FEW = 60
"""Up to so many frames are drawn with larger dots."""
_NICE_M = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)

STATUS_NAMES = {
    "s-ok": "answered",
    "s-false": "false fix",
    "s-degraded": "dead reckoning",
    "s-abstain": "abstained",
    "s-lost": "lost",
    "s-missing": "not in the log",
}
"""CSS class of every status and what a legend calls it."""


class Place(NamedTuple):
    """A point on the map."""

    lat_deg: float
    lon_deg: float


def status_css(attempt: Attempt, false_fix_m: float) -> str:
    """CSS class of what became of a frame."""
    if attempt.answered:
        return "s-false" if attempt.ok_error_m > false_fix_m else "s-ok"
    if attempt.fix is None:
        return "s-missing"
    return {"DEGRADED": "s-degraded", "LOST": "s-lost"}.get(attempt.fix.status, "s-abstain")


def true_place(attempt: Attempt, score: Score) -> Place:
    """Where the frame really was, by what is scored."""
    truth = attempt.truth
    if score == "look" and truth.look_lat_deg is not None and truth.look_lon_deg is not None:
        return Place(truth.look_lat_deg, truth.look_lon_deg)
    return Place(truth.lat_deg, truth.lon_deg)


def found_place(attempt: Attempt, score: Score) -> Place | None:
    """Where the record puts it; None without a usable position."""
    fix = attempt.fix
    if fix is None or attempt.error_m is None:
        return None
    lat, lon = (
        (fix.lat_deg, fix.lon_deg) if score == "drone" else (fix.look_lat_deg, fix.look_lon_deg)
    )
    return None if lat is None or lon is None else Place(lat, lon)


def flight_map(
    flight: Flight,
    imagery: ImageryStore,
    *,
    score: Score,
    false_fix_m: float,
    width_px: int = 1400,
    jpeg_quality: int = 80,
) -> str:
    """A `<div>` with the imagery, tracks, scale bar and north arrow.

    Args:
        flight: a scored flight.
        imagery: the map.
        score: draw drone positions or look points.
        false_fix_m: an answer further off is drawn as a false fix.
        width_px: of the picture.
        jpeg_quality: of the picture.

    Raises:
        ImageryError: the flight does not lie on the imagery.
    """
    true = [true_place(a, score) for a in flight.attempts]
    found = [(a, p) for a in flight.attempts if (p := found_place(a, score)) is not None]
    frame = _Frame.around([*true, *(p for _, p in found)]).shifted_into(imagery.bounds)
    side_m = max(frame.width_m, frame.height_m)
    centre = frame.centre
    patch = imagery.patch(centre.lat_deg, centre.lon_deg, size_m=side_m, size_px=width_px)
    if not patch.mask.any():
        b = imagery.bounds
        msg = (
            f"flight {flight.name} around {centre.lat_deg:.5f}, {centre.lon_deg:.5f} is not on the "
            f"imagery ({b.south_deg:.5f} to {b.north_deg:.5f}, {b.west_deg:.5f} to "
            f"{b.east_deg:.5f}); give the index it was flown with"
        )
        raise ImageryError(msg)
    rows = max(1, round(width_px * frame.height_m / side_m))
    above = (width_px - rows) // 2
    picture = np.where(patch.mask[..., None] > 0, patch.image, _NO_IMAGERY)[above : above + rows]
    units_per_m = VIEW / frame.width_m
    height = VIEW * frame.height_m / frame.width_m

    overlay = [_track([frame.xy(p) for p in true])]
    circles = "".join(
        _circle(*frame.xy(p), WITHIN_95 * a.fix.eph_m * units_per_m)
        for a, p in found[:: math.ceil(len(found) / _MOST_CIRCLES) or 1]
        if score == "drone" and a.fix is not None and a.fix.eph_m is not None
    )
    overlay.append(f'<path class="accuracy" d="{circles}"/>')
    groups: dict[str, list[str]] = {css: [] for css in reversed(STATUS_NAMES)}
    for attempt, place in zip(flight.attempts, true, strict=True):
        css = status_css(attempt, false_fix_m)
        at = found_place(attempt, score) or place
        x, y = frame.xy(at)
        groups[css].append(f"M{x:.1f} {y:.1f}h0")
    for css, dots in groups.items():
        if dots:
            path = "".join(dots)
            title = f"<title>{escape(STATUS_NAMES[css])}</title>"
            overlay.append(f'<path class="halo {css}" d="{path}"/>')
            overlay.append(f'<path class="dots {css}" d="{path}">{title}</path>')
    x, y = frame.xy(true[0])
    overlay.append(f'<path class="start" d="M{x:.1f} {y:.1f}h0"><title>start</title></path>')

    bar_m = max((m for m in _NICE_M if m <= frame.width_m / 4), default=_NICE_M[0])
    few = ' class="few"' if len(true) <= _FEW else ""
    answered = sum(a.answered for a in flight.attempts)
    said = (
        f"Map of {flight.name}, {frame.width_m:.0f} by {frame.height_m:.0f} m, north up: the true "
        f"track of {len(true)} frames and {answered} answers on satellite imagery."
    )
    return (
        f'<div class="map"><img alt="{escape(said, quote=True)}" '
        f'width="{picture.shape[1]}" height="{picture.shape[0]}" '
        f'src="{jpeg_uri(picture, jpeg_quality)}">'
        f'<svg viewBox="0 0 {VIEW:g} {height:.1f}" aria-hidden="true"'
        f"{few}>{''.join(overlay)}</svg>"
        f'<div class="scale" style="width:{100 * bar_m / frame.width_m:.2f}%">'
        f"{_length(bar_m)}</div>"
        '<svg class="north" viewBox="0 0 24 40" aria-hidden="true">'
        '<path d="M12 2L21 27L12 21L3 27Z"/><text x="12" y="39" text-anchor="middle">N</text></svg>'
        "</div>"
    )


def jpeg_uri(image_rgb: U8, quality: int) -> str:
    """An (H, W, 3) RGB image as a data URI."""
    encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


class _Frame(NamedTuple):
    """The rectangle a map shows. Metres are those of its centre, as in `ImageryStore.patch`."""

    centre: Place
    width_m: float
    height_m: float

    @classmethod
    def around(cls, places: Sequence[Place]) -> "_Frame":
        """Everything with a margin, between 8:5 and 2:1."""
        reference = places[0]
        lon = [
            reference.lon_deg + (p.lon_deg - reference.lon_deg + 180) % 360 - 180 for p in places
        ]
        x, y = mercator_unit([p.lat_deg for p in places], lon)
        middle = from_mercator_unit((x.min() + x.max()) / 2, (y.min() + y.max()) / 2)
        centre = Place(float(middle.lat_deg), float(middle.lon_deg))
        per_x, per_y = mercator_metres_per_unit(centre.lat_deg)
        width, height = float(np.ptp(x)) * per_x, float(np.ptp(y)) * per_y
        margin = 40.0 + 0.06 * max(width, height)
        width, height = width + 2 * margin, height + 2 * margin
        width = max(width, 1.6 * height)
        return cls(centre, width, max(height, width / 2))

    def shifted_into(self, bounds: Bounds) -> "_Frame":
        """The same size, moved so that it shows no more than it must of what has no imagery."""
        per_x, per_y = mercator_metres_per_unit(self.centre.lat_deg)
        half_x, half_y = self.width_m / per_x / 2, self.height_m / per_y / 2
        lon = bounds.west_deg + (self.centre.lon_deg - bounds.west_deg) % 360.0
        x, y = (float(v) for v in mercator_unit(self.centre.lat_deg, lon))
        west, north = (float(v) for v in mercator_unit(bounds.north_deg, bounds.west_deg))
        east, south = (float(v) for v in mercator_unit(bounds.south_deg, bounds.east_deg))
        if not (west <= x <= east and north <= y <= south):
            return self
        x = _moved_between(x, west + half_x, east - half_x)
        y = _moved_between(y, north + half_y, south - half_y)
        centre = from_mercator_unit(x, y)
        return self._replace(centre=Place(float(centre.lat_deg), float(centre.lon_deg)))

    def xy(self, place: Place) -> tuple[float, float]:
        """SVG units from the top left."""
        x0, y0 = mercator_unit(self.centre.lat_deg, self.centre.lon_deg)
        x, y = mercator_unit(place.lat_deg, place.lon_deg)
        per_x, per_y = mercator_metres_per_unit(self.centre.lat_deg)
        east = float((x - x0 + 0.5) % 1.0 - 0.5) * per_x
        south = float(y - y0) * per_y
        scale = VIEW / self.width_m
        return scale * (east + self.width_m / 2), scale * (south + self.height_m / 2)


def _moved_between(value: float, low: float, high: float) -> float:
    """The nearest value within two limits; the middle of them when they have crossed."""
    return (low + high) / 2 if low > high else min(max(value, low), high)


def _track(points: Sequence[tuple[float, float]]) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="casing" d="{path}"/><path class="truth" d="{path}"/>'


def _circle(x: float, y: float, radius: float) -> str:
    if not math.isfinite(radius):
        return ""
    return (
        f"M{x - radius:.1f} {y:.1f}a{radius:.1f} {radius:.1f} 0 1 0 {2 * radius:.1f} 0"
        f"a{radius:.1f} {radius:.1f} 0 1 0 {-2 * radius:.1f} 0"
    )


def _length(metres: float) -> str:
    return f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
