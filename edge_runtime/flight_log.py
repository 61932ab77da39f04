"""The log of a run: one fix record per line, and beside it what the run was made of.

Records are written and synced on a thread, so a slow medium does not hold a frame up. While the
medium takes nothing (full, gone, read-only) they wait in memory, the newest of them.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType

from edge_runtime.artefact import write_atomically
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.log_reading import read_log
from edge_runtime.outputs.line_file import Disk, LineFile, SystemDisk, last_line
from edge_runtime.run_settings import (
    RunOfLog,
    RunSettings,
    read_runs_of,
    read_settings,
    settings_path,
    with_run,
)

__all__ = [
    "FlightLog",
    "RunSettings",
    "read_log",
    "read_settings",
    "settings_path",
]

BUFFER_RECORDS = 6000
"""Ten minutes at 10 Hz, about 6 MiB."""
ROTATE_BYTES = 64 << 20
"""About 18 hours at 1 Hz, 2 hours at 10 Hz."""
_SYNC_EVERY_S = 1.0
_RETRY_S = 1.0
_BATCH_RECORDS = 100


class FlightLog:
    """Appends records to a rotating JSONL file. `write` never blocks and never fails.

    `fixes.jsonl` is the newest part; `fixes.part0001.jsonl` and so on are the older ones.
    """

    def __init__(
        self,
        path: Path,
        settings: RunSettings | None = None,
        *,
        append: bool = False,
        rotate_bytes: int | None = ROTATE_BYTES,
        keep_parts: int | None = None,
        buffer_records: int = BUFFER_RECORDS,
        retry_s: float = _RETRY_S,
        disk: Disk | None = None,
    ) -> None:
        """Start a log; an older one of the same name is replaced, or gone on with.

        Args:
            path: the file; missing folders are made.
            settings: written beside it, before those of the runs that are kept.
            append: keep the records that are there, as a service that was restarted must; a line
                that a crash cut off is removed first.
            rotate_bytes: size of a part.
            keep_parts: full parts kept beside the newest; None keeps all.
            buffer_records: kept in memory while the medium takes none; the oldest go first.
            retry_s: seconds between two tries on a medium that fails.
            disk: the system calls, for tests.

        Raises:
            InputError: the place cannot be written, or an option makes no sense.
        """
        if buffer_records < 1 or (rotate_bytes or 1) < 1 or (keep_parts or 0) < 0:
            msg = (
                f"log {path}: buffer_records {buffer_records}, rotate_bytes {rotate_bytes}, "
                f"keep_parts {keep_parts}; expected at least 1, 1 and 0"
            )
            raise InputError(msg)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if settings is not None:
                _write_settings(path, settings, append=append)
            self._file = LineFile(
                path,
                append=append,
                rotate_bytes=rotate_bytes,
                keep_parts=keep_parts,
                disk=disk or SystemDisk(),
            )
        except OSError as error:
            msg = f"log {path} cannot be written ({error.strerror}); choose another --out"
            raise InputError(msg) from error
        self._path = path
        self._retry_s = retry_s
        self._waiting: deque[bytes] = deque()
        self._capacity = buffer_records
        self._lost = 0
        self._overflowing = False
        self._offered = 0
        self._settled = 0
        self._events: list[str] = []
        self._failing_since_s: dict[str, float] = {}
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="flight-log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Records that will never be in the file; after `close`, every one that is not."""
        with self._changed:
            return self._lost

    def write(self, fix: Fix) -> None:
        """Take one record to be written."""
        line = (fix.to_json() + "\n").encode()
        with self._changed:
            self._waiting.append(line)
            self._offered += 1
            if len(self._waiting) > self._capacity:
                self._waiting.popleft()
                self._lost += 1
                self._settled += 1
                if not self._overflowing:
                    self._overflowing = True
                    self._events.append(
                        f"log {self._path.name}: {self._capacity} records wait and none more can, "
                        "so the oldest are lost"
                    )
            self._changed.notify_all()

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until the operating system has every record given so far; False if it has not."""
        with self._changed:
            target = self._offered
            return self._changed.wait_for(lambda: self._settled >= target, timeout_s)

    def events(self) -> list[str]:
        """What happened since the last call, one line each: failing, written again, lost."""
        with self._changed:
            told, self._events = self._events, []
            return told

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, sync and close, in bounded time. Safe to call twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            if self._waiting:
                self._lost += len(self._waiting)
                self._waiting.clear()
                self._events.append(
                    f"log {self._path.name}: closed with {self._lost} records not written"
                )

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
        self.close()

    def _work(self) -> None:
        dirty = False
        synced_s = time.monotonic()
        while True:
            with self._changed:
                due_s = synced_s + _SYNC_EVERY_S - time.monotonic() if dirty else None
                self._changed.wait_for(
                    lambda: bool(self._waiting) or self._closing,
                    None if due_s is None else max(0.0, due_s),
                )
                # Where there is little room, one record may fit and many not.
                most = 1 if "written" in self._failing_since_s else _BATCH_RECORDS
                batch = list(islice(self._waiting, most))
                last = self._closing and len(batch) == len(self._waiting)
            written = not batch or self._tried(
                "written", partial(self._file.append, b"".join(batch))
            )
            if written and batch:
                dirty = True
                self._settle(batch)
            if dirty and (last or time.monotonic() - synced_s >= _SYNC_EVERY_S):
                synced_s = time.monotonic()
                dirty = not self._tried("synced", self._file.sync)
            if last or (self._closing and not written):
                break
            if not written:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, self._retry_s)
        self._tried("closed", self._file.close)

    def _settle(self, batch: list[bytes]) -> None:
        with self._changed:
            self._overflowing = False
            for line in batch:
                # A full buffer may have dropped the first of them meanwhile: those were not lost.
                if self._waiting and self._waiting[0] is line:
                    self._waiting.popleft()
                    self._settled += 1
                else:
                    self._lost -= 1
            self._changed.notify_all()

    def _tried(self, done: str, action: Callable[[], None]) -> bool:
        """Do something on the medium; a failure and its end are told once."""
        name = self._path.name
        try:
            action()
        except OSError as error:
            if done not in self._failing_since_s:
                self._failing_since_s[done] = time.monotonic()
                self._tell(f"log {name} cannot be {done} ({error.strerror or error}), trying again")
            return False
        since_s = self._failing_since_s.pop(done, None)
        if since_s is not None:
            self._tell(
                f"log {name} is {done} again after {time.monotonic() - since_s:.0f} s, "
                f"{self.lost} records lost so far"
            )
        return True

    def _tell(self, event: str) -> None:
        with self._changed:
            self._events.append(event)


def _write_settings(log: Path, settings: RunSettings, *, append: bool) -> None:
    earlier: list[RunOfLog] = []
    before: bytes | None = None
    if append:
        before = last_line(log)
        # A flight does not wait for a file that only a replay needs.
        with suppress(InputError):
            earlier = read_runs_of(log)
    write_atomically(settings_path(log), with_run(earlier, settings, before))
