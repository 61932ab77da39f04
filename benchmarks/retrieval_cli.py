"""`python -m benchmarks evidence`, `retrieval`, `ambiguity`: what one frame alone can say."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.command_parts import add_command, add_flight, add_output, add_score, emit
from edge_runtime.map_ambiguity import LIKENESS


def add_evidence(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(add, "evidence", "what one frame alone can say, without a track", evidence)
    add_flight(parser, truth=True)
    add_score(parser)
    parser.add_argument(
        "--tolerance-m", type=float, default=20.0, help="a match this near the truth is right, m"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def add_retrieval(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add, "retrieval", "how far the most similar tiles lie from the truth", retrieval
    )
    add_flight(parser, truth=True)
    add_score(parser)
    parser.add_argument(
        "--box",
        type=float,
        nargs=4,
        metavar=("WEST", "SOUTH", "EAST", "NORTH"),
        help="only frames that look into this box, degrees",
    )
    add_output(parser)


def add_ambiguity(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser = add_command(
        add, "ambiguity", "does a map's ambiguity say where retrieval errs?", ambiguity
    )
    parser.add_argument("--bundle", type=Path, required=True, help="encoder folder")
    parser.add_argument("--index", type=Path, required=True, help="satellite index folder")
    parser.add_argument("--views", type=int, default=1000, help="simulated views")
    parser.add_argument(
        "--likeness", type=float, nargs="+", default=[LIKENESS], help="of the scores"
    )
    for name in ("photos", "telemetry", "camera", "truth"):
        parser.add_argument(f"--{name}", type=Path, help="of a flight, all four or none")
    add_output(parser)


def evidence(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks import evidence as measured
    from benchmarks.tables import share

    localizer = measured.open_localizer(args.bundle, args.index, args.camera)
    try:
        found = measured.evidence(
            localizer,
            args.source,
            args.telemetry,
            args.truth,
            tolerance_m=args.tolerance_m,
            look=args.score == "look",
        )
    finally:
        localizer.close()
    if args.json:
        print(json.dumps(asdict(found)))
        return
    print(f"{found.frames} frames, each alone against the whole map")
    print(f"right place among the matches: {share(found.found)}")
    print(f"right place has the strongest evidence: {share(found.first)}")
    print(f"percentiles          {'  '.join(f'{q:>6g}' for q in measured.QUANTILES)}")
    for name in ("right_excess", "chance_excess", "right_evidence", "chance_evidence"):
        print(f"{name:<20} {'  '.join(f'{v:>6.2f}' for v in getattr(found, name))}")


def retrieval(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.evidence import open_localizer
    from benchmarks.retrieval import retrieval_row
    from benchmarks.tables import share

    def inside(lat: float, lon: float) -> bool:
        if args.box is None:
            return True
        west, south, east, north = args.box
        return bool(south <= lat <= north and west <= lon <= east)

    localizer = open_localizer(args.bundle, args.index, args.camera)
    try:
        row = retrieval_row(
            localizer,
            args.source,
            args.telemetry,
            args.truth,
            look=args.score == "look",
            within=inside,
        )
    finally:
        localizer.close()
    emit(args, [row])
    if args.json:
        return
    gallery = f"{row.tiles} tiles of {row.tile_m:g} m, {row.stride_m:g} m apart"
    print(f"{row.frames} frames, each alone against {gallery}")
    for name, found in row.success.items():
        print(
            f"first tile within {name:>5}: {share(found)}; of five: {share(row.success_of_5[name])}"
        )
    print(f"first tile: median {row.median_m:.1f} m, mean {row.dis_at_1_m:.1f} m")


def ambiguity(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.ambiguity import run

    for row in run(args):
        emit(args, [row])
        if not args.json:
            area = "-"
            if row.auc_chance is not None:
                area = "{:.2f} ({:.2f} to {:.2f})".format(*row.auc_chance)
            print(
                f"{row.views_of}, likeness {row.likeness:g}: {row.wrong} of {row.views} views "
                f"taken for another place, {row.expected_wrong:.0%} expected; area under the "
                f"curve of the chance {area}"
            )
