"""Shapes and types of every tensor of an ONNX graph at a fixed batch size."""

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from edge_runtime.errors import InputError

Shape = tuple[int, ...]

_FOLDED_ELEMENTS = 4096
"""Constants up to this size are computed through, because shapes are made of them."""
_QUANTISING = ("QuantizeLinear", "DequantizeLinear")
"""What they give is integer too, but it is weights and not shapes."""
_ROUNDS = 4
"""A computed shape may give the next one; encoders need one or two rounds."""


class ShapedGraph:
    """An ONNX graph whose shapes are numbers; what it computes from shapes alone is folded away."""

    def __init__(self, path: Path, *, batch: int = 1) -> None:
        """Read a file and fix its batch.

        Raises:
            InputError: not an ONNX file, or a batch below 1.
        """
        if batch < 1:
            msg = f"batch is {batch}; expected at least 1"
            raise InputError(msg)
        self.path = path
        model = _read(path)
        for value in model.graph.input:
            dims = value.type.tensor_type.shape.dim
            if dims:
                dims[0].Clear()
                dims[0].dim_value = batch
        for value in model.graph.output:  # Written for another batch, as the next ones are.
            value.type.tensor_type.ClearField("shape")
        del model.graph.value_info[:]
        for _ in range(_ROUNDS):
            self._infer(model)
            if not _fold(model, self.shapes):
                break
        self.metadata = {entry.key: entry.value for entry in model.metadata_props}
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = {value.name for value in model.graph.output}

    def _infer(self, model: ModelProto) -> None:
        self.shapes: dict[str, Shape] = {}
        self.types: dict[str, int] = {}
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type
            dims = tensor.shape.dim
            if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
                self.shapes[value.name] = tuple(dim.dim_value for dim in dims)
        for constant in graph.initializer:
            self.shapes[constant.name] = tuple(constant.dims)
            self.types[constant.name] = constant.data_type

    def shape(self, name: str) -> Shape:
        """Shape of a tensor.

        Raises:
            InputError: it depends on the data.
        """
        try:
            return self.shapes[name]
        except KeyError:
            msg = (
                f"{self.path}: the shape of {name!r} depends on the data; expected static shapes "
                "but for the batch. Export it again with a fixed image size"
            )
            raise InputError(msg) from None

    def elements(self, name: str) -> int:
        """How many numbers a tensor holds.

        Raises:
            InputError: its shape depends on the data.
        """
        return math.prod(self.shape(name))


def _read(path: Path) -> ModelProto:
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf and the file system each have their own.
        msg = f"{path} cannot be read as ONNX ({str(error).splitlines()[0]}); expected a .onnx file"
        raise InputError(msg) from error
    if not model.graph.node:
        msg = f"{path} holds no ONNX graph; expected a .onnx file"
        raise InputError(msg)
    return model


def _fold(model: ModelProto, shapes: dict[str, Shape]) -> bool:
    """Replace nodes that depend on shapes and small constants alone by constants."""
    graph = model.graph
    known = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if math.prod(tensor.dims) <= _FOLDED_ELEMENTS
    }
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    kept: list[NodeProto] = []
    made: list[onnx.TensorProto] = []
    for node in graph.node:
        values: list[np.ndarray] | None = None
        if node.op_type == "Shape" and node.input[0] in shapes:
            ends = {a.name: a.i for a in node.attribute}
            shape = shapes[node.input[0]][ends.get("start", 0) : ends.get("end")]
            values = [np.array(shape, np.int64)]
        elif node.op_type not in _QUANTISING and all(
            name in known or not name for name in node.input
        ):
            evaluator = ReferenceEvaluator(node, opsets=opsets)
            inputs = {name: known[name] for name in node.input if name}
            values = [np.asarray(value) for value in evaluator.run(None, inputs)]
        if (
            values is None
            or sum(value.size for value in values) > _FOLDED_ELEMENTS
            or any(value.dtype.kind not in "biu" for value in values)
        ):
            kept.append(node)
            continue
        for name, value in zip(node.output, values, strict=True):
            known[name] = value
            made.append(numpy_helper.from_array(value, name))
    if made:
        del graph.node[:]
        graph.node.extend(kept)
        graph.initializer.extend(made)
    return bool(made)
