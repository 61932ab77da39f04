"""PyTorch, eager or compiled: on the GPU where there is one, else on the CPU."""

import itertools
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.matrix.plan import Number
from benchmarks.matrix.runtimes import RuntimeInfo
from edge_runtime.backends.trt import DEVICE_STAGES
from edge_runtime.errors import BackendError
from train.encoder import load_checkpoint

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchRuntime:
    """The trained encoder in the library that trained it. Not thread-safe."""

    def __init__(
        self, checkpoint: Path, precision: Number, *, compiled: bool, threads: int
    ) -> None:
        """Load the weights.

        Args:
            checkpoint: folder of the weights.
            precision: of the body; pixels and the norm stay in FP32, as in training.
            compiled: by `torch.compile`, which compiles in the first calls.
            threads: of the CPU.

        Raises:
            BackendError: half precision without a GPU, or INT8, which torch is not given here.
            ArtefactError: not a checkpoint.
        """
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if precision not in _TYPES or (precision != "fp32" and self._device.type == "cpu"):
            why = "no GPU was found" if torch.version.cuda else "this build of torch has none"
            msg = f"torch is measured in {precision} on CUDA alone, and {why}"
            raise BackendError(msg)
        began_s = time.perf_counter()
        opened = load_checkpoint(checkpoint)
        encoder = opened.encoder
        encoder.body.to(_TYPES[precision])
        encoder.to(self._device)
        self._encoder = torch.compile(encoder) if compiled else encoder
        self.synchronise()
        where = str(self._device)
        if self._device.type == "cuda":
            where = f"cuda {torch.cuda.get_device_name(0)}"
        self.info = RuntimeInfo(
            provider=f"torch {where}" + (", inductor" if compiled else ""),
            library=f"torch {torch.__version__}",
            threads=torch.get_num_threads(),
            load_s=time.perf_counter() - began_s,
            model_sha256=opened.weights_sha256,
        )

    @torch.inference_mode()
    def embed(self, images: U8) -> F32:
        """See `Runtime.embed`; the copies to and from the device are inside.

        Raises:
            BackendError: torch cannot compile or run it here.
        """
        try:
            found = self._encoder(torch.from_numpy(images).to(self._device))
        except Exception as error:  # Whatever compilers and kernels raise.
            raise _cannot(error) from error
        return np.asarray(found.float().cpu().numpy(), np.float32)

    @torch.inference_mode()
    def stages_ms(self, images: U8) -> dict[str, float]:
        """Embed once more, with CUDA events around the parts that `embed` has.

        Args:
            images: (N, H, W, 3) uint8, RGB. Copied from memory that is not pinned.

        Returns:
            Each of `DEVICE_STAGES`, ms; empty on a CPU.

        Raises:
            BackendError: torch cannot run it here.
        """
        if self._device.type != "cuda":
            return {}
        try:
            event = torch.cuda.Event
            marks = [event(enable_timing=True) for _ in range(4)]  # type: ignore[no-untyped-call]
            marks[0].record()
            there = torch.from_numpy(images).to(self._device)
            marks[1].record()
            found = self._encoder(there).float()
            marks[2].record()
            found.cpu()
            marks[3].record()
            torch.cuda.synchronize()
            parts = [begin.elapsed_time(end) for begin, end in itertools.pairwise(marks)]
        except Exception as error:  # Whatever compilers and kernels raise.
            raise _cannot(error) from error
        return dict(zip(DEVICE_STAGES, parts, strict=True))

    def synchronise(self) -> None:
        """Wait for the GPU; nothing to wait for on a CPU."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def close(self) -> None:
        """Nothing is held that the process does not free."""


def _cannot(error: Exception) -> BackendError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    what = f"{type(error).__name__}: {' '.join(lines[:2])[:300]}"
    return BackendError(f"torch cannot run it: {what}")
