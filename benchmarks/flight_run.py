"""Fly the parts of a made-up world through the localizer, one row each; goes on where it stopped.

Everything of one flight happens as in `skyfix run`, one frame after another, on one core: the
photograph is read from disk, the localizer gets it with what was measured, and its fix is kept in
a log beside the rows, with the truth, for `python -m benchmarks calibrate`.
"""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from benchmarks.calibration_fit import coverage, left_out_in_turn
from benchmarks.calibration_flights import flight_errors
from benchmarks.flight_edge import build_western_half, middle_lon_deg
from benchmarks.flight_parts import (
    FlightPart,
    Part,
    WorldFlight,
    plan_parts,
    read_flights,
    states_of,
)
from benchmarks.flight_score import Answer, FlightRow, flight_row
from benchmarks.rows import append_rows, read_rows
from edge_runtime.artefact import sha256_of
from edge_runtime.backends.protocol import Backend, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.calibration import Calibration, Coverage
from edge_runtime.camera import Camera
from edge_runtime.errors import IndexFolderError, InputError
from edge_runtime.flight_log import FlightLog
from edge_runtime.localizer import Localizer
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.satellite_index import SatelliteIndex

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class FlightsPlan:
    """What to fly and with what."""

    world: Path
    bundle: Path
    index: Path
    """Of the world's held-out ground."""
    out: Path
    """Rows, .jsonl; logs go into a folder of the same name that ends in .logs."""
    half_index: Path | None = None
    """Of the western half of that ground; built beside `out` when it is not there."""
    parts: tuple[Part, ...] = ("start", "whole", "moved", "off_map")
    starts: int = 60
    moves: int = 10
    flights: int | None = None
    """Only the first so many of the world's flights."""
    seed: int = 1
    config: LocalizerConfig = field(default_factory=LocalizerConfig)


class _Opened(NamedTuple):
    bundle: Bundle
    backend: Backend
    camera: Camera
    whole: SatelliteIndex
    half: SatelliteIndex | None


def fly(plan: FlightsPlan, *, say: Say = lambda _line: None) -> list[FlightRow]:
    """Fly what has no row yet; give all rows of the plan.

    Raises:
        InputError: the rows at `out` are of another world, map, encoder or of other settings.
        SkyfixError: something of the plan is missing, altered or does not belong together.
    """
    # One core, like the machine in mind; OpenCV would take all.
    cv2.setNumThreads(1)
    flights = read_flights(plan.world)[: plan.flights]
    opened = _open(plan, say)
    try:
        planned = plan_parts(
            flights,
            parts=plan.parts,
            starts=plan.starts,
            moves=plan.moves,
            seed=plan.seed,
            middle_lon_deg=middle_lon_deg(opened.whole),
        )
        done = _rows_so_far(plan, opened)
        for number, part in enumerate(planned, start=1):
            if part.name in done:
                continue
            row = _flown(part, flights, opened, plan)
            append_rows(plan.out, [row])
            done[part.name] = row
            say(f"[{number}/{len(planned)}] {summary(row)}")
    finally:
        opened.backend.close()
        opened.whole.close()
        if opened.half is not None:
            opened.half.close()
    return [done[part.name] for part in planned]


def left_out_coverages(plan: FlightsPlan, rows: Sequence[FlightRow]) -> list[Coverage] | None:
    """For each whole flight how right a calibration from the others is on it.

    Args:
        plan: that was flown.
        rows: of its parts.

    Returns:
        None where the index has a calibration, which the fixes followed then, or where there are
        too few flights or answers, or not all their logs.
    """
    whole = [row for row in rows if row.part == "whole"]
    if len(whole) < 2:
        return None
    ids = {"index_id": whole[0].index_id, "bundle_id": whole[0].bundle_id}
    if Calibration.open(plan.index, **ids) is not None:
        return None
    logs = [logs_folder(plan.out) / f"{row.name}.jsonl" for row in whole]
    if not all(log.exists() for log in logs):
        return None
    flights = [flight_errors(log, log.with_suffix(".truth.csv"), **ids) for log in logs]
    fits = left_out_in_turn(flights)
    if fits is None:
        return None
    return [coverage([f], [fit]) for f, fit in zip(flights, fits, strict=True)]


def summary(row: FlightRow) -> str:
    """A row in one line."""
    first = "no right fix" if row.first_right_s is None else f"first at {row.first_right_s:.1f} s"
    error = "-" if row.median_error_m is None else f"{row.median_error_m:.2f} m"
    text = (
        f"{row.name}: {first}, {row.ok}/{row.frames} OK, median {error}, {row.false} false, "
        f"{row.p50_ms:.0f} ms"
    )
    if row.part == "moved":
        lost = "never" if row.lost_after_s is None else f"{row.lost_after_s:.1f} s"
        right = "never" if row.right_after_s is None else f"{row.right_after_s:.1f} s"
        text += f"; lost or right after {lost}, right after {right}, {row.false_after_moving} false"
    if row.part == "off_map":
        text += f"; off the map {row.off_ok} OK of {row.off_frames}"
    return text


def rows_from(path: Path) -> list[FlightRow]:
    """Rows of an earlier run.

    Raises:
        InputError: unreadable, or the rows of another version.
    """
    known = {f.name for f in fields(FlightRow)}
    rows = []
    for row in read_rows(path, kind="flight"):
        if odd := set(row) ^ known:
            msg = (
                f"{path} has rows of another version ({sorted(odd)}); fly again with another --out"
            )
            raise InputError(msg)
        rows.append(FlightRow(**row))
    return rows


def logs_folder(out: Path) -> Path:
    """Where the logs of a run's parts lie."""
    return out.with_suffix(".logs")


def _open(plan: FlightsPlan, say: Say) -> _Opened:
    camera = Camera.load(plan.world / "held_out" / "camera.json")
    bundle = Bundle.open(plan.bundle)
    index = SatelliteIndex.open(plan.index, bundle)
    backend = open_backend(bundle, "ort-cpu", threads=1)
    half = None
    if "off_map" in plan.parts:
        path = plan.half_index or plan.index.with_name(f"{plan.index.name}.half")
        try:
            half = SatelliteIndex.open(path, bundle)
        except IndexFolderError:
            if path.exists():
                raise
            say(f"building {path} of the western half of the ground")
            imagery = plan.world / "held_out" / "imagery.tif"
            build_western_half(imagery, path, bundle, backend, index)
            half = SatelliteIndex.open(path, bundle)
    return _Opened(bundle, backend, camera, index, half)


def _rows_so_far(plan: FlightsPlan, opened: _Opened) -> dict[str, FlightRow]:
    if not plan.out.exists():
        return {}
    rows = rows_from(plan.out)
    indexes = {opened.whole.id, *([opened.half.id] if opened.half else [])}
    for row in rows:
        expected = {
            "world": (row.world_id, {_world_id(plan)}),
            "bundle": (row.bundle_id, {opened.bundle.id}),
            "index": (
                row.index_id,
                indexes if opened.half or row.part != "off_map" else {row.index_id},
            ),
            "settings": (row.settings, {_settings(plan)}),
        }
        for what, (found, allowed) in expected.items():
            if found not in allowed:
                msg = (
                    f"{plan.out} has rows of another {what} ({found}, not {', '.join(allowed)}); "
                    "give another --out"
                )
                raise InputError(msg)
    return {row.name: row for row in rows}


def _flown(
    part: FlightPart, flights: Sequence[WorldFlight], opened: _Opened, plan: FlightsPlan
) -> FlightRow:
    index = opened.half if part.part == "off_map" and opened.half is not None else opened.whole
    localizer = Localizer(
        opened.bundle,
        index,
        opened.backend,
        opened.camera,
        plan.config,
        calibration=Calibration.open(index.root, index_id=index.id, bundle_id=opened.bundle.id),
    )
    folder = logs_folder(plan.out)
    folder.mkdir(parents=True, exist_ok=True)
    answers: list[Answer] = []
    truths: list[dict[str, Any]] = []
    with FlightLog(folder / f"{part.name}.jsonl") as log:
        for path, state, truth in states_of(part, flights):
            name = f"{path.parent.parent.name}/{path.name}"
            bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if bgr is None:
                msg = f"{path} cannot be read as an image; make the world again"
                raise InputError(msg)
            image = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
            fix = localizer.step(image, state, frame_name=name)
            log.write(fix)
            height_m = truth.height_m if truth.height_m is not None else 0.0
            answers.append(Answer(fix, truth.lat_deg, truth.lon_deg, height_m))
            truths.append(
                {
                    "filename": name,
                    "t_s": f"{state.t_s:.3f}",
                    "lat_deg": f"{truth.lat_deg:.8f}",
                    "lon_deg": f"{truth.lon_deg:.8f}",
                }
            )
    with (folder / f"{part.name}.truth.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(truths[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(truths)
    return flight_row(
        part,
        answers,
        camera=opened.camera,
        bounds=index.imagery.bounds,
        world_id=_world_id(plan),
        settings=_settings(plan),
    )


def _world_id(plan: FlightsPlan) -> str:
    return sha256_of(plan.world / "world.json")[:12]


def _settings(plan: FlightsPlan) -> str:
    usual = asdict(LocalizerConfig())
    other = {k: v for k, v in asdict(plan.config).items() if v != usual[k]}
    return json.dumps({"seed": plan.seed, **other}, sort_keys=True)
