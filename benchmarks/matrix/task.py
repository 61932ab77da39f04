"""What a process that measures is told, as a file of JSON."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks.matrix.plan import Number, RuntimeName


@dataclass(frozen=True, kw_only=True)
class Task:
    """One measurement of one encoder."""

    encoder: str
    """Short name."""
    weights: str
    """Where they come from."""
    trained: bool
    """For finding places."""
    gated: bool
    """Its files passed the gates of the export."""
    bundle: Path
    checkpoint: Path | None
    runtime: RuntimeName
    precision: Number
    batch: int
    threads: int
    run: int
    seconds: float
    least_calls: int
    pictures: Path
    """Folder of `save_pictures`."""
    ceilings: Path
    """.json of the machine's ceilings; made by the task that finds none."""
    reference: Path
    """.npz of the reference's embeddings; made by the task that finds none."""
    kept: Path
    """Folder in which qualities are kept: they do not change from run to run."""
    engines: Path
    out: Path
    """.jsonl that the row is appended to."""

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), default=str, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Task":
        """Inverse of `write`."""
        values = json.loads(path.read_text())
        for field in fields(cls):
            if "Path" in str(field.type) and values[field.name] is not None:
                values[field.name] = Path(values[field.name])
        return cls(**values)
