"""VIGOR: panoramas of four cities over satellite imagery that covers them (Zhu et al. 2021).

arXiv:2011.12172. A panorama lies in the middle of one tile, its positive, and off the middle of
three more, its semi-positives. Same area: train and test in all four cities. Cross area: train in
New York and Seattle, test in San Francisco and Chicago.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.geodesy import LatLon, check_lat_lon
from train.datasets.layout import Note, Publication, read_lines, warn, web_tile_size_m
from train.pair_table import ImageFiles, ImageSet, PairTable, RetrievalTask

I64 = npt.NDArray[np.int64]
Area = Literal["same", "cross"]
Part = Literal["train", "test"]
Labels = Literal["original", "corrected"]

PUBLICATION = Publication(
    title="VIGOR",
    layout="<City>/panorama/, <City>/satellite/ and splits/<City>/*.txt (or splits__corrected/) "
    "for Chicago, NewYork, SanFrancisco and Seattle",
    page="https://github.com/Jeff-Zilence/VIGOR (on request, see data/DATASET.md there)",
)
CITIES: dict[tuple[Area, Part], tuple[str, ...]] = {
    ("same", "train"): ("NewYork", "Seattle", "SanFrancisco", "Chicago"),
    ("same", "test"): ("NewYork", "Seattle", "SanFrancisco", "Chicago"),
    ("cross", "train"): ("NewYork", "Seattle"),
    ("cross", "test"): ("SanFrancisco", "Chicago"),
}
_SPLITS: dict[Labels, tuple[str, str]] = {
    "original": ("splits", ".txt"),
    "corrected": ("splits__corrected", "__corrected.txt"),
}
"""Folder of the lists and how their names end. The corrected ones are SliceMatch's (Lentsch et al.
2023), https://github.com/tudelft-iv/SliceMatch: other pixel offsets, which are not read here."""
_TILE_PX, _TILE_ZOOM = 640, 20
"""Google's zoom 20: 0.111 m a pixel in Chicago, 0.101 m in Seattle, as SliceMatch measured. The
0.114 m of the original labels is wrong."""


class PanoramaLabels(NamedTuple):
    """What a label file says, by row."""

    panoramas: list[str]
    """(P,) file names."""
    tiles: list[list[str]]
    """(P, 4) file names: the positive, then the three semi-positives."""


def read_labels(path: Path, root: Path) -> PanoramaLabels:
    """Read a label file: a panorama, then four times a tile and the panorama's offset in it.

    Raises:
        InputError: unreadable, empty, or a line does not have 13 fields.
    """
    panoramas, tiles = [], []
    for number, line in enumerate(read_lines(path, PUBLICATION, root), 1):
        fields = line.split()
        if len(fields) != 13:
            msg = (
                f"{path} line {number} has {len(fields)} fields; expected 13: the panorama, then "
                "four times satellite image, dy and dx"
            )
            raise InputError(msg)
        panoramas.append(fields[0])
        tiles.append(fields[1::3])
    return PanoramaLabels(panoramas, tiles)


def panorama_positions(names: Sequence[str]) -> LatLon:
    """Latitudes and longitudes in panoramas' names, `<id>,<lat>,<lon>,.jpg`.

    Raises:
        InputError: a name has none.
    """
    numbers = [name.rsplit(",", 3)[1:3] for name in names]
    return _positions(names, numbers, "<id>,<latitude>,<longitude>,.jpg")


def tile_positions(names: Sequence[str]) -> LatLon:
    """Latitudes and longitudes of the centres in tiles' names, `satellite_<lat>_<lon>.png`.

    Raises:
        InputError: a name has none.
    """
    numbers = [name.rsplit(".", 1)[0].split("_")[1:] for name in names]
    return _positions(names, numbers, "satellite_<latitude>_<longitude>.png")


@dataclass(frozen=True, kw_only=True)
class Vigor:
    """Reader of VIGOR."""

    name: str = "vigor-same"
    area: Area = "same"
    labels: Labels | None = None
    """Which lists name the pairs. None takes the original where there, as published retrieval
    figures do, else the corrected ones, whose readme has them replace the original."""

    def training(self, root: Path, *, note: Note = warn) -> PairTable:
        """Panoramas of the training cities; every satellite image of these is a tile.

        Raises:
            InputError: the data set, or a part of it, is not there.
        """
        photos, tiles, rows = self._read(root, "train")
        return PairTable(
            name=f"{self.name}/train",
            photos=photos,
            tiles=tiles,
            tile_of_photo=rows[:, 0],
            semi_positives=rows[:, 1:],
            geometry="panorama",
        )

    def tasks(self, root: Path, *, note: Note = warn) -> list[RetrievalTask]:
        """Panoramas to be found among every satellite image of the test cities.

        Raises:
            InputError: the data set, or a part of it, is not there.
        """
        photos, tiles, rows = self._read(root, "test")
        return [
            RetrievalTask(
                name=f"{self.name}/test",
                queries=photos,
                gallery=tiles,
                query_labels=rows[:, 0],
                gallery_labels=np.arange(len(tiles)),
                semi_positives=rows[:, 1:],
            )
        ]

    def _read(self, root: Path, part: Part) -> tuple[ImageSet, ImageSet, I64]:
        """Photos, tiles, and (P, 4) rows of each photo's positive and semi-positives."""
        folder, ending = _SPLITS[self._found_labels(root, part)]
        stem = "pano_label_balanced" if self.area == "cross" else f"same_area_balanced_{part}"
        photo_names: list[str] = []
        tile_names: list[str] = []
        rows: list[list[int]] = []
        for city in CITIES[self.area, part]:
            tile_list, label_list = (
                f"{folder}/{city}/satellite_list.txt",
                f"{folder}/{city}/{stem}{ending}",
            )
            PUBLICATION.require(
                root, tile_list, label_list, f"{city}/panorama", f"{city}/satellite"
            )
            listed = read_lines(root / tile_list, PUBLICATION, root)
            row_of = {name: len(tile_names) + k for k, name in enumerate(listed)}
            labels = read_labels(root / label_list, root)
            try:
                rows += [[row_of[name] for name in names] for names in labels.tiles]
            except KeyError as error:
                msg = (
                    f"{root / label_list} names {error.args[0]}, which {tile_list} does not list; "
                    "expected lists of the same edition. Unpack both again"
                )
                raise InputError(msg) from error
            tile_names += [f"{city}/satellite/{name}" for name in listed]
            photo_names += [f"{city}/panorama/{name}" for name in labels.panoramas]
        paths = PUBLICATION.require_files(
            root,
            photo_names + tile_names,
            part=f"{self.name}/{part}",
            listed_in=f"{folder}/<City>/",
        )
        photo_at = panorama_positions([_base(name) for name in photo_names])
        tile_at = tile_positions([_base(name) for name in tile_names])
        return (
            ImageSet(
                images=ImageFiles(paths[: len(photo_names)]),
                view="photo",
                lat_deg=photo_at.lat_deg,
                lon_deg=photo_at.lon_deg,
            ),
            ImageSet(
                images=ImageFiles(paths[len(photo_names) :]),
                view="tile",
                lat_deg=tile_at.lat_deg,
                lon_deg=tile_at.lon_deg,
                size_m=web_tile_size_m(tile_at.lat_deg, zoom=_TILE_ZOOM, size_px=_TILE_PX),
            ),
            np.array(rows, np.int64),
        )

    def _found_labels(self, root: Path, part: Part) -> Labels:
        if self.labels is not None:
            return self.labels
        city = CITIES[self.area, part][0]
        corrected = (root / "splits__corrected" / city).is_dir()
        return "corrected" if corrected and not (root / "splits" / city).is_dir() else "original"


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _positions(names: Sequence[str], numbers: Sequence[list[str]], expected: str) -> LatLon:
    out = np.empty((len(names), 2))
    for row, (name, pair) in enumerate(zip(names, numbers, strict=True)):
        try:
            out[row] = [float(pair[0]), float(pair[1])]
        except (ValueError, IndexError) as error:
            msg = f"{name} does not say where it was taken; expected a name as {expected}"
            raise InputError(msg) from error
    check_lat_lon(out[:, 0], out[:, 1])
    return LatLon(out[:, 0], out[:, 1])
