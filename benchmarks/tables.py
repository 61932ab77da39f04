"""Measurements as tables on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.accuracy import AccuracyRow
from benchmarks.intervals import Rate
from benchmarks.latency import device_of
from benchmarks.measurement import MeasurementRow
from benchmarks.search import SearchRow
from benchmarks.stage_latency import StageRow

if TYPE_CHECKING:
    from benchmarks.parity import ParityRow  # Loads torch, which takes seconds.


def print_accuracy(rows: Sequence[AccuracyRow]) -> None:
    """One column per flight; shares with their Wilson 95 % interval."""
    what = "drone position" if rows[0].score == "drone" else "look point"
    table = Table(title=f"Accuracy of the {what}, over all frames (95 % interval)", title_style="")
    table.add_column("")
    for row in rows:
        table.add_column(row.flight, justify="right")
    for name, cells in accuracy_lines(rows):
        table.add_row(name, *cells)
    Console(soft_wrap=False).print(table)


def print_parity(rows: "Sequence[ParityRow]") -> None:
    """Exported files against PyTorch: one line an architecture and size."""
    table = Table(title="1 - cosine to PyTorch, worst picture", title_style="")
    names = ("encoder", "px", "FP32", "FP16", "FP16 centred", "in FP32 for a number", "FP16 MB")
    for name in names:
        table.add_column(name, justify="left" if name == "encoder" else "right")
    for row in rows:
        table.add_row(
            row.architecture,
            str(row.size_px),
            f"{1 - row.fp32_min_cosine:.0e}",
            f"{1 - row.fp16_min_cosine:.0e}",
            f"{1 - row.fp16_min_centred:.0e}",
            f"{row.kept_by_measurement + row.kept_early} of {row.nodes}",
            f"{row.fp16_mb:.1f} of {row.fp32_mb:.1f}",
        )
    Console(soft_wrap=False).print(table)


def print_search(rows: Sequence[SearchRow]) -> None:
    """Search: one line a contender and task."""
    first = rows[0]
    table = Table(
        title=f"{first.tiles} tiles of {first.dimensions} numbers, "
        f"{max(row.queries_per_call for row in rows)} queries a call",
        title_style="",
    )
    for name in ("contender", "task", "p50 ms", "p99 ms", "recall@10", "files", "own", "build"):
        table.add_column(name, justify="left" if name in ("contender", "task") else "right")
    for row in rows:
        table.add_row(
            row.contender,
            row.task,
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            "-" if row.recall_at_10 is None else f"{row.recall_at_10:.1%}",
            f"{row.files_mib:.0f} MiB",
            f"{row.own_mib:.0f} MiB",
            f"{row.build_s:.0f} s",
        )
    Console(soft_wrap=False).print(table)


def accuracy_lines(rows: Sequence[AccuracyRow]) -> list[tuple[str, list[str]]]:
    """(name, one text per row) of every metric, in reading order."""
    false_m = f"{rows[0].false_fix_m:g} m"
    lines = [
        ("frames", [str(row.frames) for row in rows]),
        ("median error", [metres(row.median_error_m) for row in rows]),
        ("95th percentile error", [metres(row.p95_error_m) for row in rows]),
        ("largest error", [metres(row.max_error_m) for row in rows]),
    ]
    lines += [
        (f"within {distance} m", [share(row.success[distance]) for row in rows])
        for distance in rows[0].success
    ]
    lines += [
        ("answered", [share(row.answered) for row in rows]),
        ("abstained", [share(row.abstained) for row in rows]),
        ("lost", [share(row.lost) for row in rows]),
        ("dead reckoning", [share(row.degraded) for row in rows]),
        ("not in the log", [share(row.missing) for row in rows]),
        (f"false fixes (> {false_m})", [counted(row.false_fixes) for row in rows]),
        ("first answer after", [seconds(row.first_ok_s) for row in rows]),
        ("errors within the 68 % radius", [_share_or_dash(row.within_68) for row in rows]),
        ("errors within the 95 % radius", [_share_or_dash(row.within_95) for row in rows]),
    ]
    return lines


def print_latency(rows: Sequence[MeasurementRow]) -> None:
    """One line per backend, precision and batch."""
    table = Table(title="Backend: host uint8 in to host float32 out, ms per call", title_style="")
    for name in ("backend", "provider", "precision", "batch"):
        table.add_column(name, no_wrap=name != "provider")
    for name in ("p50", "p90", "p99", "max", "first"):
        table.add_column(name, justify="right", no_wrap=True)
    notes = list(dict.fromkeys(r.note for r in rows if r.note))
    for r in rows:
        t = r.time
        times = (t.p50_ms, t.p90_ms, t.p99_ms, t.max_ms, t.first_ms)
        table.add_row(
            r.runtime,
            r.provider.removesuffix("ExecutionProvider") + ("!" if r.fallback else ""),
            r.precision + "*" * (notes.index(r.note) + 1 if r.note else 0),
            str(r.batch),
            *("-" if ms is None else milliseconds(ms) for ms in times),
        )
    Console().print(table)
    for k, note in enumerate(notes, start=1):
        print(f"{'*' * k} {note}")
    for fallback in dict.fromkeys(r.fallback for r in rows if r.fallback):
        print(f"! FALLBACK: {fallback}")
    for r in rows:
        print(
            f"{r.runtime} {r.precision}, batch {r.batch}: {r.time.n} calls; "
            f"{r.memory.host_peak_mib:.0f} MiB at most ({r.memory.host_before_mib:.0f} before "
            f"loading), loaded in {r.load_s:.2f} s"
        )
    here = rows[0].machine
    devices = dict.fromkeys(device_of(r.provider, here.cpu, here.gpu) for r in rows)
    libraries = dict.fromkeys(
        r.library + (f", {r.threads} threads" if r.threads else "") for r in rows
    )
    print(f"{', '.join(devices)}; {'; '.join(libraries)}; {_others(rows)}")


def _others(rows: Sequence[MeasurementRow]) -> str:
    cores = rows[0].machine.cores
    counted = [r.machine.others_cores for r in rows if r.machine.others_cores is not None]
    if not counted:
        return (
            f"before the first call the load was {rows[0].machine.load_1min:.1f} on {cores} cores"
        )
    return f"other programs used {max(counted):.2f} of {cores} cores at most"


def print_stages(rows: Sequence[StageRow]) -> None:
    """One line per flight and stage."""
    table = Table(title="Stages of a frame, ms", title_style="")
    for name in ("flight", "stage", "n"):
        table.add_column(name)
    for name in ("p50", "p90", "p99", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in rows:
        times = (r.time.p50_ms, r.time.p90_ms, r.time.p99_ms, r.time.max_ms)
        table.add_row(r.flight, r.stage, str(r.time.n), *(milliseconds(t) for t in times))
    Console().print(table)


def metres(value: float | None) -> str:
    """A distance with a sensible number of digits."""
    if value is None:
        return "-"
    return (
        f"{value:.2f} m" if value < 10 else f"{value:.1f} m" if value < 100 else f"{value:,.0f} m"
    )


def milliseconds(value: float) -> str:
    """A duration with a sensible number of digits, without its unit."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """A duration of flight."""
    return "never" if value is None else f"{value:.1f} s"


def percent(value: float) -> str:
    """A share as a percentage; only 0 and 1 themselves become 0 % and 100 %."""
    if 0 < value < 0.0005:
        return "<0.1 %"
    if 0.9995 <= value < 1:
        return ">99.9 %"
    return f"{100 * value:.1f} %"


def share(value: Rate) -> str:
    """A rate with its interval."""
    if value.share is None:
        return "-"
    return f"{percent(value.share)} ({100 * value.low:.0f}-{100 * value.high:.0f})"


def counted(value: Rate) -> str:
    """A rare event: count, trials, and the upper end of the interval."""
    if value.share is None:
        return "-"
    return f"{value.count} of {value.n} (at most {100 * value.high:.1f} %)"


def _share_or_dash(value: Rate | None) -> str:
    return "-" if value is None else share(value)
