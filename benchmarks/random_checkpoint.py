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
"""Standard deviation of the noise that `--like` adds, in units of each tensor's own size."""
_CONSTANT = 1e-3
_LAYER_SCALE = 0.2


def random_encoder(architecture: str, size_px: int, *, seed: int = 0) -> Encoder:
    """An encoder with random weights of the sizes that training gives them, to be evaluated.

    Raises:
        InputError: timm has no such architecture, or it does not take this size.
    """
    torch.manual_seed(seed)
    encoder = new_encoder(architecture, size_px=size_px, ground_size_m=GROUND_SIZE_M)
    _scale_weights(encoder)
    _spread_vectors(encoder, torch.Generator().manual_seed(seed))
    _settle_batch_norms(encoder)
    return encoder.eval()


def random_checkpoint(architecture: str, size_px: int, out: Path, *, seed: int = 0) -> None:
    """Write a checkpoint of `random_encoder`.

    Raises:
        InputError: timm has no such architecture, or it does not take this size.
    """
    encoder = random_encoder(architecture, size_px, seed=seed)
    save_checkpoint(out, encoder, {"random_seed": seed})


def _scale_weights(encoder: Encoder) -> None:
    """Let every layer pass on as much as it gets; some networks start with far less."""
    with torch.no_grad():
        for module in encoder.body.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                inputs = module.weight[0].numel()
                rms = module.weight.square().mean().sqrt().clamp_min(1e-6)
                module.weight.mul_(inputs**-0.5 / rms)


def _spread_vectors(encoder: Encoder, generator: torch.Generator) -> None:
    """Give biases, norms and layer scales values such as training does.

    They start from constants: biases from 0, so that a lost one would not show, and the layer
    scales of ConvNeXt from 1e-6, so that none of its blocks would.
    """
    with torch.no_grad():
        for parameter in encoder.body.parameters():
            if parameter.ndim == 1 and float(parameter.max() - parameter.min()) < _CONSTANT:
                start = float(parameter[0])
                noise = torch.randn(parameter.shape, generator=generator)
                if abs(start) < _CONSTANT:  # Biases, and layer scales, which come to about this.
                    start = _LAYER_SCALE if start else 0.0
                parameter.copy_(start + 0.1 * (start or 0.2) * noise)


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
        encoder.train()(torch.from_numpy(probe_images(encoder.spec)))
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
                parameter.add_(_NUDGE * parameter.square().mean().sqrt() * noise)
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
