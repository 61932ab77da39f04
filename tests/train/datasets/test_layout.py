import logging
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import InputError
from train.datasets.layout import (
    Publication,
    class_images,
    find_files,
    images_in,
    labelled,
    labelled_task,
    one_tile_each,
    read_lines,
    warn,
    web_tile_size_m,
)

ATLAS = Publication(title="Atlas", layout="maps/*.jpg", page="https://example.org/atlas")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_a_file_is_found_by_its_name_before_any_other_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/1.jpg")
    assert find_files(tmp_path, ["a/1.jpg", "a/1.png"]) == [
        tmp_path / "a/1.jpg",
        tmp_path / "a/1.png",
    ]


@pytest.mark.parametrize("there", ["1.JPG", "1.jpeg", "1.png", "1.PNG"])
def test_a_file_with_another_image_suffix_is_found(tmp_path: Path, there: str) -> None:
    touch(tmp_path, f"a/{there}")
    assert find_files(tmp_path, ["a/1.jpg"]) == [tmp_path / "a" / there]


def test_names_that_differ_by_case_are_different_files(tmp_path: Path) -> None:
    touch(tmp_path, "a/Q.jpg")
    assert find_files(tmp_path, ["a/q.jpg", "a/Q.jpg"]) == [None, tmp_path / "a/Q.jpg"]


def test_what_is_no_image_does_not_stand_in_for_one(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.txt", "a/._1.png")
    assert find_files(tmp_path, ["a/1.jpg", "nowhere/1.jpg", "1.jpg"]) == [None, None, None]


def test_absent_files_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "maps/1.jpg")
    with pytest.raises(
        InputError,
        match=r"^Atlas in .*: atlas/train lacks 2 of the 3 images that list\.txt names, the first "
        r"is maps/2\.jpg; expected maps/\*\.jpg\. .* https://example\.org/atlas$",
    ):
        ATLAS.require_files(
            tmp_path,
            ["maps/1.jpg", "maps/2.jpg", "maps/3.jpg"],
            part="atlas/train",
            listed_in="list.txt",
        )


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no such folder; expected maps/\*\.jpg"):
        ATLAS.require(tmp_path / "atlas", "maps")


def test_a_folder_one_level_too_high_names_the_right_one(tmp_path: Path) -> None:
    touch(tmp_path, "unpacked/maps/1.jpg", "other/1.jpg")
    with pytest.raises(InputError, match=r"no maps \(did you mean .*/unpacked\?\)"):
        ATLAS.require(tmp_path, "maps")


def test_every_absent_part_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "maps/1.jpg")
    with pytest.raises(InputError, match=r"no lists, keys; expected"):
        ATLAS.require(tmp_path, "maps", "lists", "keys")


def test_images_are_sorted_by_name_and_hidden_files_are_none(tmp_path: Path) -> None:
    touch(tmp_path, "image-10.JPEG", "image-02.jpeg", "._image-02.jpeg", ".DS_Store", "notes.txt")
    assert [path.name for path in images_in(tmp_path)] == ["image-02.jpeg", "image-10.JPEG"]


def test_classes_are_folders_by_name_and_links_to_folders(tmp_path: Path) -> None:
    touch(tmp_path, "real/0002/a.jpg", "set/0010/b.jpg", "set/.cache/c.jpg", "set/readme.txt")
    (tmp_path / "set/0002").symlink_to(tmp_path / "real/0002", target_is_directory=True)
    found = class_images(tmp_path / "set")
    assert {name: [p.name for p in paths] for name, paths in found.items()} == {
        "0002": ["a.jpg"],
        "0010": ["b.jpg"],
    }


def test_labels_are_the_numbers_of_the_folders_not_their_places(tmp_path: Path) -> None:
    touch(tmp_path, "0839/a.jpg", "0839/b.jpg", "0007/c.jpg", "1651/d.jpg")
    images, labels = labelled(class_images(tmp_path), "tile")
    assert labels.tolist() == [7, 839, 839, 1651]
    assert [Path(images.images.name(k)).name for k in range(4)] == [
        "c.jpg",
        "a.jpg",
        "b.jpg",
        "d.jpg",
    ]


def test_a_class_without_a_number_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "town hall/a.jpg")
    with pytest.raises(InputError, match=r"town hall is not named by a number; expected one"):
        labelled(class_images(tmp_path), "tile")


def test_a_query_without_an_answer_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "query/0001/a.jpg", "query/0002/a.jpg", "gallery/0001/a.jpg")
    with pytest.raises(
        InputError, match=r"queries of 1 places that the gallery does not show, the first is 0002"
    ):
        labelled_task(
            "atlas/test",
            queries=class_images(tmp_path / "query"),
            query_view="photo",
            gallery=class_images(tmp_path / "gallery"),
            gallery_view="tile",
            publication=ATLAS,
            root=tmp_path,
        )


@pytest.mark.parametrize("folder", ["query", "gallery"])
def test_an_empty_side_of_a_task_is_refused(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, "query/0001/a.jpg", "gallery/0001/a.jpg")
    (tmp_path / folder / "0001/a.jpg").unlink()
    with pytest.raises(InputError, match=rf"atlas/test has no {folder} image"):
        labelled_task(
            "atlas/test",
            queries=class_images(tmp_path / "query"),
            query_view="photo",
            gallery=class_images(tmp_path / "gallery"),
            gallery_view="tile",
            publication=ATLAS,
            root=tmp_path,
        )


def test_every_photo_gets_the_tile_of_its_class(tmp_path: Path) -> None:
    touch(tmp_path, "photo/0002/a.jpg", "photo/0002/b.jpg", "photo/0009/c.jpg")
    touch(tmp_path, "tile/0001/1.jpg", "tile/0002/2.jpg", "tile/0009/9.jpg")
    photos, tiles, rows = one_tile_each(
        class_images(tmp_path / "tile"),
        class_images(tmp_path / "photo"),
        part="atlas/train",
        publication=ATLAS,
        root=tmp_path,
    )
    seen = {Path(photos.name(k)).name: Path(tiles.name(int(rows[k]))).name for k in range(3)}
    assert seen == {"a.jpg": "2.jpg", "b.jpg": "2.jpg", "c.jpg": "9.jpg"}


@pytest.mark.parametrize("tiles", [(), ("1.jpg", "2.jpg")], ids=["no tile", "two tiles"])
def test_a_class_without_exactly_one_tile_is_refused(
    tmp_path: Path, tiles: tuple[str, ...]
) -> None:
    touch(tmp_path, "photo/0002/a.jpg", *(f"tile/0002/{tile}" for tile in tiles))
    with pytest.raises(InputError, match=r"1 places without exactly one .* the first is 0002"):
        one_tile_each(
            class_images(tmp_path / "tile"),
            class_images(tmp_path / "photo"),
            part="atlas/train",
            publication=ATLAS,
            root=tmp_path,
        )


@pytest.mark.parametrize(
    "data",
    [
        b"one\ntwo\n",
        b"one\r\ntwo\r\n",
        b"one\ntwo",
        b"\xef\xbb\xbfone\r\n\r\ntwo",
        b"one \ntwo\n\n",
    ],
    ids=["LF", "CRLF", "no final newline", "BOM and an empty line", "spaces"],
)
def test_lines_are_the_same_whatever_ends_them(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(data)
    assert read_lines(tmp_path / "list.txt", ATLAS, tmp_path) == ["one", "two"]


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\r\n")
    with pytest.raises(InputError, match=r"list\.txt is empty; expected maps"):
        read_lines(tmp_path / "list.txt", ATLAS, tmp_path)


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"list\.txt cannot be read .*utf-8"):
        read_lines(tmp_path / "list.txt", ATLAS, tmp_path)


def test_one_web_map_tile_at_zoom_0_is_the_equator() -> None:
    """40,075.017 km: 2 pi times the radius of WGS 84."""
    assert web_tile_size_m(0.0, zoom=0, size_px=256) == pytest.approx(40_075_016.686, abs=0.01)


def test_web_map_tiles_shrink_towards_the_poles_and_halve_by_zoom() -> None:
    size_m = web_tile_size_m([0.0, 60.0], zoom=20, size_px=640)
    assert size_m[1] / size_m[0] == pytest.approx(0.5, rel=3e-3)  # An ellipsoid, not a sphere.
    assert web_tile_size_m(0.0, zoom=19, size_px=320) == pytest.approx(size_m[0])


def test_a_note_is_a_warning_of_one_logger(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn("two left out")
    assert caplog.record_tuples == [("train.datasets", logging.WARNING, "two left out")]


def test_rows_are_whole_numbers_even_of_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "photo/0002/a.jpg", "tile/0002/2.jpg")
    (tmp_path / "photo/0003").mkdir()  # A building without photographs is left alone.
    _, _, rows = one_tile_each(
        class_images(tmp_path / "tile"),
        class_images(tmp_path / "photo"),
        part="atlas/train",
        publication=ATLAS,
        root=tmp_path,
    )
    assert rows.dtype == np.int64
    assert rows.tolist() == [0]
