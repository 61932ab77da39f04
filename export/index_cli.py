"""`python -m export index …`: imagery to a searchable map."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_runtime.command_line import HelpFormatter
from edge_runtime.errors import InputError
from export.index_arguments import (
    add_building,
    add_imagery,
    add_storing,
    add_tiles,
    add_vectors,
)

_LINE_EVERY_S = 30.0

_EXAMPLES = """Example: python -m export index --imagery map.tif --bundle bundle --out index

More:
  python -m export index --imagery *.tif --bundle bundle --out index --levels-from camera.json \\
      --heights-m 80 150 300 --dry-run
  python -m export index --imagery *.tif --bundle bundle --out index --shard 3/16
  python -m export index merge index.build --out index
Run again what was stopped: it goes on where it was."""


def add_index(commands: Any) -> None:
    """Register the command with `python -m export`'s subparsers."""
    index = commands.add_parser(
        "index",
        help="satellite imagery to a searchable map",
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
    )
    index.add_argument(
        "--imagery",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="files or folders, see docs/index.md",
    )
    index.add_argument("--bundle", type=Path, help="encoder folder")
    index.add_argument("--out", type=Path, help="index folder to write")
    add_imagery(index.add_argument_group("imagery"))
    add_tiles(index.add_argument_group("tiles"))
    add_storing(index.add_argument_group("what is kept"))
    add_building(index.add_argument_group("building"))
    index.set_defaults(run=_index)
    merge = index.add_subparsers(metavar="merge").add_parser(
        "merge",
        help="put together what shards embedded",
        epilog="Example: python -m export index merge index.build --out index",
        formatter_class=HelpFormatter,
    )
    merge.add_argument("build", type=Path, help="folder in which the shards worked, OUT.build")
    merge.add_argument("--out", type=Path, required=True, help="index folder to write")
    add_vectors(merge)
    merge.set_defaults(run=_merge)


def _index(args: argparse.Namespace) -> None:
    from edge_runtime.backends.protocol import BACKENDS, open_backend
    from edge_runtime.bundle import Bundle
    from export.index_build import build_index
    from export.index_estimate import estimate_index
    from export.index_imagery import ImageryOptions
    from export.index_plan import PlanOptions
    from export.index_preparation import BuildOptions

    for name in ("imagery", "bundle", "out"):
        if not getattr(args, name):
            msg = f"--{name} is missing; expected --imagery PATH … --bundle BUNDLE --out INDEX"
            raise InputError(msg)
    if args.backend not in BACKENDS:
        msg = f"there is no backend {args.backend!r}; known: {', '.join(BACKENDS)}"
        raise InputError(msg)
    bundle = Bundle.open(args.bundle)
    plan = PlanOptions(
        sizes=_sizes(args, bundle.spec.ground_size_m),
        headings=args.headings,
        grid=args.grid,
        leave_out=tuple(sorted(set(args.leave_out))),
    )
    options = BuildOptions(
        imagery=ImageryOptions(
            quality=args.quality,
            image_format=args.image_format,
            crop=args.crop,
            crs=args.crs,
            corners=None if args.corners is None else tuple(args.corners),
            tms=args.tms,
            captured=args.captured,
            attribution=args.attribution,
            licence=args.licence,
        ),
        search=_search(args),
        shard=None if args.shard is None else _shard(args.shard),
        restart=args.restart,
        update=args.update,
        keep_embeddings=not args.no_update,
    )
    backend = open_backend(bundle, args.backend)
    try:
        with _progress() as (progress, say):
            what = (args.imagery, args.out, bundle, backend, plan, options)
            if args.dry_run:
                cost = estimate_index(*what, say=say, progress=progress)
            else:
                tiles = build_index(*what, say=say, progress=progress)
    finally:
        backend.close()
    on = backend.info.provider
    if args.dry_run:
        _say(cost.as_text())
        _say("Next: the same command without --dry-run; the imagery made for this is used again")
    elif tiles is None:
        _say(
            f"Shard {args.shard} embedded on {on}. Next, when all shards have ended: "
            f"python -m export index merge {args.out}.build --out {args.out}"
        )
    else:
        _say(
            f"Index of {tiles} tiles written to {args.out}, embedded on {on}. "
            f"Next: skyfix run --bundle {args.bundle} --index {args.out} --source PHOTOS "
            "--telemetry TELEMETRY.csv --camera CAMERA.json"
        )


def _merge(args: argparse.Namespace) -> None:
    from export.index_build import merge_index
    from export.index_folder import BuildFolder

    with _progress() as (progress, _):
        tiles = merge_index(
            BuildFolder(args.build.resolve()),
            args.out,
            search=_search(args),
            keep_embeddings=not args.no_update,
            progress=progress,
        )
    _say(f"Index of {tiles} tiles written to {args.out}. Next: skyfix index info {args.out}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _search(args: argparse.Namespace) -> Any:
    from export.index_assembly import SearchOptions

    return SearchOptions(dtype=args.vectors, kind=args.search, min_recall=args.min_recall)


def _sizes(args: argparse.Namespace, trained_m: float | None) -> Any:
    """Sizes and strides of all levels, smallest first."""
    from edge_runtime.camera import Camera
    from export.index_plan import TileSize, sizes_for_heights

    if args.levels_from is not None and args.tile_m is not None:
        msg = "--tile-m and --levels-from were both given; expected one of them"
        raise InputError(msg)
    if (args.levels_from is None) != (args.heights_m is None):
        msg = "--levels-from and --heights-m belong together; give both or none"
        raise InputError(msg)
    sizes = args.tile_m
    if args.levels_from is not None:
        sizes = sizes_for_heights(Camera.load(args.levels_from), args.heights_m)
    elif sizes is None:
        if trained_m is None:
            msg = f"{args.bundle} does not say what ground size it was trained on; give --tile-m"
            raise InputError(msg)
        sizes = [trained_m]
    if not 0 <= args.overlap < 1:
        msg = f"--overlap is {args.overlap}; expected 0 to below 1, as 0.75"
        raise InputError(msg)
    strides = args.stride_m or [size * (1 - args.overlap) for size in sizes]
    if len(strides) != len(sizes):
        msg = f"{len(strides)} strides for {len(sizes)} tile sizes; expected one for each"
        raise InputError(msg)
    return tuple(sorted(TileSize(*pair) for pair in zip(sizes, strides, strict=True)))


def _shard(text: str) -> Any:
    from export.index_preparation import Shard

    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal()):
        msg = f"--shard is {text!r}; expected K/N, as 3/16"
        raise InputError(msg)
    return Shard(int(number), int(of))


@contextmanager
def _progress() -> Iterator[tuple[Any, Callable[[str], None]]]:
    """Bars on a terminal; elsewhere a line every half minute, which logs of clusters show."""
    from train.progress import progress_bars

    with progress_bars() as bars:
        if sys.stdout.isatty():
            yield bars, bars.say
            return
        lines = TimedLines(bars.say)

        def both(stage: str, done: float) -> None:
            lines(stage, done)
            bars(stage, done)

        yield both, bars.say


class TimedLines:
    """Now and then, a line that says how far a stage is and how long it will take."""

    def __init__(self, say: Any, *, clock: Any = time.monotonic) -> None:
        """Say lines through a function."""
        self._say, self._clock = say, clock
        self._stage, self._first, self._started_s, self._said_s = "", 0.0, 0.0, 0.0

    def __call__(self, stage: str, done: float) -> None:
        """Hear that a fraction of a stage, 0..1, is done."""
        now_s = self._clock()
        if stage != self._stage:
            self._stage, self._first = stage, done
            self._started_s = self._said_s = now_s
        if now_s - self._said_s < _LINE_EVERY_S or not self._first < done < 1:
            return
        self._said_s = now_s
        left_s = (now_s - self._started_s) / (done - self._first) * (1 - done)
        hours, minutes = divmod(round(left_s / 60), 60)
        left = f"{hours} h {minutes} min" if hours else f"{minutes} min"
        self._say(f"{stage}: {done:.1%}, {left} left")
