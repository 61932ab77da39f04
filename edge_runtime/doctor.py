"""`skyfix doctor`: what works on this machine, what does not, and the command that mends it."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge_runtime.cuda_device import cuda_device, cuda_device_count
from edge_runtime.errors import BackendError, SkyfixError

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

Verdict = Literal["works", "missing", "broken"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at."""

    what: str
    verdict: Verdict
    detail: str
    remedy: str = ""
    """Command or action that mends it; empty when nothing is to be done."""
    needed: bool = False
    """Whether skyfix cannot fly without it."""


def examine(bundle: Path | None = None, index: Path | None = None) -> list[Finding]:
    """Look at this machine and, if given, at a bundle, an index, or both together."""
    findings = [*_machine(), *_libraries(), *_providers(), *_gpu()]
    if bundle is not None or index is not None:
        findings += _artefacts(bundle, index)
    return findings


def _machine() -> Iterator[Finding]:
    old = sys.version_info < (3, 10)
    yield Finding(
        what="Python",
        verdict="broken" if old else "works",
        detail=platform.python_version(),
        remedy="install Python 3.10 or newer" if old else "",
        needed=True,
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding(
        what="machine",
        verdict="works",
        detail=f"{platform.machine()}, {os.cpu_count()} cores, {memory_gib:.1f} GiB, "
        f"{platform.system()} {platform.release()}",
    )
    free_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Finding(
        what="disk here",
        verdict="works" if free_gib > 1 else "broken",
        detail=f"{free_gib:.1f} GiB free",
        remedy="" if free_gib > 1 else "free some space: logs and imagery need it",
    )
    model = Path("/proc/device-tree/model")
    if model.exists():
        name = model.read_text(errors="replace").strip("\0 \n")
        yield Finding(what="board", verdict="works", detail=name)


def _libraries() -> Iterator[Finding]:
    for package, module, needed, remedy in (
        ("numpy", "numpy", True, "pip install skyfix"),
        ("opencv", "cv2", True, "pip install opencv-python-headless"),
        ("usearch", "usearch", True, "pip install usearch"),
        ("onnxruntime", "onnxruntime", True, "pip install 'skyfix[cpu]' or 'skyfix[gpu]'"),
        ("rasterio", "rasterio", False, "pip install 'skyfix[maps]' (only to make indexes)"),
        ("pymavlink", "pymavlink", False, "pip install 'skyfix[mavlink]'"),
        ("tensorrt", "tensorrt", False, "pip install 'skyfix[tensorrt]' (NVIDIA GPUs only)"),
        ("pycuda", "pycuda", False, "pip install 'skyfix[tensorrt]' (NVIDIA GPUs only)"),
    ):
        present = importlib.util.find_spec(module) is not None
        yield Finding(
            what=package,
            verdict="works" if present else "missing",
            detail=_version(package, module) if present else "not installed",
            remedy="" if present else remedy,
            needed=needed,
        )


def _version(package: str, module: str) -> str:
    names: dict[str, tuple[str, ...]] = {
        "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
        "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    }
    for name in names.get(package, (package,)):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return f"{module}, version not recorded"


def _providers() -> Iterator[Finding]:
    if importlib.util.find_spec("onnxruntime") is None:
        return
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        yield Finding(
            what="onnxruntime import",
            verdict="broken",
            detail=str(error).splitlines()[0],
            remedy="pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'skyfix[cpu]'",
            needed=True,
        )
        return
    providers = onnxruntime.get_available_providers()
    yield Finding(
        what="provider CPU",
        verdict="works" if "CPUExecutionProvider" in providers else "broken",
        detail="CPUExecutionProvider",
        needed=True,
    )
    devices = cuda_device_count()
    compiled = "CUDAExecutionProvider" in providers
    if devices and compiled:
        yield Finding(what="provider CUDA", verdict="works", detail=f"{devices} device(s)")
    elif devices:
        yield Finding(
            what="provider CUDA",
            verdict="missing",
            detail=f"{devices} CUDA device(s), but this onnxruntime has no CUDA provider",
            remedy="pip uninstall -y onnxruntime, then pip install 'skyfix[gpu]'",
        )
    else:
        yield Finding(
            what="provider CUDA", verdict="missing", detail="no CUDA driver or device found"
        )


def _gpu() -> Iterator[Finding]:
    """The GPU and whether engines can be built and run on it; nothing where there is no GPU."""
    if cuda_device_count() == 0:
        return
    from edge_runtime.backends.trt_library import require_tensorrt

    try:
        device = cuda_device()
    except BackendError as error:
        yield Finding(what="GPU", verdict="broken", detail=str(error), remedy="restart the machine")
        return
    free = "" if device.free_bytes is None else f", {device.free_bytes / 2**30:.1f} GiB free"
    yield Finding(
        what="GPU",
        verdict="works",
        detail=f"{device.name}, compute capability {device.compute_capability}, "
        f"{device.total_bytes / 2**30:.1f} GiB{free}, driver {device.driver}, CUDA "
        f"{device.cuda_driver}",
    )
    try:
        platform_here = require_tensorrt()
    except BackendError as error:
        yield Finding(
            what="engines", verdict="missing", detail=str(error), remedy="see docs/engines.md"
        )
    else:
        yield Finding(
            what="engines",
            verdict="works",
            detail=f"TensorRT {platform_here.tensorrt} and pycuda load",
        )


def _engines(bundle: "Bundle") -> Iterator[Finding]:
    """Each TensorRT engine of a bundle, on a machine that could run it."""
    from edge_runtime.backends.trt_library import require_tensorrt
    from edge_runtime.engine_check import check_engines

    if cuda_device_count() == 0:
        return
    try:
        checked = check_engines(bundle, require_tensorrt())
    except BackendError:
        return  # Said above.
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


def _artefacts(bundle_root: Path | None, index_root: Path | None) -> Iterator[Finding]:
    from edge_runtime.backends.protocol import check_probes, open_backend
    from edge_runtime.bundle import Bundle
    from edge_runtime.satellite_index import SatelliteIndex

    bundle = None
    if bundle_root is not None:
        try:
            bundle = Bundle.open(bundle_root)
            backend = open_backend(bundle)
            cosine = check_probes(bundle, backend).min_cosine
            info = backend.info
            backend.close()
        except SkyfixError as error:
            yield Finding(what="bundle", verdict="broken", detail=str(error), needed=True)
        else:
            yield Finding(
                what="bundle",
                verdict="works",
                detail=f"{bundle.id} {bundle.spec.architecture}; probes through {info.provider} "
                f"{info.precision}: lowest cosine {cosine:.6f}"
                + "".join(f"; {note}" for note in info.notes),
            )
        if bundle is not None:
            yield from _engines(bundle)
    if index_root is None:
        return
    try:
        index = SatelliteIndex.open(index_root, bundle, verify=True)
    except SkyfixError as error:
        yield Finding(what="index", verdict="broken", detail=str(error), needed=True)
        return
    unbound = "" if bundle else "; not checked against a bundle"
    yield Finding(
        what="index",
        verdict="works",
        detail=f"{index.id}: {len(index)} tiles of {index.level.size_m:.0f} m, "
        f"{index.area_m2() / 1e6:.2f} km2{unbound}",
    )
    index.close()
