"""The comparison of speed as a table on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.end_to_end_rows import SUCCESS_M, SpeedRow
from benchmarks.tables import metres, share


def print_speed(rows: Sequence[SpeedRow]) -> None:
    """One column a contender: times first, then how good the answers were."""
    first = rows[0]
    table = Table(
        title=f"{first.frames} photographs of {first.source}, {first.tiles} tiles, "
        f"{first.cores} cores",
        title_style="",
    )
    table.add_column("")
    for row in rows:
        table.add_column(row.contender, justify="right")
    lines = [
        ("frames/s end to end", [f"{r.frames_per_s:.1f}" for r in rows]),
        ("p50 ms", [f"{r.p50_ms:.1f}" for r in rows]),
        ("p90 ms", [f"{r.p90_ms:.1f}" for r in rows]),
        ("p99 ms", [f"{r.p99_ms:.1f}" for r in rows]),
        ("max ms", [f"{r.max_ms:.1f}" for r in rows]),
        ("p99 / p50", [f"{r.p99_over_p50:.2f}" for r in rows]),
        (
            "as fast as the plain loop",
            ["{:.2f} ({:.2f}-{:.2f})".format(*r.as_fast_as_plain) for r in rows],
        ),
        ("OpenCV threads", [str(r.opencv_threads) for r in rows]),
    ]
    for name, cells in lines:
        table.add_row(name, *cells)
    judged = [r.quality for r in rows if r.quality is not None]
    if len(judged) == len(rows):
        table.add_section()
        table.add_row("answers", *(share(q.answered) for q in judged))
        table.add_row("median error of answers", *(metres(q.median_error_m) for q in judged))
        table.add_row(f"answer within {SUCCESS_M:g} m", *(share(q.success) for q in judged))
        table.add_row("answer > 50 m wrong", *(share(q.false) for q in judged))
        table.add_row(f"guess within {SUCCESS_M:g} m", *(share(q.guessed) for q in judged))
    Console(soft_wrap=False).print(table)
    print(f"load of the machine: {first.load_before:.2f} before, {first.load_after:.2f} after")
