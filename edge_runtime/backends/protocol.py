"""What every backend can do, and how one is chosen."""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle import Bundle, Precision
from edge_runtime.errors import BackendError, BundleError, GateError, InputError, SkyfixError
from edge_runtime.gates import GateReport, gate_encoder
from edge_runtime.preprocess import resize_to_encoder

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

BackendName = Literal["auto", "ort-cpu", "ort-cuda"]
BACKENDS: tuple[str, ...] = get_args(BackendName)


@dataclass(frozen=True, kw_only=True)
class BackendInfo:
    """What really runs."""

    name: str
    """As asked for: ort-cpu, ort-cuda."""
    provider: str
    """The library's own name for it, read back after the session was made."""
    precision: Precision
    """Which ONNX file of the bundle runs."""
    library: str
    """Library and version."""
    threads: int | None
    """CPU threads used by the library; None where it has no say."""


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
) -> Backend:
    """Open a backend and prove on the bundle's probes that it answers as the trained encoder did.

    `auto` takes CUDA when this machine has it and CUDA passes the probes, and the CPU otherwise.

    Args:
        bundle: an opened bundle.
        name: which backend.
        precision: which ONNX file; by default fp16 on CUDA where the bundle has it, else fp32.
        threads: CPU threads; by default all of this machine's.

    Raises:
        BackendError: not installed, not available here, or it fails the probes.
        InputError: no such backend.
    """
    if name not in BACKENDS:
        msg = f"there is no backend {name!r}; give one of {', '.join(BACKENDS)}"
        raise InputError(msg)
    try:
        from edge_runtime.backends.ort import OrtBackend, cuda_is_usable
    except ImportError as error:
        msg = (
            f"backend {name!r} cannot load its library ({' '.join(str(error).split())}). Install "
            "one of: pip install 'skyfix[cpu]', pip install 'skyfix[gpu]'"
        )
        raise BackendError(msg) from error
    if name == "auto":
        if cuda_is_usable():
            try:
                return open_backend(bundle, "ort-cuda", precision=precision, threads=threads)
            except (BackendError, BundleError):
                pass  # The caller sees which backend runs in `info` and in every fix record.
        name = "ort-cpu"
    if precision is None:
        precision = "fp16" if name == "ort-cuda" and "fp16" in bundle.precisions else "fp32"
    backend = OrtBackend(bundle, cuda=name == "ort-cuda", precision=precision, threads=threads)
    try:
        check_probes(bundle, backend)
    except SkyfixError:
        backend.close()
        raise
    return backend


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
    images, reference = bundle.probes()
    precision = backend.info.precision
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
