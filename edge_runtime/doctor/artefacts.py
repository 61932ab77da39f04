"""A bundle on every backend of this machine, its engines, and an index."""

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from edge_runtime.cuda_device import cuda_device_count
from edge_runtime.doctor.finding import Finding
from edge_runtime.errors import BackendError, SkyfixError

if TYPE_CHECKING:
    from edge_runtime.backends.protocol import Backend, BackendName
    from edge_runtime.bundle import Bundle

_TIMING_S = 0.2


def bundle_and_index(bundle_root: Path | None, index_root: Path | None) -> Iterator[Finding]:
    """Verify what is given, run the encoder, and see whether both belong together."""
    from edge_runtime.backends.protocol import check_probes, open_backend
    from edge_runtime.bundle import Bundle

    bundle = None
    if bundle_root is not None:
        try:
            bundle = Bundle.open(bundle_root)
            backend = open_backend(bundle)
            cosine = check_probes(bundle, backend).min_cosine
            backend.close()
        except SkyfixError as error:
            yield Finding(what="bundle", verdict="broken", detail=str(error), needed=True)
        else:
            info = backend.info
            yield Finding(
                what="bundle",
                verdict="note" if info.fallback else "works",
                detail=f"{bundle.id} {bundle.spec.architecture}; probes through {info.provider} "
                f"{info.precision}: lowest cosine {cosine:.6f}"
                + "".join(f"; {note}" for note in info.notes),
                needed=True,
            )
        if bundle is not None:
            yield from backends(bundle)
            yield from engines(bundle)
    if index_root is not None:
        yield from _index(index_root, bundle)


def backends(bundle: "Bundle") -> Iterator[Finding]:
    """Probes and time through each backend this machine could have."""
    from edge_runtime.backends.protocol import check_probes, open_backend

    names: list[BackendName] = ["ort-cpu"]
    if importlib.util.find_spec("openvino") is not None:
        names.append("openvino")
    if cuda_device_count():
        names += ["ort-cuda", "tensorrt", "ort-tensorrt"]
    for name in names:
        try:
            backend = open_backend(bundle, name)
        except SkyfixError as error:
            absent = isinstance(error, BackendError) and name not in ("ort-cpu", "openvino")
            yield Finding(
                what=f"backend {name}",
                verdict="missing" if absent else "broken",
                detail=str(error),
            )
            continue
        try:
            cosine = check_probes(bundle, backend).min_cosine
            yield Finding(
                what=f"backend {name}",
                verdict="works",
                detail=f"{_frame_ms(bundle, backend):.2f} ms a frame, {backend.info.precision}, "
                f"lowest cosine {cosine:.6f}, {backend.info.library}",
            )
        finally:
            backend.close()


def _frame_ms(bundle: "Bundle", backend: "Backend") -> float:
    image = bundle.probes()[0][:1]
    times_s: list[float] = []
    end = time.perf_counter() + _TIMING_S
    while not times_s or time.perf_counter() < end:
        started = time.perf_counter()
        backend.embed(image)
        times_s.append(time.perf_counter() - started)
    return 1e3 * median(times_s)


def engines(bundle: "Bundle") -> Iterator[Finding]:
    """Each TensorRT engine of a bundle, on a machine that could run it."""
    from edge_runtime.backends.trt_library import require_tensorrt
    from edge_runtime.engine_check import check_engines

    if cuda_device_count() == 0:
        return
    try:
        checked = check_engines(bundle, require_tensorrt())
    except BackendError:
        return  # Said with the GPU.
    for engine in checked:
        yield Finding(
            what=f"engine {engine.path.name}",
            verdict="works" if engine.fresh else "broken",
            detail=engine.problem or "; ".join(map(str, engine.differences)) or "fresh",
            remedy=engine.command,
        )
    if not checked:
        yield Finding(
            what="engine",
            verdict="missing",
            detail="the bundle has no TensorRT engine for this machine",
            remedy=f"skyfix engine build {bundle.root}",
        )


def _index(root: Path, bundle: "Bundle | None") -> Iterator[Finding]:
    from edge_runtime.index_check import check_index
    from edge_runtime.satellite_index import SatelliteIndex

    try:
        # First, because it verifies every byte: an altered graph crashes who searches it.
        bad = [f for f in check_index(root, bundle).findings if f.verdict == "bad"]
        index = SatelliteIndex.open(root, bundle)
    except SkyfixError as error:
        yield Finding(what="index", verdict="broken", detail=str(error), needed=True)
        return
    unbound = "" if bundle else "; not checked against a bundle"
    yield Finding(
        what="index",
        verdict="works",
        detail=f"{index.id}: {len(index)} tiles of {index.level.size_m:.0f} m, "
        f"{index.area_m2() / 1e6:.2f} km2{unbound}",
        needed=True,
    )
    index.close()
    for finding in bad:
        yield Finding(
            what=f"index {finding.what}",
            verdict="broken",
            detail=finding.detail,
            remedy=finding.remedy or f"skyfix index check {root}",
            needed=True,
        )
