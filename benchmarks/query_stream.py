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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.compare.pairing import ANY_PRECISION
from benchmarks.latency import encoder_name, measurement_row
from benchmarks.machine import WorkWatch, machine
from benchmarks.measurement import MeasurementRow, NotRunRow, Quality
from benchmarks.memory_use import MemoryWatch
from benchmarks.rows import provenance
from benchmarks.timing import CLOCK_NS, ClockNs, TimedCalls, clock_cost_ns, timed_for
from edge_runtime.backends.protocol import BackendName, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import InputError
from edge_runtime.precision import Precision
from edge_runtime.preprocess import EncoderSpec, resize_to_encoder
from edge_runtime.sources.photographs import PHOTO_SUFFIXES

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

Scenario = Literal["single-stream", "multi-stream"]
WARMUP_QUERIES = 20
_PROBES = "probes of bundle"
_ORDER = 100_000
"""Queries that are drawn ahead; then their order comes again."""
_LAID_OUT_BYTES = 2**26
"""Of queries of several samples: far more than any cache holds."""


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """One run of a scenario."""

    bundle: Path
    scenario: Scenario
    samples_per_query: int
    seconds: float
    """At least so long."""
    queries: int
    """At least so many."""
    backend: BackendName = "auto"
    precision: Precision | None = None
    threads: int | None = None
    photographs: Path | None = None
    """Folder whose pictures are the samples; the bundle's probes by default."""
    samples: int = 1024
    """At most so many of them."""
    seed: int = 0
    """Of the order."""
    run: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no run."""
        for name, value in (
            ("samples_per_query", self.samples_per_query),
            ("queries", self.queries),
            ("samples", self.samples - 1),
        ):
            if value < 1:
                least = 2 if name == "samples" else 1
                msg = f"{name} is {getattr(self, name)}; expected at least {least}"
                raise InputError(msg)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The library that queries are drawn from."""

    images: U8
    """(S, H, W, 3) RGB, at the encoder's size."""
    reference: F32
    """(S, D) embeddings they should get."""
    reference_name: str
    data: str


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
    return replace(row, protocol=plan.scenario, run=plan.run)


def samples_of(plan: StreamPlan, bundle: Bundle) -> Samples:
    """The samples and the embeddings that the trained encoder gives them.

    Raises:
        InputError: the folder has fewer than two photographs, or one cannot be read.
        BundleError: no probes.
    """
    if plan.photographs is None:
        images, reference = bundle.probes(plan.precision or "fp32")
        return Samples(
            images=images[: plan.samples],
            reference=reference[: plan.samples],
            reference_name="torch eager fp32",
            data=f"{_PROBES} {bundle.id}",
        )
    folder = plan.photographs
    if not folder.is_dir():
        msg = f"{folder} is not a folder; expected photographs"
        raise InputError(msg)
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
    if len(paths) < 2:
        msg = f"{folder} has {len(paths)} photographs; expected at least 2"
        raise InputError(msg)
    images = np.stack([_read(path, bundle.spec) for path in paths[: plan.samples]])
    with_fp32 = open_backend(bundle, "ort-cpu", precision="fp32", threads=plan.threads)
    try:
        reference = _embedded(with_fp32.embed, images, 1)
    finally:
        with_fp32.close()
    return Samples(
        images=images,
        reference=reference,
        reference_name=f"{with_fp32.info.library} on the CPU, fp32",
        data=f"{len(images)} photographs of {folder.name}",
    )


def accuracy_run(embed: Callable[[U8], F32], samples: Samples, *, batch: int) -> Quality:
    """Embed every sample exactly once and compare with the reference; nothing is timed.

    Args:
        embed: the backend's.
        samples: at least two.
        batch: samples per query, as in the speed run.
    """
    found = _embedded(embed, samples.images, batch)
    cosines = np.sum(found * samples.reference, axis=1) / (
        np.linalg.norm(found, axis=1) * np.linalg.norm(samples.reference, axis=1)
    )
    nearest = [_nearest_other(queries, samples.reference) for queries in (found, samples.reference)]
    return Quality(
        pictures=len(found),
        reference=samples.reference_name,
        min_cosine=float(cosines.min()),
        median_cosine=float(np.median(cosines)),
        top1_agreement=float(np.mean(nearest[0] == nearest[1])),
        recall_at_1=None,
        success_20m=None,
        gallery=len(found) - 1,
        data=samples.data,
    )


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


def _embedded(embed: Callable[[U8], F32], images: U8, batch: int) -> F32:
    """(S, D) float32; the last query is filled up with the first samples, whose answers drop."""
    out = []
    for start in range(0, len(images), batch):
        rows = np.arange(start, start + batch) % len(images)
        out.append(embed(images[rows])[: len(images) - start])
    return np.concatenate(out)


def _nearest_other(queries: F32, gallery: F32) -> I64:
    """(S,) the row of the gallery that is most like each query, its own left out."""
    similarity = queries @ gallery.T
    np.fill_diagonal(similarity, -np.inf)
    return np.asarray(similarity.argmax(axis=1), np.int64)


def _read(path: Path, spec: EncoderSpec) -> U8:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        msg = f"{path} cannot be read as an image; expected JPEG, PNG or the like. Remove it"
        raise InputError(msg)
    return resize_to_encoder(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), spec)


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


def is_done(plan: StreamPlan, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows hold a result of this bundle, commit, machine and run, at least as long."""
    here = machine()
    wanted = {
        "git_commit": provenance()["git_commit"],
        "bundle_id": Bundle.open(plan.bundle).id,
        "protocol": plan.scenario,
        "batch": plan.samples_per_query,
        "run": plan.run,
    }
    for row in rows:
        time_of = row["time"]
        lasted_s = time_of["n"] * row["batch"] / time_of["throughput_per_s"]
        from_probes = str((row["quality"] or {}).get("data", "")).startswith(_PROBES)
        if (
            all(row.get(name) == value for name, value in wanted.items())
            and plan.backend in ("auto", row["runtime"])
            and plan.precision in (None, row["precision"])
            and plan.threads in (None, row["threads"])
            and (plan.photographs is None) == from_probes
            and (row["machine"]["cpu"], row["machine"]["cores"]) == (here.cpu, here.cores)
            and time_of["n"] >= plan.queries
            and lasted_s >= 0.999 * plan.seconds  # Rows are rounded.
        ):
            return True
    return False
