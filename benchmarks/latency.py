"""How long things take: backends by themselves, and stages as flights logged them.

**What is inside the clock of a backend row**: one call of `Backend.embed`, from a uint8 array in
host memory, already at the encoder's size, to float32 embeddings in host memory. Copies to and from
a device are inside, because flight pays them; decoding, ground view and search are not. Calls run
one after the other, each with other pixels, and the machine does nothing else on purpose. Nothing
is clipped, trimmed or averaged: percentiles are nearest-rank, and the maximum is the maximum.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.intervals import percentile
from benchmarks.rows import Provenance, cpu_name, gpu_name, provenance
from edge_runtime.backends.protocol import Backend, BackendName, open_backend
from edge_runtime.bundle import Bundle, Precision
from edge_runtime.errors import InputError
from edge_runtime.fix import STAGES, Fix

U8 = npt.NDArray[np.uint8]

EMULATED_FP16 = "not fp16: the CPU provider computes this file in fp32, with casts"
"""Note on rows whose precision the hardware did not really use."""


class Timing(NamedTuple):
    """Times of calls, milliseconds."""

    first_ms: float
    """The very first call."""
    calls_ms: list[float]
    """Every timed call after the warm-up, in order."""


@dataclass(frozen=True, kw_only=True)
class LatencyRow(Provenance):
    """Latency of one backend, precision and batch on one machine. See the module for the clock."""

    kind: Literal["latency"] = "latency"
    backend: str
    """As asked for."""
    provider: str
    """What really ran, read back from the library."""
    precision: Precision
    """Which ONNX file ran."""
    library: str
    """Library and version."""
    threads: int | None
    """CPU threads of the library; None where it has no say."""
    device: str
    """CPU or GPU by its own name."""
    batch: int
    """Images per call."""
    height_px: int
    width_px: int
    warmup_calls: int
    """Calls before the timed ones, the first one included."""
    timed_calls: int
    p50_ms: float
    """Per call of `batch` images, as all times here."""
    p90_ms: float
    p99_ms: float
    max_ms: float
    first_ms: float
    """First call of this batch size; opening had already run the probes, one image at a time."""
    open_ms: float
    """Loading the encoder and proving it on the bundle's probes."""
    bundle_id: str
    weights_sha256: str
    note: str = ""
    """What else to know about the number."""


@dataclass(frozen=True, kw_only=True)
class StageRow(Provenance):
    """Latency of one stage over all frames of a log, the first one included."""

    kind: Literal["stage_latency"] = "stage_latency"
    flight: str
    stage: str
    """One of capture, ground_view, encode, search, refine, track, total."""
    frames: int
    """Frames that have a time for this stage."""
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    deadline_missed: int
    """Frames of the log that missed their deadline."""
    device: str
    """Machine the log was made on, as the caller says; logs do not hold it."""
    bundle_id: str
    index_id: str
    engine_id: str
    """Provider that really ran and precision."""
    backend: str


def time_calls(
    backend: Backend,
    images: U8,
    *,
    calls: int,
    warmup: int,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Timing:
    """Time `Backend.embed`, call by call.

    Args:
        backend: an open backend.
        images: (V, N, H, W, 3) uint8 RGB: V different batches, taken in turn.
        calls: timed calls.
        warmup: calls before them, at least one; the first is reported by itself.
        clock_ns: a monotonic clock, nanoseconds.

    Raises:
        InputError: fewer than one call or warm-up call.
    """
    if calls < 1 or warmup < 1:
        msg = f"{calls} calls after {warmup} warm-up calls; expected at least 1 of each"
        raise InputError(msg)
    times_ms = []
    for k in range(warmup + calls):
        batch = images[k % len(images)]
        start_ns = clock_ns()
        backend.embed(batch)
        times_ms.append((clock_ns() - start_ns) / 1e6)
    return Timing(times_ms[0], times_ms[warmup:])


def measure_backend(
    bundle: Bundle,
    name: BackendName,
    *,
    precision: Precision | None = None,
    batch: int = 1,
    calls: int = 200,
    warmup: int = 20,
    threads: int | None = None,
) -> LatencyRow:
    """Open a backend, time it on the bundle's probe images, and close it.

    Raises:
        SkyfixError: the backend or precision is not available here, or a count makes no sense.
    """
    if batch < 1:
        msg = f"batch is {batch}; expected at least 1 image per call"
        raise InputError(msg)
    start_s = time.perf_counter()
    backend = open_backend(bundle, name, precision=precision, threads=threads)
    open_ms = 1e3 * (time.perf_counter() - start_s)
    try:
        timing = time_calls(
            backend, probe_batches(bundle.probes()[0], batch), calls=calls, warmup=warmup
        )
    finally:
        backend.close()
    return latency_row(bundle, backend, timing, batch=batch, warmup=warmup, open_ms=open_ms)


def latency_row(
    bundle: Bundle, backend: Backend, timing: Timing, *, batch: int, warmup: int, open_ms: float
) -> LatencyRow:
    """Put times and everything needed to understand them into a row."""
    info = backend.info
    on_cpu = info.provider == "CPUExecutionProvider"
    return LatencyRow(
        **provenance(),
        backend=info.name,
        provider=info.provider,
        precision=info.precision,
        library=info.library,
        threads=info.threads,
        device=cpu_name() if on_cpu else gpu_name() or f"unknown GPU ({cpu_name()})",
        batch=batch,
        height_px=bundle.spec.height_px,
        width_px=bundle.spec.width_px,
        warmup_calls=warmup,
        timed_calls=len(timing.calls_ms),
        p50_ms=percentile(timing.calls_ms, 50),
        p90_ms=percentile(timing.calls_ms, 90),
        p99_ms=percentile(timing.calls_ms, 99),
        max_ms=max(timing.calls_ms),
        first_ms=timing.first_ms,
        open_ms=open_ms,
        bundle_id=bundle.id,
        weights_sha256=bundle.weights_sha256,
        note=EMULATED_FP16 if on_cpu and info.precision == "fp16" else "",
    )


def probe_batches(probes: U8, batch: int) -> U8:
    """(P, H, W, 3) probe images as (P, batch, H, W, 3) batches, each starting at another probe."""
    order = (np.arange(len(probes))[:, None] + np.arange(batch)[None, :]) % len(probes)
    return np.ascontiguousarray(probes[order])


def stage_rows(fixes: Sequence[Fix], flight: str, *, device: str = "") -> list[StageRow]:
    """One row per stage that any frame has a time for.

    Args:
        fixes: the log, every frame of it.
        flight: name of the log.
        device: machine it was made on, when known.
    """
    made_by = provenance()
    missed = sum(fix.deadline_missed for fix in fixes)
    rows = []
    for stage in STAGES:
        times_ms = [fix.latency_ms[stage] for fix in fixes if stage in fix.latency_ms]
        if not times_ms:
            continue
        rows.append(
            StageRow(
                **made_by,
                flight=flight,
                stage=stage,
                frames=len(times_ms),
                p50_ms=percentile(times_ms, 50),
                p90_ms=percentile(times_ms, 90),
                p99_ms=percentile(times_ms, 99),
                max_ms=max(times_ms),
                deadline_missed=missed,
                device=device,
                bundle_id=fixes[0].bundle_id,
                index_id=fixes[0].index_id,
                engine_id=fixes[0].engine_id,
                backend=fixes[0].backend,
            )
        )
    return rows
