from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.multi_stream import PERCENTILE, QUERIES, SAMPLES_PER_QUERY, multi_stream
from benchmarks.query_stream import WARMUP_QUERIES, speed_run
from benchmarks.stream_samples import Samples, accuracy_run

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
SAMPLES = 20


class SlowEncoder:
    """Takes 10 ms for a query, 200 ms for every 50th, on a clock of its own."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.seen: list[list[int]] = []
        self.in_one_piece = True

    def embed(self, images: U8) -> F32:
        self.now_ns += 200_000_000 if len(self.seen) % 50 == 49 else 10_000_000
        self.seen.append(images[:, 0, 0, 0].tolist())
        self.in_one_piece &= images.flags.c_contiguous
        return np.eye(SAMPLES, dtype=np.float32)[images[:, 0, 0, 0]]

    def clock_ns(self) -> int:
        return self.now_ns


def numbered_images() -> U8:
    """Image k is full of k."""
    numbers = np.arange(SAMPLES, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(numbers, (SAMPLES, 4, 4, 3)).copy()


def test_the_defaults_are_those_of_the_rules() -> None:
    # "8" samples a query and "99%-ile" in the rules' table of scenarios.
    plan = multi_stream(Path("bundle"))
    assert (
        (plan.samples_per_query, plan.scenario)
        == (SAMPLES_PER_QUERY, "multi-stream")
        == (8, "multi-stream")
    )
    assert (PERCENTILE, QUERIES) == (99, 1024)


def test_queries_are_of_eight_samples_in_one_piece_drawn_at_random() -> None:
    encoder = SlowEncoder()
    plan = multi_stream(Path("bundle"), seconds=0.0, queries=300, seed=5)
    speed_run(encoder.embed, numbered_images(), plan, clock_ns=encoder.clock_ns)
    assert len(encoder.seen) == 300 + WARMUP_QUERIES
    assert {len(query) for query in encoder.seen} == {8}
    assert encoder.in_one_piece
    assert len({tuple(query) for query in encoder.seen}) > 250, "nearly all differ"
    assert any(len(set(query)) < 8 for query in encoder.seen), "with replacement"
    assert {number for query in encoder.seen for number in query} == set(range(SAMPLES))


def test_a_query_in_fifty_that_is_slow_is_the_99th_percentile_of_queries() -> None:
    encoder = SlowEncoder()
    plan = multi_stream(Path("bundle"), seconds=0.0, queries=500)
    timed = speed_run(encoder.embed, numbered_images(), plan, clock_ns=encoder.clock_ns)
    time = timed.summary(items_per_call=8)
    assert (time.p50_ms, time.p90_ms, time.p99_ms) == (10.0, 10.0, 200.0)
    # 490 queries of 10 ms and 10 of 200 ms.
    assert time.throughput_per_s == pytest.approx(8 * 500 / 6.9)


@pytest.mark.parametrize("batch", [3, 8, 32])
def test_accuracy_counts_each_sample_once_whatever_the_query_holds(batch: int) -> None:
    eye = np.eye(SAMPLES, dtype=np.float32)
    samples = Samples(
        images=numbered_images(), reference=eye, reference_name="known", data="numbers"
    )
    encoder = SlowEncoder()
    quality = accuracy_run(encoder.embed, samples, batch=batch)
    assert quality.pictures == SAMPLES
    assert quality.min_cosine == 1.0
    assert {len(query) for query in encoder.seen} == {batch}
