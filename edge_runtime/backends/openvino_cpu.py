"""OpenVINO on the CPU: Intel's own library for x86, also built for ARM.

It reads the bundle's ONNX files itself. (ONNX Runtime has an OpenVINO provider too, in a wheel
called onnxruntime-openvino: that one holds the same Python module as onnxruntime and would replace
it, so skyfix uses the `openvino` package.)

Its habits that matter here (OpenVINO documentation, "CPU device", release 2026):

* On a CPU that has bfloat16 it computes in bfloat16 unless told otherwise. Precision is the ONNX
  file's business, so it is told to use float32.
* A model of fixed shape runs 15 to 25 % faster than one with an open batch axis, and for small
  encoders images one by one take no longer than a batch (both measured with MobileNetV4-S at 128
  and 224 px). So there is one model for one image, and batches are loops: memory does not depend on
  the batch sizes that were seen, and an image's embedding not on its neighbours.
* `import openvino` sends a usage report to Google Analytics. A drone says nothing to nobody: the
  module that sends it is kept from loading.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.backends.protocol import BackendInfo, require_images, usable_cores
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError
from edge_runtime.precision import Precision

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_REPORTER = "openvino_telemetry"


class OpenVinoBackend:
    """A compiled model for one image on the CPU. Not thread-safe; one per thread."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: Precision,
        threads: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """Read the ONNX file and compile it for this CPU.

        Args:
            bundle: an opened bundle.
            precision: which ONNX file.
            threads: CPU threads; by default one for each core this process may use.
            cache: folder in which OpenVINO keeps compiled models, to start faster the next time;
                None keeps nothing.

        Raises:
            BackendError: not installed, or it cannot read, compile or place the encoder.
        """
        openvino = load_openvino()
        path = bundle.onnx_path(precision, kernels="cpu")
        shape = (bundle.spec.height_px, bundle.spec.width_px, 3)
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
        }
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        try:
            core = openvino.Core()
            model = core.read_model(path)
            model.reshape({"images": [1, *shape]})
            compiled = core.compile_model(model, "CPU", settings)
            output = compiled.output("embeddings")
            found = tuple(output.get_shape())
            devices = compiled.get_property("EXECUTION_DEVICES")
            used_threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
            request = compiled.create_infer_request()
        except Exception as error:
            msg = (
                f"OpenVINO {openvino.__version__} cannot run {path}: {_reason(error)}. Use "
                "--backend ort-cpu"
            )
            raise BackendError(msg) from error
        if found != (1, bundle.spec.embedding_size):
            msg = (
                f"{path} gives embeddings of shape {found}, the bundle says "
                f"{(1, bundle.spec.embedding_size)}; export the bundle again"
            )
            raise BackendError(msg)
        self._request, self._output = request, output
        self._shape, self._size = shape, bundle.spec.embedding_size
        self.info = BackendInfo(
            name="openvino",
            provider=f"OpenVINO {'+'.join(devices)}",
            precision=precision,
            library=f"openvino {openvino.__version__.partition('-')[0]}",
            threads=used_threads,
        )

    def embed(self, images: U8) -> F32:
        """Embed a batch, one image after the other; see `Backend.embed`.

        Raises:
            InputError: not (N, H, W, 3) uint8 at the encoder's size.
            BackendError: closed, or OpenVINO cannot run the encoder.
        """
        require_images(images, self._shape)
        if self._request is None:
            msg = "this OpenVINO backend was closed; open another"
            raise BackendError(msg)
        images = np.ascontiguousarray(images)
        embeddings = np.empty((len(images), self._size), np.float32)
        try:
            for k in range(len(images)):
                # Neither side is copied by OpenVINO: the row of the fresh array is the one copy.
                answer = self._request.infer(
                    [images[k : k + 1]], share_inputs=True, share_outputs=True
                )
                embeddings[k] = answer[self._output][0]
        except Exception as error:
            msg = f"OpenVINO cannot run the encoder: {_reason(error)}. Use --backend ort-cpu"
            raise BackendError(msg) from error
        return embeddings

    def close(self) -> None:
        """Free the compiled model. Calling it twice is harmless."""
        self._request = self._output = None


def load_openvino() -> Any:
    """Import the library without its usage reports.

    Raises:
        BackendError: not installed, or it does not load.
    """
    try:
        with _kept_from_loading(_REPORTER):
            import openvino
    except (ImportError, OSError) as error:
        msg = (
            f"backend 'openvino' cannot load its library ({' '.join(str(error).split())}). Install "
            "it with: pip install 'skyfix[openvino]'"
        )
        raise BackendError(msg) from error
    return openvino


@contextmanager
def _kept_from_loading(module: str) -> Iterator[None]:
    """Let `import` of a module fail meanwhile; one that is loaded already stays so."""
    if module in sys.modules:
        yield
        return
    blocked: dict[str, Any] = sys.modules  # None is Python's own mark of a module not to be found.
    blocked[module] = None
    try:
        yield
    finally:
        del blocked[module]


def _reason(error: Exception) -> str:
    """OpenVINO's message without the lines that say where in its sources it was raised."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("Exception from")]
    return " ".join(told)[:300] or type(error).__name__
