import argparse
import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.query_stream import WARMUP_QUERIES, kept_row, measure_stream, speed_run
from benchmarks.random_checkpoint import random_checkpoint
from benchmarks.resuming import MeasuredRows
from benchmarks.rows import append_rows, read_rows
from benchmarks.single_stream import PERCENTILE, QUERIES, SECONDS, single_stream
from benchmarks.stream_cli import add_single_stream
from benchmarks.stream_plan import StreamPlan
from benchmarks.stream_samples import Samples, accuracy_run
from edge_runtime.errors import BackendError, InputError
from export.bundle_export import export_bundle

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
SAMPLES = 10


class SlowEncoder:
    """Takes as long as it is told on a clock of its own and remembers what it was shown."""

    def __init__(self, takes_ms: Callable[[int], float]) -> None:
        self.now_ns = 0
        self.seen: list[list[int]] = []
        self._takes_ms = takes_ms

    def embed(self, images: U8) -> F32:
        self.now_ns += round(self._takes_ms(len(self.seen)) * 1e6)
        numbers = images[:, 0, 0, 0]
        self.seen.append(numbers.tolist())
        return directions()[numbers]

    def clock_ns(self) -> int:
        return self.now_ns


def numbered_images() -> U8:
    """Image k is full of k."""
    numbers = np.arange(SAMPLES, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(numbers, (SAMPLES, 4, 4, 3)).copy()


def directions() -> F32:
    """(SAMPLES, 8) unit vectors."""
    drawn = np.random.default_rng(1).normal(size=(SAMPLES, 8))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def plan_of(**values: Any) -> StreamPlan:
    return single_stream(Path("bundle"), **{"seconds": 1.0, "queries": 50, **values})


def run(encoder: SlowEncoder, plan: StreamPlan) -> tuple[float, ...]:
    timed = speed_run(encoder.embed, numbered_images(), plan, clock_ns=encoder.clock_ns)
    return timed.calls_ms


def test_the_defaults_are_those_of_the_rules() -> None:
    # Version 0.5 of the rules: "1024 queries and 60 seconds", "90%-ile measured latency".
    plan = single_stream(Path("bundle"))
    assert (plan.queries, plan.seconds, plan.samples_per_query) == (1024, 60.0, 1)
    assert (QUERIES, SECONDS, PERCENTILE) == (1024, 60.0, 90)


@pytest.mark.parametrize(
    ("seconds", "queries", "expected"), [(1.0, 50, 100), (1.0, 300, 300), (0.0, 1, 1)]
)
def test_it_ends_when_both_the_duration_and_the_number_are_reached(
    seconds: float, queries: int, expected: int
) -> None:
    encoder = SlowEncoder(lambda _: 10.0)
    times = run(encoder, plan_of(seconds=seconds, queries=queries))
    assert len(times) == expected
    assert len(encoder.seen) == expected + WARMUP_QUERIES


def test_samples_come_one_by_one_at_random_with_replacement() -> None:
    encoder = SlowEncoder(lambda _: 1.0)
    run(encoder, plan_of(seconds=0.0, queries=2000))
    assert all(len(query) == 1 for query in encoder.seen)
    numbers = [query[0] for query in encoder.seen]
    assert any(a == b for a, b in itertools.pairwise(numbers)), "with replacement"
    # 202 of each are expected, with a standard deviation of 13.
    assert all(140 < count < 270 for count in Counter(numbers).values())
    assert len(Counter(numbers)) == SAMPLES


def test_the_order_is_the_seed_s() -> None:
    def order(seed: int) -> list[list[int]]:
        encoder = SlowEncoder(lambda _: 1.0)
        run(encoder, plan_of(seconds=0.0, seed=seed))
        return encoder.seen

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_accuracy_is_measured_over_every_sample_once() -> None:
    encoder = SlowEncoder(lambda _: 1.0)
    samples = Samples(
        images=numbered_images(), reference=directions(), reference_name="known", data="numbers"
    )
    quality = accuracy_run(encoder.embed, samples, batch=1)
    assert sorted(encoder.seen) == [[k] for k in range(SAMPLES)]
    assert (quality.pictures, quality.gallery) == (SAMPLES, SAMPLES - 1)
    assert quality.min_cosine == pytest.approx(1.0)
    assert quality.top1_agreement == 1.0


def test_one_wrong_embedding_shows_in_the_accuracy() -> None:
    def embed(images: U8) -> F32:
        found = directions()[images[:, 0, 0, 0]]
        found[images[:, 0, 0, 0] == 3] *= -1
        return found

    samples = Samples(
        images=numbered_images(), reference=directions(), reference_name="known", data="numbers"
    )
    quality = accuracy_run(embed, samples, batch=4)
    assert quality.min_cosine == pytest.approx(-1.0)
    assert quality.median_cosine == pytest.approx(1.0)
    assert quality.top1_agreement == 0.9


@pytest.mark.parametrize(
    ("field", "value"),
    [("samples_per_query", 0), ("queries", 0), ("samples", 1), ("threads", 0)],
)
def test_a_plan_that_is_no_run_is_refused(field: str, value: int) -> None:
    values: dict[str, Any] = {"samples_per_query": 1, "queries": 1, "samples": 2, field: value}
    with pytest.raises(InputError, match=f"{field} is {value}; expected at least"):
        StreamPlan(bundle=Path("bundle"), scenario="single-stream", seconds=1.0, **values)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stream")
    random_checkpoint("test_resnet", 64, root / "checkpoint")
    export_bundle(root / "checkpoint", root / "bundle", precisions=("fp32",))
    return root / "bundle"


def test_speed_and_accuracy_are_in_one_row(bundle: Path) -> None:
    plan = single_stream(bundle, seconds=0.1, queries=30, backend="ort-cpu", threads=1, run=4)
    row = measure_stream(plan)
    assert (row.protocol, row.batch, row.run) == ("single-stream", 1, 4)
    assert (row.runtime, row.provider, row.threads) == ("ort-cpu", "CPUExecutionProvider", 1)
    assert row.time.n >= 30
    assert row.time.n / row.time.throughput_per_s >= 0.1
    assert row.quality is not None
    assert row.quality.min_cosine > 0.9999
    assert row.quality.reference == "torch eager fp32"
    assert row.memory.host_peak_mib >= row.memory.host_before_mib > 0
    assert "no MLPerf result" in row.note


def test_photographs_are_samples_too(bundle: Path, frames_dir: Path) -> None:
    plan = single_stream(
        bundle, seconds=0.0, queries=2, backend="ort-cpu", threads=1, photographs=frames_dir
    )
    quality = measure_stream(plan).quality
    assert quality is not None
    assert (quality.pictures, quality.data) == (12, "12 photographs of frames")
    assert quality.reference.startswith("onnxruntime")
    assert quality.min_cosine == pytest.approx(1.0, abs=1e-6)


def test_folders_without_photographs_are_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 0 photographs"):
        measure_stream(single_stream(bundle, photographs=tmp_path))
    with pytest.raises(InputError, match="is not a folder"):
        measure_stream(single_stream(bundle, photographs=tmp_path / "nowhere"))
    (tmp_path / "a.jpg").write_text("no picture")
    (tmp_path / "b.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"a\.jpg cannot be read"):
        measure_stream(single_stream(bundle, photographs=tmp_path))


@pytest.mark.usefixtures("outside_a_checkout")
def test_a_row_serves_its_own_plan_and_no_other(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    plan = single_stream(bundle, seconds=0.0, queries=5, backend="ort-cpu", threads=1)
    append_rows(out, [measure_stream(plan)])
    rows = MeasuredRows(out, "measurement")
    kept = kept_row(plan, rows)
    assert kept is not None
    assert kept["asked"] == "ort-cpu any, threads 1, 1024 samples by seed 0"
    for values in (
        {"run": 1}, {"seconds": 9.0}, {"queries": 500}, {"threads": 2}, {"threads": None},
        {"precision": "fp16"}, {"backend": "openvino"}, {"backend": "auto"},
        {"photographs": tmp_path}, {"seed": 1}, {"samples": 5},
    ):  # fmt: skip
        other: dict[str, Any] = {"seconds": 0.0, "queries": 5, "backend": "ort-cpu", "threads": 1}
        assert kept_row(single_stream(bundle, **{**other, **values}), rows) is None, values


def run_command(*arguments: str | Path) -> None:
    parser = argparse.ArgumentParser()
    add_single_stream(parser.add_subparsers())
    args = parser.parse_args(["single-stream", *map(str, arguments)])
    args.run(args)


@pytest.mark.usefixtures("outside_a_checkout")
def test_the_command_measures_what_it_can_and_says_what_not(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    asked = ("--bundle", bundle, "--backend", "ort-cpu", "--precision", "int8", "fp32",
             "--seconds", "0.1", "--queries", "20", "--threads", "1", "--out", out)  # fmt: skip
    run_command(*asked)
    assert [row["kind"] for row in read_rows(out)] == ["not_run", "measurement"]
    assert "has no int8 encoder" in read_rows(out, kind="not_run")[0]["reason"]
    printed = capsys.readouterr()
    time = read_rows(out, kind="measurement")[0]["time"]
    assert f"p90 {time['p90_ms']:.2f} ms" in printed.out
    assert "next: python -m benchmarks compare" in printed.out
    run_command(*asked)
    assert "has its row" in capsys.readouterr().err
    assert len(read_rows(out, kind="measurement")) == 1
    with pytest.raises(BackendError, match="has no int8 encoder"):
        run_command(*asked[:4], "--precision", "int8", "--json")
    json.loads(capsys.readouterr().out.splitlines()[-1])
