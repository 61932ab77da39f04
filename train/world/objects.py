"""What stands on the land: buildings, trees, cars, rocks, bales, and which rendering shows them.

Every object knows whether it is seen by the satellite and by the drone: some were built, felled or
moved between the two.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from train.world.noise import SmoothField
from train.world.terrain import BEYOND_M, GroundPlan, Terrain, area_m2, blob, long_axis_deg

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

BuildingKind = Literal["house", "shed", "barn", "silo"]

CHANGED = 0.07
"""Share of permanent objects that differ between the two renderings."""


@dataclass(frozen=True, kw_only=True)
class Building:
    """A rotated rectangle with a pitched roof."""

    centre_m: F64
    """(2,) position."""
    length_m: float
    """Along the ridge."""
    width_m: float
    """Across the ridge."""
    angle_deg: float
    """Direction of the ridge."""
    height_m: float
    """Height that casts the shadow."""
    kind: BuildingKind
    """What it is."""
    roof: int
    """Index into the roof colours."""
    in_satellite: bool
    """Seen by the satellite."""
    in_drone: bool
    """Seen by the drone."""

    def outline_m(self) -> F64:
        """(4, 2) corners, ridge along the first side."""
        a = np.radians(self.angle_deg)
        u = np.array([np.cos(a), np.sin(a)]) * self.length_m / 2
        v = np.array([-np.sin(a), np.cos(a)]) * self.width_m / 2
        return np.asarray(self.centre_m + np.array([-u - v, u - v, u + v, -u + v]))


@dataclass(frozen=True, kw_only=True)
class Plants:
    """Trees and bushes, structure of arrays of length T."""

    xy_m: F64
    """(T, 2) positions."""
    radius_m: F64
    """(T,) crown radius."""
    height_m: F64
    """(T,) height."""
    species: I64
    """(T,) 0 conifer, 1-3 deciduous, 4 bush."""
    in_satellite: Bool
    """(T,) seen by the satellite."""
    in_drone: Bool
    """(T,) seen by the drone."""


@dataclass(frozen=True, kw_only=True)
class SmallThing:
    """A flat or low patch of colour: car, rock, bale, pool, yard, trampoline."""

    outline_m: F64
    """(N, 2) outline."""
    height_m: float
    """Height that casts the shadow; 0 for none."""
    rgb: tuple[int, int, int]
    """Colour before light and season."""
    in_satellite: bool
    """Seen by the satellite."""
    in_drone: bool
    """Seen by the drone."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """All objects of one ground."""

    buildings: tuple[Building, ...]
    """Low ones first."""
    plants: Plants
    """Low ones first."""
    things: tuple[SmallThing, ...]
    """In drawing order."""


def _rectangle(centre_m: F64, length_m: float, width_m: float, angle_deg: float) -> F64:
    a = np.radians(angle_deg)
    u = np.array([np.cos(a), np.sin(a)]) * length_m / 2
    v = np.array([-np.sin(a), np.cos(a)]) * width_m / 2
    return np.asarray(centre_m + np.array([-u - v, u - v, u + v, -u + v]))


def _shown(rng: np.random.Generator) -> tuple[bool, bool]:
    """(in satellite, in drone): mostly both."""
    chance = rng.random()
    return chance > CHANGED / 2, chance < 1 - CHANGED / 2


_CARS = [
    (225, 225, 228),
    (40, 42, 48),
    (150, 152, 156),
    (150, 30, 28),
    (40, 70, 130),
    (190, 185, 170),
]


def _car(
    rng: np.random.Generator, centre_m: F64, angle_deg: float, *, in_satellite: bool, in_drone: bool
) -> SmallThing:
    outline = _rectangle(centre_m, rng.uniform(4.0, 4.9), 1.9, angle_deg)
    return SmallThing(
        outline_m=outline,
        height_m=1.5,
        rgb=_CARS[int(rng.integers(len(_CARS)))],
        in_satellite=in_satellite,
        in_drone=in_drone,
    )


class _Placer:
    """Collects objects while the plan fills up."""

    def __init__(self, terrain: Terrain, plan: GroundPlan, rng: np.random.Generator) -> None:
        self.terrain, self.plan, self.rng = terrain, plan, rng
        self.buildings: list[Building] = []
        self.things: list[SmallThing] = []
        self.plants: list[tuple[F64, F64, F64, I64]] = []

    def build(
        self, centre_m: F64, length_m: float, width_m: float, angle_deg: float, kind: BuildingKind
    ) -> bool:
        rng = self.rng
        height_m = {"house": 7.0, "shed": 3.0, "barn": 9.0, "silo": 12.0}[kind] * rng.uniform(
            0.8, 1.25
        )
        in_satellite, in_drone = _shown(rng)
        building = Building(
            centre_m=centre_m,
            length_m=length_m,
            width_m=width_m,
            angle_deg=angle_deg,
            height_m=float(height_m),
            kind=kind,
            roof=int(rng.integers(0, 9)),
            in_satellite=in_satellite,
            in_drone=in_drone,
        )
        outline = building.outline_m()
        probes = np.vstack([outline, centre_m[None], (outline + np.roll(outline, 1, axis=0)) / 2])
        if not self.plan.is_free(probes).all():
            return False
        self.plan.take(outline)
        self.buildings.append(building)
        return True

    def plant(self, xy_m: F64, radius_m: F64, height_m: F64, species: I64) -> None:
        keep = self.plan.is_free(xy_m)
        self.plants.append((xy_m[keep], radius_m[keep], height_m[keep], species[keep]))

    def thing(
        self,
        outline_m: F64,
        rgb: tuple[int, int, int],
        *,
        height_m: float = 0.0,
        in_satellite: bool | None = None,
        in_drone: bool | None = None,
    ) -> None:
        shown = _shown(self.rng)
        self.things.append(
            SmallThing(
                outline_m=outline_m,
                height_m=height_m,
                rgb=rgb,
                in_satellite=shown[0] if in_satellite is None else in_satellite,
                in_drone=shown[1] if in_drone is None else in_drone,
            )
        )


def _gardens(place: _Placer) -> None:
    rng = place.rng
    for parcel in place.terrain.parcels:
        if parcel.kind != "garden":
            continue
        centre = parcel.outline_m.mean(axis=0) + rng.normal(0, 1.5, 2)
        angle = long_axis_deg(parcel.outline_m) + float(rng.choice([0, 90])) + rng.normal(0, 3)
        side = np.sqrt(area_m2(parcel.outline_m))
        length, width = rng.uniform(11, 17), rng.uniform(8, 11)
        built = False
        for shrink in (1.0, 0.8, 0.65):
            if side > 15 and place.build(centre, length * shrink, width * shrink, angle, "house"):
                built = True
                break
        a = np.radians(angle)
        u, v = np.array([np.cos(a), np.sin(a)]), np.array([-np.sin(a), np.cos(a)])
        if built:
            if rng.random() < 0.3:
                wing = centre + u * length * 0.2 + v * (width * 0.5 + 2.5)
                place.build(wing, rng.uniform(5, 8), rng.uniform(5, 7), angle + 90, "house")
            corner = centre + v * width * 0.9 + u * rng.uniform(-4, 4)
            place.thing(_rectangle(corner, 5, width * 0.9, angle), (158, 152, 146))
            if rng.random() < 0.6:
                here, there = rng.random() < 0.6, rng.random() < 0.6
                place.things.append(
                    _car(rng, corner, angle + 90, in_satellite=bool(here), in_drone=bool(there))
                )
            if rng.random() < 0.22:
                at = centre - v * (width * 0.5 + rng.uniform(4, 7)) + u * rng.uniform(-5, 5)
                place.thing(_rectangle(at, 8, 4, angle), (110, 185, 205))
        for _ in range(int(rng.integers(0, 3))):
            at = centre + u * rng.uniform(-0.42, 0.42) * side + v * rng.uniform(-0.42, 0.42) * side
            place.build(at, rng.uniform(3, 6), rng.uniform(2.5, 4), angle, "shed")
        count = int(rng.integers(3, 9))
        at_m = centre + rng.uniform(-0.48, 0.48, (count, 2)) * side
        radius = rng.uniform(0.8, 3.2, count)
        place.plant(at_m, radius, radius * 2.2, rng.integers(0, 5, count))
        if rng.random() < 0.5:
            bed = centre + rng.uniform(-0.4, 0.4, 2) * side
            rgb = (112, 92, 70) if rng.random() < 0.6 else (86, 110, 52)
            place.thing(_rectangle(bed, rng.uniform(4, 9), rng.uniform(2, 5), angle), rgb)


def _farms(place: _Placer) -> None:
    rng = place.rng
    size = place.terrain.size_m
    for _ in range(max(1, round((size / 1000) ** 2 * 9))):
        at = rng.uniform(0.03, 0.97, 2) * size
        index = int(place.plan.parcel_at(at[None])[0])
        if index < 0 or place.terrain.parcels[index].kind in ("forest", "garden"):
            continue
        if place.plan.is_free(blob(rng, at, 20.0, roughness=0.0)).mean() < 0.9:
            continue
        angle = place.terrain.parcels[index].angle_deg
        a = np.radians(angle)
        u, v = np.array([np.cos(a), np.sin(a)]), np.array([-np.sin(a), np.cos(a)])
        place.thing(
            blob(rng, at, float(rng.uniform(18, 26)), roughness=0.12),
            (168, 156, 136),
            in_satellite=True,
            in_drone=True,
        )
        place.build(at + v * 17, rng.uniform(24, 40), rng.uniform(12, 18), angle, "barn")
        place.build(at - v * 17, rng.uniform(14, 24), rng.uniform(9, 12), angle, "house")
        if rng.random() < 0.7:
            place.build(at + u * 24, rng.uniform(16, 26), rng.uniform(9, 13), angle + 90, "barn")
        for _ in range(int(rng.integers(0, 3))):
            place.build(at - u * rng.uniform(16, 24) + v * rng.uniform(-9, 9), 6, 6, 0, "silo")
        for _ in range(int(rng.integers(1, 4))):
            here = rng.random() < 0.5
            spot = at + u * rng.uniform(-9, 9) + v * rng.uniform(-6, 6)
            place.things.append(
                _car(rng, spot, rng.uniform(0, 180), in_satellite=bool(here), in_drone=not here)
            )
        count = 10
        ring = rng.uniform(0, 2 * np.pi, count)
        spots = at + np.stack([np.cos(ring), np.sin(ring)], axis=1) * rng.uniform(
            24, 38, (count, 1)
        )
        radius = rng.uniform(1.5, 4.5, count)
        place.plant(spots, radius, radius * 2.2, rng.integers(0, 5, count))


def _woods(place: _Placer) -> None:
    rng, size = place.rng, place.terrain.size_m
    clearing = SmoothField.random(rng, shortest_m=35, longest_m=130)
    stand = SmoothField.random(rng, shortest_m=120, longest_m=400)
    step = 5.2
    axis = np.arange(-BEYOND_M / 2, size + BEYOND_M / 2, step)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    grid = grid + rng.uniform(-0.45, 0.45, grid.shape) * step
    index = place.plan.parcel_at(grid)
    is_forest = np.array([p.kind == "forest" for p in place.terrain.parcels] + [False])[index]
    grid = grid[is_forest]
    grid = grid[clearing.at(grid) < 1.25]
    count = len(grid)
    conifer = rng.random(count) < np.where(stand.at(grid) > 0.1, 0.85, 0.12)
    radius = np.where(conifer, rng.uniform(1.8, 3.0, count), rng.uniform(2.4, 4.6, count))
    height = np.where(conifer, radius * 5.5, radius * 3.6)
    place.plant(grid, radius, height, np.where(conifer, 0, rng.integers(1, 4, count)))


def _rows(place: _Placer) -> None:
    rng = place.rng
    for index, parcel in enumerate(place.terrain.parcels):
        if parcel.kind not in ("orchard", "vineyard"):
            continue
        step_m, along_m = (6.5, 5.5) if parcel.kind == "orchard" else (3.2, 1.7)
        a = np.radians(parcel.angle_deg)
        rotation = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
        local = parcel.outline_m @ rotation.T
        low, high = local.min(axis=0) + 3, local.max(axis=0) - 3
        grid = np.stack(
            np.meshgrid(np.arange(low[0], high[0], along_m), np.arange(low[1], high[1], step_m)),
            axis=-1,
        ).reshape(-1, 2)
        grid = (grid + rng.normal(0, 0.25, grid.shape)) @ rotation
        grid = grid[place.plan.parcel_at(grid) == index]
        grid = grid[rng.random(len(grid)) > 0.1]
        count = len(grid)
        if parcel.kind == "orchard":
            radius = rng.uniform(1.3, 2.3, count)
            place.plant(grid, radius, radius * 1.9, np.full(count, 1 + index % 3))
        else:
            radius = rng.uniform(0.65, 1.0, count)
            place.plant(grid, radius, radius * 1.6, np.full(count, 4))


def _along_lines(place: _Placer) -> None:
    rng = place.rng
    for border in place.terrain.borders:
        if border.kind != "hedge":
            continue
        line = border.line_m
        gap = SmoothField.random(rng, shortest_m=20, longest_m=90, waves=5)
        steps = np.hypot(*np.diff(line, axis=0).T)
        at = np.concatenate([[0], np.cumsum(steps)])
        s = np.arange(0, at[-1], 2.2)
        spots = np.stack([np.interp(s, at, line[:, 0]), np.interp(s, at, line[:, 1])], axis=1)
        spots += rng.normal(0, 0.5, spots.shape)
        spots = spots[gap.at(spots) < 0.7]
        count = len(spots)
        tall = rng.random(count) < 0.12
        radius = np.where(tall, rng.uniform(2.2, 4.2, count), rng.uniform(1.0, 1.9, count))
        species = np.where(tall, rng.integers(1, 4, count), 4)
        place.plant(spots, radius, radius * np.where(tall, 2.6, 1.6), species)
    for road in place.terrain.roads:
        if road.kind == "path" or rng.random() > (0.6 if road.kind in ("main", "lane") else 0.2):
            continue
        line = road.line_m
        at = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
        s = np.arange(5, max(at[-1] - 5, 5.1), rng.uniform(11, 24))
        s = s + rng.normal(0, 1.5, len(s))
        spots = np.stack([np.interp(s, at, line[:, 0]), np.interp(s, at, line[:, 1])], axis=1)
        ahead = np.stack(
            [np.interp(s + 1, at, line[:, 0]), np.interp(s + 1, at, line[:, 1])], axis=1
        )
        along = ahead - spots
        along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
        side = rng.choice([-1, 1], len(s))[:, None] if rng.random() < 0.5 else 1
        spots = spots + side * np.stack([-along[:, 1], along[:, 0]], axis=1) * 7.5
        spots = spots[rng.random(len(spots)) < 0.75]
        radius = rng.uniform(1.8, 4.0, len(spots))
        place.plant(spots, radius, radius * 2.4, rng.integers(1, 4, len(spots)))
    for bank in (*place.terrain.river_banks, *place.terrain.ponds):
        keep = rng.random(len(bank)) < 0.42
        spots = bank[keep] + rng.normal(0, 3.0, (int(keep.sum()), 2))
        radius = rng.uniform(1.2, 4.6, len(spots))
        place.plant(spots, radius, radius * 2.3, rng.integers(1, 5, len(spots)))
    for road in place.terrain.roads:
        if road.kind not in ("main", "lane", "street"):
            continue
        line = road.line_m
        for k in range(1, len(line) - 1):
            if rng.random() < {"main": 0.05, "lane": 0.012, "street": 0.07}[road.kind]:
                along = line[k + 1] - line[k - 1]
                angle = float(np.degrees(np.arctan2(along[1], along[0])))
                aside = np.array([-along[1], along[0]]) / (np.hypot(*along) + 1e-9)
                spot = line[k] + aside * rng.choice([-1.4, 1.4])
                here = rng.random() < 0.5
                place.things.append(
                    _car(rng, spot, angle, in_satellite=bool(here), in_drone=not here)
                )


def _scattered(place: _Placer) -> None:
    rng, size = place.rng, place.terrain.size_m
    area_m2_all = (size + BEYOND_M) ** 2
    kinds = np.array([p.kind for p in place.terrain.parcels] + ["none"])

    def spots(per_m2: float) -> F64:
        found = rng.uniform(-BEYOND_M / 2, size + BEYOND_M / 2, (round(area_m2_all * per_m2), 2))
        kind = kinds[place.plan.parcel_at(found)]
        return np.asarray(found[~np.isin(kind, ["forest", "garden", "none", "vineyard"])])

    trees = spots(1 / 3200)
    radius = rng.uniform(1.8, 5.2, len(trees))
    place.plant(trees, radius, radius * 2.3, rng.integers(0, 4, len(trees)))
    groups = spots(1 / 3800)
    for group in groups:
        count = int(rng.integers(2, 9))
        radius = rng.uniform(0.6, 1.9, count)
        near = group + rng.normal(0, rng.uniform(1.5, 6), (count, 2))
        place.plant(near, radius, radius * 1.5, np.full(count, 4))
    for rock in spots(1 / 3000):
        for _ in range(int(rng.integers(1, 5))):
            grey = int(rng.integers(140, 200))
            at = rock + rng.normal(0, 2.2, 2)
            if not place.plan.is_free(at[None])[0]:
                continue
            place.thing(
                blob(rng, at, float(rng.uniform(0.5, 1.9)))[::2],
                (grey, grey - 4, grey - 12),
                height_m=0.8,
            )
    for index, parcel in enumerate(place.terrain.parcels):
        if parcel.kind in ("crop", "meadow") and rng.random() < 0.09:
            low, high = parcel.outline_m.min(axis=0), parcel.outline_m.max(axis=0)
            bales = rng.uniform(low, high, (int(rng.integers(8, 28)), 2))
            for bale in bales[(place.plan.parcel_at(bales) == index) & place.plan.is_free(bales)]:
                here, there = bool(rng.random() < 0.75), bool(rng.random() < 0.75)
                place.thing(
                    _rectangle(bale, 1.6, 1.4, rng.uniform(0, 180)),
                    (205, 188, 140) if index % 2 else (224, 224, 220),
                    height_m=1.3,
                    in_satellite=here,
                    in_drone=there,
                )


def place_objects(terrain: Terrain, rng: np.random.Generator) -> Objects:
    """Put buildings, plants and small things on a terrain.

    Args:
        terrain: the land.
        rng: the only source of randomness.
    """
    place = _Placer(terrain, GroundPlan.of(terrain), rng)
    _gardens(place)
    _farms(place)
    _woods(place)
    _rows(place)
    _along_lines(place)
    _scattered(place)
    xy, radius, height, species = (
        np.concatenate([group[k] for group in place.plants]) for k in range(4)
    )
    chance = rng.random(len(xy))
    order = np.argsort(height + rng.uniform(0, 4, len(xy)), kind="stable")
    plants = Plants(
        xy_m=xy[order],
        radius_m=radius[order],
        height_m=height[order],
        species=species[order].astype(np.int64),
        in_satellite=chance > CHANGED / 2,
        in_drone=chance < 1 - CHANGED / 2,
    )
    return Objects(
        buildings=tuple(sorted(place.buildings, key=lambda b: b.height_m)),
        plants=plants,
        things=tuple(place.things),
    )
