"""The roofline by hand, against known networks, and on the machine the tests run on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edge_runtime.errors import InputError
from export import roofline
from export.graph_costs import Cost, Traffic, graph_costs
from export.onnx_encoder import export_onnx
from export.roofline import DEVICES, Device, device_named, measure_this_machine, roofline_ms
from train.encoder import new_encoder

DEVICE = Device(
    name="made up",
    peak_tflops={"fp32": 1.0, "fp16": 4.0, "int8": 8.0},
    bandwidth_gb_s=100.0,
    source="this test",
)


@pytest.fixture
def kernel() -> Callable[..., Cost]:
    def make(macs: int, float_numbers: int, precision: str = "fp32", pointwise: int = 0) -> Cost:
        size = {"fp32": 4, "fp16": 2, "int8": 1}[precision]
        floats = 0 if precision == "int8" else float_numbers
        traffic = Traffic(bytes=float_numbers * size, floats=floats, float_bytes=floats * size)
        return Cost(
            name="kernel",
            ops=("Conv",),
            part="blocks.0",
            precision=precision,
            macs=macs,
            flops=2 * macs + pointwise,
            parameters=0,
            weights=Traffic(),
            read=traffic,
            written=Traffic(),
        )

    return make


def test_a_kernel_takes_as_long_as_its_slower_side(kernel: Callable[..., Cost]) -> None:
    arithmetic = kernel(macs=500_000_000, float_numbers=1000)  # 1e9 operations at 1e12 a second.
    memory = kernel(macs=1000, float_numbers=25_000_000)  # 1e8 bytes at 1e11 a second.
    assert roofline_ms([arithmetic], DEVICE) == pytest.approx(1.0)
    assert roofline_ms([memory], DEVICE) == pytest.approx(1.0)
    assert roofline_ms([arithmetic, memory], DEVICE) == pytest.approx(2.0)


def test_another_precision_changes_both_sides(kernel: Callable[..., Cost]) -> None:
    arithmetic = kernel(macs=500_000_000, float_numbers=1000)
    memory = kernel(macs=1000, float_numbers=25_000_000)
    assert roofline_ms([arithmetic], DEVICE, precision="fp16") == pytest.approx(1 / 4)
    assert roofline_ms([arithmetic], DEVICE, precision="int8") == pytest.approx(1 / 8)
    assert roofline_ms([memory], DEVICE, precision="fp16") == pytest.approx(1 / 2)
    assert roofline_ms([memory], DEVICE, precision="int8") == pytest.approx(1 / 4)


def test_pointwise_work_runs_beside_products_at_the_plain_rate(
    kernel: Callable[..., Cost],
) -> None:
    fused = kernel(macs=4_000_000_000, float_numbers=10, precision="fp16", pointwise=10**9)
    assert roofline_ms([fused], DEVICE) == pytest.approx(2.0)
    heavy = kernel(macs=1000, float_numbers=10, precision="fp16", pointwise=10**9)
    assert roofline_ms([heavy], DEVICE) == pytest.approx(1.0)


def test_no_time_is_claimed_for_arithmetic_a_device_has_no_figure_for(
    kernel: Callable[..., Cost],
) -> None:
    plain = Device(name="plain", peak_tflops={"fp32": 1.0}, bandwidth_gb_s=1.0, source="")
    assert roofline_ms([kernel(macs=10, float_numbers=1, precision="int8")], plain) is None
    assert roofline_ms([kernel(macs=0, float_numbers=1, precision="fp16")], plain) is not None


def test_peaks_are_the_dense_ones_of_the_data_sheets() -> None:
    """NVIDIA names 67, 100 and 275 sparse TOPS; the GPUs' part of it is 67, 60 and 170, halved."""
    peaks = {device.name: device.peak_tflops["int8"] for device in DEVICES}
    assert peaks["Orin Nano 8GB"] == pytest.approx(40 / 2, rel=0.03)
    assert peaks["Orin Nano 8GB Super"] == pytest.approx(67 / 2, rel=0.03)
    assert peaks["Orin NX 16GB"] == pytest.approx(60 / 2, rel=0.03)
    assert peaks["AGX Orin 64GB"] == pytest.approx(170 / 2, rel=0.03)
    assert peaks["H200"] == pytest.approx(3958 / 2, rel=0.03)


@pytest.mark.slow
def test_convnext_tiny_meets_what_was_worked_out_independently(tmp_path: Path) -> None:
    """13.1 GMAC at 384 px; FP16, fused: 3.7, 2.5 and 1.1 ms, by another's count of kernels."""
    torch.manual_seed(3)
    export_onnx(new_encoder("convnext_tiny", size_px=384), tmp_path / "tiny.onnx", "fp32")
    costs = graph_costs(tmp_path / "tiny.onnx")
    assert costs.macs == pytest.approx(13.1e9, rel=0.005)
    for name, known_ms in (("Orin Nano 8GB", 3.7), ("Orin NX 16GB", 2.5), ("AGX Orin 64GB", 1.1)):
        found = roofline_ms(costs.kernels, device_named(name), precision="fp16")
        assert found == pytest.approx(known_ms, rel=0.05)


def test_this_machine_is_measured_by_the_fastest_library(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {
        "fp32": {"numpy": 50.0, "onnxruntime": 90.0},
        "fp16": {"onnxruntime": 40.0},
        "bf16": {},
        "int8": {"onnxruntime": 300.0, "openvino": 400.0},
        "memory": {"triad": 15.0, "read": 30.0},
        "cache": {"read": 100.0},
    }
    monkeypatch.setattr(roofline, "cpu_rates", lambda *_: rates)
    found = device_named("this machine")
    assert found.peak_tflops == pytest.approx(
        {"fp32": 0.09, "fp16": 0.09, "bf16": 0.09, "int8": 0.4}
    )
    assert found.bandwidth_gb_s == 30.0
    assert "measured now" in found.source
    assert "int8 openvino, memory read" in found.source


def test_this_machine_is_really_measured() -> None:
    quick = measure_this_machine(seconds=0.001)
    # From a microcontroller to a large server.
    assert 1e-4 < quick.peak_tflops["fp32"] < 100
    assert 0.1 < quick.bandwidth_gb_s < 5000


def test_an_unknown_device_names_the_known_ones() -> None:
    assert device_named("agx orin 64gb").name == "AGX Orin 64GB"
    with pytest.raises(InputError, match=r"no device 'Xavier'.*'Orin NX 16GB'.*'this machine'"):
        device_named("Xavier")
