"""From starting the process to the first record and to the first fix, seen from outside.

The child is `skyfix run` as a user starts it. It sends its records to a socket of this process, so
the clock runs from just before the child is started to the moment a datagram is there. Photographs
come as fast as they are taken: the drone's own camera may be slower.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from benchmarks.flight_laws import Law
from benchmarks.rows import Provenance, cpu_name, provenance
from edge_runtime.bundle import Bundle
from edge_runtime.errors import InputError
from edge_runtime.satellite_index import SatelliteIndex

FIRST_FIX_S, IMPORT_S = 3.0, 0.2
_GIVE_UP_S = 60.0
_LIBRARIES = ("numpy", "numpy.libs", "cv2", "onnxruntime", "openvino", "usearch")

Cache = Literal["warm", "cold"]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class StartUpPlan:
    """What to start."""

    bundle: Path
    index: Path
    source: str
    telemetry: Path
    camera: Path
    backends: tuple[str, ...] = ("auto",)
    runs: int = 10
    caches: tuple[Cache, ...] = ("warm", "cold")
    options: tuple[str, ...] = ()
    """More options of skyfix run."""

    def __post_init__(self) -> None:
        """Refuse to measure nothing."""
        if self.runs < 1:
            msg = f"--runs is {self.runs}; expected at least 1"
            raise InputError(msg)


class Start(NamedTuple):
    """One start."""

    first_record_s: float
    first_ok_s: float | None
    """None where there was none before the source was over or the patience."""
    frames: int
    """Records up to the first that is OK."""


@dataclass(frozen=True, kw_only=True)
class StartUpRow(Provenance):
    """Starts with one backend. Seconds from starting the process; medians and the slowest."""

    kind: Literal["start-up"] = "start-up"
    backend: str
    cache: Cache
    """cold: after every file was dropped from the page cache that no other process has mapped."""
    runs: int
    import_s: float
    """`import edge_runtime` alone, in a process of its own."""
    import_max_s: float
    first_record_s: float
    first_record_max_s: float
    first_ok_s: float | None
    """None unless every run had one."""
    first_ok_max_s: float | None
    frames_to_ok: float
    """Median number of records up to the first OK."""
    source: str
    options: Sequence[str] = ()
    """More options of skyfix run."""
    device: str
    cores: int
    load: float
    bundle_id: str
    index_id: str


def measure(plan: StartUpPlan, *, say: Say = lambda _line: None) -> list[StartUpRow]:
    """Start skyfix again and again, one row for each backend and cache.

    Raises:
        InputError: a child ended without a record; the message has its last words.
        SkyfixError: bundle and index do not belong together.
    """
    bundle = Bundle.open(plan.bundle)
    index = SatelliteIndex.open(plan.index, bundle)
    index.close()
    rows = []
    for cache in plan.caches:
        for backend in plan.backends:
            starts, imports_s = [], []
            for number in range(plan.runs):
                if cache == "cold":
                    drop_from_cache(_files(plan))
                imports_s.append(import_s())
                if cache == "cold":
                    drop_from_cache(_files(plan))
                starts.append(start(plan, backend))
                say(f"{backend}, {cache}, {number + 1} of {plan.runs}: {starts[-1]}")
            rows.append(_row(plan, backend, cache, starts, imports_s, (bundle.id, index.id)))
    return rows


def laws(rows: Sequence[StartUpRow]) -> list[Law]:
    """Judge each row by its medians."""
    judged = []
    for row in rows:
        name, ok_s = f"{row.backend}, {row.cache} cache", row.first_ok_s
        judged.append(
            Law(
                name=f"first fix, {name}",
                required=f"< {FIRST_FIX_S:g} s",
                seen="none in a run" if ok_s is None else f"{ok_s:.2f} s",
                holds=ok_s is not None and ok_s < FIRST_FIX_S,
            )
        )
        judged.append(
            Law(
                name=f"import edge_runtime, {name}",
                required=f"< {IMPORT_S:g} s",
                seen=f"{row.import_s:.3f} s",
                holds=row.import_s < IMPORT_S,
            )
        )
    return judged


def start(plan: StartUpPlan, backend: str) -> Start:
    """Start skyfix once, wait for its first fix and end it."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        tempfile.TemporaryDirectory() as folder,
        (Path(folder) / "stderr").open("w+b") as words,
    ):
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(0.2)
        command = [
            *(sys.executable, "-m", "edge_runtime", "run", "--bundle", str(plan.bundle)),
            *("--index", str(plan.index), "--source", plan.source),
            *("--telemetry", str(plan.telemetry), "--camera", str(plan.camera)),
            *("--backend", backend, "--out", str(Path(folder) / "fixes.jsonl")),
            *("--output", f"udp://127.0.0.1:{ear.getsockname()[1]}", *plan.options),
        ]
        began_s = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=words)
        try:
            found = _listen(ear, child, began_s)
        finally:
            end(child)
        if found is None:
            words.seek(0)
            last = words.read().decode(errors="replace").strip().splitlines()[-1:]
            msg = f"skyfix run gave no record within {_GIVE_UP_S:g} s: {' '.join(last) or 'silent'}"
            raise InputError(msg)
        return found


def _listen(ear: socket.socket, child: "subprocess.Popen[bytes]", began_s: float) -> Start | None:
    first_s: float | None = None
    records = 0
    while True:
        ended = child.poll() is not None
        try:
            data = ear.recv(65536)
        except TimeoutError:
            # What had been sent before the end has been read by now.
            if ended or time.perf_counter() - began_s > _GIVE_UP_S:
                return None if first_s is None else Start(first_s, None, records)
            continue
        now_s = time.perf_counter() - began_s
        first_s = now_s if first_s is None else first_s
        record = json.loads(data)
        records = int(record["seq"]) + 1
        if record["status"] == "OK":
            return Start(first_s, now_s, records)


def end(child: "subprocess.Popen[bytes]", *, patience_s: float = 20.0) -> int:
    """Ask a child to end as systemd would; its exit status."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        return child.wait(patience_s)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def import_s() -> float:
    """How long `import edge_runtime` takes in a process of its own, seconds."""
    program = (
        "import time; began = time.perf_counter(); import edge_runtime; "
        "print(time.perf_counter() - began)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def drop_from_cache(files: Iterable[Path]) -> None:
    """Let the kernel forget files, so far as no process has them mapped. Does nothing elsewhere."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in files:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _files(plan: StartUpPlan) -> list[Path]:
    """What a start reads: the map, the encoder, frames, our code and the libraries."""
    import numpy as np

    import edge_runtime

    site = Path(np.__file__).parent.parent
    roots = [plan.bundle, plan.index, Path(plan.source.partition("?")[0])]
    roots += [Path(next(iter(edge_runtime.__path__))), *(site / name for name in _LIBRARIES)]
    found = [plan.telemetry, plan.camera]
    for root in roots:
        found += [root] if root.is_file() else [p for p in root.rglob("*") if p.is_file()]
    return found


def _row(
    plan: StartUpPlan,
    backend: str,
    cache: Cache,
    starts: Sequence[Start],
    imports_s: Sequence[float],
    ids: tuple[str, str],
) -> StartUpRow:
    ok_s = [s.first_ok_s for s in starts if s.first_ok_s is not None]
    all_ok = len(ok_s) == len(starts)
    return StartUpRow(
        **provenance(),
        backend=backend,
        cache=cache,
        runs=len(starts),
        import_s=statistics.median(imports_s),
        import_max_s=max(imports_s),
        first_record_s=statistics.median(s.first_record_s for s in starts),
        first_record_max_s=max(s.first_record_s for s in starts),
        first_ok_s=statistics.median(ok_s) if all_ok else None,
        first_ok_max_s=max(ok_s) if all_ok else None,
        frames_to_ok=statistics.median(s.frames for s in starts),
        source=plan.source,
        options=plan.options,
        device=cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        load=os.getloadavg()[0],
        bundle_id=ids[0],
        index_id=ids[1],
    )
