"""Parts of a call by the GPU's own clock: copy in, compute, copy out."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from benchmarks.clock_cost import CLOCK_NS, ClockNs
from benchmarks.matrix.runtimes import FlownRuntime, Runtime
from benchmarks.time_summary import TimeSummary, time_summary

U8 = npt.NDArray[np.uint8]

_WARMUP = 3


@runtime_checkable
class Staged(Protocol):
    """Whatever can tell the parts of a call apart."""

    def stages_ms(self, images: U8) -> dict[str, float]:
        """Time of each part, ms; empty where the device has no clock of its own."""
        ...


def device_stages(
    runtime: Runtime,
    calls: Sequence[U8],
    *,
    seconds: float,
    least_calls: int,
    clock_ns: ClockNs = CLOCK_NS,
) -> dict[str, TimeSummary]:
    """Time the parts in calls of their own: reading them out slows a call.

    Args:
        runtime: an opened encoder.
        calls: (N, H, W, 3) uint8 pictures of each call, taken in turn.
        seconds: of timed calls, about.
        least_calls: timed however long they take.
        clock_ns: tells when the seconds are over.

    Returns:
        A summary of each part; empty on a CPU, and where the library does not tell them apart.

    Raises:
        BackendError: a call fails.
    """
    source = runtime.backend if isinstance(runtime, FlownRuntime) else runtime
    if not isinstance(source, Staged):
        return {}
    for k in range(_WARMUP):
        if not source.stages_ms(calls[k % len(calls)]):
            return {}
    times: dict[str, list[float]] = defaultdict(list)
    began_ns, done = clock_ns(), 0
    while done < least_calls or clock_ns() - began_ns < seconds * 1e9:
        for name, spent_ms in source.stages_ms(calls[done % len(calls)]).items():
            times[name].append(spent_ms)
        done += 1
    return {name: time_summary(spent, warmup=_WARMUP) for name, spent in times.items()}


def stages_note(stages: dict[str, TimeSummary]) -> str:
    """What a row says of its stages; empty where it has none."""
    if not stages:
        return ""
    calls = max(summary.n for summary in stages.values())
    return (
        f"stages by CUDA events in {calls} calls of their own; GPU is what trtexec calls GPU "
        "compute time"
    )
