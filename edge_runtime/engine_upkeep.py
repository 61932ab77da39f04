"""Making engines with progress shown, preparing ONNX Runtime's provider, and mending both."""

import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path

from edge_runtime.backends.trt_engines import build_engine
from edge_runtime.backends.trt_library import require_tensorrt
from edge_runtime.bundle import Bundle
from edge_runtime.engine_check import CheckedEngine, check_engines
from edge_runtime.engine_files import remove_engine
from edge_runtime.engine_progress import BuildLine
from edge_runtime.engine_store import EngineOptions, EngineRecord, engines_of, list_records
from edge_runtime.errors import EngineError, SkyfixError


def build_shown(bundle: Bundle, options: EngineOptions) -> EngineRecord:
    """Build an engine and show on stderr how far it is; see `build_engine`."""
    progress = BuildLine()
    try:
        return build_engine(bundle, options, progress=progress)
    finally:
        progress.close()


def prepare_provider(bundle: Bundle, options: EngineOptions, *, asked: bool) -> dict[str, str]:
    """Prepare ONNX Runtime's TensorRT provider; where nobody asked for it, only if it works.

    Args:
        bundle: an opened bundle.
        options: of which precision, largest batch and folder are used.
        asked: whether a failure is an error, or a remark on stderr.

    Returns:
        The prepared folder by the backend's name; empty where there is none.

    Raises:
        SkyfixError: it was asked for and does not work here.
    """
    try:
        from edge_runtime.backends.ort import is_usable
        from edge_runtime.backends.trt_ort_cache import prepare_ort_tensorrt
    except ImportError as error:
        if not asked:
            return {}
        msg = f"onnxruntime cannot be loaded ({error}). Install it: pip install 'skyfix[gpu]'"
        raise EngineError(msg) from error
    if not asked and not is_usable("tensorrt"):
        return {}
    try:
        place = prepare_ort_tensorrt(
            bundle,
            precision=options.precision,
            max_batch=options.max_batch,
            out=options.out,
        )
    except SkyfixError as error:
        if asked:
            raise
        sys.stderr.write(f"skyfix: ort-tensorrt was not prepared: {error}\n")
        return {}
    return {"ort-tensorrt": str(place)}


def check_all(
    bundle: Bundle, folder: Path | None = None, *, this_machine: bool = True
) -> list[CheckedEngine]:
    """Check native engines and what was prepared for ONNX Runtime's TensorRT provider.

    Args:
        bundle: the encoder that is to fly.
        folder: where the engines lie; by default in the bundle.
        this_machine: whether to compare with it, or with the bundle alone.

    Raises:
        EngineError: there are engines to compare with this machine, and it lacks what runs them.
    """
    folder = folder or engines_of(bundle)
    there_are = any(list_records(folder))
    platform = require_tensorrt() if there_are and this_machine else None
    checked = check_engines(bundle, platform, folder)
    try:
        from edge_runtime.backends.trt_ort_cache import check_ort_tensorrt
    except ImportError:
        return checked
    return checked + check_ort_tensorrt(bundle, folder, this_machine=this_machine)


def rebuild(bundle: Bundle, checked: list[CheckedEngine], folder: Path | None) -> None:
    """Build again what does not fit with the options of before, then remove what that replaces.

    Raises:
        EngineError: as `build_engine`.
        GateError: as `build_engine`.
    """
    stale = [engine for engine in checked if not engine.fresh]
    if not checked:
        build_shown(bundle, EngineOptions(out=folder))
    wanted: list[EngineOptions] = []
    for engine in stale:
        if engine.path.is_dir():
            _prepare_again(bundle, engine.path, folder)
            continue
        options = _options_of(engine, folder)
        if options.precision is not None and options.precision not in bundle.precisions:
            options = replace(options, precision=None)
        options = options.for_bundle(bundle)
        if options not in wanted:
            wanted.append(options)
    written = {build_shown(bundle, options).name for options in wanted}
    for engine in stale:
        if not engine.path.is_dir() and engine.path.name not in written:
            remove_engine(engine.path)


def _options_of(engine: CheckedEngine, folder: Path | None) -> EngineOptions:
    if engine.record is None:
        return EngineOptions(out=folder)
    # The workspace was decided for the memory that was free then: decide it anew.
    known = {field.name for field in fields(EngineOptions)} - {"workspace_bytes", "out"}
    kept = {name: value for name, value in engine.record.options.items() if name in known}
    return EngineOptions(**kept, out=folder)


def _prepare_again(bundle: Bundle, place: Path, folder: Path | None) -> None:
    from edge_runtime.backends.trt_ort_cache import prepared_for

    precision, max_batch = prepared_for(place)
    kept = next((p for p in bundle.precisions if p == precision), None)
    prepare_provider(
        bundle, EngineOptions(precision=kept, max_batch=max_batch, out=folder), asked=True
    )
    # One of another precision than before does not replace it by itself.
    if kept is None:
        shutil.rmtree(place, ignore_errors=True)
