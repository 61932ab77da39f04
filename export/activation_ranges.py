"""How large and how small the values inside an encoder are, measured on pictures.

Everything is reduced inside the graph, picture by picture: what comes out are a few numbers per
value, and no more is held than one run of the encoder holds anyway.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper

from edge_runtime.errors import GateError, InputError
from export.weight_session import open_session, without_weights

U8 = npt.NDArray[np.uint8]
Weights = Mapping[str, npt.NDArray[Any]]

POOLING = frozenset({"ReduceMean", "ReduceSum", "ReduceL1", "GlobalAveragePool", "AveragePool"})
PRODUCTS = frozenset({"Conv", "MatMul", "Gemm"})
_LAYOUT = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
"""Same numbers in another order."""
_REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceL2")
_ROWS = 64
_SUM_PICTURES = 4
"""Sums of magnitudes cost a second convolution, so fewer pictures are taken."""


@dataclass(frozen=True, kw_only=True)
class ValueRange:
    """Of one value of the graph, over all pictures."""

    max_abs: float
    """Largest magnitude."""
    rms: float
    """Root of the mean square."""


@dataclass(frozen=True, kw_only=True)
class ActivationRanges:
    """What was measured, by the names of values and of nodes."""

    pictures: int
    values: Mapping[str, ValueRange]
    """Of every FP32 value that is computed, by its name."""
    sums: Mapping[str, float]
    """Largest sum of magnitudes that a node adds up for one number of its output, by the node's
    name: no order of adding gives a larger one on the way. An upper bound where that is low
    enough, measured otherwise."""


def activation_ranges(
    model: onnx.ModelProto, images: U8, *, sum_limit: float = 65504.0, threads: int | None = None
) -> ActivationRanges:
    """Run an FP32 encoder on pictures and measure its values.

    Args:
        model: FP32, of `encoder_to_onnx`; it stays as it is.
        images: (N, H, W, 3) uint8, RGB, like those of flight, N >= 1.
        sum_limit: sums whose upper bound is below this are not measured.
        threads: CPU threads; None for all of this machine's.

    Returns:
        The ranges.

    Raises:
        InputError: no pictures.
        GateError: a value is not finite, in FP32.
    """
    if len(images) == 0:
        msg = "no pictures to measure activations on; expected at least one (N, H, W, 3)"
        raise InputError(msg)
    values = _measure_values(model, images, threads)
    bounds = _sum_bounds(model, values)
    unclear = [node for node in model.graph.node if bounds.get(node.name, 0.0) > sum_limit]
    return ActivationRanges(
        pictures=len(images),
        values=values,
        sums=bounds | _measure_sums(model, unclear, images[:_SUM_PICTURES], threads),
    )


def float_values(model: onnx.ModelProto) -> list[str]:
    """Names of the computed FP32 values, in the graph's order."""
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    kinds |= {v.name: v.type.tensor_type.elem_type for v in model.graph.output}
    made = [name for node in model.graph.node for name in node.output]
    return [name for name in made if kinds.get(name) == TensorProto.FLOAT]


def _measure_values(
    model: onnx.ModelProto, images: U8, threads: int | None
) -> dict[str, ValueRange]:
    copies = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in _LAYOUT}
    names = [name for name in float_values(model) if name not in copies]
    elements = {v.name: _elements(v) for v in (*model.graph.value_info, *model.graph.output)}
    probes, constants = [], {"#last": np.array([1], np.int64)}
    for name in names:
        # In rows, because ONNX Runtime reduces those on all cores at once.
        rows = math.gcd(elements[name], _ROWS)
        constants[f"#{rows}"] = np.array([rows, -1], np.int64)
        probes.append(helper.make_node("Reshape", [name, f"#{rows}"], [f"{name}#rows"]))
        probes += [
            helper.make_node(op, [f"{name}#rows", "#last"], [f"{name}#{op}"], keepdims=0)
            for op in _REDUCTIONS
        ]
    wanted = [f"{name}#{op}" for name in names for op in _REDUCTIONS]
    peaks, energies = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for found in _runs(model, probes, images, threads, wanted, constants):
        for k, name in enumerate(names):
            high, low, lengths = found[3 * k : 3 * k + 3]
            peak = float(max(high.max(), -low.min()))
            if not math.isfinite(peak) or not np.isfinite(lengths).all():
                msg = f"{name} is {peak} on a picture in FP32; the weights are broken, train again"
                raise GateError(msg)
            peaks[name] = max(peaks[name], peak)
            energies[name] += float(np.square(lengths, dtype=np.float64).sum())
    ranges = {
        name: ValueRange(
            max_abs=peaks[name],
            rms=math.sqrt(energies[name] / (elements[name] * len(images))),
        )
        for name in names
    }
    for name, source in copies.items():  # In the graph's order: the source may be a copy too.
        if source in ranges:
            ranges[name] = ranges[source]
    return ranges


def _elements(value: onnx.ValueInfoProto) -> int:
    """Numbers per picture."""
    return math.prod(max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim)


def _sum_bounds(model: onnx.ModelProto, values: Mapping[str, ValueRange]) -> dict[str, float]:
    """Largest input times what it is multiplied with (Hölder's inequality), per node."""
    shapes = {v.name: v.type.tensor_type.shape.dim for v in model.graph.value_info}
    constants = {t.name: t for t in model.graph.initializer}
    bounds: dict[str, float] = {}
    for node in model.graph.node:
        if node.op_type in POOLING and node.input[0] in values:
            elements = math.prod(max(1, dim.dim_value) for dim in shapes[node.input[0]])
            bounds[node.name] = values[node.input[0]].max_abs * elements
        if node.op_type not in PRODUCTS:
            continue
        left, right = node.input[:2]
        if left not in values:
            continue
        if right in constants:
            weight = np.abs(onnx.numpy_helper.to_array(constants[right]))
            axes = _summed_axes(node, weight.ndim)
            bound = values[left].max_abs * float(weight.sum(axis=axes).max())
        elif right in values:
            terms = max(1, shapes[left][-1].dim_value)
            bound = values[left].max_abs * values[right].max_abs * terms
        else:
            continue
        if len(node.input) > 2 and node.input[2] in constants:
            bound += float(np.abs(onnx.numpy_helper.to_array(constants[node.input[2]])).max())
        bounds[node.name] = bound
    return bounds


def _summed_axes(node: NodeProto, dimensions: int) -> tuple[int, ...]:
    """Axes of a weight that one output number sums over."""
    if node.op_type == "Conv":
        return tuple(range(1, dimensions))
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return (dimensions - 1,) if transposed else (dimensions - 2,)


def _measure_sums(
    model: onnx.ModelProto, nodes: Sequence[NodeProto], images: U8, threads: int | None
) -> dict[str, float]:
    """Run the same sums again over magnitudes."""
    if not nodes:
        return {}
    made: dict[str, NodeProto] = {}
    probes = []
    for node in nodes:
        again = NodeProto()
        again.CopyFrom(node)
        again.name, again.output[0] = f"{node.name}#sum", f"{node.name}#sum"
        if node.op_type in ("ReduceMean", "ReduceSum", "ReduceL1"):
            again.op_type = "ReduceL1"
        summed = 1 if node.op_type in POOLING else len(node.input)
        for position in range(summed):
            name = f"{node.input[position]}#abs"
            made.setdefault(name, helper.make_node("Abs", [node.input[position]], [name]))
            again.input[position] = name
        if node.op_type in ("GlobalAveragePool", "AveragePool"):
            # The mean of magnitudes; their sum comes of the number of pixels below.
            again.op_type = node.op_type
        probes += [again, helper.make_node("ReduceMax", [again.output[0]], [f"{node.name}#peak"])]
        probes[-1].attribute.append(helper.make_attribute("keepdims", 0))
    wanted = [f"{node.name}#peak" for node in nodes]
    peaks = np.max(list(_runs(model, [*made.values(), *probes], images, threads, wanted)), axis=0)
    shapes = {v.name: v.type.tensor_type.shape.dim for v in model.graph.value_info}
    sums = {}
    for node, peak in zip(nodes, peaks, strict=True):
        factor = 1
        if node.op_type == "GlobalAveragePool":
            factor = math.prod(dim.dim_value for dim in shapes[node.input[0]][2:])
        elif node.op_type == "AveragePool":
            kernel = next(a.ints for a in node.attribute if a.name == "kernel_shape")
            factor = math.prod(kernel)
        sums[node.name] = float(peak) * factor
    return sums


def _runs(
    model: onnx.ModelProto,
    probes: Sequence[NodeProto],
    images: U8,
    threads: int | None,
    wanted: Sequence[str],
    constants: Weights | None = None,
) -> Iterator[list[npt.NDArray[np.float32]]]:
    """What the probes give, picture by picture."""
    bare, weights = without_weights(model)
    weights.update(constants or {})
    bare.graph.node.extend(probes)
    del bare.graph.output[:]
    bare.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted
    )
    session = open_session(bare, weights, optimised=True, threads=threads)
    for k in range(len(images)):
        yield session.run(wanted, {"images": images[k : k + 1]})
