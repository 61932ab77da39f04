"""Pictures to measure quality on: views of a flight, and tiles of its ground.

Queries are made as flight makes them (`edge_runtime.ground_view`), with what the aircraft knew of
its pose. Tiles are cut from the same imagery as an index cuts them; those nearest to any query come
first, so a small gallery holds every query's own tile and the ones hardest to tell from it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.flown_frames import FlownFrames
from benchmarks.matrix.pictures import Pictures
from benchmarks.random_checkpoint import GROUND_SIZE_M
from benchmarks.scored_flight import Truth, read_truth
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.geodesy import enu_offset_m, move_lat_lon
from edge_runtime.ground_view import ground_view, view_hypotheses
from edge_runtime.imagery import ImageryStore
from edge_runtime.preprocess import EncoderSpec
from edge_runtime.satellite_imagery import write_mbtiles
from edge_runtime.satellite_index import SatelliteIndex
from export.index_plan import grid_positions

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]

WORLD_SEED = 1652
"""Of the made-up world: another one than the examples train on."""
_STRIDES = 4
"""Tiles a side, as the examples' indexes have them."""
_WORLD_M = 1000.0
_FRAMES = 150


@dataclass(frozen=True, kw_only=True)
class Flight:
    """A flight with its truth, and imagery of its ground."""

    source: Path
    telemetry: Path
    truth: Path
    camera: Path
    imagery: Path
    """MBTiles."""
    index: Path | None
    """Whose tiles are the gallery; None cuts the imagery in a grid of the encoder's own size."""
    data: str
    """What the pictures are, for the rows."""


def made_up_flight(work: Path, *, say: Callable[[str], None] = lambda _: None) -> Flight:
    """A flight over a made-up world, made in some seconds and kept.

    Args:
        work: folder to keep it in.
        say: told when it is made.
    """
    from train.world import WorldConfig, make_world

    world = work / "world"
    ground = world / "held_out"
    config = WorldConfig(
        seed=WORLD_SEED,
        train_size_m=400.0,
        train_photos=0,
        held_out_size_m=_WORLD_M,
        flights=1,
        frames_per_flight=_FRAMES,
    )
    if not (world / "world.json").exists():
        say("making a world to fly over, some seconds")
        make_world(world, config)
    mbtiles = work / "world.mbtiles"
    if not mbtiles.exists():
        half = work / "world.half.mbtiles"
        half.unlink(missing_ok=True)  # Of a process that was stopped.
        write_mbtiles([ground / "imagery.tif"], half)
        half.replace(mbtiles)
    return Flight(
        source=ground / "flight_1" / "frames",
        telemetry=ground / "flight_1" / "telemetry.csv",
        truth=ground / "flight_1" / "truth.csv",
        camera=ground / "camera.json",
        imagery=mbtiles,
        index=None,
        data=f"made-up world {WORLD_SEED}",
    )


def pictures(flight: Flight, spec: EncoderSpec, *, queries: int, tiles: int) -> Pictures:
    """Cut queries and tiles at an encoder's size.

    Args:
        flight: with its truth.
        spec: the encoder's contract.
        queries: views, spread evenly over the flight; fewer where it has fewer.
        tiles: of the gallery; fewer where the imagery has fewer.

    Raises:
        InputError: no frame shows ground and has a truth, or the files do not fit each other.
        ImageryError: the imagery cannot be read.
    """
    store = ImageryStore(flight.imagery)
    places, size_m = _grid(flight, store, spec)
    views, at = _views(flight, spec, size_m, queries)
    apart = np.full(len(places), np.inf)
    for lat, lon in at:
        offset = enu_offset_m(lat, lon, places[:, 0], places[:, 1])
        apart = np.minimum(apart, np.hypot(offset.east_m, offset.north_m))
    nearest = np.sort(np.argsort(apart, kind="stable")[:tiles])
    cut = [
        store.patch(float(lat), float(lon), size_m=size_m, size_px=spec.width_px).image
        for lat, lon in places[nearest]
    ]
    return Pictures(
        queries=views,
        tiles=np.stack(cut),
        query_places=at,
        tile_places=places[nearest],
        data=f"{flight.data}: {len(views)} views, {len(cut)} tiles of {size_m:g} m",
    )


def _grid(flight: Flight, store: ImageryStore, spec: EncoderSpec) -> tuple[F64, float]:
    """(T, 2) latitude and longitude of all tiles, and their side in metres."""
    if flight.index is None:
        size_m = spec.ground_size_m or GROUND_SIZE_M
        tiles = grid_positions(store.bounds, size_m, size_m / _STRIDES)
        return np.stack([tiles["lat_deg"], tiles["lon_deg"]], axis=1).astype(np.float64), size_m
    index = SatelliteIndex.open(flight.index)
    try:
        level = index.level
        tiles = index.tiles[level.row_range.start : level.row_range.stop]
        if len(level.headings_deg) > 1:
            tiles = tiles[tiles["heading_deg"] == 0]
        return np.stack([tiles["lat_deg"], tiles["lon_deg"]], axis=1).astype(
            np.float64
        ), level.size_m
    finally:
        index.close()


def _views(flight: Flight, spec: EncoderSpec, size_m: float, queries: int) -> tuple[U8, F64]:
    """(Q, H, W, 3) views and (Q, 2) where their centres truly are."""
    true = read_truth(flight.truth)
    camera = Camera.load(flight.camera)
    frames = FlownFrames(flight.source, flight.telemetry)
    step = max(1, len(frames) // queries)
    views: list[U8] = []
    at: list[tuple[float, float]] = []
    for number, frame in enumerate(frames):
        if len(views) == queries:
            break
        if number % step or frame.image is None or frame.name not in true:
            continue
        view = ground_view(
            frame.image,
            camera,
            frame.state,
            view_hypotheses(frame.state)[0],
            size_m=size_m,
            size_px=spec.width_px,
        )
        if view is not None:
            views.append(view.image)
            at.append(_true_centre(true[frame.name], view.centre_east_m, view.centre_north_m))
    if not views:
        msg = (
            f"no frame of {flight.source} shows ground and has a truth in {flight.truth}; expected "
            "the same file names, and telemetry with height_m and yaw_deg"
        )
        raise InputError(msg)
    return np.stack(views), np.array(at, np.float64)


def _true_centre(true: Truth, east_m: float, north_m: float) -> tuple[float, float]:
    place = move_lat_lon(true.lat_deg, true.lon_deg, east_m, north_m)
    return float(place.lat_deg), float(place.lon_deg)
