"""What a photograph says of itself: EXIF and XMP of a JPEG, read without an image library.

EXIF is a TIFF structure in the first APP1 segment (CIPA DC-008-2019), XMP is XML text in another
(Adobe XMP specification part 3, section 1.1.3). Of DJI's XMP the names are those of its manuals
("XMP Data List" of Mavic 3E and Zenmuse P1: angles in a north-east-down frame, turned in the order
yaw, pitch, roll; FlightXSpeed towards north, FlightYSpeed towards east; DewarpData as fx, fy, cx,
cy, k1, k2, p1, p2, k3 with the centre counted from the photograph's).

Every byte may be wrong: what cannot be read is None, and only a file that is no JPEG is refused.
"""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from edge_runtime.errors import InputError

_MAX_HEADER_BYTES = 1 << 20
"""Metadata come first; a DJI photograph has 20 to 200 KiB of them."""
_EXIF, _XMP = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
"""Bytes of a value by TIFF field type (TIFF 6.0, page 15)."""
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG segments that say the size (ITU-T T.81, table B.1)."""

_MAKE, _MODEL, _EXIF_IFD, _GPS_IFD = 0x010F, 0x0110, 0x8769, 0x8825
_TAKEN, _SUBSECOND, _ZONE = 0x9003, 0x9291, 0x9011
_FOCAL, _FOCAL_35MM, _ZOOM = 0x920A, 0xA405, 0xA404
_PLANE_X, _PLANE_UNIT = 0xA20E, 0xA210
_WIDTH = 0xA002
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0}

Value = str | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PhotoFacts:
    """What a photograph's metadata say. None means not said, never zero."""

    width_px: int
    """As the picture is stored, whatever its orientation tag says."""
    height_px: int
    exif_width_px: int | None = None
    """Width that EXIF says; another one where the picture was reduced and its metadata kept."""
    make: str = ""
    model: str = ""
    taken_unix_s: float | None = None
    """Exposure; a time without a zone is taken as UTC."""
    zone_known: bool = False
    """Whether the time came with its zone."""
    focal_mm: float | None = None
    focal_35mm_mm: float | None = None
    zoom: float | None = None
    """Digital zoom; None where it is said to be none."""
    pixels_per_mm: float | None = None
    """On the sensor, along the width."""
    position: tuple[float, float] | None = None
    """(lat, lon): to score, never to localise."""
    height_above_takeoff_m: float | None = None
    yaw_deg: float | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None
    gimbal_yaw_deg: float | None = None
    gimbal_pitch_deg: float | None = None
    gimbal_roll_deg: float | None = None
    velocity_east_mps: float | None = None
    velocity_north_mps: float | None = None
    calibrated: tuple[float, ...] = ()
    """fx, fy, cx, cy in pixels from the photograph's centre, then k1, k2, p1, p2, k3, where the
    maker calibrated this very camera; empty where not, or where the picture is dewarped already."""
    dewarped: bool = False
    """Whether the camera took its lens's distortion out."""


def read_exif(path: Path) -> PhotoFacts:
    """Read a JPEG's metadata.

    Raises:
        InputError: unreadable, or not a JPEG with a size.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_HEADER_BYTES)
    except OSError as error:
        msg = f"photograph {path} cannot be read ({error.strerror}); expected a JPEG file"
        raise InputError(msg) from error
    return facts_of_jpeg(data, str(path))


def facts_of_jpeg(data: bytes, name: str) -> PhotoFacts:
    """What the beginning of a JPEG says.

    Args:
        data: at least its segments before the picture.
        name: of the file, for the message.

    Raises:
        InputError: not a JPEG with a size.
    """
    size: tuple[int, int] | None = None
    tags: dict[int, Value] = {}
    gps: dict[int, Value] = {}
    xmp = ""
    for marker, content in _segments(data):
        if marker in _FRAME_MARKERS and size is None and len(content) >= 5:
            size = int.from_bytes(content[3:5], "big"), int.from_bytes(content[1:3], "big")
        elif marker == 0xE1 and content.startswith(_EXIF) and not tags:
            tags, gps = _tiff(content[len(_EXIF) :])
        elif marker == 0xE1 and content.startswith(_XMP) and not xmp:
            xmp = content[len(_XMP) :].decode("utf-8", errors="replace")
    if size is None or not all(size):
        msg = f"photograph {name} is not a JPEG with a picture; expected one with EXIF or XMP"
        raise InputError(msg)
    taken, zone_known = _taken(tags)
    return PhotoFacts(
        width_px=size[0],
        height_px=size[1],
        exif_width_px=None if (wide := _positive(tags, _WIDTH)) is None else int(wide),
        make=_text(tags, _MAKE),
        model=_text(tags, _MODEL),
        taken_unix_s=taken,
        zone_known=zone_known,
        focal_mm=_positive(tags, _FOCAL),
        focal_35mm_mm=_positive(tags, _FOCAL_35MM),
        zoom=zoom if (zoom := _positive(tags, _ZOOM)) not in (None, 1.0) else None,
        pixels_per_mm=_pixels_per_mm(tags),
        position=_position(gps),
        height_above_takeoff_m=_xmp(xmp, "drone-dji:RelativeAltitude"),
        **_pose(xmp),
        calibrated=_calibrated(xmp),
        dewarped=_xmp(xmp, "drone-dji:DewarpFlag") == 1.0,
    )


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment before the picture's data."""
    if data[:2] != b"\xff\xd8":
        return
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # A fill byte.
            at += 1
            continue
        if marker in (0xDA, 0xD9):
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            return
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def _tiff(data: bytes) -> tuple[dict[int, Value], dict[int, Value]]:
    """Tags of the first and the EXIF directory, and those of the GPS directory."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(data[:4])
    if order is None or len(data) < 8:
        return {}, {}
    tags = _directory(data, struct.unpack_from(f"{order}I", data, 4)[0], order)
    gps: dict[int, Value] = {}
    for pointer in (_EXIF_IFD, _GPS_IFD):
        place = tags.get(pointer)
        if isinstance(place, tuple) and place:
            found = _directory(data, int(place[0]), order)
            if pointer == _GPS_IFD:
                gps = found
            else:
                tags |= found
    return tags, gps


def _directory(data: bytes, at: int, order: str) -> dict[int, Value]:
    tags: dict[int, Value] = {}
    if at + 2 > len(data):
        return tags
    (count,) = struct.unpack_from(f"{order}H", data, at)
    for entry in range(at + 2, min(at + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, entry)
        length = _SIZES.get(kind, 0) * number
        if not 0 < length <= len(data):
            continue
        place = entry + 8
        if length > 4:
            (place,) = struct.unpack_from(f"{order}I", data, entry + 8)
        if place + length <= len(data) and (kind == 2 or number <= 64):
            tags[tag] = _value(data[place : place + length], kind, number, order)
    return tags


def _value(raw: bytes, kind: int, number: int, order: str) -> Value:
    if kind == 2:
        return raw.split(b"\x00", 1)[0].decode("utf-8", errors="replace").strip()
    if kind in (5, 10):
        parts = struct.unpack(f"{order}{2 * number}{'I' if kind == 5 else 'i'}", raw)
        return tuple(a / b if b else math.nan for a, b in zip(parts[::2], parts[1::2], strict=True))
    letter = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d"}[kind]
    return tuple(float(v) for v in struct.unpack(f"{order}{number}{letter}", raw))


def _text(tags: dict[int, Value], tag: int) -> str:
    value = tags.get(tag)
    return value if isinstance(value, str) else ""


def _positive(tags: dict[int, Value], tag: int) -> float | None:
    value = tags.get(tag)
    if isinstance(value, tuple) and value and math.isfinite(value[0]) and value[0] > 0:
        return value[0]
    return None


def _pixels_per_mm(tags: dict[int, Value]) -> float | None:
    resolution = _positive(tags, _PLANE_X)
    unit_mm = _UNIT_MM.get(int(_positive(tags, _PLANE_UNIT) or 2))
    return None if resolution is None or unit_mm is None else resolution / unit_mm


def _taken(tags: dict[int, Value]) -> tuple[float | None, bool]:
    """Unix seconds of the exposure, and whether its zone is known."""
    try:
        moment = datetime.strptime(_text(tags, _TAKEN)[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None, False
    subsecond = _text(tags, _SUBSECOND)
    fraction = float(f"0.{subsecond}") if subsecond.isascii() and subsecond.isdigit() else 0.0
    zone = re.fullmatch(r"([+-])(\d\d):(\d\d)", _text(tags, _ZONE))
    offset = timedelta()
    if zone is not None:
        offset = timedelta(hours=int(zone[2]), minutes=int(zone[3])) * (-1 if zone[1] == "-" else 1)
    aware = moment.replace(tzinfo=timezone.utc)
    return (aware.timestamp() - offset.total_seconds()) + fraction, zone is not None


def _position(gps: dict[int, Value]) -> tuple[float, float] | None:
    lat, lon = (_degrees(gps.get(tag)) for tag in (2, 4))
    if lat is None or lon is None:
        return None
    lat = -lat if _text(gps, 1).upper().startswith("S") else lat
    lon = -lon if _text(gps, 3).upper().startswith("W") else lon
    if abs(lat) > 90 or abs(lon) > 180 or (lat == 0 and lon == 0):
        return None
    return lat, lon


def _degrees(value: Value | None) -> float | None:
    if not isinstance(value, tuple) or len(value) != 3 or not all(map(math.isfinite, value)):
        return None
    return value[0] + value[1] / 60 + value[2] / 3600


def _xmp(xmp: str, name: str) -> float | None:
    """A number written as an attribute or as an element."""
    found = re.search(rf"""\b{name}\s*=\s*["']([^"']*)["']|<{name}>([^<]*)</{name}>""", xmp)
    if found is None:
        return None
    try:
        value = float(found[1] if found[1] is not None else found[2])
    except ValueError:
        return None
    return value if math.isfinite(value) else None


_POSES = (
    {
        "yaw_deg": "drone-dji:FlightYawDegree",
        "pitch_deg": "drone-dji:FlightPitchDegree",
        "roll_deg": "drone-dji:FlightRollDegree",
        "gimbal_yaw_deg": "drone-dji:GimbalYawDegree",
        "gimbal_pitch_deg": "drone-dji:GimbalPitchDegree",
        "gimbal_roll_deg": "drone-dji:GimbalRollDegree",
        "velocity_east_mps": "drone-dji:FlightYSpeed",
        "velocity_north_mps": "drone-dji:FlightXSpeed",
    },
    {
        "yaw_deg": "drone-parrot:DroneYawDegree",
        "pitch_deg": "drone-parrot:DronePitchDegree",
        "roll_deg": "drone-parrot:DroneRollDegree",
        "gimbal_yaw_deg": "drone-parrot:CameraYawDegree",
        "gimbal_pitch_deg": "drone-parrot:CameraPitchDegree",
        "gimbal_roll_deg": "drone-parrot:CameraRollDegree",
    },
)
"""What makers call the same thing. The `Camera:` names of Pix4D are left alone: makers disagree on
where their pitch counts from."""
_GIMBAL = ("gimbal_yaw_deg", "gimbal_pitch_deg", "gimbal_roll_deg")


def _pose(xmp: str) -> dict[str, float | None]:
    for names in _POSES:
        found = {field: _xmp(xmp, name) for field, name in names.items()}
        if all(value is None for value in found.values()):
            continue
        if all(found[field] in (0.0, None) for field in _GIMBAL):
            # A gimbal at exactly the horizon could not be used anyway: all zero is not recorded.
            found |= dict.fromkeys(_GIMBAL)
        return found
    return {}


def _calibrated(xmp: str) -> tuple[float, ...]:
    found = re.search(r"""drone-dji:DewarpData\s*=\s*["'][^"';]*;([^"']*)["']""", xmp)
    if found is None or _xmp(xmp, "drone-dji:DewarpFlag") == 1.0:
        return ()
    try:
        values = tuple(float(part) for part in found[1].split(","))
    except ValueError:
        return ()
    usable = len(values) == 9 and all(map(math.isfinite, values)) and min(values[:2]) > 0
    return values if usable else ()
