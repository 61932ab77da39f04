"""What a log's runs were made of, in a file beside it: the newest run's first, then the earlier.

A log that is gone on with holds several runs, and parts of it may be thrown away. So each run names
the line that was the log's last when it began; its records are those after that line.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edge_runtime.errors import InputError

MOST_RUNS = 1000
"""Kept in the file, which is written anew by each run; the oldest go."""
_AFTER, _EARLIER = "after_sha256", "earlier"


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


class RunOfLog(NamedTuple):
    """One run that wrote into a log."""

    settings: RunSettings
    after: str | None
    """SHA-256 of the line that was the log's last when the run began, empty where there was none;
    None in files that did not say so: the newest run of those that had written till then."""


def settings_path(log: Path) -> Path:
    """Where a log's settings lie: beside it."""
    return log.with_suffix(".run.json")


def line_digest(line: bytes) -> str:
    """SHA-256 of a line of a log, hexadecimal; of a newline at its end nothing counts."""
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def read_settings(log: Path) -> RunSettings:
    """Read what a log's newest run was made of.

    Raises:
        InputError: missing or not written by this version.
    """
    return read_runs_of(log)[-1].settings


def read_runs_of(log: Path) -> list[RunOfLog]:
    """Read what every run of a log was made of, the oldest first, runs without records included.

    Raises:
        InputError: missing or not written by this version.
    """
    path = settings_path(log)
    try:
        newest = json.loads(path.read_text())
        runs = [*newest.pop(_EARLIER, []), newest]
        return [RunOfLog(_settings(run), run.get(_AFTER)) for run in runs]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        msg = (
            f"{path} cannot be read ({error}); replay needs the settings skyfix run wrote beside "
            f"{log}"
        )
        raise InputError(msg) from error


def with_run(earlier: list[RunOfLog], settings: RunSettings, last_line: bytes | None) -> bytes:
    """The file's content with one more run.

    Args:
        earlier: what the log holds already, the oldest first.
        settings: of the run that begins.
        last_line: of the log as it is; None where it has none.
    """
    after = "" if last_line is None else line_digest(last_line)
    # A run that wrote nothing, as a service's without a camera, leaves nothing to replay.
    kept = [run for run in earlier if run.after != after][-(MOST_RUNS - 1) :]
    newest = {**asdict(settings), _AFTER: after}
    if kept:
        newest[_EARLIER] = [{**asdict(run.settings), _AFTER: run.after} for run in kept]
    return (json.dumps(newest, indent=1) + "\n").encode()


def _settings(run: dict[str, Any]) -> RunSettings:
    return RunSettings(**{name: value for name, value in run.items() if name != _AFTER})
