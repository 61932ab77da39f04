"""What an FP16 encoder answers where its FP16 nodes really round to FP16, without a GPU.

ONNX Runtime's CPU provider runs chains of FP16 nodes in FP32 and drops the casts between them, so
its answer says nothing about overflow or rounding. Here every FP16 number is held in FP32, where
FP16's values are exact, and each node's result is rounded to FP16 and back (to nearest even, beyond
65520 to infinity, subnormals kept) before any other node reads it. ONNX Runtime may not rewrite
this graph, so that nothing of it is dropped.

**Assumed**: inside one node numbers are FP32 and are rounded once, at its end: sums of convolutions
and products in FP32 accumulators, as tensor cores do by default, and functions as Gelu evaluated in
FP32. **Left unproved**: kernels that accumulate in FP16 (the sums of magnitudes in
`activation_ranges` keep those from overflowing, but not from rounding more), kernels that evaluate
a function in FP16 step by step, and the engine's fusions, which round less often than this.
"""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper

from edge_runtime.errors import GateError
from edge_runtime.gates import Embed
from export.weight_session import open_session, without_weights

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_EXACT = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Split"}
    | {"Concat", "Expand", "Pad", "Identity", "Relu", "MaxPool", "Neg", "Abs"}
)
"""Nodes whose result is one of their FP16 inputs, its negative or zero: there is nothing to
round."""


def embed_in_half_arithmetic(
    model: onnx.ModelProto, images: U8, *, batch: int = 1, threads: int | None = None
) -> F32:
    """Embed pictures with a mixed-precision encoder, rounding after each of its FP16 nodes.

    Args:
        model: of `to_mixed_precision`, or any model with FP16 values; it stays as it is.
        images: (N, H, W, 3) uint8, RGB, at the encoder's size.
        batch: pictures per run.
        threads: CPU threads; None for all of this machine's.

    Returns:
        (N, D) embeddings; infinite or NaN where FP16 is.

    Raises:
        GateError: a value of the model has no type.
    """
    embed = half_embed(model, threads=threads)
    return np.concatenate([embed(images[k : k + batch]) for k in range(0, len(images), batch)])


def half_embed(model: onnx.ModelProto, *, threads: int | None = None) -> Embed:
    """`embed_in_half_arithmetic` as a function of images, to be called many times.

    Raises:
        GateError: a value of the model has no type.
    """
    rounded = _rounding_model(model)
    weights = {
        tensor.name: _widened(onnx.numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
    }
    session = open_session(rounded, weights, optimised=False, threads=threads)
    name = session.get_inputs()[0].name

    def embed(images: U8) -> F32:
        return np.asarray(session.run(None, {name: images})[0], np.float32)

    return embed


def _widened(value: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _rounding_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in FP32, with rounding after every node that computes in FP16."""
    halves = _half_values(model)
    bare, _ = without_weights(model)
    del bare.graph.node[:]
    for value in (*bare.graph.input, *bare.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in model.graph.node:
        copied = NodeProto()
        copied.CopyFrom(node)
        if node.op_type == "Cast" and node.input[0] in halves:
            # Held in FP32 already.
            (to,) = (a.i for a in node.attribute if a.name == "to")
            if to in (TensorProto.FLOAT, TensorProto.FLOAT16):
                copied = helper.make_node("Identity", node.input, node.output, node.name)
                bare.graph.node.append(copied)
                continue
        if node.op_type == "Cast" and node.output[0] in halves:
            # The rounding below is what this cast does.
            copied = helper.make_node("Cast", node.input, node.output, node.name, to=1)
        elif node.op_type in _EXACT:
            bare.graph.node.append(copied)
            continue
        roundings = []
        for position, name in enumerate(node.output):
            if name not in halves:
                continue
            exact, half = f"{name}#exact", f"{name}#half"
            copied.output[position] = exact
            roundings += [
                helper.make_node("Cast", [exact], [half], half, to=TensorProto.FLOAT16),
                helper.make_node("Cast", [half], [name], f"{name}#held", to=TensorProto.FLOAT),
            ]
        bare.graph.node.append(copied)
        bare.graph.node.extend(roundings)
    return bare


def _half_values(model: onnx.ModelProto) -> set[str]:
    """Names of every value and constant in FP16."""
    graph = model.graph
    kinds = {
        v.name: v.type.tensor_type.elem_type
        for v in (*graph.value_info, *graph.input, *graph.output)
    }
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        for name in node.output:
            if not kinds.get(name):
                msg = f"{name} has no type; expected the value_info that export writes"
                raise GateError(msg)
    return {name for name, kind in kinds.items() if kind == TensorProto.FLOAT16}
