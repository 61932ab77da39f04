"""The map that a flight was matched with, as far as it is still there."""

from pathlib import Path
from typing import NamedTuple

from edge_runtime.artefact import read_manifest
from edge_runtime.errors import ImageryError, SkyfixError
from edge_runtime.flight_page.flight_table import FlightTable
from edge_runtime.flight_page.map_picture import MapPicture, box_around, map_picture
from edge_runtime.imagery import ImageryStore
from edge_runtime.index_format import IMAGERY

_UNKNOWN = ("", "unknown")


class FoundMap(NamedTuple):
    """The map of a page, or why it has none."""

    picture: MapPicture | None
    imagery: Path | None
    """To cut smaller pictures from."""
    credit: str
    """Who made the imagery and under which licence it may be shown; empty where not known."""
    note: str
    """What is wrong with it, one line; empty where nothing is."""


def find_map(folder: Path | None, table: FlightTable) -> FoundMap:
    """Open an index for its imagery alone, and cut the flight's surroundings.

    Args:
        folder: of the index; None where nothing says where it is.
        table: the flight.
    """
    if folder is None:
        return FoundMap(None, None, "", "no map: nothing says where the index is; give --index")
    imagery = folder / IMAGERY
    try:
        found = read_manifest(folder, "index")
        picture = map_picture(imagery, box_around(_places(table)))
        credit = _credit(found.meta.get("sources"), imagery)
    except (SkyfixError, OSError) as error:
        return FoundMap(
            None, None, "", f"no map: {error}. If the index is somewhere else, give --index"
        )
    if picture is None:
        return FoundMap(None, imagery, "", f"no map: {folder} has no imagery where the flight was")
    flown = [made.index_id for made in table.made_with() if made.index_id]
    note = ""
    if flown and found.id not in flown:
        note = f"the map is of index {found.id}, the flight was matched with {flown[0]}"
    return FoundMap(picture, imagery, credit, note)


def _places(table: FlightTable) -> list[tuple[float, float]]:
    """Where the flight was, and what it looked at."""
    found = (table.place(row, look=look) for look in (False, True) for row in range(len(table)))
    return [place for place in found if place is not None]


def _credit(sources: object, imagery: Path) -> str:
    """Makers and licences of the imagery, each once."""
    parts: list[str] = []
    for source in sources if isinstance(sources, list) else []:
        if isinstance(source, dict):
            own = (str(source.get(name, "")) for name in ("attribution", "licence"))
            parts.append(", ".join(text for text in own if text not in _UNKNOWN))
    if not any(parts):
        try:
            store = ImageryStore(imagery, cached_tiles=1)
        except ImageryError:
            return ""
        parts = [store.metadata.get("attribution", "")]
        store.close()
    return "; ".join(dict.fromkeys(p for p in parts if p not in _UNKNOWN))
