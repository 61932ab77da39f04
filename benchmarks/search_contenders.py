"""Ways to search the same vectors: an index of ours, faiss and NumPy. One thread each."""

import json
import sqlite3
from abc import ABC, abstractmethod
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.artefact import writing_artefact
from edge_runtime.geodesy import distance_m
from edge_runtime.index_format import CENTRE, EMBEDDINGS, IMAGERY, TILES, VECTORS, TileLevel
from edge_runtime.near_prior import Circle
from edge_runtime.satellite_index import SatelliteIndex
from edge_runtime.vector_search import centred
from export.index_vectors import write_vectors

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Stored = Literal["f16", "i8", "f32"]

K = 10
_HNSW_NEIGHBOURS = 32
_HNSW_EXPANSION_ADD = 128
_HNSW_EXPANSIONS = (64, 128, 256, 512, 1024)
_MIN_RECALL = 0.99


class Contender(ABC):
    """One way to search a folder with embeddings.npy, centre.npy and tiles.npy."""

    library: str
    stored_as: str
    files: tuple[Path, ...]
    """That an opened one reads."""

    def __init__(self, folder: Path) -> None:
        """Search what is in a folder."""
        self.folder = folder
        self.files = ()

    @abstractmethod
    def build(self, stored_as: Stored, stride_m: float) -> None:
        """Write what `open` needs."""

    @abstractmethod
    def open(self) -> None:
        """Become ready to answer."""

    @abstractmethod
    def whole(self, queries: F32) -> I64:
        """(N, 10) rows of the map nearest to (N, D) queries as the encoder gives them."""

    @abstractmethod
    def circle(self, queries: F32, circle: Circle) -> I64:
        """(N, 10) rows of the tiles in a circle nearest to each query, -1 for none."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""


class Skyfix(Contender):
    """An index folder as `python -m export index` writes it, its imagery a blank tile."""

    library = f"usearch {version('usearch')}"

    def build(self, stored_as: Stored, stride_m: float) -> None:
        """Seal an index."""
        tiles = np.load(self.folder / TILES)
        embeddings = np.load(self.folder / EMBEDDINGS, mmap_mode="r")
        level = TileLevel(size_m=2 * stride_m, stride_m=stride_m, rows=len(tiles))
        meta: dict[str, Any] = {
            "weights_sha256": "simulated",
            "preprocessing_sha256": "simulated",
            "levels": [asdict(level)],
        }
        root = self.folder / "index"
        with writing_artefact(root, "index", meta) as folder:
            np.save(folder / TILES, tiles)
            meta["search"] = write_vectors(folder, embeddings, [level], dtype=stored_as)
            _write_blank_imagery(folder / IMAGERY)
        self.stored_as = f"{stored_as}, {json.dumps(meta['search'])}"
        self.files = tuple(root / n for n in (EMBEDDINGS, VECTORS, TILES) if (root / n).exists())

    def open(self) -> None:
        """Open as flight does."""
        self._index = SatelliteIndex.open(self.folder / "index")

    def whole(self, queries: F32) -> I64:
        """Search all of it."""
        return self._index.search(queries, K).rows

    def circle(self, queries: F32, circle: Circle) -> I64:
        """Search near a place."""
        return self._index.search(queries, K, near=circle).rows

    def close(self) -> None:
        """Close the imagery."""
        self._index.close()
        del self._index


class _WithCentre(Contender):
    """What the others share: our centring, and a linear scan for the tiles of a circle."""

    def _load(self) -> None:
        tiles = np.load(self.folder / TILES)
        self._lat = np.ascontiguousarray(tiles["lat_deg"])
        self._lon = np.ascontiguousarray(tiles["lon_deg"])
        self._centre = np.load(self.folder / CENTRE)

    def _centred(self) -> F32:
        embeddings = np.load(self.folder / EMBEDDINGS, mmap_mode="r")
        return centred(np.asarray(embeddings, np.float32), np.load(self.folder / CENTRE))

    def _near(self, circle: Circle) -> I64:
        far_m = distance_m(circle.lat_deg, circle.lon_deg, self._lat, self._lon)
        return np.flatnonzero(far_m <= circle.radius_m)


class Plain(_WithCentre):
    """One float32 matrix and NumPy."""

    library = f"numpy {version('numpy')}"
    stored_as = "f32, exact"

    def build(self, stored_as: Stored, stride_m: float) -> None:
        """Write centred float32."""
        np.save(self.folder / "plain.npy", self._centred())
        self.files = (self.folder / "plain.npy", self.folder / TILES)

    def open(self) -> None:
        """Map the matrix."""
        self._load()
        self._vectors = np.load(self.folder / "plain.npy", mmap_mode="r")

    def whole(self, queries: F32) -> I64:
        """One product, one partition."""
        return _best(centred(queries, self._centre) @ self._vectors.T)

    def circle(self, queries: F32, circle: Circle) -> I64:
        """Distance to every tile, then one product."""
        rows = self._near(circle)
        found = _best(centred(queries, self._centre) @ self._vectors[rows].T)
        return np.where(found >= 0, rows[found], -1)

    def close(self) -> None:
        """Unmap."""
        del self._vectors


class Faiss(_WithCentre):
    """faiss on the CPU, memory-mapped, filtered by a selector of rows."""

    def __init__(self, folder: Path, kind: Literal["flat", "hnsw"]) -> None:
        """Use IndexFlat or IndexHNSWFlat, inner product."""
        super().__init__(folder)
        self.library = f"faiss {version('faiss-cpu')} {kind}"
        self.stored_as = "f32, exact"
        self._kind = kind
        self._path = folder / f"faiss_{kind}.index"
        self._expansion = 0

    def build(self, stored_as: Stored, stride_m: float) -> None:
        """Build with all cores; raise the graph's expansion until its recall holds, as ours."""
        faiss = import_module("faiss")

        vectors = self._centred()
        size = vectors.shape[1]
        if self._kind == "flat":
            index = faiss.IndexFlatIP(size)
        else:
            index = faiss.IndexHNSWFlat(size, _HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction = _HNSW_EXPANSION_ADD
        index.add(vectors)
        if self._kind == "hnsw":
            queries = centred(np.load(self.folder / "queries.npy"), np.load(self.folder / CENTRE))
            truth = np.load(self.folder / "truth.npy")
            for self._expansion in _HNSW_EXPANSIONS:
                index.hnsw.efSearch = self._expansion
                if recall(truth, index.search(queries, K)[1]) >= _MIN_RECALL:
                    break
            self.stored_as = f"f32, neighbours {_HNSW_NEIGHBOURS}, expansion {self._expansion}"
        faiss.write_index(index, str(self._path))
        self.files = (self._path, self.folder / TILES)

    def open(self) -> None:
        """Map the file; nothing is verified."""
        faiss = import_module("faiss")

        faiss.omp_set_num_threads(1)
        self._load()
        self._index = faiss.read_index(str(self._path), faiss.IO_FLAG_MMAP_IFC)
        if self._kind == "hnsw":
            self._index.hnsw.efSearch = self._expansion

    def whole(self, queries: F32) -> I64:
        """Search all of it."""
        return np.asarray(self._index.search(centred(queries, self._centre), K)[1])

    def circle(self, queries: F32, circle: Circle) -> I64:
        """Search with a selector of the rows in the circle."""
        faiss = import_module("faiss")

        selector = faiss.IDSelectorBatch(self._near(circle))
        if self._kind == "flat":
            parameters = faiss.SearchParameters(sel=selector)
        else:
            parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=self._expansion)
        return np.asarray(
            self._index.search(centred(queries, self._centre), K, params=parameters)[1]
        )

    def close(self) -> None:
        """Unmap."""
        del self._index


def recall(truth: I64, found: I64) -> float:
    """Share of the true rows (N, K), -1 for none, that are among those found (N, any)."""
    hit = (truth[:, :, None] == found[:, None, :]).any(axis=2)
    return float(hit[truth >= 0].mean())


def _best(cosines: F32) -> I64:
    count = min(K, cosines.shape[1])
    found = np.full((len(cosines), K), -1, np.int64)
    if count:
        part = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(cosines, part, axis=1), axis=1, kind="stable")
        found[:, :count] = np.take_along_axis(part, order, axis=1)
    return found


def _write_blank_imagery(path: Path) -> None:
    """An MBTiles of one black tile: searches never look at it."""
    _, data = cv2.imencode(".png", np.zeros((256, 256, 3), np.uint8))
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE metadata (name text, value text)")
    db.execute(
        "CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, "
        "tile_data blob)"
    )
    db.execute("INSERT INTO metadata VALUES ('bounds', '-180,-85,180,85')")
    db.execute("INSERT INTO tiles VALUES (0, 0, 0, ?)", (data.tobytes(),))
    db.commit()
    db.close()
