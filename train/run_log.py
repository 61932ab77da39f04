"""What a run says of itself: TensorBoard scalars and JSON lines, by step and by epoch."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_runtime.artefact import write_atomically


class RunLog:
    """Writes beside a checkpoint; a resumed run goes on in the same files."""

    def __init__(self, folder: Path, *, first_step: int = 0) -> None:
        """Open the log.

        Args:
            folder: gets `tensorboard/`, `steps.jsonl` and `epochs.jsonl`.
            first_step: events from this step on, of a run that was interrupted, are forgotten.
        """
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._epochs, self._steps = folder / "epochs.jsonl", folder / "steps.jsonl"
        self.steps = [row for row in _rows(self._steps) if row["step"] <= first_step]
        """Every step so far: its number, loss, learning rate and temperature."""
        kept = [row for row in _rows(self._epochs) if row["last_step"] <= first_step]
        for path, rows in ((self._steps, self.steps), (self._epochs, kept)):
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        self._stream = self._steps.open("a")
        self._writer = SummaryWriter(
            str(folder / "tensorboard"), purge_step=first_step or None, flush_secs=10
        )

    def step(self, step: int, values: dict[str, float]) -> None:
        """Scalars of one step."""
        row = {"step": step, **values}
        self.steps.append(row)
        self._stream.write(json.dumps(row) + "\n")
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def epoch(self, step: int, report: dict[str, Any]) -> None:
        """The report of one epoch; its numbers are scalars too."""
        self._stream.flush()
        with self._epochs.open("a") as stream:
            stream.write(json.dumps({**report, "last_step": step}) + "\n")
        for name, value in report.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(f"epoch/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is still in memory."""
        self._stream.close()
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


def _rows(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a log; a last one that was cut short by an interruption is passed over."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
    return rows
