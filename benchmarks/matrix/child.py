"""One measurement in a process of its own: memory and crashes stay apart.

Order matters: memory is read before the pictures of the quality are touched, and nothing but the
encoder's own library is loaded before that.
"""

import importlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.clock_cost import clock_cost_ns
from benchmarks.energy.meter import measured, open_meter
from benchmarks.latency import on_cpu
from benchmarks.machine import WorkWatch
from benchmarks.matrix.device_stages import device_stages, stages_note
from benchmarks.matrix.pictures import load_pictures
from benchmarks.matrix.quality import Embedded, embed_all, quality
from benchmarks.matrix.runtimes import FlownRuntime, Runtime, open_runtime
from benchmarks.matrix.task import Task
from benchmarks.measurement import Energy, Limit, MeasurementRow, Quality
from benchmarks.memory_use import MemoryWatch
from benchmarks.rows import append_rows, provenance
from benchmarks.timing import TimedCalls, timed_for
from edge_runtime.artefact import sha256_of_json, write_atomically
from edge_runtime.backends.protocol import check_probes
from edge_runtime.bundle import Bundle
from edge_runtime.command_line import run_command
from edge_runtime.errors import GateError, SkyfixError
from edge_runtime.gates import run_gates

U8 = npt.NDArray[np.uint8]

_LIBRARIES = {"torch": "torch", "ort": "onnxruntime", "openvino": "openvino"}
_WARMUP_CALLS = 3
_WARMUP_SHARE = 0.1
_STAGES_SHARE = 0.2
"""Of the seconds: more calls, after the total's, for its parts."""
_VARIED = 8
"""Different calls' worth of pictures, taken in turn."""


def measure(task: Task) -> MeasurementRow:
    """Time an encoder, then judge it.

    Raises:
        SkyfixError: it cannot run here, or fails the gates that it passed when exported.
    """
    work = WorkWatch()
    _load_library(task.runtime)
    watch = MemoryWatch()
    runtime = _opened(task)
    watch.look()
    times, energy = _timed(task, runtime)
    here = work.machine()
    memory = watch.memory()
    summary = times.summary(items_per_call=task.batch)
    stages = device_stages(
        runtime,
        _calls(task),
        seconds=_STAGES_SHARE * task.seconds,
        least_calls=task.least_calls,
    )
    notes = [*runtime.info.notes, clock_cost_ns().note(summary.p50_ms), stages_note(stages)]
    judged, gates = _judged(task, runtime)
    limit, doubt = _limit(task, runtime, summary.p50_ms)
    notes += [gates, doubt]
    bundle = Bundle.open(task.bundle)
    compile_s = None
    if task.runtime == "torch-compiled":
        compile_s = max(0.0, (times.first_ms - summary.p50_ms) / 1e3)
    info = runtime.info
    return MeasurementRow(
        **provenance(),
        protocol="latency",
        encoder=task.encoder,
        architecture=bundle.spec.architecture,
        weights=task.weights,
        runtime=task.runtime,
        provider=info.provider,
        precision=task.precision,
        library=info.library,
        threads=info.threads,
        batch=task.batch,
        height_px=bundle.spec.height_px,
        width_px=bundle.spec.width_px,
        run=task.run,
        fallback=info.fallback,
        model_sha256=info.model_sha256,
        engine_sha256=info.engine.rpartition(" ")[2],
        bundle_id=bundle.id,
        machine=here,
        time=summary,
        stages=stages,
        memory=memory,
        load_s=info.load_s,
        build_s=info.build_s,
        compile_s=compile_s,
        quality=judged,
        limit=limit,
        energy=energy,
        note="; ".join(note for note in notes if note),
    )


def _load_library(runtime: str) -> None:
    """Import what the runtime needs, so that its memory counts as the library's."""
    # OpenVINO's would send a usage report; see edge_runtime/backends/openvino_cpu.py.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    name = _LIBRARIES.get(runtime.partition("-")[0])
    if name is not None and importlib.util.find_spec(name) is not None:
        importlib.import_module(name)


def _opened(task: Task) -> Runtime:
    return open_runtime(
        task.runtime,
        task.precision,
        bundle=task.bundle,
        checkpoint=task.checkpoint,
        engines=task.engines,
        batch=task.batch,
        threads=task.threads,
    )


def _timed(task: Task, runtime: Runtime) -> tuple[TimedCalls, Energy]:
    """Time calls while the machine's meter counts, where it has one."""
    calls = _calls(task)
    made: list[TimedCalls] = []

    def work() -> int:
        found = timed_for(
            lambda k: runtime.embed(calls[k % len(calls)]),
            seconds=task.seconds,
            least_calls=task.least_calls,
            warmup=_WARMUP_CALLS,
            warmup_s=_WARMUP_SHARE * task.seconds,
            synchronise=runtime.synchronise,
        )
        made.append(found)
        return found.warmup + len(found.calls_ms)

    energy = measured(open_meter(_device(runtime)), work)
    if not made:  # No meter: then the calls are left to us.
        work()
    return made[0], energy


def _device(runtime: Runtime) -> Literal["cpu", "gpu"]:
    provider = runtime.info.provider
    return "cpu" if on_cpu(provider) or provider.startswith("torch cpu") else "gpu"


def _limit(task: Task, runtime: Runtime, p50_ms: float) -> tuple[Limit | None, str]:
    """The roofline of the file that ran, or of the FP32 one for torch, and what makes it doubtful.

    Counted and held against the ceilings only now: both need libraries and memory.
    """
    from benchmarks.roofline.ceilings import Ceilings, ceilings_of
    from benchmarks.roofline.graph_cost import graph_cost
    from benchmarks.roofline.limit import doubt, limit_of

    try:
        if _device(runtime) == "gpu":
            ceilings = ceilings_of("gpu")
        else:
            told = task.ceilings.read_text()
            if not told:
                return None, "no limit: this machine's ceilings could not be measured"
            ceilings = Ceilings(**json.loads(told))
        bundle = Bundle.open(task.bundle)
        shipped = "fp16" if task.precision == "bf16" else task.precision  # As many bytes.
        path = bundle.root / f"encoder.{shipped}.onnx"
        cost = graph_cost(path, task.batch, (bundle.spec.height_px, bundle.spec.width_px))
        limit = limit_of(cost, ceilings, task.precision, p50_ms)
    except SkyfixError as error:
        return None, f"no limit: {error}"
    return limit, doubt(limit)


def make_ceilings(task: Task) -> None:
    """Measure what this machine's CPU can do at best, with the threads of the measurements.

    Raises:
        BackendError: it cannot be measured.
    """
    from benchmarks.roofline.ceilings import cpu_ceilings

    values = json.dumps(asdict(cpu_ceilings(task.threads)))
    task.ceilings.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(task.ceilings, (values + "\n").encode())


def _calls(task: Task) -> list[U8]:
    """(N, H, W, 3) batches of the pictures' queries, each beginning with another one."""
    queries = load_pictures(task.pictures).queries
    order = np.arange(min(_VARIED, len(queries)))[:, None] + np.arange(task.batch)[None, :]
    return [np.ascontiguousarray(queries[row % len(queries)]) for row in order]


def _judged(task: Task, runtime: Runtime) -> tuple[Quality, str]:
    """The quality, and what to say of the gates.

    Raises:
        BackendError: an encoder that passed the gates of the export fails those of flight.
    """
    found = load_pictures(task.pictures)
    by, reference = _reference(task)
    told = ""
    if task.gated and isinstance(runtime, FlownRuntime):
        check_probes(Bundle.open(task.bundle), runtime.backend)
    asked = {
        "commit": provenance()["git_commit"],
        "pictures": [task.pictures.name, task.reference.name],
        "trained": task.trained,
        "runtime": [task.runtime, task.precision, task.batch, task.threads],
        "ran": [runtime.info.model_sha256, runtime.info.engine, runtime.info.provider],
        "library": runtime.info.library,
    }
    kept = task.kept / f"{sha256_of_json(asked)[:16]}.json"
    if kept.exists():
        values = json.loads(kept.read_text())
        return Quality(**values["quality"]), str(values["gates"])
    embedded = embed_all(runtime.embed, found, task.batch)
    if not task.gated and task.precision != "bf16" and isinstance(runtime, FlownRuntime):
        try:
            run_gates(embedded.queries, reference.queries, task.precision)
        except GateError as error:
            told = f"random weights: gates, which they would not have to pass, say {error}"
    judged = quality(embedded, reference, found, by=by, trained=task.trained)
    kept.parent.mkdir(parents=True, exist_ok=True)
    values = {"quality": asdict(judged), "gates": told}
    write_atomically(kept, (json.dumps(values) + "\n").encode())
    return judged, told


def _reference(task: Task) -> tuple[str, Embedded]:
    """Name and embeddings of what all rows of an encoder are compared with."""
    by = "torch eager fp32" if task.checkpoint is not None else "ONNX Runtime fp32 on the CPU"
    with np.load(task.reference, allow_pickle=False) as arrays:
        return by, Embedded(arrays["queries"], arrays["tiles"])


def make_reference(task: Task) -> None:
    """Embed the pictures by torch eager FP32, or ONNX Runtime where the weights are not at hand.

    Raises:
        SkyfixError: it cannot run here.
    """
    runtime = open_runtime(
        "ort-cpu" if task.checkpoint is None else "torch-eager",
        "fp32",
        bundle=task.bundle,
        checkpoint=task.checkpoint,
        engines=task.engines,
        batch=1,
        threads=task.threads,
    )
    embedded = embed_all(runtime.embed, load_pictures(task.pictures), 1)
    task.reference.parent.mkdir(parents=True, exist_ok=True)
    temporary = task.reference.with_suffix(".part.npz")
    np.savez(temporary, **embedded._asdict())
    temporary.replace(task.reference)


def main(argv: Sequence[str] | None = None) -> int:
    """Do the task of a file, or make its reference or ceilings."""
    path, *what = sys.argv[1:] if argv is None else argv

    def run() -> None:
        task = Task.read(Path(path))
        match what:
            case ["reference"]:
                make_reference(task)
            case ["ceilings"]:
                make_ceilings(task)
            case _:
                append_rows(task.out, [measure(task)])

    return run_command("matrix", run, stopped="stopped")


if __name__ == "__main__":
    sys.exit(main())
