"""Fill the parts of a build: cut, embed in whole batches, write, and leave to others theirs."""

import time
from collections.abc import Callable, Iterator, Sequence

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
    store = ImageryStore(prepared.folder.imagery)
    try:
        embed = Embedder(prepared, store, bundle.spec.width_px, backend.embed, kept)
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
    finally:
        store.close()


def _within(progress: Progress, done: int, total: int) -> Callable[[float], None]:
    return lambda share: progress("embedding", (done + share) / total)


class Embedder:
    """Turns places into rows of a part."""

    def __init__(
        self,
        prepared: Prepared,
        store: ImageryStore,
        size_px: int,
        embed: Callable[[U8], npt.NDArray[np.float32]],
        kept: KeptEmbeddings | None,
    ) -> None:
        """Cut from a store, embed by a function unless the embedding was kept."""
        self._prepared, self._store, self._size_px = prepared, store, size_px
        self._embed, self._kept = embed, kept
        self._dtype = part_dtype(prepared.plan["embedding_size"])
        self.embedded = 0
        """Pictures that went through the encoder."""

    def rows(
        self, places: Sequence[int], report: Callable[[float], None] = lambda _share: None
    ) -> npt.NDArray[np.void]:
        """Rows of every picture of these places that is not left out, in order."""
        rows: list[npt.NDArray[np.void]] = []
        waiting: list[tuple[int, U8]] = []
        for n, place in enumerate(places):
            for picture in self.pictures(place):
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

    def pictures(self, place: int) -> Iterator[Picture]:
        """The pictures of one place; none where it is left out."""
        places, options = self._prepared.places, self._prepared.options
        return pictures_of_tile(
            self._store,
            float(places.lat_deg[place]),
            float(places.lon_deg[place]),
            size_m=options.sizes[places.level_of(place)].size_m,
            size_px=self._size_px,
            headings_deg=options.headings_deg,
            leave_out=options.leave_out,
        )

    def _fill(self, rows: list[npt.NDArray[np.void]], waiting: list[tuple[int, U8]]) -> None:
        if not waiting:
            return
        images = [image for _, image in waiting]
        images += [images[-1]] * (BATCH - len(images))
        embeddings = self._embed(np.stack(images))
        for (row, _), embedding in zip(waiting, embeddings, strict=False):
            rows[row]["embedding"] = embedding
        self.embedded += len(waiting)
        waiting.clear()
