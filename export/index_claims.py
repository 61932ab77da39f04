"""Claims: which process is at which piece of work, told by files in a shared folder.

A claim only saves work. Whatever it protects is written under a temporary name and renamed, and
comes out the same whoever makes it, so two processes that both believe to hold a claim cost time
and nothing else. That is why plain files are enough, on any file system, without locks.
"""

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HEARTBEAT_S = 5.0
STALE_AFTER_S = 60.0
"""A claim whose holder has not touched it for this long is anyone's."""


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Try to claim a piece of work for the length of the block.

    Args:
        path: the claim's file; its folder exists.

    Yields:
        Whether this process has it. False: another one, that lives, is at it.
    """
    token = uuid.uuid4().hex
    if not (_create(path, token) or (_is_abandoned(path) and _take_over(path, token))):
        yield False
        return
    done = threading.Event()
    beat = threading.Thread(target=_keep_alive, args=(path, done), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        done.set()
        beat.join()
        if _token(path) == token:
            path.unlink(missing_ok=True)


def _create(path: Path, token: str) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as stream:
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "token": token}, stream)
    return True


def _take_over(path: Path, token: str) -> bool:
    """Put the abandoned claim away and make one's own; of several who try, one creates it."""
    away = path.with_name(f"{path.name}.{token}")
    with contextlib.suppress(FileNotFoundError):
        path.replace(away)
    away.unlink(missing_ok=True)
    return _create(path, token)


def _is_abandoned(path: Path) -> bool:
    """Whether the holder is known to be dead, or has been silent for long."""
    try:
        age_s = _now_on_that_disk(path) - path.stat().st_mtime
        holder = json.loads(path.read_text())
        same_host, pid = holder["host"] == socket.gethostname(), int(holder["pid"])
    except FileNotFoundError:
        return True
    except (ValueError, KeyError, TypeError):
        return age_s > STALE_AFTER_S  # Killed between creating the file and writing into it.
    if same_host and pid != os.getpid():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
    return age_s > STALE_AFTER_S


def _now_on_that_disk(path: Path) -> float:
    """The file server's clock: machines that share a disk may differ in theirs."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex}.now")
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _token(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text())["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep_alive(path: Path, done: threading.Event) -> None:
    while not done.wait(_HEARTBEAT_S):
        with contextlib.suppress(OSError):
            os.utime(path)
