"""Gates an encoder passes before it ships and again before it flies.

Every precision and every engine goes through the same ones, in this order: finite, unit length, not
constant, cosine to the trained encoder (lowest and 1st percentile), same nearest neighbours, and,
where a satellite index is at hand, recall and metres on it (`edge_runtime.index_gate`). Structure
is checked where an ONNX file is written. All limits are in `GATE_LIMITS`.

A NaN or a constant embedding fails every gate: comparisons are written so that NaN is a failure
and ranks count ties as misses.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import GateError
from edge_runtime.precision import Precision

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Embed = Callable[[U8], F32]
"""(N, H, W, 3) uint8 RGB images to (N, D) float32 embeddings."""


@dataclass(frozen=True, kw_only=True)
class GateLimits:
    """What a precision must reach. Cosines and agreements are with the trained encoder."""

    min_cosine: float
    """Of any probe."""
    p1_cosine: float
    """1st percentile over the probes."""
    top1_agreement: float
    """Fraction of probes that keep their nearest other probe."""
    top5_agreement: float
    """Mean fraction of a probe's five nearest that stay among its five nearest."""
    recall_drop: float
    """Recall@1 and @10 on the user's index may fall by so much (a fraction of the queries)."""
    success_drop: float
    """So may the fraction of queries whose first tile lies within 20 m."""


GATE_LIMITS: dict[Precision, GateLimits] = {
    "fp32": GateLimits(
        min_cosine=0.9999,
        p1_cosine=0.9999,
        top1_agreement=0.97,
        top5_agreement=0.95,
        recall_drop=0.005,
        success_drop=0.005,
    ),
    "fp16": GateLimits(
        min_cosine=0.9995,
        p1_cosine=0.9997,
        top1_agreement=0.97,
        top5_agreement=0.9,
        recall_drop=0.01,
        success_drop=0.01,
    ),
    "int8": GateLimits(
        min_cosine=0.98,
        p1_cosine=0.985,
        top1_agreement=0.9,
        top5_agreement=0.8,
        recall_drop=0.02,
        success_drop=0.02,
    ),
}
"""FP32 leaves room for another library's order of summation and for TF32 on GPUs."""
MAX_LENGTH_ERROR = 1e-3
"""Embeddings must have unit length within this: only then is a scalar product a cosine."""
MIN_SPREAD = 1e-3
"""Embeddings of different images must differ by at least this in some coordinate."""
MIN_PROBES = 4


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """What the gates measured for one precision."""

    precision: Precision
    probes: int
    min_cosine: float
    p1_cosine: float
    """1st percentile over the probes."""
    top1_agreement: float
    top5_agreement: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return asdict(self)


def gate_encoder(
    embed: Embed,
    images: U8,
    reference: F32,
    precision: Precision,
    *,
    where: str = "",
    batches: Sequence[int] = (1,),
) -> GateReport:
    """Embed the probes at every batch size and compare them with the trained encoder's answers.

    Args:
        embed: the encoder as it will run.
        images: (P, H, W, 3) uint8 RGB probes.
        reference: (P, D) embeddings by the trained encoder, unit length.
        precision: what the encoder computes in: its limits apply.
        where: begins every message; the precision by default.
        batches: images a call; all probes go one by one, one batch of each larger size.

    Returns:
        The report of the batch size with the lowest cosine.

    Raises:
        GateError: the first gate that fails, with the measured value, the limit and, where one is
            found, the fault that explains it.
    """
    reports = []
    for batch in batches:
        # One batch of a size is enough to see that its images do not get into each other's way.
        count = len(images) if batch == 1 else min(len(images), max(batch, MIN_PROBES))
        parts = [embed(images[k : min(k + batch, count)]) for k in range(0, count, batch)]
        name = where or precision
        try:
            reports.append(
                run_gates(
                    np.concatenate(parts),
                    reference[:count],
                    precision,
                    where=name if batch == 1 else f"{name}, batches of {batch}",
                )
            )
        except GateError as error:
            fault = likely_fault(embed, images, reference, GATE_LIMITS[precision].min_cosine)
            if fault is None:
                raise
            msg = f"{error}. {fault} agrees with it: that is the fault to look for"
            raise GateError(msg) from error
    return min(reports, key=lambda report: report.min_cosine)


def run_gates(found: F32, reference: F32, precision: Precision, *, where: str = "") -> GateReport:
    """Compare embeddings with the trained encoder's.

    Args:
        found: (P, D) from the encoder as it will run.
        reference: (P, D) from the trained encoder, unit length.
        precision: whose limits apply.
        where: begins every message; the precision by default.

    Returns:
        What was measured.

    Raises:
        GateError: the first gate that fails, with the measured value and the limit.
    """
    where = where or precision
    limits = GATE_LIMITS[precision]
    if found.shape != reference.shape or len(found) < MIN_PROBES:
        msg = (
            f"{where}: embeddings {found.shape}, reference {reference.shape}; expected the same "
            f"shape and at least {MIN_PROBES} probes"
        )
        raise GateError(msg)
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found).all(axis=1)).sum())
        msg = f"{where}: {bad} of {len(found)} probes gave a non-finite embedding"
        raise GateError(msg)
    off = length_error(found)
    if off > MAX_LENGTH_ERROR:
        msg = (
            f"{where}: the length of an embedding is off by {off:.1e}, expected unit length "
            f"within {MAX_LENGTH_ERROR}: the encoder does not normalise"
        )
        raise GateError(msg)
    spread = float(np.ptp(found, axis=0).max())
    if not spread >= MIN_SPREAD:
        msg = f"{where}: embeddings of different probes differ by at most {spread:.1e}: constant"
        raise GateError(msg)
    cosine = np.sum(found * reference, axis=1, dtype=np.float64)
    top1, top5 = _agreement(found, reference)
    report = GateReport(
        precision=precision,
        probes=len(found),
        min_cosine=float(cosine.min()),
        p1_cosine=float(np.percentile(cosine, 1)),
        top1_agreement=top1,
        top5_agreement=top5,
    )
    for what, measured, limit in _measured(report, limits):
        if not measured >= limit:
            msg = f"{where}: {what} {measured:.6g}, expected >= {limit}"
            raise GateError(msg)
    return report


def _measured(report: GateReport, limits: GateLimits) -> Iterator[tuple[str, float, float]]:
    yield "lowest cosine to the trained encoder", report.min_cosine, limits.min_cosine
    yield "1st percentile of the cosine to it", report.p1_cosine, limits.p1_cosine
    yield (
        "fraction of probes that keep their nearest neighbour",
        report.top1_agreement,
        limits.top1_agreement,
    )
    yield (
        "fraction of the five nearest neighbours that probes keep",
        report.top5_agreement,
        limits.top5_agreement,
    )


def likely_fault(embed: Embed, images: U8, reference: F32, min_cosine: float) -> str | None:
    """The input fault that explains a wrong encoder, found by undoing it; None if none does.

    An encoder whose channels were swapped at export answers rightly where the images' channels are
    swapped too, and so on.
    """
    few = slice(0, MIN_PROBES)
    undone: dict[str, U8] = {
        "The encoder given BGR in place of RGB": images[few, ..., ::-1],
        "The encoder given images upside down": images[few, ::-1],
        "The encoder given mirrored images": images[few, :, ::-1],
    }
    if images.shape[1] == images.shape[2]:
        undone["The encoder given images with rows and columns exchanged"] = images[few].transpose(
            0, 2, 1, 3
        )
    for name, changed in undone.items():
        found = embed(np.ascontiguousarray(changed))
        if found.shape != reference[few].shape:
            return None
        cosine = np.sum(found * reference[few], axis=1)
        sound = length_error(found) <= MAX_LENGTH_ERROR and np.ptp(found, axis=0).max() > MIN_SPREAD
        if sound and cosine.min() >= min_cosine:
            return name
    return None


def length_error(embeddings: F32) -> float:
    """Largest deviation of any embedding's length from one."""
    return float(np.abs(np.linalg.norm(embeddings, axis=1) - 1.0).max())


def _agreement(found: F32, reference: F32) -> tuple[float, float]:
    """Fractions of nearest and of five nearest neighbours kept; ties never count as kept."""
    of_found, of_reference = _nearest_others(found), _nearest_others(reference)
    top1 = np.mean((of_found[:, 0] == of_reference[:, 0]) & (of_found[:, 0] >= 0))
    kept = [
        len(np.intersect1d(a[a >= 0], b[b >= 0]))
        for a, b in zip(of_found, of_reference, strict=True)
    ]
    return float(top1), float(np.mean(kept)) / of_found.shape[1]


def _nearest_others(embeddings: F32) -> npt.NDArray[np.int64]:
    """(P, K) each row's K nearest others, nearest first; -1 where its similarity is tied.

    K is five, or all others but one where there are fewer.
    """
    similarity = embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")
    ranked = np.take_along_axis(similarity, order, axis=1)
    k = min(5, len(embeddings) - 2)
    tied = ranked[:, :k] == ranked[:, 1 : k + 1]
    tied[:, 1:] |= tied[:, :-1]
    return np.where(tied, -1, order[:, :k]).astype(np.int64)
