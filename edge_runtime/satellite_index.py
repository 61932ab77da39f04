"""The satellite index: embedded tiles of the imagery, searchable whole or near a prior.

Rows are kept in Hilbert-curve order, so tiles near each other on the ground are near each other
on disk, and the tiles around a prior are a few contiguous runs that are searched exactly. The
whole map is searched exactly while it is small, through a graph when large, as its maker measured
and the manifest says.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from edge_runtime.artefact import Manifest, open_artefact
from edge_runtime.bundle import Bundle
from edge_runtime.errors import IndexFolderError, InputError
from edge_runtime.graph_file import open_graph
from edge_runtime.imagery import ImageryStore
from edge_runtime.index_format import (
    CENTRE,
    EMBEDDINGS,
    IMAGERY,
    TILE_DTYPE,
    TILES,
    VECTORS,
    TileLevel,
    levels_from_json,
    search_from_json,
)
from edge_runtime.near_prior import Area, Circle, Ellipse, TileLocator, hilbert_order
from edge_runtime.preprocess import EncoderSpec
from edge_runtime.vector_search import (
    F32,
    I64,
    Mask,
    RowBlock,
    SearchResult,
    VectorSearch,
    centred,
    unit,
    whole,
)
from edge_runtime.verified_files import open_stamped

__all__ = [
    "Area",
    "Circle",
    "Ellipse",
    "SatelliteIndex",
    "SearchResult",
    "centred",
    "hilbert_order",
]

_STORED = {"f16": np.float16, "f32": np.float32, "i8": np.int8}
_MAKE_AGAIN = "Make it again: python -m export index"


class SatelliteIndex:
    """An opened, verified index folder. Not thread-safe; one per thread."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        """Use `SatelliteIndex.open`."""
        self.root = root
        self.manifest = manifest
        meta = manifest.meta
        tiles, embeddings, centre, imagery = (
            manifest.path_of(root, name, error=IndexFolderError)
            for name in (TILES, EMBEDDINGS, CENTRE, IMAGERY)
        )
        try:
            self.levels = levels_from_json(meta["levels"])
            self.plan = search_from_json(meta.get("search"))
            self._weights_sha256 = str(meta["weights_sha256"])
            self._preprocessing_sha256 = str(meta["preprocessing_sha256"])
            # As plain arrays: every element of a memmap is a memmap, made at some cost.
            self.tiles = np.asarray(np.load(tiles, mmap_mode="r", allow_pickle=False))
            self.embeddings = np.asarray(np.load(embeddings, mmap_mode="r", allow_pickle=False))
            self.centre = np.load(centre, allow_pickle=False)
        except (KeyError, TypeError, ValueError, OSError) as error:
            msg = f"{root} cannot be opened as an index ({error}). {_MAKE_AGAIN}"
            raise IndexFolderError(msg) from error
        self._check_parts()
        try:
            self._locator = TileLocator(self.tiles, self.levels)
        except InputError as error:
            msg = f"{root} cannot be opened as an index ({error}). {_MAKE_AGAIN}"
            raise IndexFolderError(msg) from error
        graph = None
        if self.plan.kind == "graph":
            graph = open_graph(
                manifest.path_of(root, VECTORS, error=IndexFolderError), *self.embeddings.shape
            )
        self._vectors = VectorSearch(
            self.embeddings, graph, expansion=self.plan.expansion or len(self)
        )
        self.imagery = ImageryStore(imagery)

    def _check_parts(self) -> None:
        """Refuse arrays that do not belong together."""
        shapes = (self.tiles.shape, self.embeddings.shape, self.centre.shape)
        rows, size = shapes[1] if len(shapes[1]) == 2 else (0, 0)
        if 0 in (rows, size) or shapes != ((rows,), (rows, size), (size,)):
            msg = (
                f"{self.root} has parts of different length: tiles, embeddings and centre are "
                f"{shapes}; expected (T,), (T, D) and (D,). {_MAKE_AGAIN}"
            )
            raise IndexFolderError(msg)
        dtypes = (self.tiles.dtype, self.embeddings.dtype, self.centre.dtype)
        expected = (TILE_DTYPE, np.dtype(_STORED[self.plan.dtype]), np.dtype(np.float32))
        if dtypes != expected:
            msg = (
                f"{self.root} holds tiles, embeddings and centre as {[str(d) for d in dtypes]}; "
                f"expected {[str(d) for d in expected]}. {_MAKE_AGAIN}"
            )
            raise IndexFolderError(msg)
        if self.levels[-1].row_range.stop != rows:
            msg = (
                f"{self.root} has {rows} tiles, its levels {self.levels[-1].row_range.stop}. "
                f"{_MAKE_AGAIN}"
            )
            raise IndexFolderError(msg)

    @classmethod
    def open(
        cls, root: Path, bundle: Bundle | None = None, *, verify: bool = False
    ) -> "SatelliteIndex":
        """Verify, then open; with a bundle, refuse an index of another encoder.

        What usearch reads is hashed on every opening: altered bytes would crash it. Embeddings and
        imagery are hashed on the first opening of a copy, and again when the file's identity has
        changed (`edge_runtime.verified_files`).

        Args:
            root: the folder.
            bundle: the encoder to fly with.
            verify: hash every file whatever is known of it.

        Raises:
            IndexFolderError: missing, altered, inconsistent, or made by another encoder.
        """
        if verify:
            manifest = open_artefact(root, "index", error=IndexFolderError)
        else:
            always = (VECTORS, TILES, CENTRE)
            manifest = open_stamped(root, "index", always=always, error=IndexFolderError)
        index = cls(root, manifest)
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

    def search(
        self,
        embeddings: F32,
        k: int,
        *,
        near: Area | None = None,
        level: int | None = None,
        skip_marks: int = 0,
    ) -> SearchResult:
        """Find the most similar tiles of each of a batch of queries.

        Near a place every tile is compared, at any size of map. The whole map is searched as the
        manifest says; through a graph, some 1 % of the true best may be missed.

        Args:
            embeddings: (N, D) float32, unit length, from the encoder.
            k: how many tiles per query.
            near: only tiles whose centre lies in this circle or ellipse; None for the whole map.
            level: only tiles of this level; None for all.
            skip_marks: tiles with any of these `MARK_…` bits are left out.

        Returns:
            Rows and cosine similarities (after removing the map's mean embedding), best first,
            equal ones by row.

        Raises:
            InputError: not (N, D), not finite, k < 1, no such level, or no such area.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embeddings.shape[1]:
            msg = f"queries have shape {embeddings.shape}; expected (N, {self.embeddings.shape[1]})"
            raise InputError(msg)
        if k < 1 or not np.isfinite(embeddings).all():
            msg = f"k is {k} and all queries must be finite; expected k >= 1 and no NaN"
            raise InputError(msg)
        self._check_level(level)
        queries = centred(embeddings, self.centre)
        unmarked = partial(self._unmarked, skip_marks) if skip_marks else None
        if near is not None:
            blocks = self._locator.blocks(near, level=level)
            if unmarked is not None:
                blocks = (_without(block, unmarked) for block in blocks)
            return self._vectors.among(queries, k, blocks)
        rows = range(len(self)) if level is None else self.levels[level].row_range
        every = partial(whole, rows.start, len(rows), unmarked)
        if self._vectors.graph is None:
            return self._vectors.among(queries, k, every())
        if level is None and unmarked is None:
            return self._vectors.by_graph(queries, k)

        def allowed(found: I64) -> Mask:
            inside: Mask = (found >= rows.start) & (found < rows.stop)
            return inside if unmarked is None else inside & unmarked(found)

        return self._vectors.by_graph(queries, k, allowed=allowed, otherwise=every)

    def rows_near(self, area: Area, *, level: int | None = None) -> I64:
        """Rows of the tiles whose centre lies in an area, ascending.

        Raises:
            InputError: no such level or no such area.
        """
        self._check_level(level)
        return self._locator.rows(area, level=level)

    def unit_embeddings(self, rows: slice | I64) -> F32:
        """Embeddings of some rows as float32 of unit length, however they are stored.

        Returns:
            (R, D). A fresh array: safe to keep.
        """
        return np.array(unit(self.embeddings[rows]))

    def _unmarked(self, marks: int, rows: I64) -> Mask:
        return np.asarray(self.tiles[rows]["marks"] & marks == 0)

    def _check_level(self, level: int | None) -> None:
        if level is not None and not 0 <= level < len(self.levels):
            msg = f"level is {level}; the index has {len(self.levels)}, counted from 0"
            raise InputError(msg)


def _without(block: RowBlock, unmarked: Callable[[I64], Mask]) -> RowBlock:
    rows = np.concatenate([np.arange(*run) for run in block.runs])
    keep = unmarked(rows)
    return RowBlock(block.runs, keep if block.keep is None else keep & block.keep)
