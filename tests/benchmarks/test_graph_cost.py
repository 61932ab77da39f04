"""What a call costs: by hand, by torch, and by what is published about networks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.roofline.graph_cost import graph_cost
from edge_runtime.errors import InputError
from export.onnx_encoder import export_onnx
from train.encoder import new_encoder

Shapes = dict[str, tuple[int | str, ...]]
Write = Callable[..., Path]

torch.set_num_threads(1)
NODE = helper.make_node
SCALES = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8), "zw": np.array(0, np.int8)}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_graph(
        nodes: Sequence[onnx.NodeProto],
        inputs: Shapes,
        outputs: Sequence[str],
        weights: dict[str, Any] | None = None,
        *,
        element: int = TensorProto.FLOAT,
        opset: int = 20,
        external: bool = False,
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
                helper.make_tensor_value_info(name, element, ["batch", *shape])
                for name, shape in inputs.items()
            ],
            [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs],
            constants,
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        path = tmp_path / "graph.onnx"
        onnx.save(model, path, save_as_external_data=external, size_threshold=0)
        return path

    return write_graph


@pytest.mark.parametrize("external", [False, True], ids=["weights inside", "weights beside"])
def test_two_nodes_counted_by_hand(write: Write, external: bool) -> None:
    """A convolution of 3 to 64 channels by 5 x 5 on 32 x 48 px, unpadded, and its activation."""
    path = write(
        [NODE("Conv", ["x", "w", "b"], ["a"]), NODE("Relu", ["a"], ["y"])],
        {"x": (3, 32, 48)},
        ["y"],
        {"w": (64, 3, 5, 5), "b": (64,)},
        external=external,
    )
    for batch in (1, 4):
        cost = graph_cost(path, batch)
        answers = batch * 64 * 28 * 44
        weights, images = 4 * (64 * 75 + 64), 4 * batch * 3 * 32 * 48
        assert cost.macs == answers * 75
        assert cost.flops == 2 * answers * 75 + answers
        assert (cost.weight_bytes, cost.input_bytes, cost.output_bytes) == (
            weights,
            images,
            4 * answers,
        )
        assert cost.least_bytes == weights + images + 4 * answers
        assert cost.unfused_bytes == weights + images + 3 * 4 * answers
        assert (cost.nodes, cost.unknown, cost.unknown_share) == (2, {}, 0.0)
        assert cost.mac_share == {"fp32": 1.0}
        assert (cost.batch, cost.height_px, cost.width_px) == (batch, 32, 48)


def test_groups_divide_and_transposed_convolutions_count_by_their_input(write: Write) -> None:
    path = write(
        [
            NODE("Conv", ["x", "w1"], ["a"], group=8, pads=[1, 1, 1, 1]),
            NODE("ConvTranspose", ["a", "w2"], ["y"], strides=[2, 2]),
        ],
        {"x": (16, 6, 6)},
        ["y"],
        {"w1": (16, 2, 3, 3), "w2": (16, 4, 2, 2)},
    )
    assert graph_cost(path).macs == 16 * 36 * 2 * 9 + 16 * 36 * 4 * 4


def test_quantised_products_cost_as_many_multiplications_as_plain_ones(write: Write) -> None:
    """ConvInteger, MatMulInteger and the QLinear forms, each beside the operator it stands for."""
    bytes_ = {
        "w": np.ones((64, 16, 3, 3), np.int8),
        "m": np.ones((40, 128), np.int8),
    }
    quantised = [
        NODE("ConvInteger", ["x", "w"], ["c"]),
        NODE("QLinearConv", ["x", "s", "z", "w", "s", "zw", "s", "z"], ["q"]),
        NODE("MatMulInteger", ["x", "m"], ["d"]),
        NODE("QLinearMatMul", ["x", "s", "z", "m", "s", "zw", "s", "z"], ["e"]),
    ]
    weights = {**bytes_, **SCALES}
    path = write(
        quantised, {"x": (16, 9, 40)}, ["c", "q", "d", "e"], weights, element=TensorProto.UINT8
    )
    cost = graph_cost(path, batch=2)
    convolution, product = 2 * 64 * 7 * 38 * 16 * 9, 2 * 16 * 9 * 128 * 40
    assert cost.macs == 2 * (convolution + product)
    assert cost.flops == 2 * cost.macs
    assert cost.mac_share == {"int8": 1.0}
    assert cost.unknown == {}
    assert cost.weight_bytes == 64 * 16 * 9 + 40 * 128 + 4 + 1 + 1
    # Integer products answer in 32 bits, the QLinear ones in 8.
    assert cost.output_bytes == 2 * (5 * 64 * 7 * 38 + 5 * 16 * 9 * 128)


def test_what_lies_between_quantisations_is_int8(write: Write) -> None:
    path = write(
        [
            NODE("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            NODE("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
            NODE("DequantizeLinear", ["w", "s", "zw"], ["wd"]),
            NODE("Conv", ["xd", "wd"], ["a"]),
            NODE("Conv", ["a", "f"], ["y"]),
        ],
        {"x": (8, 4, 4)},
        ["y"],
        {"w": np.ones((24, 8, 1, 1), np.int8), "f": (8, 24, 1, 1), **SCALES},
    )
    cost = graph_cost(path)
    assert cost.mac_share == {"int8": 0.5, "fp32": 0.5}
    assert cost.weight_bytes == 24 * 8 + 4 * 24 * 8 + 4 + 1 + 1


def test_operators_of_onnx_runtimes_own_are_counted_as_what_they_stand_for(write: Write) -> None:
    own = {"domain": "com.microsoft"}
    path = write(
        [
            NODE("FusedConv", ["x", "w"], ["a"], activation="Relu", **own),
            NODE("FastGelu", ["a"], ["g"], **own),
            NODE("MaxPool", ["g"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
        ],
        {"x": (4, 8, 8)},
        ["y"],
        {"w": (12, 4, 1, 1)},
    )
    cost = graph_cost(path)
    assert cost.macs == 12 * 64 * 4
    assert cost.flops == 2 * cost.macs + 8 * 12 * 64 + 4 * 12 * 16


def test_a_sum_of_quantised_tensors_keeps_its_shape(write: Write) -> None:
    path = write(
        [
            NODE(
                "QLinearAdd",
                ["x", "s", "z", "x", "s", "z", "s", "z"],
                ["a"],
                domain="com.microsoft",
            ),
            NODE("MatMulInteger", ["a", "m"], ["y"]),
        ],
        {"x": (5, 6, 40)},
        ["y"],
        {"m": np.ones((40, 10), np.int8), **SCALES},
        element=TensorProto.UINT8,
    )
    cost = graph_cost(path)
    assert (cost.macs, cost.flops) == (5 * 6 * 10 * 40, 2 * 5 * 6 * 10 * 40 + 5 * 6 * 40)


@pytest.mark.parametrize(
    ("shapes", "attributes"),
    [
        pytest.param({"q": (6, 10, 4), "k": (2, 12, 4), "v": (2, 12, 8)}, {}, id="heads apart"),
        pytest.param(
            {"q": (10, 24), "k": (12, 8), "v": (12, 16)},
            {"q_num_heads": 6, "kv_num_heads": 2},
            id="heads in a row",
        ),
    ],
)
def test_attention_is_both_products_and_the_softmax(
    write: Write, shapes: Shapes, attributes: dict[str, Any]
) -> None:
    """6 heads, 10 queries and 12 keys of 4 numbers, values of 8."""
    path = write([NODE("Attention", ["q", "k", "v"], ["y"], **attributes)], shapes, ["y"], opset=23)
    cost = graph_cost(path, batch=3)
    scores = 3 * 6 * 10 * 12
    assert cost.macs == scores * (4 + 8)
    assert cost.flops == 2 * cost.macs + 5 * scores
    assert cost.unknown == {}


def test_operators_without_a_rule_are_named_with_their_share(write: Write) -> None:
    path = write([NODE("Det", ["x"], ["d"]), NODE("Relu", ["x"], ["y"])], {"x": (3, 3)}, ["d", "y"])
    cost = graph_cost(path)
    assert (cost.unknown, cost.unknown_share) == ({"Det": 1}, 0.5)


def test_an_open_picture_size_is_filled_in(write: Write) -> None:
    def cost_of(x: tuple[int | str, ...], size: tuple[int, int] | None) -> tuple[int, int, int]:
        path = write([NODE("Conv", ["x", "w"], ["y"])], {"x": x}, ["y"], {"w": (4, 3, 1, 1)})
        cost = graph_cost(path, size=size)
        return cost.macs, cost.height_px, cost.width_px

    assert cost_of((3, "height", "width"), (20, 30)) == (4 * 20 * 30 * 3, 20, 30)
    with pytest.raises(InputError, match=r"leaves the picture size open.*height and width"):
        cost_of((3, "height", "width"), None)
    with pytest.raises(InputError, match="takes 8 x 9 px, 8 x 8 was asked for; export the encoder"):
        cost_of((3, 8, 9), (8, 8))


def test_files_that_cannot_be_counted_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a \.onnx file"):
        graph_cost(tmp_path / "missing.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds no ONNX graph; expected a \.onnx file"):
        graph_cost(tmp_path / "empty.onnx")
    path = write([NODE("Secret", ["x"], ["y"], domain="com.microsoft")], {"x": (3,)}, ["y"])
    with pytest.raises(InputError, match=r"com\.microsoft\.Secret.*not an optimised copy"):
        graph_cost(path)


def exported(architecture: str, size_px: int, folder: Path) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(3)
    encoder = new_encoder(architecture, size_px=size_px).eval()
    path = folder / f"{architecture}.onnx"
    export_onnx(encoder, path, "fp32")
    return path, encoder


def test_an_encoder_costs_what_torch_counts(tmp_path: Path) -> None:
    path, encoder = exported("test_convnext", 96, tmp_path)
    images = torch.zeros(2, 96, 96, 3, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(images)
    cost = graph_cost(path, batch=2, size=(96, 96))
    assert 2 * cost.macs == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert cost.macs * 2 < cost.flops < cost.macs * 2.4
    numbers = sum(p.numel() for p in encoder.parameters())
    assert cost.weight_bytes == pytest.approx(4 * numbers, rel=0.02)
    assert cost.input_bytes == images.numel()
    assert cost.unknown == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "size_px", "gmacs", "million_parameters"),
    [
        pytest.param("resnet18", 224, 1.8, 11.7, id="resnet18"),
        pytest.param("mobilenetv4_conv_small", 224, 0.2, 3.8, id="mobilenetv4-small"),
        pytest.param("convnext_tiny", 224, 4.5, 28.6, id="convnext-tiny"),
        pytest.param("convnext_base", 384, 45.2, 88.6, id="convnext-base-384"),
    ],
)
def test_networks_cost_what_is_published(
    architecture: str, size_px: int, gmacs: float, million_parameters: float, tmp_path: Path
) -> None:
    """As the model cards of timm's pretrained weights state it, "Model Stats".

    To one decimal, or half a percent where that is more: their counter takes norms in as well.
    Theirs have a classifier on top: a million multiply-adds and up to 1.3 million parameters that
    an encoder lacks.
    """
    path, _ = exported(architecture, size_px, tmp_path)
    cost = graph_cost(path, size=(size_px, size_px))
    assert cost.macs / 1e9 == pytest.approx(gmacs, rel=0.005, abs=0.05)
    classifier = 1.3 if architecture == "mobilenetv4_conv_small" else 1.03
    assert cost.weight_bytes / 4e6 == pytest.approx(million_parameters - classifier, abs=0.5)
