"""Whatever runs an encoder, behind one small protocol."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.latency import EMULATED_FP16, fallback_of, on_cpu
from benchmarks.matrix.plan import Number, RuntimeName
from edge_runtime.backends.protocol import Backend, BackendName
from edge_runtime.bundle import Bundle
from edge_runtime.cuda_device import cuda_device
from edge_runtime.errors import BackendError, EngineError
from edge_runtime.precision import Precision

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RuntimeInfo:
    """What really runs, and what it took to get there."""

    provider: str
    """Read back from the library."""
    library: str
    threads: int | None
    load_s: float
    """From the file to ready for the first call, without what is built and kept."""
    build_s: float | None = None
    """Of the engine that runs, when it was built; None where none is."""
    model_sha256: str
    engine: str = ""
    """Name and digest of the engine; empty where none runs."""
    fallback: str = ""
    notes: tuple[str, ...] = ()


class Runtime(Protocol):
    """An opened encoder. Not thread-safe."""

    info: RuntimeInfo

    def embed(self, images: U8) -> F32:
        """(N, H, W, 3) uint8 RGB to (N, D) float32 of unit length, on the host."""
        ...

    def synchronise(self) -> None:
        """Wait until the device has done all it was given."""
        ...

    def close(self) -> None:
        """Free it."""
        ...


class FlownRuntime:
    """A backend as it flies. Its `embed` returns when the device is done."""

    def __init__(self, backend: Backend, info: RuntimeInfo) -> None:
        self.backend, self.info = backend, info

    def embed(self, images: U8) -> F32:
        """See `Runtime.embed`."""
        return self.backend.embed(images)

    def synchronise(self) -> None:
        """Nothing to wait for: embeddings are on the host already."""

    def close(self) -> None:
        """Free it."""
        self.backend.close()


def open_runtime(
    name: RuntimeName,
    precision: Number,
    *,
    bundle: Path,
    checkpoint: Path | None,
    engines: Path,
    batch: int,
    threads: int,
) -> Runtime:
    """Open an encoder.

    Args:
        name: what is to run it.
        precision: what it computes in.
        bundle: its exported files.
        checkpoint: its weights, which torch runs; None where they are not at hand.
        engines: folder of TensorRT engines; one that is missing is built.
        batch: pictures of a call.
        threads: CPU threads.

    Raises:
        SkyfixError: not here, not in this precision, or not this encoder; says which.
    """
    if name == "torch-eager" or name == "torch-compiled":
        from benchmarks.matrix.torch_runtime import TorchRuntime

        if checkpoint is None:
            msg = (
                "the bundle's checkpoint is not at hand, and torch runs nothing else; name it with "
                "--checkpoint"
            )
            raise BackendError(msg)
        return TorchRuntime(
            checkpoint, precision, compiled=name == "torch-compiled", threads=threads
        )
    if precision == "bf16":
        from benchmarks.matrix.openvino_bf16 import OpenVinoBf16

        return OpenVinoBf16(Bundle.open(bundle), threads=threads)
    opened = Bundle.open(bundle)
    _require_precision(opened, precision)
    build_s = None
    if name in ("tensorrt", "tensorrt-no-graph"):
        build_s = _engine_built(opened, precision, engines, batch)
    if name == "ort-tensorrt":
        build_s = _ort_cache_built(opened, precision, engines, batch)
    began_s = time.perf_counter()
    backend = _backend(name, opened, precision, engines=engines, threads=threads)
    load_s = time.perf_counter() - began_s
    asked: BackendName = "tensorrt" if name == "tensorrt-no-graph" else name
    info = backend.info
    emulated = info.precision == "fp16" and on_cpu(info.provider)
    return FlownRuntime(
        backend,
        RuntimeInfo(
            provider=info.provider,
            library=info.library,
            threads=info.threads,
            load_s=load_s,
            build_s=build_s,
            model_sha256=opened.manifest.files[f"encoder.{info.precision}.onnx"],
            engine=info.engine,
            fallback=fallback_of(asked, info, precision=precision),
            notes=(*info.notes, *([EMULATED_FP16] if emulated else [])),
        ),
    )


def _require_precision(bundle: Bundle, precision: Precision) -> None:
    """Say why the export refused a precision rather than that it is missing.

    Raises:
        BackendError: not shipped.
    """
    if precision in bundle.precisions:
        return
    refused = bundle.manifest.meta.get("refused", {}).get(precision)
    msg = f"the bundle has no {precision} encoder, only {', '.join(sorted(bundle.precisions))}"
    if refused:
        msg = f"the export refused {refused.removeprefix(f'{precision}: ')}"
    raise BackendError(msg)


def _backend(
    name: RuntimeName, bundle: Bundle, precision: Precision, *, engines: Path, threads: int
) -> Backend:
    """The backend itself: its answers are judged later, on more pictures than the probes.

    Raises:
        BackendError: it cannot run here.
    """
    if name == "openvino":
        from edge_runtime.backends.openvino_cpu import OpenVinoBackend

        return OpenVinoBackend(bundle, precision=precision, threads=threads)
    if name in ("tensorrt", "tensorrt-no-graph"):
        from edge_runtime.backends.trt import TensorRtBackend

        return TensorRtBackend(
            bundle, precision=precision, engines=engines, cuda_graph=name == "tensorrt"
        )
    from edge_runtime.backends.ort import OrtBackend
    from edge_runtime.backends.trt_ort_cache import open_ort_tensorrt

    if name == "ort-tensorrt":
        return open_ort_tensorrt(bundle, precision=precision, engines=engines, threads=threads)
    device = "cuda" if name == "ort-cuda" else "cpu"
    return OrtBackend(
        bundle, device="cuda" if device == "cuda" else "cpu", precision=precision, threads=threads
    )


def _engine_built(bundle: Bundle, precision: Precision, engines: Path, batch: int) -> float:
    """Build the engine where none is fresh; the seconds that the one to be run took.

    Raises:
        EngineError: no GPU, no TensorRT, or TensorRT refuses.
    """
    from edge_runtime.backends.trt import fresh_engine
    from edge_runtime.backends.trt_engines import build_engine
    from edge_runtime.backends.trt_library import require_tensorrt
    from edge_runtime.engine_store import EngineOptions

    platform = require_tensorrt()
    try:
        record, _ = fresh_engine(bundle, platform, precision=precision, folder=engines)
    except EngineError:
        record = build_engine(
            bundle, EngineOptions(precision=precision, max_batch=max(32, batch), out=engines)
        )
    return record.build_seconds


def _ort_cache_built(
    bundle: Bundle, precision: Precision, engines: Path, batch: int
) -> float | None:
    """Let ONNX Runtime's provider build its cache where none is fresh; the seconds it took.

    Returns:
        None where a fresh one lay there: how long it took is not known.

    Raises:
        EngineError: the provider wrote no engine.
        BackendError: no GPU, or no such provider.
        GateError: it answers otherwise than the trained encoder.
    """
    from edge_runtime.backends.trt_ort_cache import check_ort_tensorrt, prepare_ort_tensorrt

    cuda_device()  # Without a GPU that is what to say first.
    if any(found.fresh for found in check_ort_tensorrt(bundle, engines, precision=precision)):
        return None
    began_s = time.perf_counter()
    prepare_ort_tensorrt(bundle, precision=precision, max_batch=max(32, batch), out=engines)
    return time.perf_counter() - began_s
