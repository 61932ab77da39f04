"""Folders of map tiles: `z/x/y.jpg`, or flat `z_x_y.jpg`.

Rows are counted from the north (XYZ) or, where a `tilemapresource.xml` or the user says so, from
the south (TMS).
"""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree as ET

from edge_runtime.errors import ImageryError
from edge_runtime.map_sources.source import Kind, Provenance

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_FLAT = re.compile(r"(\d{1,2})_(\d+)_(\d+)(?:@2x)?")
_NUMBER = re.compile(r"(\d+)(?:@2x)?")
_RESOURCE = "tilemapresource.xml"


class TileFolder:
    """A folder of map tiles, of which only the names of one column are held at a time."""

    kind: Kind = "tile folder"

    def __init__(self, path: Path, *, tms: bool | None = None) -> None:
        """Look at a folder.

        Args:
            path: the folder.
            tms: rows are counted from the south; None finds out.

        Raises:
            ImageryError: its tiles are not in Web Mercator.
        """
        self.path = path
        self.provenance = Provenance()
        resource = path / _RESOURCE
        self._from_south = resource.is_file() if tms is None else tms
        if resource.is_file():
            _check_profile(resource)

    @cached_property
    def _flat(self) -> dict[int, dict[tuple[int, int], Path]]:
        """Files by zoom, column and row as named; empty where tiles lie in folders."""
        found: dict[int, dict[tuple[int, int], Path]] = {}
        for file in self.path.iterdir():
            name = _FLAT.fullmatch(file.stem)
            if name and file.suffix.lower() in _SUFFIXES:
                zoom, x, y = (int(v) for v in name.groups())
                found.setdefault(zoom, {})[x, y] = file
        return found

    @cached_property
    def _column_names(self) -> dict[tuple[int, int], dict[int, Path]]:
        return {}

    def zooms(self) -> list[int]:
        """The zooms that have tiles, ascending."""
        if self._flat:
            return sorted(self._flat)
        folders = _numbered_folders(self.path)
        return [zoom for zoom in folders if next(self.keys(zoom), None) is not None]

    def keys(self, zoom: int) -> Iterator[tuple[int, int]]:
        """Column and row of every tile of a zoom, column by column."""
        if self._flat:
            for x, y in sorted(self._flat.get(zoom, {})):
                yield x, self._row(zoom, y)
            return
        for x, column in _numbered_folders(self.path / str(zoom)).items():
            for y in sorted(_numbered_files(column)):
                yield x, self._row(zoom, y)

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """One compressed image; None where there is none.

        Raises:
            ImageryError: the file cannot be read.
        """
        row = self._row(zoom, y)
        if self._flat:
            file = self._flat.get(zoom, {}).get((x, row))
        else:
            file = self._column(zoom, x).get(row)
        if file is None:
            return None
        try:
            return file.read_bytes()
        except OSError as error:
            msg = f"{file} cannot be read ({error}); expected a map tile"
            raise ImageryError(msg) from error

    def _column(self, zoom: int, x: int) -> dict[int, Path]:
        """Files of a column by row; the last few columns asked for are kept."""
        kept = self._column_names
        if (zoom, x) not in kept:
            if len(kept) >= 8:
                kept.pop(next(iter(kept)))
            folder = self.path / str(zoom) / str(x)
            kept[zoom, x] = _numbered_files(folder) if folder.is_dir() else {}
        return kept[zoom, x]

    def _row(self, zoom: int, y: int) -> int:
        return (1 << zoom) - 1 - y if self._from_south else y


def is_tile_folder(path: Path) -> bool:
    """Whether a folder holds map tiles by their names."""
    if (path / _RESOURCE).is_file():
        return True
    for entry in sorted(path.iterdir()):
        if entry.suffix.lower() in _SUFFIXES and _FLAT.fullmatch(entry.stem):
            return True
        if entry.is_dir() and entry.name.isdecimal() and int(entry.name) <= 30:
            return any(_numbered_files(column) for column in _numbered_folders(entry).values())
    return False


def _numbered_folders(path: Path) -> dict[int, Path]:
    found = {int(e.name): e for e in path.iterdir() if e.name.isdecimal() and e.is_dir()}
    return dict(sorted(found.items()))


def _numbered_files(path: Path) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for entry in sorted(path.iterdir()):
        name = _NUMBER.fullmatch(entry.stem)
        if name and entry.suffix.lower() in _SUFFIXES:
            found[int(name.group(1))] = entry
    return found


def _check_profile(resource: Path) -> None:
    """Refuse tiles in degrees, which OSGeo's TMS allows as well.

    Raises:
        ImageryError: not XML, or another profile than Mercator.
    """
    try:
        root = ET.parse(resource).getroot()
    except (ET.ParseError, OSError) as error:
        msg = f"{resource} is not XML ({error}); expected a description of TMS tiles"
        raise ImageryError(msg) from error
    sets = root.find("TileSets")
    profile = "" if sets is None else sets.get("profile", "")
    srs = (root.findtext("SRS") or "").upper()
    known = ("EPSG:3857", "EPSG:900913", "OSGEO:41001")
    if "mercator" not in profile and srs not in known:
        msg = (
            f"{resource} describes tiles of profile {profile or 'unknown'!r} in {srs or 'no SRS'}; "
            "expected Web Mercator. Cut them with: gdal2tiles.py --profile=mercator"
        )
        raise ImageryError(msg)
