"""How a run is doing: kept up to date by the loop, read by a file, an endpoint and systemd."""

import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.outputs.reported import without_doubtful_position

STALLED_AFTER_S = 5.0
_RECENT = 128
"""Steps that rates and latencies are of."""
_EVENTS = 32
_WRITE_EVERY_S = 1.0


class Health:
    """What is known of a run. The loop calls `advanced` after each step; any thread may read."""

    def __init__(
        self,
        *,
        stalled_after_s: float = STALLED_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with nothing seen.

        Args:
            stalled_after_s: without a frame that has an image for so long, frames do not flow.
            clock: seconds, monotonic.
            unix_clock: seconds since 1970.
        """
        self._stalled_after_s = stalled_after_s
        self._clock = clock
        self._unix_clock = unix_clock
        self._began_s = clock()
        self._lock = threading.Lock()
        self._last_fix: Fix | None = None
        self._step_s: float | None = None
        self._frame_s: float | None = None
        self._frames = 0
        self._statuses: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._steps_s: deque[float] = deque(maxlen=_RECENT)
        self._totals_ms: deque[float] = deque(maxlen=_RECENT)
        self._events: deque[tuple[float, str]] = deque(maxlen=_EVENTS)

    def advanced(self, fix: Fix, *, has_image: bool, events: Sequence[str] = ()) -> None:
        """Take in one step of the loop.

        Args:
            fix: its answer.
            has_image: whether the frame had an image, and was not only the news that none came.
            events: what the fix's own events do not say.
        """
        now_s = self._clock()
        with self._lock:
            self._last_fix, self._step_s = fix, now_s
            if has_image:
                self._frame_s = now_s
                self._frames += 1
                self._steps_s.append(now_s)
                self._totals_ms.append(fix.latency_ms.get("total", 0.0))
            self._statuses[fix.status] += 1
            self._counts["deadlines_missed"] += fix.deadline_missed
            self._counts["steps_that_shed"] += bool(fix.shed)
            self._counts["frames_dropped"] += fix.dropped
            self._events.extend((self._unix_clock(), text) for text in (*fix.events, *events))

    def flowing(self) -> bool:
        """Whether frames with an image come and are worked on."""
        with self._lock:
            return self._flowing(self._clock())

    def status_line(self) -> str:
        """A line for `systemctl status`."""
        with self._lock:
            fix, flowing = self._last_fix, self._flowing(self._clock())
            frames, rate_hz = self._frames, self._rate_hz()
        words: str = "no frame yet" if fix is None else fix.status
        if fix is not None and fix.status == "OK" and fix.eph_m is not None:
            words += f", eph {fix.eph_m:.1f} m"
        pace = f"{rate_hz:.1f} Hz" if flowing else "no frames come"
        return f"{words}, {pace}, {frames} frames"

    def report(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        now_s = self._clock()
        with self._lock:
            fix = self._last_fix
            totals_ms = sorted(self._totals_ms)
            value: dict[str, Any] = {
                "schema": 1,
                "pid": os.getpid(),
                "time_unix_s": round(self._unix_clock(), 3),
                "uptime_s": round(now_s - self._began_s, 1),
                "flowing": self._flowing(now_s),
                "step_age_s": _age_s(now_s, self._step_s),
                "frame_age_s": _age_s(now_s, self._frame_s),
                "frames": self._frames,
                "rate_hz": round(self._rate_hz(), 2),
                "status": None if fix is None else fix.status,
                "statuses": dict(self._statuses),
                "latency_p50_ms": _quantile(totals_ms, 0.5),
                "latency_p95_ms": _quantile(totals_ms, 0.95),
                **{
                    name: self._counts[name]
                    for name in ("deadlines_missed", "steps_that_shed", "frames_dropped")
                },
                "memory_rss_mib": memory_rss_mib(),
                "events": [{"time_unix_s": round(t, 3), "event": text} for t, text in self._events],
            }
        value["last_fix"] = (
            None if fix is None else json.loads(without_doubtful_position(fix).to_json())
        )
        return value

    def health_json(self) -> tuple[int, bytes]:
        """HTTP status and JSON body: 200 while frames flow, 503 when they do not."""
        report = self.report()
        return (200 if report["flowing"] else 503), (json.dumps(report) + "\n").encode()

    def _flowing(self, now_s: float) -> bool:
        return self._frame_s is not None and now_s - self._frame_s <= self._stalled_after_s

    def _rate_hz(self) -> float:
        if len(self._steps_s) < 2 or self._steps_s[-1] <= self._steps_s[0]:
            return 0.0
        return (len(self._steps_s) - 1) / (self._steps_s[-1] - self._steps_s[0])


class HealthFile:
    """The report as a file, replaced once a second by a thread: also while the loop stands still.

    Written without fsync, for a folder in memory as /run; what a power cut leaves of it is of no
    use to anyone.
    """

    def __init__(self, health: Health, path: Path, *, every_s: float = _WRITE_EVERY_S) -> None:
        """Write it a first time and start the thread.

        Raises:
            InputError: it cannot be written.
        """
        self._health = health
        self._path = path
        self._failing = False
        self._events: deque[str] = deque()
        self._stop = threading.Event()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write()
        except OSError as error:
            msg = f"health file {path} cannot be written ({error.strerror}); choose another place"
            raise InputError(msg) from error
        self._thread = threading.Thread(
            target=self._work, args=(every_s,), name="health-file", daemon=True
        )
        self._thread.start()

    def events(self) -> list[str]:
        """What happened since the last call: the file cannot be written, or can again."""
        # What the thread adds meanwhile stays for the next call.
        return [self._events.popleft() for _ in range(len(self._events))]

    def close(self) -> None:
        """Write it a last time and stop. Safe to call twice."""
        self._stop.set()
        self._thread.join(2.0)

    def _work(self, every_s: float) -> None:
        stopped = False
        while not stopped:
            stopped = self._stop.wait(every_s)
            try:
                self._write()
            except OSError as error:
                if not self._failing:
                    self._events.append(f"health file {self._path} cannot be written ({error})")
                self._failing = True
            else:
                if self._failing:
                    self._events.append(f"health file {self._path} is written again")
                self._failing = False

    def _write(self) -> None:
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(self._health.health_json()[1])
            temporary.replace(self._path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


class HealthServer:
    """The report over HTTP at /health, for monitors on this computer."""

    def __init__(self, health: Health, *, port: int, host: str = "127.0.0.1") -> None:
        """Listen and answer on threads.

        Args:
            health: what to report.
            port: 0 takes a free one, see `port`.
            host: loopback unless told; there is no password.

        Raises:
            InputError: the port is taken or not allowed.
        """

        class Handler(BaseHTTPRequestHandler):
            timeout = 5.0

            def do_GET(self) -> None:
                status, body = (
                    health.health_json()
                    if self.path.split("?")[0] == "/health"
                    else (404, b'{"error": "expected /health"}\n')
                )
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: a monitor asks every second."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except (OSError, OverflowError) as error:
            msg = f"health endpoint {host}:{port} cannot be opened ({error}); choose another port"
            raise InputError(msg) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="health-server", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Safe to call twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)


def memory_rss_mib() -> float | None:
    """Memory of this process that is in RAM; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def _age_s(now_s: float, then_s: float | None) -> float | None:
    return None if then_s is None else round(now_s - then_s, 2)


def _quantile(values: Sequence[float], share: float) -> float | None:
    return round(values[min(len(values) - 1, int(share * len(values)))], 2) if values else None
