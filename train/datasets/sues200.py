"""SUES-200: 200 places seen by a real drone at four heights and by satellite (Zhu et al. 2023).

arXiv:2204.10704. 120 places to train with, 80 to be measured on; the galleries hold all 200.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from train.datasets.layout import (
    Note,
    Publication,
    class_images,
    images_in,
    labelled_task,
    one_tile_each,
    subfolders,
    warn,
)
from train.pair_table import ImageSet, PairTable, RetrievalTask

Classes = dict[str, list[Path]]

HEIGHTS_M = (150, 200, 250, 300)

PUBLICATION = Publication(
    title="SUES-200",
    layout="satellite-view/<place>/0.png and drone_view_512/<place>/<height>/*.jpg, or what the "
    "owners' split_datasets.py makes of them: Training/<height>/{drone,satellite}/<place>/ and "
    "Testing/<height>/{query_drone,query_satellite,gallery_drone,gallery_satellite}/<place>/",
    page="https://github.com/Reza-Zhu/SUES-200-Benchmark",
)
_TEST_NUMBERS = (
    "8 12 14 17 18 19 22 23 35 38 40 41 42 46 47 48 49 50 52 53 54 59 61 62 63 65 68 71 72 75 78 "
    "79 83 92 93 95 98 99 107 108 109 110 111 112 114 115 117 121 122 124 128 130 131 133 135 136 "
    "138 140 143 144 150 153 154 161 162 164 165 170 172 173 175 176 177 178 181 188 189 190 194 "
    "195"
)
TEST_PLACES = frozenset(f"{int(number):04d}" for number in _TEST_NUMBERS.split())
"""The 80 places that are not among the 120 training places of the owners' script/indexs.yaml."""


@dataclass(frozen=True, kw_only=True)
class Sues200:
    """Reader of SUES-200, as published or as its owners' script splits it.

    Where a folder holds both, the published layout is read and split as `indexs.yaml` says: older
    editions of the script took the first 120 places in no particular order.
    """

    name: str = "sues200"
    heights_m: tuple[int, ...] = HEIGHTS_M
    """Heights to train with, together, and to be measured at, each alone."""

    def training(self, root: Path, *, note: Note = warn) -> PairTable:
        """Every drone image of the training places with the satellite image of its place.

        Raises:
            InputError: the data set, or a part of it, is not there.
        """
        layout = _layout(root)
        photos: Classes = {}
        for height_m in self.heights_m:
            for place, images in layout.training(height_m, "drone").items():
                photos.setdefault(place, []).extend(images)
        photo_files, tile_files, rows = one_tile_each(
            layout.training(self.heights_m[0], "satellite"),
            dict(sorted(photos.items())),
            part=f"{self.name}/train",
            publication=PUBLICATION,
            root=root,
        )
        return PairTable(
            name=f"{self.name}/train",
            photos=ImageSet(images=photo_files, view="photo"),
            tiles=ImageSet(images=tile_files, view="tile"),
            tile_of_photo=rows,
            geometry="drone",
        )

    def tasks(self, root: Path, *, note: Note = warn) -> list[RetrievalTask]:
        """Both directions at each height; the galleries hold all 200 places.

        Labels are the places' numbers. Leaving out those of no query gives the galleries of 80
        places that other figures use.

        Raises:
            InputError: the data set, or a part of it, is not there.
        """
        layout = _layout(root)
        tasks = []
        for height_m in self.heights_m:
            queries = {view: layout.queries(height_m, view) for view in ("drone", "satellite")}
            gallery = {view: layout.gallery(height_m, view) for view in ("drone", "satellite")}
            tasks += [
                labelled_task(
                    f"{self.name}/drone-to-satellite-{height_m}",
                    queries=queries["drone"],
                    query_view="photo",
                    gallery=gallery["satellite"],
                    gallery_view="tile",
                    publication=PUBLICATION,
                    root=root,
                ),
                labelled_task(
                    f"{self.name}/satellite-to-drone-{height_m}",
                    queries=queries["satellite"],
                    query_view="tile",
                    gallery=gallery["drone"],
                    gallery_view="photo",
                    publication=PUBLICATION,
                    root=root,
                ),
            ]
        return tasks


@dataclass(frozen=True)
class _Published:
    """Places as the owners pack them: one folder of satellite images, one of drone images."""

    root: Path

    def training(self, height_m: int, view: str) -> Classes:
        places = self._places(view)
        return self._images([place for place in places if place not in TEST_PLACES], height_m, view)

    def queries(self, height_m: int, view: str) -> Classes:
        places = self._places(view)
        return self._images([place for place in places if place in TEST_PLACES], height_m, view)

    def gallery(self, height_m: int, view: str) -> Classes:
        return self._images(self._places(view), height_m, view)

    def _places(self, view: str) -> list[str]:
        return subfolders(self.root / _FOLDER_OF[view])

    def _images(self, places: Collection[str], height_m: int, view: str) -> Classes:
        folder = self.root / _FOLDER_OF[view]
        if view == "satellite":
            return {place: images_in(folder / place) for place in places}
        return {place: images_in(folder / place / str(height_m)) for place in places}


_FOLDER_OF = {"satellite": "satellite-view", "drone": "drone_view_512"}


@dataclass(frozen=True)
class _Split:
    """Places as the owners' script splits them."""

    root: Path

    def training(self, height_m: int, view: str) -> Classes:
        return self._classes(f"Training/{height_m}/{view}")

    def queries(self, height_m: int, view: str) -> Classes:
        return self._classes(f"Testing/{height_m}/query_{view}")

    def gallery(self, height_m: int, view: str) -> Classes:
        return self._classes(f"Testing/{height_m}/gallery_{view}")

    def _classes(self, relative: str) -> Classes:
        PUBLICATION.require(self.root, relative)
        return class_images(self.root / relative)


def _layout(root: Path) -> _Published | _Split:
    if all((root / folder).is_dir() for folder in _FOLDER_OF.values()):
        return _Published(root)
    # The owners' readme moves what the script makes into a folder `Dataset`.
    for split in (root, root / "Dataset"):
        if (split / "Training").is_dir() or (split / "Testing").is_dir():
            return _Split(split)
    PUBLICATION.require(root, *_FOLDER_OF.values())
    return _Published(root)
