"""Tracks as GeoJSON (RFC 7946): one FeatureCollection of points, lines and gaps."""

import json
from typing import Any

from edge_runtime.fix import Fix
from edge_runtime.outputs.reported import Position, iso_utc_of
from edge_runtime.outputs.track_file import Gap


class GeoJsonFormat:
    """Points carry what the fix says; a gap is a feature without geometry."""

    head = '{"type":"FeatureCollection","features":[\n'
    separator = ",\n"
    end = "\n]}\n"

    def point(self, fix: Fix, position: Position) -> str:
        """A Point feature."""
        geometry = {"type": "Point", "coordinates": _lon_lat(position)}
        return _feature(
            geometry,
            {
                "kind": "fix",
                **_when(fix, ""),
                "seq": fix.seq,
                "frame": fix.frame,
                "eph_m": round(position.eph_m, 3),
                "yaw_deg": None if fix.yaw_deg is None else round(fix.yaw_deg, 2),
                "probability": fix.probability,
                "mode": fix.mode,
                "reset_counter": fix.reset_counter,
            },
        )

    def line(self, positions: list[Position]) -> str:
        """A LineString feature."""
        coordinates = [_lon_lat(position) for position in positions]
        return _feature({"type": "LineString", "coordinates": coordinates}, {"kind": "track"})

    def gap(self, gap: Gap) -> str:
        """A feature without geometry."""
        return _feature(
            None,
            {
                "kind": "gap",
                **_when(gap.begin, "begin_"),
                **_when(gap.end, "end_"),
                "fixes": gap.fixes,
                "status": gap.end.status,
                "reason": gap.end.reason,
            },
        )


def _when(fix: Fix, prefix: str) -> dict[str, Any]:
    utc = iso_utc_of(fix)
    t_s = {f"{prefix}t_s": round(fix.t_exposure_s, 3)}
    return t_s if utc is None else {f"{prefix}time_utc": utc, **t_s}


def _lon_lat(position: Position) -> list[float]:
    return [round(position.lon_deg, 7), round(position.lat_deg, 7)]


def _feature(geometry: dict[str, Any] | None, properties: dict[str, Any]) -> str:
    feature = {"type": "Feature", "geometry": geometry, "properties": properties}
    return json.dumps(feature, separators=(",", ":"), allow_nan=False)
