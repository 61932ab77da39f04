"""Pairs of photographs and the imagery below them, as training and evaluation see them.

A photograph is turned into a ground view with what the telemetry measured (so the encoder learns
with the errors it will fly with); its match is cut from the imagery where the truth says the
view's centre is.
"""

import csv
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.camera import Camera, optical_to_ned
from edge_runtime.errors import InputError
from edge_runtime.geodesy import check_lat_lon, move_lat_lon
from edge_runtime.ground_view import ViewHypothesis, ground_view
from edge_runtime.imagery import ImageryStore
from edge_runtime.satellite_imagery import write_mbtiles
from edge_runtime.state import VehicleState, with_ground_height
from edge_runtime.states.csv_table import read_csv
from train.config import MARGIN
from train.pair_table import ImageArray, ImageSet, PairTable

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
Progress = Callable[[str, float], None]


def joined(parts: Sequence[PairTable]) -> PairTable:
    """In-memory tables of one kind as one.

    Raises:
        InputError: nothing to join.
    """
    if len(parts) < 2:
        if not parts:
            msg = "there are no pairs to join"
            raise InputError(msg)
        return parts[0]
    return _table(
        parts[0].name,
        np.concatenate([_array(part.photos) for part in parts]),
        np.concatenate([_array(part.tiles) for part in parts]),
        [part.photos.images.name(row) for part in parts for row in range(len(part))],
        np.concatenate([part.tiles.lat_deg for part in parts if part.tiles.lat_deg is not None]),
        np.concatenate([part.tiles.lon_deg for part in parts if part.tiles.lon_deg is not None]),
        np.concatenate([part.tiles.size_m for part in parts if part.tiles.size_m is not None]),
    )


def load_pairs(
    photos: Path,
    imagery: Path,
    *,
    telemetry: Path,
    truth: Path,
    camera: Path,
    size_m: float,
    size_px: int,
    name: str = "photographs",
    progress: Progress = lambda _stage, _done: None,
) -> PairTable:
    """Read photographs over imagery.

    Args:
        photos: folder of photographs.
        imagery: georeferenced raster below them.
        telemetry: CSV with filename, height_m, yaw_deg, pitch_deg, roll_deg as measured.
        truth: CSV with filename, lat_deg, lon_deg, height_m, yaw_deg, pitch_deg, roll_deg.
        camera: camera JSON.
        size_m: side of the encoder's view on the ground.
        size_px: the same in pixels.
        name: of the table.
        progress: told the stage and the fraction done.

    Returns:
        Pairs whose view shows enough ground and lies on the imagery, aligned, in memory, MARGIN
        times larger than the encoder's view.

    Raises:
        InputError: a file is missing or unreadable, columns are missing, or no pair is left.
    """
    lens = Camera.load(camera)
    rows, true = read_csv(telemetry).samples, read_truth_csv(truth)
    measured = {row.name: with_ground_height(row.state) for row in rows}
    names = [name for name in true if name in measured]
    if not names:
        msg = f"{telemetry} and {truth} name no photograph in common; expected the same filenames"
        raise InputError(msg)
    big_px, big_m = round(size_px * MARGIN), size_m * round(size_px * MARGIN) / size_px
    with tempfile.TemporaryDirectory() as scratch:
        write_mbtiles([imagery], Path(scratch) / "imagery.mbtiles", progress=progress)
        store = ImageryStore(Path(scratch) / "imagery.mbtiles")
        views: list[tuple[U8, float, float] | None] = []
        with ThreadPoolExecutor() as pool:
            jobs = pool.map(
                lambda name: _view(photos / name, lens, measured[name], true[name], big_m, big_px),
                names,
            )
            for done, view in enumerate(jobs):
                views.append(view)
                progress("photos", (done + 1) / len(names))
        kept, tiles, kept_names = [], [], []
        for photo_name, view in zip(names, views, strict=True):
            if view is None:
                continue
            patch = store.patch(view[1], view[2], size_m=big_m, size_px=big_px)
            if patch.mask.all():
                kept.append(view)
                kept_names.append(photo_name)
                tiles.append(patch.image)
        store.close()
    if not kept:
        msg = f"no photograph of {photos} shows ground that lies on {imagery}"
        raise InputError(msg)
    return _table(
        name,
        np.stack([view[0] for view in kept]),
        np.stack(tiles),
        kept_names,
        np.array([view[1] for view in kept]),
        np.array([view[2] for view in kept]),
        np.full(len(kept), size_m),
    )


def _table(
    name: str,
    photos: U8,
    tiles: U8,
    names: Sequence[str],
    lat_deg: F64,
    lon_deg: F64,
    size_m: F64,
) -> PairTable:
    """Aligned pairs, one tile a photo, with the positions of both."""
    where = {"lat_deg": lat_deg, "lon_deg": lon_deg, "size_m": size_m}
    return PairTable(
        name=name,
        photos=ImageSet(images=ImageArray(photos, names), view="photo", **where),
        tiles=ImageSet(images=ImageArray(tiles, names), view="tile", **where),
        tile_of_photo=np.arange(len(photos), dtype=np.int64),
        geometry="aligned",
        margin=MARGIN,
    )


def _array(images: ImageSet) -> U8:
    if not isinstance(images.images, ImageArray):
        msg = "only tables in memory can be joined"
        raise InputError(msg)
    return images.images.images


@dataclass(frozen=True, kw_only=True)
class TruePose:
    """Where a photograph was really taken."""

    lat_deg: float
    lon_deg: float
    height_m: float
    yaw_deg: float
    pitch_deg: float
    roll_deg: float

    def __post_init__(self) -> None:
        """Refuse what is not a pose.

        Raises:
            InputError: not a position, or not finite.
        """
        check_lat_lon(self.lat_deg, self.lon_deg)
        for name, value in vars(self).items():
            if not math.isfinite(value):
                msg = f"{name} is {value}"
                raise InputError(msg)


def read_truth_csv(path: Path) -> dict[str, TruePose]:
    """Read true poses by file name.

    Raises:
        InputError: unreadable, columns missing, a row cut short, or not a pose.
    """
    columns = ("lat_deg", "lon_deg", "height_m", "yaw_deg", "pitch_deg", "roll_deg")
    expected = f"expected CSV with filename, {', '.join(columns)}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"truth {path} cannot be read ({error}); {expected}"
        raise InputError(msg) from error
    missing = {"filename", *columns} - set(reader.fieldnames or ())
    if missing:
        msg = f"truth {path} lacks {', '.join(sorted(missing))}; {expected}"
        raise InputError(msg)
    poses = {}
    for row in rows:
        try:
            poses[row["filename"]] = TruePose(**{name: float(row[name]) for name in columns})
        except ValueError as error:  # InputError is one too.
            msg = f"truth {path}, {row['filename']}: {error}; {expected}"
            raise InputError(msg) from error
    return poses


def _view(
    path: Path,
    camera: Camera,
    state: VehicleState,
    true: TruePose,
    size_m: float,
    size_px: int,
) -> tuple[U8, float, float] | None:
    """The ground view by telemetry and the position of its centre by the truth."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        msg = f"photograph {path} cannot be read; expected a JPEG or PNG file"
        raise InputError(msg)
    rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
    if state.height_m is None or state.yaw_deg is None:
        return None
    hypothesis = ViewHypothesis(state.yaw_deg, state.height_m)
    view = ground_view(rgb, camera, state, hypothesis, size_m=size_m, size_px=size_px)
    if view is None:
        return None
    # The offset of the centre is taken from the truth, where the photograph really looks.
    east, north = _true_look_m(camera, true)
    east += view.centre_east_m - view.look_east_m
    north += view.centre_north_m - view.look_north_m
    centre = move_lat_lon(true.lat_deg, true.lon_deg, east, north)
    return view.image, float(centre.lat_deg), float(centre.lon_deg)


def _true_look_m(camera: Camera, true: TruePose) -> tuple[float, float]:
    axis = optical_to_ned(
        camera, yaw_deg=true.yaw_deg, pitch_deg=true.pitch_deg, roll_deg=true.roll_deg
    )[:, 2]
    return (
        float(axis[1] / axis[2]) * true.height_m,
        float(axis[0] / axis[2]) * true.height_m,
    )


@dataclass(frozen=True, kw_only=True)
class PhotoFolder:
    """One set of photographs over imagery, by the layout `python -m train world` writes."""

    photos: Path
    imagery: Path
    telemetry: Path
    truth: Path
    camera: Path


def world_folders(world: Path, part: str) -> list[PhotoFolder]:
    """The photograph sets of a world: `train`, or `held_out` with one set per flight.

    Raises:
        InputError: not a world, or held out without flights.
    """
    base = world / part
    try:
        json.loads((world / "world.json").read_text())
    except (OSError, ValueError) as error:
        msg = (
            f"{world} is not a world folder ({error}). Make one with: python -m train world {world}"
        )
        raise InputError(msg) from error
    if part == "train":
        sets = [(base / "photos", base)]
    else:
        sets = [(flight / "frames", flight) for flight in sorted(base.glob("flight_*"))]
    if not sets:
        msg = f"{base} has no flight_* folder. Make one with: python -m train world NEW --flights 2"
        raise InputError(msg)
    return [
        PhotoFolder(
            photos=photos,
            imagery=base / "imagery.tif",
            telemetry=root / "telemetry.csv",
            truth=root / "truth.csv",
            camera=base / "camera.json",
        )
        for photos, root in sets
    ]
