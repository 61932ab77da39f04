"""Gates an exported encoder must pass before it ships.

In order: finite, unit length, not constant, cosine to the trained encoder, same nearest
neighbours. (Structure is checked where the file is written.)

A NaN or a constant embedding fails every gate: comparisons are written so that NaN is a failure
and ranks count ties as misses.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.backends.protocol import MAX_LENGTH_ERROR, PROBE_MIN_COSINE, length_error
from edge_runtime.bundle import Precision
from edge_runtime.errors import GateError

F32 = npt.NDArray[np.float32]

MIN_TOP1_AGREEMENT = 0.97
"""Fraction of probes whose nearest other probe must be the trained encoder's choice."""
MIN_SPREAD = 1e-3
"""Embeddings of different images must differ by at least this in some coordinate."""


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """What the gates measured for one precision."""

    precision: Precision
    probes: int
    min_cosine: float
    p1_cosine: float
    """1st percentile over the probes."""
    top1_agreement: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return asdict(self)


def run_gates(found: F32, reference: F32, precision: Precision) -> GateReport:
    """Compare exported embeddings with the trained encoder's.

    Args:
        found: (P, D) from the exported file.
        reference: (P, D) from the trained encoder, unit length.
        precision: of the exported file.

    Returns:
        What was measured.

    Raises:
        GateError: the first gate that fails, with the measured value and the limit.
    """
    if found.shape != reference.shape or len(found) < 4:
        msg = (
            f"{precision}: embeddings {found.shape}, reference {reference.shape}; need >= 4 probes"
        )
        raise GateError(msg)
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found).all(axis=1)).sum())
        msg = f"{precision}: {bad} of {len(found)} probes gave a non-finite embedding"
        raise GateError(msg)
    off = length_error(found)
    if off > MAX_LENGTH_ERROR:
        msg = (
            f"{precision}: the length of an embedding is off by {off:.1e}, expected unit length "
            f"within {MAX_LENGTH_ERROR}; does the encoder normalise?"
        )
        raise GateError(msg)
    spread = float(np.ptp(found, axis=0).max())
    if not spread >= MIN_SPREAD:
        msg = (
            f"{precision}: embeddings of different probes differ by at most {spread:.1e}: constant"
        )
        raise GateError(msg)
    cosine = np.sum(found * reference, axis=1)
    limit = PROBE_MIN_COSINE[precision]
    lowest = float(cosine.min())
    if not lowest >= limit:
        msg = f"{precision}: lowest cosine to the trained encoder {lowest:.6f}, expected >= {limit}"
        raise GateError(msg)
    agreement = float(np.mean(_nearest_other(found) == _nearest_other(reference)))
    if not agreement >= MIN_TOP1_AGREEMENT:
        msg = (
            f"{precision}: {agreement:.1%} of the probes keep their nearest neighbour, "
            f"expected >= {MIN_TOP1_AGREEMENT:.0%}"
        )
        raise GateError(msg)
    return GateReport(
        precision=precision,
        probes=len(found),
        min_cosine=lowest,
        p1_cosine=float(np.percentile(cosine, 1)),
        top1_agreement=agreement,
    )


def _nearest_other(embeddings: F32) -> npt.NDArray[np.int64]:
    """(P,) the nearest other row; -1 where the two nearest tie."""
    similarity = embeddings.astype(np.float64) @ embeddings.T.astype(np.float64)
    np.fill_diagonal(similarity, -np.inf)
    best = np.argmax(similarity, axis=1)
    top2 = np.sort(similarity, axis=1)[:, -2:]
    return np.where(top2[:, 1] > top2[:, 0], best, -1).astype(np.int64)
