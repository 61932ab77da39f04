"""Does the ambiguity of a place say whether retrieval errs there?

`python -m benchmarks ambiguity --bundle B --index I`, and for a flight `--photos P --telemetry T
--camera C --truth R`, scores a map without any photograph, then looks up views whose place is
known: simulated ones of the map's own imagery, and the flight's photographs. Per set: the share
whose most similar tile lies elsewhere, the chance that was expected of their places, and the area
under the ROC curve of chance and margin (0.5: no better than a coin), with a bootstrap's 95 %
interval, which takes views as independent.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.flown_frames import FlownFrames
from benchmarks.rows import Provenance, provenance
from benchmarks.scored_flight import read_truth
from edge_runtime.backends.protocol import Backend, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m, move_lat_lon
from edge_runtime.ground_view import ground_view, view_hypotheses
from edge_runtime.index_gate import Places, embed_queries, place_queries
from edge_runtime.map_ambiguity import default_far_m, score_tiles
from edge_runtime.satellite_index import SatelliteIndex, centred
from edge_runtime.vector_search import F32

F64 = npt.NDArray[np.float64]
B1 = npt.NDArray[np.bool_]
Interval = tuple[float, float, float]
"""A value, and the lower and upper end of its 95 % interval."""

_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class AmbiguityRow(Provenance):
    """One set of views on one map."""

    kind: str = "ambiguity"
    views_of: str
    index_id: str
    bundle_id: str
    likeness: float
    """The scores were made with."""
    far_m: float
    views: int
    wrong: int
    """Whose most similar tile lies farther than `far_m`."""
    expected_wrong: float
    """Mean chance of their places."""
    likeness_nearest: float
    """Median cosine with the nearest tile."""
    likeness_best: float
    """Median cosine with the most similar tile within half a tile."""
    auc_chance: Interval | None
    """None where all or none are wrong."""
    auc_margin: Interval | None


def area_under_curve(score: F64, wrong: B1) -> float:
    """Chance that a wrong one scores higher than a right one; ties count half."""
    bad, good = score[wrong][:, None], score[~wrong]
    return float(np.mean((bad > good) + 0.5 * (bad == good)))


def with_interval(score: F64, wrong: B1, *, seed: int = 0) -> Interval | None:
    """The area, and a bootstrap's interval; None where there is nothing to tell apart."""
    if wrong.all() or not wrong.any():
        return None
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(_RESAMPLES):
        some = rng.integers(len(wrong), size=len(wrong))
        if wrong[some].any() and not wrong[some].all():
            found.append(area_under_curve(score[some], wrong[some]))
    low, high = np.quantile(found, [0.025, 0.975])
    return area_under_curve(score, wrong), float(low), float(high)


def simulated_views(
    index: SatelliteIndex, bundle: Bundle, backend: Backend, count: int
) -> tuple[F32, F64]:
    """Embeddings and (N, 2) places of views of the map's own imagery."""
    tiles = index.tiles[: index.level.rows]
    places = Places(
        lat_deg=np.asarray(tiles["lat_deg"], np.float64),
        lon_deg=np.asarray(tiles["lon_deg"], np.float64),
        search=lambda embeddings, k: index.search(embeddings, k).rows,
    )
    queries = place_queries(index, places, bundle.spec, count=count, seed=5)
    embeddings = embed_queries(
        backend.embed, queries, stage="", progress=lambda _stage, _done: None
    )
    return embeddings, np.stack([queries.lat_deg, queries.lon_deg], axis=1)


def photographs(
    index: SatelliteIndex, bundle: Bundle, backend: Backend, args: argparse.Namespace
) -> tuple[F32, F64]:
    """Embeddings and (N, 2) true centres of a flight's ground views of known heading.

    Raises:
        InputError: no photograph has a truth and a heading.
    """
    camera, true = Camera.load(args.camera), read_truth(args.truth)
    embeddings, places = [], []
    for frame in FlownFrames(args.photos, args.telemetry):
        hypotheses = view_hypotheses(frame.state) if frame.name in true else []
        if len(hypotheses) != 1 or frame.image is None:
            continue
        view = ground_view(
            frame.image,
            camera,
            frame.state,
            hypotheses[0],
            size_m=index.level.size_m,
            size_px=bundle.spec.width_px,
        )
        if view is None:
            continue
        at = true[frame.name]
        lat, lon = at.lat_deg, at.lon_deg
        east, north = view.centre_east_m, view.centre_north_m
        if at.look_lat_deg is not None and at.look_lon_deg is not None:
            lat, lon = at.look_lat_deg, at.look_lon_deg
            east, north = east - view.look_east_m, north - view.look_north_m
        place = move_lat_lon(lat, lon, east, north)
        places.append((float(place.lat_deg), float(place.lon_deg)))
        embeddings.append(backend.embed(view.image[None])[0])
    if not places:
        msg = f"no photograph of {args.photos} has a truth in {args.truth} and a known heading"
        raise InputError(msg)
    return np.stack(embeddings), np.array(places)


def ambiguity_row(
    index: SatelliteIndex,
    bundle: Bundle,
    name: str,
    views: tuple[F32, F64],
    *,
    likeness: float,
) -> AmbiguityRow:
    """Score the map, look the views up, and compare."""
    level, (embeddings, places) = index.level, views
    far_m = default_far_m(level)
    scores = score_tiles(index, level, np.arange(level.rows), likeness=likeness)
    similar = centred(embeddings, index.centre) @ index.unit_embeddings(slice(0, level.rows)).T
    away = np.stack(
        [distance_m(lat, lon, scores.lat_deg, scores.lon_deg) for lat, lon in places.tolist()]
    )
    one, own = np.arange(len(places)), away.argmin(axis=1)
    wrong = away[one, similar.argmax(axis=1)] > far_m
    best = np.where(away <= level.size_m / 2, similar, -1.0).max(axis=1)
    return AmbiguityRow(
        **provenance(),
        views_of=name,
        index_id=index.id,
        bundle_id=bundle.id,
        likeness=likeness,
        far_m=far_m,
        views=len(places),
        wrong=int(wrong.sum()),
        expected_wrong=float(scores.chance[own].mean()),
        likeness_nearest=float(np.median(similar[one, own])),
        likeness_best=float(np.median(best)),
        auc_chance=with_interval(scores.chance[own].astype(np.float64), wrong),
        auc_margin=with_interval(-scores.margin[own].astype(np.float64), wrong),
    )


def run(args: argparse.Namespace) -> Iterator[AmbiguityRow]:
    """Rows as they are measured.

    Args:
        args: bundle, index, views, likeness (several), and of a flight photos, telemetry, camera
            and truth: all four or none.

    Raises:
        InputError: a flight is given in part, or too few views.
    """
    if args.views < 1:
        msg = f"--views is {args.views}; expected at least 1"
        raise InputError(msg)
    given = [args.photos, args.telemetry, args.camera, args.truth]
    if any(given) and not all(given):
        msg = "a flight needs all of --photos, --telemetry, --camera and --truth"
        raise InputError(msg)
    bundle = Bundle.open(args.bundle)
    index = SatelliteIndex.open(args.index, bundle)
    backend = open_backend(bundle, "ort-cpu", threads=1)
    sets = {"simulated": simulated_views(index, bundle, backend, args.views)}
    if all(given):
        sets[str(args.photos)] = photographs(index, bundle, backend, args)
    for name, views in sets.items():
        for likeness in args.likeness:
            yield ambiguity_row(index, bundle, name, views, likeness=likeness)
