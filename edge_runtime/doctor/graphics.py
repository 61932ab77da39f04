"""ONNX Runtime's providers, the GPU, and whether engines can be built and run on it."""

import importlib.util
from collections.abc import Iterator

from edge_runtime.cuda_device import cuda_device, cuda_device_count
from edge_runtime.doctor.finding import Finding
from edge_runtime.errors import BackendError


def providers() -> Iterator[Finding]:
    """What ONNX Runtime was compiled with, and whether this machine has the device for it."""
    if importlib.util.find_spec("onnxruntime") is None:
        return
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        yield Finding(
            what="onnxruntime import",
            verdict="broken",
            detail=str(error),
            remedy="pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'skyfix[cpu]'",
            needed=True,
        )
        return
    compiled = onnxruntime.get_available_providers()
    yield Finding(
        what="provider CPU",
        verdict="works" if "CPUExecutionProvider" in compiled else "broken",
        detail="CPUExecutionProvider",
        needed=True,
    )
    devices = cuda_device_count()
    if devices and "CUDAExecutionProvider" in compiled:
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


def gpu() -> Iterator[Finding]:
    """The GPU and TensorRT; nothing where there is no GPU."""
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
