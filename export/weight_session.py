"""ONNX Runtime sessions of graphs made on the fly, whose weights are handed over, not copied in."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

_INLINE_BYTES = 1024
"""Smaller constants stay in the graph: shapes and axes must be known while it is loaded."""


def open_session(
    model: onnx.ModelProto,
    weights: Mapping[str, npt.NDArray[Any]],
    *,
    optimised: bool,
    threads: int | None = None,
) -> onnxruntime.InferenceSession:
    """Open a session on the CPU.

    Args:
        model: graph without initialisers.
        weights: its initialisers; they must live as long as the session.
        optimised: let ONNX Runtime rewrite the graph. It then drops pairs of casts, so that
            nothing is rounded between them.
        threads: CPU threads; None for all of this machine's.

    Returns:
        The session.
    """
    large = {name: value for name, value in weights.items() if value.nbytes > _INLINE_BYTES}
    for name, value in weights.items():
        if name not in large:
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
            continue
        declared = onnx.TensorProto(
            name=name,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(value.dtype),
            dims=value.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        declared.external_data.add(key="location", value="handed_over")
        model.graph.initializer.append(declared)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    values = [
        onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
        for value in large.values()
    ]
    options.add_external_initializers(list(large), values)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )


def without_weights(
    model: onnx.ModelProto,
) -> tuple[onnx.ModelProto, dict[str, npt.NDArray[Any]]]:
    """A graph to build on and its initialisers, which the given model keeps too.

    Returns:
        A model with the nodes, inputs and outputs only, and every initialiser by name.
    """
    bare = onnx.ModelProto(ir_version=model.ir_version)
    bare.opset_import.extend(model.opset_import)
    bare.graph.name = model.graph.name
    bare.graph.input.extend(model.graph.input)
    bare.graph.output.extend(model.graph.output)
    bare.graph.node.extend(model.graph.node)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return bare, weights
