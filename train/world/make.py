"""Make a world on disk."""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine

from edge_runtime.errors import InputError
from train.world.config import WorldConfig
from train.world.flight import Poses, flight_poses, measured, random_poses
from train.world.georeference import CRS, Georeference, utm_from_lat_lon
from train.world.objects import place_objects
from train.world.photos import Developer, take_photos, write_telemetry, write_truth
from train.world.rendering import DRONE, SATELLITE, render, soil_map
from train.world.terrain import make_terrain

U8 = npt.NDArray[np.uint8]
Progress = Callable[[str, float], None]

GAP_M = 3000.0
"""Between the training ground and the held-out ground to its east."""

# Streams of randomness; one number per purpose, so that one does not shift another.
_TERRAIN, _OBJECTS, _SOIL, _POSES, _SENSORS, _PHOTOS, _GRAIN = range(1, 8)
_TRAIN, _HELD_OUT = 100, 200

FILES = {
    "train/imagery.tif": "satellite imagery of the training ground",
    "train/camera.json": "the drone's camera",
    "train/photos": "drone photos at random poses over the training ground",
    "train/telemetry.csv": "what the drone measured for each photo; no position",
    "train/truth.csv": "true poses, and where the optical axis meets the ground",
    "held_out/imagery.tif": "satellite imagery of other ground",
    "held_out/camera.json": "the drone's camera",
    "held_out/flight_N": "one flight over it: frames, telemetry.csv, truth.csv",
}
"""What each file of a world is."""


def georeferences(config: WorldConfig) -> tuple[Georeference, Georeference]:
    """Where the training ground and the held-out ground lie; they never touch."""
    east, north = utm_from_lat_lon(config.centre_lat_deg, config.centre_lon_deg)
    east, north = round(east, -2), round(north, -2)
    train = Georeference(origin_east_m=east, origin_north_m=north)
    further = east + float(np.ceil(config.train_size_m / 100) * 100) + GAP_M
    return train, Georeference(origin_east_m=further, origin_north_m=north)


def _write_imagery(path: Path, rgb: U8, place: Georeference, gsd_m: float) -> None:
    side = rgb.shape[0]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=side,
        height=side,
        count=3,
        dtype="uint8",
        crs=CRS,
        transform=Affine(gsd_m, 0.0, place.origin_east_m, 0.0, -gsd_m, place.origin_north_m),
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="JPEG",
        jpeg_quality=92,
        photometric="YCBCR",
    ) as file:
        file.write(np.ascontiguousarray(rgb.transpose(2, 0, 1)))


def _make_ground(
    folder: Path,
    size_m: float,
    stream: int,
    place: Georeference,
    config: WorldConfig,
    progress: Callable[[float], None],
    *,
    drone: bool,
) -> U8 | None:
    """Write imagery.tif and camera.json; return the drone rendering where it is needed."""
    terrain = make_terrain(size_m, np.random.default_rng([config.seed, stream, _TERRAIN]))
    objects = place_objects(terrain, np.random.default_rng([config.seed, stream, _OBJECTS]))
    soil = soil_map(terrain, 0.0, np.random.default_rng([config.seed, stream, _SOIL]))
    progress(0.15)
    permanent_seed = (config.seed * 1000 + stream) * 4
    satellite = render(
        terrain,
        objects,
        soil,
        SATELLITE,
        gsd_m=config.satellite_gsd_m,
        permanent_seed=permanent_seed,
        season_seed=permanent_seed + 1,
    )
    _write_imagery(folder / "imagery.tif", satellite, place, config.satellite_gsd_m)
    (folder / "camera.json").write_text(config.camera().to_json())
    progress(0.4)
    if not drone:
        return None
    return render(
        terrain,
        objects,
        soil,
        DRONE,
        gsd_m=config.drone_gsd_m,
        permanent_seed=permanent_seed,
        season_seed=permanent_seed + 2,
    )


def _build(out: Path, config: WorldConfig, report: Progress) -> None:
    camera = config.camera()
    train_place, held_out_place = georeferences(config)
    developer = Developer(camera, np.random.default_rng([config.seed, _GRAIN]))

    def record(
        folder: Path,
        images: str,
        poses: Poses,
        ground: U8,
        place: Georeference,
        stream: int,
        stage: str,
    ) -> None:
        (folder / images).mkdir(parents=True)
        take_photos(
            folder / images,
            ground,
            config.drone_gsd_m,
            place,
            camera,
            poses,
            developer,
            seed=(config.seed, stream + _PHOTOS),
            threads=config.threads,
            progress=lambda share: report(stage, share),
        )
        rng = np.random.default_rng([config.seed, stream, _SENSORS])
        believed = measured(poses, config, rng, one_flight=images == "frames")
        write_telemetry(folder / "telemetry.csv", believed)
        write_truth(folder / "truth.csv", poses, place, camera)
        report(stage, 1.0)

    folder = out / "train"
    folder.mkdir()
    stage = "training ground"
    ground = _make_ground(
        folder,
        config.train_size_m,
        _TRAIN,
        train_place,
        config,
        lambda share: report(stage, share),
        drone=config.train_photos > 0,
    )
    report(stage, 1.0)
    if ground is None:
        ground = np.zeros((1, 1, 3), np.uint8)
    poses = random_poses(config, np.random.default_rng([config.seed, _TRAIN, _POSES]))
    record(folder, "photos", poses, ground, train_place, _TRAIN, "training photos")
    del ground

    folder = out / "held_out"
    folder.mkdir()
    held_out = _make_ground(
        folder,
        config.held_out_size_m,
        _HELD_OUT,
        held_out_place,
        config,
        lambda share: report("held-out ground", share),
        drone=config.flights > 0,
    )
    report("held-out ground", 1.0)
    if held_out is not None:
        for number in range(1, config.flights + 1):
            stream = _HELD_OUT + 10 * number
            rng = np.random.default_rng([config.seed, stream, _POSES])
            record(
                folder / f"flight_{number}",
                "frames",
                flight_poses(config, held_out_place, rng),
                held_out,
                held_out_place,
                stream,
                f"flight {number}",
            )

    # The number of threads changes nothing in a world, so it is not part of its description.
    described = {name: value for name, value in asdict(config).items() if name != "threads"}
    world = {"made_by": "python -m train world", "crs": CRS, "config": described, "files": FILES}
    (out / "world.json").write_text(json.dumps(world, indent=1) + "\n")


def make_world(out: Path, config: WorldConfig, *, progress: Progress | None = None) -> None:
    """Make a world: imagery, photos, flights, telemetry and truth.

    The world appears under `out` only when complete.

    Args:
        out: folder to make; may exist if empty.
        config: size and seed.
        progress: called with the stage's name and its share done, 0..1.

    Raises:
        InputError: `out` is a file or a folder that is not empty, or cannot be made.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out} exists and is not an empty folder; give a new folder, or remove it first"
        raise InputError(msg)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    except OSError as error:
        msg = f"cannot make a folder beside {out} ({error}); give a folder that can be written"
        raise InputError(msg) from error
    try:
        temporary.chmod(0o755)
        _build(temporary, config, progress or (lambda _stage, _share: None))
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
