"""What a run says of itself: TensorBoard scalars by step, JSON lines by epoch."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any


class RunLog:
    """Writes beside a checkpoint; a resumed run goes on in the same files."""

    def __init__(self, folder: Path, *, first_step: int = 0) -> None:
        """Open the log.

        Args:
            folder: gets `tensorboard/` and `epochs.jsonl`.
            first_step: events from this step on, of a run that was interrupted, are forgotten.
        """
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "epochs.jsonl"
        if not first_step:
            self._path.write_text("")
        self._writer = SummaryWriter(
            str(folder / "tensorboard"), purge_step=first_step or None, flush_secs=10
        )

    def step(self, step: int, values: dict[str, float]) -> None:
        """Scalars of one step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def epoch(self, step: int, report: dict[str, Any]) -> None:
        """The report of one epoch; its numbers are scalars too."""
        with self._path.open("a") as stream:
            stream.write(json.dumps(report) + "\n")
        for name, value in report.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(f"epoch/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()

    def __enter__(self) -> "RunLog":
        """This log."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()
