"""`python -m benchmarks calibrate`: make the stated accuracy of an index true."""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.command_parts import page_path, seed
from edge_runtime.command_line import HelpFormatter
from edge_runtime.errors import InputError

_LOW_BELIEF = 0.5
"""Simulated flights answer from here on, so that every threshold above can be judged."""


def add_calibrate(add: Any) -> None:
    """Add the command to a parser's subparsers."""
    parser: argparse.ArgumentParser = add.add_parser(
        "calibrate",
        help="fit the stated accuracy of an index to the truth, and keep it with the index",
        description="Fit the stated accuracy of an index to flights with truth, or else to "
        "simulated flights over its own imagery, and write calibration.json into its folder.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, required=True, help="encoder folder")
    parser.add_argument("--index", type=Path, required=True, help="satellite index folder")
    parser.add_argument(
        "--flight",
        nargs=2,
        type=Path,
        action="append",
        default=[],
        metavar=("LOG", "TRUTH"),
        help="log (.jsonl) and truth (.csv) of a flight on this index; repeatable",
    )
    parser.add_argument("--camera", type=Path, help="camera JSON, to simulate flights with")
    parser.add_argument(
        "--height-m",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of simulated flights; by default where the camera sees a little more than a tile",
    )
    parser.add_argument("--views-flights", type=int, default=30, help="flights to simulate")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each")
    parser.add_argument("--seed", type=seed, default=0, help="of simulated flights")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the localizer in simulated flights, as attitude_sigma_deg=0.7",
    )
    parser.add_argument(
        "--map-sigma-m",
        type=float,
        default=0.0,
        help="1-sigma error per axis of the imagery's own place, which views of it cannot show",
    )
    parser.add_argument(
        "--false-fix-rate",
        type=float,
        help="say the abstain threshold that keeps false answers at this share",
    )
    parser.add_argument("--plot", type=page_path, help="page with the reliability plots, .html")
    parser.add_argument("--dry-run", action="store_true", help="write nothing into the index")
    parser.add_argument("--json", action="store_true", help="print the calibration as JSON")
    parser.set_defaults(run=calibrate)


def calibrate(args: argparse.Namespace) -> None:
    """Run the command."""
    from benchmarks.calibration_fit import RadiusFit, calibration, left_out_in_turn
    from benchmarks.reliability_plot import reliability_page
    from edge_runtime.artefact import write_atomically

    if not 0 <= args.map_sigma_m < 1000:
        msg = f"--map-sigma-m is {args.map_sigma_m}; expected metres, 0 or more"
        raise InputError(msg)
    flights, index_id, bundle_id = _errors(args)
    made = calibration(
        flights,
        index_id=index_id,
        bundle_id=bundle_id,
        truth="flights" if args.flight else "simulated views",
    )
    abstain = None if args.false_fix_rate is None else made.ok_probability(args.false_fix_rate)
    if args.plot is not None:
        fit = RadiusFit(factor=made.factor, floor_m=made.floor_m)
        fits = left_out_in_turn(flights) or [fit] * len(flights)
        page = reliability_page(flights, fits, made, abstain=abstain)
        write_atomically(args.plot, page.encode())
    # The map's own error comes on top of whatever views of the map show.
    made = replace(made, floor_m=round((made.floor_m**2 + args.map_sigma_m**2) ** 0.5, 3))
    path = None if args.dry_run else made.save(args.index)
    if args.json:
        print(json.dumps(asdict(made) | {"abstain": abstain and asdict(abstain)}))
        return
    _tell(made, abstain, args)
    if path is not None:
        print(f"Written to {path}. Next: skyfix run --bundle {args.bundle} --index {args.index} …")


def _errors(args: argparse.Namespace) -> tuple[list[Any], str, str]:
    """Flights with truth, and the ids of index and bundle."""
    from benchmarks.calibration_flights import flight_errors
    from benchmarks.calibration_views import ViewsPlan, simulated_flights
    from benchmarks.flight_cli import config_from
    from edge_runtime.backends.protocol import open_backend
    from edge_runtime.bundle import Bundle
    from edge_runtime.camera import Camera
    from edge_runtime.satellite_index import SatelliteIndex

    bundle = Bundle.open(args.bundle)
    index = SatelliteIndex.open(args.index, bundle)
    try:
        if args.flight:
            found = [
                flight_errors(log, truth, index_id=index.id, bundle_id=bundle.id)
                for log, truth in args.flight
            ]
            return found, index.id, bundle.id
        if args.camera is None:
            msg = (
                "neither --flight nor --camera was given; expected flights with truth, or the "
                "camera to simulate flights with"
            )
            raise InputError(msg)
        plan = ViewsPlan(
            camera=Camera.load(args.camera),
            flights=args.views_flights,
            seconds=args.seconds,
            height_m=None if args.height_m is None else tuple(args.height_m),
            seed=args.seed,
            config=replace(config_from(args.set), ok_probability=_LOW_BELIEF),
        )
        backend = open_backend(bundle, "ort-cpu", threads=1)
        try:
            found = simulated_flights(plan, bundle, index, backend, progress=_progress)
        finally:
            backend.close()
        return found, index.id, bundle.id
    finally:
        index.close()


def _tell(made: Any, abstain: Any, args: argparse.Namespace) -> None:
    print(
        f"eph = hypot({made.floor_m:g} m, {made.factor:g} x stated), from {made.fitted.answers} "
        f"answers of {made.fitted.flights} flights ({made.truth}), about "
        f"{made.fitted.independent:.0f} independent errors"
    )
    for name, found in (("fitted", made.fitted), ("unseen flights", made.unseen)):
        if found is None:
            print("too few flights: nothing says how it holds for another")
            continue
        gap = max(abs(found.within_68 - 0.6827), abs(found.within_95 - 0.95))
        print(
            f"{name}: {found.within_68:.1%} within the 68 % radius, {found.within_95:.1%} within "
            f"the 95 % radius" + ("" if gap <= 0.05 else ": more than 5 points off")
        )
    for step in made.belief:
        print(
            f"belief {step.ok_probability:g}: {step.false} of {step.trials} stretches false, at "
            f"most {step.at_most:.2%}"
        )
    if abstain is not None:
        proof = "" if abstain.proven else f"; {args.false_fix_rate:g} cannot be proven by so few"
        print(f"threshold {abstain.ok_probability:g}: at most {abstain.at_most:.2%} false{proof}")


def _progress(done: int, total: int) -> None:
    if done % max(1, total // 10) == 0 or done == total:
        print(f"simulated flights: {done} of {total}", file=sys.stderr, flush=True)
