"""Which of several backends is the fastest on this machine, measured in a fraction of a second."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Protocol

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

BUDGET_S = 0.3
"""Time for all contenders together, but for warming up."""
MAX_ROUNDS = 50
CLEARLY_FASTER = 0.9
"""Another than the first is taken when it needs at most this fraction of its time: closer calls
would go one way today and the other tomorrow."""


class Contender(Protocol):
    """What can be timed."""

    def embed(self, images: U8) -> F32:
        """See `Backend.embed`."""
        ...


def frame_times_ms(
    contenders: Mapping[str, Contender],
    shape: tuple[int, int, int],
    *,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Time one image a call, by turns, so that a load that comes and goes hits all alike.

    Args:
        contenders: by name.
        shape: of an image.
        budget_s: when to stop; at least one round is run.
        clock: seconds.

    Returns:
        Median milliseconds an image, by name.
    """
    image = np.random.default_rng(0).integers(0, 256, (1, *shape), np.uint8)
    for contender in contenders.values():
        contender.embed(image)  # Lazy allocations and cold caches are not its speed.
    times_s: dict[str, list[float]] = {name: [] for name in contenders}
    end = clock() + budget_s
    for _ in range(MAX_ROUNDS):
        for name, contender in contenders.items():
            started = clock()
            contender.embed(image)
            times_s[name].append(clock() - started)
        if clock() >= end:
            break
    return {name: 1e3 * median(times) for name, times in times_s.items()}


def by_preference(times_ms: Mapping[str, float]) -> list[str]:
    """Names in the order in which to take them: the fastest first, the first given on a near tie.

    Args:
        times_ms: from `frame_times_ms`, the usual choice first.
    """
    usual, *others = times_ms
    faster = [name for name in others if times_ms[name] <= CLEARLY_FASTER * times_ms[usual]]
    rest = [name for name in others if name not in faster]
    key = times_ms.__getitem__
    return [*sorted(faster, key=key), usual, *sorted(rest, key=key)]


def in_words(times_ms: Mapping[str, float]) -> str:
    """What was measured, fastest first: "openvino 3.12 ms, ort-cpu 4.01 ms"."""
    ordered = sorted(times_ms.items(), key=lambda item: item[1])
    return ", ".join(f"{name} {time_ms:.2f} ms" for name, time_ms in ordered)
