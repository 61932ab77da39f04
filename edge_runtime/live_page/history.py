"""What a page that opens late still gets to see: the track, the news and the last minute's times.

Everything here is bounded: the track by the distance between its points, which doubles when they
become too many, the rest by dropping the oldest.
"""

import json
import math
from collections import Counter, deque
from collections.abc import Iterable
from functools import cached_property
from typing import Any, NamedTuple

from edge_runtime.fix import Fix, Status

MOST_POINTS = 4000
_MOST_NEWS = 200
_MOST_TIMES = 1200
"""Records of latency kept, and no older than `TIMES_S`."""
TIMES_S = 60.0
_METRES_PER_DEGREE = 111_195.0
"""Of a great circle on the mean sphere: near enough to thin a line."""


class Point(NamedTuple):
    """One point of the track; without a position it is a gap in the line."""

    seq: int
    t_s: float
    """`Fix.t_fix_s`."""
    lat_deg: float | None
    lon_deg: float | None
    eph_m: float | None
    status: Status
    reset_counter: int


class News(NamedTuple):
    """One line of the list of changes and events."""

    t_s: float
    seq: int
    kind: str
    """status, mode, reset, deadline, shed or event."""
    text: str


class Update:
    """What one frame changes, as the page gets it."""

    def __init__(
        self, fix: Fix, point: Point | None, news: tuple[News, ...], totals: dict[str, int]
    ) -> None:
        self.fix, self.point, self.news, self.totals = fix, point, news, totals

    @cached_property
    def json(self) -> str:
        """One line; made once, on the thread that first sends it."""
        point = "null" if self.point is None else json.dumps(self.point)
        return (
            f'{{"fix": {self.fix.to_json()}, "point": {point}, "news": {json.dumps(self.news)}, '
            f'"totals": {json.dumps(self.totals)}}}'
        )


class Snapshot(NamedTuple):
    """Everything so far, for a page that has just been opened. Safe to keep."""

    points: list[Point]
    news: list[News]
    times: list[tuple[float, dict[str, float], bool]]
    """(t_fix_s, latency_ms, deadline missed) of the last minute."""
    totals: dict[str, int]
    fix: Fix | None

    def json(self) -> str:
        """One line."""
        fix = "null" if self.fix is None else self.fix.to_json()
        rest: dict[str, Any] = {
            "points": self.points,
            "news": self.news,
            "times": [
                (round(t, 3), {k: _finite(v) for k, v in stages.items()}, missed)
                for t, stages, missed in self.times
            ],
            "totals": self.totals,
        }
        return f'{{"fix": {fix}, {json.dumps(rest, allow_nan=False)[1:]}'

    def geojson(self) -> str:
        """The track as GeoJSON (RFC 7946): a line per unbroken piece of one status."""
        features = []
        for piece in _pieces(self.points):
            places = [[p.lon_deg, p.lat_deg] for p in piece]
            lone = len(places) == 1
            features.append(
                {
                    "type": "Feature",
                    "geometry": {
                        "type": "Point" if lone else "LineString",
                        "coordinates": places[0] if lone else places,
                    },
                    "properties": {
                        "status": piece[-1].status,
                        "first_seq": piece[0].seq,
                        "last_seq": piece[-1].seq,
                        "eph_m": [p.eph_m for p in piece],
                    },
                }
            )
        return json.dumps({"type": "FeatureCollection", "features": features}, allow_nan=False)


class History:
    """Takes every fix. Not thread-safe: whoever owns it holds a lock."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._spacing_m = 0.5
        self._news: deque[News] = deque(maxlen=_MOST_NEWS)
        self._times: deque[tuple[float, dict[str, float], bool]] = deque(maxlen=_MOST_TIMES)
        self._totals: Counter[str] = Counter()
        self._last: Fix | None = None

    def add(self, fix: Fix) -> Update:
        """Take in one fix; cheap, for it runs on the flight's own thread."""
        news = tuple(_news(self._last, fix))
        self._news.extend(news)
        self._times.append((fix.t_fix_s, fix.latency_ms, fix.deadline_missed))
        while self._times[0][0] < fix.t_fix_s - TIMES_S:
            self._times.popleft()
        totals = self._totals
        totals["frames"] += 1
        totals[fix.status] += 1
        totals["missed"] += fix.deadline_missed
        totals["shed"] += bool(fix.shed)
        totals["dropped"] += fix.dropped
        self._last = fix
        return Update(fix, self._add_point(fix), news, dict(totals))

    def snapshot(self) -> Snapshot:
        """Everything so far."""
        return Snapshot(
            list(self._points),
            list(self._news),
            list(self._times),
            dict(self._totals),
            self._last,
        )

    def _add_point(self, fix: Fix) -> Point | None:
        lat, lon = _finite(fix.lat_deg), _finite(fix.lon_deg)
        if lat is None or lon is None:
            lat = lon = None
        point = Point(
            fix.seq,
            fix.t_fix_s,
            None if lat is None else round(lat, 7),
            None if lon is None else round(lon, 7),
            None if lat is None or (eph := _finite(fix.eph_m)) is None else round(eph, 1),
            fix.status,
            fix.reset_counter,
        )
        if self._points and not _worth(self._points[-1], point, self._spacing_m):
            return None
        self._points.append(point)
        if len(self._points) > MOST_POINTS:
            self._thin()
        return point

    def _thin(self) -> None:
        """Double the spacing until half of the points are left, or drop the oldest half."""
        for _ in range(20):
            self._spacing_m *= 2
            kept = self._points[:1]
            for point in self._points[1:]:
                if _worth(kept[-1], point, self._spacing_m):
                    kept.append(point)
            if len(kept) <= MOST_POINTS // 2:
                self._points = kept
                return
        # A status that changes with every frame leaves nothing to thin.
        self._spacing_m /= 2**20
        self._points = self._points[-MOST_POINTS // 2 :]


def _worth(last: Point, point: Point, spacing_m: float) -> bool:
    """Whether a point says something that the one before it does not."""
    if (last.status, last.reset_counter) != (point.status, point.reset_counter):
        return True
    if point.lat_deg is None or point.lon_deg is None:
        return last.lat_deg is not None
    if last.lat_deg is None or last.lon_deg is None:
        return True
    north = (point.lat_deg - last.lat_deg) * _METRES_PER_DEGREE
    east = (point.lon_deg - last.lon_deg + 180.0) % 360.0 - 180.0
    east *= _METRES_PER_DEGREE * math.cos(math.radians(point.lat_deg))
    return math.hypot(east, north) >= spacing_m


def _pieces(points: Iterable[Point]) -> list[list[Point]]:
    """Runs of one status and one track; each begins where the one before it ends."""
    pieces: list[list[Point]] = []
    open_piece = False
    for point in points:
        if point.lat_deg is None:
            open_piece = False
            continue
        last = pieces[-1][-1] if open_piece else None
        if last is not None and last.reset_counter == point.reset_counter:
            if last.status == point.status:
                pieces[-1].append(point)
            else:
                pieces.append([last, point])
        else:
            pieces.append([point])
        open_piece = True
    return pieces


def _news(last: Fix | None, fix: Fix) -> list[News]:
    """What is worth a line in the list."""
    found: list[tuple[str, str]] = [("event", event) for event in fix.events]
    if last is None or last.status != fix.status:
        change = fix.status if last is None else f"{last.status} → {fix.status}"
        found.append(("status", f"{change}: {fix.reason}" if fix.reason else change))
    if last is not None and last.mode != fix.mode:
        found.append(("mode", f"{last.mode} → {fix.mode}"))
    if last is not None and last.reset_counter != fix.reset_counter:
        found.append(("reset", "the position jumps to a new track"))
    if fix.deadline_missed and not (last is not None and last.deadline_missed):
        found.append(("deadline", f"missed, {fix.latency_ms.get('total', 0.0):.0f} ms"))
    if fix.shed and not (last is not None and last.shed):
        found.append(("shed", f"left out: {', '.join(fix.shed)}"))
    return [News(fix.t_fix_s, fix.seq, kind, text) for kind, text in found]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
