"""The last gate: on the user's own ground, are places found as well as by the trained encoder?

Cosines say how far an embedding moved; whether that matters depends on how alike the places of a
map are. So views of the map's own imagery (moved, turned, scaled and recoloured a little) are
looked up by both encoders, and what the one under test loses is compared with its limit.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.backends.protocol import open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import GateError, ImageryError
from edge_runtime.gates import GATE_LIMITS, Embed
from edge_runtime.geodesy import enu_offset_m, move_lat_lon
from edge_runtime.imagery import ImageryStore
from edge_runtime.precision import Precision
from edge_runtime.preprocess import EncoderSpec
from edge_runtime.satellite_index import SatelliteIndex, centred

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]

SUCCESS_M = 20.0
QUERIES = 200
MAX_REEMBEDDED_TILES = 400
"""Of a map that another encoder embedded, so many neighbouring tiles are embedded anew."""
HEADING_SIGMA_DEG = 4.0
SCALE_SIGMA = 0.04
_MIN_COVERAGE = 0.95
_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Places:
    """Tiles to search among."""

    lat_deg: F64
    """(T,) centres."""
    lon_deg: F64
    search: Callable[[F32, int], I64]
    """(N, D) embeddings and K to (N, K) positions in the arrays above, best first, -1 for none."""


@dataclass(frozen=True, kw_only=True)
class PlaceQueries:
    """Views with the position each was made at."""

    images: U8
    """(Q, H, W, 3) RGB."""
    lat_deg: F64
    """(Q,)"""
    lon_deg: F64


@dataclass(frozen=True, kw_only=True)
class PlaceQuality:
    """How well places are found; fractions of all queries."""

    recall_at_1: float
    """The tile whose centre is nearest to the query comes first."""
    recall_at_10: float
    success_20m: float
    """The first tile's centre lies within 20 m of the query."""


@dataclass(frozen=True, kw_only=True)
class IndexGateReport:
    """What the gate measured for one precision."""

    precision: Precision
    index_id: str
    queries: int
    tiles: int
    """Searched: all of the index, or those embedded anew."""
    reference: PlaceQuality
    """By the trained encoder."""
    found: PlaceQuality

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return asdict(self)


def places_of(
    index: SatelliteIndex,
    weights_sha256: str,
    spec: EncoderSpec,
    embed: Embed,
    *,
    seed: int = 0,
    progress: Progress = lambda _stage, _done: None,
) -> Places:
    """What to search: the index as it is where this encoder made it, else part of it embedded anew.

    Args:
        index: the user's index.
        weights_sha256: of the trained encoder.
        spec: its contract.
        embed: the trained encoder itself.
        seed: chooses the part.
        progress: told the stage and the fraction done.
    """
    if index.difference_to(weights_sha256, spec) is None:
        return Places(
            lat_deg=np.asarray(index.tiles["lat_deg"], np.float64),
            lon_deg=np.asarray(index.tiles["lon_deg"], np.float64),
            search=lambda embeddings, k: index.search(embeddings, k).rows,
        )
    # Rows are in Hilbert order, so a run of them is a patch of neighbouring ground.
    count = min(len(index), MAX_REEMBEDDED_TILES)
    first = int(np.random.default_rng(seed).integers(len(index) - count + 1))
    tiles = np.asarray(index.tiles[first : first + count])
    parts = []
    for k in range(0, count, _BATCH):
        cut = [
            index.imagery.patch(
                tile["lat_deg"], tile["lon_deg"], size_m=index.level.size_m, size_px=spec.width_px
            ).image
            for tile in tiles[k : k + _BATCH]
        ]
        parts.append(embed(np.stack(cut)))
        progress("embedding tiles", min(k + _BATCH, count) / count)
    embeddings = np.concatenate(parts)
    centre = embeddings.mean(axis=0)
    gallery = centred(embeddings, centre)

    def search(queries: F32, k: int) -> I64:
        similarity = centred(queries, centre) @ gallery.T
        return np.asarray(np.argsort(-similarity, axis=1, kind="stable")[:, :k], np.int64)

    return Places(
        lat_deg=np.asarray(tiles["lat_deg"], np.float64),
        lon_deg=np.asarray(tiles["lon_deg"], np.float64),
        search=search,
    )


def place_queries(
    index: SatelliteIndex,
    places: Places,
    spec: EncoderSpec,
    *,
    count: int = QUERIES,
    seed: int = 0,
) -> PlaceQueries:
    """Views of the ground around tiles, each moved, turned, scaled and recoloured a little.

    Args:
        index: whose imagery is looked at.
        places: whose tiles they lie around, within half a stride.
        spec: what the encoder takes.
        count: how many.
        seed: of everything.

    Raises:
        ImageryError: hardly any place is covered by imagery.
    """
    rng = np.random.default_rng(seed)
    half_m = index.level.stride_m / 2
    images, lat_deg, lon_deg = [], [], []
    for _ in range(20 * count):
        tile = int(rng.integers(len(places.lat_deg)))
        at = move_lat_lon(
            places.lat_deg[tile], places.lon_deg[tile], *rng.uniform(-half_m, half_m, 2)
        )
        lat, lon = float(at.lat_deg), float(at.lon_deg)
        view = _view(index.imagery, lat, lon, index.level.size_m, spec, rng)
        if view is None:
            continue
        images.append(view)
        lat_deg.append(lat)
        lon_deg.append(lon)
        if len(images) == count:
            return PlaceQueries(
                images=np.stack(images), lat_deg=np.array(lat_deg), lon_deg=np.array(lon_deg)
            )
    msg = (
        f"only {len(images)} of {20 * count} places of {index.root} are covered by imagery; "
        f"{count} are needed for the gate. Give an index of more imagery"
    )
    raise ImageryError(msg)


def _view(
    store: ImageryStore,
    lat_deg: float,
    lon_deg: float,
    size_m: float,
    spec: EncoderSpec,
    rng: np.random.Generator,
) -> U8 | None:
    wide_px = round(1.5 * spec.width_px)
    patch = store.patch(lat_deg, lon_deg, size_m=1.5 * size_m, size_px=wide_px)
    scale = float(np.exp(rng.normal(0, SCALE_SIGMA)))
    turn = cv2.getRotationMatrix2D(
        ((wide_px - 1) / 2, (wide_px - 1) / 2), float(rng.normal(0, HEADING_SIGMA_DEG)), scale
    )
    turn[:, 2] = turn[:, 2] + (np.array([spec.width_px, spec.height_px]) - wide_px) / 2
    size = (spec.width_px, spec.height_px)
    image = cv2.warpAffine(patch.image, turn, size, flags=cv2.INTER_LINEAR)
    covered = cv2.warpAffine(patch.mask, turn, size, flags=cv2.INTER_NEAREST)
    if np.count_nonzero(covered) < _MIN_COVERAGE * covered.size:
        return None
    blurred = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.0)))
    pixels = blurred.astype(np.float64)
    pixels = (pixels - 128) * rng.uniform(0.8, 1.2) + 128 + rng.normal(0, 8, 3)
    pixels = pixels + rng.normal(0, 4, pixels.shape)
    return np.asarray(np.clip(pixels, 0, 255), np.uint8)


def place_quality(embeddings: F32, queries: PlaceQueries, places: Places) -> PlaceQuality:
    """Look every query up.

    Args:
        embeddings: (Q, D) of the queries' images.
        queries: where they are.
        places: what is searched.
    """
    first_right, any_right, near = 0, 0, 0
    ranked = places.search(embeddings, 10)
    for lat, lon, rows in zip(queries.lat_deg, queries.lon_deg, ranked, strict=True):
        # One query at a time: all of them by all tiles of a country would not fit in memory.
        offset = enu_offset_m(lat, lon, places.lat_deg, places.lon_deg)
        distance_m = np.hypot(offset.east_m, offset.north_m)
        nearest = int(distance_m.argmin())
        first_right += rows[0] == nearest
        any_right += nearest in rows
        near += rows[0] >= 0 and distance_m[rows[0]] <= SUCCESS_M
    count = len(queries.images)
    return PlaceQuality(
        recall_at_1=float(first_right / count),
        recall_at_10=float(any_right / count),
        success_20m=float(near / count),
    )


def gate_places(
    found: PlaceQuality, reference: PlaceQuality, precision: Precision, *, where: str = ""
) -> None:
    """Refuse an encoder that finds fewer places than the trained one.

    Raises:
        GateError: with both values and the limit.
    """
    limits = GATE_LIMITS[precision]
    for what, now, before, drop in (
        ("recall@1", found.recall_at_1, reference.recall_at_1, limits.recall_drop),
        ("recall@10", found.recall_at_10, reference.recall_at_10, limits.recall_drop),
        ("success@20 m", found.success_20m, reference.success_20m, limits.success_drop),
    ):
        if not now >= before - drop - 1e-9:
            msg = (
                f"{where or precision}: {what} on the index is {now:.1%}, the trained encoder's "
                f"{before:.1%}; expected a loss of at most {drop:.1%}"
            )
            raise GateError(msg)


def gate_on_index(
    bundle: Bundle,
    root: Path,
    embed: Embed,
    precision: Precision,
    *,
    where: str = "",
    progress: Progress = lambda _stage, _done: None,
) -> IndexGateReport:
    """Look places up with an encoder as it runs here and with the bundle's FP32 file on the CPU.

    Args:
        bundle: the encoder's.
        root: index folder; part of one that another encoder made is embedded anew.
        embed: the encoder as it runs.
        precision: whose limits apply.
        where: begins the message; the precision by default.
        progress: told the stage and the fraction done.

    Raises:
        GateError: fewer places are found than with FP32.
        IndexFolderError: not an index.
        BackendError: ONNX Runtime is not installed here.
    """
    index = SatelliteIndex.open(root)
    try:
        full = open_backend(bundle, "ort-cpu", precision="fp32")
        try:
            places = places_of(
                index, bundle.weights_sha256, bundle.spec, full.embed, progress=progress
            )
            queries = place_queries(index, places, bundle.spec)
            before = embed_queries(full.embed, queries, stage="views, FP32", progress=progress)
        finally:
            full.close()
        after = embed_queries(embed, queries, stage=f"views, {precision}", progress=progress)
        reference = place_quality(before, queries, places)
        found = place_quality(after, queries, places)
        gate_places(found, reference, precision, where=where)
        return IndexGateReport(
            precision=precision,
            index_id=index.id,
            queries=len(queries.images),
            tiles=len(places.lat_deg),
            reference=reference,
            found=found,
        )
    finally:
        index.close()


def embed_queries(embed: Embed, queries: PlaceQueries, *, stage: str, progress: Progress) -> F32:
    """(Q, D) embeddings of the queries' images, a few at a time."""
    parts = []
    for k in range(0, len(queries.images), _BATCH):
        parts.append(embed(queries.images[k : k + _BATCH]))
        progress(stage, min(1.0, (k + _BATCH) / len(queries.images)))
    return np.concatenate(parts)
