"""What is measured: encoders by runtimes, precisions and batches, and about how long it takes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from benchmarks.resuming import place_of
from edge_runtime.errors import InputError

RuntimeName = Literal[
    "torch-eager",
    "torch-compiled",
    "ort-cpu",
    "openvino",
    "ort-cuda",
    "ort-tensorrt",
    "tensorrt",
    "tensorrt-no-graph",
]
"""no-graph: launched kernel by kernel, where the plain one is one CUDA graph."""
RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
Number = Literal["fp32", "fp16", "bf16", "int8"]
NUMBERS: tuple[Number, ...] = get_args(Number)

PRECISIONS: Mapping[RuntimeName, tuple[Number, ...]] = {
    "torch-eager": ("fp32", "fp16", "bf16"),
    "torch-compiled": ("fp32", "fp16"),
    "ort-cpu": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    "ort-cuda": ("fp32", "fp16"),
    "ort-tensorrt": ("fp32", "fp16", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "tensorrt-no-graph": ("fp32", "fp16", "int8"),
}
"""In which each can compute at all; the encoder and the machine decide whether it does."""

_START_S: Mapping[str, float] = {"torch": 6.0, "ort": 2.0, "openvino": 4.0, "tensorrt": 2.0}
"""Of a process and its library."""
_COMPILE_S = 40.0
_GMAC_PER_S = 40.0
"""Of two cores in FP32, over all encoders: an estimate of time needs no more."""
_CALL_MS = 1.0
"""That a call takes however small the encoder."""


class Cell(NamedTuple):
    """One measurement, but for its repetitions."""

    encoder: str
    runtime: RuntimeName
    precision: Number
    batch: int


class Wanted(NamedTuple):
    """What the user leaves of it all."""

    runtimes: Collection[RuntimeName] = RUNTIMES
    precisions: Collection[Number] = NUMBERS
    batches: Sequence[int] = (1,)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long each measurement may take."""

    seconds: float = 10.0
    """Of timed calls."""
    least_calls: int = 30
    """Timed however long they take."""
    quality_s: float = 20.0
    """About what embedding the pictures may take, on the slowest encoder within the limits of how
    few pictures still say something."""
    timeout_s: float = 900.0
    """After which a measurement is given up."""

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if not (self.seconds > 0 and self.least_calls >= 1 and self.timeout_s > self.seconds):
            msg = (
                f"{self.seconds:g} s of at least {self.least_calls} calls within "
                f"{self.timeout_s:g} s; expected more than 0 s, at least 1 call, and a timeout "
                "that is longer"
            )
            raise InputError(msg)


def cells(encoders: Sequence[str], wanted: Wanted) -> Iterator[Cell]:
    """All that is to be tried, encoder by encoder.

    Raises:
        InputError: a batch of no picture, or none of the runtimes computes in these precisions.
    """
    if any(batch < 1 for batch in wanted.batches):
        msg = f"batches are {list(wanted.batches)}; expected at least 1 picture each"
        raise InputError(msg)
    pairs = [
        (runtime, precision)
        for runtime in RUNTIMES
        if runtime in wanted.runtimes
        for precision in PRECISIONS[runtime]
        if precision in wanted.precisions
    ]
    if not pairs:
        msg = (
            f"none of {', '.join(sorted(wanted.runtimes))} computes in "
            f"{', '.join(sorted(wanted.precisions))}; give other runtimes or precisions"
        )
        raise InputError(msg)
    for encoder in encoders:
        for batch in wanted.batches:
            for runtime, precision in pairs:
                yield Cell(encoder, runtime, precision, batch)


def call_ms(gmac: float, batch: int = 1) -> float:
    """About how long a call takes on two cores: good for a plan, not for a table."""
    return _CALL_MS + batch * gmac / _GMAC_PER_S * 1e3


def pictures_for(gmac: float, quality_s: float) -> tuple[int, int]:
    """How many queries and tiles are embedded to judge a row by: (queries, tiles).

    Three tiles a query; at least 12 queries, of which fewer would say nothing, and at most 100.
    """
    queries = round(quality_s * 1e3 / call_ms(gmac) / 4)
    queries = min(100, max(12, queries))
    return queries, 3 * queries


def expected_s(
    cell: Cell, gmac: float, effort: Effort, *, on_gpu: bool, with_quality: bool = True
) -> float:
    """About how long a measurement takes on two cores, seconds.

    Args:
        cell: the measurement.
        gmac: of a picture.
        effort: how long it may take.
        on_gpu: there is one; otherwise what needs one says so at once.
        with_quality: pictures are embedded too.
    """
    if not on_gpu and _needs_gpu(cell):
        return _START_S[cell.runtime.partition("-")[0]]
    one_s = call_ms(gmac, cell.batch) / 1e3
    start_s = _START_S[cell.runtime.partition("-")[0]]
    start_s += _COMPILE_S if cell.runtime == "torch-compiled" else 0.0
    timed_s = 1.2 * max(effort.seconds, effort.least_calls * one_s) + 2 * one_s
    judged_s = sum(pictures_for(gmac, effort.quality_s)) * call_ms(gmac) / 1e3
    return start_s + timed_s + (judged_s if with_quality else 0.0)


def _needs_gpu(cell: Cell) -> bool:
    if cell.runtime.startswith("torch"):
        return cell.precision != "fp32"
    return cell.runtime not in ("ort-cpu", "openvino")


def key_of(row: Mapping[str, Any]) -> tuple[object, ...]:
    """What makes a row the same measurement as another one: what was measured, where and of what.

    Args:
        row: a measurement or not_run row as read back.
    """
    return (
        *(row["encoder"], row["runtime"], row["precision"], row["batch"], row.get("run", 0)),
        *place_of(row),
    )
