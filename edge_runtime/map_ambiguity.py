"""How likely a view of each place is taken for another place of the same map.

The model: a photograph of a place has cosine `likeness` with the place's own tile, and what it has
besides looks like ground in general: Gaussian, with the covariance of the map's own embeddings.
So many such views of each place are drawn and looked up; a place's chance is the share of them
whose most similar tile lies elsewhere. Two places can only be told apart by how their embeddings
differ, and what makes a map hard is that views differ in just the directions in which places do.

Nothing is embedded: the index's embeddings are enough.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.geodesy import ECCENTRICITY_SQUARED, F64, distance_m, radii_of_curvature_m
from edge_runtime.index_format import TileLevel
from edge_runtime.satellite_index import SatelliteIndex

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
B1 = npt.NDArray[np.bool_]
Progress = Callable[[str, float], None]

LIKENESS = 0.4
"""Median cosine of real drone photographs with the best tile of their own ground (within half a
tile), by an encoder that never saw aerial images: 0.39 and 0.40 on two flights
(docs/know-your-map.md). Encoders trained for the task do better."""
FAR_TILES = 1.5
"""Tiles whose centres are this many tile sizes apart share no ground (the diagonal is 1.41)."""
MOST_PAIRS = 2_000_000_000
"""Tiles scored times tiles compared with: a larger map is scored on a part of its tiles."""
_DRAW_WORK = 40_000_000_000
_DRAWS = (64, 2048)
_NOISE_TILES = 2048
_QUERY_BLOCK = 128
_TILE_BLOCK = 4096


@dataclass(frozen=True, kw_only=True)
class TileScores:
    """How well some tiles of one level can be told from the rest of the map. All are (S,)."""

    rows: I64
    """Of the table of tiles."""
    lat_deg: F64
    lon_deg: F64
    marks: U8
    """`MARK_…` bits."""
    chance: F32
    """Share of views of this place whose most similar tile lies elsewhere, 0..1; ties count."""
    own: F32
    """Similarity of the most similar neighbour (within 1.5 strides); NaN where there is none."""
    look_alike: F32
    """Similarity of the most similar tile elsewhere; -inf where there is none."""
    look_alike_row: I64
    """That tile; -1 where there is none."""
    look_alike_m: F64
    """How far away it lies; NaN where there is none."""
    draws: int
    """Views of each place."""

    @property
    def margin(self) -> F32:
        """`own` less `look_alike`: below 0, ground elsewhere is more alike than the next tile."""
        return np.asarray(self.own - self.look_alike, np.float32)


def default_far_m(level: TileLevel) -> float:
    """Distance beyond which a tile is elsewhere."""
    return FAR_TILES * level.size_m


def tiles_to_score(
    index: SatelliteIndex, level: TileLevel, *, most_pairs: float = MOST_PAIRS
) -> tuple[I64, float]:
    """Which rows of a level to score, and their share of its tiles.

    Every tile once (a tile's turned copies show the same ground), or so many of them, evenly along
    the Hilbert curve and so over the ground, that the work stays bounded.
    """
    heading = np.asarray(index.tiles["heading_deg"][_slice(level)])
    once = np.flatnonzero(np.abs(heading - level.headings_deg[0]) < 1e-3) + level.first_row
    most = max(1, int(most_pairs // max(level.rows, 1)))
    if len(once) <= most:
        return once.astype(np.int64), 1.0
    taken = once[np.linspace(0, len(once) - 1, most).round().astype(np.int64)]
    return taken.astype(np.int64), most / len(once)


def score_tiles(
    index: SatelliteIndex,
    level: TileLevel,
    rows: I64,
    *,
    far_m: float | None = None,
    within_m: float | None = None,
    likeness: float = LIKENESS,
    draws: int | None = None,
    seed: int = 0,
    progress: Progress = lambda _stage, _done: None,
) -> TileScores:
    """Score tiles against all tiles of their level, exactly, in blocks of bounded memory.

    Args:
        index: an opened index.
        level: whose tiles are compared.
        rows: (S,) tiles to score.
        far_m: tiles whose centre is farther are elsewhere; by default `default_far_m`.
        within_m: only tiles this near can be mistaken for it: what a position prior leaves; None
            for the whole map.
        likeness: cosine of a view with its own tile, in (0, 1].
        draws: views of each tile, in pairs; by default as many as is quick, 64 to 2048.
        seed: of the views.
        progress: told the stage and the fraction done.

    Raises:
        InputError: a likeness, a distance or a number of draws that makes no sense.
    """
    far_m = default_far_m(level) if far_m is None else far_m
    reach_m = math.inf if within_m is None else within_m
    if not 0 < likeness <= 1 or not 0 < far_m < reach_m or (draws is not None and draws < 1):
        msg = (
            f"likeness is {likeness}, far {far_m} m, within {within_m} m, draws {draws}; expected "
            "a likeness in (0, 1], 0 < far < within, and at least one draw"
        )
        raise InputError(msg)
    if draws is None:
        draws = round(np.clip(_DRAW_WORK / max(len(rows) * level.rows, 1), *_DRAWS))
    draws += draws % 2
    job = _Job(index, level, rows, (far_m, reach_m), likeness, draws, seed)
    for done, first in enumerate(range(level.first_row, level.row_range.stop, _TILE_BLOCK), 1):
        job.compare_with(first, min(first + _TILE_BLOCK, level.row_range.stop))
        progress("comparing places", min(1.0, done * _TILE_BLOCK / level.rows))
    return job.scores()


class _Job:
    """Running bests of the tiles under test, over blocks of tiles they are compared with."""

    def __init__(
        self,
        index: SatelliteIndex,
        level: TileLevel,
        rows: I64,
        ring_m: tuple[float, float],
        likeness: float,
        draws: int,
        seed: int,
    ) -> None:
        self._index, self._level, self._rows = index, level, rows
        self._far_m, self._reach_m = ring_m
        self._likeness, self._other = likeness, math.sqrt(1 - likeness**2)
        self._at = _ecef_m(index.tiles["lat_deg"][rows], index.tiles["lon_deg"][rows])
        count = len(rows)
        self._own = np.full(count, np.nan, np.float32)
        self._look_alike = np.full(count, -np.inf, np.float32)
        self._look_alike_row = np.full(count, -1, np.int64)
        self._near_best = np.full((draws, count), -np.inf, np.float32)
        self._far_best = np.full((draws, count), -np.inf, np.float32)
        # Ground in general: tiles from all over the level.
        some = np.linspace(level.first_row, level.row_range.stop - 1, _NOISE_TILES)
        ground = index.unit_embeddings(np.unique(some.round().astype(np.int64)))
        # The same draws for every place, each with its opposite: chances of different places are
        # compared, and what both share cancels (correlation with the limit .95 instead of .90).
        drawn = np.random.default_rng(seed).normal(
            0, len(ground) ** -0.5, (draws // 2, len(ground))
        )
        rest = np.float32(self._other) * drawn.astype(np.float32) @ ground
        self._rest = np.concatenate([rest, -rest])

    def compare_with(self, first: int, stop: int) -> None:
        tiles = self._index.tiles[first:stop]
        at = _ecef_m(tiles["lat_deg"], tiles["lon_deg"])
        embeddings = self._index.unit_embeddings(slice(first, stop))
        views = np.asarray(self._rest @ embeddings.T, np.float32)
        for begin in range(0, len(self._rows), _QUERY_BLOCK):
            part = slice(begin, begin + _QUERY_BLOCK)
            apart_m = _apart_m(self._at[part], at)
            near = apart_m <= self._far_m
            similar = self._index.unit_embeddings(self._rows[part]) @ embeddings.T
            self._see_neighbours(part, similar, apart_m, near)
            row, column = np.nonzero(near)
            of_near = np.float32(self._likeness) * similar[row, column]
            similar[near | (apart_m > self._reach_m)] = -np.inf
            self._see_look_alikes(part, similar, first)
            similar *= np.float32(self._likeness)
            self._draw(
                part, similar, views, (row.astype(np.int64), column.astype(np.int64)), of_near
            )

    def _see_neighbours(self, part: slice, similar: F32, apart_m: F64, near: B1) -> None:
        # Copies turned on the spot, half a metre at most from each other, are no neighbours.
        beside = near & (apart_m > 0.5) & (apart_m <= 1.5 * self._level.stride_m)
        best = np.where(beside, similar, -np.inf).max(axis=1)
        found = beside.any(axis=1)
        self._own[part] = np.where(found, np.fmax(self._own[part], best), self._own[part])

    def _see_look_alikes(self, part: slice, similar: F32, first: int) -> None:
        column = similar.argmax(axis=1)
        best = similar[np.arange(len(similar)), column]
        better = best > self._look_alike[part]
        self._look_alike[part] = np.where(better, best, self._look_alike[part])
        self._look_alike_row[part] = np.where(better, first + column, self._look_alike_row[part])

    def _draw(
        self, part: slice, of_far: F32, views: F32, pairs: tuple[I64, I64], of_near: F32
    ) -> None:
        """Look every view up: `of_far` is -inf where a tile is not elsewhere."""
        rows, columns = pairs
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        with_near = rows[starts]
        total = np.empty_like(of_far)
        for draw, view in enumerate(views):
            np.add(of_far, view, out=total)
            far_best = self._far_best[draw, part]
            np.maximum(far_best, total.max(axis=1), out=far_best)
            if len(rows):
                best = np.maximum.reduceat(of_near + view[columns], starts)
                near_best = self._near_best[draw, part]
                near_best[with_near] = np.maximum(near_best[with_near], best)

    def scores(self) -> TileScores:
        tiles = self._index.tiles
        here = tiles[self._rows]
        lat, lon = (np.asarray(here[name], np.float64) for name in ("lat_deg", "lon_deg"))
        found = self._look_alike_row >= 0
        there = tiles[np.where(found, self._look_alike_row, 0)]
        away = distance_m(lat, lon, there["lat_deg"], there["lon_deg"])
        return TileScores(
            rows=self._rows,
            lat_deg=lat,
            lon_deg=lon,
            marks=np.asarray(here["marks"], np.uint8),
            chance=(self._far_best >= self._near_best).mean(axis=0, dtype=np.float32),
            own=self._own,
            look_alike=self._look_alike,
            look_alike_row=self._look_alike_row,
            look_alike_m=np.where(found, away, np.nan),
            draws=len(self._far_best),
        )


def _slice(level: TileLevel) -> slice:
    return slice(level.first_row, level.row_range.stop)


def _ecef_m(lat_deg: npt.ArrayLike, lon_deg: npt.ArrayLike) -> F64:
    """(N, 3) positions on the ellipsoid in earth-centred metres: distances are plain there."""
    lat, lon = (np.radians(np.asarray(v, np.float64)) for v in (lat_deg, lon_deg))
    _, vertical = radii_of_curvature_m(np.degrees(lat))
    across = vertical * np.cos(lat)
    return np.stack(
        [
            across * np.cos(lon),
            across * np.sin(lon),
            vertical * (1 - ECCENTRICITY_SQUARED) * np.sin(lat),
        ],
        axis=-1,
    )


def _apart_m(a: F64, b: F64) -> F64:
    """(N, M) straight distances; positions are moved to a common origin for their digits' sake."""
    origin = a[0]
    a, b = a - origin, b - origin
    square = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(square, 0.0)))
