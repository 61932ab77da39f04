"""What the exporter of torch leaves in a graph and no engine wants, taken out or given a name.

Works on `onnx_ir` graphs, whose weights are still torch's: nothing of their size is copied here.
"""

import ast
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import rewriter
from onnxscript.optimizer import fold_constants_ir

_ANY_SIZE = 1 << 31
"""Constants of any size are folded: transposed weights of linear layers are among them."""
_ROUNDS = 3
_SCOPES = "pkg.torch.onnx.name_scopes"
_BODY = "body"
"""Name of the encoder's network, left out of the names of its nodes."""


def tidy(model: ir.Model) -> None:
    """Fold, remove and name, in place; inputs and outputs keep their names.

    Equal weights are not merged: which parameters are equal changes from one checkpoint to the
    next, and an engine can only be refitted when both have the same names.
    """
    _name_values_of_weights(model.graph)
    parameters = set(model.graph.initializers) | {
        value.name for node in model.graph for value in node.outputs if _is_from_weight(value)
    }
    for _ in range(_ROUNDS):
        for node in tuple(model.graph):
            if node.op_type in _REWRITES:
                _REWRITES[node.op_type](node)
        with _quiet():
            fold_constants_ir(model, input_size_limit=_ANY_SIZE, output_size_limit=_ANY_SIZE)
            rewriter.rewrite(model)
        common.IdentityEliminationPass()(model)
        common.RemoveUnusedNodesPass()(model)
    for node in tuple(model.graph):
        if node.op_type == "BatchNormalization":
            _scale_and_shift(node)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    common.TopologicalSortPass()(model)
    _name_nodes(model.graph, {name for name in parameters if name is not None})
    common.ClearMetadataAndDocStringPass()(model)
    common.ShapeInferencePass(check_type=True, strict_mode=True, data_prop=True)(model)


def _gather_of_one(node: ir.Node) -> None:
    """`x[k]` is one Gather, where the exporter writes Slice and Squeeze."""
    slice_ = _producer(node.inputs[0])
    if slice_ is None or slice_.op_type != "Slice":
        return
    starts, ends, axes = (_ints(slice_.inputs[k]) for k in (1, 2, 3))
    steps = _ints(slice_.inputs[4]) if len(slice_.inputs) == 5 else [1]
    squeezed = _ints(node.inputs[1]) if len(node.inputs) > 1 else None
    if not starts or not ends or not axes or squeezed != axes or steps != [1]:
        return
    if starts[0] < 0 or ends[0] != starts[0] + 1:
        return
    constant = _constant(np.array(starts[0], np.int64))
    gather = ir.node("Gather", [slice_.inputs[0], constant.outputs[0]], {"axis": axes[0]})
    _replace(node, [constant, gather])


def _square(node: ir.Node) -> None:
    """`x ** 2` as x * x: exact, where an engine may compute powers by logarithms."""
    exponent = ir.convenience.get_const_tensor(_input(node, 1))
    if exponent is not None and exponent.size == 1 and float(exponent.numpy().item()) == 2.0:
        _replace(node, [ir.node("Mul", [node.inputs[0], node.inputs[0]])])


def _plain_reshape(node: ir.Node) -> None:
    """No `allowzero` without a zero; no scalar in between where one number stays one number."""
    shape = _ints(node.inputs[1])
    if shape is not None and 0 not in shape:
        node.attributes.pop("allowzero", None)
    squeeze = _producer(node.inputs[0])
    if shape not in ([1], [-1]) or squeeze is None or squeeze.op_type != "Squeeze":
        return
    one = _producer(squeeze.inputs[0])
    if one is not None and one.op_type == "Shape":
        first, end = one.attributes.get_int("start", 0), one.attributes.get_int("end", 0)
        if end == first + 1:
            _replace(node, [ir.node("Identity", [squeeze.inputs[0]])])


def _split_constant(node: ir.Node) -> None:
    """Parts of a constant are constants."""
    whole = ir.convenience.get_const_tensor(_input(node, 0))
    if whole is None:
        return
    axis = node.attributes.get_int("axis", 0)
    values = whole.numpy()
    if len(node.inputs) > 1 and (sizes := _ints(node.inputs[1])) is not None:
        edges = np.cumsum(sizes)[:-1].tolist()
    else:
        step = -(-values.shape[axis] // len(node.outputs))
        edges = list(range(step, values.shape[axis], step))
    parts = [_constant(part) for part in np.split(values, edges, axis=axis)]
    _replace(node, parts, [part.outputs[0] for part in parts])


def _scale_and_shift(node: ir.Node) -> None:
    """Batch normalisation that no convolution took in, with its statistics worked out."""
    tensors = [ir.convenience.get_const_tensor(_input(node, k)) for k in range(1, 5)]
    shape = _input(node, 0).shape
    if any(tensor is None for tensor in tensors) or shape is None or len(node.outputs) > 1:
        return
    weight, bias, mean, variance = (t.numpy().astype(np.float64) for t in tensors if t is not None)
    scale = weight / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    sides = (-1,) + (1,) * (len(shape) - 2)
    factor = _constant(scale.reshape(sides).astype(np.float32))
    summand = _constant((bias - mean * scale).reshape(sides).astype(np.float32))
    scaled = ir.node("Mul", [node.inputs[0], factor.outputs[0]])
    shifted = ir.node("Add", [scaled.outputs[0], summand.outputs[0]])
    scaled.outputs[0].shape, scaled.outputs[0].type = shape, _input(node, 0).type
    _replace(node, [factor, summand, scaled, shifted])


_REWRITES: dict[str, Callable[[ir.Node], None]] = {
    "Squeeze": _gather_of_one,
    "Pow": _square,
    "Reshape": _plain_reshape,
    "Split": _split_constant,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """The folder warns of every node with several outputs, which is no one's business."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _replace(old: ir.Node, new: list[ir.Node], outputs: list[ir.Value] | None = None) -> None:
    graph = old.graph
    assert graph is not None
    for node in new:
        node.metadata_props.update(old.metadata_props)
    given = list(new[-1].outputs) if outputs is None else outputs
    ir.convenience.replace_nodes_and_values(graph, old, [old], new, old.outputs, given)


def _constant(value: np.ndarray) -> ir.Node:
    node = ir.node("Constant", [], {"value": ir.tensor(value)})
    output = node.outputs[0]
    output.const_value = ir.tensor(value)
    output.shape, output.type = ir.Shape(value.shape), ir.TensorType(output.const_value.dtype)
    return node


def _input(node: ir.Node, position: int) -> ir.Value:
    value = node.inputs[position]
    assert value is not None
    return value


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _ints(value: ir.Value | None) -> list[int] | None:
    constant = None if value is None else ir.convenience.get_const_tensor(value)
    return None if constant is None else [int(v) for v in constant.numpy().ravel()]


_RENAMED = {"Transpose": "transposed", "Reshape": "reshaped", "Unsqueeze": "reshaped"}


def _name_values_of_weights(graph: ir.Graph) -> None:
    """A weight that is only laid out otherwise keeps its name when that is folded."""
    taken = set(graph.initializers)
    for node in graph:
        source = node.inputs[0] if node.inputs else None
        if node.op_type in _RENAMED and source is not None and source.is_initializer():
            name = f"{source.name}.{_RENAMED[node.op_type]}"
            if name not in taken:
                taken.add(name)
                node.outputs[0].name = name


def _is_from_weight(value: ir.Value) -> bool:
    return (value.name or "").endswith(tuple(f".{word}" for word in _RENAMED.values()))


def _name_nodes(graph: ir.Graph, parameters: set[str]) -> None:
    """Nodes are called after their module, values after their node, weights after themselves."""
    counted: Counter[str] = Counter()
    ours = {value.name for value in (*graph.inputs, *graph.outputs)}
    for node in graph:
        name = f"{_module_of(node, parameters)}/{node.op_type}"
        counted[name] += 1
        node.name = name if counted[name] == 1 else f"{name}_{counted[name]}"
        for position, value in enumerate(node.outputs):
            if value.name not in ours:
                value.name = node.name if len(node.outputs) == 1 else f"{node.name}:{position}"
    for value in tuple(graph.initializers.values()):
        uses = value.uses()
        if uses and value.name not in parameters | ours:
            user, position = next(iter(uses))
            value.name = f"{user.name}.{position}"


def _module_of(node: ir.Node, parameters: set[str]) -> str:
    for value in node.inputs:  # Fused nodes carry the names of what was fused into them.
        name = (value.name or "") if value is not None else ""
        if name in parameters and ".weight" in name:
            return name.partition(".weight")[0].removeprefix(f"{_BODY}.")
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "['', '']"))
    path = str(scopes[-2]) if len(scopes) > 1 else ""
    if path != _BODY and not path.startswith(f"{_BODY}."):
        return "encoder"
    return path.removeprefix(f"{_BODY}.")
