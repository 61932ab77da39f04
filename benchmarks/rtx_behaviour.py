"""How our engine builder gets on with NVIDIA's, beyond building: progress, stopping, refusals.

One process of `benchmarks.rtx_check`: `python -m benchmarks.rtx_behaviour SITE FOLDER`.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.rtx_check import FINE, onnx_path, read_spec, use_tensorrt_rtx
from edge_runtime.engine_store import EngineOptions
from edge_runtime.errors import EngineError
from edge_runtime.preprocess import EncoderSpec

_OPTIONS = EngineOptions(refit=False)
_WORKSPACE_BYTES = 4 << 30


def behaviours(spec: EncoderSpec, onnx: Path) -> dict[str, str]:
    """What was tried, and "as it should" or what came instead.

    `use_tensorrt_rtx` must have been called.
    """
    checks: dict[str, Callable[[EncoderSpec, Path], str]] = {
        "the builder's progress arrives": _progress,
        "a timing cache is given back and taken again": _timing_cache,
        "hardware-compatible": _hardware_compatible,
        "Ctrl-C stops the builder": _stopped,
        "a cut file is refused with the parser's words": _cut_file,
        "a file of another size is refused": _other_size,
    }
    return {what: check(spec, onnx) for what, check in checks.items()}


def _progress(spec: EncoderSpec, onnx: Path) -> str:
    from edge_runtime.backends.trt_builder import build_plan

    seen: list[tuple[str, int, int]] = []
    build_plan(
        onnx,
        spec,
        _OPTIONS,
        workspace_bytes=_WORKSPACE_BYTES,
        progress=lambda *now: seen.append(now),
    )
    bad = [now for now in seen if not 0 <= now[1] <= now[2]]
    return FINE if seen and not bad else f"told {seen}"


def _timing_cache(spec: EncoderSpec, onnx: Path) -> str:
    from edge_runtime.backends.trt_builder import build_plan

    first = build_plan(onnx, spec, _OPTIONS, workspace_bytes=_WORKSPACE_BYTES)
    again = build_plan(
        onnx,
        spec,
        _OPTIONS,
        workspace_bytes=_WORKSPACE_BYTES,
        timing_cache=first.timing_cache,
    )
    return FINE if first.timing_cache and again.plan else "no cache was given"


def _hardware_compatible(spec: EncoderSpec, onnx: Path) -> str:
    from edge_runtime.backends.trt_builder import build_plan

    options = EngineOptions(refit=False, hardware_compatible=True)
    build_plan(onnx, spec, options, workspace_bytes=_WORKSPACE_BYTES)
    return FINE


def _stopped(spec: EncoderSpec, onnx: Path) -> str:
    from edge_runtime.backends.trt_builder import build_plan

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        build_plan(onnx, spec, _OPTIONS, workspace_bytes=_WORKSPACE_BYTES, progress=interrupt)
    except KeyboardInterrupt:
        return FINE
    return "it went on"


def _cut_file(spec: EncoderSpec, onnx: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "cut.onnx"
        cut.write_bytes(onnx.read_bytes()[:5000])
        return _refused(spec, cut, "refuses")


def _other_size(spec: EncoderSpec, onnx: Path) -> str:
    larger = replace(spec, height_px=spec.height_px * 2)
    return _refused(larger, onnx, "inputs and outputs")


def _refused(spec: EncoderSpec, onnx: Path, words: str) -> str:
    from edge_runtime.backends.trt_builder import build_plan

    try:
        build_plan(onnx, spec, _OPTIONS, workspace_bytes=_WORKSPACE_BYTES)
    except EngineError as error:
        return FINE if words in str(error) else f"refused with {error}"
    return "it was built"


if __name__ == "__main__":
    use_tensorrt_rtx(Path(sys.argv[1]))
    given = Path(sys.argv[2])
    print(json.dumps(behaviours(read_spec(given), onnx_path(given, "fp16"))))
