"""DJI's video subtitles: a cue a frame or a second, in the dialects of ten generations of drones.

No document describes them; the dialects below are those of samples that their owners published.
Fields that no dialect explains are left alone: `altitude` is above the sea in some files and above
take-off in others, `D` is a distance, the third number of `GPS` counts satellites in one dialect
and is a height in another.
"""

import re
from datetime import datetime, timezone
from pathlib import Path

from edge_runtime.errors import InputError
from edge_runtime.state import VehicleState
from edge_runtime.states.recording import Recording
from edge_runtime.states.sample import FIELDS, Sample

_NUMBER = r"([-+]?\d+(?:\.\d+)?)"
_CUE = re.compile(r"^\s*(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->", re.MULTILINE)
_DATE = re.compile(
    r"(\d{4})[-.](\d{1,2})[-.](\d{1,2}) (\d{1,2}):(\d\d):(\d\d)(?:[,.](\d{3}))?(?:,(\d{3}))?"
)
_REL_ALT = re.compile(rf"\brel_alt\s*:\s*{_NUMBER}")
_ALTITUDE = re.compile(rf"\[altitude\s*:\s*{_NUMBER}")
_BAROMETER = re.compile(rf"\b(?:BAROMETER|Hb)\s*:\s*{_NUMBER}")
_HEIGHT = re.compile(rf"(?:^|[\s,])H {_NUMBER}\s*m\b")
_FOCAL = re.compile(rf"\bfocal_len\s*:\s*{_NUMBER}")
_LATITUDE = re.compile(rf"\blatitude\s*:\s*{_NUMBER}")
_LONGITUDE = re.compile(rf"\blongt?itude\s*:\s*{_NUMBER}")
_GPS = re.compile(
    rf"\bGPS\s*\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*(?:,\s*{_NUMBER}\s*(M?))?", re.IGNORECASE
)
_THREE = rf"\(\s*{_NUMBER}[^\d,)+-]*,\s*{_NUMBER}[^\d,)+-]*,\s*{_NUMBER}"
_FLIGHT_PRY = re.compile(rf"\bF\.PRY\s*{_THREE}")
_GIMBAL_PRY = re.compile(rf"\bG\.PRY\s*{_THREE}")
_GIMBAL_KEYS = {
    name: re.compile(rf"\bgb_{name}\s*:\s*{_NUMBER}") for name in ("yaw", "pitch", "roll")
}


def read_srt(path: Path, *, altitude_is_height: bool = False) -> Recording:
    """Read subtitles as DJI drones write them.

    Times count from the start of the video. What is cut off at the end is left out and noted.

    Args:
        path: the file.
        altitude_is_height: take a lone `altitude` for the height above take-off. Files do not say
            which it is: above the sea in some, above take-off in others.

    Raises:
        InputError: unreadable, no cues, or no cue that says anything of use.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        msg = f"subtitles {path} cannot be read ({error.strerror}); expected an SRT file"
        raise InputError(msg) from error
    # Two dialects write no line end within a cue, one writes Windows ones; tags only colour it.
    text = re.sub(r"<[^>\n]*>", " ", text.replace("\r\n", "\n"))
    cues = _cues(text)
    if not cues:
        msg = (
            f"subtitles {path} have no cues ({len(text.strip())} characters); expected an SRT file "
            "as a DJI drone writes it beside its video"
        )
        raise InputError(msg)
    latitude_first, order_note = _gps_order([body for _, body in cues])
    samples = [
        _sample(t_s, body, latitude_first=latitude_first, altitude_is_height=altitude_is_height)
        for t_s, body in cues
    ]
    notes = [order_note] if order_note else []
    if len(samples) > 1 and _says(samples[-1]) < _says(samples[-2]):
        samples.pop()
        notes.append(f"{path.name} is cut off in its last cue; that one is left out")
    if not any(_says(sample) for sample in samples):
        msg = (
            f"subtitles {path} have {len(cues)} cues without a height, an attitude or a position; "
            "this drone writes none, so give other telemetry"
        )
        raise InputError(msg)
    if not any(_has_height(s.state) for s in samples):
        lone = _ALTITUDE.search(text) is not None
        notes.append(
            f"{path.name} says no height"
            + (" but `altitude`, which may be above the sea or above take-off" if lone else "")
        )
    starts = next((m for _, body in cues if (m := _unix_s(body)) is not None), None)
    first_s = next((t for t, body in cues if _unix_s(body) is not None), 0.0)
    return Recording(
        path=path,
        samples=tuple(samples),
        starts_unix_s=None if starts is None else starts - first_s,
        focal_35mm_mm=_focal_35mm_mm(text),
        position_step_m=_position_step_m(text),
        notes=tuple(notes),
    )


def _cues(text: str) -> list[tuple[float, str]]:
    """Time and text of each cue."""
    starts = list(_CUE.finditer(text))
    if starts:
        ends = [m.start() for m in starts[1:]] + [len(text)]
        return [(_seconds(m), text[m.end() : end]) for m, end in zip(starts, ends, strict=True)]
    # One dialect has the date where others have the time of the cue.
    dates = list(_DATE.finditer(text))
    ends = [*(m.start() for m in dates[1:]), len(text)][: len(dates)]
    bodies = [text[m.start() : end] for m, end in zip(dates, ends, strict=True)]
    cues = [(moment, body) for body in bodies if (moment := _unix_s(body)) is not None]
    return [(moment - cues[0][0], body) for moment, body in cues]


def _seconds(cue: re.Match[str]) -> float:
    hours, minutes, seconds, thousandths = cue.groups()
    return (
        3600.0 * int(hours)
        + 60 * int(minutes)
        + int(seconds)
        + int(thousandths.ljust(3, "0")) / 1e3
    )


def _unix_s(body: str) -> float | None:
    found = _DATE.search(body)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(v) for v in found.groups()[:6])
    micros = int(found[7] or "0") * 1000 + int(found[8] or "0")
    try:
        moment = datetime(year, month, day, hour, minute, second, micros, tzinfo=timezone.utc)
    except ValueError:
        return None
    return moment.timestamp()


def _sample(t_s: float, body: str, *, latitude_first: bool, altitude_is_height: bool) -> Sample:
    height = _first(body, _REL_ALT, _BAROMETER, _HEIGHT)
    if height is None and altitude_is_height:
        height = _first(body, _ALTITUDE)
    flight, gimbal = _angles(_FLIGHT_PRY, body), _angles(_GIMBAL_PRY, body)
    if gimbal is None:
        keys = {name: _first(body, pattern) for name, pattern in _GIMBAL_KEYS.items()}
        if any(keys.values()):  # All zero means not recorded.
            gimbal = (keys["pitch"], keys["roll"], keys["yaw"])
    return Sample(
        state=VehicleState(
            t_s=t_s,
            height_above_takeoff_m=height,
            pitch_deg=None if flight is None else flight[0],
            roll_deg=None if flight is None else flight[1],
            yaw_deg=None if flight is None else flight[2],
            gimbal_pitch_deg=None if gimbal is None else gimbal[0],
            gimbal_roll_deg=None if gimbal is None else gimbal[1],
            gimbal_yaw_deg=None if gimbal is None else gimbal[2],
        ),
        position=_position(body, latitude_first=latitude_first),
    )


def _first(body: str, *patterns: re.Pattern[str]) -> float | None:
    for pattern in patterns:
        found = pattern.search(body)
        if found is not None:
            return float(found[1])
    return None


def _angles(
    pattern: re.Pattern[str], body: str
) -> tuple[float | None, float | None, float | None] | None:
    found = pattern.search(body)
    return None if found is None else (float(found[1]), float(found[2]), float(found[3]))


def _position(body: str, *, latitude_first: bool) -> tuple[float, float] | None:
    lat, lon = _first(body, _LATITUDE), _first(body, _LONGITUDE)
    if lat is not None and lon is not None:
        return lat, lon
    found = _GPS.search(body)
    if found is None:
        return None
    first, second = float(found[1]), float(found[2])
    return (first, second) if latitude_first else (second, first)


def _gps_order(bodies: list[str]) -> tuple[bool, str]:
    """Whether GPS(…) has the latitude first: so where its height carries a unit, else not."""
    found = [m for body in bodies if (m := _GPS.search(body)) is not None]
    if not found:
        return False, ""
    latitude_first = any(m[4] for m in found)
    column = 1 if latitude_first else 2
    if any(abs(float(m[column])) > 90 for m in found):
        return not latitude_first, (
            "positions are not in the order of this dialect (a latitude beyond 90 degrees); "
            "read the other way round"
        )
    return latitude_first, ""


def _focal_35mm_mm(text: str) -> float | None:
    """As for 35 mm film; three dialects write it times ten, without a point."""
    found = _FOCAL.search(text)
    if found is None:
        return None
    value = float(found[1])
    value = value if "." in found[1] else value / 10
    return value if 5 <= value <= 1000 else None


def _position_step_m(text: str) -> float:
    """What one step of the last decimal of a latitude is on the ground."""
    written = _LATITUDE.findall(text)[:200] or [
        number for found in _GPS.findall(text)[:200] for number in found[:2]
    ]
    decimals = max((len(number.partition(".")[2]) for number in written), default=0)
    return 111_000.0 * 10.0**-decimals if written else 0.0


def _says(sample: Sample) -> int:
    """How many values a cue has."""
    values = (getattr(sample.state, name) for name in FIELDS)
    return sum(value is not None for value in values) + (sample.position is not None)


def _has_height(state: VehicleState) -> bool:
    return state.height_above_takeoff_m is not None or state.height_m is not None
