"""The two ceilings of a device, measured on the spot or looked up: arithmetic and memory.

A ceiling is the best that was seen of several libraries and repetitions, never a mean, and it is
kept for the process. On a machine that does other work the ceilings come out too low, which shows
as measurements faster than their limit (`benchmarks.roofline.limit`).
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from edge_runtime.backends.protocol import usable_cores
from edge_runtime.errors import BackendError
from export.cpu_probe import Rates, last_cache_bytes
from export.cpu_rates import best_of, best_peaks, cpu_rates

Arithmetic = Literal["fp32", "fp16", "bf16", "int8"]

_GPU_SIDES = (4096, 8192)
_GPU_COPY_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """What a device can do at best."""

    device: str
    peak_gflops: Mapping[str, float]
    """1e9 operations a second (two for each multiply-add), dense, by precision."""
    bandwidth_gb_s: float
    """Of memory, 1e9 bytes a second."""
    cache_bytes: int = 0
    """Of the last cache; 0 where `cache_gb_s` is not known."""
    cache_gb_s: float | None = None
    """Of the last cache: the ceiling for what fits into it and stays there between calls."""
    source: str
    """One line: how, with what."""
    contenders: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """All that was measured, by what and by whom; a ceiling is the best of them."""


def ceilings_of(device: Literal["cpu", "gpu"], threads: int | None = None) -> Ceilings:
    """The ceilings of this machine's CPU or GPU; of a Jetson's GPU from the data sheet.

    Args:
        device: which of them ran the measurement.
        threads: CPU threads that the measurement used; None for all that this process may use.

    Raises:
        BackendError: no GPU, or no library that could measure it.
    """
    from benchmarks.roofline.jetson_table import jetson_ceilings

    if device == "cpu":
        return cpu_ceilings(threads)
    return jetson_ceilings() or gpu_ceilings()


def cpu_ceilings(threads: int | None = None, *, seconds: float = 0.3) -> Ceilings:
    """Measure the CPU with so many threads; about 10 s the first time, kept afterwards.

    Raises:
        InputError: fewer than one thread.
        BackendError: the measurement failed.
    """
    threads = usable_cores() if threads is None else threads
    rates = cpu_rates(threads, seconds)
    return ceilings_from_rates(rates, threads=threads, cache_bytes=last_cache_bytes())


def ceilings_from_rates(rates: Rates, *, threads: int, cache_bytes: int) -> Ceilings:
    """The best contender of each kind."""
    peaks = best_peaks(rates)
    memory, memory_by = best_of(rates["memory"])
    return Ceilings(
        device=f"CPU, {threads} threads",
        peak_gflops={kind: rate for kind, (rate, _) in peaks.items()},
        bandwidth_gb_s=memory,
        cache_bytes=cache_bytes,
        cache_gb_s=max(best_of(rates["cache"])[0], memory),
        source=(
            f"measured, {threads} threads: "
            + "".join(f"{kind} {by}, " for kind, (_, by) in peaks.items())
            + f"memory {memory_by}"
        ),
        contenders=rates,
    )


class GpuProbe(Protocol):
    """What a library must be able to time on a GPU."""

    name: str
    """Of the GPU and the library."""
    cache_bytes: int
    """Of its last cache."""

    def product_s(self, precision: Arithmetic, side: int) -> float | None:
        """Shortest time of a square matrix product; None where the GPU or library has none."""
        ...

    def copy_s(self, count: int) -> float:
        """Shortest time of copying so many bytes within the GPU's memory."""
        ...


def gpu_ceilings(probe: GpuProbe | None = None) -> Ceilings:
    """Measure the GPU: matrix products, and copies, which read and write every byte.

    Written for torch with CUDA and not run on a GPU yet; up to `GpuProbe` it is tested.

    Raises:
        BackendError: torch with CUDA or the GPU is missing.
    """
    if probe is None:
        return _torch_ceilings()
    peaks: dict[str, float] = {}
    for precision in get_args(Arithmetic):
        for side in _GPU_SIDES:
            seconds = probe.product_s(precision, side)
            if seconds is not None:
                peaks[precision] = max(peaks.get(precision, 0.0), 2 * side**3 / seconds / 1e9)
    small = probe.cache_bytes // 4  # Read and written, they take half the cache.
    return Ceilings(
        device=probe.name,
        peak_gflops=peaks,
        bandwidth_gb_s=2 * _GPU_COPY_BYTES / probe.copy_s(_GPU_COPY_BYTES) / 1e9,
        cache_bytes=probe.cache_bytes,
        cache_gb_s=2 * small / probe.copy_s(small) / 1e9 if small else None,
        source=f"measured: {probe.name}, products of {_GPU_SIDES} and copies; fp32 may use TF32",
    )


@functools.cache
def _torch_ceilings() -> Ceilings:
    try:
        import torch
    except ImportError as error:
        msg = "the GPU's ceilings need torch with CUDA, which is not installed; see docs/gpu.md"
        raise BackendError(msg) from error
    if not torch.cuda.is_available():
        msg = (
            f"torch {torch.__version__} finds no CUDA device; expected one to measure. "
            "Install torch for CUDA, or leave the limit out"
        )
        raise BackendError(msg)
    return gpu_ceilings(_TorchProbe(torch))


class _TorchProbe:
    """Products and copies by torch, timed by CUDA events."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        properties = torch.cuda.get_device_properties(0)
        self.name = f"{properties.name}, torch {torch.__version__}"
        self.cache_bytes = int(getattr(properties, "L2_cache_size", 0))

    def product_s(self, precision: Arithmetic, side: int) -> float | None:
        torch = self._torch
        if precision == "int8":
            product = getattr(torch, "_int_mm", None)
            if product is None:
                return None
            one, other = torch.ones((2, side, side), dtype=torch.int8, device="cuda")
            return self._shortest_s(lambda: product(one, other))
        names = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
        dtype = getattr(torch, names[precision])
        # Other libraries use TF32 for fp32 files unless told not to, so the ceiling must have it.
        torch.backends.cuda.matmul.allow_tf32 = True
        one, other = torch.ones((2, side, side), dtype=dtype, device="cuda")
        return self._shortest_s(lambda: torch.mm(one, other))

    def copy_s(self, count: int) -> float:
        source, target = self._torch.ones((2, count), dtype=self._torch.uint8, device="cuda")
        return self._shortest_s(lambda: target.copy_(source))

    def _shortest_s(self, call: Callable[[], object], calls: int = 20) -> float:
        torch = self._torch
        best = math.inf
        for _ in range(calls):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            best = min(best, start.elapsed_time(end) / 1e3)
        return best
