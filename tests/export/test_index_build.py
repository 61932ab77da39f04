import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.backends.protocol import BackendInfo
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ImageryError, InputError
from edge_runtime.geodesy import enu_offset_m, move_lat_lon
from edge_runtime.imagery import Bounds
from edge_runtime.satellite_index import SatelliteIndex
from export.index_build import build_index
from export.index_plan import PlanOptions, TileSize, grid_positions

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
MakeRaster = Callable[..., Any]

PROJECTION = np.random.default_rng(5).normal(size=(16 * 16 * 3, 96))  # As long as the bundle says.


class Thumbnails:
    """A backend without a network: a 16x16 thumbnail through a fixed matrix."""

    def __init__(self) -> None:
        self.info = BackendInfo(
            name="fake", provider="numpy", precision="fp32", library="numpy", threads=None
        )
        self.batches: list[int] = []

    def embed(self, images: U8) -> F32:
        self.batches.append(len(images))
        assert images.dtype == np.uint8
        assert images.shape[1:] == (64, 64, 3)
        small = images.reshape(len(images), 16, 4, 16, 4, 3).mean(axis=(2, 4))
        rows = (small.reshape(len(images), -1) - 128) @ PROJECTION
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def close(self) -> None:
        """Nothing to free."""


@pytest.fixture
def imagery(make_raster: MakeRaster, coloured_noise: Callable[..., Any], tmp_path: Path) -> Path:
    """195 m of ground at half a metre, square to north."""
    path: Path = make_raster(tmp_path / "map.tif", coloured_noise(), crs="EPSG:3857", side=390).path
    return path


# --- the grid ----------------------------------------------------------------------------------


def box(lat_deg: float, lon_deg: float, width_m: float, height_m: float) -> Bounds:
    half = move_lat_lon(lat_deg, lon_deg, width_m / 2, height_m / 2)
    d_lat = float(half.lat_deg) - lat_deg
    d_lon = (float(half.lon_deg) - lon_deg + 180) % 360 - 180
    return Bounds(lat_deg - d_lat, lon_deg - d_lon, lat_deg + d_lat, lon_deg + d_lon)


BOXES = [
    pytest.param(box(47.5, 8.3, 900, 700), id="middle latitude"),
    pytest.param(box(68.0, 20.0, 900, 700), id="68 degrees north"),
    pytest.param(box(-33.9, 18.4, 700, 900), id="southern hemisphere"),
    pytest.param(box(10.0, 180.0, 900, 700), id="across the antimeridian"),
    pytest.param(box(47.5, 8.3, 120, 700), id="narrow"),
]


@pytest.mark.parametrize("bounds", BOXES)
@pytest.mark.parametrize(("size_m", "stride_m"), [(100.0, 25.0), (100.0, 100.0), (80.0, 33.0)])
def test_every_point_of_the_map_lies_in_a_tile(
    bounds: Bounds, size_m: float, stride_m: float
) -> None:
    grid = grid_positions(bounds, size_m, stride_m)
    rng = np.random.default_rng(1)
    lats = rng.uniform(bounds.south_deg, bounds.north_deg, 400)
    lons = rng.uniform(bounds.west_deg, bounds.east_deg, 400)
    away = enu_offset_m(grid["lat_deg"], grid["lon_deg"], lats[:, None], lons[:, None])
    reach = np.maximum(np.abs(away.east_m), np.abs(away.north_m)).min(axis=1)
    assert reach.max() <= size_m / 2 + 0.05


@pytest.mark.parametrize("bounds", BOXES)
def test_neighbours_are_at_most_a_stride_apart_and_tiles_stay_on_the_map(bounds: Bounds) -> None:
    size_m, stride_m = 100.0, 33.0
    grid = grid_positions(bounds, size_m, stride_m)
    rows = [grid[grid["lat_deg"] == lat] for lat in np.unique(grid["lat_deg"])]
    for row in rows:
        steps = enu_offset_m(
            row["lat_deg"][:-1], row["lon_deg"][:-1], row["lat_deg"][1:], row["lon_deg"][1:]
        ).east_m
        assert np.all(steps > 0)
        assert steps.max() <= stride_m + 1e-6
        edge = enu_offset_m(row["lat_deg"][0], bounds.west_deg, row["lat_deg"][0], row["lon_deg"])
        assert edge.east_m[0] == pytest.approx(size_m / 2, abs=1e-6)
    lats = np.unique(grid["lat_deg"])
    ups = enu_offset_m(lats[:-1], 0.0, lats[1:], 0.0).north_m
    assert ups.max() <= stride_m + 0.01
    low = enu_offset_m(bounds.south_deg, 0.0, lats[0], 0.0).north_m
    high = enu_offset_m(lats[-1], 0.0, bounds.north_deg, 0.0).north_m
    assert (float(low), float(high)) == pytest.approx((size_m / 2, size_m / 2), abs=0.01)


@pytest.mark.parametrize(
    ("extent_m", "size_m", "stride_m", "across"),
    [
        (1000.0, 100.0, 100.0, 10),
        (1000.0, 100.0, 25.0, 37),
        (1001.0, 100.0, 100.0, 11),
        (150.0, 100.0, 100.0, 2),
        (95.0, 100.0, 25.0, 1),
        (89.0, 100.0, 25.0, 0),
    ],
)
def test_the_number_of_tiles_of_a_known_size(
    extent_m: float, size_m: float, stride_m: float, across: int
) -> None:
    # A hundredth of a metre less: 1,000 m must not become 1,000.0001 by rounding.
    grid = grid_positions(box(47.5, 8.3, extent_m - 0.01, extent_m - 0.01), size_m, stride_m)
    rows = len(np.unique(grid["lat_deg"]))
    assert rows == across
    # Rows to the south are a little wider than the middle one, rows to the north narrower.
    assert across * across <= len(grid) <= across * (across + 1)


# --- a whole index -----------------------------------------------------------------------------


def build(
    imagery: Path,
    out: Path,
    bundle: Bundle,
    *,
    size_m: float = 40.0,
    stride_m: float = 20.0,
    progress: Callable[[str, float], None] = lambda _stage, _done: None,
) -> int | None:
    plan = PlanOptions(sizes=(TileSize(size_m, stride_m),))
    return build_index([imagery], out, bundle, Thumbnails(), plan, progress=progress)


def test_each_tiles_own_patch_finds_it_first(imagery: Path, bundle: Bundle, tmp_path: Path) -> None:
    count = build(imagery, tmp_path / "index", bundle)
    index = SatelliteIndex.open(tmp_path / "index", bundle)
    assert len(index) == count == 81
    patches = [
        index.imagery.patch(*tile.tolist()[:2], size_m=40.0, size_px=64).image
        for tile in index.tiles
    ]
    found = index.search(Thumbnails().embed(np.stack(patches)), 2)
    index.close()
    assert found.rows[:, 0].tolist() == list(range(count))
    assert found.similarities[:, 0] == pytest.approx(1.0, abs=2e-3)
    assert found.similarities[:, 1].max() < 0.99


def test_all_batches_are_whole_and_no_tile_is_embedded_twice(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    backend = Thumbnails()
    plan = PlanOptions(sizes=(TileSize(40.0, 20.0),))
    count = build_index([imagery], tmp_path / "index", bundle, backend, plan)
    assert count == 81
    assert backend.batches == [16] * 6


def test_the_manifest_binds_the_index_to_its_encoder(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    count = build(imagery, tmp_path / "index", bundle)
    index = SatelliteIndex.open(tmp_path / "index", bundle)
    meta = index.manifest.meta
    index.close()
    assert meta["weights_sha256"] == bundle.weights_sha256
    assert meta["preprocessing_sha256"] == bundle.spec.preprocessing_hash()
    (level,) = meta["levels"]
    assert (level["size_m"], level["stride_m"], level["rows"]) == (40.0, 20.0, meta["tiles"])
    assert meta["tiles"] == count
    (source,) = meta["sources"]
    assert (source["name"], source["crs"]) == ("map.tif", "EPSG:3857")
    assert source["gsd_m"] == pytest.approx(0.5, rel=0.01)
    assert meta["embedded_by"]["provider"] == "numpy"


def test_the_same_imagery_gives_the_same_bytes(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    digests = []
    for name in ("one", "two"):
        build(imagery, tmp_path / name, bundle)
        digests.append(
            {
                p.name: hashlib.sha256(p.read_bytes()).hexdigest()
                for p in sorted((tmp_path / name).iterdir())
                if p.name != "manifest.json"  # It says when it was made.
            }
        )
    assert digests[0] == digests[1]
    assert set(digests[0]) == {
        "centre.npy",
        "embeddings.npy",
        "imagery.mbtiles",
        "tiles.npy",
    }
    one, two = (SatelliteIndex.open(tmp_path / name) for name in ("one", "two"))
    assert one.id == two.id
    one.close()
    two.close()


def test_tiles_without_imagery_are_left_out(
    make_raster: MakeRaster, coloured_noise: Callable[..., Any], bundle: Bundle, tmp_path: Path
) -> None:
    def western_half(column: Any, row: Any) -> U8:
        image = coloured_noise()(column, row)
        return np.asarray(np.where(column[..., None] < 195, image, 0), np.uint8)

    source = make_raster(tmp_path / "half.tif", western_half, crs="EPSG:3857", side=390, nodata=0)
    build(source.path, tmp_path / "index", bundle)
    index = SatelliteIndex.open(tmp_path / "index")
    east = enu_offset_m(47.5, 8.3, index.tiles["lat_deg"], index.tiles["lon_deg"]).east_m
    index.close()
    # A tile keeps its place with 90 % of it covered: 4 m of 40 may be missing.
    assert east.max() <= -20 + 4 + 0.5
    assert len(east) == 9 * 4


def test_a_map_smaller_than_a_tile_is_refused_and_leaves_nothing(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ImageryError, match="give more imagery or a smaller --tile-m"):
        build(imagery, tmp_path / "out" / "index", bundle, size_m=400.0, stride_m=100.0)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_backend_that_fails_leaves_the_older_index_and_the_folder_to_go_on_from(
    imagery: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "index"
    build(imagery, out, bundle)
    before = SatelliteIndex.open(out)
    before.close()

    def stop(*_: Any) -> F32:
        raise KeyboardInterrupt

    monkeypatch.setattr(Thumbnails, "embed", stop)
    with pytest.raises(KeyboardInterrupt):
        build(imagery, out, bundle)
    after = SatelliteIndex.open(out)
    after.close()
    assert after.id == before.id
    assert sorted(p.name for p in out.parent.iterdir()) == [
        "index",
        "index.build",
        "index.embeddings",
    ]


@pytest.mark.parametrize(
    ("size_m", "stride_m"), [(40.0, 0.0), (40.0, -5.0), (40.0, 41.0), (float("nan"), 10.0)]
)
def test_sizes_that_make_no_sense_are_refused(
    size_m: float, stride_m: float, imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="expected 0 < stride <= size"):
        build(imagery, tmp_path / "index", bundle, size_m=size_m, stride_m=stride_m)


def test_progress_never_falls_and_every_stage_ends_at_one(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    seen: dict[str, list[float]] = {}
    build(
        imagery,
        tmp_path / "index",
        bundle,
        progress=lambda stage, done: seen.setdefault(stage, []).append(done),
    )
    assert list(seen)[:3] == ["imagery", "embedding", "assembling"]
    for shares in seen.values():
        assert shares == sorted(shares)
        assert shares[-1] == 1.0


def test_an_index_is_made_without_torch() -> None:
    code = (
        "import sys, export.index_build, export.index_estimate, export.cli, train.progress\n"
        "loaded = {'torch', 'timm', 'onnx'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
