"""Where tiles lie: sizes, strides, directions, and the grid of their centres.

Everything here is a pure function of the imagery's box and the options, so every process that
helps to build an index, today or after a crash, finds the same tiles in the same order.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.geodesy import enu_offset_m, move_lat_lon, radii_of_curvature_m
from edge_runtime.imagery import Bounds
from edge_runtime.index_format import TILE_DTYPE, TileLevel
from edge_runtime.satellite_index import hilbert_order
from edge_runtime.tile_levels import visible_square_m

F64 = npt.NDArray[np.float64]

Grid = Literal["fitted", "fixed"]
LeaveOut = Literal["featureless", "partial"]

MIN_TILE_COVERAGE = 0.9
"""Tiles with less imagery than this are left out."""
LEVEL_FACTOR = 1.6
"""A level serves heights from its own up to this much more: the view is then cut to 1 / 1.6 of
what the camera sees, and 39 % of its pixels are used."""


class TileSize(NamedTuple):
    """How one level is cut, metres."""

    size_m: float
    stride_m: float


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What decides an index's tiles, besides the imagery.

    Raises:
        InputError: sizes that make no sense.
    """

    sizes: tuple[TileSize, ...]
    """Smallest first, no size twice."""
    headings: int = 1
    """Copies of each tile, turned by even steps of the circle, beginning with north up."""
    grid: Grid = "fitted"
    """Fitted to the box of the imagery, or at fixed places of the world: those stay where they
    are when the imagery grows."""
    leave_out: tuple[LeaveOut, ...] = ()
    """Marked tiles that are left out."""

    def __post_init__(self) -> None:
        """Check sizes and directions."""
        for size in self.sizes:
            if not (math.isfinite(size.size_m) and 0 < size.stride_m <= size.size_m):
                msg = (
                    f"stride is {size.stride_m} m and tile size {size.size_m} m; "
                    "expected 0 < stride <= size"
                )
                raise InputError(msg)
        sides = [size.size_m for size in self.sizes]
        if not sides or sides != sorted(set(sides)):
            msg = f"tile sizes are {sides} m; expected at least one, ascending, none twice"
            raise InputError(msg)
        if not 1 <= self.headings <= 360:
            msg = f"{self.headings} directions of each tile were asked for; expected 1 to 360"
            raise InputError(msg)

    @property
    def headings_deg(self) -> tuple[float, ...]:
        """Direction that is up in each copy of a tile."""
        return tuple(360.0 * k / self.headings for k in range(self.headings))

    def levels(self, rows: Sequence[int]) -> list[TileLevel]:
        """The index's levels, given how many rows each has; levels without rows are no levels."""
        levels, first = [], 0
        for size, count in zip(self.sizes, rows, strict=True):
            if count:
                levels.append(
                    TileLevel(
                        size_m=size.size_m,
                        stride_m=size.stride_m,
                        headings_deg=self.headings_deg,
                        first_row=first,
                        rows=count,
                    )
                )
            first += count
        return levels

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they are after a trip through JSON."""
        return asdict(self) | {
            "sizes": [list(size) for size in self.sizes],
            "leave_out": list(self.leave_out),
        }


def plan_options_from_json(value: dict[str, Any]) -> PlanOptions:
    """Inverse of `PlanOptions.to_json`.

    Raises:
        InputError: names are missing or unknown, or values make no sense.
    """
    try:
        return PlanOptions(
            **(
                value
                | {
                    "sizes": tuple(TileSize(*size) for size in value["sizes"]),
                    "leave_out": tuple(value["leave_out"]),
                }
            )
        )
    except (KeyError, TypeError) as error:
        msg = f"not a plan of an index ({error}); was it begun by another version of skyfix?"
        raise InputError(msg) from error


@dataclass(frozen=True, kw_only=True)
class Places:
    """Every place where a tile may lie, before any is left out."""

    lat_deg: F64
    """(P,) centres, level after level, along a Hilbert curve within each."""
    lon_deg: F64
    level_starts: tuple[int, ...]
    """First place of each level, and P at the end."""

    def __len__(self) -> int:
        """Number of places."""
        return len(self.lat_deg)

    def level_of(self, place: int) -> int:
        """Which level a place belongs to."""
        return int(np.searchsorted(self.level_starts, place, side="right")) - 1

    @property
    def sha256(self) -> str:
        """Digest of all positions: equal where two machines planned the same."""
        digest = hashlib.sha256(repr(self.level_starts).encode())
        digest.update(np.ascontiguousarray(self.lat_deg, "<f8").tobytes())
        digest.update(np.ascontiguousarray(self.lon_deg, "<f8").tobytes())
        return digest.hexdigest()


def plan_places(bounds: Bounds, options: PlanOptions) -> Places:
    """All places of all levels in the order of the index's rows."""
    parts, starts = [], [0]
    for size in options.sizes:
        place = grid_positions if options.grid == "fitted" else fixed_positions
        grid = place(bounds, size.size_m, size.stride_m)
        if len(grid):
            grid = grid[hilbert_order(grid["lat_deg"], grid["lon_deg"])]
        parts.append(grid)
        starts.append(starts[-1] + len(grid))
    return Places(
        lat_deg=np.concatenate([part["lat_deg"] for part in parts]),
        lon_deg=np.concatenate([part["lon_deg"] for part in parts]),
        level_starts=tuple(starts),
    )


def grid_positions(bounds: Bounds, size_m: float, stride_m: float) -> np.ndarray:
    """Tile centres on a regular grid in metres that starts half a tile inside the box.

    Returns:
        (T,) TILE_DTYPE, row by row from the south-west.
    """
    height_m = float(
        enu_offset_m(bounds.south_deg, bounds.west_deg, bounds.north_deg, bounds.west_deg).north_m
    )
    lats, lons = [], []
    for north_m in _steps(height_m, size_m, stride_m):
        lat = float(move_lat_lon(bounds.south_deg, bounds.west_deg, 0.0, north_m).lat_deg)
        # enu_offset_m goes the short way round: measure half of a wide box and double it.
        half_deg = (bounds.east_deg - bounds.west_deg) / 2
        width_m = 2 * float(
            enu_offset_m(lat, bounds.west_deg, lat, bounds.west_deg + half_deg).east_m
        )
        east_m = _steps(width_m, size_m, stride_m)
        lons.append(move_lat_lon(lat, bounds.west_deg, east_m, 0.0).lon_deg)
        lats.append(np.full(len(east_m), lat))
    return _as_tiles(lats, lons)


def _steps(extent_m: float, size_m: float, stride_m: float) -> F64:
    """Centres along one axis: half a tile from both edges, at most `stride_m` apart."""
    free = extent_m - size_m
    if free < 0:
        return np.array([extent_m / 2] if extent_m >= MIN_TILE_COVERAGE * size_m else [])
    count = max(1, math.ceil(free / stride_m)) + 1
    return size_m / 2 + free * np.arange(count) / (count - 1)


def fixed_positions(bounds: Bounds, size_m: float, stride_m: float) -> np.ndarray:
    """Tile centres at fixed places of the world that lie in a box.

    Rows are multiples of the stride north of the equator (by the radius of curvature at each
    latitude's row, summed), places in a row multiples of the stride east of Greenwich. A box that
    grows gets more of them and keeps those it had.

    Returns:
        (T,) TILE_DTYPE, row by row from the south-west. Near the box's edges tiles may reach
        beyond it.
    """
    first = math.ceil(_meridian_arc_m(bounds.south_deg) / stride_m)
    last = math.floor(_meridian_arc_m(bounds.north_deg) / stride_m)
    lats, lons = [], []
    for row in range(first, last + 1):
        lat = _latitude_of_arc(row * stride_m)
        prime_vertical = float(radii_of_curvature_m(lat)[1])
        step_deg = math.degrees(stride_m / (prime_vertical * math.cos(math.radians(lat))))
        columns = np.arange(
            math.ceil(bounds.west_deg / step_deg), math.floor(bounds.east_deg / step_deg) + 1
        )
        lon = (columns * step_deg + 180.0) % 360.0 - 180.0
        lons.append(lon)
        lats.append(np.full(len(lon), lat))
    return _as_tiles(lats, lons)


def _meridian_arc_m(lat_deg: float) -> float:
    """Distance north of the equator along the ellipsoid (Snyder 1987, eq. 3-21)."""
    e2 = 6.69437999014e-3
    lat = math.radians(lat_deg)
    return 6378137.0 * (
        (1 - e2 / 4 - 3 * e2**2 / 64 - 5 * e2**3 / 256) * lat
        - (3 * e2 / 8 + 3 * e2**2 / 32 + 45 * e2**3 / 1024) * math.sin(2 * lat)
        + (15 * e2**2 / 256 + 45 * e2**3 / 1024) * math.sin(4 * lat)
        - (35 * e2**3 / 3072) * math.sin(6 * lat)
    )


def _latitude_of_arc(arc_m: float) -> float:
    """Inverse of `_meridian_arc_m`, by Newton's method: the arc's slope is the radius."""
    lat = math.degrees(arc_m / 6367449.0)
    for _ in range(4):
        meridian = float(radii_of_curvature_m(lat)[0])
        lat += math.degrees((arc_m - _meridian_arc_m(lat)) / meridian)
    return lat


def _as_tiles(
    lats: Sequence[npt.NDArray[np.floating]], lons: Sequence[npt.NDArray[np.floating]]
) -> np.ndarray:
    tiles = np.zeros(sum(map(len, lats)), TILE_DTYPE)
    if lats:
        tiles["lat_deg"], tiles["lon_deg"] = np.concatenate(lats), np.concatenate(lons)
    return tiles


def sizes_for_heights(camera: Camera, heights_m: Sequence[float]) -> list[float]:
    """Tile sizes for a camera and the heights it is planned to fly at, smallest first.

    The lowest height gets a level of what the camera sees from there; so does each next height
    that is more than LEVEL_FACTOR above the last level's. Heights between use the level below.

    Raises:
        InputError: no heights, or a height that is none.
    """
    if not heights_m or not all(0 < height < math.inf for height in heights_m):
        msg = f"planned heights are {list(heights_m)} m; expected positive numbers, as 80 150 300"
        raise InputError(msg)
    sizes: list[float] = []
    for height in sorted(heights_m):
        square_m = visible_square_m(camera, height)
        if not sizes or square_m > LEVEL_FACTOR * sizes[-1]:
            sizes.append(square_m)
    # Three digits: a size is read by people, and written in names.
    return [float(f"{size:.3g}") for size in sizes]
