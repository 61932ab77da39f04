"""Speed beside a plain loop: the statistics, and a small flight through all four contenders."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.end_to_end import SpeedPlan, compare
from benchmarks.end_to_end_contenders import Answer
from benchmarks.end_to_end_rows import (
    IN_FLIGHT,
    PLAIN,
    WHOLE_MAP,
    laws,
    paired_ratio,
    quality_of,
    times_of,
)
from benchmarks.random_checkpoint import random_checkpoint
from benchmarks.scored_flight import Truth
from edge_runtime.backends.protocol import open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import InputError
from edge_runtime.geodesy import move_lat_lon
from export.bundle_export import export_bundle
from export.index_build import build_index
from export.index_plan import PlanOptions, TileSize
from train.world import WorldConfig, make_world

HERE = (47.0, 8.0)


def answer(name: str, east_m: float | None, *, given: bool = True) -> Answer:
    if east_m is None:
        return Answer(name, 1.0, None, None, given=False)
    place = move_lat_lon(*HERE, east_m, 0.0)
    return Answer(name, 1.0, float(place.lat_deg), float(place.lon_deg), given)


def truths(names: Sequence[str]) -> dict[str, Truth]:
    return {n: Truth(frame=n, lat_deg=HERE[0], lon_deg=HERE[1]) for n in names}


def test_a_guess_that_is_not_given_out_is_neither_success_nor_false() -> None:
    said = [answer("a", 3), answer("b", 80), answer("c", 5, given=False), answer("d", None)]
    found = quality_of(said, truths("abcd"))
    assert (found.answered.count, found.success.count, found.false.count) == (2, 1, 1)
    assert found.guessed.count == 2
    assert found.median_error_m == pytest.approx(41.5, abs=0.01)


def test_no_answers_have_no_median_error() -> None:
    assert quality_of([answer("a", None)], truths("a")).median_error_m is None


def test_a_photograph_without_truth_is_refused() -> None:
    with pytest.raises(InputError, match=r"no b; expected a row for every photograph"):
        quality_of([answer("b", 1)], truths("a"))


def test_twice_the_time_on_every_frame_is_a_ratio_of_two_without_doubt() -> None:
    ours = np.random.default_rng(1).uniform(5, 50, 200)
    found = paired_ratio(ours.tolist(), (2 * ours).tolist(), block=10)
    assert found == pytest.approx((2.0, 2.0, 2.0))


def test_the_same_loop_against_itself_is_not_found_faster() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = rng.lognormal(2, 0.3, (2, 400))
    found = paired_ratio(ours.tolist(), theirs.tolist(), block=10)
    assert found.low < 1 < found.high


def test_what_happens_to_a_whole_block_widens_the_interval() -> None:
    rng = np.random.default_rng(3)
    busy = np.repeat(rng.choice((1.0, 3.0), 40), 10)
    ours = np.full(400, 10.0)
    by_block = paired_ratio(ours.tolist(), (10 * busy).tolist(), block=10)
    by_frame = paired_ratio(ours.tolist(), (10 * busy).tolist(), block=1)
    assert by_block.high - by_block.low > 2 * (by_frame.high - by_frame.low)


def test_frames_that_are_not_the_same_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="the same frames"):
        paired_ratio([1.0], [1.0, 2.0], block=1)


def test_throughput_counts_every_millisecond_and_percentiles_are_measured_times() -> None:
    found = times_of([10.0] * 98 + [110.0, 500.0])
    assert found == pytest.approx((1e5 / 1590, 10.0, 10.0, 110.0, 500.0))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("speed")
    config = WorldConfig(
        seed=3,
        train_size_m=300,
        train_photos=0,
        held_out_size_m=400,
        flights=1,
        frames_per_flight=24,
        min_height_m=50,
        max_height_m=70,
        photo_width_px=320,
        photo_height_px=240,
        threads=1,
    )
    make_world(root / "world", config)
    random_checkpoint("test_resnet", 64, root / "checkpoint")
    export_bundle(root / "checkpoint", root / "bundle", precisions=("fp32",))
    bundle = Bundle.open(root / "bundle")
    backend = open_backend(bundle, "ort-cpu", threads=1)
    imagery = root / "world" / "held_out" / "imagery.tif"
    options = PlanOptions(sizes=(TileSize(48.0, 24.0),))
    build_index([imagery], root / "index", bundle, backend, options)
    backend.close()
    return root


def plan_of(world: Path, **values: object) -> SpeedPlan:
    flight = world / "world" / "held_out" / "flight_1"
    plain: dict[str, object] = {
        "bundle": world / "bundle",
        "index": world / "index",
        "source": flight / "frames",
        "telemetry": flight / "telemetry.csv",
        "camera": world / "world" / "held_out" / "camera.json",
        "truth": flight / "truth.csv",
        "backend": "ort-cpu",
        "threads": 1,
        "block": 5,
        "warmup": 4,
    }
    return SpeedPlan(**(plain | values))  # type: ignore[arg-type]


@pytest.mark.slow
def test_all_contenders_answer_the_same_photographs(world: Path) -> None:
    began = time.perf_counter()
    rows = compare(plan_of(world))
    took_ms = 1e3 * (time.perf_counter() - began)
    names = [row.contender for row in rows]
    assert names == [IN_FLIGHT, WHOLE_MAP, PLAIN, "plain loop + SIFT"]
    for row in rows:
        assert row.frames == 20
        assert 0 < row.p50_ms <= row.p90_ms <= row.p99_ms <= row.max_ms < took_ms
        assert row.quality is not None
        assert row.quality.answered.n == 20
    by_name = {row.contender: row for row in rows}
    assert by_name[PLAIN].as_fast_as_plain == (1.0, 1.0, 1.0)
    flying, alone = by_name[IN_FLIGHT].quality, by_name[WHOLE_MAP].quality
    assert flying is not None
    assert alone is not None
    assert flying.success.count > alone.success.count, "a track must be worth something"
    assert flying.false.count == 0


@pytest.mark.slow
def test_too_few_tiles_claim_nothing_of_the_whole_map(world: Path) -> None:
    judged = {law.name: law for law in laws(compare(plan_of(world, frames=5)))}
    assert judged["whole map"].holds is None
    assert "10000 are asked" in judged["whole map"].note


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"tiles": 10_000}, r"tiles; expected 10000", id="a small map"),
        pytest.param({"warmup": 24}, r"24 photographs with telemetry; expected more", id="few"),
        pytest.param({"source": Path("/dev/null")}, r"is not a folder", id="no folder"),
        pytest.param({"block": 0}, r"expected at least 1 each", id="no block"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    world: Path, values: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        compare(plan_of(world, **values))
