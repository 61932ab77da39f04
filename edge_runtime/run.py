"""`skyfix run`: a flight by its settings, with all that the user wants to come out of it."""

import errno
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edge_runtime.errors import InputError
from edge_runtime.flight import Flight, RunSummary, TellsEvents, Watch
from edge_runtime.flight_camera import find_camera
from edge_runtime.flight_log import ROTATE_BYTES, FlightLog, RunSettings
from edge_runtime.flight_opening import opened
from edge_runtime.health import Health, HealthFile, HealthServer
from edge_runtime.sources.notices import Notices
from edge_runtime.sources.uri import without_password

_NOT_NOW = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
"""A port that a program still holds that has not ended yet; a network that is not up yet."""


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


class _Told:
    """Notices as a part of a flight."""

    def __init__(self, notices: Notices) -> None:
        self.events = notices.taken


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

    notices = Notices()
    others: list[TellsEvents] = [_Told(notices)]
    for uri in outputs.uris:
        flight.outboxes = (*flight.outboxes, open_outbox(uri))
    health = Health()
    flight.health = health
    if outputs.health_file is not None:
        health_file = HealthFile(health, outputs.health_file)
        stack.callback(health_file.close)
        others.append(health_file)
    if outputs.health_port is not None:
        try:
            server = HealthServer(health, port=outputs.health_port)
        except InputError as error:
            _go_on_without("health endpoint", error, notices)
        else:
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
        try:
            _add_page(flight, outputs.serve, outputs.serve_title, settings)
        except InputError as error:
            _go_on_without("live page", error, notices)
    flight.others = tuple(others)


def _add_page(flight: Flight, serve: tuple[str, int], title: str, settings: RunSettings) -> None:
    from edge_runtime.live_page.page import About, LivePage

    localizer = flight.localizer
    page = LivePage(
        localizer.index.imagery.path,
        host=serve[0],
        port=serve[1],
        about=About(
            title=title,
            source=settings.source,
            index_id=localizer.index.id,
            bundle_id=localizer.bundle.id,
            deadline_ms=localizer.config.deadline_ms,
        ),
        health=flight.health.report,
    )
    flight.page = page
    sys.stderr.write(f"Live page: {page.start()}\n" + f"{page.notice}\n" * bool(page.notice))


def _go_on_without(part: str, error: InputError, notices: Notices) -> None:
    """Fly without what only shows the flight, where the machine and not the user stands against it.

    Raises:
        InputError: the user asked for what cannot be.
    """
    cause = error.__cause__
    if not (isinstance(cause, OSError) and cause.errno in _NOT_NOW):
        raise error
    line = f"flown without the {part}: {error}"
    sys.stderr.write(f"{line}\n")
    notices.say(line)
