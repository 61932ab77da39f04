"""ONNX to a TensorRT plan.

Precision lives in the ONNX file: the network is strongly typed, which TensorRT 10 must be asked
for and TensorRT 11 always is. TF32 is off, so what the file says is FP32 is computed in FP32. Only
calls that TensorRT 10.3 to 11.4 share are used. Not run on a GPU yet; its names and signatures are
checked against the published bindings.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tensorrt as trt

from edge_runtime.backends.trt_logger import TensorRtLog
from edge_runtime.engine_store import EngineOptions
from edge_runtime.errors import EngineError
from edge_runtime.preprocess import EncoderSpec

BuildProgress = Callable[[str, int, int], None]
"""Told the phase's name, steps done and steps in it."""

_INPUT, _OUTPUT = "images", "embeddings"
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class BuiltPlan:
    """What a builder gave."""

    plan: bytes
    profiles: list[list[int]]
    """Smallest, best and largest batch of every optimisation profile."""
    timing_cache: bytes
    log: list[str]
    seconds: float


class _Monitor(trt.IProgressMonitor):  # type: ignore[misc]
    """Notes how far the builder is and tells it to stop.

    TensorRT calls it from threads of its own, where nothing can be raised, so it only keeps values.
    """

    def __init__(self) -> None:
        trt.IProgressMonitor.__init__(self)
        self.cancelled = threading.Event()
        self.now: tuple[str, int, int] | None = None
        self._steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        self._steps[phase_name] = num_steps
        self.now = (phase_name, 0, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        self.now = (phase_name, step + 1, self._steps.get(phase_name, step + 1))
        return not self.cancelled.is_set()

    def phase_finish(self, phase_name: str) -> None:
        steps = self._steps.pop(phase_name, 0)
        self.now = (phase_name, steps, steps)


def batch_profiles(max_batch: int) -> list[list[int]]:
    """Optimisation profiles: one image for flight, and one to `max_batch` for making indexes."""
    return [[1, 1, 1]] + ([[1, max_batch, max_batch]] if max_batch > 1 else [])


def build_plan(
    onnx: Path,
    spec: EncoderSpec,
    options: EngineOptions,
    *,
    workspace_bytes: int,
    timing_cache: bytes = b"",
    progress: BuildProgress | None = None,
) -> BuiltPlan:
    """Build a plan. CUDA must have counted a device before.

    Args:
        onnx: the encoder.
        spec: its shapes.
        options: how to build.
        workspace_bytes: scratch memory a layer may use.
        timing_cache: kernel times of earlier builds by the same TensorRT on the same GPU.
        progress: called from this thread some times a second. What it raises stops the build.

    Raises:
        EngineError: TensorRT refuses the file, gives no plan, or runs out of memory.
        KeyboardInterrupt: the user stopped it; the builder has returned.
    """
    started = time.perf_counter()
    log = TensorRtLog()
    try:
        builder = trt.Builder(log)
    except TypeError as error:
        msg = f"TensorRT {trt.__version__} cannot make a builder here: {log.why()}"
        raise EngineError(f"{msg}. See skyfix doctor") from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx)):
        raise EngineError(_refused(onnx, [parser.get_error(k) for k in range(parser.num_errors)]))
    _check_ends(network, onnx, spec)

    config = builder.create_builder_config()
    config.builder_optimization_level = options.optimisation_level
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    profiles = batch_profiles(options.max_batch)
    for batches in profiles:
        profile = builder.create_optimization_profile()
        shapes = [(batch, spec.height_px, spec.width_px, 3) for batch in batches]
        profile.set_shape(_INPUT, shapes[0], shapes[1], shapes[2])
        if config.add_optimization_profile(profile) < 0:
            msg = f"TensorRT refuses batches of {batches[0]} to {batches[2]}: {log.why()}"
            raise EngineError(f"{msg}. Try another --max-batch")
    # A cache of another GPU or version is not taken, and an empty one is started.
    if not config.set_timing_cache(config.create_timing_cache(timing_cache), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)

    monitor = _Monitor()
    config.progress_monitor = monitor
    plan = _built(builder, network, config, monitor, progress)
    if plan is None:
        raise EngineError(_no_plan(onnx, log, workspace_bytes, options))
    cache = config.get_timing_cache()
    return BuiltPlan(
        plan=plan,
        profiles=profiles,
        timing_cache=bytes(cache.serialize()) if cache is not None else b"",
        log=log.lines,
        seconds=time.perf_counter() - started,
    )


def _built(
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    monitor: _Monitor,
    progress: BuildProgress | None,
) -> bytes | None:
    """Build in a thread, so that this one can show progress and hear Ctrl-C."""
    given: list[bytes | None] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            plan = builder.build_serialized_network(network, config)
            given.append(None if plan is None else bytes(plan))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread.
            raised.append(error)

    thread = threading.Thread(target=work, name="engine builder")
    thread.start()
    shown = None
    try:
        while thread.is_alive():
            thread.join(_POLL_S)
            if progress is not None and monitor.now is not None and monitor.now != shown:
                shown = monitor.now
                progress(*shown)
    finally:
        monitor.cancelled.set()
        thread.join()
    if raised:
        msg = f"TensorRT failed while building ({' '.join(str(raised[0]).split())})"
        raise EngineError(f"{msg}; see skyfix doctor") from raised[0]
    return given[0]


def _refused(onnx: Path, errors: list[trt.ParserError]) -> str:
    reasons = []
    for error in errors:
        at = f"node {error.node()} {error.node_operator()} {error.node_name()}".rstrip()
        where = f"{at}, " if error.node() >= 0 else ""
        reasons.append(f"{' '.join(error.desc().split())} ({where}{error.code()})")
    return (
        f"TensorRT {trt.__version__} refuses {onnx}: "
        + ("; ".join(reasons) or "its parser gave no reason")
        + ". Export the bundle again, with another precision or encoder if this one is not "
        "supported"
    )


def _check_ends(network: trt.INetworkDefinition, onnx: Path, spec: EncoderSpec) -> None:
    """Refuse a network that does not take and give what the encoder's contract says."""
    found = [
        (tensor.name, str(tensor.dtype).rpartition(".")[2], tuple(tensor.shape))
        for tensor in (
            *(network.get_input(k) for k in range(network.num_inputs)),
            *(network.get_output(k) for k in range(network.num_outputs)),
        )
    ]
    expected = [
        (_INPUT, "UINT8", (-1, spec.height_px, spec.width_px, 3)),
        (_OUTPUT, "FLOAT", (-1, spec.embedding_size)),
    ]
    if found != expected:
        msg = f"{onnx} has inputs and outputs {found}; expected {expected}. Export it again"
        raise EngineError(msg)


def _no_plan(onnx: Path, log: TensorRtLog, workspace_bytes: int, options: EngineOptions) -> str:
    if log.ran_out_of_memory():
        return (
            f"the GPU ran out of memory while building {onnx.name} with a workspace of "
            f"{workspace_bytes / 2**30:.1f} GiB and batches up to {options.max_batch}: "
            f"{log.why()}. Close other programs (on a Jetson also the desktop), or give a smaller "
            "--max-batch, --workspace-gib or --optimisation-level"
        )
    return (
        f"TensorRT {trt.__version__} gives no engine for {onnx}: {log.why()}. Try another "
        "--optimisation-level, --no-refit or --precision fp32"
    )
