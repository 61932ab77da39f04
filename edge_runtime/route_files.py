"""The corners of a route, from the files of mission planners.

GeoJSON (RFC 7946), KML (OGC 07-147r2), QGroundControl plans (docs.qgroundcontrol.com, "Plan File
Format") and CSV.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from edge_runtime.errors import InputError

Vertex = tuple[float, float, float | None]
"""Latitude, longitude in degrees, and the height in metres as the file writes it."""

_LAT_NAMES = ("lat_deg", "lat", "latitude")
_LON_NAMES = ("lon_deg", "lon", "lng", "long", "longitude")
_HEIGHT_NAMES = ("height_m", "alt_m", "alt", "altitude", "altitude_m", "height")
# MAV_CMD of what has a position on the way (mavlink.io, common.xml).
_TAKE_OFFS = (22, 84)
_RETURN = 20
_PLACES = (16, 17, 18, 19, 21, 31, 82, 85, *_TAKE_OFFS)


def _json(path: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"{path} is not JSON ({error}); expected a route"
        raise InputError(msg) from error
    if not isinstance(value, dict):
        msg = f"{path} holds a JSON {type(value).__name__}; expected an object"
        raise InputError(msg)
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        msg = f"{value!r} is no number"
        raise TypeError(msg)
    return float(value)


def _from_geojson(path: Path, text: str) -> list[Vertex]:
    value = _json(path, text)
    if value.get("fileType") == "Plan":
        return _from_plan(path, text)
    lines = [g for g in _geometries(value) if g.get("type") == "LineString"]
    if len(lines) != 1:
        msg = f"{path} has {len(lines)} LineStrings; expected a route of exactly one"
        raise InputError(msg)
    try:
        return [
            (_number(at[1]), _number(at[0]), _number(at[2]) if len(at) > 2 else None)
            for at in lines[0]["coordinates"]
        ]
    except (KeyError, IndexError, TypeError) as error:
        msg = f"{path} has no usable coordinates ({error}); expected [[lon, lat], …]"
        raise InputError(msg) from error


def _geometries(value: Any) -> Iterator[dict[str, Any]]:
    """Every simple geometry in a GeoJSON object."""
    if not isinstance(value, dict):
        return
    match value.get("type"):
        case "FeatureCollection":
            inside = value.get("features")
        case "Feature":
            inside = [value.get("geometry")]
        case "GeometryCollection":
            inside = value.get("geometries")
        case "MultiLineString":
            lines = value.get("coordinates")
            inside = [
                {"type": "LineString", "coordinates": line}
                for line in (lines if isinstance(lines, list) else [])
            ]
        case _:
            yield value
            return
    for part in inside if isinstance(inside, list) else []:
        yield from _geometries(part)


class _PlainTree(ElementTree.TreeBuilder):
    """Builds elements, and refuses what could make a small file huge: declared entities."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called before anything of a document type is read."""
        msg = f"declares a document type ({name}), which a route needs not"
        raise InputError(msg)


def _from_kml(path: Path, text: str) -> list[Vertex]:
    try:
        root = ElementTree.fromstring(text, parser=ElementTree.XMLParser(target=_PlainTree()))
    except (ElementTree.ParseError, ValueError) as error:
        msg = f"{path} is not usable KML ({error}); export the route again"
        raise InputError(msg) from error
    lines: list[list[str]] = []
    for element in root.iter():
        tag = element.tag.rpartition("}")[2]
        if tag == "LineString":
            found = [e for e in element.iter() if e.tag.rpartition("}")[2] == "coordinates"]
            lines.append((found[0].text or "").split() if found else [])
        elif tag == "Track":
            found = [e for e in element if e.tag.rpartition("}")[2] == "coord"]
            lines.append([",".join((e.text or "").split()) for e in found])
    if len(lines) != 1:
        msg = f"{path} has {len(lines)} LineStrings; expected a route of exactly one"
        raise InputError(msg)
    try:
        numbers = [[_number(float(v)) for v in at.split(",") if v] for at in lines[0]]
        return [(at[1], at[0], at[2] if len(at) > 2 else None) for at in numbers]
    except (ValueError, IndexError, TypeError) as error:
        msg = f"{path} has no usable coordinates ({error}); expected lon,lat[,height] lon,lat …"
        raise InputError(msg) from error


def _from_plan(path: Path, text: str) -> list[Vertex]:
    value = _json(path, text)
    try:
        if value["fileType"] != "Plan":
            msg = f"{path} is a {value['fileType']!r} file; expected a QGroundControl Plan"
            raise InputError(msg)
        mission = value["mission"]
        home = _position(mission.get("plannedHomePosition"))
        vertices: list[Vertex] = []
        for item in _plan_items(path, mission["items"]):
            command = item["command"]
            place = _position((item.get("params") or [None] * 7)[4:7])
            if (command in _TAKE_OFFS and place is None) or command == _RETURN:
                place = home
            if place is not None and command in (*_PLACES, _RETURN):
                vertices.append(place)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        msg = (
            f"{path} is not a usable QGroundControl plan ({type(error).__name__}: {error}); save "
            "the plan again in QGroundControl"
        )
        raise InputError(msg) from error
    return vertices


def _plan_items(path: Path, items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Simple items in the order they are flown; a survey gives those it was saved with."""
    for item in items:
        if item["type"] == "SimpleItem":
            yield item
            continue
        kind = str(item.get("complexItemType", "without a type"))
        saved = item.get("TransectStyleComplexItem", {}).get("Items")
        if not isinstance(saved, list):
            msg = (
                f"{path} holds the complex item {kind!r} without its waypoints; expected a "
                "survey or corridor scan with Items. Save the plan again in QGroundControl 4"
            )
            raise InputError(msg)
        yield from _plan_items(path, saved)


def _position(values: Any) -> Vertex | None:
    """Latitude, longitude and height; None where the plan leaves them open (null, or 0 and 0)."""
    if values is None or values[0] is None or values[1] is None:
        return None
    lat, lon = _number(values[0]), _number(values[1])
    if lat == 0.0 and lon == 0.0:
        return None
    height = values[2] if len(values) > 2 else None
    return lat, lon, None if height is None else _number(height)


def _from_csv(path: Path, text: str) -> list[Vertex]:
    rows = csv.DictReader(text.splitlines())
    names = {name.strip().lower(): name for name in rows.fieldnames or [] if name}
    lat = next((names[n] for n in _LAT_NAMES if n in names), None)
    lon = next((names[n] for n in _LON_NAMES if n in names), None)
    height = next((names[n] for n in _HEIGHT_NAMES if n in names), None)
    if lat is None or lon is None:
        msg = (
            f"{path} has columns {', '.join(names) or 'none'}; expected lat_deg and lon_deg in "
            "the first line"
        )
        raise InputError(msg)
    vertices: list[Vertex] = []
    for row in rows:
        try:
            above = row[height] if height is not None else None
            vertices.append(
                (
                    _number(float(row[lat])),
                    _number(float(row[lon])),
                    _number(float(above)) if above else None,
                )
            )
        except (TypeError, ValueError) as error:
            msg = f"{path} line {rows.line_num} has no usable position ({error})"
            raise InputError(msg) from error
    return vertices


READERS: dict[str, Callable[[Path, str], list[Vertex]]] = {
    ".geojson": _from_geojson,
    ".json": _from_geojson,
    ".kml": _from_kml,
    ".plan": _from_plan,
    ".csv": _from_csv,
}
"""By the ending of the file: its path and text to corners."""
