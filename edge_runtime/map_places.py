"""What the scores of a map mean: classes of ground, the worst places, GeoJSON."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from edge_runtime.geodesy import F64, distance_m, move_lat_lon
from edge_runtime.index_format import MARK_FEATURELESS, MARK_PARTIAL, TileLevel
from edge_runtime.map_ambiguity import B1, TileScores

GroundClass = Literal["clear", "doubtful", "ambiguous", "featureless"]
GROUND_CLASSES: tuple[GroundClass, ...] = get_args(GroundClass)
DOUBTFUL_FROM = 0.1
AMBIGUOUS_FROM = 0.5
"""From here on a first answer is more likely wrong than right."""
_WORST = 5


@dataclass(frozen=True, kw_only=True)
class WorstPlace:
    """Ground that looks like other ground."""

    lat_deg: float
    lon_deg: float
    chance: float
    look_alike_lat_deg: float | None
    look_alike_lon_deg: float | None
    look_alike_m: float | None
    look_alike_similarity: float | None


@dataclass(frozen=True, kw_only=True)
class GroundSummary:
    """The scores of a map in a few numbers."""

    tiles: int
    """Scored."""
    share_of_tiles: float
    """They are so much of the level's."""
    draws: int
    likeness: float
    far_m: float
    within_m: float | None
    shares: dict[GroundClass, float]
    """Of the scored ground, by class."""
    chance_mean: float
    chance_p10: float
    chance_median: float
    chance_p90: float
    worst: tuple[WorstPlace, ...]
    """Highest chance first, each elsewhere than those before it."""


def classes_of(scores: TileScores) -> list[GroundClass]:
    """Class of every scored tile; a featureless one is that, whatever its chance."""
    featureless = (scores.marks & MARK_FEATURELESS) > 0
    return [
        "featureless"
        if bare
        else "ambiguous"
        if chance >= AMBIGUOUS_FROM
        else "doubtful"
        if chance >= DOUBTFUL_FROM
        else "clear"
        for bare, chance in zip(featureless.tolist(), scores.chance.tolist(), strict=True)
    ]


def summarise(
    scores: TileScores,
    look_alikes: tuple[F64, F64],
    *,
    share_of_tiles: float,
    likeness: float,
    far_m: float,
    within_m: float | None,
) -> GroundSummary:
    """Put scores into a few numbers.

    Args:
        scores: of at least one tile.
        look_alikes: latitude and longitude of every tile's look-alike, NaN for none.
        share_of_tiles: how much of the level was scored.
        likeness: it was scored with.
        far_m: and so was this.
        within_m: and this.
    """
    classes = classes_of(scores)
    p10, median, p90 = (float(v) for v in np.quantile(scores.chance, [0.1, 0.5, 0.9]))
    return GroundSummary(
        tiles=len(classes),
        share_of_tiles=share_of_tiles,
        draws=scores.draws,
        likeness=likeness,
        far_m=far_m,
        within_m=within_m,
        shares={name: classes.count(name) / len(classes) for name in GROUND_CLASSES},
        chance_mean=float(scores.chance.mean()),
        chance_p10=p10,
        chance_median=median,
        chance_p90=p90,
        worst=_worst(scores, look_alikes, far_m),
    )


def look_alike_places(scores: TileScores, tiles: np.ndarray) -> tuple[F64, F64]:
    """Latitude and longitude of every tile's look-alike, NaN where it has none."""
    found = scores.look_alike_row >= 0
    there = tiles[np.where(found, scores.look_alike_row, 0)]
    return (
        np.where(found, there["lat_deg"], np.nan),
        np.where(found, there["lon_deg"], np.nan),
    )


def ground_geojson(
    scores: TileScores, level: TileLevel, look_alikes: tuple[F64, F64]
) -> dict[str, Any]:
    """The scored tiles as squares of one stride, for QGIS or any web map (RFC 7946)."""
    half = level.stride_m / 2
    east = np.array([-half, half, half, -half, -half])
    north = np.array([-half, -half, half, half, -half])
    corners = move_lat_lon(scores.lat_deg[:, None], scores.lon_deg[:, None], east, north)
    # A square across the antimeridian goes on beyond 180 degrees instead of around the world.
    lon = scores.lon_deg[:, None] + (corners.lon_deg - scores.lon_deg[:, None] + 180) % 360 - 180
    rings = np.round(np.stack([lon, corners.lat_deg], axis=-1), 7).tolist()
    features = []
    for n, (ring, name) in enumerate(zip(rings, classes_of(scores), strict=True)):
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {
                    "row": int(scores.rows[n]),
                    "class": name,
                    "chance": round(float(scores.chance[n]), 4),
                    "margin": _rounded(scores.margin[n], 4),
                    "own": _rounded(scores.own[n], 4),
                    "look_alike": _rounded(scores.look_alike[n], 4),
                    "look_alike_lat_deg": _rounded(look_alikes[0][n], 7),
                    "look_alike_lon_deg": _rounded(look_alikes[1][n], 7),
                    "look_alike_m": _rounded(scores.look_alike_m[n], 1),
                    "featureless": bool(scores.marks[n] & MARK_FEATURELESS),
                    "partial": bool(scores.marks[n] & MARK_PARTIAL),
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _rounded(value: np.floating[Any], digits: int) -> float | None:
    """For JSON, which has no NaN."""
    return round(float(value), digits) if np.isfinite(value) else None


def _worst(
    scores: TileScores, look_alikes: tuple[F64, F64], apart_m: float
) -> tuple[WorstPlace, ...]:
    left: B1 = np.ones(len(scores.rows), np.bool_)
    found: list[WorstPlace] = []
    while left.any() and len(found) < _WORST:
        n = int(np.where(left, scores.chance, -1).argmax())
        found.append(
            WorstPlace(
                lat_deg=float(scores.lat_deg[n]),
                lon_deg=float(scores.lon_deg[n]),
                chance=float(scores.chance[n]),
                look_alike_lat_deg=_rounded(look_alikes[0][n], 7),
                look_alike_lon_deg=_rounded(look_alikes[1][n], 7),
                look_alike_m=_rounded(scores.look_alike_m[n], 1),
                look_alike_similarity=_rounded(scores.look_alike[n], 4),
            )
        )
        away = distance_m(scores.lat_deg[n], scores.lon_deg[n], scores.lat_deg, scores.lon_deg)
        left &= away > apart_m
    return tuple(found)
