"""The networks that may fly: what each needs, what it costs, and whose weights it starts from.

`FAMILIES` are the ones this project recommends; `family_of` knows them and works out the same facts
for any other network of timm.
"""

import difflib
import functools
import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from edge_runtime.errors import InputError
from train.timm_import import timm

RGB = tuple[float, float, float]
SizePx = tuple[int, int]
"""(height, width)"""

Sizes = Literal["any", "given", "one"]
"""any: takes every size as it comes. given: is told its size when built, and others too if it is
told to expect them. one: only the size it was built for."""

IMAGENET_MEAN: RGB = (0.485, 0.456, 0.406)
IMAGENET_STD: RGB = (0.229, 0.224, 0.225)

CONVOLUTION_LEARNING_RATE = 1e-3
"""Of AdamW at 128 pairs a batch (Deuser et al. 2023, arXiv:2303.11851, section 4)."""
TRANSFORMER_LEARNING_RATE = 1e-4
"""Vision transformers diverge at the paper's 1e-3; a tenth is what is reported to work."""

OPEN_LICENCES = frozenset({"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0"})
LICENCE_NOTES = {
    "dinov3-license": (
        "Meta's own: no military use, weapons, nuclear or espionage, nothing under ITAR; passed "
        "on, trained further or not, only under the same terms and with their text"
    ),
    "fastvit-license": "Apple's own: use, change and pass on are granted, patents are not",
    "cc-by-nc-4.0": "no commercial use",
}
"""What a licence that is not open says, by timm's name for it."""


@dataclass(frozen=True, kw_only=True)
class EncoderFamily:
    """A network and the pretrained weights it starts from."""

    architecture: str
    """timm name with the tag of the weights."""
    embedding_size: int
    """Length D of an embedding."""
    parameters_m: float
    """Millions, without the classifier."""
    pretrained_size_px: int
    """Side of the squares the weights were trained on."""
    learning_rate: float = CONVOLUTION_LEARNING_RATE
    """To start from these weights, at 128 pairs a batch."""
    mean: RGB = IMAGENET_MEAN
    """RGB in 0..1, as the weights were trained with."""
    std: RGB = IMAGENET_STD
    sizes: Sizes = "any"
    size_multiple_px: int = 1
    """Both sides must be multiples of this."""
    has_batch_norm: bool = False
    """In training an embedding depends on its batch: cached in chunks it is another, and small
    batches spoil the running statistics."""
    has_grad_checkpointing: bool = True
    """Can trade time for memory in training."""
    fuses: bool = False
    """Trains with parallel branches that timm's `reparameterize_model` fuses before export."""
    licence: str = "apache-2.0"
    """Of the weights, as timm names it."""

    @property
    def licence_is_open(self) -> bool:
        """Anyone may fly them, for money too."""
        return self.licence in OPEN_LICENCES

    @property
    def licence_note(self) -> str:
        """What to know before flying them; empty for open licences."""
        if self.licence_is_open:
            return ""
        return LICENCE_NOTES.get(self.licence, "read it before flying")

    def model_args(self, tile_px: SizePx, photo_px: SizePx | None = None) -> dict[str, Any]:
        """What timm must be told to build the network for these sizes.

        Args:
            tile_px: of tiles, and of what is exported.
            photo_px: of photos; None for the same.

        Raises:
            InputError: the network takes no such sizes, or not both.
        """
        for size in (tile_px, photo_px or tile_px):
            self._require_multiple(size)
        if self.sizes == "any":
            return {}
        # A list, because it goes through JSON.
        built_for: dict[str, Any] = {"img_size": list(tile_px)}
        if photo_px in (None, tile_px):
            return built_for
        if self.sizes == "one":
            msg = (
                f"{self.architecture} takes one size only; photos of {_text(photo_px)} px and "
                f"tiles of {_text(tile_px)} px are two. Use one size or another network"
            )
            raise InputError(msg)
        return {**built_for, "dynamic_img_size": True}

    def _require_multiple(self, size_px: SizePx) -> None:
        step = self.size_multiple_px
        if any(side % step or side < step for side in size_px):
            lower: SizePx = (
                max(step, size_px[0] // step * step),
                max(step, size_px[1] // step * step),
            )
            upper: SizePx = (-(-size_px[0] // step) * step, -(-size_px[1] // step) * step)
            msg = (
                f"{self.architecture} takes sides that are multiples of {step} px; "
                f"{_text(size_px)} is not. Try {_text(lower)} or {_text(upper)}"
            )
            raise InputError(msg)


FAMILIES = (
    EncoderFamily(  # The paper's.
        architecture="convnext_base.fb_in22k_ft_in1k_384",
        embedding_size=1024,
        parameters_m=87.57,
        pretrained_size_px=384,
    ),
    EncoderFamily(
        architecture="convnext_tiny.fb_in22k_ft_in1k_384",
        embedding_size=768,
        parameters_m=27.82,
        pretrained_size_px=384,
    ),
    EncoderFamily(
        architecture="convnext_nano.in12k_ft_in1k",
        embedding_size=640,
        parameters_m=14.95,
        pretrained_size_px=224,
    ),
    EncoderFamily(
        architecture="convnext_pico.d1_in1k",
        embedding_size=512,
        parameters_m=8.53,
        pretrained_size_px=224,
    ),
    EncoderFamily(
        architecture="convnext_femto.d1_in1k",
        embedding_size=384,
        parameters_m=4.83,
        pretrained_size_px=224,
    ),
    EncoderFamily(
        architecture="convnext_atto.d2_in1k",
        embedding_size=320,
        parameters_m=3.37,
        pretrained_size_px=224,
    ),
    EncoderFamily(
        architecture="mobilenetv4_conv_medium.e500_r256_in1k",
        embedding_size=1280,
        parameters_m=8.43,
        pretrained_size_px=256,
        has_batch_norm=True,
    ),
    EncoderFamily(
        architecture="mobilenetv4_conv_small.e2400_r224_in1k",
        embedding_size=1280,
        parameters_m=2.49,
        pretrained_size_px=224,
        has_batch_norm=True,
    ),
    EncoderFamily(
        architecture="mobilenetv2_100.ra_in1k",
        embedding_size=1280,
        parameters_m=2.22,
        pretrained_size_px=224,
        has_batch_norm=True,
    ),
    EncoderFamily(
        architecture="repvit_m1_0.dist_450e_in1k",
        embedding_size=448,
        parameters_m=6.40,
        pretrained_size_px=224,
        has_batch_norm=True,
        fuses=True,
    ),
    EncoderFamily(
        architecture="repvit_m0_9.dist_450e_in1k",
        embedding_size=384,
        parameters_m=4.72,
        pretrained_size_px=224,
        has_batch_norm=True,
        fuses=True,
    ),
    EncoderFamily(
        architecture="fastvit_sa12.apple_dist_in1k",
        embedding_size=1024,
        parameters_m=10.56,
        pretrained_size_px=256,
        has_batch_norm=True,
        fuses=True,
        licence="fastvit-license",
    ),
    EncoderFamily(
        architecture="fastvit_t8.apple_dist_in1k",
        embedding_size=768,
        parameters_m=3.26,
        pretrained_size_px=256,
        has_batch_norm=True,
        fuses=True,
        licence="fastvit-license",
    ),
    EncoderFamily(
        architecture="vit_small_patch14_dinov2.lvd142m",
        embedding_size=384,
        parameters_m=22.06,
        pretrained_size_px=518,
        learning_rate=TRANSFORMER_LEARNING_RATE,
        sizes="given",
        size_multiple_px=14,
    ),
    EncoderFamily(
        architecture="vit_small_patch16_dinov3.lvd1689m",
        embedding_size=384,
        parameters_m=21.59,
        pretrained_size_px=256,
        learning_rate=TRANSFORMER_LEARNING_RATE,
        sizes="given",
        size_multiple_px=16,
        licence="dinov3-license",
    ),
)
"""From the paper's to the smallest, by kind. docs/encoders.md compares them."""


def family_of(architecture: str) -> EncoderFamily:
    """Facts about a network of timm, recommended here or not.

    Args:
        architecture: timm name; without a tag, the recommended weights or timm's own choice.

    Raises:
        InputError: timm has no such network or no such weights for it.
    """
    for family in FAMILIES:
        if architecture in (family.architecture, family.architecture.partition(".")[0]):
            return family
    return derived_family(architecture)


@functools.cache
def derived_family(architecture: str) -> EncoderFamily:
    """Work out the facts by asking timm and by building the network without memory.

    Raises:
        InputError: as `family_of`.
    """
    require_architecture(architecture)
    try:
        body = _built_without_memory(architecture)
        cfg = timm.get_pretrained_cfg(architecture)
    except Exception as error:  # Whatever the network's own code raises.
        msg = f"timm cannot build {architecture}: {one_line(error)}"
        raise InputError(msg) from error
    if cfg is None:
        msg = f"timm says nothing about {architecture}; expected one of its registered networks"
        raise InputError(msg)
    modules = list(body.modules())
    is_transformer = hasattr(body, "patch_embed")
    sizes, size_multiple_px = _sizes(body, cfg.input_size[1:])
    return EncoderFamily(
        architecture=f"{cfg.architecture}.{cfg.tag}" if cfg.tag else architecture,
        embedding_size=_embedded(body, cfg.input_size[1:]).shape[1],
        parameters_m=round(sum(p.numel() for p in body.parameters()) / 1e6, 2),
        pretrained_size_px=cfg.input_size[1],
        learning_rate=(TRANSFORMER_LEARNING_RATE if is_transformer else CONVOLUTION_LEARNING_RATE),
        mean=_rgb(cfg.mean),
        std=_rgb(cfg.std),
        sizes=sizes,
        size_multiple_px=size_multiple_px,
        has_batch_norm=any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules),
        has_grad_checkpointing=_has_grad_checkpointing(body),
        fuses=any(hasattr(m, name) for m in modules for name in _FUSING_METHODS),
        licence=cfg.license or "unknown",
    )


_FUSING_METHODS = ("fuse", "reparameterize", "switch_to_deploy")
"""What timm's `reparameterize_model` calls."""


def require_architecture(architecture: str) -> None:
    """Refuse what timm does not have.

    Raises:
        InputError: with the nearest names.
    """
    if not timm.is_model(architecture.partition(".")[0]):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        msg = f"timm has no architecture {architecture!r}; near names: {near or 'none'}"
        raise InputError(msg)


def one_line(error: Exception) -> str:
    """An error's text without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def _built_without_memory(architecture: str) -> nn.Module:
    with torch.device("meta"):
        body: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=0)
    return body.eval()


@torch.no_grad()
def _embedded(body: nn.Module, size_px: SizePx) -> torch.Tensor:
    with torch.device("meta"):
        embeddings: torch.Tensor = body(torch.zeros(1, 3, *size_px))
    return embeddings


def _sizes(body: nn.Module, native_px: SizePx) -> tuple[Sizes, int]:
    """Which sizes a network takes and their multiple, found by trying."""
    height, width = native_px
    if _takes(body, (height - 1, width + 33)):
        return "any", 1
    patch = getattr(getattr(body, "patch_embed", None), "patch_size", 1)
    multiple = max(patch) if isinstance(patch, tuple) else int(patch)
    # Subclasses hand arguments on to their bases.
    arguments = {name for base in type(body).__mro__ for name in _arguments(base)}
    if "dynamic_img_size" in arguments:
        # Some take every size by default, but only one that is built for a size is exported
        # without resizing its position embeddings in the graph.
        return "given", multiple
    if _takes(body, (height, 2 * width)):
        return "any", max(multiple, _COARSEST_PX)
    return "one", multiple


_COARSEST_PX = 32
"""Pixels to a cell of the last feature map of nearly every network."""


def _takes(body: nn.Module, size_px: SizePx) -> bool:
    try:
        _embedded(body, size_px)
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError):
        return False
    return True


def _arguments(kind: type) -> list[str]:
    return list(inspect.signature(kind.__init__).parameters)  # type: ignore[misc]


def _rgb(values: tuple[float, ...]) -> RGB:
    red, green, blue = values
    return red, green, blue


def _has_grad_checkpointing(body: nn.Module) -> bool:
    switch = getattr(body, "set_grad_checkpointing", None)
    if switch is None:
        return False
    try:
        switch(True)
    except (AssertionError, NotImplementedError):  # How timm's networks say that they cannot.
        return False
    return True


def _text(size_px: SizePx | None) -> str:
    assert size_px is not None
    return f"{size_px[0]}x{size_px[1]}"
