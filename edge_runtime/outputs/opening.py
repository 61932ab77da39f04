"""Outputs by what the user writes: `geojson:track.geojson`, `nmea:udp://host:port`, `track.kml`."""

import math
from collections.abc import Mapping
from pathlib import Path

from edge_runtime.errors import InputError
from edge_runtime.outputs.outbox import FILE_CAPACITY, LIVE_CAPACITY, Outbox
from edge_runtime.outputs.ports import open_port, parse_place
from edge_runtime.outputs.protocol import Output

FILE_KINDS = ("geojson", "kml", "gpx", "csv")
LIVE_KINDS = ("nmea", "udp", "mavlink")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "geojson": (),
    "kml": ("circles",),
    "gpx": (),
    "csv": (),
    "nmea": ("baud", "rate_hz", "talker"),
    "udp": (),
    "mavlink": ("baud", "rate_hz", "dialect", "system"),
}


def open_output(uri: str) -> Output:
    """Open an output. What to write: docs/outputs.md.

    Files are begun at once, an older one is replaced; peers need not be there yet.

    Raises:
        InputError: no such kind, a place or option it cannot have, a file that cannot be written.
        BackendError: a library it needs is not installed.
    """
    kind, place, options = _parsed(uri)
    if unknown := sorted(set(options) - set(_OPTIONS[kind])):
        known = ", ".join(_OPTIONS[kind]) or "none"
        msg = f"output {uri}: there is no option {', '.join(unknown)}; known for {kind}: {known}"
        raise InputError(msg)
    if kind in FILE_KINDS:
        try:
            return _opened_file(uri, kind, place, options)
        except OSError as error:
            msg = f"output {uri} cannot be written ({error.strerror or error}); choose another file"
            raise InputError(msg) from error
    if kind == "udp":
        from edge_runtime.outputs.live_outputs import JsonDatagrams

        return JsonDatagrams(uri, open_port(place, options))
    if kind == "nmea":
        from edge_runtime.outputs.live_outputs import NmeaOutput

        port = open_port(place, options)
        talker = options.get("talker", "GP")
        return NmeaOutput(uri, port, rate_hz=_rate_hz(uri, options), talker=talker)
    from edge_runtime.outputs.mavlink_output import open_mavlink

    return open_mavlink(uri, place, options, rate_hz=_rate_hz(uri, options))


def open_outbox(uri: str) -> Outbox:
    """Open an output behind a thread: what a loop offers its fixes to.

    Raises:
        InputError, BackendError: as `open_output`.
    """
    output = open_output(uri)
    live = _parsed(uri)[0] in LIVE_KINDS
    return Outbox(output, capacity=LIVE_CAPACITY if live else FILE_CAPACITY)


def _parsed(uri: str) -> tuple[str, str, Mapping[str, str]]:
    """Kind, place, options."""
    kind, colon, rest = uri.partition(":")
    kind = kind.lower()
    if kind == "udp" and rest.startswith("//"):
        place, options = parse_place(uri)
        return kind, place, options
    if colon and kind in _OPTIONS and kind != "udp":
        place, options = parse_place(rest)
        if place:
            return kind, place, options
    suffix = Path(uri).suffix.lower().removeprefix(".")
    if suffix in FILE_KINDS and "://" not in uri:
        return suffix, uri, {}
    msg = (
        f"output {uri!r} is not known; expected KIND:PLACE with one of {', '.join(_OPTIONS)}, "
        f"or a file that ends in .{', .'.join(FILE_KINDS)}"
    )
    raise InputError(msg)


def _opened_file(uri: str, kind: str, place: str, options: Mapping[str, str]) -> Output:
    path = Path(place)
    if kind == "gpx":
        from edge_runtime.outputs.gpx_file import GpxFile

        return GpxFile(uri, path)
    if kind == "csv":
        from edge_runtime.outputs.csv_file import CsvFile

        return CsvFile(uri, path)
    from edge_runtime.outputs.track_file import TrackFile

    if kind == "geojson":
        from edge_runtime.outputs.geojson_format import GeoJsonFormat

        return TrackFile(uri, path, GeoJsonFormat())
    from edge_runtime.outputs.kml_format import RADIUS_SIGMAS, KmlFormat

    circles = options.get("circles")
    if circles is not None and circles not in RADIUS_SIGMAS:
        msg = f"output {uri}: circles is {circles!r}; expected 68 or 95, the percentage they hold"
        raise InputError(msg)
    return TrackFile(uri, path, KmlFormat(circles))


def _rate_hz(uri: str, options: Mapping[str, str]) -> float | None:
    text = options.get("rate_hz")
    if text is None:
        return None
    try:
        rate_hz = float(text)
    except ValueError:
        rate_hz = math.nan
    if not 0.01 <= rate_hz <= 1000:
        msg = f"output {uri}: rate_hz is {text!r}; expected a number from 0.01 to 1000"
        raise InputError(msg)
    return rate_hz
