"""Map tiles as they lie in the imagery, for the browser to decode."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, LifoQueue
from typing import NamedTuple

from edge_runtime.imagery import Bounds, ImageryStore

_CONNECTIONS = 4
"""Connections to the file, each lent to one thread at a time."""
_WAIT_S = 10.0
_TYPES = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG", "image/png"), (b"RIFF", "image/webp"))
"""First bytes of the formats that MBTiles may hold; overviews at the edge are PNG among JPEG."""


class Tile(NamedTuple):
    """One tile of the map."""

    data: bytes
    content_type: str


class MapTiles:
    """Reads the tiles of one MBTiles file. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """Check the file; connections are opened when tiles are asked for.

        Raises:
            ImageryError: missing, not MBTiles, empty, or without bounds.
        """
        store = ImageryStore(path)
        try:
            self.min_zoom, self.max_zoom = store.min_zoom, store.max_zoom
            self.bounds: Bounds = store.bounds
            self.attribution = _attribution(store.metadata)
        finally:
            store.close()
        self._uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        self._free: LifoQueue[sqlite3.Connection | None] = LifoQueue()
        for _ in range(_CONNECTIONS):
            self._free.put(None)

    def tile(self, zoom: int, x: int, y: int) -> Tile | None:
        """The XYZ tile, or None where the file has none.

        Raises:
            OSError: the file cannot be read, or is closed.
        """
        if not self.min_zoom <= zoom <= self.max_zoom or not (0 <= x < 1 << zoom > y >= 0):
            return None
        try:
            with self._connection() as db:
                row = db.execute(
                    "SELECT tile_data FROM tiles WHERE zoom_level=? AND tile_column=? "
                    "AND tile_row=?",
                    (zoom, x, (1 << zoom) - 1 - y),
                ).fetchone()
        except sqlite3.Error as error:
            raise OSError(str(error)) from error
        if row is None:
            return None
        data = bytes(row[0])
        kinds = (kind for start, kind in _TYPES if data.startswith(start))
        return Tile(data, next(kinds, "application/octet-stream"))

    def close(self) -> None:
        """Close what is not lent out. Calling it twice is harmless."""
        for _ in range(_CONNECTIONS):
            try:
                db = self._free.get(timeout=1.0)
            except Empty:
                return
            if db is not None:
                db.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            db = self._free.get(timeout=_WAIT_S)
        except Empty as error:
            msg = "every connection to the imagery is busy, or the page is closed"
            raise OSError(msg) from error
        try:
            if db is None:
                db = sqlite3.connect(self._uri, uri=True, check_same_thread=False)
            yield db
        finally:
            self._free.put(db)


def _attribution(metadata: dict[str, str]) -> str:
    """Who made the imagery, as its licence may ask to be shown; empty where it is not known."""
    try:
        sources = json.loads(metadata.get("sources", "[]"))
        found = [str(source["attribution"]) for source in sources]
    except (ValueError, KeyError, TypeError):
        found = []
    found = found or [metadata.get("attribution", "")]
    return ", ".join(dict.fromkeys(f for f in found if f not in ("", "unknown")))
