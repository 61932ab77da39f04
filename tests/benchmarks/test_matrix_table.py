import io
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console

from benchmarks.latency import EMULATED_FP16
from benchmarks.matrix.table import middle_runs, not_run_lines, print_matrix
from tests.benchmarks.measured_rows import gap, measured


def _printed(*rows: Any) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    print_matrix([asdict(row) for row in rows], console=console)
    text = console.file
    assert isinstance(text, io.StringIO)
    return text.getvalue()


def test_of_several_runs_the_one_with_the_middle_median_is_shown_whole() -> None:
    rows = [asdict(measured(ms, run=run)) for run, ms in enumerate((12.0, 10.0, 50.0))]
    (shown,) = middle_runs(rows)
    assert shown["run"] == 0


def test_rows_of_other_batches_or_threads_are_not_runs_of_each_other() -> None:
    rows = [asdict(row) for row in (measured(), measured(batch=8), measured(threads=2))]
    assert len(middle_runs(rows)) == 3


def test_the_table_shows_every_number_of_its_row_within_80_columns() -> None:
    quality = measured().quality
    assert quality is not None
    row = measured(
        12.34, quality=replace(quality, recall_at_1=0.43, min_cosine=0.99996, top1_agreement=0.89)
    )
    text = _printed(row)
    line = next(line for line in text.splitlines() if "ort-cpu" in line)
    assert max(len(line) for line in text.splitlines()) <= 80
    for shown in ("fp32", "12.3", "41%", "300", "0.9999", "89%", "43%", "75%"):
        assert shown in line.split()
    assert f"{row.time.p99_ms:.1f}" in line.split()


def test_a_cosine_is_cut_not_rounded_so_that_one_means_one() -> None:
    quality = measured().quality
    assert quality is not None
    assert "1.0000" not in _printed(measured(quality=replace(quality, min_cosine=0.999999)))
    assert "1.0000" in _printed(measured(quality=replace(quality, min_cosine=1.0)))


def test_a_fallback_and_an_emulated_precision_are_said_aloud() -> None:
    text = _printed(
        measured(precision="fp16", note=EMULATED_FP16),
        measured(runtime="ort-cuda", fallback="ort-cuda was asked for and the CPU ran"),
    )
    assert "fp16*" in text
    assert "computed in fp32" in text
    assert "fell back: ort-cuda was asked for and the CPU ran" in text


def test_what_was_not_run_is_one_line_a_reason() -> None:
    rows = [
        asdict(gap(encoder=encoder, runtime=runtime))
        for encoder in ("small-128", "large-384")
        for runtime in ("tensorrt", "ort-cuda")
    ]
    rows.append(asdict(gap(encoder="small-128", runtime="ort-cpu", precision="int8", reason="no")))
    assert not_run_lines(rows) == [
        "tensorrt fp16, ort-cuda fp16 of every encoder: no CUDA device was found",
        "ort-cpu int8 of small-128: no",
    ]


def test_a_machine_that_can_run_nothing_still_says_why() -> None:
    assert "no CUDA device was found" in _printed(gap())
