"""What an engine is: its options, its sidecar, its name, and finding the ones of a folder.

An engine is a raw TensorRT plan that NVIDIA's own tools open. Beside it lies a sidecar of the same
name with `.json`: what it was made from, by what, on what, and how its gates came out. A plan
without a sidecar is not believed. Nothing here needs TensorRT.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edge_runtime.artefact import sha256_of_json
from edge_runtime.bundle import Bundle
from edge_runtime.errors import EngineError
from edge_runtime.precision import Precision
from edge_runtime.preprocess import EncoderSpec

ENGINES = "engines"
"""Folder in a bundle. The bundle's manifest does not list it: engines are made on the device."""
SCHEMA = 1
SUFFIX = ".engine"


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How to build an engine. The defaults are right for flight on the machine that builds."""

    precision: Precision | None = None
    """Which ONNX file; by default fp16 where the bundle ships it, else fp32."""
    max_batch: int = 32
    """Largest batch, for making indexes; flight uses a profile for one image of its own."""
    optimisation_level: int = 3
    """0 builds fastest, 5 searches longest for a faster engine; TensorRT's default is 3."""
    workspace_bytes: int | None = None
    """Scratch memory a layer may use; by default a share of the device's memory."""
    version_compatible: bool = False
    """Let newer TensorRT versions run the plan too; slower, larger, and never refittable: the lean
    runtime that such a plan carries cannot refit."""
    hardware_compatible: bool = False
    """Let all GPUs from Ampere (compute capability 8.0) on run the plan; slower; not on Jetsons."""
    refit: bool = True
    """Allow new weights to be put in later."""
    timing_cache: bool = True
    """Keep measured kernel times on disk, so the next build is faster."""
    out: Path | None = None
    """Folder to write to; by default `engines` in the bundle."""
    index: Path | None = None
    """A satellite index to look places up in, as the last gate."""

    def __post_init__(self) -> None:
        """Refuse what no builder takes."""
        if self.max_batch < 1 or not 0 <= self.optimisation_level <= 5:
            msg = (
                f"max_batch is {self.max_batch} and optimisation_level {self.optimisation_level}; "
                "expected at least 1, and 0 to 5"
            )
            raise EngineError(msg)
        if self.workspace_bytes is not None and self.workspace_bytes < 1 << 20:
            msg = f"workspace is {self.workspace_bytes} bytes; expected at least 1 MiB"
            raise EngineError(msg)

    def for_bundle(self, bundle: Bundle) -> "EngineOptions":
        """The same with the precision and what may be refitted decided."""
        shipped: Precision = "fp16" if "fp16" in bundle.precisions else "fp32"
        return replace(
            self,
            precision=self.precision or shipped,
            refit=self.refit and not self.version_compatible,
        )

    def to_json(self) -> dict[str, Any]:
        """What shapes the plan, for the sidecar."""
        value = asdict(self)
        del value["out"], value["timing_cache"], value["index"]
        return value


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What an engine is tied to besides its encoder."""

    tensorrt: str
    """TensorRT's version."""
    gpu: str
    """Name of the GPU."""
    compute_capability: str
    """Such as "8.7"."""
    driver: str
    """NVIDIA kernel module."""
    cuda_driver: str
    """Newest CUDA the driver can run."""
    cuda_runtime: str
    """CUDA runtime library, or "unknown"."""


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """The sidecar of one engine."""

    name: str
    """File name of the plan."""
    plan_sha256: str
    plan_bytes: int
    bundle_id: str
    onnx: str
    """File name of the ONNX file in the bundle."""
    onnx_sha256: str
    weights_sha256: str
    """Of the checkpoint: an index is bound to it."""
    architecture: str
    embedding_size: int
    height_px: int
    width_px: int
    precision: Precision
    profiles: list[list[int]]
    """Smallest, best and largest batch of every optimisation profile."""
    platform: Platform
    refittable: bool
    """As TensorRT says of the plan."""
    options: dict[str, Any]
    """Of the builder."""
    build_seconds: float
    build_log: list[str]
    """TensorRT's warnings and errors."""
    gates: dict[str, Any]
    """What the gates measured through the engine itself."""
    refitted_from: str | None = None
    """sha256 of the plan whose kernels these are; None for one that was built."""
    made_by: str = ""
    created_utc: str = ""

    @property
    def max_batch(self) -> int:
        """Largest batch of any profile."""
        return max(profile[2] for profile in self.profiles)

    @property
    def sidecar(self) -> str:
        """File name of the sidecar."""
        return sidecar_name(self.name)


def engine_name(spec: EncoderSpec, precision: str, max_batch: int, platform: Platform) -> str:
    """The file name that says what an engine is.

    `<encoder>-<dim>-<H>x<W>-b<max>-<precision>-trt<version>-sm<cc>.engine`
    """
    encoder = re.sub(r"[^A-Za-z0-9._]+", "_", spec.architecture)
    return (
        f"{encoder}-{spec.embedding_size}-{spec.height_px}x{spec.width_px}-b{max_batch}-"
        f"{precision}-trt{platform.tensorrt}-sm{platform.compute_capability.replace('.', '')}"
        f"{SUFFIX}"
    )


def sidecar_name(name: str) -> str:
    """The sidecar's file name, from the plan's."""
    return name.removesuffix(SUFFIX) + ".json"


def build_command(root: Path, precision: str | None = None) -> str:
    """What to type to make an engine again."""
    return f"skyfix engine build {root}" + (f" --precision {precision}" if precision else "")


def engines_of(bundle: Bundle) -> Path:
    """Where a bundle's engines lie by default."""
    return bundle.root / ENGINES


def read_record(sidecar: Path) -> EngineRecord:
    """Read and verify a sidecar.

    Raises:
        EngineError: missing, unreadable, altered or of another schema.
    """
    engine = sidecar.with_suffix(SUFFIX).name
    try:
        value = json.loads(sidecar.read_text())
        schema, digest = value["schema"], value.pop("sha256")
        if schema == SCHEMA and sha256_of_json(value) == digest:
            known = {f.name for f in fields(EngineRecord)}
            kept = {name: value[name] for name in known}
            return EngineRecord(**(kept | {"platform": Platform(**value["platform"])}))
    except FileNotFoundError as error:
        msg = f"engine {engine} in {sidecar.parent} has no sidecar {sidecar.name}"
        raise EngineError(f"{msg}; copy both files, or build it again here") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{sidecar} is not a readable sidecar ({error}); build the engine again"
        raise EngineError(msg) from error
    if schema != SCHEMA:
        msg = f"{sidecar} has schema {schema}; this skyfix reads {SCHEMA}. Build the engine again"
        raise EngineError(msg)
    msg = f"{sidecar} was altered after it was written; copy both files or build the engine again"
    raise EngineError(msg)


def list_records(folder: Path) -> Iterator[tuple[Path, EngineRecord | EngineError]]:
    """Every engine of a folder by its plan's path, with its record or why it has none."""
    if not folder.is_dir():
        return
    names = {path.stem for path in folder.glob("*-trt*-sm*.json")}
    names |= {path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}")}
    for name in sorted(names):
        path = folder / f"{name}{SUFFIX}"
        try:
            record = read_record(folder / f"{name}.json")
        except EngineError as error:
            yield path, error
        else:
            yield path, record
