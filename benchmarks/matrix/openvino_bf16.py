"""OpenVINO in bfloat16, on CPUs that have it.

skyfix flies it in FP32, so that precision is the file's business (`backends.openvino_cpu`); this
is here to say what that costs.
"""

import time

import numpy as np
import numpy.typing as npt

from benchmarks.matrix.runtimes import RuntimeInfo
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


class OpenVinoBf16:
    """A compiled model for one picture in bfloat16. Not thread-safe."""

    def __init__(self, bundle: Bundle, *, threads: int) -> None:
        """Compile the FP32 file with the hint to compute in bfloat16.

        Raises:
            BackendError: not installed, or this CPU has no bfloat16.
        """
        try:
            import openvino
        except ImportError as error:
            msg = f"OpenVINO is not installed ({error}): pip install 'skyfix[openvino]'"
            raise BackendError(msg) from error
        core = openvino.Core()
        can = list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        if "BF16" not in can:
            msg = f"this CPU has no bfloat16: OpenVINO finds {', '.join(can)}"
            raise BackendError(msg)
        path = bundle.onnx_path("fp32", kernels="cpu")
        began_s = time.perf_counter()
        model = core.read_model(path)
        model.reshape({"images": [1, bundle.spec.height_px, bundle.spec.width_px, 3]})
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": threads,
        }
        compiled = core.compile_model(model, "CPU", settings)
        really = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
        if "bfloat16" not in really and "bf16" not in really:
            msg = f"OpenVINO was asked for bfloat16 and computes in {really}"
            raise BackendError(msg)
        self._request, self._output = compiled.create_infer_request(), compiled.output("embeddings")
        self.info = RuntimeInfo(
            provider=f"OpenVINO {'+'.join(compiled.get_property('EXECUTION_DEVICES'))}",
            library=f"openvino {openvino.__version__.partition('-')[0]}",
            threads=int(compiled.get_property("INFERENCE_NUM_THREADS")),
            load_s=time.perf_counter() - began_s,
            model_sha256=bundle.manifest.files[path.name],
            notes=("bf16 has no gates and does not fly: skyfix tells OpenVINO to use float32",),
        )

    def embed(self, images: U8) -> F32:
        """See `Runtime.embed`; pictures one after the other, as the backend that flies."""
        found = [
            self._request.infer([images[k : k + 1]], share_inputs=True)[self._output]
            for k in range(len(images))
        ]
        return np.concatenate(found).astype(np.float32)

    def synchronise(self) -> None:
        """Nothing to wait for."""

    def close(self) -> None:
        """Free the compiled model."""
        self._request = self._output = None
