"""Tracks as GPX 1.1: one track, a new segment after each gap."""

from pathlib import Path
from xml.sax.saxutils import escape

from edge_runtime.fix import Fix
from edge_runtime.outputs.reported import iso_utc_of, position_of
from edge_runtime.outputs.tailed_file import TailedFile

_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<gpx version="1.1" creator="skyfix" xmlns="http://www.topografix.com/GPX/1/1" '
    'xmlns:skyfix="urn:skyfix:gpx:1">\n<trk><name>skyfix</name><trkseg>\n'
)
_BREAK = "</trkseg><trkseg>\n"
_TAIL = "</trkseg></trk></gpx>\n"


class GpxFile:
    """Track points of the fixes that are OK."""

    def __init__(self, name: str, path: Path) -> None:
        """Begin the file.

        Raises:
            OSError: it cannot be written.
        """
        self.name = name
        self._file = TailedFile(path, _HEAD, _TAIL)
        self._last: Fix | None = None
        self._gap = False

    def write(self, fix: Fix) -> None:
        """Add one fix.

        Raises:
            OSError: no room or the medium is gone.
        """
        position = position_of(fix)
        if position is None:
            self._gap = True
            return
        last = self._last
        new_segment = last is not None and (self._gap or last.reset_counter != fix.reset_counter)
        utc = iso_utc_of(fix)
        # Elements in the order of the schema; no hdop, for there are no satellites to have one.
        text = (
            (_BREAK if new_segment else "")
            + f'<trkpt lat="{position.lat_deg:.7f}" lon="{position.lon_deg:.7f}">'
            + (f"<time>{utc}</time>" if utc else "")
            + f"<name>{escape(fix.frame)}</name><fix>2d</fix><extensions>"
            + f"<skyfix:eph_m>{position.eph_m:.2f}</skyfix:eph_m>"
            + f"<skyfix:t_s>{fix.t_exposure_s:.3f}</skyfix:t_s></extensions></trkpt>\n"
        )
        self._file.append(text, _TAIL)
        self._last, self._gap = fix, False

    def close(self) -> None:
        """Close the file, which is complete already."""
        self._file.close()
