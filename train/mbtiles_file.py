"""Imagery as one MBTiles file that threads and worker processes can share."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

from edge_runtime.errors import InputError
from edge_runtime.imagery import ImageryStore
from edge_runtime.satellite_imagery import Progress, write_mbtiles


class MbtilesFile:
    """An MBTiles file that each thread of each process opens for itself."""

    def __init__(self, path: Path, *, temporary: bool = False) -> None:
        """Refer to a file.

        Args:
            path: the file.
            temporary: its folder is removed with this object, by the process that made it.
        """
        self.path = path
        # SQLite connections must cross neither threads nor forks.
        self._stores: dict[tuple[int, int], ImageryStore] = {}
        scratch = path.parent if temporary else None
        weakref.finalize(self, _release, self._stores, scratch, os.getpid())

    @property
    def store(self) -> ImageryStore:
        """The file, opened.

        Raises:
            ImageryError: not an MBTiles file.
        """
        owner = (os.getpid(), threading.get_ident())
        if owner not in self._stores:
            self._stores[owner] = ImageryStore(self.path)
        return self._stores[owner]

    def __reduce__(self) -> tuple[type["MbtilesFile"], tuple[Path]]:
        """Only the path travels to other processes, so they never remove the file."""
        return MbtilesFile, (self.path,)


def as_mbtiles(
    imagery: Sequence[Path], *, progress: Progress = lambda _stage, _done: None
) -> MbtilesFile:
    """One MBTiles file as it is; other rasters as a temporary one.

    Raises:
        ImageryError: the imagery cannot be read or is not georeferenced.
        InputError: an MBTiles file among others.
    """
    ready = [path for path in imagery if path.suffix.lower() == ".mbtiles"]
    if ready and len(imagery) > 1:
        msg = f"{ready[0]} lies among {len(imagery)} rasters; expected it alone, or none"
        raise InputError(msg)
    if ready:
        return MbtilesFile(ready[0])
    scratch = Path(tempfile.mkdtemp(prefix="skyfix-imagery-"))
    try:
        write_mbtiles(imagery, scratch / "imagery.mbtiles", progress=progress)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return MbtilesFile(scratch / "imagery.mbtiles", temporary=True)


def _release(
    stores: dict[tuple[int, int], ImageryStore], scratch: Path | None, owner_pid: int
) -> None:
    for store in stores.values():
        with contextlib.suppress(sqlite3.ProgrammingError):  # Of another thread.
            store.close()
    # A forked worker that is done with its copy must not take the folder from the others.
    if scratch is not None and os.getpid() == owner_pid:
        shutil.rmtree(scratch, ignore_errors=True)
