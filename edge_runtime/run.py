"""`skyfix run` and `skyfix replay`: frames through the localizer into a log."""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edge_runtime.backends.protocol import BACKENDS, BackendName
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.flight_log import FlightLog, RunSettings, read_log, read_settings
from edge_runtime.localizer import Localizer
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.satellite_index import SatelliteIndex
from edge_runtime.source import FolderSource, VideoSource, open_source
from edge_runtime.state import Telemetry, read_telemetry_csv

Watch = Callable[[Fix, int, int], None]
"""Told each fix, how many are done and how many there will be."""

NOT_COMPARED = frozenset({"t_fix_s", "latency_ms", "deadline_missed"})
"""Fields that measure time and so differ from run to run."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run came to."""

    frames: int
    ok: int
    abstained: int
    lost: int
    degraded: int
    median_ms: float
    provider: str
    notes: tuple[str, ...]
    """Why a faster backend did not run."""
    """What embedded, as the library names it."""
    left_out: int
    """Photographs without telemetry."""


def run(settings: RunSettings, out: Path, *, watch: Watch | None = None) -> RunSummary:
    """Localise every frame of a source and write the log.

    Everything is opened and checked before the log is touched.

    Raises:
        SkyfixError: any input is missing, altered, or does not belong together.
    """
    source, localizer = _opened(settings)
    counts = {"OK": 0, "ABSTAIN": 0, "LOST": 0, "DEGRADED": 0}
    times_ms: list[float] = []
    try:
        with FlightLog(out, settings) as log:
            for frame in source:
                fix = localizer.step(
                    frame.image, frame.state, frame_name=frame.name, capture_ms=frame.capture_ms
                )
                log.write(fix)
                counts[fix.status] += 1
                times_ms.append(fix.latency_ms["total"])
                if watch is not None:
                    watch(fix, len(times_ms), len(source))
    finally:
        localizer.close()
    return RunSummary(
        frames=len(times_ms),
        ok=counts["OK"],
        abstained=counts["ABSTAIN"],
        lost=counts["LOST"],
        degraded=counts["DEGRADED"],
        median_ms=sorted(times_ms)[len(times_ms) // 2] if times_ms else 0.0,
        provider=localizer.backend.info.provider,
        notes=localizer.backend.info.notes,
        left_out=len(source.left_out),
    )


@dataclass(frozen=True, kw_only=True)
class ReplaySummary:
    """How a replay compares with the log."""

    frames: int
    different: list[str]
    """One line for each frame that came out otherwise."""


def replay(log: Path, *, watch: Watch | None = None) -> ReplaySummary:
    """Run a log's frames again with its settings and compare every field but times.

    Raises:
        SkyfixError: the log, its settings, or anything they name is missing or altered.
    """
    recorded = list(read_log(log))
    settings = read_settings(log)
    source, localizer = _opened(settings)
    different: list[str] = []
    done = 0
    try:
        for frame, before in zip(source, recorded, strict=False):
            fix = localizer.step(
                frame.image, frame.state, frame_name=frame.name, capture_ms=frame.capture_ms
            )
            done += 1
            changed = differing_fields(before, fix)
            if changed:
                different.append(f"{before.frame}: {', '.join(changed)}")
            if watch is not None:
                watch(fix, done, len(recorded))
    finally:
        localizer.close()
    if done < len(recorded):
        different.append(f"{len(recorded) - done} frames of the log are not in the source any more")
    return ReplaySummary(frames=done, different=different)


def differing_fields(before: Fix, after: Fix) -> list[str]:
    """Names of fields that differ, times left out."""
    # Both sides take the same way through JSON, so rounding and NaN cannot differ.
    from edge_runtime.fix import fix_from_json

    a, b = fix_from_json(before.to_json()), fix_from_json(after.to_json())
    names = (f.name for f in fields(Fix) if f.name not in NOT_COMPARED)
    return [name for name in names if getattr(a, name) != getattr(b, name)]


def _opened(settings: RunSettings) -> tuple[FolderSource | VideoSource, Localizer]:
    options = dict(settings.options)
    start = options.pop("start", None)
    rate_hz = options.pop("rate_hz", None)
    ignore = frozenset(options.pop("ignore", []))
    threads = options.pop("threads", None)
    precision = options.pop("precision", None)
    if threads is not None and threads < 1:
        msg = f"threads is {threads}; expected 1 or more, or none given for all cores"
        raise InputError(msg)
    config = _config(options)
    camera = Camera.load(Path(settings.camera))
    telemetry = read_telemetry_csv(Path(settings.telemetry), ignore=ignore)
    source = open_source(Path(settings.source), telemetry, rate_hz=rate_hz)
    if all(state.height_m is None for state in telemetry.rows) and config.height_range_m is None:
        msg = (
            f"telemetry {settings.telemetry} has no height_m; add the column, or give a range to "
            "search with --height-range-m LOW HIGH"
        )
        raise InputError(msg)
    localizer = Localizer.open(
        settings.bundle,
        settings.index,
        camera,
        backend=_backend(settings.backend),
        config=config,
        precision=precision,
        threads=threads,
    )
    try:
        _check_order(telemetry, localizer.index)
        if start is not None:
            localizer.start_at(*start)
    except InputError:
        localizer.close()
        raise
    return source, localizer


def _check_order(telemetry: Telemetry, index: SatelliteIndex) -> None:
    """Refuse positions that are on the map only with latitude and longitude exchanged.

    Positions off the map either way say nothing: GNSS may have been jammed or spoofed.
    """
    if any(index.contains(lat, lon) for lat, lon in telemetry.positions):
        return
    for lat, lon in telemetry.positions:
        if abs(lon) <= 90 and index.contains(lon, lat):
            msg = (
                f"telemetry {telemetry.path} has the position {lat:.5f}, {lon:.5f}, which is on "
                "the map only the other way round; is the order (lat, lon)?"
            )
            raise InputError(msg)


def _config(options: dict[str, Any]) -> LocalizerConfig:
    if options.get("height_range_m") is not None:
        options = {**options, "height_range_m": tuple(options["height_range_m"])}
    try:
        return LocalizerConfig(**options)
    except TypeError as error:
        known = sorted(asdict(LocalizerConfig()))
        msg = f"the run's options are not known here ({error}); known: {known}"
        raise InputError(msg) from error


def _backend(name: str) -> BackendName:
    if name not in BACKENDS:
        msg = f"there is no backend {name!r}; known: {', '.join(BACKENDS)}"
        raise InputError(msg)
    return name  # type: ignore[return-value]


class TerminalProgress:
    """One line that is rewritten on a terminal, a line every tenth elsewhere."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._live = sys.stderr.isatty()
        self._ok = 0

    def __call__(self, fix: Fix, done: int, total: int) -> None:
        """Show how far the run is."""
        self._ok += fix.status == "OK"
        tenth = max(1, total // 10)
        if not self._live and done % tenth and done != total:
            return
        elapsed = time.perf_counter() - self._started
        left_s = elapsed / done * (total - done)
        width = 24
        filled = width * done // max(total, 1)
        line = (
            f"[{'#' * filled}{'.' * (width - filled)}] {done}/{total} frames, {self._ok} OK, "
            f"{fix.latency_ms['total']:.0f} ms, {left_s:.0f} s left"
        )
        end = "\n" if not self._live or done == total else ""
        sys.stderr.write(f"\r{line:<90}{end}" if self._live else line + "\n")
        sys.stderr.flush()
