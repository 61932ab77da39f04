"""`skyfix index info | check | ambiguity | route`. Heavy modules load inside the commands."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_runtime.map_words import say

_STOPPED = "stopped; nothing was written"
_STEP_M = 5.0


def add_index_commands(commands: Any, formatter: type[argparse.HelpFormatter]) -> None:
    """Register `index` and its commands.

    Args:
        commands: what `ArgumentParser.add_subparsers` gave.
        formatter: of help texts.
    """

    def shown(example: str) -> dict[str, Any]:
        return {"formatter_class": formatter, "epilog": f"Example: skyfix index {example}"}

    index = commands.add_parser(
        "index", help="know a satellite index before flight", **shown("check index")
    )
    index.set_defaults(stopped=_STOPPED)
    found = index.add_subparsers(required=True, metavar="COMMAND")

    info = _command(found, "info", "what an index holds, verified", shown("info index"))
    info.set_defaults(run=_info)

    check = _command(
        found,
        "check",
        "every file, encoder, coverage, holes, resolution, age, recall; status 2 if unfit",
        shown("check index --bundle bundle"),
    )
    check.add_argument("--bundle", type=Path, help="also check that this encoder made it")
    check.set_defaults(run=_check)

    ambiguity = _command(
        found,
        "ambiguity",
        "where on the map a view is taken for another place",
        shown("ambiguity index --png map.png --geojson map.geojson"),
    )
    _add_scoring(ambiguity)
    ambiguity.add_argument("--route", type=Path, help="also draw and judge this route")
    ambiguity.add_argument(
        "--bundle", type=Path, help="also embed views of the map with this encoder, as a trial"
    )
    ambiguity.set_defaults(run=_ambiguity)

    route = _command(
        found,
        "route",
        "where along a route the drone cannot be found",
        shown("route index mission.plan --png route.png"),
    )
    route.add_argument("route", type=Path, help=".geojson, .kml, .plan or .csv")
    _add_scoring(route)
    route.add_argument(
        "--max-lost-m",
        type=float,
        help="status 2 if a stretch without a position is longer, m; any length by default",
    )
    route.set_defaults(run=_route)


def _command(found: Any, name: str, says: str, shown: dict[str, Any]) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = found.add_parser(name, help=says, **shown)
    command.add_argument("index", type=Path, help="satellite index folder")
    command.add_argument("--json", action="store_true", help="for programs")
    return command


def _add_scoring(command: argparse.ArgumentParser) -> None:
    command.add_argument("--level", type=int, default=0, help="of tiles, 0 for the smallest")
    command.add_argument(
        "--far-m",
        type=float,
        help="a tile whose centre is farther is another place, m; 1.5 tiles by default",
    )
    command.add_argument(
        "--within-m",
        type=float,
        help="only ground this near can be taken for a place, m: what is known of the position; "
        "the whole map by default",
    )
    command.add_argument(
        "--likeness",
        type=float,
        help="cosine of a photograph with its own tile, 0 to 1; 0.4 by default: docs/"
        "know-your-map.md says how to measure yours",
    )
    command.add_argument("--step-m", type=float, default=_STEP_M, help="along the route, m")
    command.add_argument("--geojson", type=Path, metavar="OUT", help="file to write")
    command.add_argument("--png", type=Path, metavar="OUT", help="picture to write")


def _info(args: argparse.Namespace) -> int:
    from edge_runtime.satellite_index import SatelliteIndex

    index = SatelliteIndex.open(args.index)
    bounds = index.imagery.bounds
    size_mb = sum((args.index / name).stat().st_size for name in index.manifest.files) / 1e6
    values = {
        "id": index.id,
        "tiles": len(index),
        "tile_m": index.level.size_m,
        "stride_m": index.level.stride_m,
        "levels": len(index.levels),
        "embedding_size": int(index.embeddings.shape[1]),
        "encoder": index.manifest.meta["architecture"],
        "south_deg": bounds.south_deg,
        "west_deg": bounds.west_deg,
        "north_deg": bounds.north_deg,
        "east_deg": bounds.east_deg,
        "gsd_m": round(index.imagery.gsd_m((bounds.south_deg + bounds.north_deg) / 2), 3),
        "size_mb": round(size_mb, 1),
        "mb_per_km2": round(size_mb / (index.area_m2() / 1e6), 1),
        "sources": index.manifest.meta["sources"],
    }
    index.close()
    if args.json:
        say(json.dumps(values))
    else:
        for name, value in values.items():
            say(f"{name:>15}  {value}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from edge_runtime.bundle import Bundle
    from edge_runtime.index_check import check_index

    bundle = None if args.bundle is None else Bundle.open(args.bundle)
    check = check_index(args.index, bundle)
    if args.json:
        findings = [asdict(finding) for finding in check.findings]
        say(json.dumps({"fit_to_fly": check.fit_to_fly, "findings": findings, **check.values}))
    else:
        for f in check.findings:
            remedy = f"  -> {f.remedy}" if f.remedy else ""
            say(f"{f.verdict:>5}  {f.what:<10}  {f.detail}{remedy}")
        say(
            f"Fit to fly. Next: skyfix index ambiguity {args.index} --png map.png"
            if check.fit_to_fly
            else "Not to be flown as it is."
        )
    return 0 if check.fit_to_fly else 2


def _ambiguity(args: argparse.Namespace) -> int:
    from edge_runtime.map_commands import ambiguity

    return ambiguity(args)


def _route(args: argparse.Namespace) -> int:
    from edge_runtime.map_commands import route

    return route(args)
