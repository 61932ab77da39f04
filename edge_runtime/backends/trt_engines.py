"""Build and refit engines: from a bundle to a plan that passed its gates, or nothing at all.

`build_engine` is what `skyfix engine build` and `python -m export bundle --engine` call. TensorRT
and pycuda load inside the functions, after a GPU was counted. Not run on a GPU yet.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge_runtime.artefact import MANIFEST, write_atomically
from edge_runtime.backends.trt_library import require_tensorrt
from edge_runtime.bundle import Bundle
from edge_runtime.cuda_device import cuda_device
from edge_runtime.engine_check import differences
from edge_runtime.engine_files import read_plan, write_engine
from edge_runtime.engine_store import (
    ENGINES,
    SUFFIX,
    EngineOptions,
    EngineRecord,
    Platform,
    build_command,
    engine_name,
    engines_of,
    list_records,
    read_record,
    sidecar_name,
)
from edge_runtime.errors import EngineError, GateError
from edge_runtime.gates import gate_encoder
from edge_runtime.index_gate import gate_on_index
from edge_runtime.precision import Precision

if TYPE_CHECKING:
    from edge_runtime.backends.trt_builder import BuildProgress

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_MAX_WORKSPACE_BYTES = 8 << 30
_MIN_WORKSPACE_BYTES = 256 << 20


def build_engine(
    bundle: Bundle,
    options: EngineOptions | None = None,
    *,
    progress: "BuildProgress | None" = None,
) -> EngineRecord:
    """Build an engine for this machine, put it through the gates, and only then write it.

    Args:
        bundle: an opened bundle; it must lie where this machine may read it.
        options: how to build; the defaults are right for flight here.
        progress: told the builder's phase, steps done and steps in it, some times a second.

    Returns:
        The sidecar that was written.

    Raises:
        EngineError: no GPU, no TensorRT, TensorRT refuses, out of memory, or the disk is full.
        GateError: the engine answers otherwise than the trained encoder; nothing is written.
        BundleError: the bundle does not ship that precision.
        KeyboardInterrupt: stopped; an older engine is as it was.
    """
    options = (options or EngineOptions()).for_bundle(bundle)
    precision: Precision = options.precision or "fp32"
    onnx = bundle.onnx_path(precision, kernels="tensorrt")
    platform = require_tensorrt()
    folder = options.out or engines_of(bundle)
    _require_room(folder, 2 * onnx.stat().st_size)
    if options.hardware_compatible and cuda_device().integrated:
        msg = (
            f"{platform.gpu} shares its machine's memory, as Jetsons do, and TensorRT does not "
            "build hardware-compatible engines there; leave --hardware-compatible out"
        )
        raise EngineError(msg)
    workspace_bytes = options.workspace_bytes or default_workspace_bytes()

    from edge_runtime.backends.trt_builder import build_plan

    cache = timing_cache_path(platform) if options.timing_cache else None
    built = build_plan(
        onnx,
        bundle.spec,
        options,
        workspace_bytes=workspace_bytes,
        timing_cache=_read_if_there(cache),
        progress=progress,
    )
    if cache is not None and built.timing_cache:
        _keep(cache, built.timing_cache)
    record = EngineRecord(
        name=engine_name(bundle.spec, precision, options.max_batch, platform),
        plan_sha256="",
        plan_bytes=len(built.plan),
        bundle_id=bundle.id,
        onnx=onnx.name,
        onnx_sha256=bundle.manifest.files[onnx.name],
        weights_sha256=bundle.weights_sha256,
        architecture=bundle.spec.architecture,
        embedding_size=bundle.spec.embedding_size,
        height_px=bundle.spec.height_px,
        width_px=bundle.spec.width_px,
        precision=precision,
        profiles=built.profiles,
        platform=platform,
        refittable=options.refit,
        options=options.to_json() | {"workspace_bytes": workspace_bytes},
        build_seconds=round(built.seconds, 1),
        build_log=built.log,
        gates={},
    )
    return _gated_and_written(bundle, folder, built.plan, record, options.index)


def refit_engine(
    bundle: Bundle,
    source: Path,
    *,
    precision: Precision | None = None,
    out: Path | None = None,
    index: Path | None = None,
) -> EngineRecord:
    """Put a new bundle's weights into an engine built for the same network.

    Args:
        bundle: whose weights to take.
        source: an engine file, a folder of engines, or a bundle that has them.
        precision: which engine of a folder; by default fp16 where there is one.
        out: folder to write to; by default `engines` in the new bundle.
        index: a satellite index to look places up in, as the last gate.

    Returns:
        The sidecar that was written.

    Raises:
        EngineError: no such engine, of another encoder, size, precision, TensorRT or GPU, not built
            for refitting, or TensorRT does not take the weights.
        GateError: the engine answers otherwise than the new encoder; nothing is written.
    """
    path, old = _source_record(bundle, source, precision)
    onnx = bundle.onnx_path(old.precision, kernels="tensorrt")
    _refuse_another_network(bundle, old)
    if not old.refittable:
        msg = f"{old.name} was built without room for other weights; expected a refittable engine"
        raise EngineError(f"{msg}. Run: {build_command(bundle.root, old.precision)}")
    platform = require_tensorrt()
    of_platform = {"TensorRT", "GPU", "compute capability", "driver", "CUDA of the driver"}
    foreign = [d for d in differences(old, bundle, platform) if d.what in of_platform]
    if foreign:
        msg = f"{old.name} was built elsewhere: {'; '.join(map(str, foreign))}"
        raise EngineError(f"{msg}. Run: {build_command(bundle.root, old.precision)}")
    plan = read_plan(path.parent, old)

    from edge_runtime.backends.trt_refit import refit_plan

    refitted = refit_plan(plan, old, onnx)
    record = replace(
        old,
        plan_bytes=len(refitted.plan),
        bundle_id=bundle.id,
        onnx=onnx.name,
        onnx_sha256=bundle.manifest.files[onnx.name],
        weights_sha256=bundle.weights_sha256,
        platform=platform,
        build_seconds=round(refitted.seconds, 1),
        build_log=refitted.log,
        gates={},
        refitted_from=old.plan_sha256,
    )
    return _gated_and_written(bundle, out or engines_of(bundle), refitted.plan, record, index)


def default_workspace_bytes() -> int:
    """Half of what is free on the GPU, a quarter where the machine shares it; 256 MiB to 8 GiB."""
    device = cuda_device()
    free = device.total_bytes if device.free_bytes is None else device.free_bytes
    share = free // (4 if device.integrated else 2)
    return max(_MIN_WORKSPACE_BYTES, min(share, _MAX_WORKSPACE_BYTES))


def timing_cache_path(platform: Platform) -> Path:
    """Where kernel times are kept: one file for each TensorRT version and GPU."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    gpu = re.sub(r"[^A-Za-z0-9]+", "-", platform.gpu).strip("-")
    compute = platform.compute_capability.replace(".", "")
    return home / "skyfix" / f"timing-trt{platform.tensorrt}-sm{compute}-{gpu}.cache"


def _gated_and_written(
    bundle: Bundle, folder: Path, plan: bytes, record: EngineRecord, index: Path | None
) -> EngineRecord:
    from edge_runtime.backends.trt_runner import TensorRtRunner

    runner = TensorRtRunner(plan, record)
    try:
        gates = _gates(bundle, record, runner.embed)
        if index is not None:
            where = f"engine {record.name}"
            report = gate_on_index(bundle, index, runner.embed, record.precision, where=where)
            gates["on index"] = report.to_json()
        refittable = runner.refittable
    finally:
        runner.close()
    return write_engine(folder, plan, replace(record, gates=gates, refittable=refittable))


def _gates(bundle: Bundle, record: EngineRecord, embed: Callable[[U8], F32]) -> dict[str, Any]:
    """Gate one image at a time and full batches: each is a profile with kernels of its own."""
    images, reference = bundle.probes(record.precision)

    def embed_full(part: U8) -> F32:
        full = np.resize(part, (record.max_batch, *part.shape[1:]))
        return embed(full)[: len(part)]

    gates = {}
    for profile in record.profiles:
        batch = profile[2]
        where = f"engine {record.name}, {batch} image{'s' if batch > 1 else ''} at a time"
        try:
            report = gate_encoder(
                embed if batch == 1 else embed_full,
                images,
                reference,
                record.precision,
                where=where,
                batches=(batch,),
            )
        except GateError as error:
            refit = "--no-refit, " if record.refittable else ""
            msg = f"{error}. Nothing was written; try {refit}another --optimisation-level or"
            raise GateError(f"{msg} --precision fp32") from error
        gates[f"batch {batch}"] = report.to_json()
    return gates


def _source_record(
    bundle: Bundle, source: Path, precision: Precision | None
) -> tuple[Path, EngineRecord]:
    """The engine to refit.

    Raises:
        EngineError: there is none, or its sidecar cannot be believed.
    """
    if source.name.endswith(SUFFIX):
        return source, read_record(source.with_name(sidecar_name(source.name)))
    folder = source / ENGINES if (source / MANIFEST).exists() else source
    wanted: list[Precision] = [precision] if precision else ["fp16", "int8", "fp32"]
    problems = []
    found = []
    for path, record in list_records(folder):
        if isinstance(record, EngineError):
            problems.append(str(record))
        elif record.precision in wanted:
            found.append((path, record))
    if not found:
        msg = f"{source} has no {precision or ''} engine to refit".replace("  ", " ")
        reasons = f" ({'; '.join(problems)})" if problems else ""
        raise EngineError(f"{msg}{reasons}. Run: {build_command(bundle.root, precision)}")
    of_this_network = [f for f in found if not _network_differences(bundle, f[1])] or found
    return min(of_this_network, key=lambda f: (wanted.index(f[1].precision), -f[1].max_batch))


def _network_differences(bundle: Bundle, old: EngineRecord) -> list[str]:
    of_network = {"encoder", "input size", "embedding size", "precision"}
    return [str(d) for d in differences(old, bundle, None) if d.what in of_network]


def _refuse_another_network(bundle: Bundle, old: EngineRecord) -> None:
    if found := _network_differences(bundle, old):
        msg = f"{old.name} cannot take the weights of {bundle.root}: {'; '.join(found)}"
        raise EngineError(f"{msg}. Run: {build_command(bundle.root)}")


def _require_room(folder: Path, needed_bytes: int) -> None:
    """Refuse before minutes are spent where the result could not be written.

    Raises:
        EngineError: too little room, or the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        msg = f"{folder} cannot be made ({error.strerror}); choose another folder with --out"
        raise EngineError(msg) from error
    if not writable:
        msg = f"{folder} cannot be written; choose another folder with --out"
        raise EngineError(msg)
    if free < needed_bytes:
        msg = (
            f"{folder} has {free / 1e6:.0f} MB free, an engine and its predecessor need up to "
            f"{needed_bytes / 1e6:.0f} MB; free some space or choose another folder with --out"
        )
        raise EngineError(msg)


def _read_if_there(path: Path | None) -> bytes:
    try:
        return path.read_bytes() if path is not None else b""
    except OSError:
        return b""


def _keep(path: Path, data: bytes) -> None:
    """Write the timing cache where that is possible; a build does not fail for it."""
    with contextlib.suppress(OSError):
        try:
            write_atomically(path, data)
        finally:
            path.with_name(f".{path.name}.{os.getpid()}.tmp").unlink(missing_ok=True)
