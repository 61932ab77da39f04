"""The matrix on the terminal. Every number in it is in a row."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.latency import EMULATED_FP16
from benchmarks.matrix.encoders import Choice
from benchmarks.matrix.plan import Cell, Effort, expected_s
from benchmarks.tables import milliseconds
from edge_runtime.cuda_device import cuda_device_count

Row = Mapping[str, Any]

_COLUMNS = {
    "runtime": 14,
    "": 5,
    "p50 ms": 6,
    "p99 ms": 6,
    "img/s": 6,
    "roof": 4,
    "MiB": 5,
    "cosine": 6,
    "top-1": 5,
    "R@1": 4,
    "20 m": 4,
}
"""Names and widths: all tables are alike, and fit a terminal of 80 columns."""
_LEGEND = (
    "roof: share of the limit that was reached; MiB: most that the process held; cosine: lowest, "
    "to {reference}; top-1: same most similar tile as that; R@1, 20 m: most similar tile is the "
    "right one, or within 20 m, where the weights are trained for it"
)


def print_matrix(rows: Sequence[Row], *, console: Console | None = None) -> None:
    """Measurements as a table, then what was not run, a line for each reason.

    Of several runs the one with the middle p50 is shown, whole: its numbers belong together.

    Args:
        rows: measurement and not_run rows as read back.
        console: to print on.
    """
    console = console or Console(soft_wrap=False)
    measured = middle_runs([row for row in rows if row["kind"] == "measurement"])
    if measured:
        _print_tables(measured, console)
    missing = not_run_lines([row for row in rows if row["kind"] == "not_run"])
    if missing:
        console.print(f"Not run ({sum(row['kind'] == 'not_run' for row in rows)}):")
    for line in missing:
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _print_tables(rows: Sequence[Row], console: Console) -> None:
    first = rows[0]
    threads = ", ".join(sorted({str(row["threads"]) for row in rows if row["threads"]}))
    console.print(f"{first['machine']['cpu']}, {threads} threads\n", highlight=False)
    for name, own in groupby(rows, key=lambda row: (row["encoder"], row["batch"])):
        table = Table(
            title=f"{name[0]}, batch {name[1]}",
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=0,
        )
        for column, width in _COLUMNS.items():
            left = column in ("runtime", "")
            table.add_column(
                column, justify="left" if left else "right", min_width=width, no_wrap=True
            )
        for row in own:
            table.add_row(*cells_of(row))
        console.print(table)
    references = dict.fromkeys(row["quality"]["reference"] for row in rows if row["quality"])
    legend = _LEGEND.format(reference=" or ".join(references) or "the reference")
    console.print(legend, highlight=False, style="dim")
    if any(_emulated(row) for row in rows):
        console.print("fp16*: computed in fp32, with casts", style="dim", highlight=False)
    for note in dict.fromkeys(row["fallback"] for row in rows if row["fallback"]):
        console.print(f"fell back: {note}", markup=False, highlight=False)


def _emulated(row: Row) -> bool:
    return EMULATED_FP16 in row["note"]


def cells_of(row: Row) -> list[str]:
    """A measurement's cells but for its encoder's name."""
    time_of, quality, limit, memory = row["time"], row["quality"], row["limit"], row["memory"]
    judged = ["-", "-", "-", "-"]
    if quality is not None:
        judged = [
            f"{math.floor(quality['min_cosine'] * 1e4) / 1e4:.4f}",  # 1.0000 is 1.
            _share(quality["top1_agreement"]),
            _share(quality["recall_at_1"]),
            _share(quality["success_20m"]),
        ]
    return [
        row["runtime"],
        row["precision"] + ("*" if _emulated(row) else ""),
        milliseconds(time_of["p50_ms"]),
        milliseconds(time_of["p99_ms"]),
        milliseconds(time_of["throughput_per_s"]),
        "-" if limit is None else f"{limit['ratio']:.0%}",
        f"{memory['host_peak_mib']:.0f}",
        *judged,
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def middle_runs(rows: Sequence[Row]) -> list[Row]:
    """Of the runs of each measurement the one with the middle p50, in the order they came."""
    by_key: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        key = (row["encoder"], row["batch"], row["runtime"], row["precision"], row["threads"])
        by_key[key].append(row)
    return [
        sorted(runs, key=lambda row: float(row["time"]["p50_ms"]))[(len(runs) - 1) // 2]
        for runs in by_key.values()
    ]


def not_run_lines(rows: Sequence[Row]) -> list[str]:
    """One line for each reason, with all that it stands against."""
    by_reason: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        what = f"{row['runtime']} {row['precision']}"
        by_reason[row["reason"]][what][row["encoder"]] = None
    every = len({row["encoder"] for row in rows})
    lines = []
    for reason, whats in by_reason.items():
        encoders = dict.fromkeys(name for names in whats.values() for name in names)
        whose = "every encoder" if len(encoders) == every > 1 else ", ".join(encoders)
        lines.append(f"{', '.join(whats)} of {whose}: {reason}")
    return lines


def print_plan(
    planned: Sequence[Cell], choices: Sequence[Choice], effort: Effort, runs: int
) -> None:
    """What would be measured, and about how long it takes on two cores."""
    gmac = {choice.name: choice.gmac for choice in choices}
    table = Table(title="About, on two cores", title_style="")
    for name in ("encoder", "Gmac", "measurements", "minutes"):
        table.add_column(name, justify="left" if name == "encoder" else "right")
    total_s, on_gpu = 0.0, cuda_device_count() > 0
    for choice in choices:
        own = [cell for cell in planned if cell.encoder == choice.name]
        own_s = sum(
            expected_s(cell, gmac[choice.name], effort, on_gpu=on_gpu, with_quality=run == 0)
            for run in range(runs)
            for cell in own
        )
        total_s += own_s
        table.add_row(choice.name, f"{choice.gmac:.2f}", str(runs * len(own)), f"{own_s / 60:.1f}")
    console = Console(soft_wrap=False)
    console.print(table)
    console.print(
        f"{runs * len(planned)} measurements, about {total_s / 60:.0f} minutes: what this "
        "machine cannot run takes a second or two. Making encoders comes on top, once: from "
        "seconds to some minutes each.",
        highlight=False,
    )
