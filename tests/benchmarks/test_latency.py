import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks import latency
from benchmarks.cli import main
from benchmarks.latency import (
    EMULATED_FP16,
    device_of,
    encoder_name,
    fallback_of,
    measure_backend,
    measurement_row,
    numbered,
    probe_batches,
)
from benchmarks.machine import machine
from benchmarks.measurement import MeasurementRow, Memory
from benchmarks.random_checkpoint import random_checkpoint
from benchmarks.rows import append_rows, read_rows
from benchmarks.stage_latency import stage_rows
from benchmarks.time_summary import time_summary
from edge_runtime.artefact import Manifest
from edge_runtime.backends.protocol import BackendInfo
from edge_runtime.bundle import Bundle
from edge_runtime.engine_files import write_engine
from edge_runtime.engine_store import EngineOptions, EngineRecord, Platform, engine_name, engines_of
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.preprocess import EncoderSpec
from export.bundle_export import export_bundle

INFO = BackendInfo(
    name="ort-cpu",
    provider="CPUExecutionProvider",
    precision="fp32",
    library="fake 1.0",
    threads=1,
)


class FakeBackend:
    """Says what it is told to say, and sleeps as long as it is told in each call."""

    def __init__(self, info: BackendInfo = INFO, *, sleep_s: float = 0.0) -> None:
        self.info, self.sleep_s = info, sleep_s
        self.seen: list[int] = []
        self.closed = 0

    def embed(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.seen.append(int(images[0, 0, 0, 0]))
        time.sleep(self.sleep_s)
        return np.ones((len(images), 4), np.float32)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle(
        root=tmp_path,
        manifest=Manifest(
            kind="bundle",
            id="c0ffee",
            meta={},
            files={f"encoder.{p}.onnx": p * 16 for p in ("fp32", "fp16", "int8")},
            made_by="test",
            created_utc="",
        ),
        spec=EncoderSpec(
            architecture="fake_tiny.in1k",
            height_px=32,
            width_px=32,
            embedding_size=4,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        weights_sha256="ab" * 32,
        precisions={"fp32": {}, "fp16": {}},
    )


def row_of(bundle: Bundle, info: BackendInfo = INFO, **values: Any) -> MeasurementRow:
    given: dict[str, Any] = {
        "asked": info.name,
        "batch": 1,
        "here": machine(),
        "time": time_summary([1.0, 2.0, 3.0]),
        "memory": Memory(host_peak_mib=90.0, host_before_mib=40.0, gpu_peak_mib=None),
        "load_s": 0.5,
    }
    return measurement_row(bundle, info, **{**given, **values})


@pytest.fixture
def here(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeBackend], FakeBackend]:
    """Let `measure_backend` find a made-up backend, in this process."""
    probes = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 32, 32, 3), np.uint8)

    def measured_here(work: Callable[..., MeasurementRow], *arguments: Any) -> MeasurementRow:
        return work(*arguments)

    def use(backend: FakeBackend) -> FakeBackend:
        monkeypatch.setattr(latency, "open_backend", lambda *_, **__: backend)
        monkeypatch.setattr(latency, "in_child", measured_here)
        monkeypatch.setattr(latency, "WARMUP_S", 0.0)
        monkeypatch.setattr(Bundle, "open", lambda _: bundle)
        monkeypatch.setattr(Bundle, "probes", lambda _: (probes, None))
        return backend

    return use


def test_a_planted_sleep_is_in_every_call(
    bundle: Bundle, here: Callable[[FakeBackend], FakeBackend]
) -> None:
    backend = here(FakeBackend(sleep_s=0.005))
    row = measure_backend(bundle, "ort-cpu", calls=10, warmup=2, batch=2)
    assert row.time.percentiles_ms[0] >= 5.0
    assert (row.time.n, row.time.warmup, row.batch) == (10, 2, 2)
    assert 0 < row.time.throughput_per_s <= 2 / 0.005
    assert backend.seen == [k % 3 for k in range(12)], "other pixels in each call"
    assert backend.closed == 1
    assert row.memory.host_peak_mib >= row.memory.host_before_mib > 0


def test_a_backend_is_closed_when_a_call_fails(
    bundle: Bundle, here: Callable[[FakeBackend], FakeBackend]
) -> None:
    backend = here(FakeBackend(sleep_s=-1.0))
    with pytest.raises(ValueError, match="non-negative"):
        measure_backend(bundle, "ort-cpu")
    assert backend.closed == 1


@pytest.mark.parametrize("wrong", [{"calls": 0}, {"warmup": 0}, {"batch": 0}, {"threads": 0}])
def test_measuring_nothing_is_refused(bundle: Bundle, wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1 of each"):
        measure_backend(bundle, "ort-cpu", **wrong)  # type: ignore[arg-type]


def test_a_fallback_to_the_cpu_is_named_in_the_row_and_said_aloud(
    bundle: Bundle,
    here: Callable[[FakeBackend], FakeBackend],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A session that took the CPU without a word, where CUDA was asked for."""
    here(FakeBackend(replace(INFO, name="ort-cuda")))
    rows = tmp_path / "rows.jsonl"
    words = ["latency", "--bundle", str(bundle.root), "--backend", "ort-cuda", "--calls", "3"]
    assert main([*words, "--out", str(rows)]) == 0
    (row,) = read_rows(rows, kind="measurement")
    assert (row["runtime"], row["provider"]) == ("ort-cuda", "CPUExecutionProvider")
    assert row["fallback"] == (
        "ort-cuda was asked for, which is CUDAExecutionProvider, and CPUExecutionProvider ran"
    )
    told = capsys.readouterr()
    assert "FALLBACK: ort-cuda, batch 1: ort-cuda was asked for" in told.err
    assert "CPU!" in told.out
    assert "! FALLBACK: ort-cuda was asked for" in told.out


@pytest.mark.parametrize(
    ("asked", "info", "said"),
    [
        ("ort-cpu", INFO, ""),
        ("auto", INFO, ""),
        ("auto", replace(INFO, name="openvino", provider="OpenVINO CPU"), ""),
        ("tensorrt", replace(INFO, name="tensorrt", provider="TensorRT", precision="fp16"), ""),
        ("openvino", replace(INFO, name="openvino", provider="OpenVINO GPU"), "OpenVINO GPU ran"),
        ("ort-tensorrt", replace(INFO, provider="CUDAExecutionProvider"), "CUDAExecution"),
        ("ort-cuda", INFO, "CPUExecutionProvider ran"),
        ("auto", replace(INFO, fallback="tensorrt was not taken: no engine"), "not taken"),
    ],
)
def test_what_ran_instead_is_said(asked: str, info: BackendInfo, said: str) -> None:
    found = fallback_of(asked, info)  # type: ignore[arg-type]
    assert said in found
    assert bool(found) == bool(said)


def test_another_precision_than_asked_for_is_a_fallback() -> None:
    assert fallback_of("ort-cpu", INFO, precision="fp16") == "fp16 was asked for and fp32 ran"
    assert fallback_of("ort-cpu", INFO, precision="fp32") == ""


def test_a_row_says_what_ran(bundle: Bundle) -> None:
    row = row_of(bundle)
    assert (row.encoder, row.architecture) == ("fake_tiny-32", "fake_tiny.in1k")
    assert (row.model_sha256, row.engine_sha256) == ("fp32" * 16, "")
    assert (row.bundle_id, row.weights) == ("c0ffee", "of the bundle, sha256 abababababab")
    assert (row.quality, row.limit, row.build_s, row.compile_s) == (None, None, None, None)
    assert row.energy.skipped == "not asked for"
    assert row_of(bundle, replace(INFO, precision="fp16")).model_sha256 == "fp16" * 16


@pytest.mark.parametrize("provider", ["CPUExecutionProvider", "OpenVINO CPU"])
def test_fp16_that_the_cpu_widens_is_marked(bundle: Bundle, provider: str) -> None:
    info = replace(INFO, precision="fp16", provider=provider, name="ort-cpu")
    assert EMULATED_FP16 in row_of(bundle, info).note
    on_gpu = replace(info, provider="CUDAExecutionProvider", name="ort-cuda")
    assert row_of(bundle, on_gpu).note == ""


def test_how_auto_chose_is_in_the_note_and_a_fallback_only_once(bundle: Bundle) -> None:
    failed = "tensorrt was not taken: no engine"
    info = replace(INFO, notes=(failed, "ort-cpu 1.00 ms"), fallback=failed)
    row = row_of(bundle, info, asked="auto")
    assert (row.runtime, row.note, row.fallback) == ("ort-cpu", "ort-cpu 1.00 ms", failed)


def test_openvino_computes_on_the_cpu() -> None:
    assert device_of("OpenVINO CPU", "Epyc", None) == "Epyc"
    assert device_of("CPUExecutionProvider", "Epyc", "H200") == "Epyc"
    assert device_of("TensorRT", "Epyc", "H200") == "H200"
    assert device_of("TensorRT", "Cortex", None) == "unknown GPU (Cortex)"


def test_sizes_of_an_encoder_that_is_not_square_are_both_named(bundle: Bundle) -> None:
    wide = replace(bundle.spec, architecture="vit_small", width_px=64)
    assert encoder_name(wide) == "vit_small-32x64"


def test_an_engines_digest_and_build_time_are_its_sidecars(bundle: Bundle) -> None:
    here = Platform(
        tensorrt="10.3.0", gpu="Orin", compute_capability="8.7", driver="540.4.0",
        cuda_driver="12.6", cuda_runtime="12.6",
    )  # fmt: skip
    record = write_engine(
        engines_of(bundle),
        b"a plan" * 99,
        EngineRecord(
            name=engine_name(bundle.spec, "fp16", 4, here), plan_sha256="", plan_bytes=0,
            bundle_id=bundle.id, onnx="encoder.fp16.onnx", onnx_sha256="cd" * 32,
            weights_sha256=bundle.weights_sha256, architecture="fake", embedding_size=4,
            height_px=32, width_px=32, precision="fp16", profiles=[[1, 1, 4]], platform=here,
            refittable=True, options=EngineOptions(precision="fp16", max_batch=4).to_json(),
            build_seconds=61.5, build_log=[], gates={},
        ),
    )  # fmt: skip
    info = replace(
        INFO, name="tensorrt", provider="TensorRT", precision="fp16", threads=None,
        engine=f"{record.name} {record.plan_sha256[:12]}",
    )  # fmt: skip
    row = row_of(bundle, info)
    assert (row.engine_sha256, row.build_s) == (record.plan_sha256, 61.5)
    other = row_of(bundle, replace(info, engine=f"{record.name} {'0' * 12}"))
    assert (other.engine_sha256, other.build_s) == ("0" * 12, None)
    cached = replace(info, name="ort-tensorrt", engine="ort-tensorrt-fp16-0123456789ab")
    assert row_of(bundle, cached).engine_sha256 == "0123456789ab"


def test_the_same_measurement_again_is_another_run(bundle: Bundle, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    for row in (row_of(bundle), row_of(bundle, batch=4), row_of(bundle)):
        append_rows(rows, [numbered(row, rows)])
    found = [(row["batch"], row["run"]) for row in read_rows(rows)]
    assert found == [(1, 0), (4, 0), (1, 1)]
    assert numbered(row_of(bundle), None).run == 0


@pytest.mark.usefixtures("outside_a_checkout")
def test_started_again_it_goes_on_with_what_its_file_lacks(
    bundle: Bundle,
    here: Callable[[FakeBackend], FakeBackend],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    backend = here(FakeBackend())
    rows = tmp_path / "rows.jsonl"
    words = ["latency", "--bundle", str(bundle.root), "--backend", "ort-cpu", "--calls", "9"]
    words += ["--warmup", "1", "--out", str(rows)]

    def measured(*more: str) -> list[tuple[int, int]]:
        calls, before = len(backend.seen), len(read_rows(rows)) if rows.exists() else 0
        assert main([*words, *more]) == 0
        found = [(row["batch"], row["run"]) for row in read_rows(rows)[before:]]
        assert (len(backend.seen) > calls) == bool(found)
        return found

    assert measured("--batch", "1", "2") == [(1, 0), (2, 0)]
    capsys.readouterr()
    assert measured("--batch", "2", "1", "4") == [(4, 0)]
    told = capsys.readouterr()
    assert "ort-cpu, batch 2: has its row" in told.err
    assert "--again measures it anew" in told.err
    assert f"--latency {rows}" in told.out.splitlines()[-1]
    assert measured("--runs", "2") == [(1, 1)]
    assert measured("--again") == [(1, 2)]
    assert measured() == []
    # Settings of another kind are another measurement.
    assert measured("--calls", "10") == [(1, 0)]
    assert measured("--threads", "1") == [(1, 0)]
    assert measured("--warmup", "8") == [(1, 0)]
    assert measured("--precision", "fp32") == [(1, 0)]
    assert measured("--backend", "auto") == [(1, 0)]
    capsys.readouterr()
    assert measured("--json") == []
    assert json.loads(capsys.readouterr().out)["batch"] == 1


def test_batches_hold_different_probes() -> None:
    probes = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((3, 2, 2, 3), np.uint8)
    assert probe_batches(probes, 2)[:, :, 0, 0, 0].tolist() == [[0, 1], [1, 2], [2, 0]]
    assert probe_batches(probes, 5).shape == (3, 5, 2, 2, 3)


def test_stages_keep_every_frame(make_fix: Callable[..., Fix]) -> None:
    fixes = [make_fix(k, deadline_missed=k == 9) for k in range(10)]
    rows = {row.stage: row for row in stage_rows(fixes, "flight", device="drone")}
    assert set(rows) == {"encode", "refine", "total"}
    total = rows["total"]
    assert (total.time.p50_ms, total.time.max_ms, total.time.first_ms) == (30.0, 35.0, 26.0)
    assert (total.time.n, total.deadline_missed) == (10, 1)
    assert rows["encode"].engine_id == "CPUExecutionProvider/fp32"


def test_a_real_encoder_is_measured_in_a_process_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This process holds torch; the one that is measured does not."""
    random_checkpoint("test_convnext", 64, tmp_path / "checkpoint")
    export_bundle(tmp_path / "checkpoint", tmp_path / "bundle", precisions=("fp32",))
    capsys.readouterr()
    rows = tmp_path / "rows.jsonl"
    words = ["latency", "--bundle", str(tmp_path / "bundle"), "--backend", "ort-cpu"]
    counts = ["--calls", "20", "--warmup", "2", "--threads", "1", "--batch", "1", "3"]
    assert main([*words, *counts, "--out", str(rows)]) == 0
    one, three = read_rows(rows, kind="measurement")
    assert (one["batch"], three["batch"]) == (1, 3)
    for row in (one, three):
        assert row["provider"] == "CPUExecutionProvider"
        assert row["fallback"] == ""
        times = row["time"]
        assert (times["n"], len(times["percentiles_ms"])) == (20, 101)
        assert times["warmup"] > 2, "half a second of a small encoder is more than two calls"
        assert 0 < times["p50_ms"] <= times["p99_ms"] <= times["max_ms"]
        assert 0 < row["memory"]["host_before_mib"] < row["memory"]["host_peak_mib"] < 300
        assert row["load_s"] > 0
        assert row["machine"]["cores"] >= 1
        manifest = Bundle.open(tmp_path / "bundle").manifest
        assert row["model_sha256"] == manifest.files["encoder.fp32.onnx"]
    told = capsys.readouterr()
    assert "FALLBACK" not in told.out + told.err
    assert f"--latency {rows}" in told.out.splitlines()[-1]
