"""The log of a run: one fix record per line, and beside it what the run was made of."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_runtime.artefact import write_atomically
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix, fix_from_json

_SYNC_EVERY = 50
"""Records between two fsyncs: a power cut loses at most these."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Everything that decides a run's fixes; paths are kept absolute."""

    source: str
    telemetry: str
    camera: str
    bundle: str
    index: str
    backend: str
    options: dict[str, Any]
    """Fields of LocalizerConfig and the start position, where they differ from the defaults."""


class FlightLog:
    """Appends records to a JSONL file; each line is complete before the next begins."""

    def __init__(self, path: Path, settings: RunSettings | None = None) -> None:
        """Start a new log; an older one of the same name is replaced.

        Raises:
            InputError: the place cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if settings is not None:
                text = json.dumps(asdict(settings), indent=1) + "\n"
                write_atomically(settings_path(path), text.encode())
            self._stream = path.open("w", encoding="utf-8")
        except OSError as error:
            msg = f"log {path} cannot be written ({error.strerror}); choose another --out"
            raise InputError(msg) from error
        self._lines = 0

    def write(self, fix: Fix) -> None:
        """Append one record."""
        self._stream.write(fix.to_json() + "\n")
        self._stream.flush()
        self._lines += 1
        if self._lines % _SYNC_EVERY == 0:
            os.fsync(self._stream.fileno())

    def __enter__(self) -> "FlightLog":
        """Use as a context manager."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Flush to disk and close."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()


def settings_path(log: Path) -> Path:
    """Where a log's settings lie: beside it."""
    return log.with_suffix(".run.json")


def read_log(path: Path) -> Iterator[Fix]:
    """Read the records of a log; a last line that was cut off by a crash is left out.

    Raises:
        InputError: unreadable, or a line in the middle is not a fix record.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"log {path} cannot be read ({error}); expected a file written by skyfix run"
        raise InputError(msg) from error
    *complete, _cut_off = lines
    for number, line in enumerate(complete, start=1):
        try:
            yield fix_from_json(line)
        except InputError as error:
            msg = f"log {path} line {number}: {error}"
            raise InputError(msg) from error


def read_settings(log: Path) -> RunSettings:
    """Read what a log's run was made of.

    Raises:
        InputError: missing or not written by this version.
    """
    path = settings_path(log)
    try:
        return RunSettings(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        msg = (
            f"{path} cannot be read ({error}); replay needs the settings skyfix run wrote beside "
            f"{log}"
        )
        raise InputError(msg) from error
