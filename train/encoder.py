"""The shared encoder: one timm network for both views, with its contract inside.

Input is uint8 RGB as (N, H, W, 3) at the encoder's size, output is (N, D) of unit length:
normalisation and L2 are part of the module, so training, export and flight cannot disagree.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edge_runtime.artefact import open_artefact, sha256_of, writing_artefact
from edge_runtime.errors import ArtefactError, InputError
from edge_runtime.preprocess import EncoderSpec, spec_from_json
from train.encoder_families import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RGB,
    SizePx,
    family_of,
    one_line,
    require_architecture,
)
from train.timm_import import timm

INITIAL_LOGIT_SCALE = math.log(1 / 0.07)
"""Learnable logarithm of the inverse temperature at the start (Deuser et al. 2023, section 4)."""

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class Encoder(nn.Module):
    """A timm body between pixel normalisation and L2 normalisation."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: EncoderSpec, model_args: Mapping[str, Any] | None = None) -> None:
        """Build the network with random weights.

        Args:
            spec: input size, normalisation and embedding size.
            model_args: passed on to timm, as `{"pad_type": "same"}`.

        Raises:
            InputError: timm has no such architecture, or its embedding size is another.
        """
        super().__init__()
        self.spec = spec
        self.model_args = dict(model_args or {})
        self.body = create_body(spec.architecture, self.model_args)
        size = body_size(self.body, spec.architecture, (spec.height_px, spec.width_px))
        self._whole_size = size
        if size != spec.embedding_size:
            msg = (
                f"{spec.architecture} gives embeddings of {size}; "
                f"the configuration says {spec.embedding_size}"
            )
            raise InputError(msg)
        self.logit_scale = nn.Parameter(torch.tensor(INITIAL_LOGIT_SCALE))
        self.register_buffer("mean", torch.tensor(spec.mean) * 255.0, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std) * 255.0, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images: (N, H, W, 3) uint8, RGB, at the encoder's size, or at the photos' where they
                are another.

        Returns:
            (N, D) float32 embeddings of unit length.
        """
        # The cast comes before the permute: TensorRT has no uint8 transpose.
        pixels = ((images.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        features = self.body(pixels.to(self.body_dtype)).float()
        if self.spec.embedding_size < self._whole_size:
            features = features[:, : self.spec.embedding_size]
        length = features.square().sum(dim=1, keepdim=True).clamp_min(1e-24).sqrt()
        embeddings: Tensor = features / length
        return embeddings

    def shorten(self, embedding_size: int) -> None:
        """Keep only the first numbers of every embedding, as Matryoshka training allows.

        Raises:
            InputError: not one of 1 to the length it has.
        """
        if not 1 <= embedding_size <= self.spec.embedding_size:
            msg = (
                f"embedding size {embedding_size} is not within this encoder's 1 to "
                f"{self.spec.embedding_size}"
            )
            raise InputError(msg)
        self.spec = replace(self.spec, embedding_size=embedding_size)

    @property
    def body_dtype(self) -> torch.dtype:
        """Floating-point type the body computes in."""
        return next(self.body.parameters()).dtype


def create_body(architecture: str, model_args: Mapping[str, Any]) -> nn.Module:
    """Make a timm network without its classifier, with random weights.

    Raises:
        InputError: timm has no such architecture (the nearest names are given), or cannot build it
            with these arguments.
    """
    require_architecture(architecture)
    try:
        body: nn.Module = timm.create_model(
            architecture, pretrained=False, **{"num_classes": 0, **model_args}
        )
    except Exception as error:  # Whatever the network's own code raises.
        arguments = f" with {dict(model_args)}" if model_args else ""
        msg = f"timm cannot build {architecture}{arguments}: {one_line(error)}"
        raise InputError(msg) from error
    for module in body.modules():
        if (
            type(module) is nn.Conv2d
            and module.kernel_size == (1, 1)
            and max(module.stride) > 1
            and module.padding == (0, 0)
            and module.in_channels < _BLOCK_CHANNELS
        ):
            module.__class__ = _SubsampledConv2d  # Its weights and name stay as they are.
    return body


_BLOCK_CHANNELS = 16
"""Channels that oneDNN computes at a time where a processor has AVX-512."""


class _SubsampledConv2d(nn.Conv2d):
    """A strided 1x1 convolution of few channels that trains on CPUs without breaking the heap.

    With the channels last, the gradient of its weights writes past oneDNN's memory (github.com/
    uxlfoundation/oneDNN/issues/6035, open at torch 2.13). FastViT, MobileOne and RepVGG begin with
    one. A stride of 1 over every second pixel is the same convolution and sound.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Conv2d`; see there."""
        if input.is_cuda or not torch.is_grad_enabled():
            return super().forward(input)
        down, right = self.stride
        pixels = input[:, :, ::down, ::right]
        return nn.functional.conv2d(pixels, self.weight, self.bias, groups=self.groups)


@torch.no_grad()
def body_size(body: nn.Module, architecture: str, size_px: SizePx) -> int:
    """Length of the body's embeddings, found by running it once on zeros.

    Raises:
        InputError: the body was made for another image size.
    """
    training = body.training
    body.eval()
    try:
        size = int(body(torch.zeros(1, 3, *size_px)).shape[1])
    except Exception as error:  # Whatever the network's own code raises.
        msg = (
            f"{architecture} cannot embed {size_px[0]}x{size_px[1]} px images: "
            f"{one_line(error)} Choose another size, or give timm an img_size where it takes one"
        )
        raise InputError(msg) from error
    body.train(training)
    return size


def new_encoder(
    architecture: str,
    *,
    size_px: int,
    photo_size_px: SizePx | None = None,
    mean: RGB = IMAGENET_MEAN,
    std: RGB = IMAGENET_STD,
    ground_size_m: float | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> Encoder:
    """An encoder with random weights whose embedding size is found by asking timm.

    Args:
        architecture: timm name.
        size_px: side of the tiles, and of what is exported.
        photo_size_px: (height, width) of the photos in training and evaluation; None for the same.
        mean: of RGB in 0..1.
        std: of RGB in 0..1.
        ground_size_m: side of the square of ground the encoder looks at, where that is fixed.
        model_args: passed on to timm, over what the network's family needs for these sizes.

    Raises:
        InputError: timm has no such architecture, or it does not take these sizes.
    """
    tile_px = (size_px, size_px)
    spec = EncoderSpec(  # First of all it refuses what no encoder has.
        architecture=architecture,
        height_px=size_px,
        width_px=size_px,
        embedding_size=1,
        mean=mean,
        std=std,
        ground_size_m=ground_size_m,
    )
    needed = family_of(architecture).model_args(tile_px, photo_size_px)
    arguments = {**needed, **(model_args or {})}
    body = create_body(architecture, arguments)
    size = body_size(body, architecture, tile_px)
    if photo_size_px is not None and photo_size_px != tile_px:
        body_size(body, architecture, photo_size_px)
    return Encoder(replace(spec, embedding_size=size), arguments)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained encoder as read from its folder."""

    root: Path
    encoder: Encoder
    weights_sha256: str
    """Of model.safetensors: what bundles and indexes are bound to."""
    config: dict[str, Any] = field(default_factory=dict)
    """Everything in config.json."""


def save_checkpoint(root: Path, encoder: Encoder, extra: Mapping[str, Any]) -> None:
    """Write a checkpoint folder atomically.

    Args:
        root: the folder; an older checkpoint there is replaced whole.
        encoder: what to save.
        extra: training config, metrics, data fingerprint: kept in config.json.
    """
    meta = {"architecture": encoder.spec.architecture}
    with writing_artefact(root, "checkpoint", meta) as folder:
        tensors = {k: v.detach().contiguous().cpu() for k, v in encoder.state_dict().items()}
        save_file(tensors, folder / WEIGHTS)
        (folder / WEIGHTS).chmod(0o644)  # The library lets nobody else read it.
        config = {"encoder": asdict(encoder.spec), "model_args": encoder.model_args, **extra}
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n")


def load_checkpoint(root: Path) -> Checkpoint:
    """Open a checkpoint folder, verified and strict.

    Raises:
        ArtefactError: missing or altered, or the weights do not fit the architecture.
    """
    open_artefact(root, "checkpoint")
    config = json.loads((root / CONFIG).read_text())
    try:
        encoder = Encoder(spec_from_json(config["encoder"]), config["model_args"])
        _load_strictly(encoder, load_file(root / WEIGHTS), str(root / WEIGHTS))
    except (KeyError, InputError) as error:
        msg = f"{root} is not a usable checkpoint ({error}); train it again: python -m train fit"
        raise ArtefactError(msg) from error
    return Checkpoint(
        root=root,
        encoder=encoder.eval(),
        weights_sha256=sha256_of(root / WEIGHTS),
        config=config,
    )


def _load_strictly(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        msg = f"{name} does not fit this architecture: {' '.join(lines[1:3])[:300]}"
        raise InputError(msg) from error
