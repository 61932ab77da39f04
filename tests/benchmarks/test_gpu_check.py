import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import benchmarks.cli
import edge_runtime.cli
import export.cli
import train.cli
from benchmarks import gpu_check
from benchmarks.gpu_matrix import RUNTIMES, against_trtexec, matrix_steps, trtexec_times
from benchmarks.gpu_steps import ENCODERS, gpu_steps, latency_rows
from benchmarks.rows import append_rows
from benchmarks.steps import Step, run_steps
from benchmarks.time_summary import time_summary
from edge_runtime.engine_store import Platform
from edge_runtime.errors import EngineError
from tests.benchmarks.measured_rows import gap, measured

PARSERS: Mapping[str, Callable[[], argparse.ArgumentParser]] = {
    "benchmarks": benchmarks.cli._parser,
    "edge_runtime": edge_runtime.cli._parser,
    "export": export.cli._parser,
    "train": train.cli._parser,
}
PLATFORM = Platform(
    tensorrt="10.3.0",
    gpu="Orin",
    compute_capability="8.7",
    driver="540.4.0",
    cuda_driver="12.6",
    cuda_runtime="12.6",
)


def no_gpu() -> Platform:
    msg = "no CUDA device was found (driver missing or no GPU)"
    raise EngineError(msg)


@pytest.mark.parametrize("given", [None, Path("trained")], ids=["random", "given"])
def test_every_command_is_one_that_its_program_takes(given: Path | None) -> None:
    checked = set()
    for step in gpu_steps(Path("work"), dict.fromkeys(ENCODERS, given), gpus=2):
        if "-m" in step.command:
            module = step.command.index("-m", step.command[1:3].count("torch.distributed.run") * 4)
            parser = PARSERS.get(step.command[module + 1])
            if parser is not None:
                parser().parse_args(step.command[module + 2 :])
                checked.add(step.command[module + 1])
    assert checked == set(PARSERS)


def test_steps_have_names_of_their_own_and_need_only_earlier_ones() -> None:
    names: list[str] = []
    for step in gpu_steps(Path("work"), dict.fromkeys(ENCODERS), gpus=1):
        assert set(step.needs) <= set(names), step.name
        names.append(step.name)
    assert len(set(names)) == len(names)


def test_both_encoders_are_built_run_refitted_and_timed_on_every_backend() -> None:
    text = [" ".join(s.command) for s in gpu_steps(Path("w"), dict.fromkeys(ENCODERS), gpus=1)]
    for name in ENCODERS:
        for words in (
            f"engine build w/{name}/bundle --precision fp16 --for tensorrt",
            f"bundle verify w/{name}/bundle --backend tensorrt",
            f"engine refit w/{name}/bundle-2 --from w/{name}/bundle",
            f"engine check w/{name}/bundle",
            *(f"{name}/bundle --backend {b} " for b in ("tensorrt", "ort-cuda", "ort-tensorrt")),
        ):
            assert any(words in line for line in text), words


def test_the_matrix_runs_every_runtime_of_the_gpu_into_one_file() -> None:
    steps = gpu_steps(Path("w"), dict.fromkeys(ENCODERS), gpus=1)
    matrix = [" ".join(s.command) for s in steps if s.name.endswith("-matrix")]
    assert len(matrix) == len(ENCODERS)
    for name, line in zip(ENCODERS, matrix, strict=True):
        assert f"--bundle w/{name}/bundle --checkpoint w/{name}/checkpoint" in line
        assert f"--runtime {' '.join(RUNTIMES)} --precision fp32 fp16 int8 --batch 1 8" in line
        assert line.endswith("--out w/matrix.jsonl")


# Of the forms that TensorRT 8 to 10 print.
SUMMARY = """[I] === Performance summary ===
[I] Latency: min = 5.3 ms, max = 13.3 ms, mean = 7.6 ms, median = 9.9 ms, percentile(99%) = 12.9 ms
[I] H2D Latency: min = 0.01 ms, max = 0.07 ms, mean = 0.01 ms, median = 0.008 ms
[I] GPU Compute Time: min = 5.3 ms, max = 13.3 ms, mean = 7.5 ms, median = {ms} ms, percentile(99%) = 1 ms
[I] Total GPU Compute Time: 2.96536 s
"""  # noqa: E501
LOG = "$ bash -c for engine in ...; do sha256sum; trtexec --useCudaGraph; done\n" + "".join(
    f"{sha256 * 64}  w/engines/x/{sha256}.engine\n"
    f"&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --useSpinWait\n"
    f"{SUMMARY.format(ms=plain)}"
    f"&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --useSpinWait --useCudaGraph\n"
    f"{SUMMARY.format(ms=graph)}"
    for sha256, plain, graph in (("a", 4.0, 2.0), ("b", 8.0, 6.0))
)


def test_the_times_of_trtexec_are_read_engine_by_engine() -> None:
    assert trtexec_times(LOG) == [
        ("a" * 64, False, 4.0),
        ("a" * 64, True, 2.0),
        ("b" * 64, False, 8.0),
        ("b" * 64, True, 6.0),
    ]


def test_our_gpu_time_stands_beside_that_of_the_same_engine(tmp_path: Path) -> None:
    rows, log = tmp_path / "rows.jsonl", tmp_path / "1.log"
    log.write_text(LOG)
    gpu = {"GPU": time_summary([3.0])}
    engine: dict[str, Any] = {"precision": "fp16", "stages": gpu, "encoder": "tiny-384"}
    append_rows(
        rows,
        [
            measured(5.0, runtime="tensorrt", engine_sha256="a" * 12, **engine),
            measured(5.0, runtime="tensorrt-no-graph", engine_sha256="b" * 12, **engine),
            measured(9.0, runtime="tensorrt", engine_sha256="b" * 12, batch=8, **engine),
            measured(5.0, runtime="torch-eager", stages=gpu),
            gap(),
        ],
    )
    lines = against_trtexec(rows, [log]).splitlines()
    assert [line.split(" | ")[1:] for line in lines[2:]] == [
        ["tensorrt", "fp16", "1", "5.000", "3.000", "2.000", "1.50 |"],
        ["tensorrt-no-graph", "fp16", "1", "5.000", "3.000", "8.000", "0.38 |"],
        ["tensorrt", "fp16", "8", "9.000", "3.000", "-", "- |"],
    ]
    assert against_trtexec(tmp_path / "none.jsonl", []) == ""


def test_every_engine_of_the_matrix_goes_through_trtexec_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a program of that name which says what it was given."""
    programs = tmp_path / "bin"
    programs.mkdir()
    tool = programs / "trtexec"
    tool.write_text(
        '#!/bin/sh\necho "&&&& RUNNING # trtexec $*"\necho "GPU Compute Time: median = 1.5 ms"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    step = replace(matrix_steps("tiny", tmp_path, tmp_path, ())[1], needs=())
    (outcome,) = run_steps([step], tmp_path / "none")
    assert outcome.verdict == "failed"  # No engine is no measurement.
    engines = tmp_path / "tiny" / "matrix" / "engines" / "id"
    engines.mkdir(parents=True)
    (engines / "one.engine").write_bytes(b"plan")
    (outcome,) = run_steps([step], tmp_path / "logs")
    assert outcome.verdict == "passed"
    sha256 = hashlib.sha256(b"plan").hexdigest()
    log = (tmp_path / "logs" / outcome.log).read_text()
    assert trtexec_times(log) == [(sha256, False, 1.5), (sha256, True, 1.5)]


def test_two_gpus_are_needed_for_nccl_and_one_is_no_failure() -> None:
    def nccl(gpus: int) -> Step:
        return gpu_steps(Path("w"), dict.fromkeys(ENCODERS), gpus=gpus)[-1]

    assert nccl(1).left_out == "needs two GPUs, here is 1"
    assert nccl(2).left_out == ""


def test_a_machine_without_a_gpu_gets_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "require_tensorrt", no_gpu)
    assert gpu_check.main(["--out", str(tmp_path / "runs")]) == 2
    assert capsys.readouterr().err == (
        "gpu-check: no CUDA device was found (driver missing or no GPU)\n"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("code", "status"), [("print('ok')", 0), ("raise SystemExit(3)", 1)])
def test_the_exit_status_says_whether_all_passed(
    code: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps(work: Path, checkpoints: Mapping[str, Path | None], *, gpus: int) -> list[Step]:
        row = {"runtime": "tensorrt", "provider": "TensorRT", "precision": "fp16"}
        times = {"p50_ms": 1.234, "p90_ms": 2.0, "p99_ms": 3.0, "first_ms": 40.0}
        path = latency_rows(work, "tiny")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**row, "time": times}) + "\n")
        return [Step(name="only", shows="it", command=(sys.executable, "-c", code))]

    monkeypatch.setattr(gpu_check, "require_tensorrt", lambda: PLATFORM)
    monkeypatch.setattr(gpu_check, "gpu_steps", steps)
    assert gpu_check.main(["--out", str(tmp_path)]) == status
    (summary,) = tmp_path.glob("*/summary.md")
    text = summary.read_text()
    assert "Orin, compute capability 8.7" in text
    assert "| tiny | tensorrt (TensorRT) | fp16 | 1.23 | 2.00 | 3.00 | 40.00 |" in text
    assert "| only | it | " in text


def test_checkpoints_of_one_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_check.main(["--checkpoint", "a/best", "b/best", "--out", str(tmp_path)]) == 2
    assert "give folders of different names" in capsys.readouterr().err


@pytest.mark.slow
def test_up_to_the_gpu_every_step_really_runs(tmp_path: Path) -> None:
    """With a tiny network: other weights, a bundle, and one backend's times."""
    from benchmarks.random_checkpoint import random_checkpoint

    given = tmp_path / "small"
    random_checkpoint("test_convnext", 64, given)
    steps = gpu_steps(tmp_path / "work", {"small": given}, gpus=0)
    names = ("small-export", "small-other-weights", "small-latency-ort-cpu")
    outcomes = run_steps([s for s in steps if s.name in names], tmp_path / "logs")
    assert [o.verdict for o in outcomes] == ["passed"] * 3, [o.note for o in outcomes]
    (row,) = latency_rows(tmp_path / "work", "small").read_text().splitlines()
    assert json.loads(row)["time"]["p50_ms"] > 0
