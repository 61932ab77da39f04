"""Queries one after the other on one encoder: samples, order, accuracy apart, and the row.

Shared by `single_stream` and `multi_stream`, after the MLPerf inference rules (mlcommons/
inference_policies, inference_rules.adoc; sections "Scenarios", "Benchmarks", "LoadGen Operation"):

* "LoadGen sends next query, as soon as SUT completes the previous query".
* "LoadGen will select queries uniformly at random (with replacement) from a test set", from "a
  fixed random seed and deterministic generator".
* "LoadGen stops generating queries as soon as the benchmark-specific minimum number of queries have
  been generated and the benchmark specific minimum time has elapsed": both must be reached.
* "LoadGen validates accuracy via a separate test run that use each sample in the test library
  exactly once but is otherwise identical".
* "All samples in a query will be allocated contiguously in memory".

Where ours differ, so no number here is an MLPerf result: percentiles are nearest-rank over all
queries, without the rules' early-stopping estimate, which makes short runs look a little slower;
the load generator is ours; accuracy is agreement with the trained encoder in FP32.

**What is inside the clock**: `Backend.embed`, from uint8 images in host memory, at the encoder's
size, to float32 embeddings in host memory. Nothing is cached between queries.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from benchmarks.clock_cost import CLOCK_NS, ClockNs, clock_cost_ns
from benchmarks.compare.pairing import ANY_PRECISION
from benchmarks.latency import asked_words, encoder_name, measurement_row
from benchmarks.machine import WorkWatch, machine
from benchmarks.measurement import MeasurementRow, NotRunRow
from benchmarks.memory_use import MemoryWatch
from benchmarks.resuming import MeasuredRows, Row
from benchmarks.rows import provenance
from benchmarks.stream_plan import StreamPlan
from benchmarks.stream_samples import PROBES, accuracy_run, samples_of
from benchmarks.timing import TimedCalls, timed_for
from edge_runtime.backends.protocol import open_backend
from edge_runtime.bundle import Bundle

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

WARMUP_QUERIES = 20
_ORDER = 100_000
"""Queries that are drawn ahead; then their order comes again."""
_LAID_OUT_BYTES = 2**26
"""Of queries of several samples: far more than any cache holds."""


def measure_stream(plan: StreamPlan, *, clock_ns: ClockNs = CLOCK_NS) -> MeasurementRow:
    """Open an encoder, run for accuracy, run for speed, close it.

    Memory is that of the calling process: give each run one of its own.

    Args:
        plan: what to run.
        clock_ns: a monotonic clock, nanoseconds.

    Raises:
        SkyfixError: the backend or precision is not available here, or there are no samples.
    """
    bundle = Bundle.open(plan.bundle)
    if plan.precision is not None:
        bundle.onnx_path(plan.precision)  # What is not there needs no samples.
    samples = samples_of(plan, bundle)
    work = WorkWatch()
    watch = MemoryWatch()
    start_ns = clock_ns()
    backend = open_backend(bundle, plan.backend, precision=plan.precision, threads=plan.threads)
    load_s = (clock_ns() - start_ns) / 1e9
    try:
        watch.look()
        quality = accuracy_run(backend.embed, samples, batch=plan.samples_per_query)
        timed = speed_run(backend.embed, samples.images, plan, clock_ns=clock_ns)
        here = work.machine()
        memory = watch.memory()
    finally:
        backend.close()
    summary = timed.summary(items_per_call=plan.samples_per_query)
    rules = (
        f"after MLPerf's rules, no MLPerf result: at least {plan.seconds:g} s and {plan.queries} "
        f"queries, samples by seed {plan.seed}"
    )
    clock = clock_cost_ns(clock_ns=clock_ns).note(summary.p50_ms)
    row = measurement_row(
        bundle,
        backend.info,
        asked=plan.backend,
        asked_precision=plan.precision,
        batch=plan.samples_per_query,
        here=here,
        time=summary,
        memory=memory,
        load_s=load_s,
        quality=quality,
        note="; ".join(note for note in (rules, clock) if note),
    )
    return replace(row, protocol=plan.scenario, run=plan.run, asked=_asked(plan))


def speed_run(
    embed: Callable[[U8], F32], images: U8, plan: StreamPlan, *, clock_ns: ClockNs = CLOCK_NS
) -> TimedCalls:
    """Query after query, samples in random order with replacement, for long enough.

    Args:
        embed: the backend's.
        images: (S, H, W, 3) uint8, RGB: the samples.
        plan: how long, how many in a query, which seed.
        clock_ns: a monotonic clock, nanoseconds.
    """
    n = plan.samples_per_query
    rng = np.random.default_rng(plan.seed)
    if n == 1:
        queries = images[:, None]
    else:
        # Laid out beforehand: a query's samples lie in one piece, and copying is not its work.
        laid_out = max(2, _LAID_OUT_BYTES // (n * images[0].nbytes))
        queries = images[rng.integers(0, len(images), (laid_out, n))]
    order = rng.integers(0, len(queries), _ORDER)

    def query(number: int) -> F32:
        return embed(queries[order[number % _ORDER]])

    return timed_for(
        query,
        seconds=plan.seconds,
        least_calls=plan.queries,
        warmup=WARMUP_QUERIES,
        clock_ns=clock_ns,
    )


def not_run(plan: StreamPlan, reason: str) -> NotRunRow:
    """The row of a plan that this machine cannot run.

    Raises:
        BundleError: there is no bundle at all.
    """
    return NotRunRow(
        **provenance(),
        encoder=encoder_name(Bundle.open(plan.bundle).spec),
        runtime=plan.backend,
        precision=plan.precision or ANY_PRECISION,
        batch=plan.samples_per_query,
        reason=reason,
        machine=machine(),
    )


def _asked(plan: StreamPlan) -> str:
    asked = asked_words(plan.backend, plan.precision, plan.threads)
    return f"{asked}, {plan.samples} samples by seed {plan.seed}"


def kept_row(plan: StreamPlan, rows: MeasuredRows) -> Row | None:
    """The row of this bundle, settings, samples and run that is at least as long, if there is one.

    Args:
        plan: what to run.
        rows: that this commit measured on this machine.
    """

    def of_these_samples(row: Row) -> bool:
        data = str((row["quality"] or {}).get("data", ""))
        if plan.photographs is None:
            return data.startswith(PROBES)
        return data.endswith(f" photographs of {plan.photographs.name}")

    return rows.find(
        where=of_these_samples,
        least_calls=plan.queries,
        least_s=plan.seconds,
        items=plan.samples_per_query,
        protocol=plan.scenario,
        bundle_id=Bundle.open(plan.bundle).id,
        asked=_asked(plan),
        batch=plan.samples_per_query,
        run=plan.run,
    )
