"""What every backend can do, and how one is chosen."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle import Bundle
from edge_runtime.cuda_device import cuda_device_count
from edge_runtime.errors import BackendError, BundleError, GateError, InputError, SkyfixError
from edge_runtime.gates import GateReport, gate_encoder
from edge_runtime.precision import Precision
from edge_runtime.preprocess import resize_to_encoder

if TYPE_CHECKING:
    from edge_runtime.backends.openvino_cpu import OpenVinoBackend
    from edge_runtime.backends.ort import OrtBackend
    from edge_runtime.backends.trt import TensorRtBackend

    _Openable: TypeAlias = OrtBackend | OpenVinoBackend | TensorRtBackend

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

BackendName = Literal["auto", "ort-cpu", "openvino", "ort-cuda", "tensorrt", "ort-tensorrt"]
BACKENDS: tuple[str, ...] = get_args(BackendName)


@dataclass(frozen=True, kw_only=True)
class BackendInfo:
    """What really runs."""

    name: str
    """As asked for: ort-cpu, openvino, ort-cuda, tensorrt, ort-tensorrt."""
    provider: str
    """The library's own name for it, read back after the session was made."""
    precision: Precision
    """Which ONNX file of the bundle runs."""
    library: str
    """Library and version."""
    threads: int | None
    """CPU threads used by the library; None where it has no say."""
    engine: str = ""
    """Which TensorRT engine runs, with its digest; empty where none does."""
    notes: tuple[str, ...] = ()
    """Why others were not taken, what was measured to choose, and what else to know."""
    fallback: str = ""
    """Why what should run here does not: a GPU that could not be used, a library that is installed
    and does not load or answers wrongly. Empty where the best backend, or the one named, runs."""


class Backend(Protocol):
    """Maps images to embeddings. Not thread-safe; one per thread."""

    @property
    def info(self) -> BackendInfo:
        """What really runs."""
        ...

    def embed(self, images: U8) -> F32:
        """Embed a batch.

        Args:
            images: (N, H, W, 3) uint8, RGB, at the encoder's size.

        Returns:
            (N, D) float32, unit length. A fresh array: safe to keep.
        """
        ...

    def close(self) -> None:
        """Free the session. Calling it twice is harmless."""
        ...


def open_backend(
    bundle: Bundle,
    name: BackendName = "auto",
    *,
    precision: Precision | None = None,
    threads: int | None = None,
    engines: Path | None = None,
) -> Backend:
    """Open a backend and prove on the bundle's probes that it answers as the trained encoder did.

    `auto` takes, where there is a CUDA device, the first of these that runs and passes the probes:
    a fresh TensorRT engine, ONNX Runtime on CUDA. Else it times what runs on the CPU (ONNX Runtime,
    OpenVINO where it is installed) for a moment and takes the fastest that passes. `info.notes`
    says what was measured and `info.fallback` what should have run and could not.

    Args:
        bundle: an opened bundle.
        name: which backend.
        precision: which ONNX file or engine; by default fp16 on a GPU where there is one, else
            fp32.
        threads: CPU threads; by default one for each core this process may use.
        engines: folder of TensorRT engines; by default in the bundle.

    Raises:
        BackendError: not installed, not available here, or it fails the probes.
        InputError: no such backend.
    """
    if name not in BACKENDS:
        msg = f"there is no backend {name!r}; give one of {', '.join(BACKENDS)}"
        raise InputError(msg)
    if name != "auto":
        return _proven(bundle, _opened(bundle, name, precision, threads, engines))
    notes: list[str] = []
    failed: list[str] = []
    if cuda_device_count() == 0:
        notes.append("tensorrt and ort-cuda were not taken: no CUDA device was found")
    else:
        better: tuple[BackendName, ...] = ("tensorrt", "ort-cuda")
        for candidate in better:
            try:
                backend = _proven(bundle, _opened(bundle, candidate, precision, threads, engines))
            except (BackendError, BundleError) as error:
                failed.append(f"{candidate} was not taken: {error}")
            else:
                return _explained(backend, notes, failed)
    return _fastest_on_cpu(bundle, precision, threads, notes, failed)


def _fastest_on_cpu(
    bundle: Bundle,
    precision: Precision | None,
    threads: int | None,
    notes: list[str],
    failed: list[str],
) -> "_Openable":
    """Time what is installed and prove the fastest; the others where it fails the probes."""
    from edge_runtime.backends.speed import by_preference, frame_times_ms, in_words

    modules: dict[BackendName, str] = {"ort-cpu": "onnxruntime", "openvino": "openvino"}
    installed = [name for name, module in modules.items() if importlib.util.find_spec(module)]
    running: dict[str, _Openable] = {}
    errors: list[BackendError] = []
    for candidate in installed or modules:
        try:
            running[candidate] = _opened(bundle, candidate, precision, threads, None)
        except BackendError as error:
            errors.append(error)
            failed.append(f"{candidate} was not taken: {error}")
    order: list[str] = list(running)
    measured = ""
    if len(running) > 1:
        try:
            shape = (bundle.spec.height_px, bundle.spec.width_px, 3)
            times_ms = frame_times_ms(running, shape)
        except BackendError as error:
            # Who it was shows when they are proven one by one.
            measured = f"not timed: {error}"
        else:
            measured, order = in_words(times_ms), by_preference(times_ms)
    for chosen in order:
        try:
            backend = _proven(bundle, running.pop(chosen))
        except BackendError as error:
            errors.append(error)
            failed.append(f"{chosen} was not taken: {error}")
            continue
        for other in running.values():
            other.close()
        if measured:
            notes.append(f"{measured}: took {chosen}")
        return _explained(backend, notes, failed)
    raise errors[0]


def _explained(backend: "_Openable", notes: Sequence[str], failed: Sequence[str]) -> "_Openable":
    """Let a backend's `info` say how it was chosen."""
    info = backend.info
    backend.info = replace(
        info, notes=(*failed, *notes, *info.notes), fallback=" ".join("; ".join(failed).split())
    )
    return backend


def _proven(bundle: Bundle, backend: "_Openable") -> "_Openable":
    try:
        check_probes(bundle, backend)
    except SkyfixError:
        backend.close()
        raise
    return backend


def _opened(
    bundle: Bundle,
    name: BackendName,
    precision: Precision | None,
    threads: int | None,
    engines: Path | None,
) -> "_Openable":
    """Load the module that a backend needs and no other."""
    if name == "tensorrt":
        from edge_runtime.backends.trt import TensorRtBackend

        return TensorRtBackend(bundle, precision=precision, engines=engines)
    if name == "openvino":
        from edge_runtime.backends.openvino_cpu import OpenVinoBackend

        return OpenVinoBackend(bundle, precision=precision or "fp32", threads=threads)
    try:
        from edge_runtime.backends.ort import OrtBackend
        from edge_runtime.backends.trt_ort_cache import default_precision, open_ort_tensorrt
    except ImportError as error:
        msg = (
            f"backend {name!r} cannot load its library ({' '.join(str(error).split())}). Install "
            "one of: pip install 'skyfix[cpu]', pip install 'skyfix[gpu]'"
        )
        raise BackendError(msg) from error
    if name == "ort-tensorrt":
        return open_ort_tensorrt(bundle, precision=precision, engines=engines, threads=threads)
    on_gpu = name == "ort-cuda"
    return OrtBackend(
        bundle,
        device="cuda" if on_gpu else "cpu",
        precision=precision or (default_precision(bundle) if on_gpu else "fp32"),
        threads=threads,
    )


def usable_cores() -> int:
    """Cores this process may run on: fewer than the machine's in a container or under taskset."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Not Linux.
        return os.cpu_count() or 1


def require_images(images: U8, shape: tuple[int, int, int]) -> None:
    """Refuse images that are not in the encoder's shape.

    Raises:
        InputError: not (N, *shape) uint8.
    """
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        msg = (
            f"images are {images.dtype} of shape {images.shape}; "
            f"expected uint8 of (N, {', '.join(map(str, shape))})"
        )
        raise InputError(msg)


def check_probes(bundle: Bundle, backend: Backend) -> GateReport:
    """Embed the bundle's probe images and put the answers through the gates of their precision.

    The resize before the encoder is checked too: OpenCV builds of one version may differ in it.

    Returns:
        What the gates measured.

    Raises:
        BackendError: the answers differ from the trained encoder's, are of another shape, not
            finite, not of unit length or all alike, or this OpenCV resizes otherwise.
        BundleError: no probes to compare with.
    """
    check_resize(bundle)
    precision = backend.info.precision
    images, reference = bundle.probes(precision)
    where = f"{backend.info.provider} {precision} on the probes of {bundle.root}"
    try:
        return gate_encoder(backend.embed, images, reference, precision, where=where)
    except GateError as error:
        msg = f"{error}. Use another backend or precision, or export the bundle again"
        raise BackendError(msg) from error


def check_resize(bundle: Bundle) -> None:
    """Resize the bundle's raw probes with this machine's OpenCV and compare.

    Raises:
        BackendError: pixels differ by more than rounding.
        BundleError: no such probes.
    """
    raw, expected = bundle.resize_probes()
    for image, wanted in zip(raw, expected, strict=True):
        found = resize_to_encoder(image, bundle.spec)
        off = int(np.abs(found.astype(np.int16) - wanted).max())
        if off > MAX_RESIZE_ERROR:
            msg = (
                f"this machine's OpenCV resizes a test picture of {bundle.root} with pixels up to "
                f"{off} of 255 off, expected at most {MAX_RESIZE_ERROR}: the encoder would see "
                "other images than in training. Install another OpenCV, as "
                "pip install 'skyfix[opencv]'"
            )
            raise BackendError(msg)


MAX_RESIZE_ERROR = 2
"""Levels of 255 by which builds of OpenCV may round a bilinear resize differently."""
