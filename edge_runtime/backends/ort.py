"""ONNX Runtime on the CPU, on CUDA, or through its TensorRT provider."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from edge_runtime.backends.protocol import BackendInfo, require_images, usable_cores
from edge_runtime.bundle import Bundle
from edge_runtime.cuda_device import cuda_device_count
from edge_runtime.errors import BackendError
from edge_runtime.precision import Precision

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

Device = Literal["cpu", "cuda", "tensorrt"]
PROVIDERS: dict[Device, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


def is_usable(device: Device) -> bool:
    """Whether this ONNX Runtime has the device's provider and the machine the device.

    The provider list alone says what was compiled in, not what this machine has.
    """
    return PROVIDERS[device] in onnxruntime.get_available_providers() and (
        device == "cpu" or cuda_device_count() > 0
    )


def tensorrt_options(cache: Path, timing: Path, spec_shape: str, max_batch: int) -> dict[str, str]:
    """Options of the TensorRT provider (ONNX Runtime documentation, "TensorRT Execution Provider").

    FP16 and INT8 are left off on purpose: then the provider builds a strongly typed network and the
    precisions are those of the ONNX file (pull request 18707 of ONNX Runtime).

    Args:
        cache: folder of engines.
        timing: folder of kernel times.
        spec_shape: the image's shape, as "384x384x3".
        max_batch: largest batch.
    """
    return {
        "device_id": "0",
        "trt_fp16_enable": "0",
        "trt_int8_enable": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(timing),
        "trt_profile_min_shapes": f"images:1x{spec_shape}",
        "trt_profile_opt_shapes": f"images:1x{spec_shape}",
        "trt_profile_max_shapes": f"images:{max_batch}x{spec_shape}",
    }


class OrtBackend:
    """An ONNX Runtime session that runs on the provider that was asked for, or not at all."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: Device,
        precision: Precision,
        threads: int | None = None,
        options: dict[str, str] | None = None,
        max_batch: int | None = None,
        engine: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:
        """Make the session.

        Args:
            bundle: an opened bundle.
            device: what is to run it.
            precision: which ONNX file.
            threads: CPU threads; by default one for each core this process may use.
            options: of the provider.
            max_batch: larger batches are cut into such; None for no limit.
            engine: to be shown in `info`.
            notes: to be shown in `info`.

        Raises:
            BackendError: the provider is not available, ONNX Runtime silently chose another one,
                or it cannot load the file.
        """
        provider = PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            msg = (
                f"this ONNX Runtime {onnxruntime.__version__} has no {provider}; it has "
                f"{onnxruntime.get_available_providers()}. The CPU and GPU wheels install the same "
                "module: pip uninstall -y onnxruntime onnxruntime-gpu, then "
                "pip install 'skyfix[gpu]'"
            )
            raise BackendError(msg)
        if device != "cpu" and cuda_device_count() == 0:
            msg = "no CUDA device was found (driver missing or no GPU); use --backend ort-cpu"
            raise BackendError(msg)
        session_options = onnxruntime.SessionOptions()
        session_options.log_severity_level = 3
        session_options.intra_op_num_threads = threads or usable_cores()
        # Waiting threads that spin keep a core busy between frames, and whatever else wants it
        # (decoding, search, the other half of the encoder) waits for them.
        session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if device != "cpu":
            session_options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        providers: list[Any] = [(provider, options or {})]
        if device == "tensorrt":
            # Nodes that its parser does not take run on CUDA; on the CPU none may.
            providers.append(PROVIDERS["cuda"])
        path = bundle.onnx_path(precision, kernels="tensorrt" if device == "tensorrt" else "cpu")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=session_options, providers=providers
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
            name=f"ort-{device}",
            provider=really,
            precision=precision,
            library=f"onnxruntime {onnxruntime.__version__}",
            threads=session_options.intra_op_num_threads,
            engine=engine,
            notes=notes,
        )
        self._shape = (bundle.spec.height_px, bundle.spec.width_px, 3)
        self._max_batch = max_batch

    def embed(self, images: U8) -> F32:
        """Embed a batch; see `Backend.embed`.

        Raises:
            InputError: not (N, H, W, 3) uint8 at the encoder's size.
            BackendError: closed, or ONNX Runtime cannot run the encoder.
        """
        require_images(images, self._shape)
        if self._session is None:
            msg = f"this {self.info.name} backend was closed; open another"
            raise BackendError(msg)
        size = self._max_batch or max(1, len(images))
        parts = [images[k : k + size] for k in range(0, max(1, len(images)), size)]
        found = [self._run(part) for part in parts]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _run(self, images: U8) -> F32:
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
        """Free the session. Calling it twice is harmless."""
        self._session = None
