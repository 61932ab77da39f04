"""The satellite index: embedded tiles of the imagery, searchable whole or near a prior.

Rows are kept in Hilbert-curve order, so tiles near each other on the ground are near each other
on disk, and the tiles around a prior are a few contiguous runs that are searched exactly. The
whole map is searched through usearch: exactly while it is small, through its graph when large.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.artefact import Manifest, open_artefact
from edge_runtime.bundle import Bundle
from edge_runtime.errors import IndexFolderError, InputError
from edge_runtime.geodesy import F64, enu_offset_m, mercator_unit
from edge_runtime.imagery import ImageryStore
from edge_runtime.index_format import (
    CENTRE,
    EMBEDDINGS,
    IMAGERY,
    TILES,
    VECTORS,
    TileLevel,
    levels_from_json,
)
from edge_runtime.preprocess import EncoderSpec

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

EXACT_UP_TO_TILES = 20_000
"""Whole-map searches are exact up to here (about 4 ms at 1024 dimensions on one core)."""


class Circle(NamedTuple):
    """Where something can be: a position and a radius around it."""

    lat_deg: float
    lon_deg: float
    radius_m: float


class SearchResult(NamedTuple):
    """The most similar tiles of each query, best first."""

    rows: I64
    """(N, K) rows of the tile table; -1 where there are fewer than K tiles."""
    similarities: F32
    """(N, K) cosine similarity; -inf where there are fewer."""


class SatelliteIndex:
    """An opened, verified index folder. Not thread-safe; one per thread."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        """Use `SatelliteIndex.open`."""
        from usearch.index import Index

        self.root = root
        self.manifest = manifest
        meta = manifest.meta
        tiles, embeddings, centre, vectors, imagery = (
            manifest.path_of(root, name, error=IndexFolderError)
            for name in (TILES, EMBEDDINGS, CENTRE, VECTORS, IMAGERY)
        )
        try:
            self.levels = levels_from_json(meta["levels"])
            self._weights_sha256 = str(meta["weights_sha256"])
            self._preprocessing_sha256 = str(meta["preprocessing_sha256"])
            self.tiles = np.load(tiles, mmap_mode="r", allow_pickle=False)
            self.embeddings = np.load(embeddings, mmap_mode="r", allow_pickle=False)
            self.centre = np.load(centre, allow_pickle=False)
            graph = Index.restore(str(vectors), view=True)
        except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
            msg = (
                f"{root} cannot be opened as an index ({error}). Make it again: python -m export "
                "index"
            )
            raise IndexFolderError(msg) from error
        rows, size = (len(graph), graph.ndim) if graph else (0, 0)
        shapes = (self.tiles.shape, self.embeddings.shape, self.centre.shape)
        if not graph or shapes != ((rows,), (rows, size), (size,)):
            msg = (
                f"{root} has parts of different length: tiles, embeddings and centre are {shapes}, "
                f"the graph is {(rows, size)}. Make it again: python -m export index"
            )
            raise IndexFolderError(msg)
        if self.levels[-1].row_range.stop != rows:
            msg = (
                f"{root} has {rows} tiles, its levels {self.levels[-1].row_range.stop}. Make it "
                "again: python -m export index"
            )
            raise IndexFolderError(msg)
        self._graph = graph
        self.imagery = ImageryStore(imagery)

    @classmethod
    def open(cls, root: Path, bundle: Bundle | None = None) -> "SatelliteIndex":
        """Verify every file, then open; with a bundle, refuse an index of another encoder.

        Raises:
            IndexFolderError: missing, altered, inconsistent, or made by another encoder.
        """
        # usearch crashes on altered bytes, so it never sees a file that was not verified.
        index = cls(root, open_artefact(root, "index", error=IndexFolderError))
        if bundle is not None:
            index.check_bound_to(bundle)
        return index

    def check_bound_to(self, bundle: Bundle) -> None:
        """Refuse a bundle whose encoder is not the one that made this index.

        Raises:
            IndexFolderError: other weights, other preprocessing or another embedding size.
        """
        difference = self.difference_to(bundle.weights_sha256, bundle.spec)
        if difference is not None:
            msg = (
                f"{self.root} {difference[0]}, the bundle {bundle.root} {difference[1]}. Make the "
                f"index again with: python -m export index --bundle {bundle.root}"
            )
            raise IndexFolderError(msg)

    def difference_to(self, weights_sha256: str, spec: EncoderSpec) -> tuple[str, str] | None:
        """What the index and an encoder have of their own; None if that encoder made the index."""
        if weights_sha256 != self._weights_sha256:
            return (
                f"was made by encoder {self._weights_sha256[:12]}",
                f"holds encoder {weights_sha256[:12]}",
            )
        found = spec.preprocessing_hash()
        if found != self._preprocessing_sha256:
            return (
                f"was made with preprocessing {self._preprocessing_sha256[:12]}",
                f"uses {found[:12]}",
            )
        size = self.embeddings.shape[1]
        if spec.embedding_size != size:
            return f"holds embeddings of {size} numbers", f"gives {spec.embedding_size}"
        return None

    @property
    def level(self) -> TileLevel:
        """The level of the smallest tiles."""
        return self.levels[0]

    @property
    def id(self) -> str:
        """Short digest of everything in the index."""
        return self.manifest.id

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.tiles)

    def close(self) -> None:
        """Close the imagery. Calling it twice is harmless."""
        self.imagery.close()

    def contains(self, lat_deg: float, lon_deg: float) -> bool:
        """Whether a position lies in the imagery's box."""
        b = self.imagery.bounds
        east_of_west = (lon_deg - b.west_deg) % 360.0
        return b.south_deg <= lat_deg <= b.north_deg and east_of_west <= b.east_deg - b.west_deg

    def area_m2(self) -> float:
        """Ground covered by the centres of the smallest tiles, square metres."""
        return self.level.rows / len(self.level.headings_deg) * self.level.stride_m**2

    def search(self, embeddings: F32, k: int, *, near: Circle | None = None) -> SearchResult:
        """Find the most similar tiles.

        Args:
            embeddings: (N, D) float32, unit length, from the encoder.
            k: how many tiles per query.
            near: only tiles whose centre lies in this circle; None for the whole map.

        Returns:
            Rows and cosine similarities (after removing the map's mean embedding), best first.

        Raises:
            InputError: not (N, D), not finite, or k < 1.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embeddings.shape[1]:
            msg = f"queries have shape {embeddings.shape}; expected (N, {self.embeddings.shape[1]})"
            raise InputError(msg)
        if k < 1 or not np.isfinite(embeddings).all():
            msg = f"k is {k} and all queries must be finite; expected k >= 1 and no NaN"
            raise InputError(msg)
        queries = centred(embeddings, self.centre)
        if near is None:
            return self._search_all(queries, k)
        return self._search_rows(queries, k, self.rows_near(near))

    def rows_near(self, circle: Circle) -> I64:
        """Rows of the tiles whose centre lies in a circle, ascending."""
        offset = enu_offset_m(
            circle.lat_deg, circle.lon_deg, self.tiles["lat_deg"], self.tiles["lon_deg"]
        )
        inside = np.hypot(offset.east_m, offset.north_m) <= circle.radius_m
        return np.flatnonzero(inside).astype(np.int64)

    def _search_all(self, queries: F32, k: int) -> SearchResult:
        exact = len(self) <= EXACT_UP_TO_TILES
        rows = np.full((len(queries), k), -1, np.int64)
        similarities = np.full((len(queries), k), -np.inf, np.float32)
        for n, query in enumerate(queries):
            matches = self._graph.search(query.astype(np.float16), min(k, len(self)), exact=exact)
            found = len(matches)
            rows[n, :found] = matches.keys[:found]
            similarities[n, :found] = 1.0 - matches.distances[:found]
        return SearchResult(rows, similarities)

    def _search_rows(self, queries: F32, k: int, candidates: I64) -> SearchResult:
        rows = np.full((len(queries), k), -1, np.int64)
        similarities = np.full((len(queries), k), -np.inf, np.float32)
        if len(candidates) == 0:
            return SearchResult(rows, similarities)
        cosine = queries @ np.asarray(self.embeddings[candidates], np.float32).T
        found = min(k, len(candidates))
        best = np.argsort(-cosine, axis=1, kind="stable")[:, :found]
        rows[:, :found] = candidates[best]
        similarities[:, :found] = np.take_along_axis(cosine, best, axis=1)
        return SearchResult(rows, similarities)


def centred(embeddings: F32, centre: F32) -> F32:
    """Subtract the map's mean embedding and bring to unit length again.

    What every tile of a map has in common says nothing about where one is; taking it away sharpens
    encoders that were not trained on such imagery.
    """
    moved = embeddings - centre
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(moved / np.maximum(length, 1e-12), np.float32)


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
