"""Small exported encoders and georeferenced rasters, shared by the export tests."""

import fcntl
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import pytest
import rasterio
import torch
from rasterio.transform import Affine
from rasterio.warp import transform

from edge_runtime.bundle import Bundle
from export.bundle_export import export_bundle
from train.encoder import Encoder, load_checkpoint, new_encoder, save_checkpoint

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
Paint = Callable[[F64, F64], U8]
"""Source pixel coordinates (column, row) of the pixels' centres, each (H, W), to (H, W, bands)."""

torch.set_num_threads(1)  # Small networks gain nothing from more, and the tests run side by side.


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A checkpoint of random weights and the bundle made of it."""

    encoder: Encoder
    checkpoint: Path
    bundle: Path
    shipped: dict[str, Any]
    """What the gates measured, by precision."""
    refused: dict[str, str]
    said: list[str]


def _make(root: Path, architecture: str) -> None:
    torch.manual_seed(11)
    encoder = new_encoder(architecture, size_px=64, ground_size_m=40.0)
    save_checkpoint(root / "ckpt", encoder, {})
    said: list[str] = []
    result = export_bundle(root / "ckpt", root / "bundle", say=said.append)
    shipped = {precision: report.to_json() for precision, report in result.shipped.items()}
    told = {"shipped": shipped, "refused": result.refused, "said": said}
    (root / "told.json").write_text(json.dumps(told))


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """A bundle by architecture, at 64 px. Read only: each is made once, for all workers."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    opened: dict[str, Exported] = {}

    def export(architecture: str) -> Exported:
        root = base / f"exported_{architecture}"
        if architecture not in opened:
            root.mkdir(exist_ok=True)
            with (root / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # Exports take seconds: no worker repeats one.
                if not (root / "told.json").exists():
                    _make(root, architecture)
            told = json.loads((root / "told.json").read_text())
            opened[architecture] = Exported(
                encoder=load_checkpoint(root / "ckpt").encoder,
                checkpoint=root / "ckpt",
                bundle=root / "bundle",
                **told,
            )
        return opened[architecture]

    return export


@pytest.fixture
def quick_export(exported: Callable[[str], Exported], monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the FP32 graph of `test_resnet` that was exported before; all else is real."""
    path = exported("test_resnet").bundle / "encoder.fp32.onnx"
    monkeypatch.setattr("export.bundle_export.encoder_to_onnx", lambda _encoder: onnx.load(path))


@pytest.fixture
def bundle(exported: Callable[[str], Exported]) -> Bundle:
    return Bundle.open(exported("test_resnet").bundle)


@dataclass(frozen=True, kw_only=True)
class Raster:
    """A raster that was written and how its pixels lie."""

    path: Path
    crs: str
    transform: Affine
    side: int

    def column_row(self, lat_deg: float, lon_deg: float) -> tuple[float, float]:
        """Where a position lies; the first pixel's centre is (0.5, 0.5)."""
        x, y = transform("EPSG:4326", self.crs, [lon_deg], [lat_deg])[:2]
        turn = {"EPSG:4326": 360.0, "EPSG:3857": 40_075_016.685578488}.get(self.crs)
        if turn:  # Count on across the antimeridian, as the raster does.
            x[0] = self.transform.c + (x[0] - self.transform.c) % turn
        column, row = ~self.transform @ (x[0], y[0])
        return float(column), float(row)


@pytest.fixture(scope="session")
def make_raster() -> Callable[..., Raster]:
    """Writes a square GeoTIFF centred on a position."""

    def make(
        path: Path,
        paint: Paint,
        *,
        crs: str = "EPSG:32632",
        lat_deg: float = 47.5,
        lon_deg: float = 8.3,
        gsd_m: float = 0.5,
        side: int = 400,
        **profile: Any,
    ) -> Raster:
        x, y = transform("EPSG:4326", crs, [lon_deg], [lat_deg])[:2]
        step = gsd_m
        if crs == "EPSG:4326":
            step = gsd_m / 111_320
        elif crs == "EPSG:3857":
            step = gsd_m / math.cos(math.radians(lat_deg))
        place = Affine(step, 0, x[0] - side / 2 * step, 0, -step, y[0] + side / 2 * step)
        centres = np.arange(side) + 0.5
        image = paint(*np.meshgrid(centres, centres))
        options: dict[str, Any] = {
            "driver": "GTiff",
            "width": side,
            "height": side,
            "count": image.shape[2],
            "dtype": image.dtype,
            "crs": crs,
            "transform": place,
        }
        with rasterio.open(path, "w", **(options | profile)) as file:
            file.write(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return Raster(path=path, crs=crs, transform=place, side=side)

    return make


@pytest.fixture(scope="session")
def coloured_noise() -> Callable[..., Paint]:
    """A painter of detail at several sizes, by seed."""

    def painter(seed: int = 1, bands: int = 3) -> Paint:
        def paint(column: F64, _row: F64) -> U8:
            rng = np.random.default_rng(seed)
            total = np.zeros((*column.shape, bands))
            for sigma in (2.0, 8.0, 24.0):
                noise: F64 = np.asarray(rng.normal(size=total.shape))
                layer = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma))
                total += layer.reshape(total.shape) / layer.std()
            return np.asarray(np.clip(128 + 30 * total, 1, 255), np.uint8)

        return paint

    return painter
