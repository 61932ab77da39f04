"""Everything that needs an NVIDIA GPU and has to be shown on one, in one command.

A step that fails ends nothing but the steps that need it. The summary says what passed, with
figures, and is meant to be pasted into docs/gpu.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.gpu_matrix import MATRIX_ROWS, TRTEXEC, against_trtexec
from benchmarks.gpu_steps import ENCODERS, LATENCY_ROWS, gpu_steps
from benchmarks.rows import provenance
from benchmarks.steps import Outcome, all_passed, run_steps, table
from edge_runtime.backends.trt_library import require_tensorrt
from edge_runtime.command_line import run_command
from edge_runtime.cuda_device import cuda_device_count
from edge_runtime.errors import InputError


def gpu_check(out: Path, checkpoints: Mapping[str, Path | None]) -> list[Outcome]:
    """Run all steps into a new folder.

    Args:
        out: gets `logs`, `work` and `summary.md`.
        checkpoints: of each encoder by its short name; None for random weights.

    Raises:
        EngineError: no GPU, no TensorRT or no pycuda: nothing was run.
    """
    platform = require_tensorrt()
    made = provenance()
    machine = [
        f"{made['measured_utc']}, commit {made['git_commit']}",
        f"{platform.gpu}, compute capability {platform.compute_capability}",
        f"driver {platform.driver}, CUDA {platform.cuda_driver} (driver), "
        f"{platform.cuda_runtime} (runtime), TensorRT {platform.tensorrt}",
    ]
    work = out / "work"
    steps = gpu_steps(work, checkpoints, gpus=cuda_device_count())
    outcomes = run_steps(steps, out / "logs", say=lambda line: print(line, flush=True))
    rows = {path.parent.name: path for path in sorted(work.glob(f"*/{LATENCY_ROWS}"))}
    logs = [out / "logs" / o.log for o in outcomes if o.log and o.name.endswith(TRTEXEC)]
    beside = against_trtexec(work / MATRIX_ROWS, logs)
    (out / "summary.md").write_text(summary(outcomes, rows, machine, beside))
    return outcomes


def summary(
    outcomes: Sequence[Outcome],
    latencies: Mapping[str, Path],
    machine: Sequence[str],
    beside: str = "",
) -> str:
    """Figures first, then every step.

    Args:
        outcomes: of the steps.
        latencies: files of rows by encoder.
        machine: lines on it.
        beside: our GPU times beside `trtexec`'s, a table; empty where there are none.
    """
    lines = ["# GPU check", "", *(f"* {line}" for line in machine), ""]
    lines += [
        "| encoder | backend, as it ran | precision | p50, ms | p90 | p99 | first call |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, path in latencies.items():
        for text in path.read_text().splitlines():
            row = json.loads(text)
            keys = ("p50_ms", "p90_ms", "p99_ms", "first_ms")
            times = (f"{row['time'][key]:.2f}" for key in keys)
            what = (name, f"{row['runtime']} ({row['provider']})", row["precision"])
            lines.append(f"| {' | '.join((*what, *times))} |")
    parts = ["\n".join(lines) + "\n", *([beside] if beside else []), table(outcomes)]
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when all passed, 1 when a step failed, 2 where there is no GPU or TensorRT."""
    parser = argparse.ArgumentParser(
        prog="make gpu-check", description="Run everything that needs an NVIDIA GPU."
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        default=[],
        help="trained encoders to use; by default ConvNeXt-T and -B with random weights",
    )
    parser.add_argument("--out", type=Path, default=Path("out/gpu-check"), help="folder of runs")
    args = parser.parse_args(argv)

    def run() -> int:
        names = [path.resolve().name for path in args.checkpoint]
        if len(set(names)) < len(names):
            msg = f"checkpoints are named {names}; give folders of different names"
            raise InputError(msg)
        checkpoints: dict[str, Path | None] = dict.fromkeys(ENCODERS)
        if args.checkpoint:
            checkpoints = dict(zip(names, args.checkpoint, strict=True))
        out = args.out / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        outcomes = gpu_check(out, checkpoints)
        passed = sum(outcome.verdict == "passed" for outcome in outcomes)
        print(f"{passed} of {len(outcomes)} steps passed. Next: read {out / 'summary.md'}")
        return 0 if all_passed(outcomes) else 1

    return run_command("gpu-check", run, stopped="stopped; the logs of finished steps are kept")


if __name__ == "__main__":
    sys.exit(main())
