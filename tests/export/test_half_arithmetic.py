"""The simulation must really be FP16: each case below comes out otherwise if anything is skipped.

ONNX Runtime's own answer is not used as evidence for FP16 anywhere here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edge_runtime.errors import GateError
from export.half_arithmetic import embed_in_half_arithmetic

U8 = npt.NDArray[np.uint8]
F16 = npt.NDArray[np.float16]
F32 = npt.NDArray[np.float32]

HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT
Step = tuple[str, Sequence[float]]


def chain(steps: Sequence[Step], kind: int = HALF) -> onnx.ModelProto:
    """`images` of one number each, through operators with one constant each, in one type."""
    dtype = np.float16 if kind == HALF else np.float32
    nodes = [helper.make_node("Cast", ["images"], ["v0"], "cast", to=kind)]
    constants, values = [], []
    for k, (op, operands) in enumerate(steps, start=1):
        inputs = [f"v{k - 1}"]
        if operands:
            constants.append(onnx.numpy_helper.from_array(np.array(operands, dtype), f"c{k}"))
            inputs.append(f"c{k}")
        nodes.append(helper.make_node(op, inputs, [f"v{k}"], f"n{k}"))
    nodes.append(helper.make_node("Cast", [f"v{len(steps)}"], ["embeddings"], "out", to=FULL))
    values = [
        helper.make_tensor_value_info(f"v{k}", kind, ["batch", 1]) for k in range(len(steps) + 1)
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 1])],
        [helper.make_tensor_value_info("embeddings", FULL, ["batch", 1])],
        constants,
        value_info=values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def answer(steps: Sequence[Step], start: int, kind: int = HALF) -> float:
    images = np.array([[start]], np.uint8)
    return float(embed_in_half_arithmetic(chain(steps, kind), images, threads=1)[0, 0])


def test_a_product_beyond_fp16_is_infinite_even_if_it_comes_back() -> None:
    steps = [("Mul", [300.0]), ("Mul", [300.0]), ("Div", [90000.0 / 2**4]), ("Div", [2.0**4])]
    assert answer(steps, 1) == np.inf
    assert answer(steps, 1, FULL) == 1.0


@pytest.mark.parametrize(
    ("summand", "expected"),
    [
        pytest.param(2.0**-10, 1 + 2.0**-10, id="the next number is kept"),
        pytest.param(2.0**-11, 1.0, id="half way rounds to even"),
        pytest.param(3 * 2.0**-12, 1 + 2.0**-10, id="above half way rounds up"),
    ],
)
def test_sums_are_rounded_to_eleven_bits(summand: float, expected: float) -> None:
    # Were the sum not rounded, taking 1 away again would leave what was added.
    assert answer([("Add", [summand]), ("Sub", [1.0])], 1) == expected - 1.0
    assert answer([("Add", [summand]), ("Sub", [1.0])], 1, FULL) == summand


def test_subnormal_numbers_keep_their_fixed_step() -> None:
    # 1.5 * 2**-24 is half way between one and two steps of 2**-24 and goes to the even one.
    assert answer([("Mul", [2.0**-12]), ("Mul", [1.5 * 2.0**-12])], 1) == 2.0**-23
    assert answer([("Mul", [2.0**-12]), ("Mul", [2.0**-14])], 1) == 0.0


@pytest.mark.parametrize(
    ("summand", "expected"),
    [
        pytest.param(224.0, 65504.0, id="the largest finite number"),
        pytest.param(232.0, 65504.0, id="65512 is nearer to it than to 65536"),
        pytest.param(240.0, np.inf, id="65520 is half way and rounds to infinity"),
    ],
)
def test_overflow_begins_half_a_step_beyond_the_largest_number(
    summand: float, expected: float
) -> None:
    assert answer([("Mul", [256.0]), ("Add", [summand])], 255) == expected


def test_a_long_chain_equals_numpy_in_half_and_not_in_full_precision() -> None:
    rng = np.random.default_rng(3)
    steps: list[Step] = []
    half, full = np.float16(201), np.float64(201)
    for _ in range(40):
        factor, summand = (np.float16(v) for v in rng.uniform(0.7, 1.4, 2))
        steps += [("Mul", [float(factor)]), ("Add", [float(summand)])]
        half = np.float16(np.float16(half * factor) + summand)
        full = full * float(factor) + float(summand)
    assert answer(steps, 201) == float(half)
    assert float(half) != pytest.approx(full, rel=2.0**-12)


def small_network(rng: np.random.Generator) -> tuple[onnx.ModelProto, Callable[[U8], F32]]:
    """Two layers with a residual and a softmax in FP32, and the same in NumPy's float16."""
    weights = {
        name: rng.normal(0, size, shape).astype(np.float16)
        for name, shape, size in (
            ("a", (12, 24), 0.3), ("b", (24,), 0.1), ("c", (24, 12), 0.3), ("scale", (), 1.0),
        )
    }  # fmt: skip
    weights["scale"] = np.array(1 / 255, np.float16)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["pixels"], "cast", to=HALF),
            helper.make_node("Mul", ["pixels", "scale"], ["x"], "scaled"),
            helper.make_node("MatMul", ["x", "a"], ["h0"], "first"),
            helper.make_node("Add", ["h0", "b"], ["h1"], "bias"),
            helper.make_node("Relu", ["h1"], ["h2"], "relu"),
            helper.make_node("MatMul", ["h2", "c"], ["y"], "second"),
            helper.make_node("Add", ["x", "y"], ["z"], "residual"),
            helper.make_node("Cast", ["z"], ["z32"], "up", to=FULL),
            helper.make_node("Softmax", ["z32"], ["embeddings"], "softmax", axis=-1),
        ],
        "small",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 12])],
        [helper.make_tensor_value_info("embeddings", FULL, ["batch", 12])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
        value_info=[
            helper.make_tensor_value_info(name, kind, ["batch", size])
            for name, kind, size in (
                ("pixels", HALF, 12), ("x", HALF, 12), ("h0", HALF, 24), ("h1", HALF, 24),
                ("h2", HALF, 24), ("y", HALF, 12), ("z", HALF, 12), ("z32", FULL, 12),
            )
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    def product(left: F16, right: F16) -> F16:
        exact: F16 = (left.astype(np.float32) @ right.astype(np.float32)).astype(np.float16)
        return exact

    def reference(images: U8) -> F32:
        x = images.astype(np.float16) * weights["scale"]
        hidden = np.maximum(product(x, weights["a"]) + weights["b"], np.float16(0))
        z = (x + product(hidden, weights["c"])).astype(np.float32)
        power = np.exp(z - z.max(axis=1, keepdims=True))
        result: F32 = power / power.sum(axis=1, keepdims=True)
        return result

    return model, reference


def test_a_small_network_equals_numpy_float16_with_fp32_sums() -> None:
    rng = np.random.default_rng(5)
    model, reference = small_network(rng)
    images = rng.integers(0, 256, (64, 12), np.uint8)
    found = embed_in_half_arithmetic(model, images, batch=7, threads=1)
    assert found.dtype == np.float32
    # The order of summing in FP32 may move a number to the next in FP16, seldom.
    np.testing.assert_allclose(found, reference(images), rtol=2.0**-8)
    assert np.mean(found == reference(images)) > 0.3


def test_the_model_stays_as_it_is_and_batches_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    model, _ = small_network(rng)
    before = model.SerializeToString()
    images = rng.integers(0, 256, (5, 12), np.uint8)
    one = embed_in_half_arithmetic(model, images, threads=1)
    assert model.SerializeToString() == before
    many = embed_in_half_arithmetic(model, images, batch=5, threads=1)
    np.testing.assert_allclose(many, one, rtol=2.0**-8)


def test_a_value_without_a_type_is_refused() -> None:
    model = chain([("Mul", [2.0])])
    del model.graph.value_info[:]
    with pytest.raises(GateError, match="expected the value_info that export writes"):
        embed_in_half_arithmetic(model, np.zeros((1, 1), np.uint8))


def test_torch_in_half_answers_alike_for_a_convnext(tmp_path: Any) -> None:
    """The same rounding by another library: torch rounds after every operator on the CPU too."""
    from export.activation_ranges import activation_ranges
    from export.mixed_precision import to_mixed_precision
    from export.onnx_encoder import encoder_to_onnx
    from train.encoder import new_encoder

    torch.manual_seed(4)
    encoder = new_encoder("test_convnext", size_px=64).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "gamma" in name:
                parameter.uniform_(0.2, 1.0)
    full = encoder_to_onnx(encoder)
    images = np.random.default_rng(2).integers(0, 256, (4, 64, 64, 3), np.uint8)
    mixed = to_mixed_precision(full, activation_ranges(full, images, threads=1)).model
    ours = embed_in_half_arithmetic(mixed, images, threads=1)
    with torch.inference_mode():
        exact = encoder(torch.from_numpy(images)).numpy()
        encoder.body.half()
        halved = encoder(torch.from_numpy(images)).numpy()
    ours_off = np.linalg.norm(ours - exact, axis=1)
    torch_off = np.linalg.norm(halved - exact, axis=1)
    # Both are off by rounding, by the same order of magnitude, and neither is exact.
    assert (ours_off > 1e-5).all()
    assert (torch_off > 1e-5).all()
    assert np.linalg.norm(ours - halved, axis=1).max() < 3e-3
    assert 0.2 < np.median(ours_off) / np.median(torch_off) < 5.0
