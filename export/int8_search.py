"""The search for layers that INT8 may have: measured one by one, left in float until gates pass."""

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto
from onnxruntime.quantization.calibrate import TensorsData

from edge_runtime.errors import GateError
from edge_runtime.gates import GATE_LIMITS, GateReport, run_gates
from export.qdq_graph import QdqGraph, RangeMethod

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Say = Callable[[str], None]

_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Int8Limits:
    """How far the search goes, and what makes INT8 worth having."""

    max_time_ratio: float = 0.95
    """INT8 time by FP32 time, upper end of the 95 % interval."""
    min_macs_fraction: float = 0.25
    """With fewer of the multiply-accumulates in INT8 nothing is left to gain."""
    headroom: float = 0.2
    """The search stops this part of the way from the gates' cosines to one: other images vary."""
    sweep_s: float = 300.0
    """Time for measuring layers one by one; those not reached count as the median of the others."""
    rounds: int = 60
    """Calls of each encoder when they are timed."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A choice of layers that passed."""

    names: frozenset[str]
    model: ModelProto
    report: GateReport


class Int8Search:
    """Finds layers that INT8 may have."""

    def __init__(
        self,
        graph: QdqGraph,
        fp32: Path,
        calibration: U8,
        held_out: U8,
        limits: Int8Limits,
        say: Say,
    ) -> None:
        self.graph, self.calibration, self.held_out = graph, calibration, held_out
        self.limits, self.say = limits, say
        self.reference = embed(str(fp32), held_out)
        self.macs = {layer.name: layer.macs for layer in graph.layers}
        self.losses: dict[str, float] = {}
        self.method_losses: dict[RangeMethod, float] = {}
        self.failure = ""
        self.ranges: TensorsData | None = None

    def choose_ranges(self, methods: Sequence[RangeMethod]) -> RangeMethod:
        """The method with the lowest loss when every layer is in INT8."""
        ranges: dict[RangeMethod, TensorsData] = {}
        everything = frozenset(self.macs)
        for method in methods:
            ranges[method] = self.graph.ranges(self.calibration, method)
            found = self._embed(self.graph.with_int8(everything, ranges[method]))
            self.method_losses[method] = self._loss(found)
            self.say(f"int8, ranges by {method}: mean loss {self.method_losses[method]:.5f}")
        best = min(self.method_losses, key=lambda method: self.method_losses[method])
        self.ranges = ranges[best]
        return best

    def passing(self, plan: Collection[str]) -> Candidate | None:
        """The plan without as few of its most sensitive layers as it takes to pass the gates."""
        whole = self._try(plan)
        if whole is not None:
            return whole
        self._sweep()
        typical = float(np.median(list(self.losses.values())))
        order = sorted(plan, key=lambda name: -self.losses.get(name, typical))
        fails, passes, best = 0, 1, None
        while best is None:  # Twice as many out each time, until it passes …
            kept = frozenset(order[passes:])
            if self._macs_fraction(kept) < self.limits.min_macs_fraction:
                return None
            best = self._try(kept)
            if best is None:
                fails, passes = passes, 2 * passes
        while passes - fails > 1:  # … and then halfway between, for the fewest.
            middle = (fails + passes) // 2
            candidate = self._try(frozenset(order[middle:]))
            if candidate is None:
                fails = middle
            else:
                passes, best = middle, candidate
        return best

    def _macs_fraction(self, names: Collection[str]) -> float:
        return sum(self.macs[name] for name in names) / max(sum(self.macs.values()), 1)

    def _try(self, names: Collection[str]) -> Candidate | None:
        assert self.ranges is not None
        model = self.graph.with_int8(names, self.ranges)
        found = self._embed(model)
        try:
            report = run_gates(found, self.reference, "int8")
        except GateError as error:
            self.failure = str(error)
            return None
        gates = GATE_LIMITS["int8"]
        for what, measured, limit in (
            ("lowest cosine", report.min_cosine, gates.min_cosine),
            ("1st percentile of the cosine", report.p1_cosine, gates.p1_cosine),
        ):
            wanted = 1 - (1 - limit) * (1 - self.limits.headroom)
            if not measured >= wanted:
                self.failure = f"{what} {measured:.5f}, expected >= {wanted:.5f} with headroom"
                return None
        return Candidate(names=frozenset(names), model=model, report=report)

    def _sweep(self) -> None:
        """Measure what each layer alone loses; once, within its time."""
        if self.losses:
            return
        assert self.ranges is not None
        began = time.monotonic()
        # Large steps first, so that a sweep cut short has seen all depths of the network.
        order = sorted(range(len(self.graph.layers)), key=lambda k: f"{k:012b}"[::-1])
        for k in order:
            name = self.graph.layers[k].name
            if self.losses and time.monotonic() - began > self.limits.sweep_s:
                break
            self.losses[name] = self._loss(self._embed(self.graph.with_int8([name], self.ranges)))
        worst = sorted(self.losses, key=lambda name: -self.losses[name])[:3]
        self.say(
            f"int8: {len(self.losses)} of {len(order)} layers measured alone in "
            f"{time.monotonic() - began:.0f} s; most sensitive: "
            + ", ".join(f"{name} {self.losses[name]:.4f}" for name in worst)
        )

    def _embed(self, model: ModelProto) -> F32:
        data: bytes = model.SerializeToString()
        return embed(data, self.held_out, fuse_pairs=self.graph.target == "cpu")

    def _loss(self, found: F32) -> float:
        """Mean of 1 - cosine; one where an embedding is not finite."""
        if not np.isfinite(found).all():
            return 1.0
        return float(1 - np.sum(found * self.reference, axis=1, dtype=np.float64).mean())


def open_session(
    model: str | bytes, threads: int, *, fuse_pairs: bool = True
) -> onnxruntime.InferenceSession:
    """An encoder's file or bytes on ONNX Runtime's CPU provider.

    Args:
        model: file or its bytes.
        threads: CPU threads.
        fuse_pairs: let Q/DQ pairs become integer kernels. Files for TensorRT are judged without:
            each pair is then computed as it is written. ONNX Runtime 1.32 also fuses pairs around
            FP16 wrongly (cosine 0.21 where the graph as written has 0.99).
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if not fuse_pairs:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(
        model, sess_options=options, providers=["CPUExecutionProvider"]
    )


def embed(model: str | bytes, images: U8, *, fuse_pairs: bool = True) -> F32:
    """Embeddings (N, D) of images (N, H, W, 3) by a file or bytes; see `open_session`."""
    session = open_session(model, os.cpu_count() or 1, fuse_pairs=fuse_pairs)
    parts = [
        session.run(["embeddings"], {"images": images[k : k + _BATCH]})[0]
        for k in range(0, len(images), _BATCH)
    ]
    return np.concatenate(parts).astype(np.float32)
