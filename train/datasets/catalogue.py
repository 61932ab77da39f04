"""The data sets by name."""

import difflib
from pathlib import Path
from typing import Protocol

from edge_runtime.errors import InputError
from train.datasets.cvact import Cvact
from train.datasets.cvusa import Cvusa
from train.datasets.folder import Folder
from train.datasets.layout import Note, warn
from train.datasets.sues200 import HEIGHTS_M, Sues200
from train.datasets.university1652 import University1652
from train.datasets.vigor import Vigor
from train.pair_table import PairTable, RetrievalTask


class Reader(Protocol):
    """Reads one data set from its folder. Images are decoded later, by who asks for them."""

    def training(self, root: Path, *, note: Note = warn) -> PairTable:
        """What there is to learn from.

        Args:
            root: the data set's folder, as its owners lay it out.
            note: told in one line what is left out.

        Raises:
            InputError: the data set, or a part of it, is not there.
        """
        ...

    def tasks(self, root: Path, *, note: Note = warn) -> list[RetrievalTask]:
        """What to be measured on; arguments and errors as of `training`."""
        ...


DATASETS: dict[str, Reader] = {
    "cvusa": Cvusa(),
    "cvact": Cvact(),
    "cvact-test": Cvact(name="cvact-test", part="test"),
    "university1652": University1652(),
    "vigor-same": Vigor(),
    "vigor-cross": Vigor(name="vigor-cross", area="cross"),
    "sues200": Sues200(),
    **{f"sues200-{h}": Sues200(name=f"sues200-{h}", heights_m=(h,)) for h in HEIGHTS_M},
    "folder": Folder(),
}
"""Readers with their usual settings."""


def reader(name: str) -> Reader:
    """A data set's reader.

    Raises:
        InputError: there is no such data set; the nearest name is proposed, and all are named.
    """
    found = DATASETS.get(name)
    if found is None:
        near = difflib.get_close_matches(name.lower().replace("_", "-"), DATASETS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        msg = f"there is no data set {name!r}; {hint}Known: {', '.join(DATASETS)}"
        raise InputError(msg)
    return found


def read_training(name: str, root: Path, *, note: Note = warn) -> PairTable:
    """What a data set has to learn from; see `Reader`.

    Raises:
        InputError: no such data set, or it is not in `root`.
    """
    return reader(name).training(root, note=note)


def read_tasks(name: str, root: Path, *, note: Note = warn) -> list[RetrievalTask]:
    """What a data set has to be measured on; see `Reader`.

    Raises:
        InputError: no such data set, or it is not in `root`.
    """
    return reader(name).tasks(root, note=note)
