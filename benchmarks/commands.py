"""What each command of `python -m benchmarks` does with its arguments."""

import argparse
import itertools
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.accuracy import AccuracyRow
from benchmarks.rows import append_rows
from edge_runtime.errors import InputError

if TYPE_CHECKING:
    from benchmarks.measurement import MeasurementRow
    from edge_runtime.backends.protocol import BackendName
    from edge_runtime.bundle import Bundle
    from edge_runtime.precision import Precision


def accuracy(args: argparse.Namespace) -> None:
    """`python -m benchmarks accuracy`."""
    from benchmarks.accuracy import accuracy_row, score_flight
    from benchmarks.tables import print_accuracy

    if len(args.log) != len(args.truth):
        msg = f"{len(args.log)} --log and {len(args.truth)} --truth; expected one truth per log"
        raise InputError(msg)
    flights = [
        score_flight(log, truth, score=args.score, logged_only=args.logged_only)
        for log, truth in zip(args.log, args.truth, strict=True)
    ]
    rows = [_row([flight], args, accuracy_row) for flight in flights]
    if len(flights) > 1:
        rows.append(_row(flights, args, accuracy_row))
    _emit(args, rows)
    if args.json:
        return
    print_accuracy(rows)
    for flight, row in zip(flights, rows, strict=False):
        if row.missing.count:
            print(
                f"{flight.name}: {row.missing.count} frames of the truth are not in the log and "
                "count as not answered (--logged-only leaves them out)"
            )
        if flight.untrue_frames:
            print(f"{flight.name}: {flight.untrue_frames} frames have no truth and are left out")
    pairs = " ".join(
        f"--flight {shlex.quote(str(log))} {shlex.quote(str(truth))} FRAMES_DIR"
        for log, truth in zip(args.log, args.truth, strict=True)
    )
    print(f"next: python -m benchmarks report --index INDEX {pairs} --out report.html")


def evidence(args: argparse.Namespace) -> None:
    """`python -m benchmarks evidence`."""
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
    """`python -m benchmarks retrieval`."""
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
    _emit(args, [row])
    if args.json:
        return
    gallery = f"{row.tiles} tiles of {row.tile_m:g} m, {row.stride_m:g} m apart"
    print(f"{row.frames} frames, each alone against {gallery}")
    for name, found in row.success.items():
        print(
            f"first tile within {name:>5}: {share(found)}; of five: {share(row.success_of_5[name])}"
        )
    print(f"first tile: median {row.median_m:.1f} m, mean {row.dis_at_1_m:.1f} m")


def ablation(args: argparse.Namespace) -> None:
    """`python -m benchmarks ablation`."""
    from benchmarks.ablation import ablate, print_ablation
    from benchmarks.rows import read_rows

    world_seed = json.loads((args.world / "world.json").read_text())["config"]["seed"]
    ablate(
        args.world,
        args.work,
        args.out,
        start=args.start,
        groups=args.group or ("samplers", "beyond", "distillation"),
        seeds=args.seeds,
        world_seed=world_seed,
        settings=args.set,
        say=lambda line: print(line, flush=True),
    )
    print_ablation(read_rows(args.out, kind="ablation"))


def sampling(args: argparse.Namespace) -> None:
    """`python -m benchmarks sampling`."""
    from benchmarks.sampling import print_sampling, run

    rows = run(runs=args.runs, embedding_size=args.embedding_size)
    _emit(args, rows)
    if not args.json:
        print_sampling(rows)


def parity(args: argparse.Namespace) -> None:
    """`python -m benchmarks parity`."""
    from benchmarks.parity import FAMILIES, ParityRow, parity_rows
    from benchmarks.tables import print_parity
    from edge_runtime.sources.photographs import PHOTO_SUFFIXES

    if not args.photographs.is_dir():
        msg = f"{args.photographs} is not a folder; expected photographs"
        raise InputError(msg)
    files = sorted(p for p in args.photographs.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
    rows: list[ParityRow] = []

    def done(row: ParityRow) -> None:
        rows.append(row)
        _emit(args, [row])
        if not args.json:
            print(f"{row.architecture} {row.size_px} px: done", file=sys.stderr)

    parity_rows(
        args.architecture or FAMILIES, args.size_px, files, pictures=args.pictures, done=done
    )
    if not args.json:
        print_parity(rows)


def search(args: argparse.Namespace) -> None:
    """`python -m benchmarks search`."""
    from benchmarks.search import run
    from benchmarks.tables import print_search

    rows = run(
        tiles=args.tiles,
        dimensions=args.dimensions,
        dtype=args.vectors,
        radius_m=args.radius_m,
        batch=args.queries,
        calls=args.calls,
        contenders=tuple(args.contender),
        folder=args.work,
        said=lambda line: print(line, file=sys.stderr, flush=True),
    )
    _emit(args, rows)
    if not args.json:
        print_search(rows)


def ambiguity(args: argparse.Namespace) -> None:
    """`python -m benchmarks ambiguity`."""
    from benchmarks.ambiguity import run

    for row in run(args):
        _emit(args, [row])
        if not args.json:
            area = "-"
            if row.auc_chance is not None:
                area = "{:.2f} ({:.2f} to {:.2f})".format(*row.auc_chance)
            print(
                f"{row.views_of}, likeness {row.likeness:g}: {row.wrong} of {row.views} views "
                f"taken for another place, {row.expected_wrong:.0%} expected; area under the "
                f"curve of the chance {area}"
            )


def loading(args: argparse.Namespace) -> None:
    """`python -m benchmarks loading`."""
    from benchmarks.loading import loading_rows

    rows = loading_rows(runs=args.runs)
    _emit(args, rows)
    if not args.json:
        for row in rows:
            spread = f"{row.images_per_s_low:.0f} to {row.images_per_s_high:.0f}"
            print(
                f"{row.recipe}: {row.images_per_s:.0f} images/s a core ({spread}), "
                f"{row.source_px} JPEG of {row.source_kib:.0f} KiB to {row.encoder_px}"
            )


def photographs(args: argparse.Namespace) -> None:
    """`python -m benchmarks photographs`."""
    from benchmarks.photographs import prepare

    photos = prepare(args.set, args.data, args.out)
    print(f"Photographs are in {photos}; map, telemetry, truth and camera in {args.out}.")
    print(f"next: python -m export index --imagery {args.out}/map.tif --bundle BUNDLE --out INDEX")


def _row(flights: Any, args: argparse.Namespace, make: Any) -> AccuracyRow:
    row: AccuracyRow = make(flights, score=args.score, false_fix_m=args.false_fix_m)
    return row


def latency(args: argparse.Namespace) -> None:
    """`python -m benchmarks latency`."""
    from benchmarks.accuracy import read_log
    from benchmarks.latency import numbered
    from benchmarks.stage_latency import stage_rows
    from benchmarks.tables import print_latency, print_stages
    from edge_runtime.bundle import Bundle

    if args.bundle is None and not args.log:
        msg = "nothing to measure; give --bundle (a folder) or --log (a .jsonl)"
        raise InputError(msg)
    timed: list[MeasurementRow] = []
    if args.bundle is not None:
        bundle = Bundle.open(args.bundle)
        for asked in itertools.product(args.backend, args.precision or [None], args.batch):
            row = numbered(_timed(bundle, args, *asked), args.out)
            timed.append(row)
            _emit(args, [row])  # At once: what was measured stays when the command is stopped.
    stages = [
        row
        for log in args.log
        for row in stage_rows(read_log(log), log.name.removesuffix(".jsonl"), device=args.device)
    ]
    _emit(args, stages)
    if args.json:
        return
    if timed:
        print_latency(timed)
    if stages:
        print_stages(stages)
    rows = f"--latency {shlex.quote(str(args.out or 'rows.jsonl'))} " if timed else ""
    print(
        "next: python -m benchmarks report --index INDEX --flight LOG TRUTH FRAMES_DIR "
        f"{rows}--out report.html"
    )


def _timed(
    bundle: "Bundle",
    args: argparse.Namespace,
    backend: "BackendName",
    precision: "Precision | None",
    batch: int,
) -> "MeasurementRow":
    from benchmarks.latency import measure_backend

    what = f"{backend} {precision or ''}".strip()
    if not args.json:
        print(f"timing {what}, batch {batch}: {args.calls} calls", file=sys.stderr)
    row = measure_backend(
        bundle,
        backend,
        precision=precision,
        batch=batch,
        calls=args.calls,
        warmup=args.warmup,
        threads=args.threads,
    )
    if row.fallback:
        print(f"FALLBACK: {what}: {row.fallback}", file=sys.stderr, flush=True)
    return row


def report(args: argparse.Namespace) -> None:
    """`python -m benchmarks report`."""
    from benchmarks.accuracy import read_log
    from benchmarks.report import ReportSources, read_evaluation, write_report
    from benchmarks.stage_latency import stage_rows
    from benchmarks.tables import print_accuracy, print_stages

    sources = ReportSources(
        index=args.index,
        flights=tuple(
            (Path(log), Path(truth), None if frames == "-" else Path(frames))
            for log, truth, frames in args.flight
        ),
        latency=args.latency,
        evaluation=args.eval,
        camera=args.camera,
        title=args.title,
        score=args.score,
        false_fix_m=args.false_fix_m,
        logged_only=args.logged_only,
        command_line=args.command_line,
    )
    rows = write_report(sources, args.out)
    print_accuracy(rows)
    fixes = [fix for log, _, _ in sources.flights for fix in read_log(log)]
    print_stages(stage_rows(fixes, "all flights" if len(sources.flights) > 1 else rows[0].flight))
    print(f"embedded by {', '.join(sorted({fix.engine_id for fix in fixes}))}")
    if args.eval is not None:
        found = read_evaluation(args.eval)
        print(f"retrieval alone, photo to tile: R@1 {found.r_at_1:.1%} of {found.gallery} tiles")
    size_mib = args.out.stat().st_size / 2**20
    print(f"{args.out}: {size_mib:.1f} MiB, needs no network")
    print(f"next: open {shlex.quote(str(args.out))} in a browser")


def _emit(args: argparse.Namespace, rows: Sequence[Any]) -> None:
    if args.out is not None:
        append_rows(args.out, list(rows))
    if args.json:
        for row in rows:
            print(json.dumps(asdict(row)))
