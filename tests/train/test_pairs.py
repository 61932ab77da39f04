import csv
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import InputError, SkyfixError
from edge_runtime.geodesy import distance_m
from train.config import MARGIN
from train.pair_table import ImageArray, ImageSet, PairTable
from train.pairs import (
    PhotoFolder,
    joined,
    load_pairs,
    read_truth_csv,
    world_folders,
)

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
HEADER = "filename,lat_deg,lon_deg,height_m,yaw_deg,pitch_deg,roll_deg\n"


@pytest.fixture(scope="session")
def folder(tiny_world: Path) -> PhotoFolder:
    return world_folders(tiny_world, "train")[0]


def load(folder: PhotoFolder, size_m: float = 48.0, size_px: int = 64) -> PairTable:
    return load_pairs(
        folder.photos,
        folder.imagery,
        telemetry=folder.telemetry,
        truth=folder.truth,
        camera=folder.camera,
        size_m=size_m,
        size_px=size_px,
    )


def pixels(images: ImageSet) -> U8:
    assert isinstance(images.images, ImageArray)
    return images.images.images


def structure(image: U8) -> F64:
    """Smoothed gradients with mean 0 and length 1: what season and light change least."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.5)
    size = np.sqrt(np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)))
    flat = (size - size.mean()).ravel().astype(np.float64)
    return np.asarray(flat / np.linalg.norm(flat))


def test_a_photograph_resembles_its_own_tile_more_than_others(tiny_pairs: PairTable) -> None:
    photos = np.stack([structure(image) for image in pixels(tiny_pairs.photos)])
    tiles = np.stack([structure(image) for image in pixels(tiny_pairs.tiles)])
    alike = photos @ tiles.T
    own = np.diag(alike)
    others = alike[~np.eye(len(alike), dtype=bool)]
    assert own.mean() > others.mean() + 3 * others.std()
    assert np.mean(alike.argmax(axis=1) == np.arange(len(alike))) > 0.8


def test_turning_the_tiles_loses_the_resemblance(tiny_pairs: PairTable) -> None:
    own, turned = (
        np.mean(
            [
                structure(photo) @ structure(np.ascontiguousarray(np.rot90(tile, turns)))
                for photo, tile in zip(
                    pixels(tiny_pairs.photos), pixels(tiny_pairs.tiles), strict=True
                )
            ]
        )
        for turns in (0, 2)
    )
    assert own > turned + 0.2


def test_pairs_are_larger_than_the_view_by_the_margin(tiny_pairs: PairTable) -> None:
    side = round(64 * MARGIN)
    assert (
        pixels(tiny_pairs.photos).shape
        == pixels(tiny_pairs.tiles).shape
        == (len(tiny_pairs), side, side, 3)
    )
    assert pixels(tiny_pairs.photos).dtype == pixels(tiny_pairs.tiles).dtype == np.uint8


def test_views_are_centred_where_the_photographs_look(
    tiny_pairs: PairTable, folder: PhotoFolder
) -> None:
    with folder.truth.open(newline="") as stream:
        looks = np.array(
            [(float(r["look_lat_deg"]), float(r["look_lon_deg"])) for r in csv.DictReader(stream)]
        )
    tiles = tiny_pairs.tiles
    assert tiles.lat_deg is not None
    assert tiles.lon_deg is not None
    apart = distance_m(tiles.lat_deg[:, None], tiles.lon_deg[:, None], looks[:, 0], looks[:, 1])
    assert apart.min(axis=1).max() < 1.0


def test_joined_pairs_keep_their_order(tiny_pairs: PairTable) -> None:
    whole = joined([tiny_pairs, tiny_pairs])
    assert len(whole) == 2 * len(tiny_pairs)
    assert np.array_equal(pixels(whole.photos)[len(tiny_pairs) :], pixels(tiny_pairs.photos))
    assert whole.photos.images.name(len(tiny_pairs)) == tiny_pairs.photos.images.name(0)
    for name in ("lat_deg", "lon_deg", "size_m"):
        column, parts = getattr(whole.tiles, name), getattr(tiny_pairs.tiles, name)
        assert np.array_equal(column, np.concatenate([parts, parts]))


def with_telemetry(folder: PhotoFolder, path: Path, keep: slice) -> PhotoFolder:
    lines = folder.telemetry.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[1:][keep]]) + "\n")
    return replace(folder, telemetry=path)


def test_photographs_without_telemetry_are_left_out(folder: PhotoFolder, tmp_path: Path) -> None:
    some = load(with_telemetry(folder, tmp_path / "t.csv", slice(0, 5)))
    assert 1 <= len(some) <= 5


def test_no_photograph_in_common_is_refused(folder: PhotoFolder, tmp_path: Path) -> None:
    lines = folder.truth.read_text().splitlines()
    (tmp_path / "truth.csv").write_text(
        "\n".join([lines[0], *(f"other_{line}" for line in lines[1:])])
    )
    with pytest.raises(InputError, match="expected the same filenames"):
        load(replace(folder, truth=tmp_path / "truth.csv"))


def test_photographs_beside_the_imagery_are_refused(folder: PhotoFolder, tmp_path: Path) -> None:
    with folder.truth.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    with (tmp_path / "truth.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"lat_deg": str(float(row["lat_deg"]) + 0.5)} for row in rows)
    with pytest.raises(InputError, match=r"no photograph of .* shows ground that lies on"):
        load(replace(folder, truth=tmp_path / "truth.csv"))


@pytest.mark.parametrize("damage", [b"", b"no picture"])
def test_a_photograph_that_cannot_be_read_is_named(
    folder: PhotoFolder, tmp_path: Path, damage: bytes
) -> None:
    shutil.copytree(folder.photos, tmp_path / "photos")
    (tmp_path / "photos" / "000007.jpg").write_bytes(damage)
    with pytest.raises(InputError, match=r"000007\.jpg cannot be read; expected a JPEG or PNG"):
        load(replace(folder, photos=tmp_path / "photos"))


def test_a_missing_photograph_is_named(folder: PhotoFolder, tmp_path: Path) -> None:
    shutil.copytree(folder.photos, tmp_path / "photos")
    (tmp_path / "photos" / "000003.jpg").unlink()
    with pytest.raises(InputError, match=r"000003\.jpg cannot be read"):
        load(replace(folder, photos=tmp_path / "photos"))


@pytest.mark.parametrize("name", ["imagery", "telemetry", "truth", "camera"])
def test_a_missing_file_is_named(folder: PhotoFolder, tmp_path: Path, name: str) -> None:
    missing = tmp_path / "nothing_here"
    with pytest.raises(SkyfixError, match="nothing_here"):
        load(replace(folder, **{name: missing}))


# --- true poses --------------------------------------------------------------------------------


def test_true_poses_are_read_by_file_name(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text(HEADER + "a.jpg,47.5,8.25,100,350,-2,1\nb.jpg,-33.5,181,50,0,0,0\n")
    found = read_truth_csv(path)
    assert list(found) == ["a.jpg", "b.jpg"]
    a = found["a.jpg"]
    assert (a.lat_deg, a.lon_deg, a.height_m) == (47.5, 8.25, 100)
    assert (a.yaw_deg, a.pitch_deg, a.roll_deg) == (350, -2, 1)


def test_spreadsheet_marks_and_further_columns_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    text = HEADER.strip() + ",remark\na.jpg,47.5,8.25,100,350,-2,1,fine\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert list(read_truth_csv(path)) == ["a.jpg"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(HEADER.replace("yaw_deg", "heading") + "a,1,2,3,4,5,6\n", "yaw", id="column"),
        pytest.param(HEADER.replace("filename", "name") + "a,1,2,3,4,5,6\n", "filename", id="name"),
        pytest.param(HEADER + "a,1,2,high,4,5,6\n", "expected CSV with filename", id="a word"),
        pytest.param(HEADER + "a,1,2,,4,5,6\n", "expected CSV with filename", id="empty cell"),
        pytest.param(HEADER + "a,1,2\n", r"a: could not convert .* expected CSV", id="short row"),
        pytest.param(HEADER + "a,91,2,3,4,5,6\n", r"a: latitude 91.* outside", id="latitude"),
        pytest.param(HEADER + "a,1,400,3,4,5,6\n", r"a: longitude 400.* outside", id="longitude"),
        pytest.param(HEADER + "a,nan,2,3,4,5,6\n", r"a: latitude nan", id="not a number"),
    ],
)
def test_a_truth_file_that_says_no_poses_is_refused(
    tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(InputError, match=expected) as caught:
        read_truth_csv(tmp_path / "truth.csv")
    assert "truth.csv" in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_bytes(b"\xff\xfe\x00\x00" * 20)
    with pytest.raises(InputError, match="expected CSV with filename"):
        read_truth_csv(tmp_path / "truth.csv")


# --- worlds ------------------------------------------------------------------------------------


def test_a_worlds_training_part_is_one_set_of_files_that_exist(folder: PhotoFolder) -> None:
    for path in (folder.imagery, folder.telemetry, folder.truth, folder.camera):
        assert path.is_file()
    assert folder.photos.is_dir()


def test_each_flight_of_the_held_out_part_is_a_set(tmp_path: Path) -> None:
    (tmp_path / "world.json").write_text("{}")
    for n in (2, 1):
        (tmp_path / "held_out" / f"flight_{n}" / "frames").mkdir(parents=True)
    found = world_folders(tmp_path, "held_out")
    assert [f.photos.parent.name for f in found] == ["flight_1", "flight_2"]
    assert {f.imagery for f in found} == {tmp_path / "held_out" / "imagery.tif"}


@pytest.mark.parametrize("content", [None, "not json"])
def test_a_folder_that_is_no_world_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "world.json").write_text(content)
    with pytest.raises(InputError, match="Make one with: python -m train world"):
        world_folders(tmp_path, "train")


@pytest.mark.parametrize("column", ["height_m", "yaw_deg", "pitch_deg", "roll_deg"])
def test_a_pose_that_is_not_a_number_is_refused(tmp_path: Path, column: str) -> None:
    values = {"lat_deg": "1", "lon_deg": "2", "height_m": "3"} | dict.fromkeys(
        ("yaw_deg", "pitch_deg", "roll_deg"), "0"
    )
    values[column] = "nan"
    (tmp_path / "truth.csv").write_text(HEADER + ",".join(["a", *values.values()]) + "\n")
    with pytest.raises(InputError, match=r"truth\.csv.*a"):
        read_truth_csv(tmp_path / "truth.csv")


def test_a_world_without_flights_has_nothing_to_evaluate_and_says_so(tiny_world: Path) -> None:
    with pytest.raises(InputError, match="flight"):
        joined([load(folder) for folder in world_folders(tiny_world, "held_out")])
