"""The least time an encoder can take on a device: arithmetic or memory, whichever is slower.

The roofline model (Williams, Waterman and Patterson 2009), kernel by kernel. It leaves out what
launching a kernel costs and assumes that every kernel reaches its ceiling, so a device is never
faster and small networks are often much slower. Needs numpy alone.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_runtime.errors import InputError
from export.graph_costs import Cost

Arithmetic = Literal["fp32", "fp16", "int8"]

_FLOAT_BYTES: Mapping[Arithmetic, int] = {"fp32": 4, "fp16": 2, "int8": 1}
_WORKING_SET = 1 << 28
"""Bytes copied to measure memory: beyond any cache."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """Ceilings of a device: dense arithmetic, never the doubled figures for sparse weights."""

    name: str
    peak_tflops: Mapping[str, float]
    """1e12 operations a second (a multiply-accumulate is two), by precision."""
    bandwidth_gb_s: float
    """Memory bandwidth, 1e9 bytes a second."""
    source: str
    """Where the figures are from."""


def _orin(name: str, cores: int, gpu_mhz: float, bandwidth_gb_s: float, source: str) -> Device:
    """An Orin's GPU (Ampere, sm_87): 2 operations a CUDA core and clock in FP32.

    Tensor cores do 8 times that in FP16 and 16 times in INT8, dense: 2048 cores at 1.3 GHz give 5.3
    TFLOPS of FP32 and the 85 dense, 170 sparse, INT8 TOPS of NVIDIA's Jetson AGX Orin Series
    Technical Brief v1.2. TF32, which TensorRT may use for FP32, would be 4 times FP32. The DLAs,
    which engines do not use unless told to, are left out.
    """
    fp32 = 2 * cores * gpu_mhz * 1e6 / 1e12
    return Device(
        name=name,
        peak_tflops={"fp32": fp32, "fp16": 8 * fp32, "int8": 16 * fp32},
        bandwidth_gb_s=bandwidth_gb_s,
        source=source,
    )


DEVICES: tuple[Device, ...] = (
    # Cores, highest GPU clock and memory bandwidth: NVIDIA's data sheets of the modules (Jetson
    # Orin Nano Series DS-11105-001, Orin NX Series DS-10712-001, AGX Orin Series DS-10662-001).
    _orin("Orin Nano 8GB", 1024, 625, 68.0, "NVIDIA Jetson Orin Nano Series data sheet, 15 W mode"),
    _orin("Orin Nano 8GB Super", 1024, 1020, 102.0, "the same, 25 W and MAXN_SUPER modes"),
    _orin("Orin NX 16GB", 1024, 918, 102.4, "NVIDIA Jetson Orin NX Series data sheet"),
    _orin("AGX Orin 64GB", 2048, 1300, 204.8, "NVIDIA Jetson AGX Orin Series data sheet"),
    Device(
        name="H200",
        peak_tflops={"fp32": 67.0, "fp16": 989.5, "int8": 1979.0},
        bandwidth_gb_s=4800.0,
        source="NVIDIA H200 Tensor Core GPU data sheet, SXM; tensor figures halved to dense",
    ),
)
THIS_MACHINE = "this machine"


def device_named(name: str) -> Device:
    """A device of `DEVICES`, or this machine, whose ceilings are measured now.

    Raises:
        InputError: no such device.
    """
    if name == THIS_MACHINE:
        return measure_this_machine()
    for device in DEVICES:
        if device.name.lower() == name.lower():
            return device
    known = ", ".join(repr(known) for known in (*(d.name for d in DEVICES), THIS_MACHINE))
    msg = f"there is no device {name!r}; expected one of {known}"
    raise InputError(msg)


def measure_this_machine(*, side: int = 1024, seconds: float = 0.5) -> Device:
    """Measure the CPU's two ceilings: numpy's FP32 matrix product, and copying memory.

    The best of several tries each, with the threads that numpy's BLAS uses (OMP_NUM_THREADS) for
    the product and one for the copy. FP16 and INT8 are not claimed: CPU kernels compute FP16 in
    FP32, and numpy has no INT8 product.

    Args:
        side: of the matrices.
        seconds: for each of the two.
    """
    rng = np.random.default_rng(0)
    one, other = (rng.random((side, side), np.float32) for _ in range(2))
    product = np.empty_like(one)
    source = np.ones(_WORKING_SET // 8, np.float64)
    target = np.empty_like(source)
    flops = 2 * side**3 / _best_s(lambda: np.matmul(one, other, out=product), seconds)
    # A copy reads and writes; the write first reads the line it fills, which numpy cannot avoid.
    bandwidth = 3 * _WORKING_SET / _best_s(lambda: np.copyto(target, source), seconds)
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    return Device(
        name=THIS_MACHINE,
        peak_tflops={"fp32": flops / 1e12},
        bandwidth_gb_s=bandwidth / 1e9,
        source=f"measured now: numpy, {threads} threads, best of {seconds:g} s each",
    )


def _best_s(call: Callable[[], object], seconds: float) -> float:
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


def roofline_ms(
    costs: Sequence[Cost], device: Device, *, precision: Arithmetic | None = None
) -> float | None:
    """Least time of kernels run one after the other.

    Args:
        costs: kernels or nodes, counted at the batch of interest.
        device: where.
        precision: what all floating-point arithmetic and numbers are taken to be; None for what
            the file says.

    Returns:
        Milliseconds for the batch; None where the device has no peak for a precision it needs.
    """
    total_s = 0.0
    for cost in costs:
        wanted = precision or ("fp16" if cost.precision == "bf16" else cost.precision)
        peak = device.peak_tflops.get(wanted)
        if peak is None and cost.macs == 0:  # Anything does for pointwise work: memory decides.
            peak = device.peak_tflops["fp32"]
        if peak is None:
            return None
        moved = cost.moved_bytes(None if precision is None else _FLOAT_BYTES[precision])
        # Only products run on tensor cores; what rides along in their kernel runs beside them.
        arithmetic_s = 2 * cost.macs / (peak * 1e12)
        beside_s = (cost.flops - 2 * cost.macs) / (device.peak_tflops["fp32"] * 1e12)
        memory_s = moved / (device.bandwidth_gb_s * 1e9)
        total_s += max(arithmetic_s, beside_s, memory_s)
    return total_s * 1e3
