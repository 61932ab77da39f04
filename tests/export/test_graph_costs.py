"""Counted costs of graphs that can be counted by hand, and of networks that torch counts too."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edge_runtime.errors import InputError
from export.graph_costs import graph_costs
from export.onnx_encoder import export_onnx
from train.encoder import new_encoder
from train.timm_import import timm

Weights = dict[str, tuple[int, ...]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a graph of nodes; weights are FP32 unless an array is given."""

    def write_graph(
        nodes: Sequence[onnx.NodeProto],
        inputs: Weights,
        outputs: Sequence[str],
        weights: dict[str, Any] | None = None,
    ) -> Path:
        rng = np.random.default_rng(1)
        constants = []
        for name, value in (weights or {}).items():
            array = value if isinstance(value, np.ndarray) else rng.random(value, np.float32)
            constants.append(numpy_helper.from_array(array, name))
        graph = helper.make_graph(
            list(nodes),
            "graph",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
                for name, shape in inputs.items()
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        path = tmp_path / "graph.onnx"
        onnx.save(model, path)
        return path

    return write_graph


def test_products_cost_what_they_cost_by_hand(write: Callable[..., Path]) -> None:
    node = helper.make_node
    path = write(
        [
            node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
            node("Conv", ["a", "w2"], ["b"], pads=[1, 1, 1, 1], group=8),
            node("ConvTranspose", ["b", "w3"], ["c"], strides=[2, 2]),
            node("Flatten", ["c"], ["d"]),
            node("Gemm", ["d", "w4"], ["e"], transB=1),
            node("MatMul", ["d", "w5"], ["f"]),
            node("Einsum", ["d", "w5"], ["g"], equation="nc,cd->nd"),
        ],
        {"x": (3, 16, 16)},
        ["e", "f", "g"],
        {
            "w1": (8, 3, 3, 3),
            "w2": (8, 1, 3, 3),
            "w3": (8, 4, 2, 2),
            "w4": (5, 4 * 16 * 16),
            "w5": (4 * 16 * 16, 7),
        },
    )
    for batch in (1, 3):
        costs = graph_costs(path, batch=batch)
        assert [cost.macs for cost in costs.nodes] == [
            batch * 8 * 8 * 8 * 3 * 9,
            batch * 8 * 8 * 8 * 9,
            batch * 8 * 8 * 8 * 4 * 4,
            batch * 5 * 1024,
            batch * 7 * 1024,
            batch * 7 * 1024,
        ]
    assert costs.parameters == 216 + 72 + 128 + 5120 + 7168  # w5 is shared: once.
    assert costs.uncounted == ()


def test_attention_counts_both_products_and_the_softmax(write: Callable[..., Path]) -> None:
    node = helper.make_node
    path = write(
        [
            node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
            node("MatMul", ["q", "kt"], ["s"]),
            node("Softmax", ["s"], ["p"]),
            node("MatMul", ["p", "v"], ["o"]),
        ],
        {"q": (2, 10, 4), "k": (2, 10, 4), "v": (2, 10, 4)},
        ["o"],
    )
    costs = graph_costs(path)
    assert costs.macs == 2 * (2 * 10 * 10 * 4)
    softmax = next(cost for cost in costs.nodes if cost.ops == ("Softmax",))
    assert softmax.flops == 5 * 2 * 10 * 10
    assert softmax.read.bytes == softmax.written.bytes == 2 * 10 * 10 * 4


def test_what_passes_inside_a_kernel_is_not_moved(write: Callable[..., Path]) -> None:
    """A residual block by hand: two kernels, the second reads the skipped tensor too."""
    node = helper.make_node
    path = write(
        [
            node("Conv", ["x", "w1"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("Conv", ["b", "w2"], ["c"]),
            node("Add", ["c", "x"], ["d"]),
            node("Relu", ["d"], ["y"]),
        ],
        {"x": (8, 4, 4)},
        ["y"],
        {"w1": (16, 8, 1, 1), "w2": (8, 16, 1, 1)},
    )
    costs = graph_costs(path)
    x, b, w = 8 * 16 * 4, 16 * 16 * 4, 8 * 16 * 4
    first, second = costs.kernels
    assert (first.ops, second.ops) == (("Conv", "Relu"), ("Conv", "Add", "Relu"))
    assert (first.read.bytes, first.weights.bytes, first.written.bytes) == (x, w, b)
    assert (second.read.bytes, second.weights.bytes, second.written.bytes) == (b + x, w, x)
    apart = sum(cost.moved_bytes() for cost in costs.nodes)
    assert apart == 2 * w + (x + b) + (b + b) + (b + x) + (x + x + x) + (x + x)
    assert sum(cost.flops for cost in costs.kernels) == sum(cost.flops for cost in costs.nodes)
    assert costs.nodes[0].moved_bytes(2) * 2 == costs.nodes[0].moved_bytes()


def test_a_tensor_read_twice_is_written_even_if_one_reader_is_fused(
    write: Callable[..., Path],
) -> None:
    node = helper.make_node
    path = write(
        [
            node("Conv", ["x", "w"], ["a"]),
            node("Relu", ["a"], ["b"]),
            node("Conv", ["a", "w"], ["c"]),
        ],
        {"x": (4, 2, 2)},
        ["b", "c"],
        {"w": (4, 4, 1, 1)},
    )
    first, _ = graph_costs(path).kernels
    assert first.written.bytes == 2 * 4 * 4 * 4


def test_quantised_tensors_are_read_as_bytes_and_multiplied_as_integers(
    write: Callable[..., Path],
) -> None:
    node = helper.make_node
    scales = {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8)}
    path = write(
        [
            node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
            node("DequantizeLinear", ["wq", "s", "z"], ["wd"]),
            node("Conv", ["xd", "wd"], ["a"]),
            node("Conv", ["a", "wd"], ["y"]),
        ],
        {"x": (8, 4, 4)},
        ["y"],
        {"wq": np.ones((8, 8, 1, 1), np.int8), **scales},
    )
    costs = graph_costs(path)
    quantise, integer, mixed = costs.nodes
    assert quantise.ops == ("QuantizeLinear",)
    assert (quantise.read.bytes, quantise.written.bytes) == (8 * 16 * 4, 8 * 16)
    assert (integer.precision, mixed.precision) == ("int8", "fp32")
    assert (integer.read.bytes, integer.weights.bytes) == (8 * 16, 64)
    assert costs.parameters == 64


def test_what_is_computed_from_shapes_costs_nothing(write: Callable[..., Path]) -> None:
    """Batch-sized index arithmetic, as exporters leave it, is gone when the batch is a number."""
    node = helper.make_node
    path = write(
        [
            node("Shape", ["x"], ["n"], start=0, end=1),
            node("Concat", ["n", "rest"], ["shape"], axis=0),
            node("Reshape", ["x", "shape"], ["flat"]),
            node("MatMul", ["flat", "w"], ["y"]),
        ],
        {"x": (3, 2, 2)},
        ["y"],
        {"rest": np.array([12]), "w": (12, 5)},
    )
    costs = graph_costs(path, batch=4)
    assert [cost.ops for cost in costs.nodes] == [("MatMul",)]
    assert costs.macs == 4 * 12 * 5


def test_unknown_arithmetic_is_named(write: Callable[..., Path]) -> None:
    path = write([helper.make_node("Det", ["x"], ["y"])], {"x": (3, 3)}, ["y"])
    assert graph_costs(path).uncounted == ("Det",)


def test_a_file_that_cannot_be_counted_is_refused(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write([helper.make_node("NonZero", ["x"], ["i"])], {"x": (3,)}, [])
    with pytest.raises(InputError, match="'i' depends on the data; expected static shapes"):
        graph_costs(path)
    with pytest.raises(InputError, match="batch is 0; expected at least 1"):
        graph_costs(path, batch=0)
    (tmp_path / "text.onnx").write_text("not a graph")
    with pytest.raises(InputError, match=r"expected a \.onnx file"):
        graph_costs(tmp_path / "text.onnx")
    with pytest.raises(InputError, match=r"expected a \.onnx file"):
        graph_costs(tmp_path / "missing.onnx")


def _agrees_with_torch(architecture: str, size_px: int, tmp_path: Path) -> None:
    torch.manual_seed(3)
    encoder = new_encoder(architecture, size_px=size_px).eval()
    images = torch.zeros(1, size_px, size_px, 3, dtype=torch.uint8)
    # What flies has its branches fused; torch counts attention only where it runs as products.
    flown = copy.deepcopy(encoder)
    flown.body = timm.models.reparameterize_model(flown.body)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        flown(images)
    path = tmp_path / "encoder.onnx"
    export_onnx(encoder, path, "fp32")
    costs = graph_costs(path)
    assert costs.uncounted == ()
    assert 2 * costs.macs == counter.get_total_flops()


def test_a_small_network_costs_what_torch_says(tmp_path: Path) -> None:
    _agrees_with_torch("test_convnext", 64, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "size_px"),
    [
        ("vit_small_patch14_dinov2", 224),
        ("efficientvit_b0", 224),
        ("fastvit_t8", 256),
    ],
)
def test_every_family_costs_what_torch_says(
    architecture: str, size_px: int, tmp_path: Path
) -> None:
    _agrees_with_torch(architecture, size_px, tmp_path)
