"""Checkpoints without training, for checks that need an encoder but not a good one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from edge_runtime.command_line import run_command
from edge_runtime.errors import InputError
from export.probes import probe_images
from train.encoder import Encoder, load_checkpoint, new_encoder, save_checkpoint

_NUDGE = 0.01
"""Standard deviation of the noise that `--like` adds, in units of each tensor's own."""


def random_checkpoint(architecture: str, size_px: int, out: Path, *, seed: int = 0) -> None:
    """Write an encoder with the weights it starts from when it starts from nothing.

    Raises:
        InputError: timm has no such architecture, or it does not take this size.
    """
    torch.manual_seed(seed)
    encoder = new_encoder(architecture, size_px=size_px, ground_size_m=GROUND_SIZE_M)
    _settle_batch_norms(encoder)
    save_checkpoint(out, encoder, {"random_seed": seed})


def _settle_batch_norms(encoder: Encoder) -> None:
    """Give batch norms the statistics of made-up images.

    With those they start from, activations shrink or grow from layer to layer until all images look
    alike, which no trained encoder does and the gates of the export refuse.
    """
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = None  # The plain mean of what is seen.
        norm.reset_running_stats()
    with torch.no_grad():
        encoder.train()(torch.from_numpy(probe_images([], encoder.spec)))
    encoder.eval()


def nudged_checkpoint(like: Path, out: Path, *, seed: int = 1) -> None:
    """Write the same network with slightly other weights, as if it had been trained on.

    Raises:
        ArtefactError: not a checkpoint.
    """
    opened = load_checkpoint(like)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in opened.encoder.parameters():
            if parameter.numel() > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(_NUDGE * parameter.std() * noise)
    save_checkpoint(out, opened.encoder, {"nudged_from": opened.weights_sha256, "seed": seed})


GROUND_SIZE_M = 100.0
"""Of the ground that a made-up encoder says it looks at: any that imagery can be cut into."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write one checkpoint."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.random_checkpoint", description=__doc__
    )
    parser.add_argument("architecture", nargs="?", help="timm name")
    parser.add_argument("--size-px", type=int, default=224, help="side of the square input")
    parser.add_argument("--like", type=Path, help="checkpoint whose weights are nudged instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    args = parser.parse_args(argv)

    def run() -> None:
        if (args.architecture is None) == (args.like is None):
            msg = "give either a timm name or --like CHECKPOINT"
            raise InputError(msg)
        if args.like is not None:
            nudged_checkpoint(args.like, args.out, seed=args.seed)
        else:
            random_checkpoint(args.architecture, args.size_px, args.out, seed=args.seed)
        print(f"{args.out} written. Next: python -m export bundle --checkpoint {args.out} --out B")

    return run_command("random-checkpoint", run, stopped="stopped; nothing was written")


if __name__ == "__main__":
    sys.exit(main())
