"""Progress for people: bars with time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class ProgressBars:
    """Called with a stage name and the fraction done, it shows the work's progress."""

    def __init__(self, bars: Progress | None, *, stream: TextIO | None = None) -> None:
        self._bars, self._stream = bars, stream
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._finished: set[str] = set()

    @classmethod
    def silent(cls) -> "ProgressBars":
        """Shows nothing: all ranks but the first have these."""
        return cls(None)

    def __call__(self, stage: str, done: float) -> None:
        """Show that a fraction of a stage, 0..1, is done."""
        if self._bars is None:
            self._started.setdefault(stage, time.perf_counter())
            if done >= 1.0 and stage not in self._finished:
                self._finished.add(stage)
                seconds = time.perf_counter() - self._started[stage]
                if not stage.startswith("epoch"):
                    self.say(f"{stage}: done in {seconds:.1f} s")
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=1.0)
        self._bars.update(self._tasks[stage], completed=done)
        if done >= 1.0 and stage.startswith("epoch"):
            self._bars.remove_task(self._tasks.pop(stage))

    def say(self, line: str) -> None:
        """Print a line without tearing the bars."""
        if self._bars is not None:
            self._bars.console.print(line, highlight=False)
        elif self._stream is not None:
            self._stream.write(line + "\n")
            self._stream.flush()


@contextmanager
def progress_bars(stream: TextIO | None = None) -> Iterator[ProgressBars]:
    """Bars while the block runs, if the stream is a terminal.

    Args:
        stream: standard output by default; standard error where that is data.
    """
    stream = stream or sys.stdout
    if not stream.isatty():
        yield ProgressBars(None, stream=stream)
        return
    columns = (
        TextColumn("{task.description:>18}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream)) as bars:
        yield ProgressBars(bars, stream=stream)
