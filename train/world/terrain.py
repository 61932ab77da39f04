"""The permanent lie of the land: parcels, roads, river, ponds. No objects, no colours.

Positions are (x, y) metres from the north-west corner of the ground, x east and y **south**, the
axes of the imagery. Geometry reaches past the ground's border so that the border cuts it.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from train.world.noise import SmoothField

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]

ParcelKind = Literal["crop", "meadow", "pasture", "orchard", "vineyard", "forest", "garden", "yard"]
RoadKind = Literal["main", "lane", "street", "track", "path"]
BorderKind = Literal["hedge", "verge", "ditch", "none"]

ROAD_WIDTH_M: dict[RoadKind, float] = {
    "main": 7.5,
    "lane": 4.8,
    "street": 4.6,
    "track": 3.0,
    "path": 1.3,
}
BEYOND_M = 60.0
"""How far geometry reaches past the ground's border."""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A piece of land under one use."""

    outline_m: F64
    """(N, 2) outline."""
    kind: ParcelKind
    """Land use."""
    angle_deg: float
    """Direction of the rows."""


@dataclass(frozen=True, kw_only=True)
class Road:
    """A road or path."""

    line_m: F64
    """(N, 2) centre line."""
    kind: RoadKind
    """Class, which sets width and surface."""


@dataclass(frozen=True, kw_only=True)
class Border:
    """What grows between two parcels."""

    line_m: F64
    """(N, 2) line."""
    kind: BorderKind
    """What it is."""


@dataclass(frozen=True, kw_only=True)
class Terrain:
    """Everything permanent and flat on one square ground."""

    size_m: float
    """Side of the ground."""
    parcels: tuple[Parcel, ...]
    """Cover the ground without gaps."""
    roads: tuple[Road, ...]
    """Minor roads first."""
    borders: tuple[Border, ...]
    """Between parcels that no road divides."""
    rivers: tuple[F64, ...]
    """(N, 2) outlines of the water."""
    river_banks: tuple[F64, ...]
    """(N, 2) outlines of water and bank."""
    ponds: tuple[F64, ...]
    """(N, 2) outlines."""
    patches: tuple[tuple[F64, float], ...]
    """Soil patches: (N, 2) outline and brightness -1..1."""


def blob(
    rng: np.random.Generator, centre_m: F64, radius_m: float, *, roughness: float = 0.25
) -> F64:
    """(24, 2) irregular closed outline, metres."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = np.ones(24)
    for k in range(1, 5):
        radius += roughness / k * rng.standard_normal() * np.cos(k * angle + rng.uniform(0, 6.3))
    radius = np.clip(radius, 0.4, 2.0) * radius_m
    squeeze, turn = rng.uniform(0.55, 1.0), rng.uniform(0, np.pi)
    x, y = radius * np.cos(angle), radius * np.sin(angle) * squeeze
    c, s = np.cos(turn), np.sin(turn)
    return np.asarray(centre_m + np.stack([c * x - s * y, s * x + c * y], axis=1))


def densified(line_m: F64, step_m: float, *, closed: bool) -> F64:
    """The same line with points at most `step_m` apart."""
    points = np.vstack([line_m, line_m[:1]]) if closed else line_m
    pieces = []
    for a, b in pairwise(points):
        steps = max(1, int(np.ceil(np.hypot(*(b - a)) / step_m)))
        pieces.append(a + (b - a) * (np.arange(steps) / steps)[:, None])
    if not closed:
        pieces.append(points[-1:])
    return np.concatenate(pieces)


def winding_line(
    rng: np.random.Generator, start_m: F64, end_m: F64, *, sway: float, bend_m: float
) -> F64:
    """A line from start to end that sways by about `sway` of its bends' length."""
    length_m = float(np.hypot(*(end_m - start_m)))
    count = max(4, int(length_m / 4))
    t = np.linspace(0, 1, count)
    sideways = np.zeros(count)
    for bend in (bend_m, bend_m * 0.45, bend_m * 2.2):
        phase = 2 * np.pi * t * length_m / bend * rng.uniform(0.8, 1.2) + rng.uniform(0, 6.3)
        sideways += np.sin(phase) * sway * bend * rng.uniform(0.6, 1.2)
    along = (end_m - start_m) / max(length_m, 1e-6)
    normal = np.array([-along[1], along[0]])
    fade = np.minimum(1, 8 * np.minimum(t, 1 - t)) if length_m < 600 else np.ones(count)
    return np.asarray(
        start_m + t[:, None] * (end_m - start_m) + (sideways * fade)[:, None] * normal
    )


def area_m2(outline_m: F64) -> float:
    """Area of a simple polygon."""
    x, y = outline_m[:, 0], outline_m[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _cut(polygon: F64, point: F64, direction: F64) -> tuple[F64, F64, F64]:
    """Cut a convex polygon along a line: the two parts and the cut's end points."""
    side = (polygon - point) @ np.array([-direction[1], direction[0]])
    left: list[F64] = []
    right: list[F64] = []
    ends: list[F64] = []
    for i in range(len(polygon)):
        j = (i + 1) % len(polygon)
        (left if side[i] >= 0 else right).append(polygon[i])
        if (side[i] >= 0) != (side[j] >= 0):
            t = side[i] / (side[i] - side[j])
            crossing = polygon[i] + t * (polygon[j] - polygon[i])
            left.append(crossing)
            right.append(crossing)
            ends.append(crossing)
    return np.array(left), np.array(right), np.array(ends)


def long_axis_deg(outline_m: F64) -> float:
    """Direction of the longer side of the smallest rectangle around an outline."""
    _, (width, height), angle_deg = cv2.minAreaRect(outline_m.astype(np.float32))
    return float(angle_deg if width >= height else angle_deg + 90)


@dataclass(frozen=True, kw_only=True)
class _Cut:
    line_m: F64
    parent_m2: float
    in_village: bool


def _split_land(
    size_m: float, villages: list[tuple[F64, float]], rng: np.random.Generator
) -> tuple[list[tuple[F64, bool]], list[_Cut]]:
    """Split the ground recursively; smaller plots in villages."""
    low, high = -BEYOND_M - 40, size_m + BEYOND_M + 40
    root = np.array([[low, low], [high, low], [high, high], [low, high]])
    leaves: list[tuple[F64, bool]] = []
    cuts: list[_Cut] = []
    pending = [root]
    while pending:
        polygon = pending.pop()
        area = area_m2(polygon)
        centre = polygon.mean(axis=0)
        in_village = area < 40_000 and any(
            np.hypot(*(centre - at)) < radius for at, radius in villages
        )
        target = rng.uniform(500, 1300) if in_village else float(rng.lognormal(9.0, 0.55))
        if area < target * 1.6 or len(polygon) < 3:
            leaves.append((polygon, in_village))
            continue
        jitter_deg = rng.normal(0, 6 if in_village else 11)
        angle = np.radians(long_axis_deg(polygon) + 90 + jitter_deg)
        direction = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-direction[1], direction[0]])
        reach = polygon @ across
        level = reach.min() + np.ptp(reach) * rng.uniform(0.36, 0.64)
        left, right, ends = _cut(polygon, across * level, direction)
        if len(ends) != 2 or len(left) < 3 or len(right) < 3:
            leaves.append((polygon, in_village))
            continue
        cuts.append(_Cut(line_m=ends, parent_m2=area, in_village=in_village))
        pending += [left, right]
    return leaves, cuts


def _road_kind(cut: _Cut, rng: np.random.Generator) -> RoadKind | None:
    chance = rng.random()
    if cut.parent_m2 > 1_300_000:
        return "main"
    if cut.parent_m2 > 280_000:
        return "lane"
    if cut.in_village:
        return "street" if cut.parent_m2 > 4500 else None
    if cut.parent_m2 > 60_000:
        return "track" if chance < 0.85 else "lane"
    return "track" if chance < 0.10 else "path" if chance < 0.17 else None


def _river(size_m: float, rng: np.random.Generator) -> tuple[tuple[F64, ...], tuple[F64, ...]]:
    heading = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(heading), np.sin(heading)])
    across = np.array([-along[1], along[0]])
    middle = np.array([size_m, size_m]) / 2 + across * rng.uniform(-0.3, 0.3) * size_m
    reach = size_m * 0.8 + 150
    line = winding_line(
        rng, middle - along * reach, middle + along * reach, sway=0.11, bend_m=rng.uniform(260, 420)
    )
    tangent = np.gradient(line, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    wide = SmoothField.random(rng, shortest_m=50, longest_m=300)
    bank = SmoothField.random(rng, shortest_m=20, longest_m=120)
    half = np.clip(6.5 + 2.2 * wide.at(line), 3.5, 14)[:, None]
    beyond = np.clip(3.5 + 1.8 * bank.at(line), 1, 9)[:, None]
    beyond_right = np.clip(3.5 + 1.8 * bank.at(line + 500), 1, 9)[:, None]
    water = np.vstack([line + normal * half, (line - normal * half)[::-1]])
    banks = np.vstack(
        [line + normal * (half + beyond), (line - normal * (half + beyond_right))[::-1]]
    )
    return (water,), (banks,)


def make_terrain(size_m: float, rng: np.random.Generator) -> Terrain:
    """Lay out one ground.

    Args:
        size_m: side of the square.
        rng: the only source of randomness.
    """
    area_km2 = (size_m / 1000) ** 2
    villages = [
        (rng.uniform(0.12, 0.88, 2) * size_m, float(rng.uniform(75, 150)))
        for _ in range(max(1, round(area_km2 * 1.3)))
    ]
    leaves, cuts = _split_land(size_m, villages, rng)
    bend_x, bend_y = (SmoothField.random(rng, shortest_m=220, longest_m=800) for _ in range(2))
    sway_x, sway_y = (SmoothField.random(rng, shortest_m=70, longest_m=160) for _ in range(2))

    def bent(points_m: F64) -> F64:
        dx = 15 * bend_x.at(points_m) + 2.2 * sway_x.at(points_m)
        dy = 15 * bend_y.at(points_m) + 2.2 * sway_y.at(points_m)
        return np.asarray(points_m + np.stack([dx, dy], axis=1))

    woods = SmoothField.random(rng, shortest_m=250, longest_m=900)
    kinds: list[ParcelKind] = ["crop", "meadow", "pasture", "orchard", "vineyard", "forest"]
    parcels = []
    for polygon, in_village in leaves:
        outline = bent(densified(polygon, 12, closed=True))
        wooded = woods.at(polygon.mean(axis=0)[None])[0] > 1.05
        kind: ParcelKind
        if in_village:
            kind = "garden"
        elif wooded:
            kind = "forest"
        else:
            kind = kinds[int(rng.choice(6, p=[0.56, 0.2, 0.1, 0.05, 0.05, 0.04]))]
        turned_deg = 90.0 if rng.random() < 0.25 else 0.0
        angle_deg = long_axis_deg(outline) + turned_deg + rng.normal(0, 4)
        parcels.append(Parcel(outline_m=outline, kind=kind, angle_deg=angle_deg))

    roads: list[Road] = []
    borders: list[Border] = []
    for cut in cuts:
        line = bent(densified(cut.line_m, 8, closed=False))
        road_kind = _road_kind(cut, rng)
        if road_kind is not None:
            roads.append(Road(line_m=line, kind=road_kind))
        else:
            p = [0.45, 0.05, 0.0, 0.5] if cut.in_village else [0.24, 0.38, 0.14, 0.24]
            border_kinds: list[BorderKind] = ["hedge", "verge", "ditch", "none"]
            borders.append(Border(line_m=line, kind=border_kinds[int(rng.choice(4, p=p))]))
    for _ in range(round(area_km2 * 12) + 1):
        start = rng.uniform(0, size_m, 2)
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(90, 320)
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        roads.append(
            Road(line_m=winding_line(rng, start, end, sway=0.035, bend_m=110), kind="path")
        )
    rank = ["path", "track", "street", "lane", "main"]
    roads.sort(key=lambda road: rank.index(road.kind))

    rivers, banks = _river(size_m, rng)
    ponds = tuple(
        blob(rng, rng.uniform(0, size_m, 2), float(rng.uniform(7, 24)))
        for _ in range(round(area_km2 * 3.5))
    )
    patches = tuple(
        (
            blob(
                rng,
                rng.uniform(-20, size_m + 20, 2),
                float(rng.lognormal(1.75, 0.5)),
                roughness=0.4,
            ),
            float(rng.choice([-1, 1]) * rng.uniform(0.35, 1.0)),
        )
        for _ in range(round(area_km2 * 900))
    )
    return Terrain(
        size_m=size_m,
        parcels=tuple(parcels),
        roads=tuple(roads),
        borders=tuple(borders),
        rivers=rivers,
        river_banks=banks,
        ponds=ponds,
        patches=patches,
    )


@dataclass(frozen=True, kw_only=True)
class GroundPlan:
    """Coarse rasters, 1 m per pixel with a margin, that say what is where."""

    parcel: I32
    """(S, S) index of the parcel, -1 for none."""
    taken: U8
    """(S, S) 1 where a road, water or building is."""

    @classmethod
    def of(cls, terrain: Terrain) -> "GroundPlan":
        """Draw the plan of a terrain."""
        side = int(np.ceil(terrain.size_m + 2 * BEYOND_M))
        parcel = np.full((side, side), -1, np.int32)
        for index, land in enumerate(terrain.parcels):
            cv2.fillPoly(parcel, [_plan_px(land.outline_m)], index)
        taken = np.zeros((side, side), np.uint8)
        for road in terrain.roads:
            if road.kind != "path":
                width_px = int(np.ceil(ROAD_WIDTH_M[road.kind])) + 2
                cv2.polylines(taken, [_plan_px(road.line_m)], False, 1, width_px)
        for outline in (*terrain.river_banks, *terrain.ponds):
            cv2.fillPoly(taken, [_plan_px(outline)], 1)
        return cls(parcel=parcel, taken=taken)

    def take(self, outline_m: F64) -> None:
        """Mark an outline as taken."""
        cv2.fillPoly(self.taken, [_plan_px(outline_m)], 1)

    def is_free(self, points_m: F64) -> npt.NDArray[np.bool_]:
        """Whether (N, 2) points are on the plan and not taken."""
        x, y = (np.floor(points_m + BEYOND_M).astype(np.int64)).T
        side = len(self.taken)
        inside = (x >= 0) & (y >= 0) & (x < side) & (y < side)
        free = self.taken[np.clip(y, 0, side - 1), np.clip(x, 0, side - 1)] == 0
        return np.asarray(inside & free)

    def parcel_at(self, points_m: F64) -> I32:
        """Parcel index under (N, 2) points, -1 outside."""
        x, y = (np.floor(points_m + BEYOND_M).astype(np.int64)).T
        side = len(self.parcel)
        inside = (x >= 0) & (y >= 0) & (x < side) & (y < side)
        found = self.parcel[np.clip(y, 0, side - 1), np.clip(x, 0, side - 1)]
        return np.asarray(np.where(inside, found, -1), np.int32)


def _plan_px(points_m: F64) -> I32:
    return np.asarray(np.round(points_m + BEYOND_M), np.int32)
