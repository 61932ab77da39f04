"""MultiStream: one query of eight samples after the other, judged by its 99th percentile.

The MLPerf inference rules (mlcommons/inference_policies, inference_rules.adoc, section "Scenarios")
ask for 600 seconds, 8 samples a query and "99%-ile early-stopping latency estimate"; as many
queries as the early stopping wants, 270,336 without it (table "Tail Latency Percentile"). Here the
percentile is exact and the queries at least 1,024, of which ten are slower than the 99th
percentile. `benchmarks.query_stream` says what is measured and how.
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
SAMPLES_PER_QUERY = 8
PERCENTILE = 99
"""What the scenario is judged by."""


def multi_stream(
    bundle: Path,
    *,
    samples_per_query: int = SAMPLES_PER_QUERY,
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
    """A plan of MultiStream; `StreamPlan` says what the arguments are."""
    from benchmarks.stream_plan import StreamPlan

    return StreamPlan(
        bundle=bundle,
        scenario="multi-stream",
        samples_per_query=samples_per_query,
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
