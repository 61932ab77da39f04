"""One way to open whatever says states: a file, a folder of photographs, an autopilot."""

from pathlib import Path

from edge_runtime.errors import InputError
from edge_runtime.states.protocol import StateSource
from edge_runtime.states.recording import RecordedStates
from edge_runtime.states.timeline import HeadingFrom

_EXPECTED = (
    "expected a .csv or .srt file, a folder of photographs, a .tlog or .bin log, or an autopilot "
    "as mavlink:udpin:0.0.0.0:14550 or mavlink:/dev/ttyTHS1,921600"
)
MAVLINK = "mavlink:"
_LOG_SUFFIXES = (".tlog", ".bin")


def open_states(
    uri_or_path: str,
    *,
    ignore: frozenset[str] = frozenset(),
    time_offset_s: float = 0.0,
    max_gap_s: float = 1.0,
    heading: HeadingFrom = "telemetry",
    altitude_is_height: bool = False,
) -> StateSource:
    """Open a source of states by its name.

    Args:
        uri_or_path: a CSV or DJI SRT file, a folder of photographs with EXIF, `mavlink:` and an
            address as pymavlink takes it (udpin:HOST:PORT, tcp:HOST:PORT, /dev/PORT,BAUD), or a
            MAVLink log.
        ignore: fields of VehicleState to leave out; `height_m` stands for both heights.
        time_offset_s: added to a frame's time to get the time of the states.
        max_gap_s: farthest a sample holds; what was said longer ago is None.
        heading: `telemetry` as recorded, `track` from the positions while moving, `track-held` also
            at rest.
        altitude_is_height: of an SRT file, take `altitude` for the height above take-off.

    Returns:
        An open source: close it.

    Raises:
        InputError: nothing there, nothing of use in it, or options that make no sense.
    """
    if uri_or_path.startswith(MAVLINK):
        return _mavlink(
            uri_or_path.removeprefix(MAVLINK), ignore, time_offset_s, max_gap_s, heading
        )
    path = Path(uri_or_path)
    if not path.exists():
        msg = f"telemetry {uri_or_path} does not exist; {_EXPECTED}"
        raise InputError(msg)
    if path.suffix.lower() in _LOG_SUFFIXES:
        return _mavlink(uri_or_path, ignore, time_offset_s, max_gap_s, heading)
    if path.is_dir():
        from edge_runtime.states.photos import PhotoStates

        return PhotoStates(path, ignore=ignore)
    if path.suffix.lower() == ".srt":
        from edge_runtime.states.srt import read_srt

        recording = read_srt(path, altitude_is_height=altitude_is_height)
    elif path.suffix.lower() in (".csv", ".txt"):
        from edge_runtime.states.csv_table import read_csv

        recording = read_csv(path, ignore=ignore)
    else:
        msg = f"telemetry {path} ends in {path.suffix or 'nothing'}; {_EXPECTED}"
        raise InputError(msg)
    return RecordedStates(
        recording,
        ignore=ignore,
        time_offset_s=time_offset_s,
        max_gap_s=max_gap_s,
        heading=heading,
    )


def _mavlink(
    address: str,
    ignore: frozenset[str],
    time_offset_s: float,
    max_gap_s: float,
    heading: HeadingFrom,
) -> StateSource:
    from edge_runtime.states.mavlink_reading import open_mavlink

    return open_mavlink(
        address,
        ignore=ignore,
        time_offset_s=time_offset_s,
        max_gap_s=max_gap_s,
        heading=heading,
    )
