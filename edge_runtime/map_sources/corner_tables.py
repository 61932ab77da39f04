"""Pictures placed by their corners: a CSV or a JSON file that says where each one lies.

The columns of wildnav (`Filename, Top_left_lat, …, Bottom_right_long`) and of UAV-VisLoc
(`mapname, LT_lat_map, …, RB_lon_map`) are known, and names like them.
"""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from edge_runtime.errors import ImageryError, InputError
from edge_runtime.imagery import Bounds

_CORNER = re.compile(
    r"(?P<corner>top_?left|lt|tl|ul|upper_?left|left_?top|bottom_?right|rb|br|lr|lower_?right|"
    r"right_?bottom)_(?P<axis>lat|lon|lng)(itude|g)?(_map|_deg)?"
)
_PICTURE = ("image", "filename", "file_name", "file", "mapname", "map", "name", "picture")
_FIRST = ("top", "lt", "tl", "ul", "upper", "left")


class Placed(NamedTuple):
    """A picture and its outer edges."""

    path: Path
    bounds: Bounds


def corner_bounds(corners: Sequence[float]) -> Bounds:
    """The box between two corners.

    Args:
        corners: latitude and longitude of the upper left corner, then of the lower right one,
            degrees. The right one is smaller across the antimeridian.

    Raises:
        InputError: not four degrees, or the first corner is not the upper left one.
    """
    if len(corners) != 4:
        msg = f"{len(corners)} numbers were given as corners; expected upper left lat, lon, lower "
        raise InputError(f"{msg}right lat, lon")
    north, west, south, east = corners
    if east < west:
        east += 360.0
    if not (-90 <= south < north <= 90 and -180 <= west < east <= west + 180):
        msg = (
            f"the corners {north:g}, {west:g} and {south:g}, {east:g} are no upper left and lower "
            "right latitude and longitude; expected degrees, in this order"
        )
        raise InputError(msg)
    return Bounds(south, west, north, east)


def read_corner_table(path: Path) -> list[Placed]:
    """The pictures that a CSV or JSON file places.

    Raises:
        ImageryError: unreadable, not such a table, a corner that is none, or pictures that are
            not there.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows: list[Mapping[str, object]]
        if path.suffix.lower() == ".json":
            document = json.loads(text)
            rows = document if isinstance(document, list) else [document]
        else:
            found = csv.DictReader(text.splitlines(), skipinitialspace=True)
            rows = [row for row in found if any(row.values())]
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read ({error}); expected pictures and their corners"
        raise ImageryError(msg) from error
    placed: list[Placed] = []
    missing: list[str] = []
    for number, row in enumerate(rows, 1):
        name, corners = _entry(path, number, row)
        file = _find(path.parent, name)
        if file is None:
            missing.append(name)
            continue
        try:
            placed.append(Placed(file, corner_bounds(corners)))
        except InputError as error:
            msg = f"{path}, entry {number} ({name}): {error}"
            raise ImageryError(msg) from error
    if missing:
        msg = (
            f"{path} names {len(missing)} pictures of {len(rows)} that are not beside it, "
            f"{missing[0]} first; expected all. Put them there or take their lines out"
        )
        raise ImageryError(msg)
    if not placed:
        msg = f"{path} names no picture; expected a line for each"
        raise ImageryError(msg)
    return placed


def _entry(path: Path, number: int, row: object) -> tuple[str, list[float]]:
    """The picture's name and its corners, as in `corner_bounds`.

    Raises:
        ImageryError: a column is missing or no number.
    """
    values = row.items() if isinstance(row, Mapping) else ()
    fields = {str(k).strip().lower().replace(" ", "_"): v for k, v in values}
    name = next((str(fields[k]).strip() for k in _PICTURE if fields.get(k)), None)
    found: dict[tuple[bool, bool], object] = {}
    for key, value in fields.items():
        corner = _CORNER.fullmatch(key)
        if corner:
            first = corner["corner"].startswith(_FIRST)
            found[first, corner["axis"] == "lat"] = value
    order = [(True, True), (True, False), (False, True), (False, False)]
    if name is None or any(key not in found for key in order):
        has = ", ".join(fields) or "none"
        msg = (
            f"{path} has the columns {has[:120]}; expected a picture's filename, top_left_lat, "
            "top_left_lon, bottom_right_lat and bottom_right_lon"
        )
        raise ImageryError(msg)
    try:
        return name, [float(str(found[key])) for key in order]
    except ValueError as error:
        msg = f"{path}, entry {number} ({name}) has corners that are no numbers ({error})"
        raise ImageryError(f"{msg}; expected degrees") from error


def _find(folder: Path, name: str) -> Path | None:
    """A picture beside its table, or in one folder below, as data sets by flight have it."""
    direct = folder / name
    if direct.is_file():
        return direct
    below = sorted(folder.glob(f"*/{Path(name).name}"))
    return below[0] if len(below) == 1 else None
