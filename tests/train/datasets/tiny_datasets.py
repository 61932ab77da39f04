"""Every data set in its true layout, with a few small pictures: what readers and presets run on.

A place is a random texture; what sees it sees its colours where they are, a little brighter or
noisier, so an encoder can learn which views belong together.
"""

import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import rasterio
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from rasterio.transform import Affine
from scipy.io import savemat

from edge_runtime.geodesy import move_lat_lon

U8 = npt.NDArray[np.uint8]

CVUSA_TRAIN, CVUSA_VAL = 24, 8
CVACT_TRAIN, CVACT_VAL, CVACT_TEST = 24, 8, 12
UNIVERSITY_TRAIN, UNIVERSITY_TEST, UNIVERSITY_DISTRACTORS, UNIVERSITY_VIEWS = 16, 6, 3, 3
VIGOR_SIDE, VIGOR_TRAIN, VIGOR_TEST = 4, 8, 4
SUES_TRAIN = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0009")
SUES_TEST = ("0008", "0012", "0014")
SUES_VIEWS = 2
FOLDER_PHOTOS = 16
FOLDER_AT = (47.0, 9.0)
"""Where the north-west corner of the imagery lies."""
FOLDER_M = 600
"""Side of the imagery, 1 m a pixel."""


def texture(place: str, height: int = 64, width: int = 64) -> U8:
    """(H, W, 3) blobs of colour that belong to a name."""
    rng = np.random.default_rng(zlib.crc32(place.encode()))
    coarse = rng.integers(0, 256, (5, 5 * width // height, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def view(place: str, number: int, height: int = 64, width: int = 64) -> U8:
    """The texture as one camera sees it: stretched, noisy, lighter or darker."""
    rng = np.random.default_rng([zlib.crc32(place.encode()), number])
    seen = cv2.resize(texture(place), (width, height), interpolation=cv2.INTER_LINEAR)
    noise = rng.normal(0.0, 6.0, seen.shape) + rng.uniform(-20.0, 20.0)
    return np.asarray(np.clip(seen + noise, 0, 255), np.uint8)


def write(path: Path, rgb: U8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    path.write_bytes(data.tobytes())


def make_cvusa(root: Path) -> None:
    """Lines as published: no header, annotations named but not there."""
    numbers = list(range(1, CVUSA_TRAIN + CVUSA_VAL + 1))
    np.random.default_rng(1).shuffle(numbers)
    parts = {"train": numbers[:CVUSA_TRAIN], "val": numbers[CVUSA_TRAIN:]}
    (root / "splits").mkdir(parents=True)
    for part, chosen in parts.items():
        lines = []
        for number in chosen:
            name = f"{number:07d}"
            lines.append(
                f"bingmap/19/{name}.jpg,streetview/panos/{name}.jpg,"
                f"streetview/annotations/{name}.png"
            )
            write(root / f"bingmap/19/{name}.jpg", texture(f"cvusa {name}"))
            write(root / f"streetview/panos/{name}.jpg", view(f"cvusa {name}", 0, 32, 128))
        (root / f"splits/{part}-19zl.csv").write_text("\n".join(lines) + "\n")
    (root / "split_locations").mkdir()
    rows = [
        f"{35 + n / 100},{-90 - n / 100},{35.0001 + n / 100},{-90 - n / 100},0" for n in numbers
    ]
    rows = [rows[numbers.index(n)] for n in sorted(numbers)]
    (root / "split_locations/all.csv").write_text("\n".join(rows) + "\n")


def cvact_ids(count: int = CVACT_TRAIN + CVACT_TEST) -> list[str]:
    """Panoramas have 22 characters, `-` and `_` among them, and differ by case."""
    letters = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    rng = np.random.default_rng(2)
    return ["".join(rng.choice(letters, 22)) for _ in range(count)]


def write_act_data(path: Path, ids: list[str], **rows: list[int]) -> None:
    """ACT_data.mat: characters, metres, and 1x1 structures of columns that count from 1.

    Args:
        path: file to write.
        ids: panoramas.
        rows: of train, val and test, counted from 0.
    """
    column = {part: np.array([[row + 1.0] for row in found]) for part, found in rows.items()}
    steps = np.arange(len(ids))
    savemat(
        path,
        {
            "panoIds": np.array(ids),
            "utm": np.stack([690000.0 + 30 * steps, 6090000.0 + 7 * steps], axis=1),
            "trainSet": {"trainInd": column["train"]},
            "valSet": {"valInd": column["val"]},
            "valSetAll": {"valInd": column["test"]},
        },
    )


def make_cvact(root: Path) -> None:
    ids = cvact_ids()
    rows = [int(row) for row in np.random.default_rng(3).permutation(len(ids))]
    train, test = rows[:CVACT_TRAIN], rows[CVACT_TRAIN:]
    val = test[:CVACT_VAL]  # The test set holds the validation pairs.
    root.mkdir(parents=True, exist_ok=True)
    write_act_data(root / "ACT_data.mat", ids, train=train, val=val, test=test)
    for folder, chosen in (("ANU_data_small", train + val), ("ANU_data_test", test)):
        for name in (ids[row] for row in chosen):
            base = root / folder
            write(base / f"satview_polish/{name}_satView_polish.jpg", texture(f"cvact {name}"))
            write(base / f"streetview/{name}_grdView.jpg", view(f"cvact {name}", 0, 32, 128))


def make_university1652(root: Path) -> None:
    train = [f"{2 * k + 839:04d}" for k in range(UNIVERSITY_TRAIN)]
    test = [f"{3 * k:04d}" for k in range(UNIVERSITY_TEST)]
    others = [f"{3 * k + 1:04d}" for k in range(UNIVERSITY_DISTRACTORS)]
    folders = {
        "train/drone": train,
        "train/satellite": train,
        "test/query_drone": test,
        "test/query_satellite": test,
        "test/gallery_drone": test + others,
        "test/gallery_satellite": test + others,
    }
    for folder, places in folders.items():
        for place in places:
            if folder.endswith("satellite"):
                write(root / folder / place / f"{place}.jpg", texture(f"university {place}"))
                continue
            for k in range(1, UNIVERSITY_VIEWS + 1):
                path = root / folder / place / f"image-{k:02d}.jpeg"
                write(path, view(f"university {place}", k))


VIGOR_CITIES = {
    "Chicago": (41.85, -87.69),
    "NewYork": (40.70, -74.01),
    "SanFrancisco": (37.74, -122.45),
    "Seattle": (47.60, -122.33),
}


def make_vigor(root: Path, *, corrected: bool = False) -> None:
    """A square grid of tiles a city, half a tile apart, and panoramas inside it.

    Args:
        root: folder to fill.
        corrected: with the layout and CRLF of the corrected labels.
    """
    splits, ending, line_end = (
        ("splits__corrected", "__corrected.txt", "\r\n") if corrected else ("splits", ".txt", "\n")
    )
    side = VIGOR_SIDE
    for city, (lat, lon) in VIGOR_CITIES.items():
        tiles = [
            f"satellite_{lat + 0.000328072 * (k // side)!r}_{lon + 0.00044059 * (k % side)!r}.png"
            for k in range(side * side)
        ]
        for tile in tiles:
            write(root / city / "satellite" / tile, texture(f"vigor {tile}"))
        lines = []
        for k in range(VIGOR_TRAIN + VIGOR_TEST):
            # Several panoramas may lie in the middle of one tile.
            row, column = divmod(k % (side - 1) ** 2, side - 1)
            near = [row * side + column + step for step in (0, 1, side, side + 1)]
            north, east = row * 0.000328072 + 0.00005, column * 0.00044059 + 0.0001
            name = f"{city[:2]}-pano_{k:012d}AbC,{lat + north:.6f},{lon + east:.6f},.jpg"
            write(root / city / "panorama" / name, view(f"vigor {tiles[near[0]]}", k, 32, 64))
            labels = [f"{tiles[t]} {23.0 - t} {-29.0 + t}" for t in near]
            lines.append(" ".join([name, *labels]))
        folder = root / splits / city
        folder.mkdir(parents=True)
        # As published, the last line has no end.
        (folder / "satellite_list.txt").write_text("\n".join(tiles))
        for name, chosen in (
            ("same_area_balanced_train", lines[:VIGOR_TRAIN]),
            ("same_area_balanced_test", lines[VIGOR_TRAIN:]),
            ("pano_label_balanced", lines),
        ):
            text = line_end.join(chosen) + line_end
            (folder / f"{name}{ending}").write_bytes(text.encode())


def make_sues200(root: Path) -> None:
    """As the owners pack it."""
    for place in SUES_TRAIN + SUES_TEST:
        write(root / "satellite-view" / place / "0.png", texture(f"sues {place}"))
        for height in (150, 200, 250, 300):
            for k in range(SUES_VIEWS):
                path = root / "drone_view_512" / place / str(height) / f"{k}.jpg"
                write(path, view(f"sues {place}", height + k))


def make_sues200_split(root: Path) -> None:
    """As the owners' script splits it."""
    for height in (150, 200, 250, 300):
        for folder, places in (
            (f"Training/{height}/", SUES_TRAIN),
            (f"Testing/{height}/query_", SUES_TEST),
            (f"Testing/{height}/gallery_", SUES_TRAIN + SUES_TEST),
        ):
            for place in places:
                write(root / f"{folder}satellite" / place / "0.png", texture(f"sues {place}"))
                for k in range(SUES_VIEWS):
                    path = root / f"{folder}drone" / place / f"{k}.jpg"
                    write(path, view(f"sues {place}", height + k))


def write_exif_photo(path: Path, rgb: U8, lat_deg: float, lon_deg: float) -> None:
    """A JPEG file with GPS tags."""

    def parts(value: float) -> tuple[IFDRational, ...]:
        degrees, rest = divmod(abs(value), 1)
        minutes, rest = divmod(rest * 60, 1)
        return (
            IFDRational(int(degrees)),
            IFDRational(int(minutes)),
            IFDRational(round(rest * 60 * 10**6), 10**6),
        )

    exif = Image.Exif()
    exif[0x8825] = {
        1: "S" if lat_deg < 0 else "N",
        2: parts(lat_deg),
        3: "W" if lon_deg < 0 else "E",
        4: parts(lon_deg),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, exif=exif, quality=92)


def folder_positions() -> list[tuple[float, float]]:
    """Where photographs are, metres south and east of the imagery's corner."""
    rng = np.random.default_rng(5)
    places = rng.uniform(100.0, FOLDER_M - 100.0, (FOLDER_PHOTOS, 2))
    return [(float(south), float(east)) for south, east in places]


def make_folder(root: Path) -> None:
    """Photographs with EXIF positions over a GeoTIFF in degrees."""
    lat, lon = FOLDER_AT
    rng = np.random.default_rng(4)
    coarse = rng.integers(0, 256, (40, 40, 3), np.uint8)
    ground = cv2.resize(coarse, (FOLDER_M, FOLDER_M), interpolation=cv2.INTER_CUBIC)
    corner = move_lat_lon(lat, lon, FOLDER_M, -FOLDER_M)
    step_lat, step_lon = (lat - corner.lat_deg) / FOLDER_M, (corner.lon_deg - lon) / FOLDER_M
    root.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        root / "imagery.tif",
        "w",
        driver="GTiff",
        width=FOLDER_M,
        height=FOLDER_M,
        count=3,
        dtype="uint8",
        crs="EPSG:4326",
        transform=Affine(float(step_lon), 0.0, lon, 0.0, -float(step_lat), lat),
    ) as raster:
        raster.write(np.moveaxis(ground, -1, 0))
    for k, (south, east) in enumerate(folder_positions()):
        top, left = round(south) - 50, round(east) - 50
        seen = cv2.resize(ground[top : top + 100, left : left + 100], (64, 64))
        at = move_lat_lon(lat, lon, east, -south)
        name = f"DJI_{k:04d}.JPG"
        write_exif_photo(root / "photos" / name, np.asarray(seen, np.uint8), *map(float, at))


_MAKERS: dict[str, Callable[[Path], None]] = {
    "cvusa": make_cvusa,
    "cvact": make_cvact,
    "cvact-test": make_cvact,
    "university1652": make_university1652,
    "vigor-same": make_vigor,
    "vigor-cross": make_vigor,
    "sues200": make_sues200,
    "folder": make_folder,
}


def make_tiny(name: str, root: Path) -> Path:
    """Write a tiny data set; its folder, to be given to its reader.

    Args:
        name: of `train.datasets.catalogue.DATASETS`.
        root: folder to fill; made if need be.
    """
    _MAKERS["sues200" if name.startswith("sues200") else name](root)
    return root
