"""Tracks as KML 2.2, for Google Earth and QGIS."""

import math
from xml.sax.saxutils import escape

from edge_runtime.fix import Fix
from edge_runtime.geodesy import move_lat_lon
from edge_runtime.outputs.reported import Position, iso_utc_of
from edge_runtime.outputs.track_file import Gap, time_words

RADIUS_SIGMAS = {"68": 1.515, "95": 2.448}
"""Radius, in 1-sigma per axis, that holds this percentage: sqrt(-2 ln(1 - p)), Rayleigh."""
_CORNERS = 24


class KmlFormat:
    """Points with their time, lines, and circles of accuracy if asked for."""

    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<kml xmlns="http://www.opengis.net/kml/2.2"><Document><name>skyfix</name>\n'
        '<Style id="fix"><IconStyle><scale>0.3</scale></IconStyle>'
        "<LabelStyle><scale>0</scale></LabelStyle></Style>\n"
        '<Style id="track"><LineStyle><color>ff00a5ff</color><width>3</width></LineStyle></Style>\n'
        '<Style id="accuracy"><LineStyle><color>80ffffff</color></LineStyle>'
        "<PolyStyle><fill>0</fill></PolyStyle></Style>\n"
    )
    separator = ""
    end = "</Document></kml>\n"

    def __init__(self, circles: str | None = None) -> None:
        """Choose circles that hold 68 or 95 % of errors, or none."""
        self._sigmas = None if circles is None else RADIUS_SIGMAS[circles]

    def point(self, fix: Fix, position: Position) -> str:
        """A Placemark, and its circle."""
        utc = iso_utc_of(fix)
        words = escape(f"{time_words(fix)}, frame {fix.frame}, eph {position.eph_m:.1f} m")
        when = f"<TimeStamp><when>{utc}</when></TimeStamp>" if utc else ""
        text = (
            f"<Placemark><name>{fix.seq}</name><description>{words}</description>{when}"
            f"<styleUrl>#fix</styleUrl><Point><coordinates>{_lon_lat(position)}</coordinates>"
            "</Point></Placemark>\n"
        )
        if self._sigmas is None:
            return text
        ring = " ".join(
            _lon_lat(corner) for corner in _circle(position, self._sigmas * position.eph_m)
        )
        return text + (
            f"<Placemark>{when}<styleUrl>#accuracy</styleUrl><Polygon><outerBoundaryIs><LinearRing>"
            f"<coordinates>{ring}</coordinates></LinearRing></outerBoundaryIs></Polygon>"
            "</Placemark>\n"
        )

    def line(self, positions: list[Position]) -> str:
        """A LineString on the ground."""
        coordinates = " ".join(_lon_lat(position) for position in positions)
        return (
            "<Placemark><name>track</name><styleUrl>#track</styleUrl><LineString>"
            f"<tessellate>1</tessellate><coordinates>{coordinates}</coordinates></LineString>"
            "</Placemark>\n"
        )

    def gap(self, gap: Gap) -> str:
        """A Placemark without a place."""
        begin, end = iso_utc_of(gap.begin), iso_utc_of(gap.end)
        span = f"<TimeSpan><begin>{begin}</begin><end>{end}</end></TimeSpan>" if begin else ""
        words = escape(
            f"{gap.end.status}: {gap.end.reason}; from {time_words(gap.begin)} to "
            f"{time_words(gap.end)}"
        )
        return (
            f"<Placemark><name>gap of {gap.fixes} fixes</name><visibility>0</visibility>"
            f"<description>{words}</description>{span}</Placemark>\n"
        )


def _circle(position: Position, radius_m: float) -> list[Position]:
    corners = []
    for k in range(_CORNERS + 1):
        angle = 2 * math.pi * (k % _CORNERS) / _CORNERS
        corner = move_lat_lon(
            position.lat_deg,
            position.lon_deg,
            radius_m * math.cos(angle),
            radius_m * math.sin(angle),
        )
        corners.append(Position(float(corner.lat_deg), float(corner.lon_deg), 0.0))
    return corners


def _lon_lat(position: Position) -> str:
    return f"{position.lon_deg:.7f},{position.lat_deg:.7f}"
