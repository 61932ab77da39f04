"""One run of a scenario: what is asked for."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_runtime.backends.protocol import BackendName
from edge_runtime.errors import InputError
from edge_runtime.precision import Precision

Scenario = Literal["single-stream", "multi-stream"]


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """One run of a scenario."""

    bundle: Path
    scenario: Scenario
    samples_per_query: int
    seconds: float
    """At least so long."""
    queries: int
    """At least so many."""
    backend: BackendName = "auto"
    precision: Precision | None = None
    threads: int | None = None
    photographs: Path | None = None
    """Folder whose pictures are the samples; the bundle's probes by default."""
    samples: int = 1024
    """At most so many of them."""
    seed: int = 0
    """Of the order."""
    run: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no run."""
        for name, value in (
            ("samples_per_query", self.samples_per_query),
            ("queries", self.queries),
            ("samples", self.samples - 1),
            ("threads", 1 if self.threads is None else self.threads),
        ):
            if value < 1:
                least = 2 if name == "samples" else 1
                msg = f"{name} is {getattr(self, name)}; expected at least {least}"
                raise InputError(msg)
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            msg = f"seconds is {self.seconds:g}; expected 0 or more"
            raise InputError(msg)
