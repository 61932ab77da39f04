"""ONNX Runtime on the CPU or on CUDA."""

import ctypes
import os

import numpy as np
import numpy.typing as npt
import onnxruntime

from edge_runtime.backends.protocol import BackendInfo
from edge_runtime.bundle import Bundle, Precision
from edge_runtime.errors import BackendError, InputError

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


def cuda_device_count() -> int:
    """CUDA devices the driver reports; 0 without a driver. Makes no CUDA context."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def cuda_is_usable() -> bool:
    """Whether this ONNX Runtime has the CUDA provider and the driver reports a device.

    The provider list alone says what was compiled in, not what this machine has.
    """
    return (
        "CUDAExecutionProvider" in onnxruntime.get_available_providers() and cuda_device_count() > 0
    )


class OrtBackend:
    """An ONNX Runtime session that runs on the provider that was asked for, or not at all."""

    def __init__(
        self, bundle: Bundle, *, cuda: bool, precision: Precision, threads: int | None = None
    ) -> None:
        """Make the session.

        Raises:
            BackendError: the provider is not available, ONNX Runtime silently chose another one,
                or it cannot load the file.
        """
        provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            msg = (
                f"this ONNX Runtime {onnxruntime.__version__} has no {provider}; it has "
                f"{onnxruntime.get_available_providers()}. The CPU and GPU wheels install the same "
                "module: pip uninstall -y onnxruntime onnxruntime-gpu, then "
                "pip install 'skyfix[gpu]'"
            )
            raise BackendError(msg)
        if cuda and cuda_device_count() == 0:
            msg = "no CUDA device was found (driver missing or no GPU); use --backend ort-cpu"
            raise BackendError(msg)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or os.cpu_count() or 1
        if cuda:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        path = bundle.onnx_path(precision)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=[provider]
            )
        except Exception as error:
            msg = f"ONNX Runtime cannot run {path} on {provider}: {str(error).splitlines()[0]}"
            raise BackendError(msg) from error
        really = self._session.get_providers()[0]
        if really != provider:
            msg = (
                f"{provider} was asked for and ONNX Runtime fell back to {really}; see skyfix "
                "doctor"
            )
            raise BackendError(msg)
        self.info = BackendInfo(
            name="ort-cuda" if cuda else "ort-cpu",
            provider=really,
            precision=precision,
            library=f"onnxruntime {onnxruntime.__version__}",
            threads=options.intra_op_num_threads,
        )
        self._shape = (bundle.spec.height_px, bundle.spec.width_px, 3)

    def embed(self, images: U8) -> F32:
        """Embed a batch; see `Backend.embed`.

        Raises:
            InputError: not (N, H, W, 3) uint8 at the encoder's size.
            BackendError: ONNX Runtime cannot run the encoder.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self._shape:
            msg = (
                f"images are {images.dtype} of shape {images.shape}; "
                f"expected uint8 of (N, {', '.join(map(str, self._shape))})"
            )
            raise InputError(msg)
        inputs = {"images": np.ascontiguousarray(images)}
        try:
            (embeddings,) = self._session.run(["embeddings"], inputs)
        except Exception as error:
            msg = (
                f"{self.info.provider} cannot run the encoder: {str(error).splitlines()[0]}. Use "
                "another backend or export the bundle again"
            )
            raise BackendError(msg) from error
        return np.asarray(embeddings, np.float32)

    def close(self) -> None:
        """Free the session."""
        self.__dict__.pop("_session", None)
