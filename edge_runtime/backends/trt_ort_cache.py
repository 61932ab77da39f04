"""Engines of ONNX Runtime's TensorRT provider: prepared on the ground, checked before flight.

The provider builds an engine when it finds none that fits, which would take minutes in flight and
says nothing. So a prepared folder carries a record of what it was made from and on, with the sha256
of every file, and a folder that differs is refused before the provider sees it. A folder is filled
under a temporary name and renamed once; its name ends in a digest, so a new one stands beside the
old until it is whole. Not run on a GPU yet.
"""

import json
import os
import shutil
from pathlib import Path

import onnxruntime

from edge_runtime.artefact import sha256_of, sha256_of_json, write_atomically
from edge_runtime.backends.ort import OrtBackend, tensorrt_options
from edge_runtime.bundle import Bundle
from edge_runtime.cuda_device import cuda_device
from edge_runtime.engine_check import CheckedEngine
from edge_runtime.engine_files import is_abandoned
from edge_runtime.engine_store import build_command, engines_of
from edge_runtime.errors import EngineError, GateError
from edge_runtime.gates import gate_encoder
from edge_runtime.precision import Precision

_RECORD = "prepared.json"
_PREFIX = "ort-tensorrt-"


def prepare_ort_tensorrt(
    bundle: Bundle,
    *,
    precision: Precision | None = None,
    max_batch: int = 32,
    out: Path | None = None,
) -> Path:
    """Let the provider build its engine, gate it, and keep its cache.

    Args:
        bundle: an opened bundle.
        precision: which ONNX file; by default fp16 where the bundle ships it, else fp32.
        max_batch: largest batch.
        out: folder to write into; by default `engines` in the bundle.

    Returns:
        The prepared folder.

    Raises:
        EngineError: the provider wrote no engine, or the disk is full.
        BackendError: no GPU, no such provider, or it does not take the encoder.
        GateError: it answers otherwise than the trained encoder; nothing is kept.
    """
    precision = precision or default_precision(bundle)
    origin = _origin(bundle, precision)
    folder = out or engines_of(bundle)
    temporary = folder / f".{_PREFIX}{precision}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f".{_PREFIX}*.tmp"):
            if is_abandoned(leftover) or leftover == temporary:
                shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir()
        backend = _backend(bundle, precision, temporary, max_batch)
        try:
            images, reference = bundle.probes()
            report = gate_encoder(
                backend.embed,
                images,
                reference,
                precision,
                where=f"ONNX Runtime's TensorRT provider in {precision}",
                batches=(1, max_batch),
            )
        finally:
            backend.close()
        files = _digests(temporary)
        if not any(name.endswith(".engine") for name in files):
            msg = (
                f"ONNX Runtime {onnxruntime.__version__} wrote no engine for {bundle.root}: its "
                "TensorRT does not take this encoder. Use --for tensorrt"
            )
            raise EngineError(msg)
        record = {
            "origin": origin,
            "max_batch": max_batch,
            "files": files,
            "gates": report.to_json(),
        }
        text = (json.dumps(record, indent=1) + "\n").encode()
        write_atomically(temporary / _RECORD, text)
        place = folder / f"{_PREFIX}{precision}-{sha256_of_json(record)[:12]}"
        if place.exists():
            shutil.rmtree(place)
        temporary.rename(place)
    except GateError as error:
        msg = f"{error}. Nothing was kept; use --for tensorrt or --precision fp32"
        raise GateError(msg) from error
    except OSError as error:
        msg = f"{folder} cannot hold the provider's engines ({error.strerror or error})"
        raise EngineError(f"{msg}; free some space or choose another folder with --out") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for older in folder.glob(f"{_PREFIX}{precision}-*"):
        if older != place:
            shutil.rmtree(older, ignore_errors=True)
    return place


def open_ort_tensorrt(
    bundle: Bundle,
    *,
    precision: Precision | None = None,
    engines: Path | None = None,
    threads: int | None = None,
    notes: tuple[str, ...] = (),
) -> OrtBackend:
    """Open the provider on a prepared folder that fits this machine and bundle.

    Raises:
        EngineError: none was prepared, or what was differs; with the command that prepares it.
        BackendError: no GPU, or the provider is not available.
    """
    precision = precision or default_precision(bundle)
    folder = engines or engines_of(bundle)
    cuda_device()  # Without a GPU that is what to say first.
    checked = check_ort_tensorrt(bundle, folder, precision=precision)
    for engine in checked:
        if engine.fresh:
            record = json.loads((engine.path / _RECORD).read_text())
            name = f"{engine.path.name} {sha256_of_json(record)[:12]}"
            max_batch = int(record["max_batch"])
            return _backend(bundle, precision, engine.path, max_batch, threads, name, notes)
    wrong = ". ".join(f"{engine.path.name}: {engine.problem}" for engine in checked)
    msg = f"{folder} has no {'fresh ' if wrong else ''}engine of ONNX Runtime's TensorRT provider"
    reasons = f": {wrong}" if wrong else ""
    raise EngineError(f"{msg} for {precision}{reasons}. Run: {_command(bundle, precision)}")


def check_ort_tensorrt(
    bundle: Bundle,
    folder: Path,
    *,
    precision: Precision | None = None,
    this_machine: bool = True,
) -> list[CheckedEngine]:
    """Check the prepared folders, digests of their files included.

    Args:
        bundle: the encoder that is to fly.
        folder: where they lie.
        precision: only those of one precision.
        this_machine: whether to compare with it, or with the bundle alone.

    Raises:
        BackendError: comparing with this machine, and it has no GPU.
    """
    checked = []
    for place in sorted(folder.glob(f"{_PREFIX}{precision or ''}*")):
        of_place, _ = prepared_for(place)
        made_for = next((p for p in bundle.precisions if p == of_place), None)
        if made_for is None:
            problem = f"the bundle has no {of_place} encoder"
        else:
            problem = "; ".join(_off(place, _origin(bundle, made_for, here=this_machine)))
        checked.append(
            CheckedEngine(
                path=place,
                record=None,
                problem=problem,
                differences=[],
                command=_command(bundle, made_for) if problem else "",
            )
        )
    return checked


def _command(bundle: Bundle, precision: Precision | None) -> str:
    return f"{build_command(bundle.root, precision)} --for ort-tensorrt"


def prepared_for(place: Path) -> tuple[str, int]:
    """Precision and largest batch of a prepared folder; 32 where its record cannot be read."""
    precision = place.name.removeprefix(_PREFIX).partition("-")[0]
    try:
        return precision, int(json.loads((place / _RECORD).read_text())["max_batch"])
    except (OSError, ValueError, KeyError, TypeError):
        return precision, 32


def default_precision(bundle: Bundle) -> Precision:
    """fp16 where the bundle ships it, else fp32."""
    return "fp16" if "fp16" in bundle.precisions else "fp32"


def _backend(
    bundle: Bundle,
    precision: Precision,
    cache: Path,
    max_batch: int,
    threads: int | None = None,
    engine: str = "",
    notes: tuple[str, ...] = (),
) -> OrtBackend:
    shape = f"{bundle.spec.height_px}x{bundle.spec.width_px}x3"
    return OrtBackend(
        bundle,
        device="tensorrt",
        precision=precision,
        threads=threads,
        options=tensorrt_options(cache, cache, shape, max_batch),
        max_batch=max_batch,
        engine=engine,
        notes=notes,
    )


def _origin(bundle: Bundle, precision: Precision, *, here: bool = True) -> dict[str, str]:
    """What a prepared folder is tied to: an encoder and, where asked for, this machine."""
    onnx = bundle.onnx_path(precision)
    origin = {"onnx_sha256": bundle.manifest.files[onnx.name], "precision": precision}
    if here:
        device = cuda_device()
        origin |= {
            "onnxruntime": onnxruntime.__version__,
            "gpu": device.name,
            "compute_capability": device.compute_capability,
            "driver": device.driver,
            "cuda_driver": device.cuda_driver,
        }
    return origin


def _off(place: Path, origin: dict[str, str]) -> list[str]:
    """In what a prepared folder differs, and which of its files are not as they were."""
    try:
        record = json.loads((place / _RECORD).read_text())
        found, files = record["origin"], record["files"]
        off = [
            f"{name} is {found.get(name)}, here it is {value}"
            for name, value in origin.items()
            if found.get(name) != value
        ]
        int(record["max_batch"])
        now = _digests(place)
        changed = sorted(n for n in files.keys() | now.keys() if files.get(n) != now.get(n))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"it has no readable {_RECORD} ({' '.join(str(error).split())})"]
    return [*off, *(f"{name} was altered" for name in changed)]


def _digests(folder: Path) -> dict[str, str]:
    """sha256 of the files that must not change: kernel times may grow."""
    return {
        path.name: sha256_of(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in (".engine", ".profile")
    }
