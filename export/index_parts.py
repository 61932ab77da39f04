"""Parts of an index under construction: the embedded rows of some neighbouring places.

A part is one `.npy` file followed by a sha256 over the plan it belongs to and its bytes, written
under a temporary name and renamed: it is there whole or not at all, and neither a damaged part
nor one of another plan is taken for its own.
"""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.artefact import write_atomically

_SHA_BYTES = 32


def part_dtype(embedding_size: int) -> np.dtype[np.void]:
    """One row of a part: a picture that is kept."""
    return np.dtype(
        [
            ("place", "<u4"),
            ("heading_deg", "<f4"),
            ("marks", "<u1"),
            ("digest", "<u8"),
            # As the index stores them; half the disk of a long build.
            ("embedding", "<f2", (embedding_size,)),
        ]
    )


class Parts:
    """The parts of one plan in one folder, which several processes may fill side by side."""

    def __init__(
        self, folder: Path, plan_id: str, *, places: int, part_places: int, embedding_size: int
    ) -> None:
        """Parts of so many consecutive places each."""
        self.folder, self._plan_id = folder, plan_id
        self._places, self._part_places = places, part_places
        self._dtype = part_dtype(embedding_size)
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        """Number of parts that make the whole."""
        return -(-self._places // self._part_places)

    def places_of(self, part: int) -> range:
        """Places that a part covers."""
        return range(part * self._part_places, min((part + 1) * self._part_places, self._places))

    def path(self, part: int) -> Path:
        """Its file."""
        return self.folder / f"part-{part:06d}.npy"

    def claim_path(self, part: int) -> Path:
        """File by which a process says that it is at it."""
        return self.folder / f"part-{part:06d}.claim"

    def write(self, part: int, rows: npt.NDArray[np.void]) -> None:
        """Write a part so that it is there whole or not at all."""
        stream = io.BytesIO()
        np.save(stream, rows.astype(self._dtype, copy=False), allow_pickle=False)
        data = stream.getvalue()
        write_atomically(self.path(part), data + self._sha(data))

    def read(self, part: int) -> npt.NDArray[np.void] | None:
        """Rows of a part; None where it is missing, damaged or of another plan."""
        try:
            data = self.path(part).read_bytes()
        except FileNotFoundError:
            return None
        body, sha = data[:-_SHA_BYTES], data[-_SHA_BYTES:]
        if sha != self._sha(body):
            return None
        rows: npt.NDArray[np.void] = np.load(io.BytesIO(body), allow_pickle=False)
        return rows if rows.dtype == self._dtype else None

    def missing(self) -> list[int]:
        """Parts that are not there; those that are were not read."""
        there = set(os.listdir(self.folder))  # noqa: PTH208 - names alone, a million of them
        return [part for part in range(len(self)) if self.path(part).name not in there]

    def _sha(self, data: bytes) -> bytes:
        return hashlib.sha256(self._plan_id.encode() + data).digest()
