"""A picture of a map: what is known of its ground, drawn over its imagery."""

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.geodesy import enu_offset_m, move_lat_lon
from edge_runtime.index_format import MARK_FEATURELESS, TileLevel
from edge_runtime.map_ambiguity import TileScores
from edge_runtime.map_places import WorstPlace
from edge_runtime.route import RoutePoints
from edge_runtime.route_check import LOST, RouteReport
from edge_runtime.satellite_index import SatelliteIndex

U8 = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

_LONGER_SIDE_PX = 1500
_SHORTER_SIDE_PX = 700
_FOOT_PX = 150
_EDGE_PX = 24
_NICE = (1, 2, 5)
_PAPER: Colour = (247, 247, 245)
_INK: Colour = (30, 33, 38)
_PALE: Colour = (110, 116, 124)
_LOST: Colour = (255, 0, 190)
_FOUND: Colour = (255, 255, 255)
_RAMP = np.array(
    # Blue over teal and yellow to red: who cannot tell red from green still tells the ends apart.
    [(24, 52, 122), (22, 128, 148), (122, 190, 92), (242, 214, 60), (246, 140, 38), (204, 24, 24)],
    np.float64,
)


class _Frame(NamedTuple):
    """Where the ground lies in the picture: north up, one scale."""

    lat_deg: float
    lon_deg: float
    width_px: int
    height_px: int
    m_per_px: float

    def pixel(self, lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(..., 2) x, y; (0, 0) is the outer corner of the first pixel."""
        off = enu_offset_m(self.lat_deg, self.lon_deg, lat_deg, lon_deg)
        x = self.width_px / 2 + off.east_m / self.m_per_px
        y = self.height_px / 2 - off.north_m / self.m_per_px
        return np.stack([x, y], axis=-1)


def ambiguity_picture(
    index: SatelliteIndex,
    level: TileLevel,
    scores: TileScores,
    *,
    title: str,
    subtitle: str,
    worst: tuple[WorstPlace, ...] = (),
    route: tuple[RouteReport, RoutePoints] | None = None,
) -> U8:
    """Draw how likely each place is mistaken for another, over the imagery.

    Args:
        index: for the imagery.
        level: that was scored.
        scores: what is drawn; places without a score show the bare imagery.
        title: one line.
        subtitle: another, smaller.
        worst: numbered on the map.
        route: drawn over it; where the drone would be lost in another colour.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    points = None if route is None else route[1]
    frame = _frame(index, level, points)
    ground = _imagery(index, frame)
    low, high = _limits(scores)
    ground = _heat(ground, frame, level, scores, low, high)
    if route is not None:
        _draw_route(ground, frame, *route)
    _draw_worst(ground, frame, worst)
    _draw_scale_bar(ground, frame)
    signs = [
        name
        for name, drawn in (
            ("featureless", bool((scores.marks & MARK_FEATURELESS).any())),
            ("worst", bool(worst)),
            ("route", route is not None),
        )
        if drawn
    ]
    return _with_foot(ground, title, subtitle, (low, high), signs)


def png_of(image: U8) -> bytes:
    """An RGB picture as a PNG file's bytes."""
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return bytes(data)


def _frame(index: SatelliteIndex, level: TileLevel, points: RoutePoints | None) -> _Frame:
    tiles = index.tiles[level.first_row : level.row_range.stop]
    lat, lon = np.asarray(tiles["lat_deg"]), np.asarray(tiles["lon_deg"])
    half = level.size_m / 2
    start = lat[0], lon[0]
    off = enu_offset_m(*start, lat, lon)
    west, east = float(off.east_m.min()) - half, float(off.east_m.max()) + half
    south, north = float(off.north_m.min()) - half, float(off.north_m.max()) + half
    if points is not None:
        # A route may leave the map: as far as one map's size beyond it is shown.
        way = enu_offset_m(*start, points.lat_deg, points.lon_deg)
        span = max(east - west, north - south)
        west, east = (
            max(west - span, min(west, float(way.east_m.min()) - half)),
            min(east + span, max(east, float(way.east_m.max()) + half)),
        )
        south, north = (
            max(south - span, min(south, float(way.north_m.min()) - half)),
            min(north + span, max(north, float(way.north_m.max()) + half)),
        )
    m_per_px = max(east - west, north - south) / _LONGER_SIDE_PX
    middle = move_lat_lon(*start, (west + east) / 2, (south + north) / 2)
    return _Frame(
        float(middle.lat_deg),
        float(middle.lon_deg),
        max(math.ceil((east - west) / m_per_px), _SHORTER_SIDE_PX),
        max(math.ceil((north - south) / m_per_px), _SHORTER_SIDE_PX),
        m_per_px,
    )


def _imagery(index: SatelliteIndex, frame: _Frame) -> U8:
    side = max(frame.width_px, frame.height_px)
    patch = index.imagery.patch(
        frame.lat_deg, frame.lon_deg, size_m=side * frame.m_per_px, size_px=side
    )
    x, y = (side - frame.width_px) // 2, (side - frame.height_px) // 2
    cut = np.s_[y : y + frame.height_px, x : x + frame.width_px]
    image, mask = patch.image[cut], patch.mask[cut]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # Little of the colour is left: what is drawn over it has to stand out.
    calm = cv2.addWeighted(image, 0.3, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), 0.7, 0)
    outside = np.array((58, 62, 68), np.uint8)
    return np.where(mask[..., None] > 0, calm, outside).astype(np.uint8)


def _limits(scores: TileScores) -> tuple[float, float]:
    """Of the colour ramp: whole tens of per cent around what there is."""
    if len(scores.chance) == 0:
        return 0.0, 1.0
    low = math.floor(float(scores.chance.min()) * 10 + 1e-6) / 10
    high = math.ceil(float(scores.chance.max()) * 10 - 1e-6) / 10
    return (low, high) if high - low > 0.15 else (max(0.0, min(low, 0.8)), max(low, 0.0) + 0.2)


def _colours(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(...,) 0..1 to (..., 3) RGB."""
    stops = np.linspace(0, 1, len(_RAMP))
    return np.stack([np.interp(share, stops, _RAMP[:, c]) for c in range(3)], axis=-1)


def _heat(
    ground: U8, frame: _Frame, level: TileLevel, scores: TileScores, low: float, high: float
) -> U8:
    """Colour each tile's own square: one stride wide, so neighbours touch and do not overlap."""
    value = np.full(ground.shape[:2], np.nan, np.float32)
    bare = np.zeros(ground.shape[:2], np.uint8)
    half = level.stride_m / 2 / frame.m_per_px
    centres = frame.pixel(scores.lat_deg, scores.lon_deg)
    # Where tiles are smaller than pixels or thinly sampled, a square still covers a few pixels.
    half = max(half, 1.5)
    corners = np.rint(np.concatenate([centres - half, centres + half], axis=-1)).astype(int)
    for (x0, y0, x1, y1), chance, marks in zip(
        corners.tolist(), scores.chance.tolist(), scores.marks.tolist(), strict=True
    ):
        where = np.s_[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        value[where] = chance
        bare[where] = 1 if marks & MARK_FEATURELESS else 0
    known = np.isfinite(value)
    share = np.clip((np.where(known, value, 0.0) - low) / (high - low), 0.0, 1.0)
    mixed = 0.45 * ground + 0.55 * _colours(share.astype(np.float64))
    out = np.where(known[..., None], mixed, ground)
    return np.where(_hatch(ground.shape[:2], bare)[..., None], 25.0, out).astype(np.uint8)


def _hatch(shape: tuple[int, int], where: U8) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.asarray(((x + y) % 12 < 3) & (where > 0), np.bool_)


def _draw_route(ground: U8, frame: _Frame, report: RouteReport, points: RoutePoints) -> None:
    pixels = frame.pixel(points.lat_deg, points.lon_deg)
    for wide in (True, False):
        for s in report.stretches:
            inside = (points.at_m >= s.start_m - report.step_m) & (
                points.at_m <= s.end_m + report.step_m
            )
            line = np.rint(pixels[inside] * 16).astype(np.int32)
            colour = _INK if wide else _LOST if s.ground in LOST else _FOUND
            cv2.polylines(ground, [line], False, colour, 9 if wide else 5, cv2.LINE_AA, 4)
    for n, other, name in ((0, 1, "start"), (-1, -2, "end")):
        at = (round(pixels[n, 0]), round(pixels[n, 1]))
        cv2.circle(ground, at, 8, _INK, -1, cv2.LINE_AA)
        cv2.circle(ground, at, 5, _FOUND, -1, cv2.LINE_AA)
        # Beside the line: above where it leads downwards, and the other way round.
        above = pixels[other, 1] > pixels[n, 1]
        _label(ground, name, (at[0] + 12, at[1] - 8 if above else at[1] + 22), 0.6)


def _draw_worst(ground: U8, frame: _Frame, worst: tuple[WorstPlace, ...]) -> None:
    for place in worst:
        x, y = (round(float(v)) for v in frame.pixel(place.lat_deg, place.lon_deg))
        if place.look_alike_lat_deg is not None and place.look_alike_lon_deg is not None:
            there = frame.pixel(place.look_alike_lat_deg, place.look_alike_lon_deg)
            to = (round(float(there[0])), round(float(there[1])))
            cv2.line(ground, (x, y), to, _INK, 4, cv2.LINE_AA)
            cv2.line(ground, (x, y), to, _FOUND, 2, cv2.LINE_AA)
            cv2.circle(ground, to, 7, _INK, -1, cv2.LINE_AA)
            cv2.circle(ground, to, 5, _FOUND, -1, cv2.LINE_AA)
    for n, place in enumerate(worst, 1):
        x, y = (round(float(v)) for v in frame.pixel(place.lat_deg, place.lon_deg))
        cv2.circle(ground, (x, y), 16, _INK, -1, cv2.LINE_AA)
        cv2.circle(ground, (x, y), 14, _FOUND, 2, cv2.LINE_AA)
        _text(ground, str(n), (x - 6, y + 7), 0.65, _FOUND, 2)


def _draw_scale_bar(ground: U8, frame: _Frame) -> None:
    most_m = ground.shape[1] * 0.25 * frame.m_per_px
    step = 10.0 ** math.floor(math.log10(most_m))
    metres = max(n * step for n in _NICE if n * step <= most_m)
    px = round(metres / frame.m_per_px)
    x, y = _EDGE_PX, ground.shape[0] - _EDGE_PX
    for colour, thick in ((_INK, 10), (_FOUND, 4)):
        cv2.line(ground, (x, y), (x + px, y), colour, thick, cv2.LINE_AA)
    name = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    _label(ground, name, (x, y - 14), 0.7)
    x, y = ground.shape[1] - _EDGE_PX - 8, _EDGE_PX + 44
    for colour, thick in ((_INK, 8), (_FOUND, 3)):
        cv2.arrowedLine(ground, (x, y), (x, y - 40), colour, thick, cv2.LINE_AA, 0, 0.35)
    _label(ground, "N", (x - 7, y + 24), 0.65)


def _with_foot(
    ground: U8, title: str, subtitle: str, limits: tuple[float, float], signs: list[str]
) -> U8:
    """Title, colour ramp and signs below the map."""
    width = ground.shape[1]
    foot = np.full((_FOOT_PX, width, 3), _PAPER, np.uint8)
    _text(foot, title, (_EDGE_PX, 38), _fitting(title, 0.85, width), _INK, 2)
    _text(foot, subtitle, (_EDGE_PX, 66), _fitting(subtitle, 0.55, width), _PALE, 1)
    x, y = _EDGE_PX, 86
    ramp_px = min(420, width // 3)
    # As it looks over mid-grey imagery.
    ramp = 0.45 * 110 + 0.55 * _colours(np.linspace(0, 1, ramp_px))
    foot[y : y + 18, x : x + ramp_px] = ramp.astype(np.uint8)
    cv2.rectangle(foot, (x, y), (x + ramp_px, y + 18), _INK, 1)
    for k in range(3):
        at = x + round(ramp_px * k / 2)
        cv2.line(foot, (at, y + 18), (at, y + 23), _INK, 1)
        name = f"{limits[0] + (limits[1] - limits[0]) * k / 2:.0%}"
        _text(foot, name, (at - (0, 16, 38)[k], y + 40), 0.5, _INK, 1)
    x += ramp_px + 34
    if "featureless" in signs:
        foot[y : y + 19, x : x + 29] = 170
        foot[y : y + 19, x : x + 29][_hatch((19, 29), np.ones((19, 29), np.uint8))] = 25
        _text(foot, "featureless", (x + 37, y + 14), 0.5, _INK, 1)
        x += 145
    if "worst" in signs:
        cv2.circle(foot, (x + 9, y + 9), 9, _INK, -1, cv2.LINE_AA)
        cv2.line(foot, (x + 18, y + 9), (x + 44, y + 9), _INK, 2, cv2.LINE_AA)
        cv2.circle(foot, (x + 48, y + 9), 4, _INK, 2, cv2.LINE_AA)
        _text(foot, "worst places, and what each looks like", (x + 60, y + 14), 0.5, _INK, 1)
        x += 370
    if "route" in signs:
        for colour, name in ((_FOUND, "route"), (_LOST, "lost")):
            cv2.line(foot, (x, y + 9), (x + 30, y + 9), _INK, 9, cv2.LINE_AA)
            cv2.line(foot, (x, y + 9), (x + 30, y + 9), colour, 5, cv2.LINE_AA)
            _text(foot, name, (x + 42, y + 14), 0.5, _INK, 1)
            x += 105
    return np.concatenate([ground, foot])


def _fitting(text: str, scale: float, width: int) -> float:
    """The text's scale, smaller where it would not fit."""
    (px, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    return scale * min(1.0, (width - 2 * _EDGE_PX) / max(px, 1))


def _text(
    image: U8, text: str, at: tuple[int, int], scale: float, colour: Colour, thick: int
) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thick, cv2.LINE_AA)


def _label(image: U8, text: str, at: tuple[int, int], scale: float) -> None:
    """Light text with a dark edge: readable over any ground."""
    _text(image, text, at, scale, _INK, 5)
    _text(image, text, at, scale, _FOUND, 2)
