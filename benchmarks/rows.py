"""Rows of measurements: JSON lines that are appended whole and carry where they come from."""

import json
import math
import os
import platform
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edge_runtime.errors import InputError

SCHEMA = 1
"""Of the rows; grows when a name changes its meaning."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What made a row. Rows are subclasses, so every row carries it."""

    schema: int = SCHEMA
    skyfix_version: str
    """Installed version, or "checkout"."""
    git_commit: str | None
    """Of the checkout, "+" at the end when it was modified; None outside a checkout."""
    measured_utc: str
    """ISO 8601."""


def provenance() -> dict[str, Any]:
    """Values for `Provenance`, taken now."""
    try:
        skyfix_version = version("skyfix")
    except PackageNotFoundError:
        skyfix_version = "checkout"
    return {
        "skyfix_version": skyfix_version,
        "git_commit": git_commit(Path(__file__).parent),
        "measured_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def git_commit(folder: Path) -> str | None:
    """Short commit of the checkout a folder lies in, "+" when modified; None when in none."""
    found = output_of("git", "-C", str(folder), "describe", "--always", "--dirty=+", "--exclude=*")
    return found or None


def cpu_name() -> str:
    """Model name of this machine's CPU, with the board's name where there is one."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model") and value.strip():
            name = value.strip()
            break
    board = Path("/proc/device-tree/model")
    if board.exists():
        name = f"{board.read_bytes().rstrip(bytes(1)).decode(errors='replace')} ({name})"
    return name


def gpu_name() -> str | None:
    """Name of the first GPU as its driver reports it; None where there is none."""
    listed = output_of("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return listed.splitlines()[0].strip() if listed else None


def why_not_writable(path: Path) -> str:
    """Why no row can be appended to a file, as far as that shows before; empty where one can."""
    if path.is_dir():
        return "is a folder"
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if there != path and not there.is_dir():
        return f"lies below {there}, which is no folder"
    return "" if os.access(there, os.W_OK) else "may not be written"


def append_rows(path: Path, rows: list[Any]) -> None:
    """Append frozen dataclasses as JSON lines, in one write: all of them or none.

    Values that are not finite become null. Two programs may append to one file at a time.

    Raises:
        InputError: the file ends in half a line, so something else went wrong before; or it
            cannot be written.
    """
    data = "".join(json.dumps(_plain(asdict(row)), allow_nan=False) + "\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size:
            with path.open("rb") as stream:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    msg = f"{path} ends in half a line; expected whole JSON lines. Remove its last"
                    raise InputError(f"{msg} line")
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}); expected a .jsonl that can"
        raise InputError(msg) from error
    try:
        os.write(descriptor, data.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_rows(path: Path, *, kind: str | None = None) -> list[dict[str, Any]]:
    """Read rows back as plain objects, in order; of one kind when given.

    Raises:
        InputError: unreadable, or a line is not a row of this schema.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read ({error}); expected rows as python -m benchmarks writes them"
        raise InputError(msg) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            found = row["schema"], row["kind"]
        except (ValueError, KeyError, TypeError) as error:
            msg = (
                f"{path} line {number} is not a row ({error!r}); expected one JSON object per line"
            )
            raise InputError(msg) from error
        if found[0] != SCHEMA:
            msg = f"{path} line {number} has schema {found[0]}, expected {SCHEMA}; measure it again"
            raise InputError(msg)
        if kind is None or found[1] == kind:
            rows.append(row)
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def output_of(*command: str) -> str:
    """Standard output of a short program; empty when it is missing or fails."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
