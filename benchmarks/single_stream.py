"""SingleStream: one query of one sample after the other, judged by its 90th percentile.

The MLPerf inference rules (mlcommons/inference_policies, inference_rules.adoc, section "Scenarios")
ask for 600 seconds since version 1, and "90%-ile early-stopping latency estimate"; version 0.5 of
September 2019 asked for "1024 queries and 60 seconds" and "90%-ile measured latency", which are the
defaults here. `benchmarks.query_stream` says what is measured and how.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.backends.protocol import BackendName
from edge_runtime.precision import Precision

if TYPE_CHECKING:
    from benchmarks.stream_plan import StreamPlan

SECONDS = 60.0
MLPERF_SECONDS = 600.0
QUERIES = 1024
PERCENTILE = 90
"""What the scenario is judged by."""


def single_stream(
    bundle: Path,
    *,
    seconds: float = SECONDS,
    queries: int = QUERIES,
    backend: BackendName = "auto",
    precision: Precision | None = None,
    threads: int | None = None,
    photographs: Path | None = None,
    samples: int = 1024,
    seed: int = 0,
    run: int = 0,
) -> "StreamPlan":
    """A plan of SingleStream; `StreamPlan` says what the arguments are."""
    from benchmarks.stream_plan import StreamPlan

    return StreamPlan(
        bundle=bundle,
        scenario="single-stream",
        samples_per_query=1,
        seconds=seconds,
        queries=queries,
        backend=backend,
        precision=precision,
        threads=threads,
        photographs=photographs,
        samples=samples,
        seed=seed,
        run=run,
    )
