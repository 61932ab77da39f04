"""Is an engine fresh? Every difference from the bundle and from this machine, with its remedy.

TensorRT ties a plan to its own version, to the GPU model and to the CUDA driver (NVIDIA TensorRT
documentation, "Engine compatibility"); the plan is tied to its encoder by the ONNX file's sha256.
A plan built version- or hardware-compatible is held to what it promises.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.bundle import Bundle
from edge_runtime.engine_files import read_plan
from edge_runtime.engine_store import (
    EngineRecord,
    Platform,
    build_command,
    engines_of,
    list_records,
)
from edge_runtime.errors import EngineError


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing in which an engine does not fit."""

    what: str
    engine: str
    """What the engine has."""
    here: str
    """What the bundle or this machine has."""

    def __str__(self) -> str:
        """In words."""
        return f"{self.what} is {self.engine}, here it is {self.here}"


@dataclass(frozen=True, kw_only=True)
class CheckedEngine:
    """What came of checking one engine."""

    path: Path
    record: EngineRecord | None
    """None where there is no sidecar that can be believed."""
    problem: str
    """Why it cannot be read at all; empty where it can."""
    differences: list[Difference]
    command: str
    """What makes it right; empty where it is right."""

    @property
    def fresh(self) -> bool:
        """Whether it may fly."""
        return not self.problem and not self.differences

    def __str__(self) -> str:
        """One line: the engine, what is wrong with it, what to type."""
        wrong = self.problem or "; ".join(map(str, self.differences))
        return f"{self.path.name}: " + (f"{wrong}. Run: {self.command}" if wrong else "fresh")


def differences(
    record: EngineRecord, bundle: Bundle, platform: Platform | None
) -> list[Difference]:
    """All differences between an engine and the bundle and machine it would fly on.

    Args:
        record: the engine's sidecar.
        bundle: the encoder that is to fly.
        platform: this machine, or None to compare with the bundle alone.
    """
    found = list(_from_bundle(record, bundle))
    if platform is not None:
        found += _from_platform(record, platform)
    return found


def check_engines(
    bundle: Bundle, platform: Platform | None, folder: Path | None = None
) -> list[CheckedEngine]:
    """Check every engine of a folder, plans' digests included.

    Args:
        bundle: the encoder that is to fly.
        platform: this machine, or None to compare with the bundle alone.
        folder: where the engines lie; by default in the bundle.
    """
    folder = folder or engines_of(bundle)
    checked = []
    for path, record in list_records(folder):
        if isinstance(record, EngineError):
            checked.append(_unreadable(bundle, path, None, str(record)))
            continue
        try:
            read_plan(folder, record)
        except EngineError as error:
            checked.append(_unreadable(bundle, path, record, str(error)))
            continue
        found = differences(record, bundle, platform)
        remedy = build_command(bundle.root, record.precision) if found else ""
        checked.append(
            CheckedEngine(path=path, record=record, problem="", differences=found, command=remedy)
        )
    return checked


def _unreadable(
    bundle: Bundle, path: Path, record: EngineRecord | None, problem: str
) -> CheckedEngine:
    precision = record.precision if record is not None else None
    return CheckedEngine(
        path=path,
        record=record,
        problem=problem,
        differences=[],
        command=build_command(bundle.root, precision),
    )


def _from_bundle(record: EngineRecord, bundle: Bundle) -> Iterator[Difference]:
    spec = bundle.spec
    yield from _unequal("encoder", record.architecture, spec.architecture)
    yield from _unequal(
        "input size",
        f"{record.height_px}x{record.width_px}",
        f"{spec.height_px}x{spec.width_px}",
    )
    yield from _unequal("embedding size", record.embedding_size, spec.embedding_size)
    yield from _unequal(
        "ONNX sha256",
        record.onnx_sha256[:12],
        bundle.manifest.files.get(record.onnx, "")[:12] or f"missing ({record.onnx})",
    )
    yield from _unequal("weights sha256", record.weights_sha256[:12], bundle.weights_sha256[:12])
    if record.precision not in bundle.precisions:
        yield Difference(
            what="precision", engine=record.precision, here=f"one of {sorted(bundle.precisions)}"
        )


def _from_platform(record: EngineRecord, here: Platform) -> Iterator[Difference]:
    made = record.platform
    forward = record.options.get("version_compatible", False)
    if not (forward and _runs_forward(_numbers(made.tensorrt), _numbers(here.tensorrt))):
        yield from _unequal("TensorRT", made.tensorrt, here.tensorrt)
    portable = record.options.get("hardware_compatible", False)
    if not (portable and _numbers(here.compute_capability) >= (8, 0)):
        yield from _unequal("compute capability", made.compute_capability, here.compute_capability)
        yield from _unequal("GPU", made.gpu, here.gpu)
    yield from _unequal("driver", made.driver, here.driver)
    yield from _unequal("CUDA of the driver", made.cuda_driver, here.cuda_driver)


def _runs_forward(made: tuple[int, ...], here: tuple[int, ...]) -> bool:
    """Whether a version-compatible plan of one TensorRT runs on another.

    (NVIDIA TensorRT 11.4 support matrix, "Engine Portability": newer versions of the same major
    one, and of 11 for plans of 10.)
    """
    return here >= made and (here[:1] == made[:1] or (made[:1], here[:1]) == ((10,), (11,)))


def _unequal(what: str, engine: object, here: object) -> Iterator[Difference]:
    if engine != here:
        yield Difference(what=what, engine=str(engine), here=str(here))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
