"""University-1652: buildings seen by simulated drones and satellites (Zheng et al. 2020).

arXiv:2002.12186. 701 buildings to train with, 701 others to be measured on, and 250 more in the
galleries that no query shows.
"""

from dataclasses import dataclass
from pathlib import Path

from train.datasets.layout import (
    Note,
    Publication,
    class_images,
    labelled_task,
    one_tile_each,
    warn,
)
from train.pair_table import ImageSet, PairTable, RetrievalTask

PUBLICATION = Publication(
    title="University-1652",
    layout="train/{drone,satellite}/<building>/ and "
    "test/{query_drone,query_satellite,gallery_drone,gallery_satellite}/<building>/",
    page="https://github.com/layumi/University1652-Baseline (on request, see Request.md there)",
)


@dataclass(frozen=True, kw_only=True)
class University1652:
    """Reader of University-1652. Street views are not used: nothing flies there."""

    name: str = "university1652"

    def training(self, root: Path, *, note: Note = warn) -> PairTable:
        """Every drone image with the satellite image of its building.

        Raises:
            InputError: the data set, or a part of it, is not there.
        """
        PUBLICATION.require(root, "train/drone", "train/satellite")
        photos, tiles, rows = one_tile_each(
            class_images(root / "train/satellite"),
            class_images(root / "train/drone"),
            part=f"{self.name}/train",
            publication=PUBLICATION,
            root=root,
        )
        return PairTable(
            name=f"{self.name}/train",
            photos=ImageSet(images=photos, view="photo"),
            tiles=ImageSet(images=tiles, view="tile"),
            tile_of_photo=rows,
            geometry="drone",
        )

    def tasks(self, root: Path, *, note: Note = warn) -> list[RetrievalTask]:
        """Drone to satellite (gallery 951) and satellite to drone (gallery 51,355).

        Labels are the buildings' numbers. 250 of each gallery's 951 are of no query: the owners'
        protocol ranks them too, the paper's figures for Sample4Geo leave them out.

        Raises:
            InputError: the data set, or a part of it, is not there.
        """
        folders = ("query_drone", "gallery_satellite", "query_satellite", "gallery_drone")
        PUBLICATION.require(root, *(f"test/{folder}" for folder in folders))
        classes = {folder: class_images(root / "test" / folder) for folder in folders}
        return [
            labelled_task(
                f"{self.name}/drone-to-satellite",
                queries=classes["query_drone"],
                query_view="photo",
                gallery=classes["gallery_satellite"],
                gallery_view="tile",
                publication=PUBLICATION,
                root=root,
            ),
            labelled_task(
                f"{self.name}/satellite-to-drone",
                queries=classes["query_satellite"],
                query_view="tile",
                gallery=classes["gallery_drone"],
                gallery_view="photo",
                publication=PUBLICATION,
                root=root,
            ),
        ]
