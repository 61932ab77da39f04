"""The least time an encoder can take on a device: arithmetic or memory, whichever is slower.

The roofline model (Williams, Waterman and Patterson 2009), kernel by kernel. It leaves out what
launching a kernel costs and assumes that every kernel reaches its ceiling, so a device is never
faster and small networks are often much slower.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edge_runtime.backends.protocol import usable_cores
from edge_runtime.errors import InputError
from export.cpu_rates import best_of, best_peaks, cpu_rates
from export.graph_costs import Cost

Arithmetic = Literal["fp32", "fp16", "int8"]

_FLOAT_BYTES: Mapping[Arithmetic, int] = {"fp32": 4, "fp16": 2, "int8": 1}
_PROBE_S = 0.1
"""For each library and matrix size: someone waits for the table."""


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


def measure_this_machine(*, seconds: float = _PROBE_S) -> Device:
    """Measure the CPU's ceilings with all cores, by the fastest libraries that are installed.

    The same measurement as the limits of `python -m benchmarks matrix`, a little shorter.

    Args:
        seconds: for each library and matrix size.

    Raises:
        BackendError: the measurement failed.
    """
    threads = usable_cores()
    rates = cpu_rates(threads, seconds)
    peaks = best_peaks(rates)
    bandwidth_gb_s, memory_by = best_of(rates["memory"])
    by = ", ".join(f"{kind} {name}" for kind, (_, name) in peaks.items())
    return Device(
        name=THIS_MACHINE,
        peak_tflops={kind: rate / 1e3 for kind, (rate, _) in peaks.items()},
        bandwidth_gb_s=bandwidth_gb_s,
        source=f"measured now, CPU, {threads} threads: {by}, memory {memory_by}",
    )


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
