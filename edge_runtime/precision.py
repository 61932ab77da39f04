"""The number formats an encoder ships in."""

from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Kernels = Literal["cpu", "tensorrt"]
"""Whose integer kernels an INT8 file is for: ONNX Runtime's on x86, or TensorRT's."""
