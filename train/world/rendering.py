"""Two looks of the same land: the satellite's and the drone's. Images are RGB uint8."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from train.world.noise import fractal_noise
from train.world.objects import Building, Objects
from train.world.terrain import ROAD_WIDTH_M, Parcel, Road, Terrain

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
Rgb = tuple[float, float, float]
Ramp = tuple[Rgb, Rgb]
Texture = Literal["blotch", "rows", "swaths", "plough", "tramlines", "tufts"]

_SHIFT = 4  # drawing coordinates are in 1/16 pixel
_TEXTURE_M = 256.0  # textures repeat after this length
_SOIL_GSD_M = 1.0
_STRIP_ROWS = 512

SUMMER: tuple[tuple[Ramp, Texture], ...] = (
    (((164, 140, 90), (208, 186, 132)), "tramlines"),
    (((148, 138, 82), (192, 180, 122)), "tramlines"),
    (((50, 74, 38), (104, 130, 66)), "rows"),
    (((60, 92, 42), (112, 146, 74)), "rows"),
    (((118, 126, 56), (172, 174, 84)), "tramlines"),
    (((44, 84, 44), (84, 122, 64)), "plough"),
    (((104, 84, 62), (156, 132, 102)), "plough"),
    (((150, 134, 98), (198, 182, 144)), "swaths"),
)
"""Crops as the satellite saw them: dark and bright end of the colours, and the texture."""

AUTUMN: tuple[tuple[Ramp, Texture], ...] = (
    (((84, 66, 50), (134, 110, 86)), "plough"),
    (((62, 50, 42), (106, 88, 72)), "plough"),
    (((112, 90, 66), (158, 134, 104)), "rows"),
    (((156, 140, 102), (196, 180, 142)), "swaths"),
    (((172, 158, 122), (206, 194, 162)), "tramlines"),
    (((64, 112, 44), (118, 160, 78)), "tramlines"),
    (((92, 130, 56), (146, 172, 92)), "rows"),
    (((134, 126, 74), (176, 164, 108)), "blotch"),
)
"""Crops as the drone saw them."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Season and light of one rendering."""

    crops: tuple[tuple[Ramp, Texture], ...]
    """What may grow on a crop parcel."""
    meadow: Ramp
    """Grassland."""
    pasture: Ramp
    """Grazed, rougher grassland."""
    forest_floor: Ramp
    """Between the trees."""
    garden: Ramp
    """Lawns."""
    crowns: tuple[Rgb, ...]
    """Foliage by species: conifer, three deciduous, bush."""
    crown_jitter: float
    """How much one crown's colour differs from the next, 8-bit levels."""
    water: Rgb
    """River and ponds."""
    bank: Rgb
    """River bank."""
    sun_azimuth_deg: float
    """Direction to the sun, clockwise from north."""
    sun_elevation_deg: float
    """Height of the sun."""
    shadow: Rgb
    """Factor on ground colours in shadow."""
    haze: float
    """Share of haze mixed in."""
    blur_px: float
    """Sigma of the blur of the whole image; 0 for none."""
    satellite: bool
    """Which of the two sets of objects is shown."""

    def shadow_per_metre(self) -> F64:
        """(2,) shadow (x, y) metres per metre of height."""
        azimuth = np.radians(self.sun_azimuth_deg)
        away = np.array([-np.sin(azimuth), np.cos(azimuth)])
        return np.asarray(away / np.tan(np.radians(self.sun_elevation_deg)))


SATELLITE = Look(
    crops=SUMMER,
    meadow=((80, 106, 54), (134, 152, 86)),
    pasture=((98, 108, 62), (148, 148, 94)),
    forest_floor=((44, 58, 34), (74, 86, 50)),
    garden=((76, 104, 56), (128, 146, 88)),
    crowns=((38, 60, 40), (66, 96, 46), (78, 104, 50), (56, 86, 44), (72, 96, 50)),
    crown_jitter=7,
    water=(58, 82, 78),
    bank=(104, 112, 72),
    sun_azimuth_deg=150,
    sun_elevation_deg=52,
    shadow=(0.46, 0.5, 0.58),
    haze=0.10,
    blur_px=0.55,
    satellite=True,
)
"""Summer morning from orbit."""

DRONE = Look(
    crops=AUTUMN,
    meadow=((92, 104, 50), (150, 152, 84)),
    pasture=((112, 104, 62), (164, 150, 98)),
    forest_floor=((74, 60, 40), (112, 92, 60)),
    garden=((84, 104, 52), (142, 148, 82)),
    crowns=((40, 62, 40), (152, 122, 56), (116, 112, 54), (140, 96, 54), (102, 98, 56)),
    crown_jitter=14,
    water=(70, 78, 66),
    bank=(128, 116, 82),
    sun_azimuth_deg=238,
    sun_elevation_deg=38,
    shadow=(0.40, 0.42, 0.50),
    haze=0.0,
    blur_px=0.0,
    satellite=False,
)
"""Autumn afternoon from a drone."""

_ROOFS: tuple[Rgb, ...] = (
    (170, 92, 66),
    (156, 80, 60),
    (184, 110, 80),
    (132, 78, 62),
    (110, 90, 80),
    (104, 104, 108),
    (78, 80, 86),
    (146, 142, 138),
    (188, 186, 180),
)
_ROADS: dict[str, Rgb] = {
    "main": (122, 122, 124),
    "lane": (136, 134, 130),
    "street": (140, 138, 134),
    "track": (170, 152, 120),
    "path": (172, 156, 122),
}


def soil_map(terrain: Terrain, margin_m: float, rng: np.random.Generator) -> U8:
    """Permanent brightness of the soil, 1 m per pixel, 128 neutral; both looks share it."""
    side = int(np.ceil(terrain.size_m + 2 * margin_m))
    full = cv2.getOptimalDFTSize(side)
    noise = fractal_noise(full, rng, shortest_px=12, longest_px=90, slope=1.1)[:side, :side]
    broad = fractal_noise(full, rng, shortest_px=90, longest_px=700, slope=0.6)[:side, :side]
    patches = np.zeros((side, side), np.float32)
    for outline, level in terrain.patches:
        points = np.round((outline + margin_m) * 16).astype(np.int32)
        cv2.fillPoly(patches, [points], level, cv2.LINE_8, _SHIFT)
    patches = np.asarray(cv2.GaussianBlur(patches, (0, 0), 1.6), np.float32)
    values = 128 + 24 * noise + 10 * broad + 95 * patches
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def _texture_bank(gsd_m: float, rng: np.random.Generator) -> dict[Texture, U8]:
    """Periodic field textures, 128 neutral, at a look's resolution."""
    side = 1024
    metre = side / _TEXTURE_M
    x_m = (np.arange(side, dtype=np.float32) / metre)[None, :]
    y_m = (np.arange(side, dtype=np.float32) / metre)[:, None]
    fine = fractal_noise(side, rng, shortest_px=2, longest_px=8, slope=0.4)
    mid = fractal_noise(side, rng, shortest_px=6, longest_px=60, slope=0.9)
    broad = fractal_noise(side, rng, shortest_px=40, longest_px=260, slope=1.0)
    streaks = fractal_noise(side, rng, shortest_px=3, longest_px=60, slope=0.8, stretch=14)
    wheel = (np.abs((y_m % 16) - 7.2) < 0.35) | (np.abs((y_m % 16) - 8.9) < 0.35)
    missing = 14 * (mid > 1.6)
    rows = np.sin(2 * np.pi * y_m / 2.0) * (1 + 0.3 * mid)
    ones = np.ones_like(x_m)
    levels: dict[Texture, F32] = {
        "blotch": 20 * mid + 14 * broad + 7 * fine,
        "rows": 19 * rows + 9 * mid + 9 * broad + 6 * fine - missing,
        "swaths": 17 * np.sign(np.sin(2 * np.pi * y_m / 16)) * ones
        + 9 * streaks
        + 8 * broad
        + 6 * fine,
        "plough": 19 * streaks + 9 * broad + 7 * fine,
        "tramlines": -46 * wheel * ones + 11 * broad + 9 * mid + 6 * fine,
        "tufts": 15 * np.maximum(mid, -0.4) + 12 * broad + 10 * fine,
    }
    scaled_px = round(_TEXTURE_M / gsd_m)
    how = cv2.INTER_AREA if scaled_px < side else cv2.INTER_LINEAR
    bank: dict[Texture, U8] = {}
    for name, level in levels.items():
        image = np.asarray(np.clip(128 + level, 0, 255), np.uint8)
        bank[name] = np.asarray(
            cv2.resize(image, (scaled_px, scaled_px), interpolation=how), np.uint8
        )
    return bank


class _Canvas:
    """An image in ground coordinates."""

    def __init__(self, size_m: float, gsd_m: float) -> None:
        self.gsd_m = gsd_m
        self.side_px = round(size_m / gsd_m)
        self.rgb: U8 = np.zeros((self.side_px, self.side_px, 3), np.uint8)
        self.shadow: U8 = np.zeros((self.side_px, self.side_px), np.uint8)

    def fixed(self, points_m: F64) -> I32:
        """Drawing coordinates: 1/16 pixel, pixel centres at whole pixels."""
        return np.asarray(np.round((points_m / self.gsd_m - 0.5) * 16), np.int32)

    def width_px(self, width_m: float) -> int:
        # OpenCV's antialiased lines come out about 0.7 px wider than asked for.
        return max(1, round(width_m / self.gsd_m - 0.7))

    def fill(self, outline_m: F64, rgb: Rgb) -> None:
        cv2.fillPoly(self.rgb, [self.fixed(outline_m)], rgb, cv2.LINE_AA, _SHIFT)

    def stroke(self, line_m: F64, rgb: Rgb, width_m: float, *, closed: bool = False) -> None:
        points = [self.fixed(line_m)]
        cv2.polylines(self.rgb, points, closed, rgb, self.width_px(width_m), cv2.LINE_AA, _SHIFT)

    def shade(self, outline_m: F64) -> None:
        cv2.fillPoly(self.shadow, [self.fixed(outline_m)], 255, cv2.LINE_AA, _SHIFT)


def _ramp_lut(ramp: Ramp, rng: np.random.Generator, *, jitter: float = 8) -> U8:
    """(256, 1, 3) colours along a ramp, shifted a little at random."""
    # Beyond both ends: the ramp names common colours, patches of soil go further.
    t = np.linspace(-0.45, 1.45, 256)[:, None]
    shift = rng.normal(0, jitter) + rng.normal(0, jitter * 0.35, 3)
    colours = np.array(ramp[0]) * (1 - t) + np.array(ramp[1]) * t + shift
    return np.asarray(np.clip(colours, 0, 255), np.uint8).reshape(256, 1, 3)


def _parcel_style(
    parcel: Parcel, look: Look, permanent: np.random.Generator, season: np.random.Generator
) -> tuple[Ramp, Texture, float, float]:
    """(ramp, texture, angle in degrees, gain of the soil map) of a parcel in one look."""
    usual = int(permanent.integers(len(SUMMER)))
    angle_deg = parcel.angle_deg
    match parcel.kind:
        case "crop" | "vineyard" | "orchard":
            ramp, texture = SUMMER[usual]
            if not look.satellite and season.random() < 0.55:
                ramp, texture = look.crops[int(season.integers(len(look.crops)))]
            if parcel.kind == "orchard":
                ramp, texture = look.meadow, "swaths"
            if season.random() < 0.12:
                angle_deg += 90
            bare = texture == "plough"
            return ramp, texture, angle_deg, season.uniform(0.7, 1.15) + 0.25 * bare
        case "meadow":
            texture = "swaths" if season.random() < 0.4 else "blotch"
            return look.meadow, texture, angle_deg, season.uniform(0.75, 1.1)
        case "forest":
            return look.forest_floor, "tufts", angle_deg, 0.5
        case "garden":
            return look.garden, "blotch", angle_deg, 0.6
        case _:
            return look.pasture, "tufts", angle_deg, season.uniform(0.7, 1.0)


def _draw_parcels(
    canvas: _Canvas,
    terrain: Terrain,
    soil: U8,
    look: Look,
    seeds: tuple[int, int],
    bank: dict[Texture, U8],
) -> None:
    for index, parcel in enumerate(terrain.parcels):
        points = canvas.fixed(parcel.outline_m)
        x0, y0 = np.maximum(points.min(axis=0) // 16, 0)
        x1, y1 = np.minimum(points.max(axis=0) // 16 + 2, canvas.side_px)
        if x0 >= x1 or y0 >= y1:
            continue
        permanent = np.random.default_rng([seeds[0], 11, index])
        season = np.random.default_rng([seeds[1], 12, index])
        ramp, texture, angle_deg, gain = _parcel_style(parcel, look, permanent, season)
        size = (int(x1 - x0), int(y1 - y0))
        mask = np.zeros(size[::-1], np.uint8)
        cv2.fillPoly(mask, [points - np.array([x0, y0], np.int32) * 16], 255, cv2.LINE_8, _SHIFT)
        angle = np.radians(angle_deg)
        c, s = np.cos(angle), np.sin(angle)
        start = season.uniform(0, len(bank[texture]), 2)
        rotation = np.array([[c, s, start[0]], [-s, c, start[1]]])
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        drawn = cv2.warpAffine(bank[texture], rotation, size, flags=how, borderMode=cv2.BORDER_WRAP)
        ground = soil[y0:y1, x0:x1]
        level = cv2.addWeighted(drawn, 0.55, ground, gain, 128 - 128 * (0.55 + gain))
        colour = cv2.applyColorMap(level, _ramp_lut(ramp, season))
        cv2.copyTo(colour, mask, canvas.rgb[y0:y1, x0:x1])
        edge = np.array(ramp[0]) * 0.4 + np.array(look.meadow[0]) * 0.6 + permanent.normal(0, 14)
        rim = np.clip(edge, 30, 230)
        canvas.stroke(
            parcel.outline_m, (rim[0], rim[1], rim[2]), permanent.uniform(0.5, 1.7), closed=True
        )


def _draw_water(canvas: _Canvas, terrain: Terrain, look: Look) -> None:
    for bank in terrain.river_banks:
        canvas.fill(bank, look.bank)
    for water in terrain.rivers:
        canvas.fill(water, look.water)
        canvas.stroke(
            water,
            (look.water[0] * 0.7, look.water[1] * 0.75, look.water[2] * 0.7),
            0.7,
            closed=True,
        )
    for pond in terrain.ponds:
        centre = pond.mean(axis=0)
        canvas.fill(centre + (pond - centre) * 1.22, look.bank)
        canvas.fill(pond, (look.water[0] * 0.8, look.water[1] * 0.85, look.water[2] * 0.9))


def _draw_borders(canvas: _Canvas, terrain: Terrain, look: Look) -> None:
    for border in terrain.borders:
        if border.kind == "verge":
            canvas.stroke(border.line_m, look.meadow[1], 2.2)
        elif border.kind == "ditch":
            canvas.stroke(border.line_m, look.meadow[0], 3.4)
            canvas.stroke(border.line_m, (64, 70, 52), 1.0)


def _offset_line(line_m: F64, offset_m: float) -> F64:
    tangent = np.gradient(line_m, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    return np.asarray(line_m + offset_m * np.stack([-tangent[:, 1], tangent[:, 0]], axis=1))


def _draw_roads(canvas: _Canvas, terrain: Terrain, look: Look) -> None:
    verge = {"main": 5.0, "lane": 2.6, "street": 1.6, "track": 1.2, "path": 0.0}
    for road in terrain.roads:
        if verge[road.kind]:
            canvas.stroke(road.line_m, look.meadow[0], ROAD_WIDTH_M[road.kind] + verge[road.kind])
    for index, road in enumerate(terrain.roads):
        _draw_road(canvas, road, look, tone=float((index * 37) % 23 - 11))


def _draw_road(canvas: _Canvas, road: Road, look: Look, *, tone: float) -> None:
    base = _ROADS[road.kind]
    # Dry in summer, damp and darker in autumn.
    dim = 1.08 if look.satellite else 0.92
    rgb = ((base[0] + tone) * dim, (base[1] + tone) * dim, (base[2] + tone) * dim)
    width_m = ROAD_WIDTH_M[road.kind]
    canvas.stroke(road.line_m, rgb, width_m)
    if road.kind == "main" and canvas.gsd_m < 0.4:  # markings are finer than satellite pixels
        line = (226.0, 226.0, 220.0)
        for side in (-1, 1):
            canvas.stroke(_offset_line(road.line_m, side * (width_m / 2 - 0.4)), line, 0.25)
        for k in range(0, len(road.line_m) - 1, 2):
            canvas.stroke(road.line_m[k : k + 2], line, 0.25)
    elif road.kind == "track":
        canvas.stroke(road.line_m, look.meadow[0], 0.9)
    elif road.kind == "lane":
        worn = (rgb[0] + 12, rgb[1] + 12, rgb[2] + 12)
        for side in (-1, 1):
            canvas.stroke(_offset_line(road.line_m, side * 1.1), worn, 0.6)


def _cast_shadows(canvas: _Canvas, objects: Objects, look: Look) -> None:
    per_m = look.shadow_per_metre()
    for building in objects.buildings:
        if building.in_satellite if look.satellite else building.in_drone:
            base = building.outline_m()
            both = np.vstack([base, base + per_m * building.height_m]).astype(np.float32)
            canvas.shade(cv2.convexHull(both)[:, 0].astype(np.float64))
    for thing in objects.things:
        if thing.height_m and (thing.in_satellite if look.satellite else thing.in_drone):
            canvas.shade(thing.outline_m + per_m * thing.height_m * 0.5)
    plants = objects.plants
    shown = plants.in_satellite if look.satellite else plants.in_drone
    foot = canvas.fixed(plants.xy_m + per_m * (plants.height_m * 0.25)[:, None])
    tip = canvas.fixed(
        plants.xy_m + per_m * np.maximum(plants.height_m - plants.radius_m, 0.5)[:, None]
    )
    width = np.maximum(np.round(plants.radius_m * 1.7 / canvas.gsd_m), 1).astype(int).tolist()
    feet, tips = foot.tolist(), tip.tolist()
    for k in np.flatnonzero(shown).tolist():
        cv2.line(canvas.shadow, feet[k], tips[k], 255, width[k], cv2.LINE_AA, _SHIFT)


def _lobes(rng: np.random.Generator, *, conifer: bool) -> F64:
    """(8, 20, 2) crown outlines of radius about 1."""
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    radius = np.ones((8, 20))
    for lobes, depth in ((2, 0.09), (3, 0.09), (7, 0.1) if conifer else (5, 0.1), (8, 0.05)):
        phase = rng.uniform(0, 2 * np.pi, (8, 1))
        radius += depth * rng.uniform(0.3, 1.2, (8, 1)) * np.cos(lobes * angle + phase)
    return np.asarray(radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))


def _draw_plants(
    canvas: _Canvas, objects: Objects, look: Look, permanent_seed: int, season_seed: int
) -> None:
    plants = objects.plants
    permanent = np.random.default_rng([permanent_seed, 21])
    season = np.random.default_rng([season_seed, 22])
    count = len(plants.xy_m)
    variant = permanent.integers(0, 8, count)
    outline = np.where(
        (plants.species == 0)[:, None, None],
        _lobes(permanent, conifer=True)[variant],
        _lobes(permanent, conifer=False)[variant],
    )
    tone = permanent.normal(0, 1, (count, 1)) * 7
    colour = np.array(look.crowns)[plants.species] + tone
    colour = colour + season.normal(0, look.crown_jitter, (count, 1))
    colour = colour + season.normal(0, look.crown_jitter * 0.4, (count, 3))
    towards_sun = -look.shadow_per_metre()
    towards_sun /= np.linalg.norm(towards_sun)
    shown = np.flatnonzero(plants.in_satellite if look.satellite else plants.in_drone)
    layers = []
    for scale, shift, gain in ((1.0, 0.0, 0.62), (0.8, 0.16, 1.0), (0.45, 0.36, 1.24)):
        centre = plants.xy_m + towards_sun * (shift * plants.radius_m)[:, None]
        # Turning the lobes between layers breaks up the concentric look.
        shape = np.roll(outline, int(scale * 10), axis=1) * (scale * plants.radius_m)[:, None, None]
        points = canvas.fixed(centre[:, None, :] + shape)
        layers.append((points, np.clip(colour * gain, 5, 250).tolist()))
    big = plants.radius_m > 0.9
    for k in shown.tolist():
        for points, colours in layers if big[k] else layers[1:2]:
            cv2.fillPoly(canvas.rgb, [points[k]], colours[k], cv2.LINE_AA, _SHIFT)


def _draw_building(
    canvas: _Canvas, building: Building, look: Look, rng: np.random.Generator
) -> None:
    base = np.array(_ROOFS[building.roof]) + rng.normal(0, 5, 3)
    if building.kind in ("barn", "shed"):
        base = base * 0.5 + np.array([150.0, 144.0, 138.0]) * 0.5
    if building.kind == "silo":
        angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * building.length_m / 2
        canvas.fill(building.centre_m + ring, (150, 154, 158))
        sunward = -look.shadow_per_metre()
        canvas.fill(building.centre_m + ring * 0.6 + sunward * 0.8, (206, 208, 210))
        return
    corners = building.outline_m()
    a = np.radians(building.angle_deg)
    across = np.array([-np.sin(a), np.cos(a)])
    sun = -look.shadow_per_metre()
    slope = float(across @ (sun / np.linalg.norm(sun)))
    ridge_from = (corners[0] + corners[3]) / 2
    ridge_to = (corners[1] + corners[2]) / 2
    for outline, facing in (
        (np.array([corners[0], corners[1], ridge_to, ridge_from]), -slope),
        (np.array([ridge_from, ridge_to, corners[2], corners[3]]), slope),
    ):
        lit = np.clip(base * (1.0 + 0.24 * facing), 0, 255)
        canvas.fill(outline, (lit[0], lit[1], lit[2]))
    bright = np.clip(base * 1.22, 0, 255)
    canvas.stroke(np.array([ridge_from, ridge_to]), (bright[0], bright[1], bright[2]), 0.3)
    dark = base * 0.6
    canvas.stroke(corners, (dark[0], dark[1], dark[2]), 0.25, closed=True)
    u = np.array([np.cos(a), np.sin(a)])
    if building.kind != "shed" and rng.random() < 0.3:
        panel = building.centre_m + across * building.width_m * 0.25 * rng.choice([-1, 1])
        half_u, half_v = u * building.length_m * 0.3, across * building.width_m * 0.17
        quad = np.array([-half_u - half_v, half_u - half_v, half_u + half_v, half_v - half_u])
        canvas.fill(panel + quad, (46, 54, 82))
    elif building.kind == "house":
        chimney = building.centre_m + u * building.length_m * rng.uniform(-0.3, 0.3) + across * 0.8
        quad = np.array([[-0.45, -0.45], [0.45, -0.45], [0.45, 0.45], [-0.45, 0.45]])
        canvas.fill(chimney + look.shadow_per_metre() * 0.8 + quad, (70, 56, 52))
        canvas.fill(chimney + quad, (190, 180, 172))


def _draw_things(canvas: _Canvas, objects: Objects, look: Look, *, flat: bool) -> None:
    for thing in objects.things:
        if flat != (thing.height_m == 0):
            continue
        if not (thing.in_satellite if look.satellite else thing.in_drone):
            continue
        canvas.fill(thing.outline_m, thing.rgb)
        if thing.height_m >= 1.5:  # a car: its windows
            centre = thing.outline_m.mean(axis=0)
            dark = (thing.rgb[0] * 0.45, thing.rgb[1] * 0.47, thing.rgb[2] * 0.5)
            canvas.fill(centre + (thing.outline_m - centre) * np.array([0.62, 0.62]), dark)
            canvas.fill(centre + (thing.outline_m - centre) * np.array([0.34, 0.34]), thing.rgb)


def _apply_shadows(canvas: _Canvas, look: Look) -> None:
    """Darken what lies in shadow, softly."""
    level = np.arange(256, dtype=np.float32)[:, None] / 255
    lut = np.asarray(255 * (1 - level * (1 - np.array(look.shadow))), np.uint8).reshape(256, 1, 3)
    for top in range(0, canvas.side_px, _STRIP_ROWS):
        rows = slice(top, top + _STRIP_ROWS)
        factor = cv2.applyColorMap(canvas.shadow[rows], lut)
        cv2.multiply(canvas.rgb[rows], factor, canvas.rgb[rows], 1 / 255)


def _apply_light(canvas: _Canvas, look: Look, permanent_seed: int, season_seed: int) -> None:
    """Brightness that varies over the ground, grain, and haze."""
    permanent = np.random.default_rng([permanent_seed, 31])
    season = np.random.default_rng([season_seed, 32])
    coarse = 128
    lasting = fractal_noise(coarse, permanent, shortest_px=4, longest_px=64, slope=0.8)
    passing = fractal_noise(coarse, season, shortest_px=20, longest_px=128, slope=0.8)
    # 128 px over 2.5 km: the same ground gets the same lasting brightness in both looks.
    per_px = canvas.gsd_m / 20.0
    reach = min(coarse, int(canvas.side_px * per_px) + 2)
    field = (1 + 0.05 * lasting + 0.03 * passing)[:reach, :reach]
    tile = 1024
    grain = 0.035 * fractal_noise(tile, season, shortest_px=2, longest_px=12, slope=0.3)
    haze = np.array([188.0, 198.0, 214.0, 0.0]) * look.haze
    for top in range(0, canvas.side_px, _STRIP_ROWS):
        rows = slice(top, min(top + _STRIP_ROWS, canvas.side_px))
        height = rows.stop - rows.start
        matrix = np.array([[per_px, 0, 0], [0, per_px, top * per_px]])
        light = cv2.warpAffine(
            np.asarray(field, np.float32),
            matrix,
            (canvas.side_px, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        y = (np.arange(rows.start, rows.stop)) % tile
        repeats = -(-canvas.side_px // tile)
        light += np.tile(grain[y], (1, repeats))[:, : canvas.side_px]
        gain = np.asarray(np.clip(light * (1 - look.haze) * 128, 0, 255), np.uint8)
        cv2.multiply(canvas.rgb[rows], cv2.merge([gain, gain, gain]), canvas.rgb[rows], 1 / 128)
        if look.haze:
            cv2.add(canvas.rgb[rows], haze, canvas.rgb[rows])


def render(
    terrain: Terrain,
    objects: Objects,
    soil: U8,
    look: Look,
    *,
    gsd_m: float,
    permanent_seed: int,
    season_seed: int,
) -> U8:
    """Draw one look of the land.

    Args:
        terrain: the land.
        objects: what stands on it.
        soil: `soil_map` of the same ground without margin.
        look: season and light.
        gsd_m: ground metres per pixel.
        permanent_seed: randomness both looks share.
        season_seed: randomness of this look alone.

    Returns:
        (S, S, 3) uint8, RGB, north up.
    """
    canvas = _Canvas(terrain.size_m, gsd_m)
    bank = _texture_bank(gsd_m, np.random.default_rng([season_seed, 41]))
    side = (canvas.side_px, canvas.side_px)
    ground = np.asarray(cv2.resize(soil, side, interpolation=cv2.INTER_LINEAR), np.uint8)
    _draw_parcels(canvas, terrain, ground, look, (permanent_seed, season_seed), bank)
    del ground
    _draw_borders(canvas, terrain, look)
    _draw_water(canvas, terrain, look)
    _draw_roads(canvas, terrain, look)
    _draw_things(canvas, objects, look, flat=True)
    _cast_shadows(canvas, objects, look)
    _apply_shadows(canvas, look)
    _draw_things(canvas, objects, look, flat=False)
    permanent = np.random.default_rng([permanent_seed, 51])
    for building in objects.buildings:
        own = np.random.default_rng(permanent.integers(1 << 62))
        if building.in_satellite if look.satellite else building.in_drone:
            _draw_building(canvas, building, look, own)
    _draw_plants(canvas, objects, look, permanent_seed, season_seed)
    _apply_light(canvas, look, permanent_seed, season_seed)
    if look.blur_px:
        return np.asarray(cv2.GaussianBlur(canvas.rgb, (0, 0), look.blur_px), np.uint8)
    return canvas.rgb
