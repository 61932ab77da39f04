"""When and where a raster is from: its tags, or a STAC item beside it."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_runtime.map_sources.rasters import opened_raster
from edge_runtime.map_sources.source import UNKNOWN, Provenance

_TIFF_DATE = re.compile(r"(\d{4})[:-](\d{2})[:-](\d{2})(?!\d).*")


def raster_provenance(path: Path) -> Provenance:
    """What is known of a raster; its STAC item (`scene.json` beside `scene.tif`) goes first.

    A TIFF's DateTime is when the file was made: the best that many files say, and no earlier than
    the picture was taken.
    """
    with opened_raster(path) as raster:
        tags = raster.tags()
        taken = raster.tags(ns="IMAGERY").get("ACQUISITIONDATETIME", "")
    copyright_ = tags.get("TIFFTAG_COPYRIGHT", "").strip()
    own = Provenance(
        captured=_date(taken) or _date(tags.get("TIFFTAG_DATETIME", "")) or UNKNOWN,
        attribution=copyright_ or tags.get("TIFFTAG_ARTIST", "").strip() or UNKNOWN,
    )
    for beside in (path.with_suffix(".json"), path.with_name(path.name + ".json")):
        item = _stac_item(beside)
        if item is not None:
            return item.or_else(own)
    return own


def _stac_item(path: Path) -> Provenance | None:
    """What a STAC item (github.com/radiantearth/stac-spec, 1.0) says; None where it is none."""
    document: Any = None
    with suppress(OSError, ValueError):
        document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or not isinstance(document.get("properties"), dict):
        return None
    said = document["properties"]
    if "stac_version" not in document and "datetime" not in said:
        return None
    span = [_date(str(said.get(key) or "")) for key in ("start_datetime", "end_datetime")]
    captured = _date(str(said.get("datetime") or "")) or "/".join(day for day in span if day)
    providers = said.get("providers")
    names = [
        str(one["name"])
        for one in (providers if isinstance(providers, list) else [])
        if isinstance(one, dict) and one.get("name")
    ]
    return Provenance(
        captured=captured or UNKNOWN,
        attribution=", ".join(names) or UNKNOWN,
        licence=str(said.get("license") or UNKNOWN),
    )


def _date(text: str) -> str:
    """The day of a TIFF or ISO 8601 time; empty where it is neither."""
    found = _TIFF_DATE.fullmatch(text.strip())
    return "-".join(found.groups()) if found else ""
