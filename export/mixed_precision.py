"""From an FP32 ONNX to one whose types say where FP16 is safe: a strongly typed network.

Which nodes stay in FP32, and why, is decided here by kind and by measurement; `typed_graph` writes
the file.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto

from edge_runtime.errors import GateError, InputError
from export.activation_ranges import ActivationRanges, float_values
from export.typed_graph import write_types

HALF_MAX = 65504.0
"""Largest finite FP16 number (IEEE 754 binary16)."""
SAFE_MAX = HALF_MAX / 8
"""Largest calibrated activation that stays in FP16. Flight shows pictures that calibration did not:
three powers of two are left for them, and one more picture never costs more than a few of them."""
SMALLEST_NORMAL = 2.0**-14
"""Below this FP16 has a fixed step of 2**-24, so that relative precision is lost."""
MAX_WEIGHT_ERROR = 2.0**-10
"""Relative error (of the root mean square) that rounding may make in one constant: twice what
FP16 makes at worst in a normal number, so more means subnormal or zero."""

_NORMS = frozenset(
    {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "Softmax", "LogSoftmax"}
    | {"ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare", "ReduceLogSumExp"}
    | {"Sqrt", "Reciprocal", "Exp", "Log", "Pow"}
)
"""Sums of squares, roots, exponentials and what is made of them: norms, softmax, response norms."""
_COPIES = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Split"}
    | {"Concat", "Expand", "Pad", "Identity", "Cast"}
)
"""Nodes that compute nothing: tiny values in them are judged where something reads them."""
_SUMMANDS = frozenset({"Add", "Sub"}) | _COPIES
"""A summand that is tiny beside the sum may lose its precision."""
_HEAVY = frozenset({"Conv", "MatMul", "Gemm", "ConvTranspose"})
"""Never kept only because their neighbours are: this is where FP16 pays."""


@dataclass(frozen=True, kw_only=True)
class KeptNode:
    """A node that computes in FP32."""

    name: str
    op: str
    reason: str
    measured: float | None
    """What the reason was measured by; None where the kind of node decides."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return {"name": self.name, "op": self.op, "why": self.reason, "measured": self.measured}


@dataclass(frozen=True, kw_only=True)
class MixedPrecision:
    """A mixed-precision model and what in it is not FP16."""

    model: onnx.ModelProto
    kept: tuple[KeptNode, ...]
    """In the graph's order."""
    half_nodes: int
    """How many nodes compute in FP16."""


Reason = tuple[str, float | None]


def to_mixed_precision(
    model: onnx.ModelProto,
    ranges: ActivationRanges | None,
    *,
    keep: Collection[str] = (),
    keep_because: str = "asked for",
) -> MixedPrecision:
    """Give every value of an FP32 encoder its type.

    Kept in FP32 are: pixel and final L2 normalisation, norms and softmax, divisions by what was
    computed, and every node that reads, holds or makes a number outside FP16's safe range, or that
    adds up to one on the way. Small nodes between such nodes stay too, so that nothing is cast
    there and back.

    Args:
        model: of `encoder_to_onnx`; it stays as it is.
        ranges: of `activation_ranges` on pictures like those of flight; None to trust every
            activation, which is not safe.
        keep: names of further nodes to keep.
        keep_because: the reason to give for those.

    Returns:
        The model, with weights of FP16 nodes stored in FP16, and the nodes that were kept.

    Raises:
        InputError: `keep` names a node that is not there.
        GateError: the graph is not an encoder's, or was not measured.
    """
    nodes = list(model.graph.node)
    unknown = sorted(set(keep) - {node.name for node in nodes})
    if unknown:
        msg = f"there is no node {unknown[0]!r} to keep in FP32; `inspect` lists a bundle's nodes"
        raise InputError(msg)
    floats = set(float_values(model))
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }
    missing = sorted(floats - set(ranges.values)) if ranges is not None else []
    if missing:
        msg = f"{missing[0]} was not measured; measure the ranges of this very model"
        raise GateError(msg)
    reasons: dict[str, Reason] = {}
    for name, part in (*_pixel_nodes(model), *_final_nodes(model)):
        reasons.setdefault(name, (part, None))
    for node in nodes:
        if floats.isdisjoint(node.output):
            continue
        why_node = _why_by_kind(node, floats, constants) or _why_weight(node, constants)
        if why_node is None and ranges is not None:
            why_node = _why_measured(node, floats, ranges)
        if why_node is None and node.name in keep:
            why_node = keep_because, None
        if why_node is not None:
            reasons.setdefault(node.name, why_node)
    _keep_between(nodes, floats, reasons)
    computing = [node for node in nodes if not floats.isdisjoint(node.output)]
    return MixedPrecision(
        model=write_types(model, frozenset(reasons), floats, constants),
        kept=tuple(
            KeptNode(name=node.name, op=node.op_type, reason=why[0], measured=why[1])
            for node in nodes
            if (why := reasons.get(node.name)) is not None
        ),
        half_nodes=sum(node.name not in reasons for node in computing),
    )


def _why_by_kind(
    node: NodeProto, floats: set[str], constants: dict[str, npt.NDArray[Any]]
) -> Reason | None:
    if node.op_type in _NORMS:
        return "norm", None
    if node.op_type == "Div" and node.input[1] in floats:
        return "divides by a computed value", None
    if node.op_type == "Mul" and node.input[0] == node.input[1]:
        return "square", None
    if not any(name in floats or name in constants for name in node.input):
        return "makes FP32", None
    return None


def _why_weight(node: NodeProto, constants: dict[str, npt.NDArray[Any]]) -> Reason | None:
    """A constant that FP16 cannot hold."""
    for name in node.input:
        if name not in constants:
            continue
        value = constants[name]
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        peak = float(np.abs(value).max(initial=0.0))
        if not np.isfinite(half).all():
            return f"constant {name} beyond FP16", peak
        length = math.sqrt(float(np.vdot(value, value)))
        off = half.astype(np.float32) - value
        error = math.sqrt(float(np.vdot(off, off))) / length if length else 0.0
        if error > MAX_WEIGHT_ERROR:
            return f"constant {name} loses precision in FP16", error
    return None


def _why_measured(node: NodeProto, floats: set[str], ranges: ActivationRanges) -> Reason | None:
    inputs = [name for name in node.input if name in floats]
    outputs = [name for name in node.output if name in floats]
    for what, names in (("input", inputs), ("output", outputs)):
        for name in names:
            peak = ranges.values[name].max_abs
            if peak > SAFE_MAX:
                return f"{what} beyond the safe range of FP16", peak
    added = ranges.sums.get(node.name, 0.0)
    if added > HALF_MAX:
        return "adds up beyond FP16 on the way", added
    if node.op_type in _COPIES:
        return None
    for what, names in (("input", inputs), ("output", outputs)):
        if what == "input" and node.op_type in _SUMMANDS:
            continue
        for name in names:
            rms = ranges.values[name].rms
            if 0.0 < rms < SMALLEST_NORMAL:
                return f"{what} below the normal numbers of FP16", rms
    return None


def _pixel_nodes(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """From the cast of `images` to the last step of their normalisation."""
    (images,) = (value.name for value in model.graph.input)
    reached, constants = {images}, {t.name for t in model.graph.initializer}
    for node in model.graph.node:
        elementwise = node.op_type in ("Cast", "Sub", "Div", "Mul", "Add")
        known = all(name in reached or name in constants for name in node.input)
        if elementwise and known and reached.intersection(node.input):
            reached.update(node.output)
            yield node.name, "pixel normalisation"


def _final_nodes(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """From the features to the embeddings: the L2 normalisation."""
    makers = {name: node for node in model.graph.node for name in node.output}
    (embeddings,) = (value.name for value in model.graph.output)
    last = makers[embeddings]
    if last.op_type != "Div":
        msg = (
            f"{embeddings} is made by {last.op_type}, expected the division by their length; "
            "export the encoder again"
        )
        raise GateError(msg)
    features, *rest = last.input
    yield last.name, "L2 normalisation"
    waiting, seen = list(rest), {features}
    while waiting:
        name = waiting.pop()
        if name in seen or name not in makers:
            continue
        seen.add(name)
        yield makers[name].name, "L2 normalisation"
        waiting += makers[name].input


def _keep_between(nodes: list[NodeProto], floats: set[str], reasons: dict[str, Reason]) -> None:
    """Keep light nodes that only stand between kept ones, until nothing changes."""
    makers = {name: node for node in nodes for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    changed = True
    while changed:
        changed = False
        for node in nodes:
            outputs = [name for name in node.output if name in floats]
            if not outputs or node.name in reasons or node.op_type in _HEAVY:
                continue
            before = [makers[name] for name in node.input if name in floats]
            after = [reader for name in outputs for reader in readers.get(name, [])]
            if before and all(n.name in reasons for n in (*before, *after)):
                reasons[node.name] = ("between FP32 nodes", None)
                changed = True
