"""One encoder on one backend: speed, memory, energy, limit and quality in one row."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.machine import Machine
from benchmarks.rows import Provenance
from benchmarks.time_summary import TimeSummary

Protocol = Literal["latency", "single-stream", "multi-stream"]
"""latency: a number of calls; single-stream and multi-stream: as MLPerf has them, by duration."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """High-water marks of the process that ran the encoder, MiB (2**20 bytes)."""

    host_peak_mib: float
    """Resident, from before loading to the last call."""
    host_before_mib: float
    """Resident before the encoder was loaded: interpreter and libraries."""
    gpu_peak_mib: float | None
    """Of this process on the GPU, or the growth of all use of the GPU where the driver does not
    tell processes apart; None without a GPU that has memory of its own."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How well this row's encoder does what it is for, on this backend in this precision."""

    pictures: int
    """That were embedded; other ones than a precision was calibrated on."""
    reference: str
    """What embeddings are compared with, as "torch eager fp32"."""
    min_cosine: float
    """-1..1: lowest over the pictures."""
    median_cosine: float
    top1_agreement: float
    """Share of queries whose most similar tile is the reference's, 0..1."""
    recall_at_1: float | None
    """Share of queries whose most similar tile is the right one; None where the pictures have no
    truth or the weights are not trained for it."""
    success_20m: float | None
    """Share of queries whose most similar tile's centre is within 20 m of the truth."""
    gallery: int
    """Tiles that queries were compared with."""
    data: str
    """What the pictures were."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The roofline (Williams, Waterman and Patterson 2009, CACM 52:65-76) of one row."""

    gflop: float
    """Of one call: 1e9 multiplications and additions, two for each multiply-add."""
    traffic_mb: float
    """Least traffic of one call: weights, input and output once, 1e6 bytes."""
    peak_gflops: float
    """Ceiling of arithmetic in this precision, 1e9 a second."""
    bandwidth_gb_s: float
    """Ceiling of memory, 1e9 bytes a second."""
    source: str
    """measured, or the table and line the ceilings come from."""
    bound: Literal["compute", "memory"]
    """Which ceiling is the lower one here."""
    roof_ms: float
    """No call can be faster."""
    ratio: float
    """roof_ms over the median: 1 is the limit."""


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What the calls took, over the rail or package that the machine can read."""

    source: str
    """As "RAPL package-0", "NVML GPU 0", "INA3221 VDD_IN"; empty where nothing could be read."""
    watts: float | None
    """Mean while the calls ran."""
    idle_watts: float | None
    """Mean just before, with nothing to do."""
    joules_per_call: float | None
    skipped: str
    """Why there is no number; empty where there is one."""


@dataclass(frozen=True, kw_only=True)
class MeasurementRow(Provenance):
    """One measurement. Rows with the same `key` measured the same thing and can be compared."""

    kind: Literal["measurement"] = "measurement"
    protocol: Protocol
    encoder: str
    """Short name, as "convnext_base-384"."""
    architecture: str
    """timm name."""
    weights: str
    """Where they come from, as "random, seed 20", "trained on a made-up world"."""
    asked: str = ""
    """Runtime, precision, threads and samples as they were asked for, some of them left open; empty
    where nothing was (matrix)."""
    runtime: str
    """What was asked to run it: torch-eager, torch-compiled, or a name of `BACKENDS`."""
    provider: str
    """What really ran, read back from the library."""
    precision: str
    """fp32, fp16 or int8: of the file or module that ran."""
    library: str
    """Library and version."""
    threads: int | None
    """CPU threads of the library; None where it has no say."""
    batch: int
    height_px: int
    width_px: int
    run: int = 0
    """Which repetition of the same measurement: pairs rows of two files."""
    fallback: str = ""
    """Why something else ran than was asked for; empty where it did not."""
    model_sha256: str
    """Of the ONNX file or the weights."""
    engine_sha256: str = ""
    """Of the TensorRT engine; empty where none ran."""
    bundle_id: str = ""
    machine: Machine
    time: TimeSummary
    """Of calls of `batch` pictures."""
    stages: dict[str, TimeSummary]
    """Of parts of a call, where they could be timed: host-to-device, GPU, device-to-host, …"""
    memory: Memory
    load_s: float
    """From the file to ready for the first call, libraries loaded before; backends also prove
    themselves on the bundle's probes in it."""
    build_s: float | None
    """Of an engine or graph that is kept; None where none is."""
    compile_s: float | None
    """That the first calls paid for compiling; None where nothing is compiled then."""
    quality: Quality | None
    limit: Limit | None
    energy: Energy
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class NotRunRow(Provenance):
    """A measurement that this machine cannot make, and why."""

    kind: Literal["not_run"] = "not_run"
    encoder: str
    runtime: str
    precision: str
    batch: int
    reason: str
    """One sentence."""
    machine: Machine
