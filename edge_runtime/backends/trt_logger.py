"""What TensorRT says, kept instead of printed."""

import re
import threading
from typing import Any

import tensorrt as trt

_OUT_OF_MEMORY = re.compile(
    r"out ?of ?memory|OutOfMemory|cudaErrorMemoryAllocation|Requested amount of GPU memory"
    r"|insufficient memory to|failed to allocate",
    re.IGNORECASE,
)
_KEPT_LINES = 400


class TensorRtLog(trt.ILogger):  # type: ignore[misc]
    """Collects warnings and errors. TensorRT calls it from several threads."""

    def __init__(self) -> None:
        """Start empty."""
        trt.ILogger.__init__(self)
        self._lock = threading.Lock()
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        """Called by TensorRT; raises nothing, because nothing there could catch it."""
        line = " ".join(str(msg).split())
        with self._lock:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                kept = self.errors
            elif severity == trt.ILogger.Severity.WARNING:
                kept = self.warnings
            else:
                return
            if len(kept) < _KEPT_LINES and line not in kept:
                kept.append(line)

    @property
    def lines(self) -> list[str]:
        """Errors, then warnings, each once."""
        with self._lock:
            return [f"error: {line}" for line in self.errors] + [
                f"warning: {line}" for line in self.warnings
            ]

    def ran_out_of_memory(self) -> bool:
        """Whether an error says so. Warnings do not count: a tactic may be skipped for it."""
        with self._lock:
            return any(_OUT_OF_MEMORY.search(line) for line in self.errors)

    def why(self) -> str:
        """All errors in one line; a stand-in where TensorRT said none."""
        with self._lock:
            return "; ".join(self.errors) or "TensorRT gave no reason"
