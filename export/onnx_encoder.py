"""From a trained encoder to ONNX files, one per precision.

The precision lives in the file and never in a builder flag, because TensorRT 11 has none: FP16
files hold an FP16 body between an FP32 normalisation and an FP32 L2 normalisation.
"""

import copy
import io
import json
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edge_runtime.bundle import Precision
from edge_runtime.errors import GateError
from train.encoder import Encoder
from train.timm_import import timm

OPSET = 18
"""The lowest that the torch exporter writes; LayerNormalization is one node from 17 on."""


def at_precision(encoder: Encoder, precision: Precision) -> Encoder:
    """A copy of the encoder that computes its body in this precision, in evaluation mode."""
    copied = copy.deepcopy(encoder).eval()
    # FastViT and RepViT train with parallel branches; one convolution of them flies.
    copied.body = timm.models.reparameterize_model(copied.body)
    if precision == "fp16":
        copied.body = copied.body.half()
        for name, module in copied.body.named_modules():
            if isinstance(module, nn.LayerNorm | nn.GroupNorm):
                _in_float32(copied.body, name, module)
    return copied


class _Float32Island(nn.Module):
    """A normalisation layer that reduces in float32 inside a float16 body."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.float()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.float()).to(x.dtype)
        return out


def _in_float32(root: nn.Module, name: str, module: nn.Module) -> None:
    parent_name, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent_name), leaf, _Float32Island(module))


def export_onnx(encoder: Encoder, path: Path, precision: Precision) -> onnx.ModelProto:
    """Write one ONNX file and check it.

    Args:
        encoder: trained encoder, on the CPU.
        path: file to write.
        precision: of the body.

    Returns:
        The model as written.

    Raises:
        GateError: the file does not have the contract's inputs and outputs, or ONNX refuses it.
    """
    module = at_precision(encoder, precision)
    spec = encoder.spec
    images = torch.zeros(2, spec.height_px, spec.width_px, 3, dtype=torch.uint8)
    silent = io.StringIO()  # The exporter prints its stages; errors still raise.
    with (
        redirect_stdout(silent),
        redirect_stderr(silent),
        warnings.catch_warnings(),
        torch.no_grad(),
    ):
        # The exporter of torch 2.13 uses a class that torch has deprecated.
        warnings.filterwarnings("ignore", r".*\bLeafSpec\b", FutureWarning)
        program = torch.onnx.export(
            module,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=1024)}},
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _tidy(model, {"precision": precision, "encoder": json.dumps(asdict(spec), sort_keys=True)})
    onnx.save(model, path)
    check_structure(path)
    return model


def check_structure(path: Path) -> None:
    """First gate: the file is valid ONNX with the encoder contract and no foreign operators.

    Raises:
        GateError: with what differs.
    """
    model = onnx.load(path)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        msg = f"{path.name}: ONNX refuses the file ({str(error).splitlines()[0]})"
        raise GateError(msg) from error
    inputs = [_describe(v) for v in model.graph.input]
    outputs = [_describe(v) for v in model.graph.output]
    if [i[0] for i in inputs] != ["images"] or [o[0] for o in outputs] != ["embeddings"]:
        msg = f"{path.name}: inputs {inputs}, outputs {outputs}; expected images and embeddings"
        raise GateError(msg)
    if inputs[0][1] != "UINT8" or outputs[0][1] != "FLOAT":
        msg = (
            f"{path.name}: images are {inputs[0][1]} and embeddings {outputs[0][1]}; expected "
            "UINT8 and FLOAT"
        )
        raise GateError(msg)
    foreign = sorted({n.domain for n in model.graph.node} - {"", "ai.onnx"})
    if foreign:
        msg = f"{path.name}: operators of the domains {foreign}; expected plain ONNX only"
        raise GateError(msg)


def _describe(value: onnx.ValueInfoProto) -> tuple[str, str]:
    return value.name, onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)


def _tidy(model: onnx.ModelProto, metadata: dict[str, Any]) -> None:
    """Drop the exporter's debugging notes and write our own."""
    model.producer_name = "skyfix"
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {f"skyfix.{k}": str(v) for k, v in metadata.items()})
