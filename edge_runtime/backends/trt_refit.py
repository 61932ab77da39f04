"""New weights into a plan that was built for the same network.

The kernels stay, so it takes seconds where a build takes minutes. Not run on a GPU yet.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import tensorrt as trt

from edge_runtime.backends.trt_logger import TensorRtLog
from edge_runtime.backends.trt_runner import current_context, deserialized
from edge_runtime.engine_store import EngineRecord
from edge_runtime.errors import EngineError


@dataclass(frozen=True, kw_only=True)
class RefittedPlan:
    """What a refit gave."""

    plan: bytes
    log: list[str]
    seconds: float


def refit_plan(plan: bytes, record: EngineRecord, onnx: Path) -> RefittedPlan:
    """Put the weights of an ONNX file into a plan.

    Args:
        plan: bytes whose sha256 was compared with their sidecar.
        record: the sidecar.
        onnx: the same network with other weights.

    Raises:
        EngineError: the plan cannot be loaded or was not built for refitting, or a weight is
            missing, unnamed or of another shape.
    """
    started = time.perf_counter()
    log = TensorRtLog()
    with current_context():
        _runtime, engine = deserialized(plan, record, log)
        if not engine.refittable:
            msg = (
                f"{record.name} was built without room for other weights; expected a refittable "
                "engine. Build one with: skyfix engine build"
            )
            raise EngineError(msg)
        refitter = trt.Refitter(engine, log)
        parser = trt.OnnxParserRefitter(refitter, log)
        parsed = parser.refit_from_file(str(onnx))
        errors = [parser.get_error(k) for k in range(parser.num_errors)]
        missing = [weight or "(unnamed)" for weight in refitter.get_missing_weights()]
        if not parsed or missing or not refitter.refit_cuda_engine():
            reasons = [" ".join(error.desc().split()) for error in errors]
            if missing:
                reasons.append(f"weights missing: {', '.join(missing)}")
            reasons += log.errors
            msg = (
                f"{record.name} does not take the weights of {onnx} "
                f"({'; '.join(reasons) or 'TensorRT gave no reason'}); is it the same network? "
                "Build an engine with: skyfix engine build"
            )
            raise EngineError(msg)
        config = engine.create_serialization_config()
        # Before TensorRT 10.14 there is no such flag, and a refitted plan may not be refittable
        # again: what it is, is read back and written into the sidecar.
        keep_refittable = getattr(trt.SerializationFlag, "INCLUDE_REFIT", None)
        if keep_refittable is not None:
            config.set_flag(keep_refittable)
        serialized = engine.serialize_with_config(config)
        if serialized is None:
            msg = f"TensorRT cannot write {record.name} with its new weights: {log.why()}"
            raise EngineError(f"{msg}. Build it again with: skyfix engine build")
        return RefittedPlan(
            plan=bytes(serialized), log=log.lines, seconds=time.perf_counter() - started
        )
