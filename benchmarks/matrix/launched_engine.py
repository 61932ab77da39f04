"""The TensorRT backend without its CUDA graph: what recording the launches is worth.

Not run on a GPU yet.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.backends.protocol import BackendInfo, require_images
from edge_runtime.backends.trt import fresh_engine
from edge_runtime.backends.trt_library import require_tensorrt
from edge_runtime.bundle import Bundle, Precision

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


class LaunchedEngine:
    """The engine that flies, each kernel launched by itself. Not thread-safe."""

    def __init__(self, bundle: Bundle, *, precision: Precision, engines: Path) -> None:
        """Load a fresh engine.

        Raises:
            EngineError: no GPU, no TensorRT, or no fresh engine.
            BackendError: CUDA fails.
        """
        platform = require_tensorrt()
        record, plan = fresh_engine(bundle, platform, precision=precision, folder=engines)
        # Only now: it loads TensorRT and pycuda.
        from edge_runtime.backends.trt_runner import TensorRtRunner

        class WithoutGraph(TensorRtRunner):
            def _record_single_image(self) -> None:
                self.notes.append("without a CUDA graph, to be compared with it")

        self._runner = WithoutGraph(plan, record)
        self._shape = (bundle.spec.height_px, bundle.spec.width_px, 3)
        self.info = BackendInfo(
            name="tensorrt",
            provider="TensorRT",
            precision=record.precision,
            library=f"tensorrt {platform.tensorrt}",
            threads=None,
            engine=f"{record.name} {record.plan_sha256[:12]}",
            notes=tuple(self._runner.notes),
        )

    def embed(self, images: U8) -> F32:
        """Embed a batch; see `Backend.embed`."""
        require_images(images, self._shape)
        return self._runner.embed(images)

    def close(self) -> None:
        """Free what is on the GPU."""
        self._runner.close()
