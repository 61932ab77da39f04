"""What readers of published data sets share: finding files, and one line about what is missing."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import InputError
from edge_runtime.geodesy import radii_of_curvature_m
from train.pair_table import ImageFiles, ImageSet, RetrievalTask, View

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Note = Callable[[str], None]
"""Told in one line what a reader left out."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
"""Lower case; files may write them in any case."""


def warn(text: str) -> None:
    """The default `Note`: a warning of the logger `train.datasets`, on stderr unless configured."""
    logging.getLogger("train.datasets").warning(text)


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What a data set is called, how it is laid out, and where its owners publish it."""

    title: str
    layout: str
    """What its folder holds, in short."""
    page: str | None
    """The owners' page, and how to get the data there; None for one's own data."""

    def missing(self, root: Path, what: str) -> InputError:
        """The error for a data set of which something is not there."""
        source = f"Its owners publish it at {self.page}"
        if self.page is None:
            source = "See docs/datasets.md"
        return InputError(f"{self.title} in {root}: {what}; expected {self.layout}. {source}")

    def require(self, root: Path, *relative: str) -> None:
        """Refuse a folder that does not hold the data set.

        Raises:
            InputError: a file or folder of these is not there; all that are not are named, and a
                folder beside or below that has them.
        """
        absent = [name for name in relative if not (root / name).exists()]
        if not absent:
            return
        if not root.is_dir():
            raise self.missing(root, "there is no such folder")
        what = f"no {', '.join(absent)}"
        below = sorted(
            path.name
            for path in root.iterdir()
            if path.is_dir() and all((path / name).exists() for name in relative)
        )
        if below:
            what += f" (did you mean {root / below[0]}?)"
        raise self.missing(root, what)

    def require_files(
        self, root: Path, names: Sequence[str], *, part: str, listed_in: str
    ) -> list[Path]:
        """Paths of files that a list names.

        Args:
            root: folder of the data set.
            names: relative, with forward slashes.
            part: what people call the list, as `cvusa/train`.
            listed_in: the file that names them.

        Raises:
            InputError: some are not there; the first is named and all are counted.
        """
        found = find_files(root, names)
        absent = [name for name, path in zip(names, found, strict=True) if path is None]
        if absent:
            raise self.absent_files(root, absent, len(names), part=part, listed_in=listed_in)
        return [path for path in found if path is not None]

    def absent_files(
        self, root: Path, absent: Sequence[str], named: int, *, part: str, listed_in: str
    ) -> InputError:
        """The error for files that a list names and that are not there."""
        return self.missing(
            root,
            f"{part} lacks {len(absent)} of the {named} images that {listed_in} names, "
            f"the first is {absent[0]}",
        )


def is_image(name: str) -> bool:
    """Whether a file's name is an image's."""
    # macOS leaves `._name.jpg` beside each file it copies to other disks.
    suffix = "." + name.rpartition(".")[2].lower()
    return not name.startswith(".") and suffix in IMAGE_SUFFIXES


def find_files(root: Path, names: Sequence[str]) -> list[Path | None]:
    """Paths of relative names; None where there is no such file.

    Each folder is listed once, so that 100,000 names cost seconds on a disk far away. A file that
    has another image suffix than its name (`.png` for `.jpg`, `.JPG` for `.jpg`) is found too.
    """
    listings: dict[str, _Listing] = {}
    out: list[Path | None] = []
    for name in names:
        folder, _, base = name.rpartition("/")
        listing = listings.get(folder)
        if listing is None:
            listing = listings[folder] = _Listing(root / folder)
        out.append(listing.find(base))
    return out


class _Listing:
    """Names in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            with os.scandir(folder) as entries:
                self._names = {entry.name for entry in entries}
        except OSError:
            self._names = set()
        self._by_stem: dict[str, str] | None = None

    def find(self, name: str) -> Path | None:
        if name in self._names:
            return self._folder / name
        if self._by_stem is None:
            images = (found for found in sorted(self._names, reverse=True) if is_image(found))
            self._by_stem = {found.rpartition(".")[0]: found for found in images}
        found = self._by_stem.get(name.rpartition(".")[0])
        return None if found is None else self._folder / found


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder, sorted by name; hidden files are none. Empty where there is none."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if is_image(entry.name)]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; links to folders count, hidden ones do not."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError:
        return []


def class_images(folder: Path) -> dict[str, list[Path]]:
    """Images of each class, which is a folder of its own; classes and files sorted by name."""
    return {name: images_in(folder / name) for name in subfolders(folder)}


def labelled(classes: dict[str, list[Path]], view: View) -> tuple[ImageSet, I64]:
    """Images of numbered classes and, for each, the number: `0839` is 839.

    Raises:
        InputError: a folder's name is no number.
    """
    paths, labels = [], []
    for name, images in classes.items():
        if images and not (name.isascii() and name.isdigit()):
            msg = (
                f"folder {images[0].parent} is not named by a number; expected one folder for each "
                "place, as 0839. Remove it, or unpack the data again"
            )
            raise InputError(msg)
        paths += images
        labels += [int(name)] * len(images) if images else []
    return ImageSet(images=ImageFiles(paths), view=view), np.array(labels, np.int64)


def labelled_task(
    name: str,
    *,
    queries: dict[str, list[Path]],
    query_view: View,
    gallery: dict[str, list[Path]],
    gallery_view: View,
    publication: Publication,
    root: Path,
) -> RetrievalTask:
    """A task between two folders of numbered classes.

    Raises:
        InputError: one of them has no image, or a query's class has none in the gallery.
    """
    for side, classes in (("query", queries), ("gallery", gallery)):
        if not any(classes.values()):
            raise publication.missing(root, f"{name} has no {side} image")
    unmatched = [place for place in queries if queries[place] and not gallery.get(place)]
    if unmatched:
        raise publication.missing(
            root,
            f"{name} has queries of {len(unmatched)} places that the gallery does not show, the "
            f"first is {unmatched[0]}",
        )
    query_set, query_labels = labelled(queries, query_view)
    gallery_set, gallery_labels = labelled(gallery, gallery_view)
    return RetrievalTask(
        name=name,
        queries=query_set,
        gallery=gallery_set,
        query_labels=query_labels,
        gallery_labels=gallery_labels,
    )


def one_tile_each(
    tiles: dict[str, list[Path]],
    photos: dict[str, list[Path]],
    *,
    part: str,
    publication: Publication,
    root: Path,
) -> tuple[ImageFiles, ImageFiles, I64]:
    """Photos and tiles of the same classes.

    Returns:
        P photos, one tile for each class that has one, and (P,) the row of each photo's tile.

    Raises:
        InputError: there is no photo, or a class with photos does not have exactly one tile.
    """
    wrong = [place for place in photos if photos[place] and len(tiles.get(place, [])) != 1]
    if wrong:
        raise publication.missing(
            root,
            f"{part} has photographs of {len(wrong)} places without exactly one satellite image, "
            f"the first is {wrong[0]}",
        )
    if not any(photos.values()):
        raise publication.missing(root, f"{part} has no photograph")
    kept = [place for place in tiles if len(tiles[place]) == 1]
    row_of = {place: row for row, place in enumerate(kept)}
    counts = [len(images) for images in photos.values()]
    rows = np.repeat([row_of.get(place, -1) for place in photos], counts).astype(np.int64)
    return (
        ImageFiles([path for images in photos.values() for path in images]),
        ImageFiles([tiles[place][0] for place in kept]),
        rows,
    )


def read_lines(path: Path, publication: Publication, root: Path) -> list[str]:
    """Lines of a text file without their ends, be they LF or CRLF; empty ones are left out.

    Raises:
        InputError: unreadable, not UTF-8, or no line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise publication.missing(root, f"{path} cannot be read ({error})") from error
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    if not lines:
        raise publication.missing(root, f"{path} is empty")
    return lines


def web_tile_size_m(lat_deg: npt.ArrayLike, *, zoom: int, size_px: int) -> F64:
    """Side on the ground of a square cut from web map imagery.

    Args:
        lat_deg: latitude of its centre.
        zoom: zoom at which the whole world is 256 * 2**zoom pixels wide.
        size_px: side of the square.
    """
    lat = np.asarray(lat_deg, np.float64)
    _, prime_vertical_m = radii_of_curvature_m(lat)
    circle_m = 2 * np.pi * prime_vertical_m * np.cos(np.radians(lat))
    return np.asarray(circle_m * size_px / (256 * 2**zoom))
