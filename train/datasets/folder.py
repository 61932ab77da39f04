"""Your own photographs, with a tile for each or with georeferenced imagery below them.

    photos/ + tiles/            a tile has the name of its photograph, but for the suffix
    photos/ + imagery.*         or a folder imagery/: rasters that GDAL reads, or one MBTiles file
    positions.csv               filename, lat_deg, lon_deg and, if known, size_m

With imagery, a photograph's position comes from `positions.csv` or else from its EXIF tags, and
its tile is cut from the imagery when it is asked for. A folder may hold `train/` and `test/`, each
laid out like this; without them the same photographs serve for both.
"""

import csv
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import ImageryError, InputError
from edge_runtime.geodesy import check_lat_lon
from edge_runtime.imagery import ImageryStore
from train.datasets.layout import Note, Publication, images_in, warn
from train.mbtiles_file import MbtilesFile, as_mbtiles
from train.pair_table import (
    Geometry,
    ImageFiles,
    ImageSet,
    PairTable,
    RetrievalTask,
    UnreadableImageError,
)

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

PUBLICATION = Publication(
    title="your photographs",
    layout="photos/ with either tiles/ of the same names, or imagery.tif (or imagery.mbtiles, or a "
    "folder imagery/) below them and their positions in EXIF tags or positions.csv",
    page=None,
)
_NO_IMAGERY = frozenset(
    {".csv", ".json", ".md", ".ovr", ".prj", ".tfw", ".jgw", ".pgw", ".wld", ".txt", ".xml"}
)
"""Files that lie beside rasters and are none."""
_GPS_IFD = 0x8825
"""EXIF tag that points at the GPS tags (CIPA DC-008-2019, 4.6.3)."""
_PROBE_PX = 16
"""Size at which it is looked whether a tile is covered."""


class Position(NamedTuple):
    """Where a photograph was taken."""

    lat_deg: float
    lon_deg: float
    size_m: float | None = None
    """Side of the square of ground it shows."""


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Reader of your own photographs."""

    name: str = "folder"
    ground_size_m: float = 100.0
    """Side of the tile cut for a photograph without a size_m of its own: about the ground it
    shows."""
    tile_px: int = 512
    """The same in pixels."""
    geometry: Geometry = "drone"

    def __post_init__(self) -> None:
        """Refuse tiles without a size.

        Raises:
            InputError: a size is not positive.
        """
        if not (0 < self.ground_size_m < math.inf and self.tile_px > 0):
            msg = f"tiles of {self.ground_size_m} m in {self.tile_px} px; expected sizes above 0"
            raise InputError(msg)

    def training(self, root: Path, *, note: Note = warn) -> PairTable:
        """Every photograph that has a tile.

        Raises:
            InputError: photographs, tiles, imagery or positions are missing or do not fit.
        """
        photos, tiles, rows = self._read(_part(root, "train"), note)
        return PairTable(
            name=f"{self.name}/train",
            photos=photos,
            tiles=tiles,
            tile_of_photo=rows,
            geometry=self.geometry,
        )

    def tasks(self, root: Path, *, note: Note = warn) -> list[RetrievalTask]:
        """Photographs to be found among the tiles; tiles of no photograph are distractors.

        Raises:
            InputError: photographs, tiles, imagery or positions are missing or do not fit.
        """
        photos, tiles, rows = self._read(_part(root, "test"), note)
        return [
            RetrievalTask(
                name=f"{self.name}/photo-to-tile",
                queries=photos,
                gallery=tiles,
                query_labels=rows,
                gallery_labels=np.arange(len(tiles)),
            )
        ]

    def _read(self, root: Path, note: Note) -> tuple[ImageSet, ImageSet, I64]:
        PUBLICATION.require(root, "photos")
        photos = images_in(root / "photos")
        if not photos:
            raise PUBLICATION.missing(root, "no JPEG or PNG file in photos")
        imagery = find_imagery(root)
        has_tiles = (root / "tiles").is_dir()
        if has_tiles == bool(imagery):
            what = "both tiles/ and imagery" if imagery else "neither tiles/ nor imagery"
            raise PUBLICATION.missing(root, what)
        if imagery:
            return self._over_imagery(root, photos, imagery, note)
        return self._with_tiles(root, photos)

    def _with_tiles(self, root: Path, photos: list[Path]) -> tuple[ImageSet, ImageSet, I64]:
        tiles = images_in(root / "tiles")
        row_of = {path.stem: row for row, path in enumerate(tiles)}
        if len(row_of) < len(tiles):
            msg = f"{root / 'tiles'} has tiles that differ in their suffix only; expected one each"
            raise InputError(msg)
        alone = [path.name for path in photos if path.stem not in row_of]
        if alone:
            raise PUBLICATION.missing(
                root,
                f"{len(alone)} of {len(photos)} photographs have no tile of their name, the first "
                f"is {alone[0]}",
            )
        rows = np.array([row_of[path.stem] for path in photos], np.int64)
        lat_deg: F64 | None = None
        lon_deg: F64 | None = None
        tile_lat: F64 | None = None
        tile_lon: F64 | None = None
        if (root / "positions.csv").is_file():
            known = read_positions(root / "positions.csv")
            unknown = [path.name for path in photos if path.name not in known]
            if unknown:
                msg = (
                    f"{root / 'positions.csv'} lacks {len(unknown)} of {len(photos)} photographs, "
                    f"the first is {unknown[0]}; expected every one. Add them, or remove the file"
                )
                raise InputError(msg)
            lat_deg = np.array([known[path.name].lat_deg for path in photos])
            lon_deg = np.array([known[path.name].lon_deg for path in photos])
            if len(np.unique(rows)) == len(tiles):  # Else some tile's position is not known.
                tile_lat, tile_lon = np.empty(len(tiles)), np.empty(len(tiles))
                tile_lat[rows], tile_lon[rows] = lat_deg, lon_deg
        return (
            ImageSet(images=ImageFiles(photos), view="photo", lat_deg=lat_deg, lon_deg=lon_deg),
            ImageSet(images=ImageFiles(tiles), view="tile", lat_deg=tile_lat, lon_deg=tile_lon),
            rows,
        )

    def _over_imagery(
        self, root: Path, photos: list[Path], imagery: list[Path], note: Note
    ) -> tuple[ImageSet, ImageSet, I64]:
        known: dict[str, Position] | None = None
        if (root / "positions.csv").is_file():
            known = read_positions(root / "positions.csv")
        positions = [
            exif_position(path) if known is None else known.get(path.name) for path in photos
        ]
        placed = [(path, at) for path, at in zip(photos, positions, strict=True) if at is not None]
        where = "EXIF GPS tags" if known is None else "a line in positions.csv"
        if not placed:
            msg = (
                f"none of the {len(photos)} photographs of {root / 'photos'} has {where}; expected "
                "positions. Write them to positions.csv: filename, lat_deg, lon_deg"
            )
            raise InputError(msg)
        if len(placed) < len(photos):
            unplaced = len(photos) - len(placed)
            note(f"{self.name}: {unplaced} of {len(photos)} photographs left out, without {where}")
        squares = np.array(
            [(at.lat_deg, at.lon_deg, at.size_m or self.ground_size_m) for _, at in placed]
        )
        # Photographs of one place share its tile, so that none is a wrong answer for another.
        squares, rows = np.unique(squares, axis=0, return_inverse=True)
        tiles = ImageryTiles(as_mbtiles(imagery), squares, self.tile_px)
        covered = tiles.covered()
        if not covered.any():
            msg = (
                f"none of the {len(placed)} photographs of {root / 'photos'} lies on the imagery; "
                f"expected positions within it. The first is at {squares[0, 0]:.5f}, "
                f"{squares[0, 1]:.5f}: is this the right area, and size_m no larger than it?"
            )
            raise InputError(msg)
        kept = covered[rows]
        if not kept.all():
            note(
                f"{self.name}: {int((~kept).sum())} of {len(placed)} photographs left out, outside "
                "the imagery"
            )
        new_row = np.cumsum(covered) - 1
        tiles, squares = tiles.rows(np.flatnonzero(covered)), squares[covered]
        rows = new_row[rows[kept]].astype(np.int64)
        paths = [path for (path, _), keep in zip(placed, kept, strict=True) if keep]
        return (
            ImageSet(
                images=ImageFiles(paths),
                view="photo",
                lat_deg=squares[rows, 0],
                lon_deg=squares[rows, 1],
            ),
            ImageSet(
                images=tiles,
                view="tile",
                lat_deg=squares[:, 0],
                lon_deg=squares[:, 1],
                size_m=squares[:, 2],
            ),
            rows,
        )


class ImageryTiles:
    """Squares of an MBTiles file, cut when asked for. Threads and processes may share it."""

    def __init__(self, mbtiles: MbtilesFile, squares: F64, size_px: int) -> None:
        """Refer to the file; it is opened by who reads.

        Args:
            mbtiles: the imagery.
            squares: (N, 3) latitude and longitude of each centre, and side in metres.
            size_px: side of each image.
        """
        self._mbtiles, self._squares, self._size_px = mbtiles, squares, size_px

    def __len__(self) -> int:
        """Number of squares."""
        return len(self._squares)

    def read(self, row: int, rng: np.random.Generator) -> U8:
        """Cut a square; see `ImageSource`. Black where there is no imagery."""
        lat_deg, lon_deg, size_m = map(float, self._squares[row])
        try:
            store = self._mbtiles.store
            return store.patch(lat_deg, lon_deg, size_m=size_m, size_px=self._size_px).image
        except ImageryError as error:
            raise UnreadableImageError(str(error)) from error

    def name(self, row: int) -> str:
        """The place."""
        lat_deg, lon_deg, size_m = self._squares[row]
        return f"{self._mbtiles.path} at {lat_deg:.6f}, {lon_deg:.6f}, {size_m:g} m"

    def covered(self) -> npt.NDArray[np.bool_]:
        """(N,) whether imagery covers the whole square."""
        store = ImageryStore(self._mbtiles.path)
        try:
            masks = [
                store.patch(float(lat), float(lon), size_m=float(size), size_px=_PROBE_PX).mask
                for lat, lon, size in self._squares
            ]
        finally:
            store.close()
        return np.array([bool(mask.all()) for mask in masks], np.bool_)

    def rows(self, rows: I64) -> "ImageryTiles":
        """Only these squares."""
        return ImageryTiles(self._mbtiles, self._squares[rows], self._size_px)


def find_imagery(root: Path) -> list[Path]:
    """Rasters named `imagery.*`, or in a folder `imagery`."""
    folder = root / "imagery"
    found = folder.iterdir() if folder.is_dir() else root.glob("imagery.*")
    return sorted(
        path
        for path in found
        if path.is_file()
        and path.suffix.lower() not in _NO_IMAGERY
        and not path.name.startswith(".")
    )


def read_positions(path: Path) -> dict[str, Position]:
    """Positions by file name: a CSV with filename, lat_deg, lon_deg and, optionally, size_m.

    Raises:
        InputError: unreadable, a column is missing, or a value is no position or size.
    """
    expected = "expected CSV with filename, lat_deg, lon_deg and, if known, size_m"
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"positions {path} cannot be read ({error}); {expected}"
        raise InputError(msg) from error
    missing = {"filename", "lat_deg", "lon_deg"} - set(reader.fieldnames or ())
    if missing:
        msg = f"positions {path} lacks {', '.join(sorted(missing))}; {expected}"
        raise InputError(msg)
    out = {}
    for row in rows:
        try:
            size_m = float(row["size_m"]) if row.get("size_m", "").strip() else None
            at = Position(float(row["lat_deg"]), float(row["lon_deg"]), size_m)
            check_lat_lon(at.lat_deg, at.lon_deg)
            if size_m is not None and not 0 < size_m < math.inf:
                msg = f"size_m is {size_m}"
                raise InputError(msg)
        except ValueError as error:  # InputError is one too.
            msg = f"positions {path}, {row['filename']}: {error}; {expected}"
            raise InputError(msg) from error
        out[row["filename"]] = at
    return out


def exif_position(path: Path) -> Position | None:
    """Where a photograph's EXIF GPS tags say it was taken; None without usable ones."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            gps = image.getexif().get_ifd(_GPS_IFD)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return None
    try:
        # Tags 1 and 3 are the hemispheres, 2 and 4 are degrees, minutes and seconds.
        lat_deg = _degrees(gps[2]) * (-1 if str(gps[1]).upper().startswith("S") else 1)
        lon_deg = _degrees(gps[4]) * (-1 if str(gps[3]).upper().startswith("W") else 1)
        check_lat_lon(lat_deg, lon_deg)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    # Cameras without a fix write zeros.
    return None if lat_deg == lon_deg == 0 else Position(lat_deg, lon_deg)


def _degrees(parts: Sequence[float]) -> float:
    """Degrees of degrees, minutes and seconds."""
    degrees, minutes, seconds = (float(part) for part in parts)
    return degrees + minutes / 60 + seconds / 3600


def _part(root: Path, part: str) -> Path:
    return root / part if (root / part / "photos").is_dir() else root
