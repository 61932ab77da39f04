"""Embeddings kept beside an index, so that an update embeds only pictures that changed.

    OUT.embeddings/raw.npy        (T, D) float16, as the encoder gave them
    OUT.embeddings/digests.npy    (T,) uint64 of the pictures' pixels
    OUT.embeddings/kept.json      which encoder made them, and the files' sha256

An index itself holds centred embeddings, from which the encoder's own cannot be had back exactly.
A picture with the digest of an older one has its embedding, wherever it lies and whatever else
changed, so an updated index is the one that a build from scratch gives.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.artefact import sha256_of, write_atomically
from edge_runtime.errors import InputError

U64 = npt.NDArray[np.uint64]
F16 = npt.NDArray[np.float16]

_RAW, _DIGESTS, _KEPT = "raw.npy", "digests.npy", "kept.json"


def kept_folder_of(index: Path) -> Path:
    """Where the embeddings of an index are kept."""
    index = index.resolve()
    return index.with_name(index.name + ".embeddings")


class KeptEmbeddings:
    """Embeddings by the digest of the picture."""

    def __init__(self, digests: U64, raw: F16) -> None:
        """From digests (T,) and embeddings (T, D)."""
        self._order = np.argsort(digests, kind="stable")
        self._digests = np.asarray(digests[self._order])
        self._raw = raw

    def __len__(self) -> int:
        """Number of embeddings."""
        return len(self._digests)

    def of(self, digest: int) -> F16 | None:
        """(D,) the embedding of a picture; None where there is none."""
        at = int(np.searchsorted(self._digests, np.uint64(digest)))
        if at == len(self._digests) or int(self._digests[at]) != digest:
            return None
        return np.asarray(self._raw[self._order[at]])


def open_kept(index: Path, encoder: Mapping[str, Any]) -> KeptEmbeddings:
    """Open and verify what was kept beside an index.

    Args:
        index: the older index's folder.
        encoder: what makes embeddings equal, as `keep` was given.

    Raises:
        InputError: nothing was kept, it is damaged, or another encoder made it.
    """
    folder = kept_folder_of(index)
    try:
        kept = json.loads((folder / _KEPT).read_text())
        files = dict(kept["files"])
        made_by = dict(kept["encoder"])
    except FileNotFoundError as error:
        msg = (
            f"{index} cannot be updated: {folder} is missing, which a build leaves beside its "
            "index. Build without --update"
        )
        raise InputError(msg) from error
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{folder / _KEPT} is not readable ({error}). Build without --update"
        raise InputError(msg) from error
    differing = [name for name in encoder if made_by.get(name) != encoder[name]]
    if differing:
        name = differing[0]
        msg = (
            f"{folder} was embedded with {name} {made_by.get(name)}, this build has "
            f"{encoder[name]}: nothing of it can be kept. Build without --update"
        )
        raise InputError(msg)
    for name in (_RAW, _DIGESTS):
        if not (folder / name).exists() or sha256_of(folder / name) != files.get(name):
            msg = f"{folder / name} is missing or was altered. Build without --update"
            raise InputError(msg)
    return KeptEmbeddings(
        np.load(folder / _DIGESTS, allow_pickle=False),
        np.load(folder / _RAW, mmap_mode="r", allow_pickle=False),
    )


def keep(index: Path, raw: Path, digests: U64, encoder: Mapping[str, Any]) -> None:
    """Put the embeddings of a finished index beside it, in place of an older one's.

    Args:
        index: the finished index.
        raw: file of its embeddings on the same disk; it is moved.
        digests: (T,) of the pictures, in the same order.
        encoder: what makes embeddings equal.
    """
    folder = kept_folder_of(index)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    raw.replace(temporary / _RAW)
    np.save(temporary / _DIGESTS, digests)
    files = {name: sha256_of(temporary / name) for name in (_RAW, _DIGESTS)}
    record = {"encoder": dict(encoder), "files": files}
    write_atomically(temporary / _KEPT, (json.dumps(record, indent=1) + "\n").encode())
    # Not an exchange: between the two steps there is nothing to update from, and no harm done.
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)
