import csv
import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runtime.artefact import read_manifest, writing_artefact
from edge_runtime.fix import Fix
from edge_runtime.geodesy import from_mercator_unit, move_lat_lon
from edge_runtime.index_format import TILE_DTYPE

ZOOM, TILE_X, TILE_Y, TILES = 16, 35000, 22000, 3
CENTRE = from_mercator_unit((TILE_X + TILES / 2) / (1 << ZOOM), (TILE_Y + TILES / 2) / (1 << ZOOM))
LAT, LON = float(CENTRE.lat_deg), float(CENTRE.lon_deg)

MakeFix = Callable[..., Fix]


@pytest.fixture
def outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit can be made while a test counts on two measurements having the same."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "no checkout"))


@pytest.fixture
def make_fix() -> MakeFix:
    """A fix `east_m` metres east of frame number `seq`'s true place."""

    def make(seq: int, *, status: str = "OK", east_m: float = 0.0, **values: Any) -> Fix:
        place = move_lat_lon(*true_place(seq), east_m, 0.0)
        has_place = status in ("OK", "DEGRADED")
        fix = Fix(
            seq=seq,
            frame=f"{seq:06d}.jpg",
            t_exposure_s=10.0 + 0.5 * seq,
            t_fix_s=0.5 * seq,
            status=status,  # type: ignore[arg-type]
            mode="TRACK",
            reason="" if status == "OK" else "several places fit",
            lat_deg=float(place.lat_deg) if has_place else None,
            lon_deg=float(place.lon_deg) if has_place else None,
            eph_m=2.0 if has_place else None,
            yaw_deg=30.0,
            ncc=0.4,
            inliers=12,
            latency_ms={"encode": 5.0, "refine": 20.0 + seq, "total": 26.0 + seq},
            bundle_id="b" * 12,
            engine_id="CPUExecutionProvider/fp32",
            backend="ort-cpu",
        )
        return replace(fix, **values)

    return make


def true_place(seq: int) -> tuple[float, float]:
    """Frames lie 4 m apart on a line to the north-east."""
    place = move_lat_lon(LAT, LON, 4.0 * seq, 3.0 * seq)
    return float(place.lat_deg), float(place.lon_deg)


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[..., Path]:
    def write(fixes: list[Fix], name: str = "flight_1.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{fix.to_json()}\n" for fix in fixes))
        return path

    return write


@pytest.fixture
def write_truth(tmp_path: Path) -> Callable[..., Path]:
    def write(frames: int, name: str = "truth.csv") -> Path:
        path = tmp_path / name
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["filename", "lat_deg", "lon_deg", "t_s"])
            for seq in range(frames):
                writer.writerow([f"{seq:06d}.jpg", *true_place(seq), 10.0 + 0.5 * seq])
        return path

    return write


@pytest.fixture
def frames_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for seq in range(12):
        small = rng.integers(0, 255, (12, 16, 3), np.uint8)
        cv2.imwrite(str(folder / f"{seq:06d}.jpg"), cv2.resize(small, (160, 120)))
    return folder


@pytest.fixture(scope="session")
def index_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of four tiles over 3 x 3 map tiles of noise."""
    from usearch.index import Index

    root = tmp_path_factory.mktemp("index") / "index"
    meta = {
        "levels": [{"size_m": 60.0, "stride_m": 30.0, "headings_deg": [0.0], "rows": 4}],
        "weights_sha256": "0" * 64,
        "preprocessing_sha256": "0" * 64,
    }
    rng = np.random.default_rng(2)
    embeddings = rng.normal(size=(4, 8)).astype(np.float16)
    tiles = np.array([true_place(k) for k in range(4)], np.float64)
    table = np.zeros(4, TILE_DTYPE)
    table["lat_deg"], table["lon_deg"] = tiles.T
    with writing_artefact(root, "index", meta) as folder:
        _write_mbtiles(folder / "imagery.mbtiles", rng)
        np.save(folder / "tiles.npy", table)
        np.save(folder / "embeddings.npy", embeddings)
        np.save(folder / "centre.npy", np.zeros(8, np.float32))
        graph = Index(ndim=8, metric="cos", dtype="f16")
        graph.add(np.arange(4), embeddings)
        graph.save(str(folder / "vectors.usearch"))
    assert read_manifest(root, "index").meta["levels"] == meta["levels"]
    return root


def _write_mbtiles(path: Path, rng: np.random.Generator) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE metadata (name TEXT, value TEXT)")
    database.execute(
        "CREATE TABLE tiles (zoom_level INT, tile_column INT, tile_row INT, tile_data BLOB)"
    )
    n = 1 << ZOOM
    north_west = from_mercator_unit(TILE_X / n, TILE_Y / n)
    south_east = from_mercator_unit((TILE_X + TILES) / n, (TILE_Y + TILES) / n)
    bounds = (north_west.lon_deg, south_east.lat_deg, south_east.lon_deg, north_west.lat_deg)
    database.execute(
        "INSERT INTO metadata VALUES ('bounds', ?)", (",".join(str(float(v)) for v in bounds),)
    )
    for x in range(TILES):
        for y in range(TILES):
            picture = cv2.resize(rng.integers(0, 255, (16, 16, 3), np.uint8), (256, 256))
            data = cv2.imencode(".jpg", picture)[1].tobytes()
            database.execute(
                "INSERT INTO tiles VALUES (?, ?, ?, ?)",
                (ZOOM, TILE_X + x, n - 1 - TILE_Y - y, data),
            )
    database.commit()
    database.close()


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    path = tmp_path / "eval.json"
    path.write_text(json.dumps({"r_at_1": 0.876, "gallery": 4321}))
    return path
