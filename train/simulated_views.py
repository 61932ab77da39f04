"""Drone views simulated from satellite imagery alone, to adapt an encoder to where it will fly.

Every read takes the imagery at a place, lets the drone's camera see it with an imperfect pose,
changes season, light, sharpness and what moves, and puts it through the runtime's ground view.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.geodesy import enu_offset_m, move_lat_lon
from edge_runtime.imagery import ImageryStore
from edge_runtime.satellite_imagery import Progress
from train.config import MARGIN
from train.mbtiles_file import MbtilesFile, as_mbtiles
from train.pair_table import ImageSet, PairTable
from train.simulated_camera import exposure, relief, seen_ground
from train.simulated_changes import changed
from train.simulated_config import SimulationConfig
from train.simulated_light import relit
from train.simulated_sharpness import blurred, other_detail, recorded, resolved

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

MIN_COVERAGE = 0.9
"""Places with less imagery than this are left out, as an index leaves out such tiles."""


_FARTHER = 3.0
"""Detail is taken from imagery seen on up to this many times the ground, so it is sharper."""


@dataclass(frozen=True, kw_only=True)
class _Views:
    """Squares of ground around given places."""

    imagery: MbtilesFile
    lat_deg: F64
    lon_deg: F64
    config: SimulationConfig
    encoder_size_m: float
    size_m: float
    size_px: int

    def __len__(self) -> int:
        return len(self.lat_deg)

    def name(self, row: int) -> str:
        """Its place."""
        return f"{self.lat_deg[row]:.6f}, {self.lon_deg[row]:.6f}"


class ImageryTiles(_Views):
    """Tiles as an index cuts them, a little blurred at random."""

    def read(self, row: int, rng: np.random.Generator) -> U8:
        """Cut a tile; see `train.pair_table.ImageSource`."""
        patch = self.imagery.store.patch(
            float(self.lat_deg[row]),
            float(self.lon_deg[row]),
            size_m=self.size_m,
            size_px=self.size_px,
        )
        relit_too = rng.random() < self.config.tile_relit
        sigma_m = rng.uniform(0, self.config.tile_blur_m) * rng.integers(0, 2)
        if not relit_too and not sigma_m:
            return patch.image
        step_m = self.size_m / self.size_px
        rgb = patch.image.astype(np.float32) / np.float32(255)
        if relit_too:
            rgb = relit(rgb, step_m, self.config, rng)
        return np.round(blurred(rgb, sigma_m / step_m) * 255).astype(np.uint8)


class SimulatedPhotos(_Views):
    """Ground views of photographs that were never taken, other ones at every read."""

    def read(self, row: int, rng: np.random.Generator) -> U8:
        """Simulate a photograph; see `train.pair_table.ImageSource`."""
        config, step_m = self.config, self.size_m / self.size_px
        exposed = exposure(
            config,
            rng,
            size_m=self.size_m,
            size_px=self.size_px,
            encoder_size_m=self.encoder_size_m,
        )
        standing = relief(config.relief_m, rng, size_px=self.size_px, step_m=step_m)
        seen = seen_ground(exposed, standing)
        shift_m = (config.offset_sigma_m * rng.standard_normal(2)).astype(np.float32)
        inside = seen.mask > 0
        far_m = max(float(np.abs(v[inside]).max()) for v in (seen.east_m, seen.north_m))
        side_px = 2 * math.ceil(min(far_m, 2 * self.size_m) / step_m + 2)
        patch = self.imagery.store.patch(
            float(self.lat_deg[row]),
            float(self.lon_deg[row]),
            size_m=side_px * step_m,
            size_px=side_px,
        )
        middle = np.float32((side_px - 1) / 2)
        columns, rows = (
            middle + (seen.east_m + shift_m[0]) / step_m,
            middle - (seen.north_m + shift_m[1]) / step_m,
        )
        view = cv2.remap(patch.image, columns, rows, cv2.INTER_CUBIC)
        mask = cv2.bitwise_and(seen.mask, cv2.remap(patch.mask, columns, rows, cv2.INTER_NEAREST))

        rgb = view.astype(np.float32) / np.float32(255)
        rgb = changed(rgb, step_m, config, rng)
        if config.detail_m:
            rgb = other_detail(rgb, self._elsewhere(rng), step_m, config, rng)
        rgb = relit(rgb, step_m, config, rng)
        rgb = resolved(rgb, step_m, config, rng)
        image = recorded(rgb, config, rng)
        if mask.any() and not mask.all():
            # As the runtime fills ground that the camera did not see.
            image[mask == 0] = np.round(cv2.mean(image, mask)[:3])
        return image

    def _elsewhere(self, rng: np.random.Generator) -> F32:
        """Imagery of another place, from farther above: as sharp as a photograph from here."""
        row = int(rng.integers(len(self)))
        patch = self.imagery.store.patch(
            float(self.lat_deg[row]),
            float(self.lon_deg[row]),
            size_m=self.size_m * rng.uniform(1, _FARTHER),
            size_px=self.size_px,
        )
        turned = np.rot90(patch.image, int(rng.integers(4)))
        return np.asarray(turned, np.float32) / np.float32(255)


def imagery_pairs(
    imagery: Path,
    *,
    config: SimulationConfig,
    size_px: int,
    ground_size_m: float,
    count: int,
    seed: int,
    progress: Progress = lambda _stage, _done: None,
) -> PairTable:
    """Places all over the imagery, each with its tile and views simulated anew at every read.

    Args:
        imagery: georeferenced raster, or an MBTiles file.
        config: how photographs differ from the imagery.
        size_px: side of the encoder's input.
        ground_size_m: side of the ground it looks at.
        count: how many places, about: they lie on a grid over the imagery, each moved at random.
        seed: of the places.
        progress: told how far the imagery is read.

    Returns:
        Pairs MARGIN times larger than the encoder's view.

    Raises:
        ImageryError: unusable imagery.
        InputError: it holds too few places of this size, or the camera sees none.
    """
    source = as_mbtiles([imagery], progress=progress)
    rng = np.random.default_rng(seed)
    lat, lon = scattered_places(source.store, ground_size_m, count, rng)
    big_px = round(size_px * MARGIN)
    photos = SimulatedPhotos(
        imagery=source,
        lat_deg=lat,
        lon_deg=lon,
        config=config,
        encoder_size_m=ground_size_m,
        size_m=ground_size_m * big_px / size_px,
        size_px=big_px,
    )
    tiles = ImageryTiles(**vars(photos))
    photos.read(0, rng)  # A camera that sees too little ground is refused now.
    columns = {"lat_deg": lat, "lon_deg": lon, "size_m": np.full(len(lat), ground_size_m)}
    return PairTable(
        name=f"simulated/{imagery.stem}",
        photos=ImageSet(images=photos, view="photo", **columns),
        tiles=ImageSet(images=tiles, view="tile", **columns),
        tile_of_photo=np.arange(len(lat)),
        geometry="aligned",
        margin=MARGIN,
    )


def scattered_places(
    store: ImageryStore, size_m: float, count: int, rng: np.random.Generator
) -> tuple[F64, F64]:
    """Centres of about `count` squares of imagery: a grid, each moved by up to a quarter step.

    Returns:
        (P,) latitudes and longitudes.

    Raises:
        InputError: fewer than two squares of this size have imagery.
    """
    box = store.bounds
    middle_lat = (box.south_deg + box.north_deg) / 2
    # Short way round: half of a wide box, doubled.
    half_deg = (box.east_deg - box.west_deg) / 2
    reach = enu_offset_m(middle_lat, box.west_deg, middle_lat, box.west_deg + half_deg)
    width_m = 2 * float(reach.east_m) - size_m
    height_m = (
        float(enu_offset_m(box.south_deg, box.west_deg, box.north_deg, box.west_deg).north_m)
        - size_m
    )
    lat, lon = [], []
    if min(width_m, height_m) > 0:
        step_m = math.sqrt(width_m * height_m / max(count, 1))
        rows, columns = (max(1, round(side / step_m)) for side in (height_m, width_m))
        for k in rng.permutation(rows * columns):
            jitter = rng.uniform(0.25, 0.75, 2)
            north_m = (k // columns + jitter[0]) * height_m / rows + size_m / 2
            east_m = (k % columns + jitter[1]) * width_m / columns + size_m / 2
            row_lat = float(move_lat_lon(box.south_deg, box.west_deg, 0.0, north_m).lat_deg)
            row_lon = float(move_lat_lon(row_lat, box.west_deg, east_m, 0.0).lon_deg)
            patch = store.patch(row_lat, row_lon, size_m=size_m, size_px=16)
            if np.count_nonzero(patch.mask) >= MIN_COVERAGE * patch.mask.size:
                lat.append(row_lat)
                lon.append(row_lon)
    if len(lat) < 2:
        msg = (
            f"the imagery holds {len(lat)} places of {size_m:g} m; expected at least 2. Give more "
            "imagery or a smaller ground size"
        )
        raise InputError(msg)
    return np.array(lat), np.array(lon)
