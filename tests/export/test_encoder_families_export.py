"""Every family that may fly comes out as it went in, small; `benchmarks.parity` does it at size."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch

from benchmarks.loading import textured
from benchmarks.parity import live_in
from export.activation_ranges import activation_ranges
from export.half_arithmetic import embed_in_half_arithmetic
from export.onnx_encoder import check_structure, encoder_to_onnx, export_onnx
from export.precision_search import mixed_precision_that_holds
from train.encoder import Encoder, new_encoder
from train.encoder_families import family_of

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

TENSORRT_OPERATORS = {
    "Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "Div", "Expand", "Gather", "Gelu",
    "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "LayerNormalization", "MatMul",
    "MaxPool", "Mul", "Neg", "Pad", "ReduceL2", "ReduceMean", "ReduceSum", "Relu", "Reshape",
    "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Transpose",
    "Unsqueeze",
}  # fmt: skip
"""Of these TensorRT 10's parser knows every one (onnx-tensorrt, docs/operators.md, 10.0 on)."""

FAST = ["test_convnext", "test_vit", "test_efficientnet"]
EVERY = [
    "convnext_atto",
    "convnextv2_atto",
    "mobilenetv2_100",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "mobilenetv4_hybrid_medium",
    "tf_efficientnet_lite0",
    "repvit_m0_9",
    "fastvit_t8",
    "fastvit_sa12",
    "efficientvit_b0",
    "efficientvit_m0",
    "vit_tiny_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
    "resnet18",
]


def lived_in(architecture: str) -> tuple[Encoder, U8]:
    torch.manual_seed(15)
    multiple = family_of(architecture).size_multiple_px
    # Large enough that batch norms see more than four cells of the last map.
    encoder = new_encoder(architecture, size_px=max(96 // multiple, 2) * multiple).eval()
    side = encoder.spec.height_px
    images = np.stack([textured(side, side, seed) for seed in range(24)])
    live_in(encoder, images)
    return encoder, images[:6]


def by_onnx_runtime(model: bytes, images: U8, batch: int) -> F32:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model, sess_options=options, providers=["CPUExecutionProvider"]
    )
    starts = range(0, len(images), batch)
    return np.concatenate([session.run(None, {"images": images[k : k + batch]})[0] for k in starts])


def lowest_cosine(found: F32, expected: F32) -> float:
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / lengths).min())


@pytest.mark.parametrize(
    "architecture", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in EVERY)]
)
def test_an_encoder_answers_the_same_in_fp32_and_nearly_in_fp16(architecture: str) -> None:
    encoder, images = lived_in(architecture)
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(images)).numpy()
    centre = expected.mean(axis=0)
    spread = np.linalg.norm(expected - centre, axis=1).min()
    assert spread > 0.05, "different pictures embed alike: nothing would be shown"

    full = encoder_to_onnx(encoder)
    for batch in (1, len(images)):
        found = by_onnx_runtime(full.SerializeToString(), images, batch)
        assert lowest_cosine(found, expected) >= 0.99999
        # Much stricter, because what all embeddings have in common is taken away.
        assert lowest_cosine(found - centre, expected - centre) >= 0.99999
    assert {node.op_type for node in full.graph.node} <= TENSORRT_OPERATORS

    ranges = activation_ranges(full, images[:3], threads=1)
    mixed = mixed_precision_that_holds(full, ranges, images, expected, min_cosine=0.9995, threads=1)
    half = embed_in_half_arithmetic(mixed.model, images, threads=1)
    assert lowest_cosine(half, expected) >= 0.9995
    assert mixed.half_nodes > 0.4 * len(full.graph.node)
    assert not np.array_equal(half, expected)


def test_a_file_of_either_precision_is_written_and_checked(tmp_path: Path) -> None:
    encoder, images = lived_in("test_resnet")
    full = export_onnx(encoder, tmp_path / "full.onnx", "fp32")
    half = export_onnx(encoder, tmp_path / "half.onnx", "fp16", calibration=images)
    for path, model, precision in (
        (tmp_path / "full.onnx", full, "fp32"),
        (tmp_path / "half.onnx", half, "fp16"),
    ):
        check_structure(path)
        assert path.read_bytes() == model.SerializeToString()
        said = {entry.key: entry.value for entry in model.metadata_props}
        assert said["skyfix.precision"] == precision
        assert set(said) == {"skyfix.precision", "skyfix.encoder"}
