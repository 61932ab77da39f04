"""Fill the parts of a build: cut, embed in whole batches, write, and leave to others theirs."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import numpy as np
import numpy.typing as npt

from edge_runtime.backends.protocol import Backend
from edge_runtime.bundle import Bundle
from edge_runtime.imagery import ImageryStore
from edge_runtime.satellite_imagery import Progress
from export.index_claims import claimed
from export.index_parts import part_dtype
from export.index_pictures import Picture, pictures_of_tile
from export.index_preparation import Prepared, Shard, parts_of
from export.index_update import KeptEmbeddings

U8 = npt.NDArray[np.uint8]

BATCH = 16
"""Always whole batches, the last one filled up, so that a picture's embedding does not depend on
what is embedded with it: kernels are chosen by the shape of the whole batch."""
_POLL_S = 0.5
_CUTTING_THREADS = 8
_CACHED_TILES = 384
"""Of imagery, for each thread: a row of tiles has most of them in common with the next row."""


def embed_parts(
    prepared: Prepared,
    bundle: Bundle,
    backend: Backend,
    shard: Shard | None,
    kept: KeptEmbeddings | None,
    progress: Progress,
) -> None:
    """Embed the parts that are missing, leaving to other processes what they are at.

    Args:
        prepared: the build folder.
        bundle: the encoder.
        backend: where it runs.
        shard: which share; all parts when None, waiting for those that others are at.
        kept: embeddings of an older index.
        progress: told the stage and the fraction done.
    """
    parts = parts_of(prepared.folder, prepared.plan)
    mine = range(0 if shard is None else shard.number - 1, len(parts), shard.of if shard else 1)
    # Parts that are there are read once: whether they are sound decides what is left to do.
    todo = [part for part in mine if parts.read(part) is None]
    with cutting(prepared, bundle.spec.width_px) as cut:
        embed = Embedder(cut, prepared.plan["embedding_size"], backend.embed, kept)
        total, done = max(len(mine), 1), len(mine) - len(todo)
        progress("embedding", done / total)
        while todo:
            left = []
            for part in todo:
                with claimed(parts.claim_path(part)) as granted:
                    # Another process may have ended it since it was looked for.
                    if granted and parts.read(part) is None:
                        report = _within(progress, done, total)
                        parts.write(part, embed.rows(parts.places_of(part), report))
                if not granted and parts.read(part) is None:
                    left.append(part)
                    continue
                done += 1
                progress("embedding", done / total)
            if left == todo:
                time.sleep(_POLL_S)
            todo = left


def _within(progress: Progress, done: int, total: int) -> Callable[[float], None]:
    return lambda share: progress("embedding", (done + share) / total)


Cut = Callable[[Sequence[int]], Generator[list[Picture], None, None]]
"""Places to the pictures of each, in order; no pictures where a place is left out."""


def cutting_threads() -> int:
    """Threads that cut pictures."""
    return min(os.cpu_count() or 1, _CUTTING_THREADS)


@contextmanager
def cutting(prepared: Prepared, size_px: int) -> Iterator[Cut]:
    """Cut pictures on several threads ahead of the encoder: on a GPU cutting takes longer.

    Args:
        prepared: imagery and places.
        size_px: side of a picture.

    Yields:
        What cuts. Pictures of the places it is given are held until they are taken: 250 MB for
        a part of the usual size at 384 px.
    """
    places, options = prepared.places, prepared.options
    threads = cutting_threads()
    own = threading.local()
    all_here = threading.Barrier(threads)

    def pictures(place: int) -> list[Picture]:
        if not hasattr(own, "store"):
            own.store = ImageryStore(prepared.folder.imagery, cached_tiles=_CACHED_TILES)
        return list(
            pictures_of_tile(
                own.store,
                float(places.lat_deg[place]),
                float(places.lon_deg[place]),
                size_m=options.sizes[places.level_of(place)].size_m,
                size_px=size_px,
                headings_deg=options.headings_deg,
                leave_out=options.leave_out,
            )
        )

    def close() -> None:
        all_here.wait()  # So that every thread has one of these.
        if hasattr(own, "store"):
            own.store.close()

    def cut(wanted: Sequence[int]) -> Generator[list[Picture], None, None]:
        ahead = deque(pool.submit(pictures, place) for place in wanted)
        try:
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    with ThreadPoolExecutor(threads, thread_name_prefix="cutting") as pool:
        try:
            yield cut
        finally:
            # SQLite wants a connection closed by the thread that opened it.
            for _ in range(threads):
                pool.submit(close)


class Embedder:
    """Turns places into rows of a part."""

    def __init__(
        self,
        cut: Cut,
        embedding_size: int,
        embed: Callable[[U8], npt.NDArray[np.float32]],
        kept: KeptEmbeddings | None,
    ) -> None:
        """Cut by one function, embed by another unless the embedding was kept."""
        self._cut, self._embed, self._kept = cut, embed, kept
        self._dtype = part_dtype(embedding_size)

    def rows(
        self, places: Sequence[int], report: Callable[[float], None] = lambda _share: None
    ) -> npt.NDArray[np.void]:
        """Rows of every picture of these places that is not left out, in order."""
        rows: list[npt.NDArray[np.void]] = []
        waiting: list[tuple[int, U8]] = []
        with closing(self._cut(places)) as cut:
            for n, (place, pictures) in enumerate(zip(places, cut, strict=True)):
                for picture in pictures:
                    row = np.zeros((), self._dtype)
                    row["place"], row["heading_deg"] = place, picture.heading_deg
                    row["marks"], row["digest"] = picture.marks, picture.digest
                    known = None if self._kept is None else self._kept.of(picture.digest)
                    if known is None:
                        waiting.append((len(rows), picture.image))
                    else:
                        row["embedding"] = known
                    rows.append(row)
                    if len(waiting) == BATCH:
                        self._fill(rows, waiting)
                report((n + 1) / len(places))
        self._fill(rows, waiting)
        return np.array(rows, self._dtype)

    def _fill(self, rows: list[npt.NDArray[np.void]], waiting: list[tuple[int, U8]]) -> None:
        if not waiting:
            return
        images = [image for _, image in waiting]
        images += [images[-1]] * (BATCH - len(images))
        embeddings = self._embed(np.stack(images))
        for (row, _), embedding in zip(waiting, embeddings, strict=False):
            rows[row]["embedding"] = embedding
        waiting.clear()
