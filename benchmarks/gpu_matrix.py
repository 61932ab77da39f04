"""Steps of the GPU check that run the matrix, and `trtexec` on the engines that it ran."""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.steps import Step

MATRIX_ROWS = "matrix.jsonl"
RUNTIMES = (
    *("torch-eager", "torch-compiled", "ort-cuda", "ort-tensorrt", "tensorrt"),
    "tensorrt-no-graph",
)
TRTEXEC = "-trtexec-times"
"""How the steps end whose logs hold `trtexec`'s times."""
_ENGINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  \S+\.engine")
_MEDIAN = re.compile(r"GPU Compute Time: .*?median =? ?(?P<ms>[0-9.]+) ms")
_GRAPH = "--useCudaGraph"


class ToolTime(NamedTuple):
    """What `trtexec` measured of one engine, one picture a call."""

    engine_sha256: str
    cuda_graph: bool
    gpu_ms: float
    """Median."""


def matrix_steps(name: str, work: Path, checkpoint: Path, needs: Sequence[str]) -> list[Step]:
    """The matrix on one encoder, then `trtexec` on each engine that it built.

    Args:
        name: short, of the encoder.
        work: folder for what the steps write.
        checkpoint: its weights, for torch.
        needs: steps before.
    """
    own = work / name / "matrix"
    # With a graph and without, as rows have it; one picture, which is the first profile's.
    loop = (
        f"shopt -s failglob; for engine in {own}/engines/*/*.engine; do "
        f'sha256sum "$engine"; for graph in "" {_GRAPH}; do '
        'trtexec --loadEngine="$engine" --useSpinWait $graph || exit 1; done; done'
    )
    return [
        Step(
            name=f"{name}-matrix",
            shows=f"{name}: every runtime of the GPU in FP32, FP16 and INT8, 1 and 8 pictures",
            command=(
                *(sys.executable, "-m", "benchmarks", "matrix"),
                *("--bundle", str(work / name / "bundle"), "--checkpoint", str(checkpoint)),
                *("--runtime", *RUNTIMES, "--precision", "fp32", "fp16", "int8"),
                *("--batch", "1", "8", "--seconds", "5", "--timeout-s", "3600"),
                *("--work", str(own), "--out", str(work / MATRIX_ROWS)),
            ),
            needs=tuple(needs),
            timeout_s=6 * 3600.0,
        ),
        Step(
            name=f"{name}{TRTEXEC}",
            shows=f"{name}: NVIDIA's own tool times the engines of the matrix",
            command=("bash", "-c", loop),
            needs=(f"{name}-matrix",),
            program="trtexec",
        ),
    ]


def results_step(work: Path, names: Sequence[str]) -> Step:
    """The rows as a page and a table; fails where nothing was measured."""
    return Step(
        name="matrix-results",
        shows="the rows of the matrix as a page and a table",
        command=(
            *(sys.executable, "-m", "benchmarks", "results", str(work / MATRIX_ROWS)),
            *("--out", str(work / "matrix.html"), "--markdown", str(work / "matrix.md")),
        ),
        needs=tuple(f"{name}-matrix" for name in names),
    )


def trtexec_times(log: str) -> list[ToolTime]:
    """Medians of "GPU Compute Time" in the log of a step, in its order."""
    sha256, graph, found = "", False, []
    for line in log.splitlines():
        if line.startswith("$ "):  # The step's own command.
            continue
        if engine := _ENGINE.search(line):
            sha256 = engine["sha256"]
        elif "&&&& RUNNING" in line:
            graph = _GRAPH in line
        elif (time_of := _MEDIAN.search(line)) and "Total" not in line:
            found.append(ToolTime(sha256, graph, float(time_of["ms"])))
    return found


def against_trtexec(rows: Path, logs: Sequence[Path]) -> str:
    """Our "GPU" beside `trtexec`'s, engine by engine, as a Markdown table.

    Args:
        rows: .jsonl of the matrix; need not be there.
        logs: of the `trtexec` steps.

    Returns:
        The table; empty where no row of an engine has stages.
    """
    tool = [time_of for log in logs for time_of in trtexec_times(log.read_text(errors="replace"))]
    lines = []
    for row in _staged(rows):
        ours_ms = float(row["stages"]["GPU"]["p50_ms"])
        theirs_ms = next(
            (
                time_of.gpu_ms
                for time_of in tool
                if time_of.engine_sha256.startswith(row["engine_sha256"])
                and time_of.cuda_graph == (row["runtime"] == "tensorrt")
                and row["batch"] == 1  # Of more pictures the tool was not asked.
            ),
            None,
        )
        what = (row["encoder"], row["runtime"], row["precision"], str(row["batch"]))
        times = [f"{row['time']['p50_ms']:.3f}", f"{ours_ms:.3f}", "-", "-"]
        if theirs_ms is not None:
            times[2:] = [f"{theirs_ms:.3f}", f"{ours_ms / theirs_ms:.2f}"]
        lines.append(f"| {' | '.join((*what, *times))} |")
    if not lines:
        return ""
    head = (
        "| encoder | runtime | precision | batch | whole call p50, ms | GPU p50 | trtexec GPU | "
        "ratio |",
        "|---|---|---|---|---|---|---|---|",
    )
    return "\n".join((*head, *lines)) + "\n"


def _staged(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of engines whose parts were timed."""
    if not path.exists():
        return
    for text in path.read_text().splitlines():
        row: dict[str, Any] = json.loads(text)
        if row["kind"] == "measurement" and row["engine_sha256"] and row["stages"]:
            yield row
