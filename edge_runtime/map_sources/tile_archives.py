"""Map tiles in one file: MBTiles 1.3 (SQLite) and PMTiles 3."""

import html
import json
import mmap
import re
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.errors import ImageryError
from edge_runtime.map_sources.source import UNKNOWN, Kind, Provenance

if TYPE_CHECKING:
    from pmtiles.tile import Entry

_DEEPEST_LEAF = 4
"""Directories between the root and a tile, as the specification allows."""


class MbtilesArchive:
    """An MBTiles file of images. Not thread-safe."""

    kind: Kind = "MBTiles"

    def __init__(self, path: Path) -> None:
        """Open for reading.

        Raises:
            ImageryError: missing, not MBTiles, or vector tiles.
        """
        self.path = path
        uri = f"{path.resolve().as_uri()}?mode=ro"
        try:
            self._db = sqlite3.connect(uri, uri=True)
            said = dict(self._db.execute("SELECT name, value FROM metadata").fetchall())
            self._db.execute("SELECT zoom_level, tile_data FROM tiles LIMIT 1").fetchone()
        except sqlite3.Error as error:
            msg = f"{path} is not an MBTiles file ({error}); expected tables metadata and tiles"
            raise ImageryError(msg) from error
        if said.get("format") == "pbf":
            msg = (
                f"{path} holds vector tiles (pbf); expected images: an MBTiles of jpg, png or webp"
            )
            raise ImageryError(msg)
        self.provenance = _provenance(said)

    def zooms(self) -> list[int]:
        """The zooms that have tiles, ascending."""
        found = self._rows("SELECT DISTINCT zoom_level FROM tiles ORDER BY zoom_level")
        return [int(zoom) for (zoom,) in found]

    def keys(self, zoom: int) -> Iterator[tuple[int, int]]:
        """Column and row of every tile of a zoom, column by column."""
        for x, row in self._rows(
            "SELECT tile_column, tile_row FROM tiles WHERE zoom_level=? "
            "ORDER BY tile_column, tile_row DESC",
            zoom,
        ):
            yield int(x), (1 << zoom) - 1 - int(row)

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """One compressed image; None where there is none."""
        found = self._rows(
            "SELECT tile_data FROM tiles WHERE zoom_level=? AND tile_column=? AND tile_row=?",
            zoom,
            x,
            (1 << zoom) - 1 - y,
        )
        row = next(found, None)
        return None if row is None else bytes(row[0])

    def _rows(self, query: str, *values: int) -> Iterator[tuple[Any, ...]]:
        try:
            with closing(self._db.execute(query, values)) as cursor:
                yield from cursor
        except sqlite3.Error as error:
            msg = f"{self.path} is damaged ({error}); expected a complete MBTiles file"
            raise ImageryError(msg) from error


class PmtilesArchive:
    """A PMTiles 3 file of images (github.com/protomaps/PMTiles, spec/v3). Not thread-safe."""

    kind: Kind = "PMTiles"

    def __init__(self, path: Path) -> None:
        """Open for reading.

        Raises:
            ImageryError: missing, not PMTiles 3, vector tiles, or no library to read it with.
        """
        try:
            from pmtiles.reader import Reader
            from pmtiles.tile import MagicNumberNotFound, SpecVersionUnsupported, TileType
        except ImportError as error:
            msg = f"{path} is PMTiles, which needs a library. Install: pip install 'skyfix[maps]'"
            raise ImageryError(msg) from error
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            reader = Reader(self._get)
            self._header = reader.header()
            said = reader.metadata()
        except (OSError, ValueError, IndexError, MagicNumberNotFound, SpecVersionUnsupported) as e:
            msg = f"{path} is not PMTiles of version 3 ({e or type(e).__name__}); expected an image"
            raise ImageryError(f"{msg} archive. Convert it with: pmtiles convert") from e
        kind = self._header["tile_type"]
        if kind not in (TileType.PNG, TileType.JPEG, TileType.WEBP):
            msg = f"{path} holds {kind.name} tiles; expected PNG, JPEG or WebP images"
            raise ImageryError(msg)
        self.provenance = _provenance(said if isinstance(said, dict) else {})
        # Each holds thousands of entries, which take longer to read than a tile.
        self._directory = lru_cache(maxsize=64)(self._read_directory)

    def _get(self, offset: int, length: int) -> bytes:
        found = self._bytes[offset : offset + length]
        if len(found) != length:
            msg = f"{self.path} is damaged (it ends early); expected a complete PMTiles file"
            raise ImageryError(msg)
        return found

    def zooms(self) -> list[int]:
        """The zooms that have tiles, ascending."""
        low, high = int(self._header["min_zoom"]), int(self._header["max_zoom"])
        return [zoom for zoom in range(low, high + 1) if next(self.keys(zoom), None) is not None]

    def keys(self, zoom: int) -> Iterator[tuple[int, int]]:
        """Column and row of every tile of a zoom, along the archive's Hilbert curve."""
        from pmtiles.tile import tileid_to_zxy, zxy_to_tileid

        first, last = zxy_to_tileid(zoom, 0, 0), zxy_to_tileid(zoom + 1, 0, 0)
        root = (self._header["root_offset"], self._header["root_length"])
        for entry in self._entries(*root, first, last):
            start, stop = max(entry.tile_id, first), min(entry.tile_id + entry.run_length, last)
            for tile_id in range(start, stop):
                _, x, y = tileid_to_zxy(tile_id)
                yield x, y

    def _entries(self, offset: int, length: int, first: int, last: int) -> Iterator["Entry"]:
        """Entries of tiles between two ids; leaves that cannot hold one are not read."""
        entries = self._directory(offset, length)
        ends = [entry.tile_id for entry in entries[1:]] + [last]
        for entry, end in zip(entries, ends, strict=True):
            if entry.tile_id >= last:
                return
            if entry.run_length:
                yield entry
            elif end > first:
                leaf = self._header["leaf_directory_offset"] + entry.offset
                yield from self._entries(leaf, entry.length, first, last)

    def _read_directory(self, offset: int, length: int) -> list["Entry"]:
        from pmtiles.tile import deserialize_directory

        try:
            return list(deserialize_directory(self._get(offset, length)))
        except (OSError, EOFError, ValueError, zlib.error) as error:
            msg = f"{self.path} is damaged ({error}); expected a complete PMTiles file"
            raise ImageryError(msg) from error

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """One compressed image; None where there is none.

        Raises:
            ImageryError: the archive is damaged.
        """
        from pmtiles.tile import find_tile, zxy_to_tileid

        if not 0 <= zoom <= int(self._header["max_zoom"]):
            return None
        wanted = zxy_to_tileid(zoom, x, y)
        offset, length = self._header["root_offset"], self._header["root_length"]
        for _ in range(_DEEPEST_LEAF):
            entry = find_tile(self._directory(offset, length), wanted)
            if entry is None:
                return None
            if entry.run_length:
                return self._get(self._header["tile_data_offset"] + entry.offset, entry.length)
            offset = self._header["leaf_directory_offset"] + entry.offset
            length = entry.length
        msg = f"{self.path} is damaged (its directories never end); expected a PMTiles file"
        raise ImageryError(msg)


def _provenance(said: dict[str, Any]) -> Provenance:
    """What an archive's metadata say; earlier output of ours says it source by source."""
    sources: list[dict[str, Any]] = []
    with suppress(ValueError, TypeError):
        sources = [s for s in json.loads(said.get("sources", "[]")) if isinstance(s, dict)]

    def joined(key: str) -> str:
        found = dict.fromkeys(str(source.get(key, UNKNOWN)) for source in sources)
        return "; ".join(found) if found else UNKNOWN

    attribution = html.unescape(re.sub(r"<[^>]*>", "", str(said.get("attribution", "")))).strip()
    licence = str(said.get("license", said.get("licence", ""))).strip()
    return Provenance(
        captured=joined("captured"),
        attribution=attribution or joined("attribution"),
        licence=licence or joined("licence"),
    )
