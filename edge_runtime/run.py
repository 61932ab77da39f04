"""`skyfix run`: a flight by its settings, with all that the user wants to come out of it."""

import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edge_runtime.flight import Flight, RunSummary, TellsEvents, Watch
from edge_runtime.flight_camera import find_camera
from edge_runtime.flight_log import ROTATE_BYTES, FlightLog, RunSettings
from edge_runtime.flight_opening import opened
from edge_runtime.health import Health, HealthFile, HealthServer
from edge_runtime.sources.uri import without_password


@dataclass(frozen=True, kw_only=True)
class RunOutputs:
    """Where a run's fixes go besides the log. None of it changes a fix."""

    uris: tuple[str, ...] = ()
    """See docs/outputs.md."""
    serve: tuple[str, int] | None = None
    """Host and port of the live page."""
    serve_title: str = "skyfix"
    """The page's name in the browser."""
    record: Path | None = None
    """Folder for frames, states and fixes."""
    record_gb: float = 4.0
    """Most that the recording may take; the oldest goes first."""
    record_seconds: float | None = None
    """What is older goes from the recording; None keeps it while there is room."""
    record_only_lost: bool = False
    """Keep only what led to being lost."""
    health_file: Path | None = None
    health_port: int | None = None
    """Answers /health on this machine; 0 takes a free port."""
    append: bool = False
    """Go on with the log that is there."""
    log_part_bytes: int = ROTATE_BYTES
    """A part of the log ends at this size."""
    log_keep_parts: int | None = None
    """Full parts of the log kept beside the newest; None keeps all."""


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
    settings, note = find_camera(settings)
    with opened(settings) as flight, ExitStack() as stack:
        # A replay must not choose another library than the flight did, and no file needs the
        # password of a camera whose frames are gone.
        settings = replace(
            settings,
            source=without_password(settings.source),
            backend=flight.localizer.backend.info.name,
        )
        _add_outputs(flight, outputs, settings, stack)
        log = stack.enter_context(
            FlightLog(
                out,
                settings,
                append=outputs.append,
                rotate_bytes=outputs.log_part_bytes,
                keep_parts=outputs.log_keep_parts,
            )
        )
        summary = flight.fly(log, watch=watch)
        # Only then it is known what the medium never took.
        log.close()
        summary = replace(summary, last_events=(*summary.last_events, *log.events()))
    notes = (f"camera: {note}", *summary.notes) if note else summary.notes
    return replace(summary, lost_records=log.lost, notes=notes)


def _add_outputs(
    flight: Flight, outputs: RunOutputs, settings: RunSettings, stack: ExitStack
) -> None:
    """Open what the user asked for; all of it is closed with the flight or the stack."""
    from edge_runtime.outputs.opening import open_outbox

    others: list[TellsEvents] = []
    for uri in outputs.uris:
        flight.outboxes = (*flight.outboxes, open_outbox(uri))
    health = Health()
    flight.health = health
    if outputs.health_file is not None:
        health_file = HealthFile(health, outputs.health_file)
        stack.callback(health_file.close)
        others.append(health_file)
    if outputs.health_port is not None:
        server = HealthServer(health, port=outputs.health_port)
        stack.callback(server.close)
        sys.stderr.write(f"Health: http://127.0.0.1:{server.port}/health\n")
    if outputs.record is not None:
        from edge_runtime.recordings.recorder import Recorder

        flight.recorder = Recorder(
            outputs.record,
            max_bytes=int(outputs.record_gb * 1e9),
            max_s=outputs.record_seconds,
            only_lost=outputs.record_only_lost,
            settings=asdict(settings),
        )
    if outputs.serve is not None:
        from edge_runtime.live_page.page import About, LivePage

        host, port = outputs.serve
        page = LivePage(
            flight.localizer.index.imagery.path,
            host=host,
            port=port,
            about=About(
                title=outputs.serve_title,
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
