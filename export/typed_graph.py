"""Writes a graph in which every value has the type of the node that makes it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

Weights = Mapping[str, npt.NDArray[Any]]

_FIXED = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that ONNX wants in FP32 whatever the node computes in."""
_SUFFIX: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


def write_types(
    model: onnx.ModelProto, kept: frozenset[str], floats: set[str], constants: Weights
) -> onnx.ModelProto:
    """Make a model whose nodes compute in FP16 unless kept, with one cast per value and type.

    Args:
        model: FP32 model; it stays as it is.
        kept: names of the nodes that compute in FP32.
        floats: names of its computed FP32 values.
        constants: its FP32 initialisers, by name.

    Returns:
        A model in which no node reads two floating-point types: constants are stored in the type
        of whoever reads them, twice only where both are read.
    """
    writer = _Writer(model, floats, constants)
    for node in model.graph.node:
        writer.add(node, TensorProto.FLOAT if node.name in kept else TensorProto.FLOAT16)
    return writer.finished()


class _Writer:
    """Builds the new graph, node by node, in the old one's order."""

    def __init__(self, model: onnx.ModelProto, floats: set[str], constants: Weights) -> None:
        self._old = model
        self._floats = floats
        self._constants = constants
        self._shapes = {v.name: v for v in (*model.graph.value_info, *model.graph.output)}
        self._types: dict[str, int] = {}
        self._made: dict[tuple[str, int], str] = {}
        self._new = onnx.ModelProto(ir_version=model.ir_version)
        self._new.opset_import.extend(model.opset_import)
        self._new.producer_name = model.producer_name
        self._new.metadata_props.extend(model.metadata_props)
        self._new.graph.name = model.graph.name
        self._new.graph.input.extend(model.graph.input)
        self._new.graph.output.extend(model.graph.output)

    def add(self, node: NodeProto, kind: int) -> None:
        """Append a node that computes in this type, and what turns its inputs into it."""
        typed = NodeProto()
        typed.CopyFrom(node)
        is_cast = node.op_type == "Cast"
        if not self._floats.isdisjoint(node.output):
            for position, name in enumerate(node.input):
                wanted = kind
                if position in _FIXED.get(node.op_type, ()):
                    wanted = TensorProto.FLOAT
                if not is_cast:
                    typed.input[position] = self._as(name, wanted)
        for name in typed.output:
            if name in self._floats:
                self._types[name] = kind
                self._describe(name, name, kind)
            elif name in self._shapes:
                self._new.graph.value_info.append(self._shapes[name])
        if is_cast and typed.output[0] in self._floats:
            del typed.attribute[:]
            typed.attribute.append(helper.make_attribute("to", kind))
        self._new.graph.node.append(typed)

    def finished(self) -> onnx.ModelProto:
        """The model, with the constants that nobody typed as they were."""
        used = {name for node in self._new.graph.node for name in node.input}
        for tensor in self._old.graph.initializer:
            if tensor.name not in self._constants and tensor.name in used:
                self._new.graph.initializer.append(tensor)
        return self._new

    def _as(self, name: str, kind: int) -> str:
        """Name under which a value is found in a type; made on first use."""
        if name in self._constants:
            return self._made.get((name, kind)) or self._store(name, kind)
        if name not in self._floats or self._types[name] == kind:
            return name
        if (name, kind) not in self._made:
            cast = f"{name}.{_SUFFIX[kind]}"
            self._made[name, kind] = cast
            self._new.graph.node.append(helper.make_node("Cast", [name], [cast], cast, to=kind))
            self._describe(name, cast, kind)
        return self._made[name, kind]

    def _store(self, name: str, kind: int) -> str:
        other = TensorProto.FLOAT if kind == TensorProto.FLOAT16 else TensorProto.FLOAT16
        stored = f"{name}.{_SUFFIX[kind]}" if (name, other) in self._made else name
        value = self._constants[name].astype(
            np.float16 if kind == TensorProto.FLOAT16 else np.float32
        )
        self._new.graph.initializer.append(onnx.numpy_helper.from_array(value, stored))
        self._made[name, kind] = stored
        return stored

    def _describe(self, source: str, name: str, kind: int) -> None:
        if name in {value.name for value in self._new.graph.output}:
            return
        described = ValueInfoProto()
        described.CopyFrom(self._shapes[source])
        described.name = name
        described.type.tensor_type.elem_type = kind
        self._new.graph.value_info.append(described)
