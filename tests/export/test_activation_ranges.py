"""Measured ranges against the slow obvious way: run the graph, fetch every value, use NumPy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from edge_runtime.errors import GateError, InputError
from export.activation_ranges import ActivationRanges, activation_ranges, float_values
from export.onnx_encoder import encoder_to_onnx
from train.encoder import new_encoder

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


def pictures(count: int) -> U8:
    return np.random.default_rng(6).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    torch.manual_seed(8)
    return encoder_to_onnx(new_encoder("test_vit", size_px=64))


@pytest.fixture(scope="module")
def ranges(model: onnx.ModelProto) -> ActivationRanges:
    return activation_ranges(model, pictures(3), threads=1)


def fetched(model: onnx.ModelProto, names: list[str], images: U8) -> dict[str, F32]:
    """Every value of a run, as ONNX Runtime computes it without rewriting anything."""
    told = onnx.ModelProto()
    told.CopyFrom(model)
    del told.graph.output[:]
    told.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        told.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


def test_every_float_value_is_measured_and_equals_numpy(
    model: onnx.ModelProto, ranges: ActivationRanges
) -> None:
    names = float_values(model)
    assert set(ranges.values) == set(names)
    assert ranges.pictures == 3
    for name, value in fetched(model, names, pictures(3)).items():
        found = ranges.values[name]
        # Values near zero by cancellation differ with the order of summing.
        assert found.max_abs == pytest.approx(np.abs(value).max(), rel=1e-3, abs=1e-6), name
        rms = np.sqrt(np.square(value, dtype=np.float64).mean())
        assert found.rms == pytest.approx(rms, rel=1e-3, abs=1e-6), name


def test_the_model_stays_as_it_is(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    activation_ranges(model, pictures(1), threads=1)
    assert model.SerializeToString() == before


def test_sums_bound_every_order_of_adding(model: onnx.ModelProto, ranges: ActivationRanges) -> None:
    """By hand for one linear layer: the largest running sum of any order is below the bound."""
    node = next(n for n in model.graph.node if n.name == "blocks.0.mlp.fc1/MatMul")
    weight = next(
        onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == node.input[1]
    )
    inputs = fetched(model, [node.input[0]], pictures(3))[node.input[0]].reshape(-1, len(weight))
    worst = 0.0
    for row in inputs:
        terms = row[:, None] * weight
        worst = max(worst, np.maximum(terms, 0).sum(0).max(), np.maximum(-terms, 0).sum(0).max())
    assert worst <= ranges.sums[node.name]


def test_sums_whose_bound_is_too_high_are_measured(
    model: onnx.ModelProto, ranges: ActivationRanges
) -> None:
    measured = activation_ranges(model, pictures(3), sum_limit=0.0, threads=1)
    assert set(measured.sums) == set(ranges.sums)
    magnitudes = {t.name: np.abs(onnx.numpy_helper.to_array(t)) for t in model.graph.initializer}
    checked = 0
    for node in model.graph.node:
        if node.op_type != "MatMul":
            continue
        assert measured.sums[node.name] <= ranges.sums[node.name] * 1.001
        if node.input[1] in magnitudes and checked < 3:
            value = np.abs(fetched(model, [node.input[0]], pictures(3))[node.input[0]])
            expected = (value @ magnitudes[node.input[1]]).max()
            assert measured.sums[node.name] == pytest.approx(expected, rel=1e-3)
            checked += 1
    assert checked == 3


@pytest.mark.parametrize("op", ["ReduceMean", "GlobalAveragePool", "AveragePool"])
def test_means_are_known_by_the_sum_before_the_division(op: str) -> None:
    images = pictures(2)
    attributes: dict[str, Any] = (
        {"kernel_shape": [8, 8], "strides": [8, 8]} if op == "AveragePool" else {}
    )
    inputs, constants = ["x"], []
    if op == "ReduceMean":
        inputs.append("axes")
        constants.append(onnx.numpy_helper.from_array(np.array([2, 3]), "axes"))
    side = 8 if op == "AveragePool" else 1
    shapes = {"pixels": (64, 64, 3), "x": (3, 64, 64), "y": (3, side, side)}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["pixels"], "cast", to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["pixels"], ["x"], "turned", perm=[0, 3, 1, 2]),
            helper.make_node(op, inputs, ["y"], "pool", **attributes),
        ],
        "pool",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 64, 64, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *shapes["y"]])],
        constants,
        value_info=[
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shapes[name]])
            for name in ("pixels", "x")
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    block = 64 // side
    sums = images.reshape(2, side, block, side, block, 3).astype(np.float64).sum(axis=(2, 4))
    found = activation_ranges(model, images, sum_limit=0.0, threads=1)
    assert found.sums["pool"] == pytest.approx(sums.max(), rel=1e-5)
    assert found.values["x"] == found.values["pixels"]


def test_no_pictures_are_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match="no pictures to measure activations on"):
        activation_ranges(model, pictures(0))


def test_weights_that_overflow_in_fp32_are_refused(model: onnx.ModelProto) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    tensor = next(t for t in broken.graph.initializer if t.name.endswith("fc1.bias"))
    value = onnx.numpy_helper.to_array(tensor).copy()
    value[0] = np.inf
    tensor.raw_data = value.tobytes()
    with pytest.raises(GateError, match=r"in FP32; the weights are broken"):
        activation_ranges(broken, pictures(1), threads=1)
