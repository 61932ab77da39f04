"""`skyfix run` for a long time on a video that is played over and over, watched from outside.

The child gets the outputs a drone would have: the log, a table, a map and datagrams to a peer that
listens, which is this process. Its memory, threads and open files are read from /proc.
"""

import csv
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

from benchmarks.rows import Provenance, cpu_name, provenance
from benchmarks.soak_check import (
    SETTLED_S,
    Completeness,
    Growth,
    Sample,
    completeness,
    growth_of,
    seqs_of_csv,
    seqs_of_geojson,
)
from benchmarks.start_up import end
from edge_runtime.errors import InputError
from edge_runtime.flight_log import read_log

Say = Callable[[str], None]

LOG, SAMPLES, HEARD = "fixes.jsonl", "samples.csv", "heard.csv"
MADE_BY = "made_by.json"
"""Version and commit when it began: an hour later the checkout may be another one."""
_TABLE, _MAP = "track.csv", "track.geojson"
_END_S = 60.0


@dataclass(frozen=True, kw_only=True)
class SoakPlan:
    """What to run and for how long."""

    bundle: Path
    index: Path
    source: Path
    """A video file."""
    telemetry: Path
    camera: Path
    folder: Path
    """For everything the run writes; must not hold an earlier one."""
    minutes: float = 60.0
    hz: float = 10.0
    every_s: float = 10.0
    """Between samples."""
    options: tuple[str, ...] = ()
    """More options of skyfix run."""

    def __post_init__(self) -> None:
        """Refuse what shows nothing."""
        if not (self.minutes > 0 and self.hz > 0 and self.every_s > 0):
            msg = (
                f"minutes {self.minutes}, hz {self.hz}, every {self.every_s} s; expected positive "
                "numbers"
            )
            raise InputError(msg)
        if not self.source.is_file():
            msg = f"{self.source} is not a file; expected a video, which is played in real time"
            raise InputError(msg)


@dataclass(frozen=True, kw_only=True)
class SoakRow(Provenance):
    """One long run."""

    kind: Literal["soak"] = "soak"
    seconds: float
    records_per_s: float
    settled_s: float
    growth: Growth
    complete: Completeness
    rss_first_mib: float
    """After settling."""
    rss_last_mib: float
    rss_peak_mib: float
    anonymous_last_mib: float
    threads: int
    files: int
    exit_status: int
    source: str
    device: str
    backend: str
    bundle_id: str
    index_id: str


def soak(plan: SoakPlan, *, say: Say = lambda _line: None) -> SoakRow:
    """Run, watch, end, judge.

    Raises:
        InputError: no /proc here, the folder holds an earlier run, or the child ended by itself.
    """
    if not Path("/proc/self/status").exists():
        msg = "this system has no /proc to read a process's memory from; expected Linux"
        raise InputError(msg)
    if (plan.folder / LOG).exists():
        msg = f"{plan.folder} holds the log of an earlier run; give another --folder"
        raise InputError(msg)
    _check_rate(plan)
    plan.folder.mkdir(parents=True, exist_ok=True)
    (plan.folder / MADE_BY).write_text(json.dumps(provenance()))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        (plan.folder / "stderr.txt").open("wb") as words,
    ):
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        ear.bind(("127.0.0.1", 0))
        heard: list[int] = []
        listener = threading.Thread(target=_hear, args=(ear, heard), daemon=True)
        listener.start()
        child = subprocess.Popen(
            _command(plan, ear.getsockname()[1]), stdout=subprocess.DEVNULL, stderr=words
        )
        try:
            _watch(plan, child, say)
        finally:
            status = end(child, patience_s=_END_S)
            # An empty datagram is the end; what was sent before it is read before it.
            ear.sendto(b"", ear.getsockname())
            listener.join()
    (plan.folder / HEARD).write_text("seq\n" + "".join(f"{seq}\n" for seq in heard))
    return judge(plan.folder, exit_status=status)


def judge(folder: Path, *, exit_status: int = 0) -> SoakRow:
    """Judge a run by what lies in its folder.

    Raises:
        InputError: something is missing, or the run was too short to judge.
    """
    samples = read_samples(folder / SAMPLES)
    seconds = samples[-1].t_s if samples else 0.0
    # A run of minutes cannot wait for five of them; its row says how long it settled.
    settled_s = min(SETTLED_S, seconds / 2)
    growth = growth_of(samples, settled_s=settled_s)
    records = list(read_log(folder / LOG))
    outputs = {
        "csv": seqs_of_csv(folder / _TABLE),
        "positions geojson": seqs_of_geojson(folder / _MAP),
        "udp": seqs_of_csv(folder / HEARD),
    }
    settled = [s for s in samples if s.t_s >= settled_s]
    last = records[-1] if records else None
    return SoakRow(
        **json.loads((folder / MADE_BY).read_text()),
        seconds=seconds,
        records_per_s=len(records) / seconds,
        settled_s=settled_s,
        growth=growth,
        complete=completeness(records, outputs),
        rss_first_mib=settled[0].rss_kib / 1024,
        rss_last_mib=settled[-1].rss_kib / 1024,
        rss_peak_mib=max(s.rss_kib for s in samples) / 1024,
        anonymous_last_mib=settled[-1].anonymous_kib / 1024,
        threads=settled[-1].threads,
        files=settled[-1].files,
        exit_status=exit_status,
        source=folder.name,
        device=cpu_name(),
        backend=last.backend if last else "",
        bundle_id=last.bundle_id if last else "",
        index_id=last.index_id if last else "",
    )


def sample(pid: int, t_s: float) -> Sample:
    """What a process uses now.

    Raises:
        InputError: it is gone.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        values = {
            k: v.split()[0] for k, _, v in (line.partition(":") for line in lines) if v.strip()
        }
        files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return Sample(
            t_s,
            float(values["VmRSS"]),
            float(values["RssAnon"]),
            int(values["Threads"]),
            files,
        )
    except (OSError, KeyError, IndexError) as error:
        msg = f"process {pid} cannot be read ({error!r}); expected a child that runs"
        raise InputError(msg) from error


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Write samples as CSV."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(Sample._fields)
        writer.writerows(samples)


def read_samples(path: Path) -> list[Sample]:
    """Read what `write_samples` wrote.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open(newline="") as stream:
            return [
                Sample(
                    float(row["t_s"]),
                    float(row["rss_kib"]),
                    float(row["anonymous_kib"]),
                    int(row["threads"]),
                    int(row["files"]),
                )
                for row in csv.DictReader(stream)
            ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path} cannot be read as samples ({error!r}); expected those of benchmarks soak"
        raise InputError(msg) from error


def _check_rate(plan: SoakPlan) -> None:
    """Refuse a video of more frames a second: those left out have a number and no record."""
    capture = cv2.VideoCapture(str(plan.source))
    fps = float(capture.get(cv2.CAP_PROP_FPS) or 0.0)
    capture.release()
    if not fps > 0:
        msg = f"{plan.source} is no video that OpenCV can read; expected one"
        raise InputError(msg)
    if not fps <= plan.hz * 1.001:
        msg = (
            f"{plan.source} has {fps:g} frames/s; expected a video of at most --hz {plan.hz:g}, "
            "so that a frame without a record is a missing one"
        )
        raise InputError(msg)


def _command(plan: SoakPlan, port: int) -> list[str]:
    out = plan.folder
    return [
        *(sys.executable, "-m", "edge_runtime", "run", "--bundle", str(plan.bundle)),
        *("--index", str(plan.index), "--source", f"{plan.source}?realtime=1", "--loop"),
        *("--rate-hz", f"{plan.hz:g}", "--telemetry", str(plan.telemetry)),
        *("--camera", str(plan.camera), "--out", str(out / LOG)),
        *("--output", str(out / _TABLE), "--output", str(out / _MAP)),
        *("--output", f"udp://127.0.0.1:{port}", *plan.options),
    ]


def _watch(plan: SoakPlan, child: "subprocess.Popen[bytes]", say: Say) -> None:
    began_s = time.monotonic()
    samples: list[Sample] = []
    while (elapsed_s := time.monotonic() - began_s) < 60 * plan.minutes:
        try:
            child.wait(min(plan.every_s, 60 * plan.minutes - elapsed_s))
        except subprocess.TimeoutExpired:
            samples.append(sample(child.pid, time.monotonic() - began_s))
            write_samples(plan.folder / SAMPLES, samples)
            newest = samples[-1]
            if len(samples) % 6 == 0:
                say(
                    f"{newest.t_s / 60:.1f} of {plan.minutes:g} minutes: "
                    f"{newest.rss_kib / 1024:.1f} MiB, {newest.threads} threads, "
                    f"{newest.files} files"
                )
        else:
            last = (plan.folder / "stderr.txt").read_text(errors="replace").strip().splitlines()
            msg = (
                f"skyfix run ended by itself after {time.monotonic() - began_s:.0f} s with status "
                f"{child.returncode}: {last[-1] if last else 'silent'}"
            )
            raise InputError(msg)


def _hear(ear: socket.socket, heard: list[int]) -> None:
    while data := ear.recv(65536):
        heard.append(int(json.loads(data)["seq"]))
