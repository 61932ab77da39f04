"""The roofline of one call by hand, and what is said where a call beats it."""

from dataclasses import replace

import pytest

from benchmarks.roofline.ceilings import Ceilings
from benchmarks.roofline.graph_cost import GraphCost
from benchmarks.roofline.limit import doubt, limit_of
from edge_runtime.errors import InputError

COST = GraphCost(
    model="encoder.fp32.onnx",
    batch=1,
    height_px=224,
    width_px=224,
    macs=2_400_000_000,
    flops=5_000_000_000,
    mac_share={"fp32": 1.0},
    weight_bytes=80_000_000,
    input_bytes=15_000_000,
    output_bytes=5_000_000,
    unfused_bytes=900_000_000,
    nodes=40,
    unknown={},
)
CEILINGS = Ceilings(
    device="made up",
    peak_gflops={"fp32": 500.0, "int8": 4000.0},
    bandwidth_gb_s=20.0,
    source="this test",
)


def test_arithmetic_that_takes_longer_than_memory_is_the_limit() -> None:
    """5 GFLOP at 500 a second: 10 ms; 100 MB at 20 GB/s: 5 ms."""
    limit = limit_of(COST, CEILINGS, "fp32", 12.5)
    assert limit.bound == "compute"
    assert limit.roof_ms == pytest.approx(10.0)
    assert limit.ratio == pytest.approx(0.8)
    assert (limit.gflop, limit.traffic_mb) == (5.0, 100.0)
    assert (limit.peak_gflops, limit.bandwidth_gb_s) == (500.0, 20.0)
    assert limit.source == "this test"
    assert doubt(limit) == ""


def test_memory_that_takes_longer_than_arithmetic_is_the_limit() -> None:
    """At 4000 a second the arithmetic takes 1.25 ms and memory still 5."""
    limit = limit_of(COST, CEILINGS, "int8", 10.0)
    assert limit.bound == "memory"
    assert limit.roof_ms == pytest.approx(5.0)
    assert limit.ratio == pytest.approx(0.5)


def test_a_row_holds_all_that_its_roof_is_computed_from() -> None:
    for precision in ("fp32", "int8"):
        limit = limit_of(COST, CEILINGS, precision, 7.0)
        roof = max(limit.gflop / limit.peak_gflops, limit.traffic_mb / 1e3 / limit.bandwidth_gb_s)
        assert limit.roof_ms == pytest.approx(1e3 * roof)
        assert limit.ratio == pytest.approx(limit.roof_ms / 7.0)


def test_what_fits_the_cache_is_held_against_the_cache() -> None:
    cached = replace(CEILINGS, cache_bytes=100_000_000, cache_gb_s=200.0)
    limit = limit_of(COST, cached, "int8", 10.0)
    assert (limit.bound, limit.bandwidth_gb_s) == ("compute", 200.0)
    assert limit.roof_ms == pytest.approx(1.25)
    assert limit.source == "this test; traffic fits the cache of 95 MiB"
    too_small = replace(cached, cache_bytes=99_999_999)
    assert limit_of(COST, too_small, "int8", 10.0).bandwidth_gb_s == 20.0


def test_a_call_that_beats_its_limit_is_doubted_and_not_clipped() -> None:
    fast = limit_of(COST, CEILINGS, "fp32", 8.0)
    assert fast.ratio == pytest.approx(1.25)
    assert doubt(fast) == (
        "1.25 of the limit: nothing is faster than 10.000 ms, so the peak of 500 GFLOP/s was "
        "measured too low (a busy machine?), or the library multiplies less (Winograd)"
    )
    of_memory = limit_of(COST, CEILINGS, "int8", 4.0)
    assert doubt(of_memory).endswith("so the bandwidth of 20 GB/s was measured too low")


def test_arithmetic_that_was_not_counted_is_in_the_source() -> None:
    limit = limit_of(replace(COST, unknown={"Det": 4}), CEILINGS, "fp32", 12.0)
    assert limit.source == "this test; not counted: Det (10% of nodes)"


def test_no_limit_is_claimed_without_a_peak_or_a_time() -> None:
    with pytest.raises(InputError, match="no fp16 peak is known for made up; known are fp32, int8"):
        limit_of(COST, CEILINGS, "fp16", 1.0)
    with pytest.raises(InputError, match=r"median is 0\.0 ms; expected more than 0"):
        limit_of(COST, CEILINGS, "fp32", 0.0)
