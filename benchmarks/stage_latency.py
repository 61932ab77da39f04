"""How long the stages of a frame took, as flights logged them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.rows import Provenance, provenance
from benchmarks.time_summary import TimeSummary, time_summary
from edge_runtime.fix import STAGES, Fix


@dataclass(frozen=True, kw_only=True)
class StageRow(Provenance):
    """Latency of one stage over all frames of a log, the first one included."""

    kind: Literal["stage_latency"] = "stage_latency"
    flight: str
    stage: str
    """One of capture, ground_view, encode, search, refine, track, total."""
    time: TimeSummary
    """Of the frames that have a time for this stage, in the log's order."""
    deadline_missed: int
    """Frames of the log that missed their deadline."""
    device: str
    """Machine the log was made on, as the caller says; logs do not hold it."""
    bundle_id: str
    index_id: str
    engine_id: str
    """Provider that really ran and precision."""
    backend: str


def stage_rows(fixes: Sequence[Fix], flight: str, *, device: str = "") -> list[StageRow]:
    """One row per stage that any frame has a time for.

    Args:
        fixes: the log, every frame of it.
        flight: name of the log.
        device: machine it was made on, when known.
    """
    made_by = provenance()
    missed = sum(fix.deadline_missed for fix in fixes)
    rows = []
    for stage in STAGES:
        times_ms = [fix.latency_ms[stage] for fix in fixes if stage in fix.latency_ms]
        if not times_ms:
            continue
        rows.append(
            StageRow(
                **made_by,
                flight=flight,
                stage=stage,
                time=time_summary(times_ms, first_ms=times_ms[0]),
                deadline_missed=missed,
                device=device,
                bundle_id=fixes[0].bundle_id,
                index_id=fixes[0].index_id,
                engine_id=fixes[0].engine_id,
                backend=fixes[0].backend,
            )
        )
    return rows
