"""What has to be shown on a machine with an NVIDIA GPU, as a list of commands.

Each is a command that anyone could type. What one writes, later ones read from the same folder.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.gpu_matrix import matrix_steps, results_step
from benchmarks.gpu_training import training_steps
from benchmarks.steps import Step

ENCODERS = {
    "tiny": "convnext_tiny.fb_in22k_ft_in1k_384",
    "base": "convnext_base.fb_in22k_ft_in1k_384",
}
SIZE_PX = 384
LATENCY_ROWS = "latency.jsonl"
BACKENDS = ("tensorrt", "ort-tensorrt", "ort-cuda", "ort-cpu")


def gpu_steps(work: Path, checkpoints: Mapping[str, Path | None], *, gpus: int) -> list[Step]:
    """All steps, in order.

    Args:
        work: folder for what the steps write.
        checkpoints: of each encoder by its short name; None for random weights, which `ENCODERS`
            must know. The first one also flies.
        gpus: CUDA devices here.
    """
    steps = _machine() + _ground(work)
    for name, checkpoint in checkpoints.items():
        steps += _encoder(name, work, checkpoint) + _latencies(name, work) + _no_refit(name, work)
        weights = checkpoint or work / name / "checkpoint"
        steps += matrix_steps(name, work, weights, needs=(f"{name}-export",))
    steps.append(results_step(work, list(checkpoints)))
    return steps + _flight(next(iter(checkpoints)), work) + training_steps(work, gpus)


def latency_rows(work: Path, name: str) -> Path:
    """Where the latencies of an encoder are written."""
    return work / name / LATENCY_ROWS


def _machine() -> list[Step]:
    return [
        Step(
            name="driver",
            shows="the GPU, its driver and what else uses it",
            command=("nvidia-smi",),
            program="nvidia-smi",
        ),
        Step(name="doctor", shows="what skyfix finds here", command=_skyfix("doctor")),
        Step(
            name="versions",
            shows="installed packages",
            command=(sys.executable, "-m", "pip", "list", "--disable-pip-version-check"),
        ),
        Step(
            name="gpu-tests",
            shows="tests marked gpu",
            command=(sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-m", "gpu", "tests"),
        ),
    ]


def _ground(work: Path) -> list[Step]:
    return [
        Step(
            name="world",
            shows="imagery and a flight to try on",
            command=_python(
                *("train", "world", str(work / "world"), "--train-m", "800"),
                *("--train-photos", "256", "--held-out-m", "600", "--flights", "1"),
                *("--frames", "40"),
            ),
        )
    ]


def _encoder(name: str, work: Path, given: Path | None) -> list[Step]:
    """One encoder from weights to a refitted engine."""
    checkpoint = given or work / name / "checkpoint"
    other, bundle, other_bundle = (work / name / part for part in ("other", "bundle", "bundle-2"))
    made = [] if given is not None else [_random_weights(name, checkpoint)]
    has_checkpoint = tuple(step.name for step in made)
    nudge = ("--like", str(checkpoint), "--seed", "1", "--out", str(other))
    engine = ("engine", "build", str(bundle), "--precision", "fp16", "--for")
    return [
        *made,
        Step(
            name=f"{name}-export",
            shows=f"{name}: ONNX, FP32 and FP16, through its gates",
            command=_export(checkpoint, bundle),
            needs=has_checkpoint,
        ),
        Step(
            name=f"{name}-build",
            shows=f"{name}: FP16 engine, through its gates",
            command=_skyfix(*engine, "tensorrt"),
            needs=(f"{name}-export",),
        ),
        Step(
            name=f"{name}-build-again",
            shows=f"{name}: a second build, which reads the timing cache",
            command=_skyfix(*engine, "tensorrt", "--out", str(work / name / "again")),
            needs=(f"{name}-build",),
        ),
        Step(
            name=f"{name}-ort-cache",
            shows=f"{name}: ONNX Runtime's TensorRT provider prepared",
            command=_skyfix(*engine, "ort-tensorrt"),
            needs=(f"{name}-export",),
        ),
        Step(
            name=f"{name}-verify",
            shows=f"{name}: the engine answers as the trained encoder",
            command=_skyfix("bundle", "verify", str(bundle), "--backend", "tensorrt"),
            needs=(f"{name}-build",),
        ),
        Step(
            name=f"{name}-auto",
            shows=f"{name}: the backend that `auto` takes answers as the trained encoder",
            command=_skyfix("bundle", "verify", str(bundle), "--backend", "auto"),
            needs=(f"{name}-export",),
        ),
        Step(
            name=f"{name}-check",
            shows=f"{name}: no engine is stale",
            command=_skyfix("engine", "check", str(bundle)),
            needs=(f"{name}-build",),
        ),
        Step(
            name=f"{name}-trtexec",
            shows=f"{name}: NVIDIA's own tool loads and runs the plan",
            command=(
                *("bash", "-c"),
                f"trtexec --loadEngine=$(ls {work / name}/bundle/engines/*.engine | head -1)",
            ),
            needs=(f"{name}-build",),
            program="trtexec",
        ),
        Step(
            name=f"{name}-other-weights",
            shows=f"{name}: the same network, trained on",
            command=_python("benchmarks.random_checkpoint", *nudge),
            needs=has_checkpoint,
        ),
        Step(
            name=f"{name}-other-export",
            shows=f"{name}: its bundle",
            command=_export(other, other_bundle),
            needs=(f"{name}-other-weights",),
        ),
        Step(
            name=f"{name}-refit",
            shows=f"{name}: new weights in the engine, through its gates",
            command=_skyfix(
                *("engine", "refit", str(other_bundle), "--from", str(bundle)),
                *("--precision", "fp16"),
            ),
            needs=(f"{name}-build", f"{name}-other-export"),
        ),
        Step(
            name=f"{name}-refit-verify",
            shows=f"{name}: the refitted engine answers as the new encoder",
            command=_skyfix("bundle", "verify", str(other_bundle), "--backend", "tensorrt"),
            needs=(f"{name}-refit",),
        ),
    ]


def _random_weights(name: str, checkpoint: Path) -> Step:
    return Step(
        name=f"{name}-checkpoint",
        shows=f"{name}: {ENCODERS[name]}, random weights",
        command=_python(
            *("benchmarks.random_checkpoint", ENCODERS[name], "--size-px", str(SIZE_PX)),
            *("--out", str(checkpoint)),
        ),
    )


def _latencies(name: str, work: Path) -> list[Step]:
    needs = {"tensorrt": f"{name}-build", "ort-tensorrt": f"{name}-ort-cache"}
    bundle = work / name / "bundle"
    return [
        _latency(name, bundle, latency_rows(work, name), backend, needs.get(backend))
        for backend in BACKENDS
    ]


def _latency(name: str, bundle: Path, rows: Path, backend: str, needs: str | None) -> Step:
    precision = "fp32" if backend == "ort-cpu" else "fp16"
    return Step(
        name=f"{name}-latency-{backend}",
        shows=f"{name}: time of one image, {precision}",
        command=_python(
            *("benchmarks", "latency", "--bundle", str(bundle), "--backend", backend),
            *("--precision", precision, "--batch", "1", "--out", str(rows)),
            *("--calls", "20" if backend == "ort-cpu" else "500"),
        ),
        needs=(needs or f"{name}-export",),
    )


def _no_refit(name: str, work: Path) -> list[Step]:
    """What being refittable costs: the same bundle with an engine that is not."""
    plain = f"{name}-no-refit"
    bundle, copy = work / name / "bundle", work / plain / "bundle"
    return [
        Step(
            name=f"{plain}-bundle",
            shows=f"{name}: its bundle again, without engines",
            command=(
                *("bash", "-c"),
                f"mkdir -p {copy.parent} && cp -r {bundle} {copy} && rm -rf {copy}/engines",
            ),
            needs=(f"{name}-export",),
        ),
        Step(
            name=f"{plain}-build",
            shows=f"{name}: FP16 engine that takes no new weights",
            command=_skyfix(
                *("engine", "build", str(copy), "--precision", "fp16", "--for", "tensorrt"),
                "--no-refit",
            ),
            needs=(f"{plain}-bundle",),
        ),
        _latency(plain, copy, latency_rows(work, plain), "tensorrt", f"{plain}-build"),
    ]


def _flight(name: str, work: Path) -> list[Step]:
    """An index and a flight on TensorRT. Random weights find nothing; all stages run."""
    held_out = work / "world" / "held_out"
    flight = held_out / "flight_1"
    bundle, index = work / name / "bundle", work / "index"
    return [
        Step(
            name="index",
            shows="an index embedded in batches by TensorRT",
            command=_python(
                *("export", "index", "--imagery", str(held_out / "imagery.tif")),
                *("--bundle", str(bundle), "--out", str(index), "--tile-m", "100"),
                *("--backend", "tensorrt"),
            ),
            needs=("world", f"{name}-build"),
        ),
        Step(
            name="flight",
            shows="skyfix run on TensorRT, all frames",
            command=_skyfix(
                *("run", "--bundle", str(bundle), "--index", str(index)),
                *("--source", str(flight / "frames"), "--camera", str(held_out / "camera.json")),
                *("--telemetry", str(flight / "telemetry.csv"), "--backend", "tensorrt"),
                *("--out", str(work / "flight.jsonl")),
            ),
            needs=("index",),
        ),
    ]


def _export(checkpoint: Path, bundle: Path) -> tuple[str, ...]:
    return _python("export", "bundle", "--checkpoint", str(checkpoint), "--out", str(bundle))


def _skyfix(*arguments: str) -> tuple[str, ...]:
    return _python("edge_runtime", *arguments)


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)
