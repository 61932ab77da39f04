"""CVUSA: panoramas and aerial images from all over the United States (Workman et al. 2015).

The part with panoramas that are aligned with their aerial images at zoom 19, as Zhai et al. 2017
(arXiv:1612.02709) split it: 35,532 pairs to train with, 8,884 to be measured on.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.geodesy import check_lat_lon
from train.datasets.layout import Note, Publication, read_lines, warn
from train.pair_table import ImageFiles, ImageSet, PairTable, RetrievalTask

F64 = npt.NDArray[np.float64]

PUBLICATION = Publication(
    title="CVUSA",
    layout="splits/train-19zl.csv, splits/val-19zl.csv and the bingmap/19/*.jpg and "
    "streetview/panos/*.jpg they name",
    page="https://mvrl.cse.wustl.edu/datasets/cvusa/ (on request)",
)
LOCATIONS = "split_locations/all.csv"
"""Published with the images; line n is where image number n was taken. Optional."""


class Locations(NamedTuple):
    """(N, 2) latitudes and longitudes, degrees; row n is image number n + 1."""

    tiles: F64
    photos: F64


def read_split(path: Path, root: Path) -> tuple[list[str], list[str]]:
    """Tiles and photos that a split file names: no header; satellite, panorama, annotation.

    Raises:
        InputError: unreadable, empty, or a line has no two names.
    """
    tiles, photos = [], []
    for number, row in enumerate(csv.reader(read_lines(path, PUBLICATION, root)), 1):
        if len(row) < 2 or not (row[0].strip() and row[1].strip()):
            msg = (
                f"{path} line {number} is {','.join(row)!r}; expected satellite,panorama,annotation"
            )
            raise InputError(msg)
        tiles.append(row[0].strip())
        photos.append(row[1].strip())
    return tiles, photos


def read_locations(path: Path, root: Path) -> Locations:
    """Where images were taken: satellite lat, lon, panorama lat, lon, and what is not used.

    Raises:
        InputError: unreadable, or a line has no four numbers that can be positions.
    """
    expected = "expected the latitude and longitude of the satellite image, then of the panorama"
    rows = []
    for number, row in enumerate(csv.reader(read_lines(path, PUBLICATION, root)), 1):
        try:
            sat_lat, sat_lon, lat, lon = map(float, row[:4])
        except ValueError as error:
            msg = f"{path} line {number} is {','.join(row)!r}; {expected}"
            raise InputError(msg) from error
        rows.append((sat_lat, sat_lon, lat, lon))
    table = np.array(rows, np.float64)
    try:
        check_lat_lon(table[:, 0::2], table[:, 1::2])
    except InputError as error:
        msg = f"{path}: {error}; {expected}"
        raise InputError(msg) from error
    return Locations(table[:, :2], table[:, 2:])


@dataclass(frozen=True, kw_only=True)
class Cvusa:
    """Reader of CVUSA."""

    name: str = "cvusa"

    def training(self, root: Path, *, note: Note = warn) -> PairTable:
        """The training split.

        Raises:
            InputError: the data set, or a part of it, is not there.
        """
        photos, tiles = self._split(root, "train", note)
        return PairTable(
            name=f"{self.name}/train",
            photos=photos,
            tiles=tiles,
            tile_of_photo=np.arange(len(photos)),
            geometry="panorama",
        )

    def tasks(self, root: Path, *, note: Note = warn) -> list[RetrievalTask]:
        """Panoramas of the validation split to be found among its aerial images.

        Raises:
            InputError: the data set, or a part of it, is not there.
        """
        photos, tiles = self._split(root, "val", note)
        labels = np.arange(len(photos))
        return [
            RetrievalTask(
                name=f"{self.name}/val",
                queries=photos,
                gallery=tiles,
                query_labels=labels,
                gallery_labels=labels,
            )
        ]

    def _split(self, root: Path, part: str, note: Note) -> tuple[ImageSet, ImageSet]:
        listed_in = f"splits/{part}-19zl.csv"
        PUBLICATION.require(root, listed_in)
        tiles, photos = read_split(root / listed_in, root)
        named = f"{self.name}/{part}"
        paths = PUBLICATION.require_files(root, tiles + photos, part=named, listed_in=listed_in)
        numbers = [Path(tile).stem for tile in tiles]
        at = self._locations(root, numbers, note)
        return (
            ImageSet(
                images=ImageFiles(paths[len(tiles) :]),
                view="photo",
                lat_deg=None if at is None else at.photos[:, 0],
                lon_deg=None if at is None else at.photos[:, 1],
            ),
            ImageSet(
                images=ImageFiles(paths[: len(tiles)]),
                view="tile",
                lat_deg=None if at is None else at.tiles[:, 0],
                lon_deg=None if at is None else at.tiles[:, 1],
            ),
        )

    def _locations(self, root: Path, numbers: list[str], note: Note) -> Locations | None:
        """Where the images with these numbers were taken, if that is known."""
        path = root / LOCATIONS
        if not path.is_file():
            note(f"{self.name}: no {LOCATIONS} in {root}, so positions are not known")
            return None
        known = read_locations(path, root)
        if not all(number.isascii() and number.isdigit() for number in numbers):
            note(f"{self.name}: images are not named by number, so {LOCATIONS} says nothing")
            return None
        rows = np.array([int(number) - 1 for number in numbers])
        if rows.min() < 0 or rows.max() >= len(known.tiles):
            msg = (
                f"{path} has {len(known.tiles)} lines, but the splits name image "
                f"{rows.max() + 1}; expected a line for each. Unpack it again, or remove it"
            )
            raise InputError(msg)
        return Locations(known.tiles[rows], known.photos[rows])
