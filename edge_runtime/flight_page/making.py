"""From a log to its page: read, map, go through the frames again, put together, write."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from edge_runtime.artefact import made_by, write_atomically
from edge_runtime.errors import InputError
from edge_runtime.flight_log import RunSettings, read_log, read_settings, settings_path
from edge_runtime.flight_page.document import Embedded, document
from edge_runtime.flight_page.flight_table import FlightTable, table_of
from edge_runtime.flight_page.flying_again import recorded_fixes, settings_of_recording
from edge_runtime.flight_page.map_folder import FoundMap, find_map
from edge_runtime.flight_page.picture_files import FramePictures
from edge_runtime.flight_page.picture_making import Pictures, Progress, Wanted, make_pictures

MOST_PICTURES = 200
_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """What a page is made of."""

    log: Path
    """Written by `skyfix run`, or the folder of a recording."""
    out: Path
    """The HTML file."""
    pictures: int = MOST_PICTURES
    """Most frames with pictures; 0 makes none and needs neither frames nor encoder."""
    recording: Path | None = None
    """Folder of `skyfix run --record`, where the frames of a live source still are."""
    index: Path | None = None
    """Where the index is now, if not where the run had it."""
    first: int = 0
    """Record that the page begins with."""
    after: int | None = None
    """Record that the page ends before; None for all."""

    def __post_init__(self) -> None:
        if self.pictures < 0:
            msg = f"pictures is {self.pictures}; expected 0 or more"
            raise InputError(msg)
        if self.first < 0 or (self.after is not None and self.after <= self.first):
            msg = (
                f"records {self.first}:{self.after} are none; expected the first and the one after "
                "the last, as 0:5000"
            )
            raise InputError(msg)
        if self.out.suffix.lower() not in _SUFFIXES:
            msg = (
                f"the page would be written to {self.out}, which does not end in .html and so may "
                "be another file; name it so"
            )
            raise InputError(msg)


@dataclass(frozen=True, kw_only=True)
class PageSummary:
    """What a page came to."""

    frames: int
    pictures: int
    """Frames with pictures."""
    size_bytes: int
    notes: tuple[str, ...]
    """What the page lacks and why, one line each; the page says it too."""
    stopped: bool
    """Whether it was interrupted while pictures were made."""


def make_page(options: PageOptions, *, progress: Progress | None = None) -> PageSummary:
    """Make the page of a log.

    Where frames, telemetry, encoder or map are gone, the page is made without what needs them and
    says so. An interrupt ends the pictures, not the page.

    Args:
        options: what to make it of.
        progress: told after every frame that is gone through.

    Raises:
        InputError: no log, an empty one, one of another version, or the page cannot be written.
    """
    recording = options.log if options.log.is_dir() else options.recording
    table = _table(options)
    _check_writable(options.out)
    settings, notes = _settings(options.log)
    folder = options.index or (Path(settings.index) if settings else None)
    found_map = find_map(folder, table)
    wanted = Wanted(most=options.pictures, recording=recording, index=options.index)
    made = make_pictures(wanted, table, settings, found_map.imagery, progress)
    notes += [note for note in (found_map.note, made.note) if note]
    if made.otherwise:
        notes.append(
            f"{len(made.otherwise)} of {made.passed} frames came out otherwise when they were gone "
            "through again: by another version of skyfix or of a library, on another machine or "
            "another map than in flight"
        )
    name = options.log.name
    flight = {
        "log": name,
        "made_by": made_by(),
        "settings": None if settings is None else asdict(settings),
        "notes": notes,
        "flight": table.to_json(),
        "map": _map_json(found_map),
        "pictures": {
            str(row): _picture_json(pictures, otherwise=row in made.otherwise)
            for row, pictures in sorted(made.of_row.items())
        },
    }
    title = f"{name}: {summary_line(table)}"
    data = document(title, flight, _embedded(found_map, made))
    try:
        write_atomically(options.out, data)
    except OSError as error:
        raise _not_writable(options.out, error) from error
    return PageSummary(
        frames=len(table),
        pictures=len(made.of_row),
        size_bytes=len(data),
        notes=tuple(notes),
        stopped=made.stopped,
    )


def summary_line(table: FlightTable) -> str:
    """Counts in one line, as `skyfix run` ends."""
    counts = table.statuses()
    return (
        f"{len(table)} frames: {counts['OK']} OK, {counts['DEGRADED']} degraded, "
        f"{counts['ABSTAIN']} abstained, {counts['LOST']} lost"
    )


def _table(options: PageOptions) -> FlightTable:
    log = options.log
    fixes = recorded_fixes(log) if log.is_dir() else read_log(log)
    try:
        table = table_of(islice(fixes, options.first, options.after))
    except InputError as error:
        if "not a fix record" not in str(error):
            raise
        msg = f"{error}; a log of another version is read by the version that wrote it"
        raise InputError(msg) from error
    if len(table) == 0:
        where = f" from {options.first} on" if options.first else ""
        msg = f"log {log} has no records{where}; expected a log of a flight"
        raise InputError(msg)
    return table


def _settings(log: Path) -> tuple[RunSettings | None, list[str]]:
    """What the run was made of; None, and a note, where nothing says so."""
    try:
        return (settings_of_recording(log) if log.is_dir() else read_settings(log)), []
    except InputError as error:
        if log.is_dir():
            return None, [f"no settings: {error}"]
        beside = settings_path(log)
        what = "is not of this version" if beside.exists() else "is not there"
        return None, [f"{beside.name}, which says what the run was made of, {what}"]


def _check_writable(out: Path) -> None:
    """Refuse before minutes of work what cannot be written after them.

    Raises:
        InputError: the page cannot be written.
    """
    try:
        if out.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        write_atomically(out.with_name(f".{out.name}.try"), b"")
        out.with_name(f".{out.name}.try").unlink()
    except OSError as error:
        raise _not_writable(out, error) from error


def _not_writable(out: Path, error: OSError) -> InputError:
    return InputError(f"page {out} cannot be written ({error.strerror}); choose another --out")


def _map_json(found: FoundMap) -> dict[str, Any] | None:
    if found.picture is None:
        return None
    return {
        "bounds": found.picture.bounds._asdict(),
        "zoom": found.picture.zoom,
        "credit": found.credit,
    }


def _picture_json(pictures: FramePictures, *, otherwise: bool) -> dict[str, Any]:
    return {
        "kinds": [k for k in ("frame", "view", "imagery") if getattr(pictures, k) is not None],
        "size_m": pictures.size_m,
        "lat_deg": pictures.lat_deg,
        "lon_deg": pictures.lon_deg,
        "otherwise": otherwise,
    }


def _embedded(found: FoundMap, made: Pictures) -> Iterator[Embedded]:
    if found.picture is not None:
        yield Embedded("picture-map", found.picture.picture)
    for row, pictures in sorted(made.of_row.items()):
        for kind in ("frame", "view", "imagery"):
            picture = getattr(pictures, kind)
            if picture is not None:
                yield Embedded(f"picture-{row}-{kind}", picture)
