"""The columns of a table of measurements, and which of them say something."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.measurement import MeasurementRow
from benchmarks.results_page.doubts import Beside
from benchmarks.results_page.sources import Measured, machine_name
from benchmarks.results_page.written import DASH, cosine, percent, significant, times

Value = float | str | None


class Column(NamedTuple):
    """One property of a measurement."""

    name: str
    meaning: str
    of: Callable[[MeasurementRow], Value]
    written: Callable[[float | None], str] = significant
    """How its numbers look; texts stand as they are."""
    what: bool = False
    """Says what was measured, not what came out: left out of the table where all rows agree."""
    doubts: tuple[Beside, ...] = ()
    """Those that are marked beside it."""

    def text(self, row: MeasurementRow) -> str:
        """The property of one row, as it is shown."""
        value = self.of(row)
        return (value or DASH) if isinstance(value, str) else self.written(value)


def _count(value: float | None) -> str:
    return DASH if value is None else f"{value:,.0f}"


def runtime_name(row: MeasurementRow) -> str:
    """What was asked to run it, and what did where the name does not say so."""
    provider = row.provider.removesuffix("ExecutionProvider")
    same = provider.lower() in row.runtime or provider.lower().startswith(row.runtime)
    return row.runtime if same else f"{row.runtime} ({provider})"


WHAT = (
    Column("machine", "Where it was measured", lambda r: machine_name(r.machine), what=True),
    Column("encoder", "Name of the encoder", lambda r: r.encoder, what=True),
    Column(
        "input px",
        "Side of a picture, or its height and width",
        lambda r: (
            f"{r.height_px}"
            if r.height_px == r.width_px
            else f"{r.height_px} \N{MULTIPLICATION SIGN} {r.width_px}"
        ),
        what=True,
    ),
    Column(
        "runtime",
        "What ran it, and its own name for it",
        runtime_name,
        what=True,
        doubts=("runtime",),
    ),
    Column("precision", "Of the file or module that ran", lambda r: r.precision, what=True),
    Column("batch", "Pictures in a call", lambda r: r.batch, _count, what=True),
    Column("threads", "CPU threads of the library", lambda r: r.threads, _count, what=True),
    Column("protocol", "How calls followed each other", lambda r: r.protocol, what=True),
    Column("weights", "Where they come from", lambda r: r.weights, what=True),
    Column("commit", "Of the checkout", lambda r: r.git_commit, what=True),
)
CAME_OUT = (
    Column(
        "p50 ms",
        "Half of the calls were as fast",
        lambda r: r.time.p50_ms,
        doubts=("calls", "drift", "load"),
    ),
    Column("p99 ms", "99 % of the calls were as fast", lambda r: r.time.p99_ms),
    Column("pictures/s", "Calls one after the other", lambda r: r.time.throughput_per_s),
    Column(
        "of limit",
        "Roofline over p50: 1 is as fast as the machine can be",
        lambda r: None if r.limit is None else r.limit.ratio,
        times,
        doubts=("ratio",),
    ),
    Column(
        "peak MiB",
        "Most resident memory of the process, libraries included",
        lambda r: r.memory.host_peak_mib,
        _count,
    ),
    Column("GPU MiB", "Most of this process on the GPU", lambda r: r.memory.gpu_peak_mib, _count),
    Column("J/call", "Energy of a call", lambda r: r.energy.joules_per_call),
    Column("watts", "Mean while calls ran", lambda r: r.energy.watts),
    Column(
        "cosine",
        "To the reference, of the worst picture",
        lambda r: None if r.quality is None else r.quality.min_cosine,
        cosine,
    ),
    Column(
        "same top 1",
        "Queries whose most similar tile is the reference's",
        lambda r: None if r.quality is None else r.quality.top1_agreement,
        percent,
    ),
    Column(
        "recall@1",
        "Queries whose most similar tile is the right one",
        lambda r: None if r.quality is None else r.quality.recall_at_1,
        percent,
    ),
    Column(
        "within 20 m",
        "Queries whose most similar tile lies within 20 m of the truth",
        lambda r: None if r.quality is None else r.quality.success_20m,
        percent,
    ),
)
STEADINESS = (
    Column("load s", "From the file to ready for the first call", lambda r: r.load_s),
    Column("compile s", "Paid by the first calls", lambda r: r.compile_s),
    Column("build s", "Of an engine or graph that is kept", lambda r: r.build_s),
    Column("first ms", "The very first call", lambda r: r.time.first_ms),
    Column("calls", "That were timed", lambda r: r.time.n, _count, doubts=("calls",)),
    Column("warm-up", "Calls before them", lambda r: r.time.warmup, _count),
    Column("p90 ms", "90 % of the calls were as fast", lambda r: r.time.p90_ms),
    Column("p95 ms", "95 % of the calls were as fast", lambda r: r.time.p95_ms),
    Column("max ms", "The slowest call", lambda r: r.time.max_ms),
    Column("jitter ms", "Median difference of two calls in a row", lambda r: r.time.jitter_ms),
    Column(
        "drift",
        "Median of the last quarter over that of the first",
        lambda r: r.time.drift,
        times,
        doubts=("drift",),
    ),
    Column("deadline ms", "What a call may take", lambda r: r.time.deadline_ms),
    Column(
        "misses",
        "Calls that took longer than the deadline",
        lambda r: None if r.time.deadline_ms is None else r.time.deadline_misses,
        _count,
    ),
    Column(
        "own MiB",
        "Most resident memory less that before loading",
        lambda r: r.memory.host_peak_mib - r.memory.host_before_mib,
        _count,
    ),
    Column(
        "limit ms",
        "Roofline: no call can be faster",
        lambda r: None if r.limit is None else r.limit.roof_ms,
    ),
    Column("bound by", "The lower ceiling", lambda r: None if r.limit is None else r.limit.bound),
    Column("GFLOP", "Of a call", lambda r: None if r.limit is None else r.limit.gflop),
    Column("model", "First of its SHA-256", lambda r: r.model_sha256[:8]),
)


def shown(
    columns: Sequence[Column], measured: Sequence[Measured], *, always: Sequence[str] = ()
) -> tuple[list[Column], list[str]]:
    """Columns worth their width, and what all rows have in common.

    Args:
        columns: to choose from.
        measured: the rows of the table.
        always: names of columns that stay where all rows agree.

    Returns:
        Columns with a value in some row, and of those that say what was measured only the ones in
        which rows differ; "name value" of the others.
    """
    kept, common = [], []
    for column in columns:
        texts = {column.text(m.row) for m in measured}
        if texts <= {DASH}:
            continue
        if column.what and len(texts) == 1 and column.name not in always:
            common.append(f"{column.name} {texts.pop()}")
        else:
            kept.append(column)
    return kept, common
