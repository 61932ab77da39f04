"""Retrieval alone: how far the most similar tiles lie from where each frame looks.

No refinement, no track, no prior: what the encoder itself can do on the index that will fly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.flown_frames import FlownFrames
from benchmarks.intervals import Rate, rate
from benchmarks.rows import Provenance, provenance
from benchmarks.scored_flight import Truth, read_truth
from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m, move_lat_lon
from edge_runtime.ground_view import GroundView, ground_view, view_hypotheses
from edge_runtime.localizer import Localizer

F64 = npt.NDArray[np.float64]

SUCCESS_M = (5, 10, 20, 50, 100)
"""Distances of the success rates."""
_TOP = 10


@dataclass(frozen=True, kw_only=True)
class RetrievalRow(Provenance):
    """Retrieval of one flight's frames in a whole index."""

    kind: str = "retrieval"
    flight: str
    bundle_id: str
    index_id: str
    backend: str
    tiles: int
    """Size of the gallery."""
    tile_m: float
    stride_m: float
    frames: int
    """Frames with a truth; those that show too little ground count as not found."""
    unseen: int
    """Of them, those that show too little ground."""
    success: dict[str, Rate]
    """First tile within so many metres of where the view's centre truly is, of all frames."""
    success_of_5: dict[str, Rate]
    """One of the first five tiles."""
    median_m: float
    """Of the first tile, over the frames that show ground."""
    dis_at_1_m: float
    """Mean distance of the first tile."""
    dis_at_5_m: float
    """Mean distance of the first five."""


def retrieval_row(
    localizer: Localizer,
    source: Path,
    telemetry: Path,
    truth: Path,
    *,
    look: bool = False,
    within: Callable[[float, float], bool] = lambda _lat, _lon: True,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> RetrievalRow:
    """Search the whole index for every frame's ground view.

    Where the heading is not known all are tried and the most similar tile of any counts.

    Args:
        localizer: opened on the flight's map; its track is not used.
        source: folder of photographs.
        telemetry: CSV with what the aircraft knew.
        truth: CSV with filename, lat_deg, lon_deg (and look_lat_deg, look_lon_deg).
        look: the truth is where the optical axis meets the ground, not the drone's position.
        within: only frames whose view is centred where this says yes, by latitude and longitude.
        progress: told how many frames are done, of how many.

    Raises:
        InputError: inputs do not fit each other.
    """
    true = read_truth(truth)
    frames = FlownFrames(source, telemetry)
    index, spec = localizer.index, localizer.bundle.spec
    off: list[F64] = []
    unseen = 0
    for done, frame in enumerate(frames, start=1):
        progress(done, len(frames))
        if frame.name not in true or frame.image is None:
            continue
        views = [
            ground_view(
                frame.image,
                localizer.camera,
                frame.state,
                hypothesis,
                size_m=index.level.size_m,
                size_px=spec.width_px,
            )
            for hypothesis in view_hypotheses(
                frame.state, height_range_m=localizer.config.height_range_m
            )
        ]
        seen = [view for view in views if view is not None]
        if not seen:
            unseen += 1
            continue
        images = np.stack([view.image for view in seen])
        found = index.search(localizer.backend.embed(images), _TOP)
        order = np.argsort(-found.similarities, axis=None, kind="stable")[:_TOP]
        view_of, rank = np.unravel_index(order, found.similarities.shape)
        places = index.tiles[found.rows[view_of, rank]]
        centres = [_centre(seen[k], true[frame.name], look=look) for k in view_of]
        if centres[0] is None:
            continue
        lat, lon = np.array(centres, np.float64).T
        if within(float(lat[0]), float(lon[0])):
            off.append(np.asarray(distance_m(places["lat_deg"], places["lon_deg"], lat, lon)))
    if not off:
        msg = f"no frame of {source} has a truth in {truth}; expected the same file names"
        raise InputError(msg)
    first = np.array([metres[0] for metres in off])
    five = np.stack([metres[:5] for metres in off])
    count = len(off) + unseen
    return RetrievalRow(
        **provenance(),
        flight=str(source),
        bundle_id=localizer.bundle.id,
        index_id=index.id,
        backend=localizer.backend.info.provider,
        tiles=len(index),
        tile_m=index.level.size_m,
        stride_m=index.level.stride_m,
        frames=count,
        unseen=unseen,
        success={f"{m} m": rate(int(np.sum(first <= m)), count) for m in SUCCESS_M},
        success_of_5={f"{m} m": rate(int(np.sum(five.min(axis=1) <= m)), count) for m in SUCCESS_M},
        median_m=float(np.median(first)),
        dis_at_1_m=float(first.mean()),
        dis_at_5_m=float(five.mean()),
    )


def _centre(view: GroundView, true: Truth, *, look: bool) -> tuple[float, float] | None:
    """Where the view's centre truly lies: the truth moved by what the view knows of itself."""
    lat, lon = (true.look_lat_deg, true.look_lon_deg) if look else (true.lat_deg, true.lon_deg)
    if lat is None or lon is None:
        return None
    east, north = view.centre_east_m, view.centre_north_m
    if look:
        east, north = east - view.look_east_m, north - view.look_north_m
    place = move_lat_lon(lat, lon, east, north)
    return float(place.lat_deg), float(place.lon_deg)
