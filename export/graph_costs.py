"""What an ONNX graph costs: multiply-accumulates, parameters and bytes, node by node and fused.

Counted on the graph itself, so that an exporter's surprises (a decomposed norm, a stray transpose)
show. Needs onnx alone.

Two readings of memory traffic: every node by itself, as a plain interpreter runs it, and fused,
where pointwise nodes, transposes and norms join the kernel that makes their input: the most that
a builder such as TensorRT's can do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import NodeProto, TensorProto

from export.graph_shapes import ShapedGraph

_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "DequantizeLinear")
"""Move no bytes: other names for their input. A DequantizeLinear is read through."""
_MOVES = ("Transpose", "Concat", "Slice", "Split", "Gather", "Pad", "Expand", "Tile", "Where")
_POINTWISE: Mapping[str, int] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Max", "Min", "Relu", "Clip"), 1),
    **dict.fromkeys(("Sqrt", "Pow", "Reciprocal", "Cast", "PRelu", "LeakyRelu", "Where"), 1),
    **dict.fromkeys(("HardSigmoid", "HardSwish", "QuantizeLinear", "BatchNormalization"), 3),
    **dict.fromkeys(("Sigmoid", "Tanh", "Exp", "Log", "Softplus", "Sin", "Cos"), 4),
    **dict.fromkeys(("Gelu", "Erf", "Mish", "Swish", "Elu", "Selu"), 8),
}
"""Operations an element, roughly: they matter only where memory does."""
_REDUCING: Mapping[str, int] = {
    **dict.fromkeys(("LayerNormalization", "GroupNormalization", "InstanceNormalization"), 8),
    **dict.fromkeys(("RMSNormalization", "LpNormalization", "Softmax", "LogSoftmax"), 5),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"), 1),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "ReduceSumSquare", "ArgMax"), 1),
}
"""Operations an element of the input, as roughly."""
_JOINING = (
    *_POINTWISE,
    *("Transpose", "LayerNormalization", "RMSNormalization", "GroupNormalization", "Softmax"),
)
"""What joins the kernel that makes its input. Norms do so at best: these are lower bounds."""
_PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_BYTES: Mapping[int, int] = {
    TensorProto.DOUBLE: 8,
    TensorProto.INT64: 8,
    TensorProto.FLOAT: 4,
    TensorProto.INT32: 4,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.BOOL: 1,
}
_PRECISIONS: Mapping[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes moved, as the file's types have them."""

    bytes: int = 0
    floats: int = 0
    """How many of the numbers are floating point."""
    float_bytes: int = 0
    """Their part of the bytes."""

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(
            bytes=self.bytes + other.bytes,
            floats=self.floats + other.floats,
            float_bytes=self.float_bytes + other.float_bytes,
        )

    def at(self, bytes_a_float: int | None) -> int:
        """Bytes if floating-point numbers took so many each; None for as they are."""
        if bytes_a_float is None:
            return self.bytes
        return self.bytes - self.float_bytes + self.floats * bytes_a_float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One node, or one kernel: a node and what was fused into it."""

    name: str
    """Of the first node."""
    ops: tuple[str, ...]
    """Operators, first the one that the others were fused into."""
    part: str
    """Of the network, read off the names of the weights: stages.2, blocks.5, …"""
    precision: str
    """What its arithmetic takes in: fp32, fp16, bf16, int8, or other."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products."""
    flops: int
    """Two for each of those, and what pointwise and reducing operators compute."""
    parameters: int
    """Numbers in the constants it reads, scalars left out."""
    weights: Traffic
    """Constants read."""
    read: Traffic
    """Activations read."""
    written: Traffic
    """Activations written."""

    def moved_bytes(self, bytes_a_float: int | None = None) -> int:
        """Everything from and to memory; floats may be given another size."""
        return (self.weights + self.read + self.written).at(bytes_a_float)


@dataclass(frozen=True, kw_only=True)
class GraphCosts:
    """An ONNX graph, counted at one batch size."""

    batch: int
    nodes: tuple[Cost, ...]
    """Each node by itself; views and arithmetic on shapes left out."""
    kernels: tuple[Cost, ...]
    """What remains where pointwise nodes, transposes and norms join the kernel that feeds them."""
    parameters: int
    """Numbers in all constants that are read, scalars left out; a shared one counts once."""
    uncounted: tuple[str, ...]
    """Operators without a rule here: their bytes are counted, their arithmetic is not."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products."""
        return sum(cost.macs for cost in self.nodes)


@dataclass(frozen=True, kw_only=True)
class _Piece:
    node: NodeProto
    part: str
    macs: int
    flops: int


def graph_costs(path: Path, *, batch: int = 1) -> GraphCosts:
    """Count an ONNX file.

    Args:
        path: an ONNX file whose shapes are static but for the batch.
        batch: length of the first axis of its inputs.

    Returns:
        Costs of its nodes, apart and fused.

    Raises:
        InputError: not an ONNX file, a batch below 1, or shapes that depend on the data.
    """
    return _Counter(ShapedGraph(path, batch=batch)).count(batch)


def node_macs(node: NodeProto, graph: ShapedGraph) -> int | None:
    """Multiply-accumulates of one node; None where it has no such thing."""
    shape, elements = graph.shape, graph.elements
    match node.op_type:
        case "Conv":  # Weights (Cout, Cin / groups, kh, kw): one filter for each output.
            return elements(node.output[0]) * math.prod(shape(node.input[1])[1:])
        case "ConvTranspose":  # Weights (Cin, Cout / groups, kh, kw): one for each input.
            return elements(node.input[0]) * math.prod(shape(node.input[1])[1:])
        case "MatMul":
            return elements(node.output[0]) * shape(node.input[0])[-1]
        case "Gemm":
            transposed = _integers(node, "transA")[0]
            return elements(node.output[0]) * shape(node.input[0])[0 if transposed else 1]
        case "Einsum":  # Every index runs once: the outputs' and those summed over.
            return _einsum_macs(node, graph)
        case _:
            return None


def _einsum_macs(node: NodeProto, graph: ShapedGraph) -> int | None:
    equation = next(a.s for a in node.attribute if a.name == "equation").decode()
    terms = equation.replace(" ", "").split("->")[0].split(",")
    if "." in equation or len(terms) != 2:
        return None
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        sizes |= dict(zip(term, graph.shape(name), strict=True))
    return math.prod(sizes.values())


class _Counter:
    def __init__(self, graph: ShapedGraph) -> None:
        self.graph = graph
        self.alias = {n.output[0]: n.input[0] for n in graph.nodes if n.op_type in _VIEWS}
        self.quantised = {n.input[0] for n in graph.nodes if n.op_type == "DequantizeLinear"}
        self.nodes = [node for node in graph.nodes if node.op_type not in _VIEWS]
        self.readers: dict[str, set[str]] = {}
        """Who reads a tensor, by the reader's first output; an output of the graph is read too."""
        for node in self.nodes:
            for name in self.inputs(node):
                self.readers.setdefault(name, set()).add(node.output[0])
        for name in graph.outputs:
            self.readers.setdefault(self.source(name), set()).add("")

    def source(self, name: str) -> str:
        """The tensor whose bytes these are."""
        while name in self.alias:
            name = self.alias[name]
        return name

    def inputs(self, node: NodeProto) -> list[str]:
        return [self.source(name) for name in node.input if name]

    def count(self, batch: int) -> GraphCosts:
        uncounted: set[str] = set()
        pieces = []
        part = "input"
        last = max((k for k, n in enumerate(self.nodes) if self.part_of(n)), default=-1)
        for k, node in enumerate(self.nodes):
            part = "output" if k > last else self.part_of(node) or part
            macs, flops = self.arithmetic(node, uncounted)
            pieces.append(_Piece(node=node, part=part, macs=macs, flops=flops))
        constants = {
            name
            for node in self.nodes
            for name in self.inputs(node)
            if name in self.graph.initializers
        }
        return GraphCosts(
            batch=batch,
            nodes=tuple(self.cost([piece]) for piece in pieces),
            kernels=tuple(self.cost(kernel) for kernel in self.fuse(pieces)),
            parameters=sum(self.parameters(name) for name in constants),
            uncounted=tuple(sorted(uncounted)),
        )

    def part_of(self, node: NodeProto) -> str | None:
        """stages.2 of stages.2.blocks.0.norm/LayerNormalization; None in the frame around the body.

        Read off the node's name where it has its module's, else off its weights' names.
        """
        scope = node.name.rpartition("/")[0]
        named = [scope + "." if scope else "", *self.inputs(node)]
        for name in named:
            levels = name.removeprefix("body.").split(".")
            is_module = name == named[0] or (name in self.graph.initializers and "/" not in name)
            if is_module and len(levels) > 1 and levels[0] != "encoder":
                numbered = len(levels) > 2 and levels[1].isdigit()
                return ".".join(levels[: 2 if numbered else 1])
        return None

    def parameters(self, name: str) -> int:
        """Of one constant; indices, axes and scalars are none."""
        numbers = self.graph.elements(name)
        learnt = self.graph.types[name] in _FLOATS or name in self.quantised
        return numbers if learnt and numbers > 1 else 0

    def arithmetic(self, node: NodeProto, uncounted: set[str]) -> tuple[int, int]:
        """Multiply-accumulates and all operations of one node."""
        op = node.op_type
        macs = node_macs(node, self.graph)
        if macs is not None:
            return macs, 2 * macs
        outputs = self.graph.elements(node.output[0])
        if op in _POINTWISE:
            return 0, outputs * _POINTWISE[op]
        if op in _REDUCING:
            return 0, self.graph.elements(node.input[0]) * _REDUCING[op]
        if op in ("MaxPool", "AveragePool"):
            return 0, outputs * math.prod(_integers(node, "kernel_shape"))
        if op == "Resize":
            mode = next((a.s for a in node.attribute if a.name == "mode"), b"nearest")
            return 0, outputs * {b"linear": 8, b"cubic": 32}.get(mode, 0)
        if op not in _MOVES:
            uncounted.add(op)
        return 0, 0

    def fuse(self, pieces: Sequence[_Piece]) -> list[list[_Piece]]:
        """Let pointwise nodes, transposes and norms join the kernel that makes their latest input.

        The kernel that began last is taken. All other inputs then come from kernels that began
        before it, so kernels never wait for each other in a circle.
        """
        kernels: list[list[_Piece]] = []
        maker: dict[str, int] = {}
        for piece in pieces:
            makers = [maker[name] for name in self.inputs(piece.node) if name in maker]
            if makers and piece.node.op_type in _JOINING:
                kernel = max(makers)
                kernels[kernel].append(piece)
            else:
                kernel = len(kernels)
                kernels.append([piece])
            maker |= dict.fromkeys(piece.node.output, kernel)
        return kernels

    def cost(self, pieces: Sequence[_Piece]) -> Cost:
        """What pieces cost that run as one kernel: what passes between them is not moved."""
        inside = {name for piece in pieces for name in piece.node.output}
        firsts = {piece.node.output[0] for piece in pieces}
        outside = {name for piece in pieces for name in self.inputs(piece.node)} - inside
        constants = outside & self.graph.initializers.keys()
        written = {name for name in inside if self.readers.get(name, set()) - firsts}
        lead = max(pieces, key=lambda piece: piece.macs)
        return Cost(
            name=pieces[0].node.name or pieces[0].node.output[0],
            ops=tuple(piece.node.op_type for piece in pieces),
            part=pieces[0].part,
            precision=self.precision(lead.node),
            macs=sum(piece.macs for piece in pieces),
            flops=sum(piece.flops for piece in pieces),
            parameters=sum(self.parameters(name) for name in constants),
            weights=self.traffic(constants),
            read=self.traffic(outside - constants),
            written=self.traffic(written),
        )

    def traffic(self, names: set[str]) -> Traffic:
        total = Traffic()
        for name in names:
            numbers = self.graph.elements(name)
            kind = self.graph.types[name]
            size = numbers * _BYTES.get(kind, 4)
            is_float = kind in _FLOATS
            total += Traffic(bytes=size, floats=numbers * is_float, float_bytes=size * is_float)
        return total

    def precision(self, node: NodeProto) -> str:
        """INT8 where both factors of a product are stored so; else what comes out."""
        stored = {self.graph.types.get(name) for name in self.inputs(node)[:2]}
        if node.op_type in _PRODUCTS and stored <= {TensorProto.INT8, TensorProto.UINT8}:
            return "int8"
        # What quantises or casts computed in the type it read.
        names = [node.output[0], *node.input[:1]]
        kinds = [_PRECISIONS.get(self.graph.types.get(name, 0)) for name in names]
        return next((kind for kind in kinds if kind is not None), "other")


def _integers(node: NodeProto, name: str) -> list[int]:
    """An attribute's integers; [0] where it is left at ONNX's default of none or zero."""
    for attribute in node.attribute:
        if attribute.name == name:
            return list(attribute.ints) or [attribute.i]
    return [0]
