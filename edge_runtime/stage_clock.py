"""The clock of one frame: how long each stage took."""

import time


class StageClock:
    """Time since the frame arrived, cut into stages."""

    def __init__(self, capture_ms: float) -> None:
        self._start = self._last = time.perf_counter()
        self._capture_ms = capture_ms
        self.stages_ms = {"capture": capture_ms}

    def mark(self, stage: str) -> None:
        """Book the time since the last mark on a stage."""
        now = time.perf_counter()
        self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + 1e3 * (now - self._last)
        self._last = now

    def elapsed_ms(self) -> float:
        """Capture included."""
        return 1e3 * (time.perf_counter() - self._start) + self._capture_ms
