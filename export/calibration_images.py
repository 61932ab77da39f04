"""Calibration images: what the encoder will see, from the user's own photographs and maps.

Ranges of activations are measured on these (FP16's overflow, INT8's scales), and a third of them
is held out to judge the result by.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from rasterio.transform import Affine

from edge_runtime.errors import ImageryError, InputError
from edge_runtime.geodesy import move_lat_lon
from edge_runtime.map_sources.rasters import Raster, find_raster, with_stretch
from edge_runtime.preprocess import EncoderSpec, resize_to_encoder
from edge_runtime.sources.photographs import PHOTO_SUFFIXES
from export.probes import probe_images

U8 = npt.NDArray[np.uint8]

MIN_COVERAGE = 0.9
"""Places with less imagery than this are passed over, as an index does."""
_RASTER_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2")
_VIEWS_OF_A_PHOTO = 4
"""The whole photograph and three squares cut from it; more of one photograph teaches little."""
_FEW = 24
"""With fewer images than this a photograph is cut more often."""
_PROBES = 16
"""The first made-up images are the gates' probes, which must not be calibrated on."""
_R2 = np.array([0.7548776662466927, 0.5698402909980532])
"""Inverse of the plastic number and its square: steps that cover a square evenly at any count."""


@dataclass(frozen=True, kw_only=True)
class CalibrationImages:
    """Images to calibrate on, and others to judge by."""

    calibration: U8
    """(C, H, W, 3) uint8, RGB."""
    held_out: U8
    """(P, H, W, 3) uint8, RGB: other photographs, other places."""
    photographs: int
    """Photographs used."""
    places: int
    """Squares of ground cut from maps."""
    made_up: int
    """Images that no camera took."""

    @property
    def real(self) -> bool:
        """Whether a camera took them. INT8 scales from made-up images are wrong for real ones.

        An encoder may answer made-up images with activations many times those of any photograph:
        scales for both waste the few levels there are, and scales for one fail on the other.
        """
        return self.made_up == 0

    def note(self) -> str:
        """One line for the user: what was calibrated on, and what would be better."""
        parts = []
        if self.photographs:
            parts.append(f"{self.photographs} photographs")
        if self.places:
            parts.append(f"{self.places} places of the maps")
        if self.made_up:
            parts.append(f"{self.made_up} made-up images")
        total = len(self.calibration) + len(self.held_out)
        line = f"calibration: {total} images of {', '.join(parts)}"
        if self.made_up:
            line += "; INT8 needs photographs or maps of your own area (--calibration)"
        return line


def calibration_images(
    sources: Sequence[Path],
    spec: EncoderSpec,
    *,
    images: int = 96,
    size_m: float | None = None,
    seed: int = 0,
) -> CalibrationImages:
    """Calibration images at the encoder's size from photographs and georeferenced rasters.

    Photographs are taken whole, as the encoder's resize rule says, and as squares cut from them.
    Maps are cut north up at places spread evenly over each (the R2 sequence of M. Roberts 2018,
    shifted by the seed). Every third photograph and place is held out.
    Made-up images are never mixed with real ones; see `CalibrationImages.real`.

    Args:
        sources: folders of photographs and rasters, or single files of either; may be empty, and
            then all images are made up.
        spec: the encoder's contract.
        images: how many to make in all; half of photographs and half of maps where both are given.
        size_m: side of a square of ground; by default what the encoder was trained on.
        seed: of places and cuts.

    Returns:
        The images; at least 8 to calibrate on and 4 held out.

    Raises:
        InputError: a source is missing, empty or unreadable, fewer than 12 images are asked for,
            or maps are given and nobody says how large a square to cut.
        ImageryError: a raster has no visible place of this size.
    """
    if images < 12:
        msg = f"{images} calibration images are too few; expected at least 12"
        raise InputError(msg)
    photos, rasters = _sort_sources(sources)
    side_m = size_m if size_m is not None else spec.ground_size_m
    if rasters and side_m is None:
        msg = (
            f"{rasters[0].path} is a map and the encoder does not say what size of ground it "
            "looks at; give --tile-m"
        )
        raise InputError(msg)
    rng = np.random.default_rng(seed)
    share = images // 2 if rasters else images
    views = _views_of_photos(photos, spec, share, rng)
    used, seen = len(views), sum(len(view) for view in views)
    places: list[U8] = []
    for k, raster in enumerate(rasters):
        count = (images - seen - len(places)) // (len(rasters) - k)
        places += _places_of_map(raster, spec, float(side_m or 0.0), count, rng)
    made_up: list[U8] = []
    if not sources:
        made_up = list(probe_images(spec, count=_PROBES + images)[_PROBES:])
    if len(views) < 3:  # Too few photographs to hold one out: their views are shared out.
        views = [image[None] for view in views for image in view]
    kept: list[U8] = []
    held: list[U8] = []
    for subjects in (views, [place[None] for place in places], [one[None] for one in made_up]):
        for k, subject in enumerate(subjects):
            (held if k % 3 == 2 else kept).extend(subject)
    return CalibrationImages(
        calibration=np.stack(kept),
        held_out=np.stack(held),
        photographs=used,
        places=len(places),
        made_up=len(made_up),
    )


def _sort_sources(sources: Sequence[Path]) -> tuple[list[Path], list[Raster]]:
    """Photographs and georeferenced rasters among folders and files.

    Raises:
        InputError: a source is missing, or a folder has neither.
    """
    photos: list[Path] = []
    rasters: list[Raster] = []
    for source in sources:
        if source.is_file():
            _sort_file(source, photos, rasters)
            continue
        if not source.is_dir():
            msg = f"{source} is not there; expected a folder of photographs or a raster"
            raise InputError(msg)
        suffixes = (*PHOTO_SUFFIXES, *_RASTER_SUFFIXES)
        files = sorted(p for p in source.iterdir() if p.suffix.lower() in suffixes)
        if not files:
            msg = f"{source} has no images; expected files ending in {', '.join(suffixes)}"
            raise InputError(msg)
        for file in files:
            _sort_file(file, photos, rasters)
    return photos, with_stretch(rasters)


def _sort_file(path: Path, photos: list[Path], rasters: list[Raster]) -> None:
    """A raster is what GDAL finds a georeference in; a camera's TIFF has none."""
    if path.suffix.lower() not in _RASTER_SUFFIXES:
        photos.append(path)
        return
    try:
        rasters.append(find_raster(path))
    except ImageryError:
        if path.suffix.lower() not in PHOTO_SUFFIXES or cv2.haveImageReader(str(path)) is False:
            raise
        photos.append(path)


def _views_of_photos(
    photos: Sequence[Path], spec: EncoderSpec, images: int, rng: np.random.Generator
) -> list[U8]:
    """Of each photograph used: (V, H, W, 3), itself whole and squares cut from it.

    Raises:
        InputError: a photograph cannot be read.
    """
    if not photos:
        return []
    used = min(len(photos), images)
    chosen = [photos[int(k)] for k in np.linspace(0, len(photos) - 1, used).round()]
    views = min(max(_VIEWS_OF_A_PHOTO, -(-_FEW // used)), images // used)
    subjects = []
    for path in chosen:
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is None:
            msg = f"{path} cannot be read; expected a photograph (JPEG, PNG or TIFF)"
            raise InputError(msg)
        photo = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
        cuts = [photo, *(_square_of(photo, rng) for _ in range(views - 1))]
        subjects.append(np.stack([resize_to_encoder(_shrunk(cut, spec), spec) for cut in cuts]))
    return subjects


def _square_of(photo: U8, rng: np.random.Generator) -> U8:
    """A square of half to all of the shorter side."""
    height, width = photo.shape[:2]
    side = round(min(height, width) * rng.uniform(0.5, 1.0))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return photo[top : top + side, left : left + side]


def _shrunk(image: U8, spec: EncoderSpec) -> U8:
    """Averaged down to at most twice the encoder's size: cameras do not alias, bilinear does."""
    factor = min(image.shape[0] // (2 * spec.height_px), image.shape[1] // (2 * spec.width_px))
    if factor < 1:
        return np.ascontiguousarray(image)
    size = (2 * spec.width_px, 2 * spec.height_px)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _places_of_map(
    source: Raster, spec: EncoderSpec, size_m: float, images: int, rng: np.random.Generator
) -> list[U8]:
    """North-up squares of a raster, each (H, W, 3), at places spread over it.

    Raises:
        ImageryError: nowhere is enough of a square visible.
    """
    box = source.bounds
    found: list[U8] = []
    shift = rng.uniform(size=2)
    margin_lat = (move_lat_lon(box.south_deg, box.west_deg, 0.0, size_m / 2)[0]) - box.south_deg
    margin_lon = (move_lat_lon(box.south_deg, box.west_deg, size_m / 2, 0.0)[1]) - box.west_deg
    low = np.array([box.south_deg + margin_lat, box.west_deg + margin_lon])
    high = np.array([box.north_deg - margin_lat, box.east_deg - margin_lon])
    low, high = np.minimum(low, (low + high) / 2), np.maximum(high, (low + high) / 2)
    for n in range(4 * images):  # Irregular maps have holes; four tries a place find most.
        if len(found) == images:
            break
        lat_deg, lon_deg = low + (high - low) * np.mod(shift + n * _R2, 1.0)
        place = _square_of_map(source, float(lat_deg), float(lon_deg), size_m, spec)
        if place is not None:
            found.append(place)
    if images > 0 and not found:
        msg = (
            f"{source.path}: no square of {size_m:g} m is {MIN_COVERAGE:.0%} visible; expected "
            "imagery of that extent. Give more imagery or a smaller --tile-m"
        )
        raise ImageryError(msg)
    return found


def _square_of_map(
    raster: Raster, lat_deg: float, lon_deg: float, size_m: float, spec: EncoderSpec
) -> U8 | None:
    """(H, W, 3) around a place; None where too little of it is visible.

    Raises:
        ImageryError: the raster is damaged.
    """
    side_px = max(spec.height_px, spec.width_px)
    step_m = size_m / side_px
    with raster.warped(
        f"+proj=aeqd +lat_0={lat_deg:.9f} +lon_0={lon_deg:.9f} +datum=WGS84 +units=m",
        Affine(step_m, 0, -size_m / 2, 0, -step_m, size_m / 2),
        width=side_px,
        height=side_px,
    ) as read:
        square = read(0, side_px, 0, side_px)
    if np.count_nonzero(square[..., 3]) < MIN_COVERAGE * square[..., 3].size:
        return None
    return resize_to_encoder(np.ascontiguousarray(square[..., :3]), spec)
