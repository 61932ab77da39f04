"""Rows of measurements as a test wants them; all else is the same everywhere."""

from dataclasses import replace
from typing import Any

from benchmarks.machine import Machine
from benchmarks.measurement import Energy, Limit, MeasurementRow, Memory, NotRunRow, Quality
from benchmarks.time_summary import time_summary

MACHINE = Machine(
    cpu="A Test CPU", cores=4, memory_mib=8192, gpu=None, gpu_driver=None, system="Linux 6",
    python="3.11.7", libraries={"numpy": "2.0"}, power_mode=None, clocks_mhz={"cpu": 2000.0},
    temperatures_c={}, load_1min=0.5,
)  # fmt: skip
MADE_BY: dict[str, Any] = {
    "skyfix_version": "0.1.0",
    "git_commit": "abc1234",
    "measured_utc": "2026-01-02T03:04:05Z",
}


def measured(median_ms: float = 10.0, *, calls: int = 101, **values: Any) -> MeasurementRow:
    """A row whose calls take from 0.9 to 1.1 medians, the times of all in order of none."""
    times = [median_ms * (0.9 + 0.2 * (37 * k % calls) / (calls - 1)) for k in range(calls)]
    row = MeasurementRow(
        **MADE_BY, protocol="latency", encoder="small-128", architecture="a_timm_name",
        weights="random, seed 1", runtime="ort-cpu", provider="CPUExecutionProvider",
        precision="fp32", library="onnxruntime 1.30", threads=4, batch=1, height_px=128,
        width_px=128, model_sha256="ab" * 32, machine=MACHINE,
        time=time_summary(times, warmup=5, first_ms=3 * median_ms), stages={},
        memory=Memory(host_peak_mib=300.0, host_before_mib=100.0, gpu_peak_mib=None),
        load_s=0.25, build_s=None, compile_s=None,
        quality=Quality(
            pictures=20, reference="torch eager fp32", min_cosine=0.999996, median_cosine=0.999999,
            top1_agreement=1.0, recall_at_1=None, success_20m=0.75, gallery=1234, data="a world",
        ),
        limit=Limit(
            gflop=1.0, traffic_mb=5.0, peak_gflops=200.0, bandwidth_gb_s=20.0, source="measured",
            bound="compute", roof_ms=5.0, ratio=5.0 / median_ms,
        ),
        energy=Energy(
            source="", watts=None, idle_watts=None, joules_per_call=None, skipped="no counters here"
        ),
    )  # fmt: skip
    return replace(row, **values)


def gap(**values: Any) -> NotRunRow:
    """A measurement that was not possible."""
    row = NotRunRow(
        **MADE_BY, encoder="small-128", runtime="tensorrt", precision="fp16", batch=1,
        reason="no CUDA device was found", machine=MACHINE,
    )  # fmt: skip
    return replace(row, **values)
