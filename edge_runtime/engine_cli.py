"""`skyfix engine build | check | list | refit`. Heavy modules load inside the commands."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_runtime.errors import InputError

if TYPE_CHECKING:
    from edge_runtime.engine_check import CheckedEngine
    from edge_runtime.engine_store import EngineRecord

_PRECISIONS = ("fp16", "fp32", "int8")
_STOPPED = "stopped; engines are as they were"
_TARGETS = ("tensorrt", "ort-tensorrt")


def add_engine_commands(commands: Any, formatter: type[argparse.HelpFormatter]) -> None:
    """Register `engine` and its commands.

    Args:
        commands: what `ArgumentParser.add_subparsers` gave.
        formatter: of help texts.
    """

    def shown(example: str) -> dict[str, Any]:
        return {"formatter_class": formatter, "epilog": f"Example: skyfix engine {example}"}

    engine = commands.add_parser(
        "engine", help="TensorRT engines of a bundle, on this machine", **shown("build bundle")
    )
    engines = engine.add_subparsers(required=True, metavar="COMMAND")

    build = engines.add_parser(
        "build", help="build an engine for this machine, through gates", **shown("build bundle")
    )
    build.add_argument("bundle", type=Path, help="encoder folder")
    build.add_argument("--precision", choices=_PRECISIONS, help="fp16 where shipped, else fp32")
    build.add_argument("--max-batch", type=int, default=32, help="images at a time, for indexes")
    build.add_argument(
        "--optimisation-level",
        type=int,
        choices=range(6),
        default=3,
        help="0 builds fastest, 5 searches longest",
    )
    build.add_argument(
        "--workspace-gib", type=float, help="scratch memory; a share of the free memory by default"
    )
    build.add_argument(
        "--version-compatible", action="store_true", help="newer TensorRT may run it; slower"
    )
    build.add_argument(
        "--hardware-compatible", action="store_true", help="Ampere and newer may run it; slower"
    )
    build.add_argument(
        "--no-refit", action="store_true", help="faster, but new weights need a new build"
    )
    build.add_argument(
        "--no-timing-cache", action="store_true", help="time every kernel again, keep no times"
    )
    build.add_argument(
        "--for",
        dest="targets",
        nargs="+",
        choices=_TARGETS,
        help="what to prepare; by default tensorrt, and ort-tensorrt where it works",
    )
    build.add_argument(
        "--index", type=Path, help="satellite index to look places up in, as the last gate"
    )
    build.add_argument("--out", type=Path, help="folder to write to; BUNDLE/engines by default")
    build.add_argument("--json", action="store_true", help="for programs")
    build.set_defaults(run=_build, stopped=_STOPPED)

    check = engines.add_parser(
        "check", help="are the engines those of this bundle and machine?", **shown("check bundle")
    )
    check.add_argument("bundle", type=Path, help="encoder folder")
    check.add_argument("--engines", type=Path, help="folder of engines; BUNDLE/engines by default")
    check.add_argument("--rebuild", action="store_true", help="build again what does not fit")
    check.add_argument("--json", action="store_true", help="for programs")
    check.set_defaults(run=_check, stopped=_STOPPED)

    listing = engines.add_parser("list", help="what engines there are", **shown("list bundle"))
    listing.add_argument("bundle", type=Path, help="encoder folder")
    listing.add_argument("--engines", type=Path, help="folder; BUNDLE/engines by default")
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.set_defaults(run=_list)

    refit = engines.add_parser(
        "refit",
        help="new weights into an engine of the same network, in seconds",
        **shown("refit new-bundle --from old-bundle"),
    )
    refit.add_argument("bundle", type=Path, help="encoder folder with the new weights")
    refit.add_argument(
        "--from",
        dest="source",
        type=Path,
        required=True,
        help="engine file, folder of engines, or bundle",
    )
    refit.add_argument("--precision", choices=_PRECISIONS, help="which engine of a folder")
    refit.add_argument(
        "--index", type=Path, help="satellite index to look places up in, as the last gate"
    )
    refit.add_argument("--out", type=Path, help="folder to write to; BUNDLE/engines by default")
    refit.add_argument("--json", action="store_true", help="for programs")
    refit.set_defaults(run=_refit, stopped=_STOPPED)


def _build(args: argparse.Namespace) -> int:
    from edge_runtime.bundle import Bundle
    from edge_runtime.engine_store import EngineOptions
    from edge_runtime.engine_upkeep import build_shown, prepare_provider

    bundle = Bundle.open(args.bundle)
    gib = args.workspace_gib
    if gib is not None and not 0 < gib < 1024:
        msg = f"--workspace-gib is {gib}; expected GiB of memory, above 0"
        raise InputError(msg)
    options = EngineOptions(
        precision=args.precision,
        max_batch=args.max_batch,
        optimisation_level=args.optimisation_level,
        workspace_bytes=None if gib is None else int(gib * 2**30),
        version_compatible=args.version_compatible,
        hardware_compatible=args.hardware_compatible,
        refit=not args.no_refit,
        timing_cache=not args.no_timing_cache,
        out=args.out,
        index=args.index,
    )
    targets = args.targets or ["tensorrt"]
    written: dict[str, Any] = {}
    if "tensorrt" in targets:
        record = build_shown(bundle, options)
        written["tensorrt"] = asdict(record)
        if not args.json:
            _tell(record, args.out or bundle.root / "engines")
    if "ort-tensorrt" in targets or args.targets is None:
        written |= prepare_provider(bundle, options, asked=args.targets is not None)
    if args.json:
        _say(json.dumps(written))
    else:
        if "ort-tensorrt" in written:
            _say(f"ONNX Runtime's TensorRT provider is prepared in {written['ort-tensorrt']}.")
        _say(f"Next: skyfix bundle verify {args.bundle} --backend {targets[0]}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from edge_runtime.bundle import Bundle
    from edge_runtime.engine_store import build_command
    from edge_runtime.engine_upkeep import check_all, rebuild

    bundle = Bundle.open(args.bundle)
    checked = check_all(bundle, args.engines)
    if args.rebuild and not (checked and all(engine.fresh for engine in checked)):
        rebuild(bundle, checked, args.engines)
        checked = check_all(bundle, args.engines)
    if args.json:
        _say(json.dumps([_as_json(engine) for engine in checked]))
    else:
        for engine in checked:
            _say(str(engine))
        if not checked:
            _say(f"{args.bundle} has no engine. Run: {build_command(args.bundle)}")
    return 0 if checked and all(engine.fresh for engine in checked) else 2


def _list(args: argparse.Namespace) -> int:
    from edge_runtime.bundle import Bundle
    from edge_runtime.engine_store import build_command
    from edge_runtime.engine_upkeep import check_all

    bundle = Bundle.open(args.bundle)
    listed = check_all(bundle, args.engines, this_machine=False)
    if args.json:
        _say(json.dumps([_as_json(engine) for engine in listed]))
        return 0
    for engine in listed:
        record = engine.record
        if record is None:
            _say(str(engine))
            continue
        made = f"{record.plan_bytes / 1e6:.1f} MB, TensorRT {record.platform.tensorrt}"
        how = "refitted" if record.refitted_from else f"built in {record.build_seconds:.0f} s"
        state = "" if engine.fresh else f"; {engine}"
        _say(f"{record.name}: {made}, {record.platform.gpu}, {how}{state}")
    if not listed:
        _say(f"{args.bundle} has no engine. Run: {build_command(args.bundle)}")
    return 0


def _refit(args: argparse.Namespace) -> int:
    from edge_runtime.backends.trt_engines import refit_engine
    from edge_runtime.bundle import Bundle

    bundle = Bundle.open(args.bundle)
    if not args.source.exists():
        msg = f"{args.source} does not exist; expected an engine file or a bundle with engines"
        raise InputError(msg)
    record = refit_engine(
        bundle, args.source, precision=args.precision, out=args.out, index=args.index
    )
    if args.json:
        _say(json.dumps(asdict(record)))
        return 0
    _tell(record, args.out or bundle.root / "engines")
    _say(
        "An index made by the old encoder no longer fits. Next: python -m export index "
        f"--bundle {args.bundle} --imagery MAP.tif --out index"
    )
    return 0


def _tell(record: "EngineRecord", folder: Path) -> None:
    lowest = min(gate["min_cosine"] for gate in record.gates.values() if "min_cosine" in gate)
    verb = "Refitted" if record.refitted_from else "Built"
    _say(
        f"{verb} {folder / record.name} ({record.plan_bytes / 1e6:.1f} MB) in "
        f"{record.build_seconds:.0f} s on {record.platform.gpu}; lowest cosine to the trained "
        f"encoder {lowest:.6f}."
    )


def _as_json(engine: "CheckedEngine") -> dict[str, Any]:
    return {**asdict(engine), "path": str(engine.path), "fresh": engine.fresh}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
