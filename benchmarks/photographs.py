"""Two sets of real drone photographs, brought into the form that the commands read.

`fengyuan`: nadir photographs from 120 m, a blurred and recoloured satellite map, heading and height
from the flight log, image centres registered on the map. `ariel`: oblique video frames, XYZ tiles,
positions; the heading is taken from the track, as a compass would give it, and the pitch is the
author's assumption. Neither carries a licence, so they are not part of this project.
"""

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import Affine

from edge_runtime.artefact import write_atomically
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.geodesy import enu_offset_m

U8 = npt.NDArray[np.uint8]

_MERCATOR_M = 2 * math.pi * 6378137.0
_MOVING_MPS = 3.0
"""Below this speed a track gives no heading."""


def prepare(name: str, data: Path, out: Path) -> Path:
    """Write `map.tif`, `telemetry.csv`, `truth.csv` and `camera.json` for a photograph set.

    Args:
        name: `fengyuan` or `ariel`.
        data: the set's folder.
        out: folder to write into.

    Returns:
        The folder of photographs.

    Raises:
        InputError: an unknown set, or its folder lacks a file.
    """
    makers: dict[str, Callable[[Path, Path], Path]] = {"fengyuan": _fengyuan, "ariel": _ariel}
    if name not in makers:
        msg = f"there is no photograph set {name!r}; known: {', '.join(makers)}"
        raise InputError(msg)
    out.mkdir(parents=True, exist_ok=True)
    try:
        return makers[name](data, out)
    except (OSError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        msg = f"{data} is not the {name} photograph set ({error}); see docs/photographs.md"
        raise InputError(msg) from error


def _fengyuan(data: Path, out: Path) -> Path:
    box = json.loads((data / "map.json").read_text())
    width, height = box["width_px"], box["height_px"]
    west, north = box["top_left_lon"], box["top_left_lat"]
    east, south = box["bottom_right_lon"], box["bottom_right_lat"]
    transform = Affine((east - west) / width, 0, west, 0, (south - north) / height, north)
    _write_geotiff(out / "map.tif", _read_rgb(data / "map.jpg"), "EPSG:4326", transform)

    rows = _rows(data / "telemetry.csv")
    # The last photograph belongs to another take-off, whose tilt is not known.
    flown = [row for row in rows if row["filename"] != "DJI_047.jpg"]
    _write_csv(
        out / "telemetry.csv",
        ("filename", "t_s", "height_m", "yaw_deg"),
        [
            (
                row["filename"],
                _seconds(flown[0]["time_local"], row["time_local"]),
                row["alt_rel_m"],
                row["yaw_deg"],
            )
            for row in flown
        ],
    )
    gps = {row["filename"]: row for row in flown}
    centres = [
        row
        for row in _rows(data / "image_centres.csv")
        if row["reliable"] == "1" and row["filename"] in gps
    ]
    _write_csv(
        out / "truth.csv",
        ("filename", "lat_deg", "lon_deg", "look_lat_deg", "look_lon_deg"),
        [
            (
                row["filename"],
                gps[row["filename"]]["lat_deg"],
                gps[row["filename"]]["lon_deg"],
                row["centre_lat_deg"],
                row["centre_lon_deg"],
            )
            for row in centres
        ],
    )
    # Field of view and lean were measured from overlapping photographs, without the map.
    camera = Camera.from_hfov(1600, 900, 69.0, mount_pitch_deg=-81.5, stabilised=True)
    write_atomically(out / "camera.json", camera.to_json().encode())
    return data / "photos"


def _ariel(data: Path, out: Path) -> Path:
    tiles = sorted((data / "tiles").glob("*_*_*.jpg"))
    if not tiles:
        msg = f"{data / 'tiles'} holds no tiles named zoom_x_y.jpg"
        raise InputError(msg)
    places = [tuple(int(part) for part in tile.stem.split("_")) for tile in tiles]
    zoom = places[0][0]
    left, top = min(p[1] for p in places), min(p[2] for p in places)
    columns, rows = max(p[1] for p in places) - left + 1, max(p[2] for p in places) - top + 1
    mosaic = np.zeros((rows * 256, columns * 256, 3), np.uint8)
    for tile, (_, x, y) in zip(tiles, places, strict=True):
        row, column = (y - top) * 256, (x - left) * 256
        mosaic[row : row + 256, column : column + 256] = _read_rgb(tile)
    step = _MERCATOR_M / (256 << zoom)
    transform = Affine(
        step, 0, left * 256 * step - _MERCATOR_M / 2, 0, -step, _MERCATOR_M / 2 - top * 256 * step
    )
    _write_geotiff(out / "map.tif", mosaic, "EPSG:3857", transform)

    flight = data / "flight_0017"
    frames = _rows(flight / "reference_frames.csv")
    names = [Path(row["image_path"]).name for row in frames]
    headings = track_headings_deg(
        [float(row["timestamp_seconds"]) for row in frames],
        [float(row["drone_lat"]) for row in frames],
        [float(row["drone_lon"]) for row in frames],
    )
    _write_csv(
        out / "telemetry.csv",
        ("filename", "t_s", "height_m", "yaw_deg"),
        [
            (name, row["timestamp_seconds"], row["rel_alt_m"], "" if yaw is None else f"{yaw:.2f}")
            for name, row, yaw in zip(names, frames, headings, strict=True)
        ],
    )
    _write_csv(
        out / "truth.csv",
        ("filename", "lat_deg", "lon_deg", "height_m"),
        [
            (name, row["drone_lat"], row["drone_lon"], row["rel_alt_m"])
            for name, row in zip(names, frames, strict=True)
        ],
    )
    camera = Camera.from_hfov(960, 540, 71.0, mount_pitch_deg=-45.0, stabilised=True)
    write_atomically(out / "camera.json", camera.to_json().encode())
    return flight / "frames"


def track_headings_deg(
    t_s: Sequence[float], lat_deg: Sequence[float], lon_deg: Sequence[float]
) -> list[float | None]:
    """Heading along a track, clockwise from north, from two samples before to two after.

    A hovering drone keeps its last heading; before it ever moved there is none.
    """
    headings: list[float | None] = []
    last: float | None = None
    for k in range(len(t_s)):
        a, b = max(0, k - 2), min(len(t_s) - 1, k + 2)
        moved = enu_offset_m(lat_deg[a], lon_deg[a], lat_deg[b], lon_deg[b])
        east, north = float(moved.east_m), float(moved.north_m)
        if math.hypot(east, north) > _MOVING_MPS * (t_s[b] - t_s[a]):
            last = math.degrees(math.atan2(east, north)) % 360.0
        headings.append(last)
    return headings


def _seconds(start: str, moment: str) -> str:
    from datetime import datetime

    elapsed = datetime.fromisoformat(moment) - datetime.fromisoformat(start)
    return f"{elapsed.total_seconds():.1f}"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    lines = [",".join(header), *(",".join(str(value) for value in row) for row in rows)]
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _read_rgb(path: Path) -> U8:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        msg = f"{path} cannot be read as an image"
        raise InputError(msg)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _write_geotiff(path: Path, rgb: U8, crs: str, transform: Affine) -> None:
    height, width = rgb.shape[:2]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=3,
        dtype="uint8",
        crs=crs,
        transform=transform,
        compress="deflate",
        tiled=True,
    ) as raster:
        raster.write(np.moveaxis(rgb, -1, 0))
