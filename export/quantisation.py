"""INT8, where it is worth it: calibrated, sensitive layers left in float, gated and timed.

An INT8 encoder is written only when it passes the gates on images it was not calibrated on and,
for a backend that is at hand, when it is measurably faster there. Needs no torch.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto

from edge_runtime.artefact import write_atomically
from edge_runtime.errors import InputError
from edge_runtime.gates import GateReport
from export.int8_search import Candidate, Int8Limits, Int8Search, Say, open_session
from export.paired_latency import PairedLatency, paired_latency
from export.qdq_graph import Int8Target, LayerKind, QdqGraph, RangeMethod

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class QuantisedLayer:
    """A layer and what INT8 does to it."""

    name: str
    kind: LayerKind
    macs: int
    """Multiply-accumulates for one image."""
    int8: bool
    """Whether it is in INT8 in the file."""
    loss: float | None
    """Mean of 1 - cosine to FP32 with this layer alone in INT8; None where not measured."""


@dataclass(frozen=True, kw_only=True)
class QuantisedEncoder:
    """What came of quantising, written or not."""

    target: Int8Target
    passed: bool
    """Whether a file was written."""
    reason: str
    """Why it was or was not, with the measured values."""
    method: RangeMethod
    """How ranges were taken: the one of `method_losses` with the lowest loss."""
    method_losses: dict[RangeMethod, float]
    """Mean of 1 - cosine with every layer in INT8, by method."""
    layers: tuple[QuantisedLayer, ...]
    """Every layer that could be quantised, in the order of the graph."""
    int8_macs_fraction: float
    """Of all these layers' multiply-accumulates."""
    report: GateReport | None
    """The gates on the held-out images; None where no choice of layers passed."""
    latency: PairedLatency | None
    """FP32 against INT8 on this CPU; None for a target that is not at hand."""
    reduce_range: bool
    """7-bit weights: for x86 CPUs without VNNI."""
    fp32_bytes: int
    int8_bytes: int | None
    """Size of the file; None where none was written."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return asdict(self)


def quantise(
    fp32: Path,
    out: Path,
    calibration: U8,
    held_out: U8,
    target: Int8Target,
    *,
    limits: Int8Limits | None = None,
    methods: Sequence[RangeMethod] = get_args(RangeMethod),
    reduce_range: bool | None = None,
    threads: int | None = None,
    fp16: Path | None = None,
    say: Say = lambda _: None,
) -> QuantisedEncoder:
    """Write an INT8 encoder with explicit Q/DQ, if there is one that is worth having.

    Ranges are taken by the method that loses least. If the whole does not pass the gates, each
    layer is measured alone and the most sensitive are left in floating point, as few as it takes.
    For the CPU this is done with and without depthwise convolutions, and the faster one is timed
    against FP32 in turns. For TensorRT speed cannot be measured here: the file is written when it
    passes the gates, and says so.

    Args:
        fp32: the exported FP32 encoder.
        out: file to write; left alone when INT8 is refused.
        calibration: (C, H, W, 3) uint8 RGB images to take ranges from.
        held_out: (P, H, W, 3) other images to judge by, at least 8.
        target: which backend the file is for.
        limits: of the search and the verdict.
        methods: to choose the ranges' method from.
        reduce_range: 7-bit weights; by default where this CPU has no VNNI.
        threads: CPU threads of the timing; by default all.
        fp16: the same encoder in FP16: for TensorRT, layers that are not INT8 then are FP16 and not
            FP32.
        say: called with one line per stage.

    Returns:
        What was measured and whether a file was written.

    Raises:
        InputError: too few images, no method, an encoder without a layer to quantise, or an FP16
            file of another encoder.
    """
    limits = limits or Int8Limits()
    if len(held_out) < 8 or len(calibration) < 1 or not methods:
        msg = (
            f"{len(calibration)} images to calibrate on, {len(held_out)} held out, "
            f"{len(methods)} methods; expected at least 1, 8 and 1"
        )
        raise InputError(msg)
    reduce = target == "cpu" and not has_vnni() if reduce_range is None else reduce_range
    graph = QdqGraph(
        fp32, target, reduce_range=reduce, float_part=fp16 if target == "tensorrt" else None
    )
    if not graph.layers:
        msg = f"{fp32} has no convolution or matrix product with constant weights to quantise"
        raise InputError(msg)
    search = Int8Search(graph, fp32, calibration, held_out, limits, say)
    method = search.choose_ranges(methods)
    names = frozenset(layer.name for layer in graph.layers)
    plans = {"every layer": names}
    pointwise = frozenset(layer.name for layer in graph.layers if layer.kind != "depthwise")
    if target == "cpu" and pointwise and pointwise != names:
        plans["all but depthwise convolutions"] = pointwise
    best: tuple[Candidate, PairedLatency | None] | None = None
    for name, plan in plans.items():
        candidate = search.passing(plan)
        if candidate is None:
            say(f"int8 for {target}, {name}: no choice passes: {search.failure}")
            continue
        latency = None
        if target == "cpu":
            latency = _time(fp32, candidate.model, held_out, limits, threads)
            say(
                f"int8 for cpu, {name}: {len(candidate.names)} of {len(names)} layers, lowest "
                f"cosine {candidate.report.min_cosine:.4f}, time x{latency.ratio:.2f} "
                f"({latency.ratio_low:.2f} to {latency.ratio_high:.2f})"
            )
        if best is None or (latency and best[1] and latency.ratio < best[1].ratio):
            best = candidate, latency
    passed, reason = _verdict(best, target, limits, search.failure)
    chosen = best[0].names if best else frozenset()
    if passed and best:
        write_atomically(out, finished_int8(best[0].model, graph.base, target, reason))
    macs = {layer.name: layer.macs for layer in graph.layers}
    return QuantisedEncoder(
        target=target,
        passed=passed,
        reason=reason,
        method=method,
        method_losses=search.method_losses,
        layers=tuple(
            QuantisedLayer(
                name=layer.name,
                kind=layer.kind,
                macs=layer.macs,
                int8=layer.name in chosen,
                loss=search.losses.get(layer.name),
            )
            for layer in graph.layers
        ),
        int8_macs_fraction=sum(macs[name] for name in chosen) / max(sum(macs.values()), 1),
        report=best[0].report if best else None,
        latency=best[1] if best else None,
        reduce_range=reduce,
        fp32_bytes=fp32.stat().st_size,
        int8_bytes=out.stat().st_size if passed else None,
    )


def _verdict(
    best: tuple[Candidate, PairedLatency | None] | None,
    target: Int8Target,
    limits: Int8Limits,
    failure: str,
) -> tuple[bool, str]:
    if best is None:
        return False, (
            f"no choice of layers with {limits.min_macs_fraction:.0%} of the arithmetic passes the "
            f"gates; the last one: {failure}"
        )
    candidate, latency = best
    gates = f"lowest cosine {candidate.report.min_cosine:.4f}"
    if latency is None:
        return True, f"passes the gates ({gates}); speed on {target} was not measured here"
    took = (
        f"INT8 takes x{latency.ratio:.2f} of FP32's time on ONNX Runtime CPU, {latency.threads} "
        f"threads (95 % interval {latency.ratio_low:.2f} to {latency.ratio_high:.2f})"
    )
    if not latency.ratio_high <= limits.max_time_ratio:
        return False, f"{took}; expected at most {limits.max_time_ratio}: FP32 flies as fast"
    return True, f"passes the gates ({gates}); {took}"


def finished_int8(model: ModelProto, base: Path, target: Int8Target, reason: str) -> bytes:
    """A quantised graph as a file: with every type and shape, which the quantiser leaves out.

    Args:
        model: with Q/DQ; changed.
        base: the file that was quantised, whose metadata it keeps.
        target: which backend it is for.
        reason: what the metadata says of INT8.

    Returns:
        The file's bytes, checked by ONNX.
    """
    source = onnx.load(base, load_external_data=False)
    metadata = {entry.key: entry.value for entry in source.metadata_props}
    metadata |= {"skyfix.precision": "int8", "skyfix.int8_target": target, "skyfix.int8": reason}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    del model.opset_import[:]
    model.opset_import.extend(source.opset_import)
    model.producer_name = source.producer_name
    made = {name for node in model.graph.node for name in node.output}
    del model.graph.value_info[:]  # What the exporter wrote names the batch; only pairs lack it.
    model.graph.value_info.extend(v for v in source.graph.value_info if v.name in made)
    model = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=True
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _time(
    fp32: Path, model: ModelProto, images: U8, limits: Int8Limits, threads: int | None
) -> PairedLatency:
    threads = threads or os.cpu_count() or 1
    base, other = open_session(str(fp32), threads), open_session(model.SerializeToString(), threads)
    image = {"images": images[:1]}
    return paired_latency(
        lambda: base.run(None, image),
        lambda: other.run(None, image),
        threads=threads,
        rounds=limits.rounds,
    )


def has_vnni(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU adds products of bytes without overflow (AVX-VNNI, or it is not x86).

    Unknown counts as no: 7-bit weights are right everywhere.
    """
    import platform

    if platform.machine().lower() in ("aarch64", "arm64"):
        return True  # Their kernels add in 32 bits.
    try:
        flags = cpu_info.read_text()
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags
