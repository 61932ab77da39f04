"""Embeddings of a made-up map, like those of real maps where it matters to a search.

Independent random vectors are no test: no map's tiles are alike in no way. Here a vector is land
that changes over a dozen tiles, land that changes over three, and a quarter of its own, in
directions whose variance falls as 1 / rank, with components of uneven size. Measured on the
embeddings of two real maps and on 10,000 of these: half of the variance lies in 12 to 14
directions (here 14), neighbours along the curve have cosine 0.65 to 0.71 (here 0.68), the tenth
nearest tile 0.51 to 0.62 (here 0.60).

A query is the land between tiles plus detail of its own: a photograph of a place on the map, not
a copy of a tile.
"""

import math

import numpy as np
import numpy.typing as npt

from edge_runtime.geodesy import F64, move_lat_lon
from edge_runtime.index_format import TILE_DTYPE
from edge_runtime.near_prior import hilbert_order

F32 = npt.NDArray[np.float32]

_SCALES = ((12.0, 0.35), (3.0, 0.4))
"""Tiles over which land changes, and its share of the variance; detail has the rest."""
_DIRECTIONS = 512
_UNEVENNESS = 0.5
_CHUNK_ROWS = 4096


class SimulatedMap:
    """Tiles of a square map and their embeddings."""

    def __init__(
        self, tiles: int, dimensions: int, *, stride_m: float, seed: int = 0, lat_deg: float = 47.0
    ) -> None:
        """Lay out the tiles.

        Args:
            tiles: how many.
            dimensions: numbers in an embedding.
            stride_m: between the centres of neighbouring tiles.
            seed: of everything.
            lat_deg: latitude of the first tile.
        """
        rng = np.random.default_rng(seed)
        self.side = math.ceil(math.sqrt(tiles))
        self._seed = seed
        variance = 1.0 / np.arange(1, min(_DIRECTIONS, dimensions) + 1)
        basis = rng.normal(size=(len(variance), dimensions)) / math.sqrt(dimensions)
        basis *= np.sqrt(variance / variance.sum())[:, None]
        self._basis = (basis * np.exp(_UNEVENNESS * rng.normal(size=dimensions))).astype(np.float32)
        self._lattices = [
            self._drawn(rng, (int(self.side / scale) + 3) ** 2) * np.float32(math.sqrt(share))
            for scale, share in _SCALES
        ]
        cells = np.stack(np.divmod(np.arange(tiles), self.side), axis=1)
        north = move_lat_lon(lat_deg, 8.0, 0.0, cells[:, 0] * stride_m).lat_deg
        place = move_lat_lon(north, 8.0, cells[:, 1] * stride_m, 0.0)
        order = hilbert_order(place.lat_deg, place.lon_deg)
        self._cells = cells[order].astype(np.float64)
        self.tiles = np.zeros(tiles, TILE_DTYPE)
        self.tiles["lat_deg"] = place.lat_deg[order]
        self.tiles["lon_deg"] = place.lon_deg[order]

    def write(self, path: str) -> None:
        """Write the embeddings as float16, in chunks: (T, D), unit length."""
        rows, size = len(self.tiles), self._basis.shape[1]
        out = np.lib.format.open_memmap(path, "w+", np.float16, (rows, size))
        for start in range(0, rows, _CHUNK_ROWS):
            part = slice(start, min(start + _CHUNK_ROWS, rows))
            out[part] = self._embedded(
                self._cells[part], np.random.default_rng([self._seed, start])
            )
        out.flush()

    def queries(self, count: int, seed: int = 1) -> tuple[npt.NDArray[np.int64], F32]:
        """Photographs of places between tiles.

        Returns:
            The row of a tile next to each, and their (N, D) embeddings, unit length.
        """
        rng = np.random.default_rng([self._seed, seed, 7])
        rows = rng.integers(0, len(self.tiles), count)
        cells = self._cells[rows] + rng.uniform(-0.5, 0.5, (count, 2))
        return rows, self._embedded(np.clip(cells, 0, self.side - 1), rng)

    def _drawn(self, rng: np.random.Generator, count: int) -> F32:
        weights = rng.standard_normal((count, len(self._basis)), np.float32)
        return np.asarray(weights @ self._basis, np.float32)

    def _embedded(self, cells: F64, rng: np.random.Generator) -> F32:
        own = 1.0 - sum(share for _, share in _SCALES)
        total = self._drawn(rng, len(cells)) * np.float32(math.sqrt(own))
        for (scale, _), lattice in zip(_SCALES, self._lattices, strict=True):
            width = int(self.side / scale) + 3
            whole, part = np.divmod(cells / scale, 1.0)
            corner = (whole[:, 0] * width + whole[:, 1]).astype(np.int64)
            y, x = part.T.astype(np.float32)
            weights = np.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x])
            weights /= np.linalg.norm(weights, axis=0)  # The same variance everywhere.
            for weight, step in zip(weights, (0, 1, width, width + 1), strict=True):
                total += weight[:, None] * lattice[corner + step]
        return np.asarray(total / np.linalg.norm(total, axis=1, keepdims=True), np.float32)
