"""Ceilings: the best of what was measured, and a table that is found by the module's number."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.roofline import ceilings
from benchmarks.roofline.ceilings import (
    Arithmetic,
    ceilings_from_rates,
    ceilings_of,
    cpu_ceilings,
    gpu_ceilings,
)
from benchmarks.roofline.jetson_table import gpu_clock_mhz, jetson_ceilings
from edge_runtime.errors import BackendError, InputError
from export import cpu_rates
from export.cpu_probe import _best_s, _triad, last_cache_bytes, probe

RATES = {
    "fp32": {"numpy": 50.0, "onnxruntime": 90.0, "openvino": 80.0},
    "fp16": {"onnxruntime": 85.0},
    "bf16": {},
    "int8": {"onnxruntime": 300.0, "openvino": 400.0},
    "memory": {"triad": 15.0, "read": 30.0},
    "cache": {"read": 100.0},
}


class FakeGpu:
    """Multiplies and copies at known rates; no INT8."""

    name = "made-up GPU"
    cache_bytes = 40_000_000

    def product_s(self, precision: Arithmetic, side: int) -> float | None:
        rate = {"fp32": 1e12, "fp16": 8e12, "bf16": 7e12, "int8": None}[precision]
        # The larger product runs at the full rate, the smaller one at half of it.
        return None if rate is None else 2 * side**3 / (rate if side == 8192 else rate / 2)

    def copy_s(self, count: int) -> float:
        return 2 * count / (4e11 if count > self.cache_bytes else 2e12)


def jetson(root: Path, *, part: str = "", model: str = "", gpu_mhz: float | None = None) -> Path:
    tree = root / "proc/device-tree"
    tree.mkdir(parents=True)
    if part:
        (tree / "compatible").write_bytes(f"nvidia,carrier\0nvidia,{part}\0nvidia,soc\0".encode())
    if model:
        (tree / "model").write_bytes(f"{model}\0".encode())
    if gpu_mhz is not None:
        clock = root / "sys/class/devfreq/17000000.gpu"
        clock.mkdir(parents=True)
        (clock / "max_freq").write_text(f"{gpu_mhz * 1e6:.0f}\n")
    return root


def test_a_ceiling_is_the_best_contender_of_each_kind() -> None:
    found = ceilings_from_rates(RATES, threads=3, cache_bytes=1 << 20)
    assert found.peak_gflops == {"fp32": 90.0, "fp16": 90.0, "bf16": 90.0, "int8": 400.0}
    assert (found.bandwidth_gb_s, found.cache_gb_s, found.cache_bytes) == (30.0, 100.0, 1 << 20)
    assert found.source == (
        "measured, 3 threads: fp32 onnxruntime, fp16 as fp32, bf16 as fp32, int8 openvino, "
        "memory read"
    )
    assert found.contenders == RATES


def test_no_precision_is_slower_than_fp32_and_no_cache_than_memory() -> None:
    slow = {**RATES, "int8": {"onnxruntime": 20.0}, "cache": {"read": 5.0}}
    found = ceilings_from_rates(slow, threads=1, cache_bytes=1)
    assert found.peak_gflops["int8"] == found.peak_gflops["fp32"] == 90.0
    assert found.cache_gb_s == 30.0


def test_this_machine_is_measured_by_every_library_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.cpu_probe._SIDES", (128, 256))
    monkeypatch.setattr("export.cpu_probe._TIMES_LAST_CACHE", 1)
    monkeypatch.setattr("export.cpu_probe._LEAST_ARRAY", 8 << 20)
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)  # Put back as it was.
    rates = probe(1, seconds=0.01)
    assert {"numpy", "onnxruntime"} <= set(rates["fp32"])
    assert {"onnxruntime"} <= set(rates["int8"])
    assert set(rates["memory"]) == {"triad", "read"}
    # From a microcontroller to a large server: no unit is off by a thousand.
    for kind in ("fp32", "int8"):
        assert all(0.1 < rate < 1e6 for rate in rates[kind].values()), rates
    assert all(0.1 < rate < 1e4 for rate in (*rates["memory"].values(), *rates["cache"].values()))


def test_the_triad_is_a_sum_and_a_product() -> None:
    rng = np.random.default_rng(2)
    a, b, c = (rng.random(100_000) for _ in range(3))
    before = a.copy()
    _triad(a, b, c, 10, 99_000)
    np.testing.assert_array_equal(a[10:99_000], b[10:99_000] + 3.0 * c[10:99_000])
    np.testing.assert_array_equal(a[:10], before[:10])
    np.testing.assert_array_equal(a[99_000:], before[99_000:])


def test_the_shortest_call_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    lengths = iter([0.001, 5.0, 2.0, 7.0, 9.0])

    def call() -> None:
        nonlocal now
        now += next(lengths)

    monkeypatch.setattr("time.perf_counter", lambda: now)
    assert _best_s(call, 1.0) == pytest.approx(2.0)


def test_the_cache_is_the_largest_one_and_32_mib_where_unknown(tmp_path: Path) -> None:
    assert last_cache_bytes(tmp_path) == 32 << 20
    for k, size in enumerate(("48K", "1024K", "16M")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{k}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(f"{size}\n")
    assert last_cache_bytes(tmp_path) == 16 << 20


def test_the_cpu_is_measured_once_a_process_in_a_program_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[dict[str, str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        started.append(options["env"])
        assert command[1:5] == ["-m", "export.cpu_probe", "--threads", "7"]
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps(RATES), stderr="")

    cpu_rates._cpu_rates.cache_clear()
    monkeypatch.setattr(subprocess, "run", run)
    assert cpu_ceilings(7) == cpu_ceilings(7)
    assert ceilings_of("cpu", 7).peak_gflops["fp32"] == 90.0
    assert [env["OPENBLAS_NUM_THREADS"] for env in started] == ["7"]
    cpu_rates._cpu_rates.cache_clear()


def test_the_program_really_measures() -> None:
    cpu_rates._cpu_rates.cache_clear()
    found = cpu_ceilings(1, seconds=0.001)
    cpu_rates._cpu_rates.cache_clear()
    assert set(found.peak_gflops) == {"fp32", "fp16", "bf16", "int8"}
    assert found.device == "CPU, 1 threads"
    assert found.bandwidth_gb_s > 0.1


def test_a_measurement_that_fails_says_which_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        raise subprocess.CalledProcessError(1, command, stderr="first\nMemoryError: no\n")

    cpu_rates._cpu_rates.cache_clear()
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(BackendError, match=r"MemoryError: no.*-m export\.cpu_probe"):
        cpu_ceilings(1)
    with pytest.raises(InputError, match="0 threads; expected at least 1"):
        cpu_ceilings(0)


def test_a_gpus_peaks_are_its_fastest_products_and_copies_count_twice() -> None:
    found = gpu_ceilings(FakeGpu())
    assert found.peak_gflops == {
        "fp32": pytest.approx(1e3),
        "fp16": pytest.approx(8e3),
        "bf16": pytest.approx(7e3),
    }
    assert found.bandwidth_gb_s == pytest.approx(400.0)
    assert found.cache_gb_s == pytest.approx(2000.0)
    assert found.cache_bytes == 40_000_000


def test_a_machine_without_a_gpu_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    ceilings._torch_ceilings.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"finds no CUDA device.*leave the limit out"):
        gpu_ceilings()


@pytest.mark.parametrize(
    ("part", "mhz", "name", "int8_tops", "bandwidth"),
    [
        # NVIDIA's figures for the GPU, halved where they are sparse: 20, 33.5, 30 and 85 TOPS.
        pytest.param("p3767-0005", 625, "Orin Nano 8GB", 20, 68.0, id="nano at 15 W"),
        pytest.param("p3767-0003", 1020, "Orin Nano 8GB Super", 33.5, 102.0, id="nano super"),
        pytest.param("p3767-0000", 918, "Orin NX 16GB", 30, 102.4, id="nx"),
        pytest.param("p3701-0005", 1300, "AGX Orin 64GB", 85, 204.8, id="agx"),
    ],
)
def test_orin_modules_have_the_dense_figures_of_their_data_sheets(
    part: str, mhz: float, name: str, int8_tops: float, bandwidth: float, tmp_path: Path
) -> None:
    found = jetson_ceilings(jetson(tmp_path, part=part, gpu_mhz=mhz))
    assert found is not None
    assert found.device == f"Jetson {name}"
    assert found.peak_gflops["int8"] / 1e3 == pytest.approx(int8_tops, rel=0.03)
    assert found.peak_gflops["int8"] == 2 * found.peak_gflops["fp16"]
    assert found.bandwidth_gb_s == bandwidth
    assert "data sheet" in found.source or "the same" in found.source


def test_xavier_nx_and_thor_claim_no_int8_figure(tmp_path: Path) -> None:
    """Xavier: 48 tensor cores of 64 multiply-adds at 1.1 GHz. Thor: 2070 sparse FP4, an eighth."""
    xavier = jetson_ceilings(jetson(tmp_path / "x", part="p3668-0001"))
    thor = jetson_ceilings(jetson(tmp_path / "t", part="p3834-0008"))
    assert xavier is not None
    assert thor is not None
    assert xavier.peak_gflops["fp16"] == pytest.approx(6758.4)
    assert thor.peak_gflops["fp16"] == pytest.approx(258_750)
    assert "int8" not in xavier.peak_gflops.keys() | thor.peak_gflops.keys()


def test_a_lower_power_mode_lowers_the_peak_with_the_clock(tmp_path: Path) -> None:
    full = jetson_ceilings(jetson(tmp_path / "a", part="p3701-0005", gpu_mhz=1300))
    half = jetson_ceilings(jetson(tmp_path / "b", part="p3701-0005", gpu_mhz=650))
    unknown = jetson_ceilings(jetson(tmp_path / "c", part="p3701-0005"))
    assert full is not None
    assert half is not None
    assert unknown is not None
    assert half.peak_gflops["fp16"] == full.peak_gflops["fp16"] / 2
    assert "GPU at 650 MHz (as set now)" in half.source
    assert unknown.peak_gflops == full.peak_gflops
    assert "clock not readable, so its highest" in unknown.source


def test_the_modules_number_counts_and_not_the_carrier_boards_name(tmp_path: Path) -> None:
    """Orin Nano modules sit on boards that call themselves Orin NX."""
    board = "NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super"
    nano = jetson_ceilings(jetson(tmp_path / "nano", part="p3767-0005", model=board))
    assert nano is not None
    assert nano.device == "Jetson Orin Nano 8GB"
    # An Orin NX 8GB, of which no figures are here, is not taken for another module.
    assert jetson_ceilings(jetson(tmp_path / "nx8", part="p3767-0001", model=board)) is None
    by_name = jetson_ceilings(
        jetson(tmp_path / "old", model="NVIDIA Jetson AGX Orin Developer Kit")
    )
    assert by_name is not None
    assert by_name.device == "Jetson AGX Orin 64GB"


def test_no_jetson_has_no_table_and_no_clock(tmp_path: Path) -> None:
    assert jetson_ceilings(tmp_path) is None
    assert gpu_clock_mhz(tmp_path) is None
