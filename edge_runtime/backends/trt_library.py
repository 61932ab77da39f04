"""Is TensorRT usable here? Asked in the order that cannot crash: device, then libraries.

TensorRT without a GPU returns objects that crash the process when they are used, so nothing here
or after it makes one before CUDA has counted a device.
"""

from importlib import import_module
from typing import Any

from edge_runtime.cuda_device import cuda_device, cuda_runtime_version
from edge_runtime.engine_store import Platform
from edge_runtime.errors import BackendError, EngineError

_INSTALL = {
    "tensorrt": "on a Jetson: sudo apt install tensorrt python3-libnvinfer, and a virtual "
    "environment made with --system-site-packages; elsewhere: pip install 'skyfix[tensorrt]'",
    "pycuda.driver": "pip install 'skyfix[tensorrt]' (it compiles pycuda: nvcc and the CUDA "
    "headers must be there)",
}


def require_tensorrt() -> Platform:
    """Make sure that a GPU, TensorRT and pycuda are here, and say which.

    Raises:
        EngineError: no CUDA device, a library is missing or does not load, or TensorRT is older
            than 10.
    """
    try:
        device = cuda_device()
    except EngineError:
        raise
    except BackendError as error:
        raise EngineError(str(error)) from error
    version = str(_loaded("tensorrt").__version__)
    if not version.split(".")[0].isdigit() or int(version.split(".")[0]) < 10:
        msg = (
            f"TensorRT here is {version}; expected 10.3 or newer, which comes with JetPack 6.1. "
            "Use --backend ort-cuda or ort-cpu"
        )
        raise EngineError(msg)
    _loaded("pycuda.driver")
    return Platform(
        tensorrt=version,
        gpu=device.name,
        compute_capability=device.compute_capability,
        driver=device.driver,
        cuda_driver=device.cuda_driver,
        cuda_runtime=cuda_runtime_version() or "unknown",
    )


def _loaded(name: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, OSError) as error:
        msg = (
            f"{name.partition('.')[0]} cannot be loaded ({' '.join(str(error).split())}). Install "
            f"it: {_INSTALL[name]}"
        )
        raise EngineError(msg) from error
