"""Tiles that show some of the same ground, and so cannot be each other's negatives."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from edge_runtime.errors import InputError
from edge_runtime.geodesy import MEAN_RADIUS_M, check_lat_lon, enu_offset_m
from train.exact_similarity import expand_runs

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_TOUCHING = 1e-3
"""Footprints whose sides reach into each other by less than this share only touch: neighbours in
a grid do, and their positions and sizes are rounded."""
_MAX_PAIRS = 100_000_000
"""Of candidates; 1.6 GB of them."""


@dataclass(frozen=True, kw_only=True)
class TileExclusions:
    """For each of T tiles, the others that may not be its negatives; made by `from_pairs`.

    Symmetric: where a tile excludes another, that one excludes it. No tile excludes itself.
    """

    starts: I64
    """(T + 1,) where each tile's list begins in `tiles`, and where the last ends."""
    tiles: I32
    """(E,) tile rows, ascending within a list."""

    @classmethod
    def from_pairs(cls, first: I64, second: I64, *, count: int) -> "TileExclusions":
        """Exclude pairs of tiles from each other.

        Args:
            first: (E,) tile rows.
            second: (E,) the tile each of them excludes; the order within a pair does not matter,
                pairs may repeat, and a tile paired with itself is passed over.
            count: tiles T.

        Raises:
            InputError: a tile row is not one of T.
        """
        first, second = np.asarray(first, np.int64), np.asarray(second, np.int64)
        if len(first) and (
            min(first.min(), second.min()) < 0 or max(first.max(), second.max()) >= count
        ):
            found = min(first.min(), second.min()), max(first.max(), second.max())
            msg = f"exclusions name tiles {found[0]} to {found[1]}; expected 0 to {count - 1}"
            raise InputError(msg)
        other = first != second
        low, high = first[other], second[other]
        codes = np.unique(np.concatenate([low * count + high, high * count + low]))
        owner, tiles = np.divmod(codes, max(count, 1))
        lengths = np.bincount(owner, minlength=count)
        return cls(
            starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            tiles=tiles.astype(np.int32),
        )

    @classmethod
    def from_semi_positives(
        cls, tile_of_photo: I64, semi_positives: I64, *, count: int
    ) -> "TileExclusions":
        """Exclude from each photo's tile the tiles that overlap it.

        VIGOR names three such tiles for each photo: what one photo of a tile has named holds for
        the tile, because it is the tiles that overlap.

        Args:
            tile_of_photo: (P,) row of each photo's tile.
            semi_positives: (P, S) rows of further tiles, or empty.
            count: tiles T.
        """
        each = semi_positives.shape[1] if semi_positives.size else 0
        return cls.from_pairs(np.repeat(tile_of_photo, each), semi_positives.ravel(), count=count)

    def __len__(self) -> int:
        """Number of tiles T."""
        return len(self.starts) - 1

    def __or__(self, other: "TileExclusions") -> "TileExclusions":
        """What either of two excludes.

        Raises:
            InputError: they are about different numbers of tiles.
        """
        if len(self) != len(other):
            msg = f"exclusions among {len(self)} and among {len(other)} tiles; expected the same"
            raise InputError(msg)
        every = np.arange(len(self))
        pairs = [found.pairs_of(every) for found in (self, other)]
        first, second = (np.concatenate(column) for column in zip(*pairs, strict=True))
        return self.from_pairs(first, second, count=len(self))

    def of(self, tile: int) -> I32:
        """Rows of the tiles that one tile excludes: a view."""
        found: I32 = self.tiles[self.starts[tile] : self.starts[tile + 1]]
        return found

    def pairs_of(self, tiles: I64) -> tuple[I64, I64]:
        """Exclusions of many tiles at once.

        Args:
            tiles: (N,) tile rows.

        Returns:
            (E,) places in `tiles`, and (E,) the tile rows excluded there.
        """
        owner, position = expand_runs(
            self.starts[tiles], self.starts[tiles + 1] - self.starts[tiles]
        )
        return owner, self.tiles[position].astype(np.int64)

    def counts(self) -> I64:
        """(T,) how many others each tile excludes."""
        return np.diff(self.starts)


def overlapping_tiles(
    lat_deg: F64, lon_deg: F64, size_m: F64, *, min_overlap: float = 0.0
) -> TileExclusions:
    """Tiles whose footprints overlap, found with a tree.

    Args:
        lat_deg: (T,) latitude of each footprint's centre.
        lon_deg: (T,) its longitude.
        size_m: (T,) side of the footprint, a square with its sides north-south and east-west.
        min_overlap: two overlap when they share more than this part of the smaller one's area,
            0 (any) up to below 1. Footprints that only touch do not.

    Raises:
        InputError: a column has another length, a position or size is impossible, or so many
            overlap that hardly any two could be negatives.
    """
    sizes = np.asarray(size_m, np.float64)
    if not (len(lat_deg) == len(lon_deg) == len(sizes)):
        msg = (
            f"{len(lat_deg)} latitudes, {len(lon_deg)} longitudes and {len(sizes)} sizes; expected"
        )
        raise InputError(f"{msg} as many of each")
    if not 0 <= min_overlap < 1:
        msg = f"min_overlap is {min_overlap}; expected 0 to below 1, a share of a tile's area"
        raise InputError(msg)
    check_lat_lon(lat_deg, lon_deg)
    if len(sizes) and not (np.isfinite(sizes).all() and sizes.min() > 0):
        msg = "a footprint's size is not a positive number of metres; mend the tile table"
        raise InputError(msg)
    first, second = _near_pairs(lat_deg, lon_deg, sizes)
    offset = enu_offset_m(lat_deg[first], lon_deg[first], lat_deg[second], lon_deg[second])
    smaller = np.minimum(sizes[first], sizes[second])
    middle = (sizes[first] + sizes[second]) / 2
    shares = [
        np.clip((middle - np.abs(apart)) / smaller, 0.0, 1.0)
        for apart in (offset.east_m, offset.north_m)
    ]
    overlap = (np.minimum(*shares) > _TOUCHING) & (shares[0] * shares[1] > min_overlap)
    return TileExclusions.from_pairs(first[overlap], second[overlap], count=len(sizes))


def sphere_points(lat_rad: F64, lon_rad: F64) -> F64:
    """(N, 3) points on the unit sphere, whose chords order pairs as great-circle distance does."""
    return np.column_stack(
        [np.cos(lat_rad) * np.cos(lon_rad), np.cos(lat_rad) * np.sin(lon_rad), np.sin(lat_rad)]
    )


def _near_pairs(lat_deg: F64, lon_deg: F64, sizes_m: F64) -> tuple[I64, I64]:
    """Pairs near enough to overlap, and some more.

    Raises:
        InputError: too many to hold.
    """
    if not len(sizes_m):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # Centres are at most a diagonal apart; one per cent covers what the sphere is wrong by.
    reach = 1.01 * np.sqrt(2) * sizes_m.max() / MEAN_RADIUS_M
    tree = cKDTree(sphere_points(np.radians(lat_deg), np.radians(lon_deg)))
    found = (int(tree.count_neighbors(tree, reach)) - len(sizes_m)) // 2
    if found > _MAX_PAIRS:
        msg = (
            f"{found} pairs of {len(sizes_m)} tiles lie within {sizes_m.max():g} m, too many for "
            "batches of negatives; use fewer tiles, smaller ones, or mend their positions"
        )
        raise InputError(msg)
    pairs = tree.query_pairs(reach, output_type="ndarray")
    return pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
