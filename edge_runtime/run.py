"""`skyfix run` and `skyfix replay`: a flight by its settings, and the same flight again."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edge_runtime.backends.protocol import BACKENDS, BackendName
from edge_runtime.camera import Camera
from edge_runtime.deadline import Effort
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix, fix_from_json
from edge_runtime.flight import Flight, RunSummary, TellsEvents, Watch
from edge_runtime.flight_log import FlightLog, RunSettings, read_log, read_settings
from edge_runtime.health import Health, HealthFile
from edge_runtime.localizer import Localizer
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.satellite_index import SatelliteIndex
from edge_runtime.sources.opening import open_frames
from edge_runtime.sources.protocol import FrameSource
from edge_runtime.states.opening import open_states
from edge_runtime.states.photos import PhotoStates
from edge_runtime.states.protocol import StateSource
from edge_runtime.states.recording import RecordedStates

NOT_COMPARED = frozenset({"t_fix_s", "latency_ms", "deadline_missed", "events"})
"""Fields that measure time, or tell what happened around a run, and so differ from run to run."""
_SOURCE_OPTIONS = ("rate_hz", "loop", "stall_s", "latency_ms")
_STATE_OPTIONS = ("time_offset_s", "max_gap_s", "heading")


@dataclass(frozen=True, kw_only=True)
class RunOutputs:
    """Where a run's fixes go besides the log. None of it changes a fix."""

    uris: tuple[str, ...] = ()
    """See docs/outputs.md."""
    serve: tuple[str, int] | None = None
    """Host and port of the live page."""
    record: Path | None = None
    """Folder for frames, states and fixes."""
    record_gb: float = 4.0
    """Most that the recording may take; the oldest goes first."""
    record_only_lost: bool = False
    """Keep only what led to being lost."""
    health_file: Path | None = None
    append: bool = False
    """Go on with the log that is there."""


def run(
    settings: RunSettings,
    out: Path,
    *,
    outputs: RunOutputs | None = None,
    watch: Watch | None = None,
) -> RunSummary:
    """Localise every frame of a source and write the log.

    Everything is opened and checked before the log is touched.

    Raises:
        SkyfixError: any input is missing, altered, or does not belong together.
    """
    outputs = outputs or RunOutputs()
    with _opened(settings) as flight, ExitStack() as stack:
        _add_outputs(flight, outputs, settings, stack)
        # A replay must not choose another library than the flight did.
        settings = replace(settings, backend=flight.localizer.backend.info.name)
        log = stack.enter_context(FlightLog(out, settings, append=outputs.append))
        return flight.fly(log, watch=watch)


@dataclass(frozen=True, kw_only=True)
class ReplaySummary:
    """How a replay compares with the log."""

    frames: int
    different: list[str]
    """One line for each frame that came out otherwise."""


def replay(log: Path, *, watch: Watch | None = None) -> ReplaySummary:
    """Run a log's frames, or a recording's, again and compare every field but times.

    Args:
        log: written by `run`, or the folder of a recording.
        watch: told each fix.

    Raises:
        SkyfixError: the log, its settings, or anything they name is missing or altered.
    """
    if log.is_dir():
        return _replay_recording(log, watch)
    recorded = list(read_log(log))
    settings = read_settings(log)
    different: list[str] = []
    done = 0
    with _opened(settings) as flight:
        if flight.source.live:
            msg = (
                f"{log} is of a live source, {settings.source}, whose frames are gone; replay the "
                "folder that skyfix run --record wrote"
            )
            raise InputError(msg)
        for frame, before in zip(flight.source.frames(), recorded, strict=False):
            fix = replace(flight.step(frame, effort=effort_of(before)), dropped=before.dropped)
            done += 1
            changed = differing_fields(before, fix)
            if changed:
                different.append(f"{before.frame}: {', '.join(changed)}")
            if watch is not None:
                watch(fix, done, len(recorded))
    if done < len(recorded):
        different.append(f"{len(recorded) - done} frames of the log are not in the source any more")
    return ReplaySummary(frames=done, different=different)


def _replay_recording(folder: Path, watch: Watch | None) -> ReplaySummary:
    from edge_runtime.recordings.reading import read_recording

    different: list[str] = []
    done = 0
    localizer: Localizer | None = None
    try:
        for segment in read_recording(folder):
            if localizer is None:
                localizer = _localizer(
                    RunSettings(**segment.settings), dict(segment.settings["options"])
                )
            localizer.restore(segment.snapshot)
            for recorded in segment.records():
                frame, before = recorded.frame, recorded.fix
                fix = localizer.step(
                    frame.image,
                    recorded.state,
                    frame_name=frame.name,
                    capture_ms=frame.capture_ms,
                    problem=frame.problem,
                    effort=effort_of(before),
                )
                fix = replace(fix, dropped=frame.dropped)
                done += 1
                changed = differing_fields(before, fix)
                if changed:
                    different.append(f"{before.frame}: {', '.join(changed)}")
                if watch is not None:
                    watch(fix, done, None)
    finally:
        if localizer is not None:
            localizer.close()
    return ReplaySummary(frames=done, different=different)


def effort_of(fix: Fix) -> Effort:
    """How much was done for a frame, so that it can be done again whatever the clock says."""
    return Effort(fix.windows, fix.windows > 0 and "refine" not in fix.shed)


def differing_fields(before: Fix, after: Fix) -> list[str]:
    """Names of fields that differ, times left out."""
    # Both sides take the same way through JSON, so rounding and NaN cannot differ.
    a, b = fix_from_json(before.to_json()), fix_from_json(after.to_json())
    names = (f.name for f in fields(Fix) if f.name not in NOT_COMPARED)
    return [name for name in names if getattr(a, name) != getattr(b, name)]


@contextmanager
def _opened(settings: RunSettings) -> Iterator[Flight]:
    """Open and check every part; close them all afterwards."""
    options = dict(settings.options)
    of_source = {k: options.pop(k) for k in _SOURCE_OPTIONS if k in options}
    of_states = {k: options.pop(k) for k in _STATE_OPTIONS if k in options}
    ignore = frozenset(options.pop("ignore", []))
    start = options.pop("start", None)
    with ExitStack() as stack:
        # Cheap things first: a mistake in them is told before a model is loaded.
        camera = Camera.load(Path(settings.camera))
        config = _config(options, strict=False)
        states = open_states(settings.telemetry, ignore=ignore, **of_states)
        stack.callback(states.close)
        names = states.names if isinstance(states, (RecordedStates, PhotoStates)) else frozenset()
        source = _source(settings, names, of_source)
        stack.callback(source.close)
        _check_states(settings, states, source, config)
        localizer = _localizer(settings, options, camera=camera)
        stack.callback(localizer.close)
        _check_order(settings, states, localizer.index)
        if start is not None:
            localizer.start_at(*start)
        flight = Flight(
            source=source,
            states=states,
            localizer=localizer,
            source_period_s=_period_s(settings.source, source, of_source),
        )
        stack.callback(flight.close)
        yield flight


def _localizer(
    settings: RunSettings, options: dict[str, Any], *, camera: Camera | None = None
) -> Localizer:
    options = {
        k: v
        for k, v in options.items()
        if k not in (*_SOURCE_OPTIONS, *_STATE_OPTIONS, "ignore", "start")
    }
    threads = options.pop("threads", None)
    precision = options.pop("precision", None)
    if threads is not None and threads < 1:
        msg = f"threads is {threads}; expected 1 or more, or none given for all cores"
        raise InputError(msg)
    return Localizer.open(
        settings.bundle,
        settings.index,
        camera or Camera.load(Path(settings.camera)),
        backend=_backend(settings.backend),
        config=_config(options),
        precision=precision,
        threads=threads,
    )


def _source(settings: RunSettings, names: frozenset[str], options: dict[str, Any]) -> FrameSource:
    folder = Path(settings.source)
    if not (folder.is_dir() and names):
        return open_frames(settings.source, **options)
    source = open_frames(settings.source, names=names, **options)
    if source.count() == 0:
        first = min(source.left_out, default="none")
        source.close()
        msg = (
            f"{settings.telemetry} names none of the {len(source.left_out)} photographs in "
            f"{folder} (the first is {first}); expected its filename column to match"
        )
        raise InputError(msg)
    return source


def _check_states(
    settings: RunSettings, states: StateSource, source: FrameSource, config: LocalizerConfig
) -> None:
    if states.live or not isinstance(states, (RecordedStates, PhotoStates)):
        return
    knows_height = states.knows("height_m") or states.knows("height_above_takeoff_m")
    if not knows_height and config.height_range_m is None:
        msg = (
            f"telemetry {settings.telemetry} has no height_m; add the column, or give a range to "
            "search with --height-range-m LOW HIGH"
        )
        raise InputError(msg)


def _period_s(uri: str, source: FrameSource, options: dict[str, Any]) -> float | None:
    """Length of a video that is played for ever; its telemetry must begin again with it."""
    if not options.get("loop"):
        return None
    length_s = getattr(source, "length_s", None)
    if length_s is None and source.live:
        plain = open_frames(uri.partition("?")[0])
        length_s = getattr(plain, "length_s", None)
        plain.close()
    return None if length_s is None else float(length_s)


def _add_outputs(
    flight: Flight, outputs: RunOutputs, settings: RunSettings, stack: ExitStack
) -> None:
    """Open what the user asked for; all of it is closed with the flight or the stack."""
    from edge_runtime.outputs.opening import open_outbox

    others: list[TellsEvents] = []
    boxes = []
    for uri in outputs.uris:
        boxes.append(open_outbox(uri))
        flight.outboxes = tuple(boxes)
    health = Health()
    flight.health = health
    if outputs.health_file is not None:
        health_file = HealthFile(health, outputs.health_file)
        stack.callback(health_file.close)
        others.append(health_file)
    if outputs.record is not None:
        from edge_runtime.recordings.recorder import Recorder

        flight.recorder = Recorder(
            outputs.record,
            max_bytes=int(outputs.record_gb * 1e9),
            only_lost=outputs.record_only_lost,
            settings=asdict(replace(settings, backend=flight.localizer.backend.info.name)),
        )
    if outputs.serve is not None:
        from edge_runtime.live_page.page import About, LivePage

        host, port = outputs.serve
        page = LivePage(
            flight.localizer.index.imagery.path,
            host=host,
            port=port,
            about=About(
                source=settings.source,
                index_id=flight.localizer.index.id,
                bundle_id=flight.localizer.bundle.id,
                deadline_ms=flight.localizer.config.deadline_ms,
            ),
            health=health.report,
        )
        flight.page = page
        sys.stderr.write(f"Live page: {page.start()}\n" + f"{page.notice}\n" * bool(page.notice))
    flight.others = tuple(others)


def _check_order(settings: RunSettings, states: StateSource, index: SatelliteIndex) -> None:
    """Refuse positions that are on the map only with latitude and longitude exchanged.

    Positions off the map either way say nothing: GNSS may have been jammed or spoofed.
    """
    positions = states.positions if isinstance(states, RecordedStates) else ()
    if any(index.contains(lat, lon) for lat, lon in positions):
        return
    for lat, lon in positions:
        if abs(lon) <= 90 and index.contains(lon, lat):
            msg = (
                f"telemetry {settings.telemetry} has the position {lat:.5f}, {lon:.5f}, which is "
                "on the map only the other way round; is the order (lat, lon)?"
            )
            raise InputError(msg)


def _config(options: dict[str, Any], *, strict: bool = True) -> LocalizerConfig:
    if not strict:
        known = {f.name for f in fields(LocalizerConfig)}
        options = {k: v for k, v in options.items() if k in known}
    if options.get("height_range_m") is not None:
        options = {**options, "height_range_m": tuple(options["height_range_m"])}
    try:
        return LocalizerConfig(**options)
    except TypeError as error:
        known_names = sorted(asdict(LocalizerConfig()))
        msg = f"the run's options are not known here ({error}); known: {known_names}"
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

    def __call__(self, fix: Fix, done: int, total: int | None) -> None:
        """Show how far the run is, and what happened."""
        self._ok += fix.status == "OK"
        for event in fix.events:
            sys.stderr.write(f"\r{event:<90}\n" if self._live else event + "\n")
        if total is None:
            self._show_endless(fix, done)
            return
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

    def _show_endless(self, fix: Fix, done: int) -> None:
        """A line of a source without an end: on a terminal rewritten, else every 600 frames."""
        if not self._live and done % 600 != 1:
            return
        place = "" if fix.lat_deg is None else f" {fix.lat_deg:.5f}, {fix.lon_deg:.5f}"
        eph = "" if fix.eph_m is None else f" +-{fix.eph_m:.1f} m"
        line = (
            f"{fix.status}{place}{eph}  {done} frames, {self._ok} OK, "
            f"{fix.latency_ms['total']:.0f} ms"
        )
        sys.stderr.write(f"\r{line:<90}" if self._live else line + "\n")
        sys.stderr.flush()
