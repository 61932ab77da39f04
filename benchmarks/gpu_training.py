"""Steps of the GPU check that train."""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.steps import Step

_SMALL_TRAINING = ("architecture=convnext_atto.d2_in1k", "epochs=1", "workers=2")
_TRAIN = (sys.executable, "-m", "train")


def training_steps(work: Path, gpus: int) -> list[Step]:
    """An epoch in every way that a GPU trains, on the world that an earlier step made.

    Args:
        work: folder for what the steps write.
        gpus: CUDA devices here.
    """
    kinds = {
        "fp32": (),
        "fp16": ("precision=fp16",),
        "bf16": ("precision=bf16",),
        "channels-last": ("channels_last=true", "precision=bf16"),
        "compile": ("compile=true",),
    }
    steps = [
        Step(
            name="torch-cuda",
            shows="this torch computes on the GPU",
            command=(
                *(sys.executable, "-c"),
                "import torch; print(torch.__version__, torch.ones(2, device='cuda').sum().item())",
            ),
        )
    ]
    for kind, settings in kinds.items():
        steps.append(
            Step(
                name=f"train-{kind}",
                shows=f"an epoch of training on the GPU, {kind}",
                command=(*_TRAIN, *_fit(work, f"trained-{kind}", settings)),
                needs=("world", "torch-cuda"),
            )
        )
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    fit = _fit(work, "trained-nccl", ("batch_size=32",))
    steps.append(
        Step(
            name="train-nccl",
            shows="an epoch of training on two GPUs",
            command=(*torchrun, "-m", "train", *fit),
            needs=("world", "torch-cuda"),
            left_out="" if gpus > 1 else f"needs two GPUs, here is {gpus}",
        )
    )
    return steps


def _fit(work: Path, out: str, settings: Sequence[str]) -> tuple[str, ...]:
    chosen = [word for item in (*_SMALL_TRAINING, *settings) for word in ("--set", item)]
    return ("fit", "--world", str(work / "world"), *chosen, "--out", str(work / out))
