"""Engines written whole or not at all, and verified before anything deserialises them.

A plan and its sidecar are two files and cannot be renamed in one step. So the plan is first laid
beside its place under a name with its digest, then the sidecar is renamed, which decides it, then
the plan; whoever reads in between, or after a crash there, finishes the last step. At no moment is
the old engine gone before the new one is whole.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from edge_runtime.artefact import made_by, sha256_of_json, write_atomically
from edge_runtime.engine_store import SCHEMA, SUFFIX, EngineRecord, sidecar_name
from edge_runtime.errors import EngineError


def write_engine(folder: Path, plan: bytes, record: EngineRecord) -> EngineRecord:
    """Write a plan and its sidecar so that a reader finds the old pair or the new one.

    Raises:
        EngineError: the folder cannot be written, as when the disk is full.
    """
    record = replace(
        record,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        made_by=made_by(),
        created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    value = {"schema": SCHEMA, **asdict(record)}
    value["sha256"] = sha256_of_json(value)
    waiting = folder / _waiting_name(record.name, record.plan_sha256)
    text = (json.dumps(value, indent=1) + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _sweep(folder)
            write_atomically(waiting, plan)
            write_atomically(folder / record.sidecar, text)
            settle(folder, record)
    except BaseException as error:
        committed = _recorded_digest(folder / record.sidecar) == record.plan_sha256
        for leftover in folder.glob(f".*.{os.getpid()}.tmp"):
            leftover.unlink(missing_ok=True)
        if not committed:
            waiting.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        msg = (
            f"engine {folder / record.name} of {len(plan) / 1e6:.0f} MB cannot be written "
            f"({error.strerror or error}); free some space or choose another folder with --out"
        )
        raise EngineError(msg) from error
    return record


def remove_engine(plan: Path) -> None:
    """Remove a plan and its sidecar. A plan without a sidecar is nothing, so it goes last."""
    plan.with_name(sidecar_name(plan.name)).unlink(missing_ok=True)
    plan.unlink(missing_ok=True)


def settle(folder: Path, record: EngineRecord) -> Path:
    """Where the plan lies, after finishing what a crash may have left undone."""
    waiting = folder / _waiting_name(record.name, record.plan_sha256)
    if not waiting.exists():
        return folder / record.name
    try:
        waiting.replace(folder / record.name)
    except FileNotFoundError:  # Another reader was faster.
        return folder / record.name
    except OSError:  # A folder that cannot be written: the plan is whole where it is.
        return waiting
    return folder / record.name


def read_plan(folder: Path, record: EngineRecord) -> bytes:
    """The plan's bytes, verified against the sidecar before anything deserialises them.

    Raises:
        EngineError: missing, truncated or altered.
    """
    path = settle(folder, record)
    try:
        plan = path.read_bytes()
    except OSError as error:
        msg = f"engine {path} cannot be read ({error.strerror}); build it again"
        raise EngineError(msg) from error
    found = hashlib.sha256(plan).hexdigest()
    if found != record.plan_sha256:
        msg = (
            f"engine {path} holds {len(plan)} bytes with digest {found[:12]}, its sidecar says "
            f"{record.plan_bytes} bytes and {record.plan_sha256[:12]}; copy both files again or "
            "build it again"
        )
        raise EngineError(msg)
    return plan


def is_abandoned(temporary: Path) -> bool:
    """Whether the process whose number a name ends in, as `.123.tmp`, is no more."""
    found = re.search(r"\.(\d+)\.tmp$", temporary.name)
    if found is None:
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one writer at a time into a folder, on this machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _waiting_name(name: str, digest: str) -> str:
    return f".{name}.{digest[:12]}.new"


def _recorded_digest(sidecar: Path) -> str | None:
    try:
        return str(json.loads(sidecar.read_text())["plan_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sweep(folder: Path) -> None:
    """Remove plans that were laid down and never came into force. The folder is locked."""
    for temporary in folder.glob(".*.tmp"):
        if temporary.is_file() and is_abandoned(temporary):
            temporary.unlink(missing_ok=True)
    for waiting in folder.glob(f".*{SUFFIX}.*.new"):
        name, _, digest = waiting.name[1 : -len(".new")].rpartition(".")
        recorded = _recorded_digest(folder / sidecar_name(name))
        if recorded is None or not recorded.startswith(digest):
            with contextlib.suppress(OSError):
                waiting.unlink()
