"""What every backend can do, and how one is chosen."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle import Bundle, Precision
from edge_runtime.cuda_device import cuda_device_count
from edge_runtime.errors import BackendError, BundleError, GateError, InputError, SkyfixError
from edge_runtime.gates import GateReport, gate_encoder
from edge_runtime.preprocess import resize_to_encoder

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

BackendName = Literal["auto", "ort-cpu", "ort-cuda", "tensorrt", "ort-tensorrt"]
BACKENDS: tuple[str, ...] = get_args(BackendName)


@dataclass(frozen=True, kw_only=True)
class BackendInfo:
    """What really runs."""

    name: str
    """As asked for: ort-cpu, ort-cuda, tensorrt, ort-tensorrt."""
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
    """Why backends that would have been better were not taken, and what else to know."""


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

    `auto` takes the first of these that is here and passes the probes: a fresh TensorRT engine,
    ONNX Runtime on CUDA, ONNX Runtime on the CPU; `info.notes` says why not an earlier one.

    Args:
        bundle: an opened bundle.
        name: which backend.
        precision: which ONNX file or engine; by default fp16 on a GPU where there is one, else
            fp32.
        threads: CPU threads; by default all of this machine's.
        engines: folder of TensorRT engines; by default in the bundle.

    Raises:
        BackendError: not installed, not available here, or it fails the probes.
        InputError: no such backend.
    """
    if name not in BACKENDS:
        msg = f"there is no backend {name!r}; give one of {', '.join(BACKENDS)}"
        raise InputError(msg)
    if name != "auto":
        return _proven(bundle, name, precision, threads, engines, ())
    notes: list[str] = []
    if cuda_device_count() == 0:
        notes.append("tensorrt and ort-cuda were not taken: no CUDA device was found")
    else:
        better: tuple[BackendName, ...] = ("tensorrt", "ort-cuda")
        for candidate in better:
            try:
                return _proven(bundle, candidate, precision, threads, engines, tuple(notes))
            except (BackendError, BundleError) as error:
                notes.append(f"{candidate} was not taken: {error}")
    return _proven(bundle, "ort-cpu", precision, threads, engines, tuple(notes))


def _proven(
    bundle: Bundle,
    name: BackendName,
    precision: Precision | None,
    threads: int | None,
    engines: Path | None,
    notes: tuple[str, ...],
) -> Backend:
    backend = _opener(bundle, name, precision, threads, engines, notes)()
    try:
        check_probes(bundle, backend)
    except SkyfixError:
        backend.close()
        raise
    return backend


def _opener(
    bundle: Bundle,
    name: BackendName,
    precision: Precision | None,
    threads: int | None,
    engines: Path | None,
    notes: tuple[str, ...],
) -> Callable[[], Backend]:
    """Load the module that a backend needs and no other."""
    if name == "tensorrt":
        from edge_runtime.backends.trt import TensorRtBackend

        return lambda: TensorRtBackend(bundle, precision=precision, engines=engines, notes=notes)
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
        return lambda: open_ort_tensorrt(
            bundle, precision=precision, engines=engines, threads=threads, notes=notes
        )
    on_gpu = name == "ort-cuda"
    chosen = precision or (default_precision(bundle) if on_gpu else "fp32")
    return lambda: OrtBackend(
        bundle,
        device="cuda" if on_gpu else "cpu",
        precision=chosen,
        threads=threads,
        notes=notes,
    )


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
