"""From a trained encoder to its FP32 ONNX file, from which every other precision is made.

The precision lives in the file and never in a builder flag, because TensorRT 11 has none.
"""

import copy
import functools
import io
import json
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edge_runtime.errors import GateError, InputError
from edge_runtime.precision import Precision
from export.activation_ranges import activation_ranges
from export.graph_tidying import tidy
from export.mixed_precision import to_mixed_precision
from export.probes import probe_images
from train.encoder import Encoder
from train.timm_import import timm

U8 = npt.NDArray[np.uint8]

OPSET = 20
"""Keeps Gelu as one node; TensorRT >= 10 and ONNX Runtime >= 1.18 read it. LayerNormalization is
one node from 17 on."""
BATCH = "batch"
"""Name of the one dimension that is not fixed."""
MAX_BYTES = (1 << 31) - (1 << 20)
"""Of a protobuf message, with a little left for the graph."""
_PREFIX = "skyfix."
"""Of our keys in `metadata_props`."""


class _MeanPool(nn.Module):
    """The mean over all pixels, where torch's pooling would be exported as index arithmetic."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


def deployed(encoder: Encoder) -> Encoder:
    """The encoder as it flies: evaluation mode, branches fused, attention written out.

    Returns:
        A copy that shares its weights with the encoder, which stays as it is.
    """
    shared: dict[int, Tensor] = {
        # New objects over the same memory: fusing detaches parameters in place.
        **{id(p): nn.Parameter(p.detach(), requires_grad=False) for p in encoder.parameters()},
        **{id(b): b.detach() for b in encoder.buffers()},
    }
    flying = copy.deepcopy(encoder, memo=shared).eval()
    # FastViT and RepViT train with parallel branches; one convolution of them flies.
    flying.body = timm.models.reparameterize_model(flying.body, inplace=True)
    for name, module in list(flying.body.named_modules()):
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # Its export computes shapes while it runs.
        if hasattr(module, "attention_bias_cache"):
            # What was looked up once may be of other weights, and exports refuse to look it up.
            module.attention_bias_cache = {}
            module.get_attention_biases = functools.partial(_attention_biases, module)
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            parent, _, leaf = name.rpartition(".")
            setattr(flying.body.get_submodule(parent), leaf, _MeanPool())
    return flying


def _attention_biases(module: Any, _device: torch.device) -> Tensor:
    biases: Tensor = module.attention_biases[:, module.attention_bias_idxs]
    return biases


def encoder_to_onnx(encoder: Encoder) -> onnx.ModelProto:
    """The FP32 ONNX of an encoder, checked.

    Args:
        encoder: trained encoder, on the CPU, in FP32.

    Returns:
        `images` (batch, H, W, 3) uint8 to `embeddings` (batch, D) float32.

    Raises:
        InputError: the exporter cannot write this network, or its weights fill more than a file.
        GateError: what came out is not a sound encoder.
    """
    spec = encoder.spec
    parameter_bytes = sum(4 * p.numel() for p in encoder.parameters())
    if parameter_bytes > MAX_BYTES:
        msg = (
            f"{spec.architecture} has {parameter_bytes / 1e9:.1f} GB of weights; an ONNX file "
            f"holds at most {MAX_BYTES / 1e9:.1f} GB. Choose a smaller network"
        )
        raise InputError(msg)
    model = _exported(deployed(encoder), (spec.height_px, spec.width_px))
    tidy(model)
    proto: onnx.ModelProto = ir.to_proto(model)
    del model
    proto.producer_name = "skyfix"
    proto.ClearField("producer_version")
    proto.graph.name = spec.architecture
    computed = {name for node in proto.graph.node for name in node.output}
    described = [value for value in proto.graph.value_info if value.name in computed]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(described)  # Weights say themselves what they are.
    set_metadata(proto, precision="fp32", encoder=json.dumps(asdict(spec), sort_keys=True))
    check_model(proto, spec.architecture)
    return proto


def set_metadata(model: onnx.ModelProto, **values: str) -> None:
    """Write our entries of `metadata_props`; others of ours with the same names are replaced."""
    known = {entry.key: entry.value for entry in model.metadata_props}
    known |= {f"{_PREFIX}{key}": value for key, value in values.items()}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, known)


def export_onnx(
    encoder: Encoder, path: Path, precision: Precision, *, calibration: U8 | None = None
) -> onnx.ModelProto:
    """Write one ONNX file and check it.

    Args:
        encoder: trained encoder, on the CPU.
        path: file to write.
        precision: of the file.
        calibration: (N, H, W, 3) uint8, RGB: pictures like those of flight, on which the ranges
            of activations are measured for fp16; None for made-up ones.

    Returns:
        The model as written.

    Raises:
        GateError: the file does not have the contract's inputs and outputs, or ONNX refuses it.
        InputError: the exporter cannot write this network.
    """
    model = encoder_to_onnx(encoder)
    if precision == "fp16":
        pictures = probe_images(encoder.spec) if calibration is None else calibration
        model = to_mixed_precision(model, activation_ranges(model, pictures)).model
        set_metadata(model, precision="fp16")
        check_model(model, path.name)
    path.write_bytes(model.SerializeToString())
    return model


def check_structure(path: Path) -> None:
    """First gate: the file is valid ONNX with the encoder contract and no foreign operators.

    Raises:
        GateError: with what differs.
    """
    check_model(onnx.load(path), path.name)


def check_model(model: onnx.ModelProto, name: str) -> None:
    """As `check_structure`, of a model in memory.

    Args:
        model: to check.
        name: to call it in errors.

    Raises:
        GateError: with what differs.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        msg = f"{name}: ONNX refuses the file ({str(error).splitlines()[0]}); export it again"
        raise GateError(msg) from error
    inputs = [_describe(v) for v in model.graph.input]
    outputs = [_describe(v) for v in model.graph.output]
    if [i[0] for i in inputs] != ["images"] or [o[0] for o in outputs] != ["embeddings"]:
        msg = f"{name}: inputs {inputs}, outputs {outputs}; expected images and embeddings"
        raise GateError(msg)
    if inputs[0][1] != "UINT8" or outputs[0][1] != "FLOAT":
        msg = (
            f"{name}: images are {inputs[0][1]} and embeddings {outputs[0][1]}; expected "
            "UINT8 and FLOAT"
        )
        raise GateError(msg)
    foreign = sorted({n.domain for n in model.graph.node} - {"", "ai.onnx"})
    if foreign or model.functions:
        msg = (
            f"{name}: operators of the domains {foreign}, {len(model.functions)} functions; "
            "expected plain ONNX only"
        )
        raise GateError(msg)
    for node in model.graph.node:
        if node.op_type == "Transpose" and "images" in node.input:
            msg = f"{name}: {node.name} transposes uint8, which TensorRT refuses; cast before it"
            raise GateError(msg)
    _require_known_shapes(model, name)


def _require_known_shapes(model: onnx.ModelProto, name: str) -> None:
    """Every value must have a type and a shape that depends on nothing but the batch."""
    known = {v.name: v for v in (*model.graph.value_info, *model.graph.output)}
    for node in model.graph.node:
        for output in node.output:
            value = known.get(output)
            kind = None if value is None else value.type.tensor_type
            if kind is None or not kind.elem_type or not kind.HasField("shape"):
                msg = f"{name}: {node.name} gives a value without a type and shape"
                raise GateError(f"{msg}; expected both everywhere, export it again")
            free = [dim for dim in kind.shape.dim if not dim.HasField("dim_value")]
            if any(BATCH not in dim.dim_param for dim in free) or len(free) > 1:
                text = ", ".join(d.dim_param or str(d.dim_value) for d in kind.shape.dim)
                msg = f"{name}: {node.name} gives ({text}); expected only the batch to be free"
                raise GateError(msg)


def _exported(module: nn.Module, size_px: tuple[int, int]) -> ir.Model:
    images = torch.zeros(2, *size_px, 3, dtype=torch.uint8)
    silent = io.StringIO()  # The exporter prints its stages; errors still raise.
    with (
        redirect_stdout(silent),
        redirect_stderr(silent),
        warnings.catch_warnings(),
        torch.no_grad(),
    ):
        # The exporter of torch 2.13 uses a class that torch has deprecated.
        warnings.filterwarnings("ignore", r".*\bLeafSpec\b", FutureWarning)
        try:
            program = torch.onnx.export(
                module,
                (images,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["embeddings"],
                dynamic_shapes={"images": {0: torch.export.Dim(BATCH, min=1, max=1024)}},
                optimize=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            cause = " ".join(str(error.__cause__ or error).split())[:300]
            msg = f"torch cannot export this network ({cause}); choose another architecture"
            raise InputError(msg) from error
    assert program is not None
    return program.model


def _describe(value: onnx.ValueInfoProto) -> tuple[str, str]:
    return value.name, onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
