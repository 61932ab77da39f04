"""What every backend can do, and how one is chosen."""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from edge_runtime.bundle import Bundle, Precision
from edge_runtime.errors import BackendError, BundleError, InputError, SkyfixError

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


def check_probes(bundle: Bundle, backend: Backend) -> float:
    """Embed the bundle's probe images and compare them with the trained encoder's answers.

    Returns:
        The lowest cosine similarity over the probes.

    Raises:
        BackendError: below the precision's threshold, of another shape, not finite, not of unit
            length, or all alike.
        BundleError: no probes to compare with.
    """
    images, reference = bundle.probes()
    limit = PROBE_MIN_COSINE[backend.info.precision]
    found = np.concatenate([backend.embed(images[k : k + 1]) for k in range(len(images))])
    where = f"{backend.info.provider} {backend.info.precision}"
    if found.shape != reference.shape:
        msg = (
            f"{where} gives embeddings of shape {found.shape} on the probes of {bundle.root}; "
            f"expected {reference.shape}. Export the bundle again"
        )
        raise BackendError(msg)
    if not np.isfinite(found).all():
        msg = f"{where} gives non-finite embeddings on the probes of {bundle.root}; use another"
        raise BackendError(f"{msg} backend or precision, or export the bundle again")
    off = length_error(found)
    if off > MAX_LENGTH_ERROR:
        msg = (
            f"{where} gives embeddings on the probes of {bundle.root} whose length is off by "
            f"{off:.1e}; expected unit length within {MAX_LENGTH_ERROR}. Export the bundle again"
        )
        raise BackendError(msg)
    lowest = float(np.min(np.sum(found * reference, axis=1)))
    if not lowest >= limit:
        msg = (
            f"{where} differs from the trained encoder on the probes of {bundle.root}: lowest "
            "cosine "
            f"{lowest:.5f}, expected at least {limit}. Use another backend or precision"
        )
        raise BackendError(msg)
    if len(found) > 1 and float(np.ptp(found, axis=0).max()) < 1e-4:
        msg = f"{where} gives the same embedding for every probe of {bundle.root}"
        raise BackendError(f"{msg}; export the bundle again")
    return lowest


def length_error(embeddings: F32) -> float:
    """Largest deviation of any embedding's length from one."""
    return float(np.abs(np.linalg.norm(embeddings, axis=1) - 1.0).max())


MAX_LENGTH_ERROR = 1e-3
"""Embeddings must have unit length within this: only then is a scalar product a cosine."""
PROBE_MIN_COSINE: dict[Precision, float] = {"fp32": 0.9999, "fp16": 0.9995}
"""Lowest cosine similarity to the trained encoder that a precision may show on any probe."""
