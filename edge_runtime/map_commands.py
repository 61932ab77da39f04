"""What `skyfix index ambiguity` and `skyfix index route` do. Heavy modules load inside."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.map_words import route_json, say, tell_route, tell_summary

if TYPE_CHECKING:
    from edge_runtime.index_format import TileLevel
    from edge_runtime.map_ambiguity import I64, TileScores
    from edge_runtime.map_places import GroundSummary
    from edge_runtime.route import Route, RoutePoints
    from edge_runtime.route_check import RouteReport
    from edge_runtime.satellite_index import SatelliteIndex

_MOST_PICTURED_PAIRS = 4e8
"""For the picture of a route the map around it is scored too, in so much work."""


def ambiguity(args: argparse.Namespace) -> int:
    """Score a map; exit status 0."""
    from edge_runtime.map_ambiguity import score_tiles, tiles_to_score
    from edge_runtime.map_places import ground_geojson, look_alike_places

    way = None if args.route is None else _walked(args)
    index, level, options = _opened(args)
    progress, close = _progress(quiet=args.json)
    trial = None
    if args.bundle is not None:
        trial = _trial(args, index, options["far_m"], progress)
    rows, share = tiles_to_score(index, level)
    scores = score_tiles(index, level, rows, progress=progress, **options)
    places = look_alike_places(scores, index.tiles)
    summary = _summary(index, level, scores, options, share)
    report = None
    if way is not None:
        report = _reported(index, level, way, options, progress)[0]
    close()
    if args.geojson:
        _write(args.geojson, json.dumps(ground_geojson(scores, level, places)).encode())
    if args.png:
        _picture(args.png, index, level, scores, summary, way, report)
    index.close()
    if args.json:
        whole = asdict(summary) | {"trial": trial}
        say(json.dumps(whole | ({"route": route_json(report)} if report else {})))
        return 0
    tell_summary(summary)
    if trial is not None:
        say(
            f"Trial: {trial['views']} views of the map's own imagery have likeness "
            f"{trial['likeness_median']:.2f} (lowest tenth {trial['likeness_p10']:.2f}); "
            f"{trial['wrong']:.0%} were taken for another place, {trial['predicted']:.0%} expected."
        )
    if report is not None:
        tell_route(report)
    _tell_written(args)
    if not args.png:
        say(f"Next: skyfix index ambiguity {args.index} --png map.png")
    return 0


def route(args: argparse.Namespace) -> int:
    """Score a route; exit status 2 where a stretch without a position is too long."""
    import numpy as np

    from edge_runtime.map_ambiguity import tiles_to_score
    from edge_runtime.route_check import route_geojson

    way = _walked(args)
    index, level, options = _opened(args)
    progress, close = _progress(quiet=args.json)
    more = np.zeros(0, np.int64)
    if args.png:
        more, _ = tiles_to_score(index, level, most_pairs=_MOST_PICTURED_PAIRS)
    report, scores = _reported(index, level, way, options, progress, more)
    close()
    if args.geojson:
        _write(args.geojson, json.dumps(route_geojson(report, way[1])).encode())
    if args.png:
        _picture(args.png, index, level, scores, None, way, report)
    index.close()
    too_long = args.max_lost_m is not None and report.longest_lost_m > args.max_lost_m
    if args.json:
        say(json.dumps(route_json(report) | {"within_limit": not too_long}))
        return 2 if too_long else 0
    tell_route(report)
    _tell_written(args)
    if too_long:
        say(
            f"Not to be flown: a stretch of {report.longest_lost_m:.0f} m without a position; "
            f"expected at most {args.max_lost_m:g} m. Move the route, or add imagery"
        )
    return 2 if too_long else 0


def _walked(args: argparse.Namespace) -> "tuple[Route, RoutePoints]":
    from edge_runtime.route import read_route, walk

    route = read_route(args.route)
    return route, walk(route, args.step_m)


def _opened(args: argparse.Namespace) -> "tuple[SatelliteIndex, TileLevel, dict[str, Any]]":
    from edge_runtime.errors import InputError
    from edge_runtime.map_ambiguity import LIKENESS, default_far_m
    from edge_runtime.satellite_index import SatelliteIndex

    index = SatelliteIndex.open(args.index)
    if not 0 <= args.level < len(index.levels):
        msg = f"level is {args.level}; {args.index} has {len(index.levels)}, counted from 0"
        raise InputError(msg)
    level = index.levels[args.level]
    options = {
        "far_m": default_far_m(level) if args.far_m is None else args.far_m,
        "within_m": args.within_m,
        "likeness": LIKENESS if args.likeness is None else args.likeness,
    }
    return index, level, options


def _trial(
    args: argparse.Namespace,
    index: "SatelliteIndex",
    far_m: float,
    progress: Callable[[str, float], None],
) -> dict[str, Any]:
    from edge_runtime.backends.protocol import open_backend
    from edge_runtime.bundle import Bundle
    from edge_runtime.map_views import view_trial

    bundle = Bundle.open(args.bundle)
    index.check_bound_to(bundle)
    backend = open_backend(bundle)
    try:
        far = far_m if args.level == 0 else None
        return asdict(view_trial(index, bundle, backend.embed, far_m=far, progress=progress))
    finally:
        backend.close()


def _reported(
    index: "SatelliteIndex",
    level: "TileLevel",
    way: "tuple[Route, RoutePoints]",
    options: dict[str, Any],
    progress: Callable[[str, float], None],
    more: "I64 | None" = None,
) -> "tuple[RouteReport, TileScores]":
    import numpy as np

    from edge_runtime.map_ambiguity import score_tiles
    from edge_runtime.route_check import route_report, tiles_below

    below = tiles_below(index, level, way[1])
    rows = np.unique(below[below >= 0])
    if more is not None:
        rows = np.union1d(rows, more)
    scores = score_tiles(index, level, rows, progress=progress, **options)
    return route_report(*way, below, scores), scores


def _summary(
    index: "SatelliteIndex",
    level: "TileLevel",
    scores: "TileScores",
    options: dict[str, Any],
    share: float,
) -> "GroundSummary":
    from edge_runtime.map_places import look_alike_places, summarise

    return summarise(
        scores, look_alike_places(scores, index.tiles), share_of_tiles=share, **options
    )


def _picture(
    path: Path,
    index: "SatelliteIndex",
    level: "TileLevel",
    scores: "TileScores",
    summary: "GroundSummary | None",
    way: "tuple[Route, RoutePoints] | None",
    report: "RouteReport | None",
) -> None:
    from edge_runtime.map_pictures import ambiguity_picture, png_of

    subtitle = f"Index {index.id}: share of views, tiles of {level.size_m:g} m"
    if report is not None:
        subtitle += (
            f". Route {report.length_m / 1000:.2f} km, lost on {report.lost_m:.0f} m "
            f"({report.lost_share:.0%}), longest {report.longest_lost_m:.0f} m"
        )
    elif summary is not None:
        subtitle += f", {summary.chance_mean:.0%} on average"
    image = ambiguity_picture(
        index,
        level,
        scores,
        title="How often a view is taken for another place",
        subtitle=subtitle,
        worst=summary.worst if summary is not None and way is None else (),
        route=None if way is None or report is None else (report, way[1]),
    )
    _write(path, png_of(image))


def _tell_written(args: argparse.Namespace) -> None:
    for path in (args.geojson, args.png):
        if path:
            say(f"Written to {path}.")


def _write(path: Path, data: bytes) -> None:
    from edge_runtime.artefact import write_atomically

    write_atomically(path, data)


def _progress(*, quiet: bool) -> tuple[Callable[[str, float], None], Callable[[], None]]:
    """What to tell how far the work is, and how to end its line."""
    from edge_runtime.engine_progress import BuildLine

    if quiet or not sys.stderr.isatty():
        return (lambda _stage, _done: None), (lambda: None)
    line = BuildLine()
    return (lambda stage, done: line(stage, round(100 * done), 100)), line.close
