"""Whether an exported encoder answers as the trained one, per architecture and size.

**What is compared**: embeddings by PyTorch in FP32 with those of the exported files, picture by
picture, on photographs that the FP16 file was not calibrated on. FP32 runs in ONNX Runtime, one
picture at a time and in batches. FP16 runs in `export.half_arithmetic`, which rounds after every
FP16 node; see there for what that leaves unproved.

Two cosines are given. The plain one is what flight searches by. The centred one is taken after the
mean embedding of the photographs, by PyTorch, was subtracted from both: where embeddings are much
alike, as an untrained network's are, the plain cosine is near one whatever goes wrong, and the
centred one is not.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import nn

from benchmarks.rows import Provenance, cpu_name, provenance
from edge_runtime.errors import InputError
from edge_runtime.preprocess import resize_to_encoder
from export.activation_ranges import activation_ranges
from export.half_arithmetic import embed_in_half_arithmetic
from export.onnx_encoder import encoder_to_onnx
from export.precision_search import mixed_precision_that_holds
from train.encoder import Encoder, new_encoder
from train.encoder_families import family_of

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

FAMILIES = (
    "convnext_tiny", "convnext_atto", "convnextv2_atto", "mobilenetv2_100",
    "mobilenetv3_large_100", "mobilenetv4_conv_small", "mobilenetv4_conv_medium",
    "mobilenetv4_hybrid_medium", "tf_efficientnet_lite0", "repvit_m0_9", "fastvit_t8",
    "fastvit_sa12", "efficientvit_b0", "efficientvit_m0", "vit_tiny_patch16_224",
    "vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "resnet18",
)  # fmt: skip
"""One or two small members of every family that training offers."""
SIZES_PX = (224, 384)
CALIBRATION_COSINE = 0.9998
"""Lowest in half arithmetic on the pictures of calibration, so that others keep 0.9995."""
_SEED = 20
_ATTENTION = ("attn", "qkv", "token_mixer")


@dataclass(frozen=True, kw_only=True)
class ParityRow(Provenance):
    """One architecture at one size. See the module for what is compared."""

    kind: Literal["parity"] = "parity"
    architecture: str
    size_px: int
    """Side of the pictures; lowered to a multiple that the network takes."""
    weights: str
    """Where they come from."""
    photographs: int
    """Compared; as many others were calibrated on."""
    folder: str = ""
    """Name of theirs."""
    batch: int
    """Pictures per run of the batched comparison."""
    spread: float
    """Mean length of an embedding after subtracting their mean: 0 where all are alike."""
    fp32_min_cosine: float
    """Batch 1 and batched together, as all of fp32."""
    fp32_median_cosine: float
    fp32_min_centred: float
    fp16_min_cosine: float
    fp16_median_cosine: float
    fp16_min_centred: float
    fp16_median_centred: float
    nodes: int
    """Of the fp32 graph."""
    half_nodes: int
    """That compute in FP16."""
    kept_nodes: int
    """That stay in FP32."""
    kept_by_measurement: int
    """Of these, for a number that was measured in activations or weights."""
    kept_early: int
    """Of these, because rounding there grew too much on the way to the embedding."""
    fp32_mb: float
    fp16_mb: float
    export_s: float
    """To FP32 ONNX, checked."""
    calibrate_s: float
    """Ranges, types and trials of them."""
    cpu: str


def parity_rows(
    architectures: Sequence[str] = FAMILIES,
    sizes_px: Sequence[int] = SIZES_PX,
    photographs: Sequence[Path] = (),
    *,
    pictures: int = 12,
    batch: int = 4,
    threads: int | None = None,
) -> list[ParityRow]:
    """Compare encoders of random but lived-in weights on photographs.

    Args:
        architectures: timm names.
        sizes_px: sides of the pictures.
        photographs: at least `2 * pictures` files; every other one is calibrated on.
        pictures: to compare.
        batch: pictures per run of the batched comparison.
        threads: CPU threads of ONNX Runtime; None for all of this machine's.

    Raises:
        InputError: too few photographs, or one that cannot be read.
        SkyfixError: an architecture cannot be built or exported.
    """
    if len(photographs) < 2 * pictures:
        msg = (
            f"{len(photographs)} photographs; expected at least {2 * pictures}: {pictures} to "
            "calibrate on and as many to compare"
        )
        raise InputError(msg)
    step = len(photographs) // (2 * pictures)
    chosen = [_read(path) for path in photographs[::step][: 2 * pictures]]
    rows = []
    for architecture in architectures:
        for size_px in sizes_px:
            torch.manual_seed(_SEED)
            encoder = new_encoder(architecture, size_px=side_px(architecture, size_px)).eval()
            images = np.stack([resize_to_encoder(image, encoder.spec) for image in chosen])
            live_in(encoder, images[::2])
            row = parity_row(
                encoder,
                calibration=images[::2],
                images=images[1::2],
                weights=f"random, seed {_SEED}, lived in",
                batch=batch,
                threads=threads,
            )
            rows.append(replace(row, folder=photographs[0].parent.name))
    return rows


def side_px(architecture: str, size_px: int) -> int:
    """A side that the network takes: lowered to a multiple of its patch."""
    multiple = family_of(architecture).size_multiple_px
    return size_px // multiple * multiple


def parity_row(
    encoder: Encoder,
    *,
    calibration: U8,
    images: U8,
    weights: str,
    batch: int = 4,
    threads: int | None = None,
) -> ParityRow:
    """Compare one encoder, trained or not.

    Args:
        encoder: on the CPU, in evaluation mode.
        calibration: (M, H, W, 3) uint8, RGB, for the ranges of FP16.
        images: (N, H, W, 3) uint8, RGB, to compare on; N >= 2.
        weights: where the encoder's come from, for the row.
        batch: pictures per run of the batched comparison.
        threads: CPU threads of ONNX Runtime; None for all of this machine's.
    """
    reference = _by_torch(encoder, images)
    centre = reference.mean(axis=0)
    began_s = time.perf_counter()
    full = encoder_to_onnx(encoder)
    exported_s = time.perf_counter()
    mixed = mixed_precision_that_holds(
        full,
        activation_ranges(full, calibration, threads=threads),
        calibration,
        _by_torch(encoder, calibration),
        min_cosine=CALIBRATION_COSINE,
        threads=threads,
    )
    calibrated_s = time.perf_counter()
    by_fp32 = np.concatenate([_embed(full.SerializeToString(), images, n, threads)
                              for n in (1, batch)])  # fmt: skip
    by_fp16 = embed_in_half_arithmetic(mixed.model, images, threads=threads)
    twice = np.concatenate([reference, reference])
    fp32, fp32_centred = _cosines(by_fp32, twice), _cosines(by_fp32 - centre, twice - centre)
    fp16, fp16_centred = (
        _cosines(by_fp16, reference),
        _cosines(by_fp16 - centre, reference - centre),
    )
    return ParityRow(
        **provenance(),
        architecture=encoder.spec.architecture,
        size_px=encoder.spec.height_px,
        weights=weights,
        photographs=len(images),
        batch=batch,
        spread=float(np.linalg.norm(reference - centre, axis=1).mean()),
        fp32_min_cosine=_least(fp32),
        fp32_median_cosine=float(np.median(fp32)),
        fp32_min_centred=_least(fp32_centred),
        fp16_min_cosine=_least(fp16),
        fp16_median_cosine=float(np.median(fp16)),
        fp16_min_centred=_least(fp16_centred),
        fp16_median_centred=float(np.median(fp16_centred)),
        nodes=len(full.graph.node),
        half_nodes=mixed.half_nodes,
        kept_nodes=len(mixed.kept),
        kept_by_measurement=sum(node.measured is not None for node in mixed.kept),
        kept_early=sum(node.reason.startswith("rounding") for node in mixed.kept),
        fp32_mb=full.ByteSize() / 1e6,
        fp16_mb=mixed.model.ByteSize() / 1e6,
        export_s=exported_s - began_s,
        calibrate_s=calibrated_s - exported_s,
        cpu=cpu_name(),
    )


@torch.no_grad()
def live_in(encoder: Encoder, images: U8, *, seed: int = _SEED) -> None:
    """Give a new network weights like a trained one's, in place, and leave it in evaluation mode.

    A new network does little to its pictures: layer scales are 1e-6, response norms 0,
    transformers shrink what passes them, and batch norms do not know what they see. Here layers
    keep the size of what passes them, branches matter, and batch norms have measured the pictures.

    Args:
        encoder: with new weights.
        images: (N, H, W, 3) uint8, RGB, N >= 2.
        seed: of the numbers drawn.
    """
    drawn = torch.Generator().manual_seed(seed)

    def uniform(parameter: torch.Tensor, low: float, high: float) -> None:
        parameter.copy_(torch.empty(parameter.shape).uniform_(low, high, generator=drawn))

    def normal(parameter: torch.Tensor, deviation: float) -> None:
        parameter.copy_(torch.empty(parameter.shape).normal_(0, deviation, generator=drawn))

    for name, parameter in encoder.body.named_parameters():
        leaf = name.rpartition(".")[2]
        if "gamma" in leaf or "layer_scale" in name:
            uniform(parameter, 0.1, 1.0)
        elif "grn" in name:
            normal(parameter, 0.5)
        elif leaf == "weight" and parameter.ndim > 1:
            # He et al. 2015 (arXiv:1502.01852): 2 makes up for the half that rectifiers drop,
            # which attention's layers do not follow.
            gain = 1 if any(word in name for word in _ATTENTION) else 2
            normal(parameter, math.sqrt(gain / parameter[0].numel()))
        elif leaf == "weight":
            uniform(parameter, 0.5, 1.5)
        elif leaf == "bias":
            normal(parameter, 0.1)
    norms = [m for m in encoder.body.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # The mean of all batches.
        norm.train()
    if norms:
        for k in range(0, len(images) - 1, 6):
            encoder(torch.from_numpy(images[k : k + 6]))
    encoder.eval()


@torch.inference_mode()
def _by_torch(encoder: Encoder, images: U8) -> F32:
    parts = [encoder(torch.from_numpy(images[k : k + 1])).numpy() for k in range(len(images))]
    return np.concatenate(parts)


def _embed(model: bytes, images: U8, batch: int, threads: int | None) -> F32:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model, sess_options=options, providers=["CPUExecutionProvider"]
    )
    parts = [
        session.run(None, {"images": images[k : k + batch]})[0]
        for k in range(0, len(images), batch)
    ]
    return np.concatenate(parts).astype(np.float32)


def _cosines(found: F32, expected: F32) -> F32:
    """(N,) of row with row; NaN where one is not finite or has no length."""
    found64, expected64 = found.astype(np.float64), expected.astype(np.float64)
    lengths = np.linalg.norm(found64, axis=1) * np.linalg.norm(expected64, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((found64 * expected64).sum(axis=1) / lengths)


def _least(cosines: F32) -> float:
    """NaN if any is."""
    return float(np.min(cosines))


def _read(path: Path) -> U8:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        msg = f"{path} cannot be read; expected a JPEG, PNG or TIFF photograph"
        raise InputError(msg)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
