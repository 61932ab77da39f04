"""How long backends take by themselves.

**What is inside the clock of a backend's row**: one call of `Backend.embed`, from a uint8 array in
host memory, already at the encoder's size, to float32 embeddings in host memory. Copies to and from
a device are inside, because flight pays them, and so is all of the device's work: the call ends
when its answer is in host memory. Decoding, ground view and search are not. Calls run one after the
other, each with other pixels, after a warm-up of so many calls and at least half a second, and the
machine does nothing else on purpose. Nothing is clipped, trimmed or averaged: percentiles are
nearest-rank, and the maximum is the maximum.
"""

import contextlib
import importlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.clock_cost import CLOCK_NS, clock_cost_ns
from benchmarks.compare.pairing import ANY_PRECISION, comparison_key
from benchmarks.machine import Machine, WorkWatch
from benchmarks.measurement import Energy, Limit, MeasurementRow, Memory, Quality
from benchmarks.memory_use import MemoryWatch, in_child
from benchmarks.rows import provenance, read_rows
from benchmarks.time_summary import TimeSummary
from benchmarks.timing import timed_calls
from edge_runtime.backends.protocol import BackendInfo, BackendName, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.engine_store import EngineRecord, engines_of, list_records
from edge_runtime.errors import InputError, SkyfixError
from edge_runtime.precision import Precision
from edge_runtime.preprocess import EncoderSpec

U8 = npt.NDArray[np.uint8]

EMULATED_FP16 = "not fp16: the CPU computes this file in fp32, with casts"
"""Note on rows whose precision the hardware did not really use."""
ENERGY_NOT_ASKED = Energy(
    source="", watts=None, idle_watts=None, joules_per_call=None, skipped="not asked for"
)
WARMUP_S = 0.5
"""Least warm-up: clocks and caches of a CPU need longer than some calls of a small encoder."""
_PROVIDERS: dict[str, str] = {
    "ort-cpu": "CPUExecutionProvider",
    "openvino": "OpenVINO CPU",
    "ort-cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorRT",
    "ort-tensorrt": "TensorrtExecutionProvider",
}
"""What runs where a backend is not replaced by another."""
_ON_CPU = ("CPUExecutionProvider", "OpenVINO CPU")


def measure_backend(
    bundle: Bundle,
    name: BackendName,
    *,
    precision: Precision | None = None,
    batch: int = 1,
    calls: int = 200,
    warmup: int = 20,
    threads: int | None = None,
) -> MeasurementRow:
    """Open a backend, time it on the bundle's probe images, and close it.

    All in a process of its own: what else this one has loaded, and what earlier backends left in
    it, is in neither the memory nor the times.

    Raises:
        SkyfixError: the backend or precision is not available here, or a count makes no sense.
    """
    if min(batch, calls, warmup) < 1 or (threads is not None and threads < 1):
        msg = (
            f"batch {batch}, {calls} calls after {warmup} for warm-up, threads "
            f"{threads or 'all'}; expected at least 1 of each"
        )
        raise InputError(msg)
    return in_child(_measure, bundle.root, name, precision, batch, calls, warmup, threads)


def _measure(
    root: Path,
    name: BackendName,
    precision: Precision | None,
    batch: int,
    calls: int,
    warmup: int,
    threads: int | None,
) -> MeasurementRow:
    bundle = Bundle.open(root)
    images = probe_batches(bundle.probes()[0], batch)
    work = WorkWatch()
    _load_libraries(name)
    watch = MemoryWatch()
    start_ns = CLOCK_NS()
    backend = open_backend(bundle, name, precision=precision, threads=threads)
    load_s = (CLOCK_NS() - start_ns) / 1e9
    try:
        watch.look()
        timed = timed_calls(
            lambda k: backend.embed(images[k % len(images)]),
            calls=calls,
            warmup=warmup,
            warmup_s=WARMUP_S,
        )
        here = work.machine()
        memory = watch.memory()
    finally:
        backend.close()
    summary = timed.summary(items_per_call=batch)
    return measurement_row(
        bundle,
        backend.info,
        asked=name,
        asked_precision=precision,
        asked_threads=threads,
        batch=batch,
        here=here,
        time=summary,
        memory=memory,
        load_s=load_s,
        note=clock_cost_ns().note(summary.p50_ms),
    )


def measurement_row(
    bundle: Bundle,
    info: BackendInfo,
    *,
    asked: BackendName,
    asked_precision: Precision | None = None,
    asked_threads: int | None = None,
    batch: int,
    here: Machine,
    time: TimeSummary,
    memory: Memory,
    load_s: float,
    quality: Quality | None = None,
    limit: Limit | None = None,
    energy: Energy = ENERGY_NOT_ASKED,
    note: str = "",
) -> MeasurementRow:
    """Put times and everything needed to understand them into a row.

    Args:
        bundle: what ran.
        info: what the open backend says of itself.
        asked: what was asked for; `auto` becomes the backend that it chose.
        asked_precision: None for the backend's own choice.
        asked_threads: None for all that this process may use.
        batch: pictures in a call.
        here: the machine.
        time: of calls.
        memory: of the process.
        load_s: loading the encoder and proving it on the bundle's probes.
        quality: where it was measured.
        limit: where it was measured.
        energy: why there is none, by default.
        note: what else to know about the numbers.
    """
    record = engine_record(bundle, info)
    onnx = f"encoder.{info.precision}.onnx"
    emulated = info.precision == "fp16" and on_cpu(info.provider)
    # What a fallback says already is among the backend's notes too.
    chosen = [said for said in info.notes if " ".join(said.split()) not in info.fallback]
    notes = (note, EMULATED_FP16 if emulated else "", *chosen)
    return MeasurementRow(
        **provenance(),
        protocol="latency",
        encoder=encoder_name(bundle.spec),
        architecture=bundle.spec.architecture,
        weights=f"of the bundle, sha256 {bundle.weights_sha256[:12]}",
        asked=asked_words(asked, asked_precision, asked_threads),
        runtime=info.name if asked == "auto" else asked,
        provider=info.provider,
        precision=info.precision,
        library=info.library,
        threads=info.threads,
        batch=batch,
        height_px=bundle.spec.height_px,
        width_px=bundle.spec.width_px,
        fallback=fallback_of(asked, info, precision=asked_precision),
        model_sha256=bundle.manifest.files[onnx],
        engine_sha256=record.plan_sha256 if record else _digest_of(info.engine),
        bundle_id=bundle.id,
        machine=here,
        time=time,
        stages={},
        memory=memory,
        load_s=load_s,
        build_s=record.build_seconds if record else None,
        compile_s=None,
        quality=quality,
        limit=limit,
        energy=energy,
        note="; ".join(n for n in notes if n),
    )


def asked_words(name: BackendName, precision: Precision | None, threads: int | None) -> str:
    """What was asked for, before a backend or library chose what was left open."""
    return f"{name} {precision or ANY_PRECISION}, threads {threads or 'all'}"


def numbered(row: MeasurementRow, path: Path | None) -> MeasurementRow:
    """A row that knows how often its file has the same measurement already.

    Args:
        row: a new one.
        path: of the rows that it is to follow; may not exist yet.
    """
    if path is None or not path.exists():
        return row
    key = comparison_key(asdict(row))
    same = [r for r in read_rows(path, kind=row.kind) if comparison_key(r) == key]
    return replace(row, run=1 + max((int(r["run"]) for r in same), default=-1))


def fallback_of(
    asked: BackendName, info: BackendInfo, *, precision: Precision | None = None
) -> str:
    """Why something else runs than was asked for; empty where it does not.

    Args:
        asked: the backend.
        info: what the open backend says of itself.
        precision: that was asked for; None for the backend's own choice.
    """
    found = [info.fallback] if info.fallback else []
    expected = _PROVIDERS.get(info.name if asked == "auto" else asked, info.provider)
    if info.provider != expected:
        found.append(f"{asked} was asked for, which is {expected}, and {info.provider} ran")
    if precision is not None and info.precision != precision:
        found.append(f"{precision} was asked for and {info.precision} ran")
    return "; ".join(found)


def on_cpu(provider: str) -> bool:
    """Whether a provider, as a row names it, computes on the CPU."""
    return provider in _ON_CPU


def device_of(provider: str, cpu: str, gpu: str | None) -> str:
    """The CPU or GPU that computed, by its own name."""
    return cpu if on_cpu(provider) else gpu or f"unknown GPU ({cpu})"


def encoder_name(spec: EncoderSpec) -> str:
    """Short name: the architecture without its pretraining, and the input's size."""
    size = f"{spec.height_px}"
    if spec.width_px != spec.height_px:
        size += f"x{spec.width_px}"
    return f"{spec.architecture.partition('.')[0]}-{size}"


def engine_record(bundle: Bundle, info: BackendInfo) -> EngineRecord | None:
    """The sidecar of the native engine that runs; None where none does."""
    if info.name != "tensorrt":
        return None
    name, digest = info.engine.partition(" ")[0], _digest_of(info.engine)
    for _, record in list_records(engines_of(bundle)):
        if (
            isinstance(record, EngineRecord)
            and record.name == name
            and digest
            and record.plan_sha256.startswith(digest)
        ):
            return record
    return None


def _digest_of(engine: str) -> str:
    """The digest at the end of a backend's `engine`; empty where there is none."""
    last = engine.rpartition(" ")[2].rpartition("-")[2]
    return last if len(last) >= 12 and set(last) <= set("0123456789abcdef") else ""


def _load_libraries(name: BackendName) -> None:
    """Load what a backend needs, so that its memory and time are not the encoder's.

    What does not load is left to `open_backend`, which says why.
    """
    with contextlib.suppress(ImportError, SkyfixError):
        if name in ("openvino", "auto"):
            from edge_runtime.backends.openvino_cpu import load_openvino

            load_openvino()
    with contextlib.suppress(ImportError, SkyfixError):
        if name == "tensorrt":
            from edge_runtime.backends.trt_library import require_tensorrt

            require_tensorrt()
            importlib.import_module("edge_runtime.backends.trt_runner")
    with contextlib.suppress(ImportError):
        if name.startswith("ort-") or name == "auto":
            importlib.import_module("edge_runtime.backends.ort")


def probe_batches(probes: U8, batch: int) -> U8:
    """(P, H, W, 3) probe images as (P, batch, H, W, 3) batches, each starting at another probe."""
    order = (np.arange(len(probes))[:, None] + np.arange(batch)[None, :]) % len(probes)
    return np.ascontiguousarray(probes[order])
