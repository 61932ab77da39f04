"""What can be compared, and where rows of each kind keep it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge_runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number of a row."""

    name: str
    paths: tuple[tuple[str, ...], ...]
    """Where rows have it; the first that is there counts."""
    lower_is_better: bool
    scale: Literal["ratio", "difference"]
    """ratio: times, rates and sizes, compared by their logarithm. difference: shares and cosines,
    which may be 0."""
    speed: bool = False
    """Whether worse means slower."""

    def of(self, row: Mapping[str, Any]) -> float | None:
        """The number in a row as it was read back; None where the row has none."""
        for path in self.paths:
            value: Any = row
            for name in path:
                value = value.get(name) if isinstance(value, Mapping) else None
            if isinstance(value, int | float) and math.isfinite(value):
                return float(value)
        return None


def _time(name: str) -> Metric:
    """A time of a call: in the summary, or beside the other fields in rows without one."""
    paths = (("time", f"{name}_ms"), (f"{name}_ms",))
    return Metric(name=name, paths=paths, lower_is_better=True, scale="ratio", speed=True)


def _amount(name: str, *paths: tuple[str, ...], speed: bool = False) -> Metric:
    return Metric(name=name, paths=paths, lower_is_better=True, scale="ratio", speed=speed)


def _share(name: str, *paths: tuple[str, ...], lower_is_better: bool = False) -> Metric:
    return Metric(name=name, paths=paths, lower_is_better=lower_is_better, scale="difference")


METRICS = {
    metric.name: metric
    for metric in (
        *(_time(name) for name in ("p50", "p90", "p95", "p99", "max", "mean", "first")),
        Metric(
            name="throughput",
            paths=(("time", "throughput_per_s"), ("frames_per_s",), ("images_per_s",)),
            lower_is_better=False,
            scale="ratio",
            speed=True,
        ),
        _amount("load", ("load_s",), speed=True),
        _amount("host_memory", ("memory", "host_peak_mib"), ("peak_mib",)),
        _amount("gpu_memory", ("memory", "gpu_peak_mib")),
        _amount("joules", ("energy", "joules_per_call")),
        _share("min_cosine", ("quality", "min_cosine")),
        _share("median_cosine", ("quality", "median_cosine")),
        _share("top1_agreement", ("quality", "top1_agreement")),
        _share("recall_at_1", ("quality", "recall_at_1")),
        _share("recall_at_10", ("recall_at_10",)),
        _share(
            "success_20m",
            ("quality", "success_20m"),
            ("accuracy", "success", "20", "share"),
            ("quality", "success", "share"),
            ("success", "20", "share"),
        ),
        _share("answered", ("accuracy", "answered", "share"), ("answered", "share")),
        _share(
            "false_fixes",
            ("accuracy", "false_fixes", "share"),
            ("quality", "false", "share"),
            ("false_fixes", "share"),
            lower_is_better=True,
        ),
        _amount("median_error", ("accuracy", "median_error_m"), ("median_error_m",)),
        _amount("p95_error", ("accuracy", "p95_error_m"), ("p95_error_m",)),
    )
}
"""By the names that the command takes."""


def metric_named(name: str) -> Metric:
    """The metric of a name.

    Raises:
        InputError: there is none.
    """
    if name not in METRICS:
        msg = f"there is no metric {name!r}; give some of {', '.join(METRICS)}"
        raise InputError(msg)
    return METRICS[name]
