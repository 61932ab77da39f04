"""CVACT: Canberra, panoramas and satellite images (Liu and Li 2019, arXiv:1903.12351).

35,532 training pairs (the published images lack one), 8,884 for validation, 92,802 for testing;
the test set holds the validation pairs too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.geodesy import LatLon
from train.datasets.layout import Note, Publication, find_files, warn, web_tile_size_m
from train.pair_table import ImageFiles, ImageSet, PairTable, RetrievalTask

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Part = Literal["train", "val", "test"]

PUBLICATION = Publication(
    title="CVACT",
    layout="ACT_data.mat beside ANU_data_small/ (and ANU_data_test/ for cvact-test), each with "
    "streetview/<id>_grdView.jpg and satview_polish/<id>_satView_polish.jpg",
    page="https://github.com/Liumouliu/OriCNN (on request)",
)
_FOLDER: dict[Part, str] = {
    "train": "ANU_data_small",
    "val": "ANU_data_small",
    "test": "ANU_data_test",
}
_KNOWN_ABSENT: dict[Part, int] = {"train": 1, "val": 0, "test": 0}
"""Pairs that ACT_data.mat names and the owners' archive does not hold: one of the training set."""
_TILE_PX, _TILE_ZOOM = 1200, 20
"""Google's zoom 20, cut to 1200 px: 0.12 m a pixel (Liu and Li 2019, section 4)."""


class ActData(NamedTuple):
    """What ACT_data.mat says."""

    ids: list[str]
    """(N,) panoramas."""
    utm_m: F64
    """(N, 2) where they were taken, metres of UTM zone 55 south."""
    rows: dict[Part, I64]
    """Rows of each part, counted from 0."""


def read_act_data(path: Path) -> ActData:
    """Read ACT_data.mat, whose rows are counted from 1 as MATLAB does.

    Raises:
        InputError: not a MATLAB file, a variable is missing, or a row points nowhere.
    """
    from scipy.io import loadmat

    try:
        names = ["panoIds", "utm", "trainSet", "valSet", "valSetAll"]
        values = loadmat(path, variable_names=names)
        # Names come as characters of one length or, from other writers, as a cell array.
        ids = ["".join(np.ravel(value)).strip() for value in np.ravel(values["panoIds"])]
        utm_m = np.asarray(values["utm"], np.float64)
        found: dict[Part, I64] = {
            "train": _rows(values["trainSet"]["trainInd"]),
            "val": _rows(values["valSet"]["valInd"]),
            "test": _rows(values["valSetAll"]["valInd"]),
        }
    except (OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError) as error:
        msg = (
            f"{path} cannot be read ({type(error).__name__}: {error}); expected the MATLAB file "
            "with panoIds, utm, trainSet, valSet and valSetAll. Copy it again"
        )
        raise InputError(msg) from error
    if utm_m.shape != (len(ids), 2):
        msg = f"{path} has {len(ids)} panoIds but utm of {utm_m.shape}; expected two for each"
        raise InputError(msg)
    for part, rows in found.items():
        if not len(rows) or rows.min() < 0 or rows.max() >= len(ids):
            msg = f"{path}: rows of {part} do not lie within 1 to {len(ids)}. Copy it again"
            raise InputError(msg)
    return ActData(ids, utm_m, found)


def utm55s_to_lat_lon(utm_m: F64) -> LatLon | None:
    """Positions of UTM coordinates around Canberra.

    Args:
        utm_m: (N, 2) easting and northing, in either order: northings there are above 5,000,000 m,
            eastings below 1,000,000 m.

    Returns:
        (N,) WGS 84 latitudes and longitudes; None when these are no such coordinates.
    """
    from rasterio.warp import transform

    easting, northing = utm_m.min(axis=1), utm_m.max(axis=1)
    plausible = (easting > 1e5) & (easting < 9e5) & (northing > 5e6) & (northing < 1e7)
    if not plausible.all():
        return None
    lon, lat = transform("EPSG:32755", "EPSG:4326", easting, northing)
    return LatLon(np.asarray(lat, np.float64), np.asarray(lon, np.float64))


@dataclass(frozen=True, kw_only=True)
class Cvact:
    """Reader of CVACT."""

    name: str = "cvact"
    part: Literal["val", "test"] = "val"
    """What is measured on."""

    def training(self, root: Path, *, note: Note = warn) -> PairTable:
        """The training set.

        Raises:
            InputError: the data set, or a part of it, is not there.
        """
        photos, tiles, _ = self._pairs(root, "train", note)
        return PairTable(
            name=f"{self.name}/train",
            photos=photos,
            tiles=tiles,
            tile_of_photo=np.arange(len(photos)),
            geometry="panorama",
        )

    def tasks(self, root: Path, *, note: Note = warn) -> list[RetrievalTask]:
        """Panoramas of a part to be found among its satellite images.

        Raises:
            InputError: the data set, or a part of it, is not there.
        """
        photos, tiles, labels = self._pairs(root, self.part, note)
        return [
            RetrievalTask(
                name=f"{self.name}/{self.part}",
                queries=photos,
                gallery=tiles,
                query_labels=labels,
                gallery_labels=labels,
            )
        ]

    def _pairs(self, root: Path, part: Part, note: Note) -> tuple[ImageSet, ImageSet, I64]:
        """Photos, their tiles, and rows of ACT_data.mat, which name places."""
        folder = _FOLDER[part]
        PUBLICATION.require(
            root, "ACT_data.mat", f"{folder}/streetview", f"{folder}/satview_polish"
        )
        data = read_act_data(root / "ACT_data.mat")
        rows = data.rows[part]
        ids = [data.ids[row] for row in rows]
        photo_names = [f"{folder}/streetview/{name}_grdView.jpg" for name in ids]
        tile_names = [f"{folder}/satview_polish/{name}_satView_polish.jpg" for name in ids]
        photos, tiles = find_files(root, photo_names), find_files(root, tile_names)
        kept = [k for k in range(len(ids)) if photos[k] is not None and tiles[k] is not None]
        if len(kept) < len(ids):
            named = f"{self.name}/{part}"
            absent = [
                name
                for name, path in zip(photo_names + tile_names, photos + tiles, strict=True)
                if path is None
            ]
            if len(ids) - len(kept) > _KNOWN_ABSENT[part] or not kept:
                raise PUBLICATION.absent_files(
                    root, absent, 2 * len(ids), part=named, listed_in="ACT_data.mat"
                )
            note(f"{named}: {len(ids) - len(kept)} of {len(ids)} pairs left out, no {absent[0]}")
        position = utm55s_to_lat_lon(data.utm_m[rows[kept]])
        if position is None:
            note(f"{self.name}: utm in ACT_data.mat is not around Canberra; positions are unknown")
        lat_deg, lon_deg = position or (None, None)
        return (
            ImageSet(
                images=ImageFiles([path for k in kept if (path := photos[k]) is not None]),
                view="photo",
                lat_deg=lat_deg,
                lon_deg=lon_deg,
            ),
            ImageSet(
                images=ImageFiles([path for k in kept if (path := tiles[k]) is not None]),
                view="tile",
                lat_deg=lat_deg,
                lon_deg=lon_deg,
                size_m=None
                if lat_deg is None
                else web_tile_size_m(lat_deg, zoom=_TILE_ZOOM, size_px=_TILE_PX),
            ),
            rows[kept],
        )


def _rows(field: npt.NDArray[np.object_]) -> I64:
    """A 1x1 structure's field of numbers that count from 1."""
    return np.ravel(field[0, 0]).astype(np.int64) - 1
