"""The samples of one group of fields, in time order, and the value between two of them."""

import math
from bisect import bisect_right
from collections.abc import Callable

Values = tuple[float | None, ...]
Between = Callable[[Values, Values, float], Values]
"""The values at a share (0..1) of the way between two samples."""
Rate = Callable[[Values, Values], float]
"""How far apart two samples' values are, in the unit of the gate that uses it."""

CONFIRMED_BY = 3
"""Samples in a row that must agree before a jump is believed."""


class Channel:
    """Samples that keep their order; those that jump wait until others confirm them."""

    def __init__(
        self,
        between: Between,
        *,
        keep: int | None = None,
        distance: Rate | None = None,
        per_second: float = math.inf,
        slack: float = 0.0,
    ) -> None:
        """Nothing known yet.

        Args:
            between: interpolates.
            keep: samples remembered at least; None for all.
            distance: of two samples' values; None where any jump is possible.
            per_second: farthest the values can move in a second.
            slack: and what they may jump at any time.
        """
        self._between, self._keep = between, keep
        self._distance, self._per_second, self._slack = distance, per_second, slack
        self._times: list[float] = []
        self._values: list[Values] = []
        self._breaks: set[float] = set()
        self._waiting: list[tuple[float, Values]] = []

    @property
    def span_s(self) -> tuple[float, float] | None:
        """Time of the first and the last sample that is believed."""
        return (self._times[0], self._times[-1]) if self._times else None

    def clear(self) -> None:
        """Forget everything."""
        self._times, self._values, self._breaks, self._waiting = [], [], set(), []

    def add(self, t_s: float, values: Values) -> str:
        """Take a sample. One older than the last has been overtaken and is left out.

        Returns:
            "jump" when it is the first that cannot follow what was there, "waits" while it is not
            yet confirmed, "confirmed" when it settles a jump, "back" when it shows that the jump
            was none, else "".
        """
        if self._times and t_s < self._times[-1]:
            return ""
        if not self._times or self._follows(self._times[-1], self._values[-1], t_s, values):
            was_waiting, self._waiting = bool(self._waiting), []
            self._append(t_s, values)
            return "back" if was_waiting else ""
        if self._waiting and self._follows(*self._waiting[-1], t_s, values):
            self._waiting.append((t_s, values))
            if len(self._waiting) < CONFIRMED_BY:
                return "waits"
            self._breaks.add(self._waiting[0][0])
            for sample in self._waiting:
                self._append(*sample)
            self._waiting = []
            return "confirmed"
        first = not self._waiting
        self._waiting = [(t_s, values)]
        return "jump" if first else "waits"

    def at(self, t_s: float, max_gap_s: float) -> Values | None:
        """The values at a time.

        Between two samples at most twice `max_gap_s` apart every moment is within `max_gap_s` of
        one, so these are interpolated; else the nearest within `max_gap_s` holds, else None.
        Nothing is interpolated across a jump.
        """
        after = bisect_right(self._times, t_s)
        if not self._times:
            return None
        if after and (self._times[after - 1] == t_s or after == len(self._times)):
            return self._held(after - 1, t_s, max_gap_s)
        if after == 0:
            return self._held(0, t_s, max_gap_s)
        start, end = self._times[after - 1], self._times[after]
        if end in self._breaks or end - start > 2 * max_gap_s:
            nearest = after if end - t_s < t_s - start else after - 1
            return self._held(nearest, t_s, max_gap_s)
        share = (t_s - start) / (end - start)
        return self._between(self._values[after - 1], self._values[after], share)

    def last(self) -> Values | None:
        """The newest values that are believed."""
        return self._values[-1] if self._values else None

    def _held(self, k: int, t_s: float, max_gap_s: float) -> Values | None:
        return self._values[k] if abs(self._times[k] - t_s) <= max_gap_s else None

    def _follows(self, t0_s: float, before: Values, t_s: float, values: Values) -> bool:
        if self._distance is None:
            return True
        limit = self._slack + self._per_second * abs(t_s - t0_s)
        return self._distance(before, values) <= limit

    def _append(self, t_s: float, values: Values) -> None:
        if self._times and self._times[-1] == t_s:
            self._values[-1] = tuple(
                old if new is None else new
                for old, new in zip(self._values[-1], values, strict=True)
            )
            return
        self._times.append(t_s)
        self._values.append(values)
        if self._keep is not None and len(self._times) >= 2 * self._keep:
            del self._times[: self._keep], self._values[: self._keep]
            self._breaks = {t for t in self._breaks if t >= self._times[0]}


def linear(a: Values, b: Values, share: float) -> Values:
    """Each value on the straight line; where one side does not know it, the other's."""
    return tuple(
        (y if x is None else x) if x is None or y is None else x + share * (y - x)
        for x, y in zip(a, b, strict=True)
    )


def farthest(a: Values, b: Values) -> float:
    """The largest difference of values that both know."""
    return max(
        (abs(x - y) for x, y in zip(a, b, strict=True) if x is not None and y is not None),
        default=0.0,
    )
