"""INT8 graphs with explicit QuantizeLinear and DequantizeLinear, any choice of layers.

ONNX Runtime's quantiser does the work; this decides what it is given. Needs no torch.
"""

import copy
import io
import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
)
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

from edge_runtime.errors import InputError
from export.graph_costs import node_macs
from export.graph_shapes import ShapedGraph

U8 = npt.NDArray[np.uint8]

Int8Target = Literal["cpu", "tensorrt"]
"""What the file is for: ONNX Runtime's x86 kernels, or TensorRT."""
RangeMethod = Literal["min-max", "percentile", "entropy"]
"""How the range of an activation is taken from what was seen."""
LayerKind = Literal["convolution", "depthwise", "product"]

_METHODS: dict[RangeMethod, tuple[CalibrationMethod, dict[str, Any]]] = {
    "min-max": (CalibrationMethod.MinMax, {}),
    "percentile": (CalibrationMethod.Percentile, {"num_bins": 2048, "percentile": 99.99}),
    # With as many bins as levels, the library's default, entropy has nothing to choose between.
    "entropy": (CalibrationMethod.Entropy, {"num_bins": 512, "num_quantized_bins": 128}),
}
_WEIGHTED = ("Conv", "MatMul", "Gemm")
_CLAMPS = ("Relu", "Clip")
"""On the CPU these vanish into the range of the convolution's output."""
_CHUNK = 1
"""Images calibrated at once: histograms keep every activation of all of them in memory."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What is quantised or left in floating point as one."""

    name: str
    """Of its weights where they have one: blocks.1.0.conv_pw."""
    kind: LayerKind
    macs: int
    """Multiply-accumulates for one image."""
    nodes: tuple[str, ...]
    """Names of the node with the weights and of the clamp behind it."""
    residual: tuple[str, str] | None
    """An addition fed by this layer and its other input; that is quantised with it for TensorRT."""


class QdqGraph:
    """An FP32 encoder that can be written with any of its layers in INT8."""

    def __init__(
        self,
        fp32: Path,
        target: Int8Target,
        *,
        reduce_range: bool = False,
        float_part: Path | None = None,
    ) -> None:
        """Read the graph and find what can be quantised: layers with constant weights.

        The file needs no preparation: `export_onnx` has folded batch norms and constants, and
        norms, Gelu, Softmax, pooling and the frame around the body stay in floating point.

        Args:
            fp32: encoder file.
            target: decides types and where the pairs go.
            reduce_range: 7-bit weights, for x86 CPUs without VNNI, whose sums overflow otherwise.
            float_part: the same encoder in FP16, so that what is not INT8 is not FP32 either: a
                strongly typed network computes in the types it is given. Values of both files must
                have the same names.

        Raises:
            InputError: the FP16 file is another encoder's.
        """
        self.fp32, self.target, self.reduce_range = fp32, target, reduce_range
        self.base = float_part or fp32
        with _quietly():
            self._model: ModelProto = load_model_with_shape_infer(self.base)
        for node in self._model.graph.node:
            node.name = node.name or f"{node.op_type}_{node.output[0]}"
        self.layers = _layers(self._model, ShapedGraph(self.base))
        self._casts = {
            node.output[0]: node.input[0]
            for node in self._model.graph.node
            if node.op_type == "Cast"
        }
        self._halves = {
            value.name
            for value in self._model.graph.value_info
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16
        }
        named = {node for layer in self.layers for node in layer.nodes}
        self._body = {layer.residual[1] for layer in self.layers if layer.residual is not None}
        for node in self._model.graph.node:
            if node.name in named:
                self._body |= {node.input[0], node.output[0]}
        if float_part is not None:
            measured = {name for node in onnx.load(fp32).graph.node for name in node.output}
            self._body = {self._casts.get(name, name) for name in self._body}
            missing = sorted(self._body - measured)
            if missing:
                msg = (
                    f"{float_part} computes {missing[0]!r}, which {fp32} does not; expected the "
                    "same encoder. Export both again"
                )
                raise InputError(msg)

    def ranges(self, calibration: U8, method: RangeMethod) -> TensorsData:
        """Ranges of all activations that may be quantised.

        Args:
            calibration: (N, H, W, 3) uint8 images.
            method: how to take them.
        """
        kind, options = _METHODS[method]
        if self.target == "tensorrt":
            options = {**options, "symmetric": True}
        ops = [*_WEIGHTED, *_CLAMPS, "Add"]
        with TemporaryDirectory(prefix="skyfix-int8-") as folder, _quietly():
            calibrator = create_calibrator(
                self.fp32,
                ops,
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=kind,
                extra_options=options,
            )
            if method != "min-max":
                # The frame around the body may hold constants: nothing to make a histogram of.
                calibrator.tensors_to_calibrate &= self._body
            for k in range(0, len(calibration), _CHUNK):
                calibrator.collect_data(_Reader(calibration[k : k + _CHUNK]))
            return calibrator.compute_data()

    def with_int8(self, names: Collection[str], ranges: TensorsData) -> ModelProto:
        """The encoder with these layers in INT8, per-channel weights, all else as it was.

        Args:
            names: of layers; at least one.
            ranges: from `ranges`.
        """
        chosen = [layer for layer in self.layers if layer.name in names]
        ranges = copy.copy(ranges)
        ranges.data = ranges.data | {
            cast: ranges.data[name] for cast, name in self._casts.items() if name in ranges.data
        }
        for_cpu = self.target == "cpu"
        options: dict[str, Any] = {
            # Their outputs meet Gelu, norms or a bias in FP32: one rounding less.
            "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
        }
        if not for_cpu:
            # TensorRT: symmetric, no zero points, float biases; pairs on inputs of weighted
            # operators alone, so that a convolution fuses with what follows it
            # (docs.nvidia.com/deeplearning/tensorrt, "Explicit Quantization").
            options = {
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "DedicatedQDQPair": True,
                "OpTypesToExcludeOutputQuantization": [*_WEIGHTED],
            }
        with _quietly():
            quantizer = QDQQuantizer(
                copy.deepcopy(self._model),
                per_channel=True,
                reduce_range=self.reduce_range,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8 if for_cpu else QuantType.QInt8,
                tensors_range=ranges,
                nodes_to_quantize=[
                    node for layer in chosen for node in layer.nodes[: None if for_cpu else 1]
                ],
                nodes_to_exclude=[],
                op_types_to_quantize=[*_WEIGHTED, *_CLAMPS],
                extra_options=options,
            )
            quantizer.quantize_model()
            if not for_cpu:
                for layer in chosen:
                    _quantise_residual(quantizer.model.model, layer, ranges)
            _scale_halves_by_halves(quantizer.model.model, self._halves)
            quantizer.model.topological_sort()
        model: ModelProto = quantizer.model.model
        return model


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: U8) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, U8] | None:
        image = next(self._images, None)
        return None if image is None else {"images": image[None]}


@contextmanager
def _quietly() -> Iterator[None]:
    """The library prints its stages and advises on what was done on purpose; errors still raise."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _scale_halves_by_halves(model: ModelProto, halves: Collection[str]) -> None:
    """A scale has the type of what it scales; the library takes that of the ranges, FP32."""
    scales = {
        node.input[1]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] in halves
    }
    for tensor in model.graph.initializer:
        if tensor.name in scales:
            value = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _quantise_residual(model: ModelProto, layer: Layer, ranges: TensorsData) -> None:
    """Put a pair on what is added to a layer's output: the convolution then adds it in INT8."""
    if layer.residual is None or layer.residual[1] not in ranges:
        return
    adding, skipped = layer.residual
    low, high = ranges[skipped].range_value
    scale = float(np.max(np.abs([low, high]))) / 127
    if scale == 0:
        return
    name = f"{adding}_{skipped}"
    graph = model.graph
    node = next(node for node in graph.node if node.name == adding)
    if skipped not in node.input:  # It feeds a quantised layer too, and has its pair.
        return
    graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), f"{name}_scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), f"{name}_zero_point"))
    parameters = [f"{name}_scale", f"{name}_zero_point"]
    node.input[list(node.input).index(skipped)] = f"{name}_dequantised"
    quantize, dequantize = f"{name}_QuantizeLinear", f"{name}_DequantizeLinear"
    graph.node.extend(
        [
            onnx.helper.make_node(
                "QuantizeLinear", [skipped, *parameters], [f"{name}_quantised"], quantize
            ),
            onnx.helper.make_node(
                "DequantizeLinear",
                [f"{name}_quantised", *parameters],
                [f"{name}_dequantised"],
                dequantize,
            ),
        ]
    )


def _layers(model: ModelProto, shaped: ShapedGraph) -> tuple[Layer, ...]:
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: list[Layer] = []
    taken: dict[str, str] = {}
    for node in reversed(graph.node):  # Of two layers that are added the later one fuses with it.
        if node.op_type not in _WEIGHTED or node.input[1] not in constants:
            continue
        after = readers.get(node.output[0], [])
        clamp = after[0] if len(after) == 1 and after[0].op_type in _CLAMPS else None
        name = _layer_name(node, after, constants)
        residual = _residual(node, after, constants)
        if residual is not None and taken.setdefault(residual[0], node.name) != node.name:
            residual = None
        found.append(
            Layer(
                name=name if name not in {layer.name for layer in found} else node.name,
                kind=_kind(node, constants[node.input[1]]),
                macs=node_macs(node, shaped) or 0,
                nodes=(node.name,) if clamp is None else (node.name, clamp.name),
                residual=residual,
            )
        )
    return tuple(reversed(found))


def _kind(node: NodeProto, weight: onnx.TensorProto) -> LayerKind:
    if node.op_type != "Conv":
        return "product"
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return "depthwise" if groups > 1 and weight.dims[1] == 1 else "convolution"


def _layer_name(node: NodeProto, after: Collection[NodeProto], constants: Collection[str]) -> str:
    """From the node's name, its weights' or, where those are unnamed, from the bias added."""
    scope = node.name.rpartition("/")[0]
    if scope:
        return str(scope)
    names: list[str] = [node.input[1]]
    names += [i for n in after if n.op_type == "Add" for i in n.input if i in constants]
    for name in names:
        if "." in name:
            return name.removeprefix("body.").rpartition(".")[0]
    return str(node.name)


def _residual(
    node: NodeProto, after: Collection[NodeProto], constants: Collection[str]
) -> tuple[str, str] | None:
    for reader in after:
        others = [name for name in reader.input if name != node.output[0]]
        if reader.op_type == "Add" and len(others) == 1 and others[0] not in constants:
            return reader.name, others[0]
    return None
