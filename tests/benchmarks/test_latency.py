import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.latency import (
    EMULATED_FP16,
    latency_row,
    probe_batches,
    stage_rows,
    time_calls,
)
from edge_runtime.artefact import Manifest
from edge_runtime.backends.protocol import BackendInfo
from edge_runtime.bundle import Bundle, Precision
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.preprocess import EncoderSpec

IMAGES = np.zeros((2, 1, 32, 32, 3), np.uint8)


class FakeBackend:
    """Sleeps as long as it is told, call by call."""

    def __init__(self, sleeps_s: Callable[[int], float], precision: Precision = "fp32") -> None:
        self.info = BackendInfo(
            name="ort-cpu",
            provider="CPUExecutionProvider",
            precision=precision,
            library="fake 1.0",
            threads=1,
        )
        self.calls = 0
        self.now_ns = 0
        self._sleeps_s = sleeps_s

    def embed(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.now_ns += round(self._sleeps_s(self.calls) * 1e9)
        self.calls += 1
        return np.ones((len(images), 4), np.float32)

    def close(self) -> None: ...


class SleepyBackend(FakeBackend):
    def embed(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        time.sleep(self._sleeps_s(self.calls))
        return super().embed(images)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(
        root=tmp_path,
        manifest=Manifest(
            kind="bundle", id="c0ffee", meta={}, files={}, made_by="test", created_utc=""
        ),
        spec=EncoderSpec(
            architecture="fake",
            height_px=32,
            width_px=32,
            embedding_size=4,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        weights_sha256="ab" * 32,
        precisions={"fp32": {}, "fp16": {}},
    )


def test_a_planted_sleep_shows() -> None:
    timing = time_calls(SleepyBackend(lambda _: 0.005), IMAGES, calls=10, warmup=1)
    assert all(t >= 5.0 for t in timing.calls_ms)
    assert sorted(timing.calls_ms)[5] < 25.0


def test_a_slow_tail_shows_in_p99_and_max(bundle: Bundle) -> None:
    backend = FakeBackend(lambda k: 0.5 if k >= 198 else 0.001)
    timing = time_calls(backend, IMAGES, calls=190, warmup=10, clock_ns=lambda: backend.now_ns)
    row = latency_row(bundle, backend, timing, batch=1, warmup=10, open_ms=1.0)
    assert (row.p50_ms, row.p90_ms, row.p99_ms, row.max_ms) == (1.0, 1.0, 500.0, 500.0)


def test_one_outlier_stays_the_maximum(bundle: Bundle) -> None:
    backend = FakeBackend(lambda k: 9.0 if k == 100 else 0.001)
    timing = time_calls(backend, IMAGES, calls=200, warmup=10, clock_ns=lambda: backend.now_ns)
    row = latency_row(bundle, backend, timing, batch=1, warmup=10, open_ms=1.0)
    assert (row.p99_ms, row.max_ms, row.timed_calls) == (1.0, 9000.0, 200)


def test_the_first_call_is_reported_and_not_among_the_timed() -> None:
    backend = FakeBackend(lambda k: 2.0 if k == 0 else 0.001)
    timing = time_calls(backend, IMAGES, calls=5, warmup=3, clock_ns=lambda: backend.now_ns)
    assert timing.first_ms == 2000.0
    assert timing.calls_ms == [1.0] * 5
    assert backend.calls == 8


@pytest.mark.parametrize(("calls", "warmup"), [(0, 1), (1, 0)])
def test_measuring_nothing_is_refused(calls: int, warmup: int) -> None:
    with pytest.raises(InputError, match="at least 1 of each"):
        time_calls(FakeBackend(lambda _: 0.0), IMAGES, calls=calls, warmup=warmup)


def test_emulated_fp16_is_marked(bundle: Bundle) -> None:
    backend = FakeBackend(lambda _: 0.001, precision="fp16")
    timing = time_calls(backend, IMAGES, calls=2, warmup=1, clock_ns=lambda: backend.now_ns)
    row = latency_row(bundle, backend, timing, batch=1, warmup=1, open_ms=1.0)
    assert row.note == EMULATED_FP16
    assert (row.bundle_id, row.weights_sha256, row.height_px) == ("c0ffee", "ab" * 32, 32)
    assert row.device


def test_batches_hold_different_probes() -> None:
    probes = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 2, 2, 3), np.uint8)
    assert probe_batches(probes, 2)[:, :, 0, 0, 0].tolist() == [[0, 1], [1, 2], [2, 0]]
    assert probe_batches(probes, 5).shape == (3, 5, 2, 2, 3)


def test_stages_keep_every_frame(make_fix: Callable[..., Fix]) -> None:
    fixes = [make_fix(k, deadline_missed=k == 9) for k in range(10)]
    rows = {row.stage: row for row in stage_rows(fixes, "flight", device="drone")}
    assert set(rows) == {"encode", "refine", "total"}
    assert (rows["total"].p50_ms, rows["total"].max_ms) == (30.0, 35.0)
    assert (rows["total"].frames, rows["total"].deadline_missed) == (10, 1)
    assert rows["encode"].engine_id == "CPUExecutionProvider/fp32"
