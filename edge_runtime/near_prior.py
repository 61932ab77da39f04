"""The tiles near a place, found without touching the others.

Tiles lie along a Hilbert curve, so those within some hundred metres are a few runs of rows. A
two-step table of boxes around consecutive rows, computed when an index is opened, says which runs
can hold any; only their tiles are measured. Nothing is lost: a box that could hold a tile of the
area is never skipped.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from edge_runtime.errors import InputError
from edge_runtime.geodesy import (
    ECCENTRICITY_SQUARED,
    F64,
    SEMI_MAJOR_M,
    check_lat_lon,
    enu_offset_m,
    mercator_unit,
    wrap_degrees,
)
from edge_runtime.index_format import TileLevel
from edge_runtime.vector_search import BLOCK_ROWS, I64, Mask, RowBlock

_FINE_ROWS = 32
_COARSE_BOXES = 64
"""Fine boxes in a coarse one."""
_JOINED_ROWS = 16
"""Runs that are closer are compared as one: rows between cost less than another call."""
_CHUNK_ROWS = 1 << 20
_LEAST_MERIDIAN_RADIUS_M = SEMI_MAJOR_M * (1 - ECCENTRICITY_SQUARED)
"""At the equator; a degree of latitude is nowhere shorter."""


class Circle(NamedTuple):
    """Where something can be: a position and a radius around it."""

    lat_deg: float
    lon_deg: float
    radius_m: float


class Ellipse(NamedTuple):
    """Where something can be: a position, and how far from it along and across a direction."""

    lat_deg: float
    lon_deg: float
    semi_major_m: float
    semi_minor_m: float
    bearing_deg: float
    """Of the major axis, clockwise from north."""


Area = Circle | Ellipse


class _Boxes(NamedTuple):
    south_deg: F64
    north_deg: F64
    middle_deg: F64
    """Longitude."""
    half_deg: F64
    """Half the width."""


class _LevelBoxes(NamedTuple):
    first_row: int
    rows: int
    fine: _Boxes
    coarse: _Boxes


class TileLocator:
    """Finds the rows of the tiles in an area."""

    def __init__(self, tiles: np.ndarray, levels: Sequence[TileLevel]) -> None:
        """Box the tiles.

        Args:
            tiles: (T,) TILE_DTYPE; may be memory-mapped.
            levels: of these tiles.

        Raises:
            InputError: a position is not finite.
        """
        self._lat_deg, self._lon_deg = tiles["lat_deg"], tiles["lon_deg"]
        self._levels = [_boxed(tiles, level) for level in levels]

    def blocks(self, area: Area, *, level: int | None = None) -> Iterator[RowBlock]:
        """Runs of rows that hold every tile of an area, and which of their rows are inside.

        Args:
            area: where.
            level: of the tiles; None for all.

        Raises:
            InputError: no position, or an extent that is none.
        """
        reach = _reach(area)
        for boxes in self._levels if level is None else [self._levels[level]]:
            runs: list[tuple[int, int]] = []
            size = 0
            for run in _runs(boxes, area.lat_deg, area.lon_deg, *reach):
                if size and size + run[1] - run[0] > BLOCK_ROWS:
                    yield from _trimmed(runs, self._inside(area, runs))
                    runs, size = [], 0
                runs.append(run)
                size += run[1] - run[0]
            if runs:
                yield from _trimmed(runs, self._inside(area, runs))

    def rows(self, area: Area, *, level: int | None = None) -> I64:
        """Rows of the tiles whose centre lies in an area, ascending.

        Raises:
            InputError: as `blocks`.
        """
        found = [
            np.concatenate([np.arange(*run) for run in block.runs])[block.keep]
            for block in self.blocks(area, level=level)
        ]
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def _inside(self, area: Area, runs: list[tuple[int, int]]) -> Mask:
        lat, lon = (
            np.concatenate([column[a:b] for a, b in runs])
            for column in (self._lat_deg, self._lon_deg)
        )
        offset = enu_offset_m(area.lat_deg, area.lon_deg, lat, lon)
        if isinstance(area, Circle):
            return np.asarray(np.hypot(offset.east_m, offset.north_m) <= area.radius_m)
        sin, cos = _direction(area.bearing_deg)
        along = offset.north_m * cos + offset.east_m * sin
        across = offset.east_m * cos - offset.north_m * sin
        return np.asarray(np.hypot(along / area.semi_major_m, across / area.semi_minor_m) <= 1.0)


def hilbert_order(lat_deg: F64, lon_deg: F64) -> I64:
    """The permutation that sorts positions along a Hilbert curve over their bounding box.

    (Skilling 2004's curve in its classic two-dimensional form, 16 bits an axis.)
    """
    x, y = mercator_unit(lat_deg, np.unwrap(np.asarray(lon_deg), period=360.0))
    side = max(float(np.ptp(x)), float(np.ptp(y)), 1e-12)
    cells = 1 << 16
    cx = np.minimum((x - x.min()) / side * cells, cells - 1).astype(np.int64)
    cy = np.minimum((y - y.min()) / side * cells, cells - 1).astype(np.int64)
    distance = np.zeros(len(cx), np.int64)
    half = cells >> 1
    while half:
        rx = (cx & half) > 0
        ry = (cy & half) > 0
        distance += half * half * ((3 * rx) ^ ry)
        flip = ~ry & rx
        cx, cy = np.where(flip, cells - 1 - cx, cx), np.where(flip, cells - 1 - cy, cy)
        cx, cy = np.where(~ry, cy, cx), np.where(~ry, cx, cy)
        half >>= 1
    return np.argsort(distance, kind="stable").astype(np.int64)


def _trimmed(runs: list[tuple[int, int]], inside: Mask) -> Iterator[RowBlock]:
    """A block without the longer stretches of rows that are not inside; none when all are not."""
    rows = np.concatenate([np.arange(*run) for run in runs])[inside]
    if len(rows) == 0:
        return
    last = np.flatnonzero(np.diff(rows) > _JOINED_ROWS)
    starts = rows[np.concatenate([[0], last + 1])]
    stops = rows[np.concatenate([last, [len(rows) - 1]])] + 1
    before = np.concatenate([[0], np.cumsum(stops - starts)])
    run_of_row = np.searchsorted(starts, rows, side="right") - 1
    keep = np.zeros(before[-1], np.bool_)
    keep[rows - starts[run_of_row] + before[run_of_row]] = True
    yield RowBlock(list(zip(starts.tolist(), stops.tolist(), strict=True)), keep)


def _direction(bearing_deg: float) -> tuple[float, float]:
    return math.sin(math.radians(bearing_deg)), math.cos(math.radians(bearing_deg))


def _reach(area: Area) -> tuple[float, float]:
    """How many degrees of latitude and longitude an area reaches from its middle, at most."""
    check_lat_lon(area.lat_deg, area.lon_deg)
    if isinstance(area, Circle):
        east_m = north_m = area.radius_m
        sound = area.radius_m >= 0
    else:
        sin, cos = _direction(area.bearing_deg)
        north_m = math.hypot(area.semi_major_m * cos, area.semi_minor_m * sin)
        east_m = math.hypot(area.semi_major_m * sin, area.semi_minor_m * cos)
        sound = area.semi_major_m >= area.semi_minor_m > 0 and math.isfinite(east_m + north_m)
    if not sound:
        msg = (
            f"the search area is {area}; expected a radius of 0 m or more, or semi-axes above 0 m, "
            "the major one not the smaller"
        )
        raise InputError(msg)
    north_deg = math.degrees(north_m / _LEAST_MERIDIAN_RADIUS_M) + 1e-9
    # enu_offset_m takes the parallel half way between two places; the prime vertical is nowhere
    # shorter than at the equator.
    steepest = math.radians(min(90.0, abs(area.lat_deg) + north_deg / 2))
    parallel_m = SEMI_MAJOR_M * math.cos(steepest)
    east_deg = math.degrees(east_m / parallel_m) + 1e-9 if parallel_m > 1e-3 else 360.0
    return north_deg, east_deg


def _boxed(tiles: np.ndarray, level: TileLevel) -> _LevelBoxes:
    first, stop = level.first_row, level.first_row + level.rows
    parts = []
    for start in range(first, stop, _CHUNK_ROWS):
        part = tiles[start : min(start + _CHUNK_ROWS, stop)]
        lon = np.ascontiguousarray(part["lon_deg"])
        zero = np.zeros_like(lon)
        parts.append(_around(part["lat_deg"], part["lat_deg"], lon, zero, _FINE_ROWS))
    empty: F64 = np.zeros(0)
    fine = (
        _Boxes(*(np.concatenate(values) for values in zip(*parts, strict=True)))
        if parts
        else _Boxes(empty, empty, empty, empty)
    )
    if not all(np.isfinite(values).all() for values in fine):
        msg = "a tile's position is not finite; expected latitude and longitude in degrees"
        raise InputError(msg)
    coarse = _around(fine.south_deg, fine.north_deg, fine.middle_deg, fine.half_deg, _COARSE_BOXES)
    return _LevelBoxes(first, level.rows, fine, coarse)


def _around(south: F64, north: F64, middle: F64, half: F64, count: int) -> _Boxes:
    """Boxes around groups of `count` consecutive boxes; longitudes may wrap."""
    starts = np.arange(0, len(south), count)
    if len(starts) == 0:
        return _Boxes(south, north, middle, half)
    first = middle[starts]
    from_first = wrap_degrees(middle - np.repeat(first, count)[: len(middle)])
    west = np.minimum.reduceat(from_first - half, starts)
    east = np.maximum.reduceat(from_first + half, starts)
    return _Boxes(
        np.minimum.reduceat(south, starts),
        np.maximum.reduceat(north, starts),
        first + (west + east) / 2,
        (east - west) / 2 + 1e-9,
    )


def _meeting(boxes: _Boxes, lat: float, lon: float, north_deg: float, east_deg: float) -> Mask:
    """Which boxes an area can reach into."""
    return np.asarray(
        (boxes.south_deg <= lat + north_deg)
        & (boxes.north_deg >= lat - north_deg)
        & (np.abs(wrap_degrees(lon - boxes.middle_deg)) <= boxes.half_deg + east_deg)
    )


def _runs(
    level: _LevelBoxes, lat: float, lon: float, north_deg: float, east_deg: float
) -> Iterator[tuple[int, int]]:
    """Runs of a level's rows that an area can reach into, at most a block long."""
    coarse = np.flatnonzero(_meeting(level.coarse, lat, lon, north_deg, east_deg))
    if len(coarse) == 0:
        return
    fine = (coarse[:, None] * _COARSE_BOXES + np.arange(_COARSE_BOXES)).ravel()
    fine = fine[fine < len(level.fine.south_deg)]
    near = _Boxes(*(values[fine] for values in level.fine))
    fine = fine[_meeting(near, lat, lon, north_deg, east_deg)]
    if len(fine) == 0:
        return
    breaks = np.flatnonzero(np.diff(fine) > 1) + 1
    for part in np.split(fine, breaks):
        start = int(part[0]) * _FINE_ROWS
        stop = min((int(part[-1]) + 1) * _FINE_ROWS, level.rows)
        for piece in range(start, stop, BLOCK_ROWS):
            yield level.first_row + piece, level.first_row + min(piece + BLOCK_ROWS, stop)
