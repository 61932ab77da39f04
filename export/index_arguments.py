"""The arguments of `python -m export index`, group by group."""

import argparse
from pathlib import Path
from typing import Any, get_args

from edge_runtime.index_format import VectorType

OVERLAP = 0.75
"""Of neighbouring tiles: a photograph is then at most an eighth of a tile off the nearest one."""


def add_tiles(tiles: Any) -> None:
    """Where tiles lie and which are left out."""
    tiles.add_argument(
        "--tile-m",
        type=float,
        nargs="+",
        metavar="M",
        help="sides of tiles on the ground, m, one per level; by default what the encoder was "
        "trained on",
    )
    tiles.add_argument(
        "--levels-from",
        type=Path,
        metavar="CAMERA.json",
        help="take the sides from what this camera sees at --heights-m",
    )
    tiles.add_argument(
        "--heights-m", type=float, nargs="+", metavar="M", help="planned heights above ground, m"
    )
    tiles.add_argument(
        "--stride-m",
        type=float,
        nargs="+",
        metavar="M",
        help="between tile centres, m, one per level; in place of --overlap",
    )
    tiles.add_argument(
        "--overlap", type=float, default=OVERLAP, help="of neighbouring tiles, 0 to below 1"
    )
    tiles.add_argument(
        "--headings", type=int, default=1, metavar="N", help="copies of each tile, turned"
    )
    tiles.add_argument(
        "--grid",
        choices=("fitted", "fixed"),
        default="fitted",
        help="fitted to the imagery's box, or at fixed places of the world, for maps that grow",
    )
    tiles.add_argument(
        "--leave-out",
        nargs="+",
        choices=("featureless", "partial"),
        default=[],
        help="tiles without detail (water, snow, one field), or not wholly covered; they are "
        "marked otherwise",
    )


def add_storing(kept: Any) -> None:
    """What the index keeps, and how."""
    kept.add_argument(
        "--quality",
        type=int,
        help="of the imagery's compression, 1 to 100; 90 by default, and map tiles that are "
        "compressed already are kept as they are",
    )
    kept.add_argument(
        "--image-format", choices=("jpeg", "webp"), default="jpeg", help="of the imagery's tiles"
    )
    add_vectors(kept)


def add_imagery(imagery: Any) -> None:
    """What the imagery is, where it does not say so itself."""
    imagery.add_argument("--crop", type=Path, metavar="GEOJSON", help="keep what polygons cover")
    imagery.add_argument("--crs", help="of rasters that do not say it, as EPSG:32632")
    imagery.add_argument(
        "--corners",
        type=float,
        nargs=4,
        metavar=("LAT", "LON", "LAT", "LON"),
        help="of a picture: its upper left and its lower right corner, degrees",
    )
    imagery.add_argument(
        "--tms",
        action=argparse.BooleanOptionalAction,
        help="rows of tile folders are counted from the south; found out by default",
    )
    imagery.add_argument("--captured", metavar="DATE", help="when it was taken, as 2024-05-06")
    imagery.add_argument("--attribution", metavar="NAME", help="who is to be named for it")
    imagery.add_argument("--licence", help="under which it may be used")


def add_vectors(group: Any) -> None:
    """How embeddings are stored and searched."""
    group.add_argument(
        "--vectors", choices=get_args(VectorType), default="f16", help="numbers of embeddings"
    )
    group.add_argument(
        "--search",
        choices=("auto", "exact", "graph"),
        default="auto",
        help="how the whole map is searched; auto takes a graph for large maps",
    )
    group.add_argument(
        "--min-recall", type=float, default=0.99, help="refuse a lower recall@10; 0 accepts any"
    )
    group.add_argument(
        "--no-update",
        action="store_true",
        help="do not leave OUT.embeddings, which --update needs and a drone does not",
    )


def add_building(building: Any) -> None:
    """Who embeds, and how a build goes on."""
    building.add_argument(
        "--backend",
        default="auto",
        help="what runs the encoder: auto, ort-cpu, ort-cuda, tensorrt, ort-tensorrt",
    )
    building.add_argument(
        "--dry-run", action="store_true", help="say how many tiles, hours and megabytes, and stop"
    )
    building.add_argument(
        "--shard", metavar="K/N", help="embed the K-th of N shares only, beside other processes"
    )
    building.add_argument(
        "--update",
        type=Path,
        metavar="INDEX",
        help="an older index of this imagery: embed only what changed",
    )
    building.add_argument(
        "--restart", action="store_true", help="begin again, whatever an earlier run left"
    )
