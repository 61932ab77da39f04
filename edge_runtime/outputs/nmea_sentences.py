"""Fixes as NMEA 0183 sentences (version 4.10): GGA, RMC, GST and GSA."""

from edge_runtime.fix import Fix
from edge_runtime.outputs.reported import utc_of

_QUALITY = {"OK": "1", "DEGRADED": "6"}
"""GGA: 1 is a fix, 6 is dead reckoning, 0 is none."""
_MODE = {"OK": "A", "DEGRADED": "E"}
"""RMC: A is autonomous, E is dead reckoning, N is not valid."""


def sentence(*fields: str) -> bytes:
    """One sentence with its checksum, the exclusive or of all between $ and *."""
    body = ",".join(fields)
    checksum = 0
    for byte in body.encode("ascii"):
        checksum ^= byte
    return f"${body}*{checksum:02X}\r\n".encode("ascii")


def sentences(fix: Fix, talker: str = "GP") -> bytes:
    """GGA, RMC, GST and GSA of one fix, one after another.

    A position is in them only if the fix is OK, or DEGRADED and called dead reckoning. There are no
    satellites, so the dilution of precision is left empty, and so are altitude, speed and course.
    Time and date are empty where the frames' clock does not count from 1970.

    Args:
        fix: the record.
        talker: two letters.
    """
    known = (
        fix.status in _QUALITY
        and fix.lat_deg is not None
        and fix.lon_deg is not None
        and fix.eph_m is not None
    )
    quality, mode = (_QUALITY[fix.status], _MODE[fix.status]) if known else ("0", "N")
    moment = utc_of(fix)
    clock = f"{moment:%H%M%S}.{moment.microsecond // 10000:02d}" if moment else ""
    date = f"{moment:%d%m%y}" if moment else ""
    place = ["", "", "", ""]
    sigma_m = ""
    if known and fix.lat_deg is not None and fix.lon_deg is not None:
        place = [
            _minutes(fix.lat_deg, 2),
            "S" if fix.lat_deg < 0 else "N",
            _minutes(fix.lon_deg, 3),
            "W" if fix.lon_deg < 0 else "E",
        ]
        sigma_m = f"{fix.eph_m:.1f}"
    valid = "A" if mode == "A" else "V"
    return b"".join(
        (
            sentence(f"{talker}GGA", clock, *place, quality, "00", "", "", "M", "", "M", "", ""),
            sentence(f"{talker}RMC", clock, valid, *place, "", "", date, "", "", mode),
            sentence(f"{talker}GST", clock, "", "", "", "", sigma_m, sigma_m, ""),
            sentence(f"{talker}GSA", "A", "2" if known else "1", *[""] * 12, "", "", ""),
        )
    )


def _minutes(angle_deg: float, degree_digits: int) -> str:
    """Degrees and minutes as one number, ddmm.mmmmm; 0.00001 minutes are 2 cm."""
    units = round(abs(angle_deg) * 60 * 100_000)
    degrees, rest = divmod(units, 60 * 100_000)
    return f"{degrees:0{degree_digits}d}{rest // 100_000:02d}.{rest % 100_000:05d}"
