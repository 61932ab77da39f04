"""What one call of an exported encoder costs: arithmetic, and the least it must move.

Nodes are counted by `export.graph_costs`. Here are the quantised and fused forms that it leaves out
(rewritten as the plain operators they stand for), the attention operator, and the sums that a limit
is made of. Convolutions are counted directly, two operations for each multiply-add; a library that
uses Winograd's algorithm multiplies less.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from edge_runtime.errors import InputError
from export.graph_costs import graph_costs, node_macs
from export.graph_shapes import ShapedGraph

_SMALL_ELEMENTS = 4096
"""Constants up to this size may hold shapes, so their values are kept while counting."""
_STANDARD = ("", "ai.onnx")
_SOFTMAX_OPS = 5
"""Operations an element, as `export.graph_costs` has it."""


class _Plain(NamedTuple):
    op: str
    inputs: tuple[int, ...]
    """Of the form's inputs, those that the plain operator has."""


_QUANTISED: Mapping[str, _Plain] = {
    "ConvInteger": _Plain("Conv", (0, 1)),
    "MatMulInteger": _Plain("MatMul", (0, 1)),
    "QLinearConv": _Plain("Conv", (0, 3)),
    "QLinearMatMul": _Plain("MatMul", (0, 3)),
}
"""Quantised operators of ONNX itself, which knows their shapes."""
_CONTRIBUTED: Mapping[str, _Plain] = {
    "FusedConv": _Plain("Conv", (0, 1, 2)),
    "FusedGemm": _Plain("Gemm", (0, 1, 2)),
    "QGemm": _Plain("Gemm", (0, 3)),
    "QLinearAdd": _Plain("Add", (0, 3)),
    "QLinearMul": _Plain("Mul", (0, 3)),
    "QLinearSigmoid": _Plain("Sigmoid", (0,)),
    "QLinearLeakyRelu": _Plain("LeakyRelu", (0,)),
    "QLinearSoftmax": _Plain("Softmax", (0,)),
    "QLinearAveragePool": _Plain("AveragePool", (0,)),
    "QLinearGlobalAveragePool": _Plain("GlobalAveragePool", (0,)),
    "Gelu": _Plain("Gelu", (0,)),
    "FastGelu": _Plain("Gelu", (0,)),
    "QuickGelu": _Plain("Gelu", (0,)),
}
"""Operators of ONNX Runtime's own domain (its documentation, "Contrib operators")."""


@dataclass(frozen=True, kw_only=True)
class GraphCost:
    """One call of an ONNX graph at one batch and picture size."""

    model: str
    """File name."""
    batch: int
    height_px: int
    width_px: int
    macs: int
    """Multiply-adds of convolutions, matrix products and attention."""
    flops: int
    """Two for each of those, and what norms, activations, pooling and the rest compute, roughly."""
    mac_share: dict[str, float]
    """Share of the multiply-adds by what both factors are stored as: fp32, fp16, int8."""
    weight_bytes: int
    """Constants, each once, as the file stores them."""
    input_bytes: int
    output_bytes: int
    unfused_bytes: int
    """If every node reads its inputs from memory and writes its outputs there."""
    nodes: int
    """That compute or move something."""
    unknown: dict[str, int]
    """Operators without a rule, and how many nodes they are: their arithmetic is not counted."""

    @property
    def least_bytes(self) -> int:
        """Weights, input and output once: what no fusing of nodes can save."""
        return self.weight_bytes + self.input_bytes + self.output_bytes

    @property
    def unknown_share(self) -> float:
        """Share of the nodes whose arithmetic is not counted, 0..1."""
        return sum(self.unknown.values()) / self.nodes if self.nodes else 0.0


def graph_cost(path: Path, batch: int = 1, size: tuple[int, int] | None = None) -> GraphCost:
    """Count one call of an ONNX file.

    Args:
        path: ONNX file, weights inside or beside it; they are not read.
        batch: pictures in the call.
        size: (height, width) of the pictures, px; needed where the file leaves it open, and
            compared with the file's where it does not.

    Raises:
        InputError: not an ONNX file, another picture size, an operator without known shapes, or
            shapes that depend on the data.
    """
    model = _skeleton(path)
    height_px, width_px = _fix_size(model, path, size)
    inputs = _true_inputs(model)
    with tempfile.TemporaryDirectory(prefix="skyfix-cost-") as folder:
        copy = Path(folder) / path.name
        onnx.save(model, copy)
        costs = graph_costs(copy, batch=batch)
        graph = ShapedGraph(copy, batch=batch)
    quantised = {n.output[0]: n for n in graph.nodes if n.op_type in (*_QUANTISED, "Attention")}
    macs: Counter[str] = Counter()
    flops = 0
    unknown: Counter[str] = Counter()
    for cost in costs.nodes:
        flops += cost.flops
        if cost.macs:
            macs[cost.precision] += cost.macs
        if cost.name in quantised:
            extra = _arithmetic(quantised[cost.name], graph)
            flops += extra.flops
            macs["int8" if cost.ops[0] in _QUANTISED else cost.precision] += extra.macs
        elif cost.ops[0] in costs.uncounted and cost.ops[0] not in ("Constant", "Attention"):
            unknown[cost.ops[0]] += 1
    read = {name for node in graph.nodes for name in _data_of(node)}
    total = sum(macs.values())
    return GraphCost(
        model=path.name,
        batch=batch,
        height_px=height_px,
        width_px=width_px,
        macs=total,
        flops=flops,
        mac_share={kind: count / total for kind, count in macs.most_common()} if total else {},
        weight_bytes=sum(_bytes(n, graph) for n in read & graph.initializers.keys()),
        input_bytes=sum(_bytes(value.name, graph) for value in inputs),
        output_bytes=sum(_bytes(name, graph) for name in graph.outputs),
        unfused_bytes=sum(cost.moved_bytes() for cost in costs.nodes),
        nodes=len(costs.nodes),
        unknown=dict(unknown),
    )


class _Arithmetic(NamedTuple):
    macs: int
    flops: int


def _arithmetic(node: NodeProto, graph: ShapedGraph) -> _Arithmetic:
    """Of a quantised product or of attention."""
    if node.op_type == "Attention":
        return _attention(node, graph)
    plain = _QUANTISED[node.op_type]
    inputs = [node.input[k] for k in plain.inputs]
    macs = node_macs(helper.make_node(plain.op, inputs, list(node.output)), graph)
    return _Arithmetic(macs=macs or 0, flops=2 * (macs or 0))


def _attention(node: NodeProto, graph: ShapedGraph) -> _Arithmetic:
    """Scores, softmax and their product with the values (ONNX operator Attention, opset 23).

    Queries, keys and values are (N, heads, length, size), or (N, length, heads * size).
    """
    query, key, value = (graph.shape(node.input[k]) for k in range(3))
    if len(query) == 4:
        images, heads, queries, size = query
        keys, value_size = key[2], value[3]
    else:
        counts = {a.name: a.i for a in node.attribute}
        images, queries = query[:2]
        heads, keys = counts["q_num_heads"], key[1]
        size, value_size = query[2] // heads, value[2] // counts["kv_num_heads"]
    if len(node.input) > 4 and node.input[4]:
        keys += graph.shape(node.input[4])[2]
    scores = images * heads * queries * keys
    macs = scores * (size + value_size)
    return _Arithmetic(macs=macs, flops=2 * macs + _SOFTMAX_OPS * scores)


def _skeleton(path: Path) -> ModelProto:
    """The graph without its weights, in operators that ONNX can infer the shapes of.

    Nodes are named after their first output, by which they are found again.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf and the file system each have their own.
        msg = f"{path} cannot be read as ONNX ({str(error).splitlines()[0]}); expected a .onnx file"
        raise InputError(msg) from error
    if not model.graph.node:
        msg = f"{path} holds no ONNX graph; expected a .onnx file"
        raise InputError(msg)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > _SMALL_ELEMENTS:
            tensor.ClearField("data_location")
            del tensor.external_data[:]
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
                tensor.ClearField(field)
        elif tensor.data_location == onnx.TensorProto.EXTERNAL:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            tensor.ClearField("data_location")
            del tensor.external_data[:]
    for node in model.graph.node:
        if node.domain not in _STANDARD:
            _make_plain(node, path)
        node.name = node.output[0]
    return model


def _make_plain(node: NodeProto, path: Path) -> None:
    plain = _CONTRIBUTED.get(node.op_type)
    if plain is None:
        msg = (
            f"{path} has the operator {node.domain}.{node.op_type}, whose shapes ONNX does not "
            "know; expected the file as it was exported. Count that one, not an optimised copy"
        )
        raise InputError(msg)
    inputs = [node.input[k] for k in plain.inputs if k < len(node.input) and node.input[k]]
    del node.input[:]
    node.input.extend(inputs)
    node.op_type, node.domain = plain.op, ""


def _true_inputs(model: ModelProto) -> list[ValueInfoProto]:
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def _fix_size(model: ModelProto, path: Path, size: tuple[int, int] | None) -> tuple[int, int]:
    """Give open picture sizes a number; the (height, width) that the graph then takes.

    Raises:
        InputError: an open size and none given, or another one than the file's.
    """
    found = size or (0, 0)
    for value in _true_inputs(model):
        dims = value.type.tensor_type.shape.dim
        if len(dims) != 4:
            continue
        # Pictures are (N, H, W, 3) as the bundles have them, or (N, 3, H, W).
        first = 2 if dims[1].dim_value in (1, 3, 4) and dims[3].dim_value not in (1, 3) else 1
        own = (dims[first].dim_value, dims[first + 1].dim_value)
        if size is None and 0 in own:
            msg = f"{path} leaves the picture size open; expected a size. Give its height and width"
            raise InputError(msg)
        if size is not None and any(o not in (0, s) for o, s in zip(own, size, strict=True)):
            msg = (
                f"{path} takes {own[0]} x {own[1]} px, {size[0]} x {size[1]} was asked for; export "
                "the encoder at that size"
            )
            raise InputError(msg)
        found = own if size is None else size
        for k, length in enumerate(found):
            dims[first + k].Clear()
            dims[first + k].dim_value = length
    return found


def _data_of(node: NodeProto) -> list[str]:
    """Inputs that hold data; shapes, axes and paddings are not counted as weights."""
    if node.op_type in ("Reshape", "Squeeze", "Unsqueeze", "Expand", "Tile", "Slice", "Pad"):
        return list(node.input[:1])
    if node.op_type.startswith("Reduce") or node.op_type in ("Split", "Resize"):
        return list(node.input[:1])
    return [name for name in node.input if name]


def _bytes(name: str, graph: ShapedGraph) -> int:
    kind = graph.types[name]
    if kind in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4):
        return (graph.elements(name) + 1) // 2
    return graph.elements(name) * helper.tensor_dtype_to_np_dtype(kind).itemsize
