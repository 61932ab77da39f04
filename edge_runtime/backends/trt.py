"""The native TensorRT backend: a fresh engine of the bundle, verified and run without a detour."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_runtime.backends.protocol import BackendInfo, require_images
from edge_runtime.backends.trt_library import require_tensorrt
from edge_runtime.bundle import Bundle
from edge_runtime.engine_check import differences
from edge_runtime.engine_files import read_plan
from edge_runtime.engine_store import (
    EngineRecord,
    Platform,
    build_command,
    engines_of,
    list_records,
)
from edge_runtime.errors import EngineError
from edge_runtime.precision import Precision

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

DEVICE_STAGES = ("host-to-device", "GPU", "device-to-host")
"""Parts of a call that a GPU's own clock tells apart."""
_PREFERRED: tuple[Precision, ...] = ("fp16", "int8", "fp32")


class TensorRtBackend:
    """An engine on the GPU. Not thread-safe; one per thread. Not run on a GPU yet."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: Precision | None = None,
        engines: Path | None = None,
        notes: tuple[str, ...] = (),
        cuda_graph: bool = True,
    ) -> None:
        """Choose, verify and load a fresh engine.

        Args:
            bundle: an opened bundle.
            precision: of the engine; by default fp16 where there is a fresh one.
            engines: folder of engines; by default in the bundle.
            notes: to be shown in `info`.
            cuda_graph: run one image as a CUDA graph; without, its kernels are launched one by
                one, which is for comparing.

        Raises:
            EngineError: no GPU, no TensorRT, or no fresh engine: each is named with its remedy.
            BackendError: the GPU is out of memory or CUDA fails.
        """
        platform = require_tensorrt()
        record, plan = fresh_engine(
            bundle, platform, precision=precision, folder=engines or engines_of(bundle)
        )
        # Only now: both load TensorRT and pycuda.
        from edge_runtime.backends.trt_runner import TensorRtRunner

        self._runner = TensorRtRunner(plan, record, cuda_graph=cuda_graph)
        self.info = BackendInfo(
            name="tensorrt",
            provider="TensorRT",
            precision=record.precision,
            library=f"tensorrt {platform.tensorrt}",
            threads=None,
            engine=f"{record.name} {record.plan_sha256[:12]}",
            notes=(*notes, *self._runner.notes),
        )
        self._shape = (bundle.spec.height_px, bundle.spec.width_px, 3)

    def embed(self, images: U8) -> F32:
        """Embed a batch; see `Backend.embed`.

        Raises:
            InputError: not (N, H, W, 3) uint8 at the encoder's size.
            BackendError: TensorRT or CUDA fails.
        """
        require_images(images, self._shape)
        return self._runner.embed(images)

    def stages_ms(self, images: U8) -> dict[str, float]:
        """Embed one batch and read the parts of it from the GPU's clock: to measure, not to fly.

        Args:
            images: (N, H, W, 3) uint8, RGB; at most as many as the engine takes.

        Returns:
            Each of `DEVICE_STAGES`, ms, as `trtexec` reports H2D latency, GPU compute time and D2H
            latency.

        Raises:
            InputError: of another shape, no images, or more than one batch.
            BackendError: TensorRT or CUDA fails.
        """
        require_images(images, self._shape)
        return dict(zip(DEVICE_STAGES, self._runner.stages_ms(images), strict=True))

    def close(self) -> None:
        """Free what is on the GPU. Calling it twice is harmless."""
        self._runner.close()


def fresh_engine(
    bundle: Bundle, platform: Platform, *, precision: Precision | None, folder: Path
) -> tuple[EngineRecord, bytes]:
    """The engine to fly and its verified plan.

    Raises:
        EngineError: none is fresh; what is wrong with each that there is, and what to type.
    """
    wanted = _PREFERRED if precision is None else (precision,)
    candidates: list[EngineRecord] = []
    wrong: list[str] = []
    for path, record in list_records(folder):
        if isinstance(record, EngineError):
            wrong.append(str(record))
        elif record.precision in wanted:
            found = differences(record, bundle, platform)
            if found:
                wrong.append(f"{path.name}: {'; '.join(map(str, found))}")
            else:
                candidates.append(record)
    # Python sorts stably: by date, then by precision.
    candidates.sort(key=lambda record: record.created_utc, reverse=True)
    candidates.sort(key=lambda record: wanted.index(record.precision))
    for record in candidates:
        try:
            return record, read_plan(folder, record)
        except EngineError as error:
            wrong.append(str(error))
    kind = f"{precision} engine" if precision else "engine"
    seen = f"no fresh TensorRT {kind}: {'. '.join(wrong)}" if wrong else f"no TensorRT {kind}"
    msg = f"{folder} has {seen}. Run: {build_command(bundle.root, precision)}"
    raise EngineError(msg)
