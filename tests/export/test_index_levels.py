"""Several sizes of tiles, turned copies, marks: what they are, and that a flight uses them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.backends.protocol import BackendInfo
from edge_runtime.bundle import Bundle
from edge_runtime.camera import Camera
from edge_runtime.errors import ImageryError, InputError
from edge_runtime.geodesy import distance_m, enu_offset_m, move_lat_lon
from edge_runtime.imagery import Bounds, ImageryStore
from edge_runtime.index_format import MARK_FEATURELESS, MARK_PARTIAL
from edge_runtime.localizer import Localizer
from edge_runtime.satellite_index import SatelliteIndex
from edge_runtime.state import VehicleState
from export.index_assembly import SearchOptions
from export.index_build import build_index
from export.index_estimate import SAMPLED_PLACES, Estimate, estimate_index
from export.index_folder import build_folder_of
from export.index_pictures import detail_share, turned
from export.index_plan import (
    PlanOptions,
    TileSize,
    fixed_positions,
    plan_options_from_json,
    plan_places,
    sizes_for_heights,
)
from export.index_preparation import BuildOptions

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
MakeRaster = Callable[..., Any]

PROJECTION = np.random.default_rng(5).normal(size=(16 * 16 * 3, 96))
HERE = (47.5, 8.3)


class Thumbnails:
    """A backend without a network, which counts what it embeds."""

    def __init__(self) -> None:
        self.info = BackendInfo(
            name="fake", provider="numpy", precision="fp32", library="numpy", threads=None
        )
        self.images = 0

    def embed(self, images: U8) -> F32:
        self.images += len(images)
        small = images.reshape(len(images), 16, 4, 16, 4, 3).mean(axis=(2, 4))
        rows = (small.reshape(len(images), -1) - 128) @ PROJECTION
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def close(self) -> None:
        """Nothing to free."""


@pytest.fixture
def imagery(make_raster: MakeRaster, coloured_noise: Callable[..., Any], tmp_path: Path) -> Path:
    path: Path = make_raster(tmp_path / "map.tif", coloured_noise(), crs="EPSG:3857", side=390).path
    return path


def build(imagery: Path, out: Path, bundle: Bundle, **plan: Any) -> SatelliteIndex:
    options = PlanOptions(**({"sizes": (TileSize(40.0, 20.0),)} | plan))
    assert build_index([imagery], out, bundle, Thumbnails(), options)
    return SatelliteIndex.open(out, bundle)


# --- turning -----------------------------------------------------------------------------------


def test_the_direction_asked_for_is_up_afterwards() -> None:
    """Red lies north of the middle, green east, blue south, white west."""
    wide = np.zeros((101, 101, 3), np.uint8)
    sides = {0: (255, 0, 0), 90: (0, 255, 0), 180: (0, 0, 255), 270: (255, 255, 255)}
    for side, colour in sides.items():
        angle = math.radians(side)
        at = (round(50 + 25 * math.sin(angle)), round(50 - 25 * math.cos(angle)))
        cv2.circle(wide, at, 6, colour, -1)
    for heading in range(0, 360, 90):
        image = turned(wide, heading, 71)
        for side, colour in sides.items():
            angle = math.radians(side - heading)
            x, y = round(35 + 25 * math.sin(angle)), round(35 - 25 * math.cos(angle))
            assert tuple(image[y, x].tolist()) == colour


@pytest.mark.parametrize(("quarter", "heading"), [(1, 90.0), (2, 180.0), (3, 270.0)])
def test_quarter_turns_move_pixels_and_change_none(quarter: int, heading: float) -> None:
    wide = np.random.default_rng(2).integers(0, 256, (92, 92, 3), np.uint8)
    expected = np.rot90(wide[14:-14, 14:-14], quarter)
    assert np.array_equal(turned(wide, heading, 64), expected)


def test_turning_there_and_back_gives_the_picture(coloured_noise: Callable[..., Any]) -> None:
    wide = coloured_noise(3)(*np.meshgrid(np.arange(150.0), np.arange(150.0)))
    back = turned(turned(wide, 37.0, 100), -37.0, 60)
    middle = wide[45:105, 45:105].astype(float)
    # Interpolating twice blurs a little; turned the wrong way nothing would fit.
    assert np.abs(back - middle).mean() < 0.2 * np.abs(middle - middle.mean()).mean()


# --- levels and rows ---------------------------------------------------------------------------


def test_levels_and_directions_are_rows_in_the_order_of_the_format(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    sizes = (TileSize(40.0, 20.0), TileSize(65.0, 30.0))
    index = build(imagery, tmp_path / "index", bundle, sizes=sizes, headings=4)
    tiles, levels = np.asarray(index.tiles), index.levels
    assert [(v.size_m, v.stride_m) for v in levels] == list(sizes)
    assert [v.headings_deg for v in levels] == [(0.0, 90.0, 180.0, 270.0)] * 2
    assert sum(v.rows for v in levels) == len(tiles) == 4 * (81 + 6 * 6)
    for level in levels:
        rows = tiles[level.first_row : level.first_row + level.rows].reshape(-1, 4)
        assert np.array_equal(rows["heading_deg"], np.tile([0, 90, 180, 270], (len(rows), 1)))
        # The copies of a tile follow each other and lie at one place.
        for name in ("lat_deg", "lon_deg"):
            assert np.array_equal(rows[name], np.repeat(rows[name][:, :1], 4, axis=1))
        steps = distance_m(
            rows["lat_deg"][:-1, 0],
            rows["lon_deg"][:-1, 0],
            rows["lat_deg"][1:, 0],
            rows["lon_deg"][1:, 0],
        )
        assert np.median(steps) <= level.stride_m  # Along a Hilbert curve the next is a neighbour.
    index.close()


def test_a_turned_copy_is_what_a_camera_with_that_heading_sees(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    index = build(imagery, tmp_path / "index", bundle, headings=8)
    for row in (3, 170, 333, 525):
        tile = index.tiles[row]
        wide = index.imagery.patch(
            tile["lat_deg"], tile["lon_deg"], size_m=40 * 92 / 64, size_px=92
        )
        view = turned(wide.image, float(tile["heading_deg"]), 64)
        found = index.search(Thumbnails().embed(view[None]), 1)
        assert found.rows[0, 0] == row
        assert found.similarities[0, 0] > 0.999
    index.close()


def test_a_plan_survives_json_and_foreign_ones_are_refused() -> None:
    plan = PlanOptions(
        sizes=(TileSize(40.0, 20.0), TileSize(65.0, 30.0)),
        headings=3,
        grid="fixed",
        leave_out=("featureless",),
    )
    assert plan_options_from_json(plan.to_json()) == plan
    with pytest.raises(InputError, match="not a plan of an index"):
        plan_options_from_json(plan.to_json() | {"colour": "blue"})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sizes": ()}, "at least one, ascending"),
        ({"sizes": (TileSize(60, 20), TileSize(40, 20))}, "ascending"),
        ({"sizes": (TileSize(40, 20), TileSize(40, 10))}, "none twice"),
        ({"sizes": (TileSize(math.inf, 20),)}, "expected 0 < stride <= size"),
        ({"sizes": (TileSize(40, 20),), "headings": 0}, "expected 1 to 360"),
    ],
)
def test_plans_that_make_no_sense_are_refused(options: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        PlanOptions(**options)


# --- sizes from a camera -----------------------------------------------------------------------


def test_each_planned_height_has_a_level_that_fills_most_of_its_view() -> None:
    camera = Camera.from_hfov(400, 300, 60.0)
    per_m = 2 * math.tan(math.radians(30)) * 300 / 400
    sizes = sizes_for_heights(camera, [300, 80, 150, 90, 120])
    assert sizes == pytest.approx([80 * per_m, 150 * per_m, 300 * per_m], rel=0.006)
    for height in (80, 90, 120, 150, 300):
        fitting = [size for size in sizes if size <= 1.01 * height * per_m]
        assert height * per_m / fitting[-1] <= 1.61


@pytest.mark.parametrize("heights", [[], [0.0], [80.0, -1.0], [math.nan], [math.inf]])
def test_heights_that_are_none_are_refused(heights: list[float]) -> None:
    with pytest.raises(InputError, match="expected positive numbers, as 80 150 300"):
        sizes_for_heights(Camera.from_hfov(400, 300, 60.0), heights)


# --- a fixed grid ------------------------------------------------------------------------------

SMALL = Bounds(-0.004, 8.300, 0.006, 8.312)


@pytest.mark.parametrize("lat_deg", [0.0, 47.5, 68.0, -33.9])
@pytest.mark.parametrize("west_deg", [8.3, -0.005, 179.995])
def test_a_fixed_grid_stays_where_it_is_when_the_box_grows(lat_deg: float, west_deg: float) -> None:
    box = Bounds(lat_deg - 0.004, west_deg, lat_deg + 0.006, west_deg + 0.012)
    larger = Bounds(box.south_deg - 0.003, west_deg - 0.002, box.north_deg, box.east_deg + 0.001)
    grid, more = (fixed_positions(b, 100.0, 25.0) for b in (box, larger))
    ours = {(t["lat_deg"], round(float(t["lon_deg"]), 9)) for t in grid}
    theirs = {(t["lat_deg"], round(float(t["lon_deg"]), 9)) for t in more}
    assert len(ours) == len(grid) > 100
    assert ours < theirs
    lats = np.unique(grid["lat_deg"])
    assert enu_offset_m(lats[:-1], 0.0, lats[1:], 0.0).north_m == pytest.approx(25.0, abs=1e-4)
    row = grid[grid["lat_deg"] == lats[0]]
    steps = enu_offset_m(lats[0], row["lon_deg"][:-1], lats[0], row["lon_deg"][1:]).east_m
    assert steps == pytest.approx(25.0, abs=1e-4)


def test_places_are_the_same_each_time_and_their_digest_tells_others_apart() -> None:
    options = PlanOptions(sizes=(TileSize(100.0, 50.0), TileSize(160.0, 80.0)))
    one, two = plan_places(SMALL, options), plan_places(SMALL, options)
    assert one.sha256 == two.sha256
    assert np.array_equal(one.lat_deg, two.lat_deg)
    other = plan_places(SMALL._replace(east_deg=8.3120001), options)
    assert other.sha256 != one.sha256
    assert len(one) == one.level_starts[-1]
    assert [one.level_of(p) for p in (0, one.level_starts[1] - 1, one.level_starts[1])] == [0, 0, 1]


# --- marks -------------------------------------------------------------------------------------


def half_water(column: Any, row: Any) -> U8:
    """Detail in the west; in the east a smooth surface with the noise of a sensor."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(*column.shape, 3))
    rough = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.0))
    land = 128 + 30 * rough / rough.std()
    water = 60 + column[..., None] / 20 + 2 * noise
    return np.asarray(np.clip(np.where(column[..., None] < 195, land, water), 1, 255), np.uint8)


@pytest.fixture
def coast(make_raster: MakeRaster, tmp_path: Path) -> Path:
    path: Path = make_raster(tmp_path / "coast.tif", half_water, crs="EPSG:3857", side=390).path
    return path


def test_featureless_tiles_are_marked_or_left_out(
    coast: Path, bundle: Bundle, tmp_path: Path
) -> None:
    marked = build(coast, tmp_path / "marked", bundle)
    tiles = np.asarray(marked.tiles)
    east_m = enu_offset_m(*HERE, tiles["lat_deg"], tiles["lon_deg"]).east_m
    featureless = (tiles["marks"] & MARK_FEATURELESS) > 0
    # Wholly on water, or on land for a good part of the tile.
    assert featureless[east_m > 21].all()
    assert not featureless[east_m < 15].any()
    sparse = build(coast, tmp_path / "sparse", bundle, leave_out=("featureless",))
    assert np.array_equal(np.asarray(sparse.tiles), tiles[~featureless])
    assert sparse.manifest.meta["left_out"] == ["featureless"]
    for index in (marked, sparse):
        index.close()


def test_real_ground_is_not_featureless(coloured_noise: Callable[..., Any]) -> None:
    grid = np.meshgrid(np.arange(100.0), np.arange(100.0))
    assert detail_share(coloured_noise(4)(*grid)) > 0.5
    for level in (0, 90, 255):
        assert detail_share(np.full((100, 100, 3), level, np.uint8)) == 0


def test_partly_covered_tiles_are_marked_or_left_out(
    make_raster: MakeRaster, coloured_noise: Callable[..., Any], bundle: Bundle, tmp_path: Path
) -> None:
    def with_hole(column: Any, row: Any) -> U8:
        image = coloured_noise()(column, row)
        hole = (abs(column - 195) < 8) & (abs(row - 195) < 8)  # 8 m of 40: 4 % of a tile.
        return np.asarray(np.where(hole[..., None], 0, image), np.uint8)

    source = make_raster(tmp_path / "hole.tif", with_hole, crs="EPSG:3857", side=390, nodata=0).path
    marked = build(source, tmp_path / "marked", bundle)
    tiles = np.asarray(marked.tiles)
    partial = (tiles["marks"] & MARK_PARTIAL) > 0
    offset = enu_offset_m(*HERE, tiles["lat_deg"], tiles["lon_deg"])
    reach_m = np.maximum(abs(offset.east_m), abs(offset.north_m))
    inner = reach_m < 70  # Beside the edge of the imagery half a pixel may be missing too.
    assert partial[reach_m < 22].all()
    assert not partial[inner & (reach_m > 26)].any()
    whole = build(source, tmp_path / "whole", bundle, leave_out=("partial",))
    assert np.array_equal(np.asarray(whole.tiles), tiles[~partial])
    for index in (marked, whole):
        index.close()


def test_nothing_but_water_leaves_no_tile_and_says_so(
    make_raster: MakeRaster, bundle: Bundle, tmp_path: Path
) -> None:
    def water(column: Any, row: Any) -> U8:
        return half_water(column + 200, row)

    source = make_raster(tmp_path / "sea.tif", water, crs="EPSG:3857", side=200).path
    with pytest.raises(ImageryError, match="no 40 m tile that is not featureless fits"):
        build(source, tmp_path / "index", bundle, leave_out=("featureless",))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sea.tif"]


# --- a dry run ---------------------------------------------------------------------------------


def estimated(imagery: Path, out: Path, bundle: Bundle, **plan: Any) -> Estimate:
    options = PlanOptions(**({"sizes": (TileSize(40.0, 20.0),)} | plan))
    return estimate_index([imagery], out, bundle, Thumbnails(), options, BuildOptions())


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"headings": 3},
        {"leave_out": ("featureless",)},
        {"sizes": (TileSize(40.0, 20.0), TileSize(70.0, 20.0)), "grid": "fixed"},
    ],
)
def test_a_dry_run_says_what_is_built(
    plan: dict[str, Any], coast: Path, bundle: Bundle, tmp_path: Path
) -> None:
    cost = estimated(coast, tmp_path / "index", bundle, **plan)
    assert not (tmp_path / "index").exists()
    assert cost.counted
    index = build(coast, tmp_path / "index", bundle, **plan)
    assert cost.tiles == len(index)
    size_mb = sum(p.stat().st_size for p in index.root.iterdir()) / 1e6
    assert cost.index_mb == pytest.approx(size_mb, rel=0.02, abs=0.004)
    assert cost.area_km2 == pytest.approx(index.area_m2() / 1e6)
    assert cost.hours > 0
    index.close()


def test_a_dry_run_of_a_large_map_looks_at_a_sample(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    cost = estimated(imagery, tmp_path / "index", bundle, sizes=(TileSize(20.0, 3.0),))
    assert cost.places > SAMPLED_PLACES
    assert not cost.counted
    assert cost.tiles == pytest.approx(cost.places, rel=0.02)
    assert cost.as_text().startswith("about ")
    assert build_folder_of(tmp_path / "index").exists()


def test_a_dry_run_does_not_hold_the_build_to_its_sizes(
    imagery: Path, bundle: Bundle, tmp_path: Path
) -> None:
    estimated(imagery, tmp_path / "index", bundle, sizes=(TileSize(80.0, 40.0),))
    staged = (build_folder_of(tmp_path / "index") / "imagery.mbtiles").stat()
    index = build(imagery, tmp_path / "index", bundle)
    index.close()
    assert (tmp_path / "index" / "imagery.mbtiles").stat().st_ino == staged.st_ino


def test_vectors_are_stored_as_asked(imagery: Path, bundle: Bundle, tmp_path: Path) -> None:
    build_index(
        [imagery],
        tmp_path / "index",
        bundle,
        Thumbnails(),
        PlanOptions(sizes=(TileSize(40.0, 20.0),)),
        BuildOptions(search=SearchOptions(dtype="i8", min_recall=0.5)),
    )
    index = SatelliteIndex.open(tmp_path / "index", bundle)
    assert index.embeddings.dtype == np.int8
    assert index.manifest.meta["search"]["dtype"] == "i8"
    index.close()


# --- in flight ---------------------------------------------------------------------------------


def photo(store: ImageryStore, east_m: float, north_m: float, yaw_deg: float, side_m: float) -> U8:
    """What a camera right above a place sees, with a heading, a square of so many metres."""
    at = move_lat_lon(*HERE, east_m, north_m)
    wide = store.patch(float(at.lat_deg), float(at.lon_deg), size_m=side_m * 1.5, size_px=450)
    return turned(wide.image, yaw_deg, 300)


@pytest.fixture(scope="module")
def two_levels(
    make_raster: MakeRaster,
    coloured_noise: Callable[..., Any],
    exported: Callable[[str], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """An index of two sizes of tiles in twelve directions. Read only: it is shared."""
    root = tmp_path_factory.mktemp("two_levels")
    source = make_raster(root / "map.tif", coloured_noise(), crs="EPSG:3857", side=390).path
    sizes = (TileSize(40.0, 10.0), TileSize(65.0, 15.0))
    bundle = Bundle.open(exported("test_resnet").bundle)
    build(source, root / "index", bundle, sizes=sizes, headings=12).close()
    return root / "index"


@pytest.mark.parametrize("heading_known", [False, True])
@pytest.mark.parametrize(("height_m", "level"), [(80.0, 0), (130.0, 1)])
def test_a_frame_is_found_in_its_level_whatever_its_heading(
    height_m: float, level: int, heading_known: bool, two_levels: Path, bundle: Bundle
) -> None:
    index = SatelliteIndex.open(two_levels, bundle)
    # 45 m of ground from 80 m, 73 m from 130 m.
    side_m = 45.0 * height_m / 80.0
    camera = Camera.from_hfov(300, 300, math.degrees(2 * math.atan(22.5 / 80.0)))
    backend = Thumbnails()
    localizer = Localizer(bundle, index, backend, camera)
    for east_m, north_m, yaw_deg in ((12.0, -21.0, 97.0), (-30.0, 25.0, 221.0)):
        frame = photo(index.imagery, east_m, north_m, yaw_deg, side_m)
        known = yaw_deg if heading_known else None
        backend.images = 0
        match = localizer.match_anywhere(
            frame, VehicleState(t_s=0.0, height_m=height_m, yaw_deg=known)
        )[0]
        assert backend.images == 1  # Turned tiles stand in for turned views.
        true = move_lat_lon(*HERE, east_m, north_m)
        assert distance_m(*true, match.lat_deg, match.lon_deg) < 2.0
        assert match.yaw_deg % 360 == pytest.approx(yaw_deg, abs=3.0)
        assert match.row in index.levels[level].row_range
        tile_heading = float(index.tiles["heading_deg"][match.row])
        assert tile_heading == (0.0 if heading_known else 30.0 * round(yaw_deg / 30))
    index.close()
