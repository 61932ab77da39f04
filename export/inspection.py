"""What an exported encoder consists of and what it costs, as text and as data.

Every precision of a bundle beside the others, or any one ONNX file. Needs no torch and no GPU.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_runtime.bundle import Bundle
from edge_runtime.errors import InputError
from edge_runtime.precision import PRECISIONS
from export.graph_costs import Cost, GraphCosts, graph_costs
from export.roofline import DEVICES, THIS_MACHINE, Arithmetic, Device, device_named, roofline_ms

DEVICE_NAMES: tuple[str, ...] = (*(device.name for device in DEVICES), THIS_MACHINE)
"""What `--device` takes, and all of them are shown by default."""
_WHAT_IF: tuple[Arithmetic, ...] = ("fp32", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class PartSummary:
    """A part of a network, such as a stage: its fused kernels added up."""

    name: str
    kernels: int
    """Kernels left when pointwise nodes, transposes and norms join what feeds them."""
    precisions: dict[str, float]
    """Fraction of the multiply-accumulates in each precision; of the kernels where there are none.
    """
    parameters: int
    macs: int
    flops: int
    weight_bytes: int
    read_bytes: int
    """Activations read."""
    written_bytes: int
    """Activations written."""
    flops_a_byte: float
    """Arithmetic intensity of the fused kernels."""


@dataclass(frozen=True, kw_only=True)
class DeviceEstimate:
    """Roofline latencies on one device, ms for the batch: lower bounds, not measurements."""

    device: str
    source: str
    """Where its ceilings are from."""
    peak_tflops: dict[str, float]
    bandwidth_gb_s: float
    fused_ms: float | None
    """As the file is; None where the device has no peak for a precision in it."""
    unfused_ms: float | None
    """The same with every node moving its own inputs and outputs."""
    fused_all_ms: dict[str, float | None]
    """If all floating-point numbers and arithmetic were of this precision."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """One ONNX file."""

    file: str
    file_bytes: int
    batch: int
    nodes: dict[str, int]
    """How many of each operator, most frequent first; views and arithmetic on shapes left out."""
    uncounted: tuple[str, ...]
    """Operators whose arithmetic is not counted."""
    whole: PartSummary
    unfused_bytes: int
    """All bytes moved when nothing is fused."""
    parts: tuple[PartSummary, ...]
    """In the order of the network; input and output are the frame around the body."""
    estimates: tuple[DeviceEstimate, ...]
    costs: tuple[Cost, ...]
    """Of every node by itself, under its name in the file."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def inspect_encoder(
    path: Path, *, batch: int = 1, devices: Sequence[str] = DEVICE_NAMES
) -> tuple[Inspection, ...]:
    """Inspect a bundle or one ONNX file.

    Args:
        path: a bundle folder, of which every precision is inspected, or an ONNX file.
        batch: images at once.
        devices: names out of `DEVICE_NAMES`; "this machine" is measured, which takes a second.

    Raises:
        InputError: no such device, not an ONNX file, or a shape depends on the data.
        BundleError: not a bundle, or altered.
    """
    chosen = [device_named(name) for name in devices]
    if path.is_dir():
        bundle = Bundle.open(path)
        files = [bundle.onnx_path(p) for p in PRECISIONS if p in bundle.precisions]
    elif path.is_file():
        files = [path]
    else:
        msg = f"{path} is not there; expected a bundle folder or an ONNX file"
        raise InputError(msg)
    return tuple(_inspect_file(file, batch, chosen) for file in files)


def _inspect_file(path: Path, batch: int, devices: Sequence[Device]) -> Inspection:
    costs = graph_costs(path, batch=batch)
    external = sum(f.stat().st_size for f in path.parent.glob(f"{path.name}.data"))
    by_part: dict[str, list[Cost]] = {}
    for kernel in costs.kernels:
        by_part.setdefault(kernel.part, []).append(kernel)
    return Inspection(
        file=str(path),
        file_bytes=path.stat().st_size + external,
        batch=batch,
        nodes=dict(Counter(cost.ops[0] for cost in costs.nodes).most_common()),
        uncounted=costs.uncounted,
        whole=_summary("all", costs.kernels, parameters=costs.parameters),
        unfused_bytes=sum(cost.moved_bytes() for cost in costs.nodes),
        parts=tuple(_summary(name, kernels) for name, kernels in by_part.items()),
        estimates=tuple(_estimate(costs, device) for device in devices),
        costs=costs.nodes,
    )


def _summary(name: str, kernels: Sequence[Cost], *, parameters: int | None = None) -> PartSummary:
    macs = sum(kernel.macs for kernel in kernels)
    shares: Counter[str] = Counter()
    for kernel in kernels:
        shares[kernel.precision] += kernel.macs if macs else 1
    total = sum(shares.values())
    flops = sum(kernel.flops for kernel in kernels)
    moved = sum(kernel.moved_bytes() for kernel in kernels)
    return PartSummary(
        name=name,
        kernels=len(kernels),
        precisions={kind: count / total for kind, count in shares.most_common() if count},
        parameters=sum(k.parameters for k in kernels) if parameters is None else parameters,
        macs=macs,
        flops=flops,
        weight_bytes=sum(kernel.weights.bytes for kernel in kernels),
        read_bytes=sum(kernel.read.bytes for kernel in kernels),
        written_bytes=sum(kernel.written.bytes for kernel in kernels),
        flops_a_byte=flops / moved if moved else 0.0,
    )


def _estimate(costs: GraphCosts, device: Device) -> DeviceEstimate:
    return DeviceEstimate(
        device=device.name,
        source=device.source,
        peak_tflops=dict(device.peak_tflops),
        bandwidth_gb_s=device.bandwidth_gb_s,
        fused_ms=roofline_ms(costs.kernels, device),
        unfused_ms=roofline_ms(costs.nodes, device),
        fused_all_ms={
            kind: roofline_ms(costs.kernels, device, precision=kind) for kind in _WHAT_IF
        },
    )


def as_text(inspections: Sequence[Inspection], *, nodes: bool = False) -> str:
    """Tables for a terminal, one file after the other and all of them side by side at the end.

    Args:
        inspections: of one bundle, or of one file.
        nodes: list every node too.
    """
    blocks = []
    for inspection in inspections:
        blocks.append(_file_text(inspection))
        if nodes:
            blocks.append(_nodes_text(inspection))
    blocks.append(_devices_text(inspections))
    return "\n\n".join(blocks)


def _file_text(inspection: Inspection) -> str:
    whole = inspection.whole
    ops = ", ".join(f"{op} {count}" for op, count in inspection.nodes.items())
    lines = [
        f"{inspection.file}: {inspection.file_bytes / 1e6:.1f} MB, batch {inspection.batch}",
        f"{sum(inspection.nodes.values())} nodes ({ops}),",
        f"{whole.kernels} kernels when fused; moved {_moved(whole) / 1e6:.1f} MB fused, "
        f"{inspection.unfused_bytes / 1e6:.1f} MB unfused",
    ]
    if inspection.uncounted:
        lines.append(f"not counted: arithmetic of {', '.join(inspection.uncounted)}")
    header = ["part", "kernels", "arithmetic", "parameters", "MMAC"]
    header += ["weights kB", "read kB", "written kB", "FLOP/byte"]
    rows = [header]
    for part in (*inspection.parts, whole):
        rows.append(
            [
                part.name,
                str(part.kernels),
                _shares(part.precisions),
                f"{part.parameters:,}",
                f"{part.macs / 1e6:,.1f}",
                f"{part.weight_bytes / 1e3:,.0f}",
                f"{part.read_bytes / 1e3:,.0f}",
                f"{part.written_bytes / 1e3:,.0f}",
                f"{part.flops_a_byte:.1f}",
            ]
        )
    return "\n".join([*lines, "", *_aligned(rows, left=(0, 2))])


def _nodes_text(inspection: Inspection) -> str:
    rows = [["node", "operator", "arithmetic", "parameters", "MMAC", "weights kB", "moved kB"]]
    rows += [
        [
            cost.name,
            cost.ops[0],
            cost.precision,
            f"{cost.parameters:,}",
            f"{cost.macs / 1e6:,.1f}",
            f"{cost.weights.bytes / 1e3:,.0f}",
            f"{cost.moved_bytes() / 1e3:,.0f}",
        ]
        for cost in inspection.costs
    ]
    return "\n".join(_aligned(rows, left=(0, 1, 2)))


def _devices_text(inspections: Sequence[Inspection]) -> str:
    """Latency: a bundle's files beside each other; a single file beside what it could be."""
    first = inspections[0]
    single = len(inspections) == 1
    what_if = _WHAT_IF if single and "int8" not in first.whole.precisions else ()
    header = ["device", "GB/s"]
    for inspection in inspections:
        name = "as it is" if single else Path(inspection.file).stem.removeprefix("encoder.")
        header += [name, f"{name}, unfused"]
    header += [f"all {kind}" for kind in what_if]
    rows = [header]
    for k, estimate in enumerate(first.estimates):
        row = [estimate.device, f"{estimate.bandwidth_gb_s:,.0f}"]
        for inspection in inspections:
            of_file = inspection.estimates[k]
            row += [_ms(of_file.fused_ms), _ms(of_file.unfused_ms)]
        row += [_ms(estimate.fused_all_ms[kind]) for kind in what_if]
        rows.append(row)
    return "\n".join(
        [
            f"Roofline, ms for a batch of {first.batch}: no kernel is faster than this on the "
            "device; real ones are slower.",
            *_aligned(rows, left=(0,)),
            "fp32 is without TF32. -: the device has no figure for that arithmetic. To measure: "
            "python -m benchmarks latency",
        ]
    )


def _moved(part: PartSummary) -> int:
    return part.weight_bytes + part.read_bytes + part.written_bytes


def _shares(precisions: dict[str, float]) -> str:
    if len(precisions) == 1:
        return next(iter(precisions))
    return ", ".join(f"{kind} {share:.0%}" for kind, share in precisions.items())


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value < 1 else f"{value:.1f}"


def _aligned(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
