"""Gather everything a report shows, and write it as one page."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.accuracy import AccuracyRow, accuracy_row
from benchmarks.report_examples import Example, examples
from benchmarks.report_map import flight_map
from benchmarks.report_page import page
from benchmarks.rows import read_rows
from benchmarks.scored_flight import Flight, Score, score_flight
from edge_runtime.artefact import Manifest, write_atomically
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.satellite_index import SatelliteIndex

MOST_MIB = 8
"""A page larger than this is made again with smaller pictures."""
_MAP_STEPS = ((1400, 80), (1000, 75), (800, 65), (600, 55))
"""(width in pixels, JPEG quality) of the maps, tried in order."""


@dataclass(frozen=True, kw_only=True)
class ReportSources:
    """What a report is made from."""

    index: Path
    """Index folder: its imagery is the map."""
    flights: tuple[tuple[Path, Path, Path | None], ...]
    """(log, truth, folder of frames or None), one per flight."""
    latency: Path | None = None
    """Rows of the latency command."""
    evaluation: Path | None = None
    """JSON with `r_at_1` and `gallery`."""
    camera: Path | None = None
    """Camera file, for the scale of the examples."""
    title: str = "Flight report"
    score: Score = "drone"
    false_fix_m: float = 50.0
    logged_only: bool = False
    command_line: str = ""
    """How the report was made, for its footer."""


class Retrieval(NamedTuple):
    """Retrieval on tiles nobody trained on."""

    r_at_1: float
    """Share of queries whose first answer is right, 0..1."""
    gallery: int
    """Tiles to choose from."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything the page shows."""

    title: str
    score: Score
    false_fix_m: float
    flights: tuple[Flight, ...]
    rows: tuple[AccuracyRow, ...]
    """One per flight, then one for all together where there are several."""
    maps: tuple[str, ...]
    """HTML of each flight's map."""
    examples: tuple[Example, ...]
    latency: tuple[dict[str, object], ...]
    """Rows of kind measurement, as read."""
    retrieval: Retrieval | None
    index: Manifest
    tiles: int
    command_line: str

    @property
    def overall(self) -> AccuracyRow:
        """All flights together."""
        return self.rows[-1]


def read_latency(path: Path) -> list[dict[str, object]]:
    """Rows of single calls; those of other protocols and kinds are left.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    rows = [r for r in read_rows(path, kind="measurement") if r["protocol"] == "latency"]
    if not rows:
        kinds = sorted({str(row["kind"]) for row in read_rows(path)})
        msg = (
            f"{path} has no measurement of a backend (it has {', '.join(kinds) or 'no row'}); "
            "make some with python -m benchmarks latency --bundle BUNDLE"
        )
        raise InputError(msg)
    return list(rows)


def write_report(sources: ReportSources, out: Path) -> list[AccuracyRow]:
    """Write the page, whole or not at all.

    Returns:
        One row per flight, then one for all together where there are several.

    Raises:
        SkyfixError: something is missing, unreadable, or does not belong together.
    """
    flights = _score(sources)
    rows = [_row([f], sources) for f in flights]
    if len(flights) > 1:
        rows.append(_row(flights, sources))
    latency = read_latency(sources.latency) if sources.latency else []
    retrieval = read_evaluation(sources.evaluation) if sources.evaluation else None
    camera = Camera.load(sources.camera) if sources.camera else None
    index = SatelliteIndex.open(sources.index)
    try:
        _check_index(flights, index)
        shown = examples(
            flights,
            {
                flight.name: frames
                for flight, (_, _, frames) in zip(flights, sources.flights, strict=True)
                if frames is not None
            },
            index.imagery,
            score=sources.score,
            camera=camera,
            ground_m=index.level.size_m,
        )
        for width_px, quality in _MAP_STEPS:
            data = ReportData(
                title=sources.title,
                score=sources.score,
                false_fix_m=sources.false_fix_m,
                flights=tuple(flights),
                rows=tuple(rows),
                maps=tuple(
                    flight_map(
                        flight,
                        index.imagery,
                        score=sources.score,
                        false_fix_m=sources.false_fix_m,
                        width_px=width_px,
                        jpeg_quality=quality,
                    )
                    for flight in flights
                ),
                examples=tuple(shown),
                latency=tuple(latency),
                retrieval=retrieval,
                index=index.manifest,
                tiles=len(index),
                command_line=sources.command_line,
            )
            html = page(data).encode()
            if len(html) < MOST_MIB * 2**20:
                break
    finally:
        index.close()
    write_atomically(out, html)
    return rows


def read_evaluation(path: Path) -> Retrieval:
    """Read retrieval figures, as `python -m train eval --out` writes them.

    Args:
        path: JSON list of objects with `r_at_1` (share) and `gallery` (tiles), of which the first
            counts; one such object alone will do.

    Raises:
        InputError: unreadable, a key is missing, or the share is not within 0..1.
    """
    try:
        value = json.loads(path.read_text())
        if isinstance(value, list):
            value = value[0]
        found = Retrieval(float(value["r_at_1"]), int(value["gallery"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        msg = f"{path} is no evaluation ({error!r}); expected JSON with r_at_1 and gallery"
        raise InputError(msg) from error
    if not (math.isfinite(found.r_at_1) and 0 <= found.r_at_1 <= 1 and found.gallery > 0):
        msg = (
            f"{path} has r_at_1 {found.r_at_1:g} in a gallery of {found.gallery}; expected a share "
            "0..1 (not per cent) and at least one tile"
        )
        raise InputError(msg)
    return found


def _score(sources: ReportSources) -> list[Flight]:
    names = [log.name.removesuffix(".jsonl") for log, _, _ in sources.flights]
    if len(set(names)) < len(names):
        names = [
            f"{log.parent.name}/{name}"
            for name, (log, _, _) in zip(names, sources.flights, strict=True)
        ]
    if len(set(names)) < len(names):
        msg = f"flights have the same name ({', '.join(names)}); rename a log, each needs its own"
        raise InputError(msg)
    return [
        score_flight(log, truth, score=sources.score, logged_only=sources.logged_only, name=name)
        for name, (log, truth, _) in zip(names, sources.flights, strict=True)
    ]


def _row(flights: list[Flight], sources: ReportSources) -> AccuracyRow:
    return accuracy_row(flights, score=sources.score, false_fix_m=sources.false_fix_m)


def _check_index(flights: list[Flight], index: SatelliteIndex) -> None:
    """Refuse logs that were made with another index than the one whose map would be shown."""
    for flight in flights:
        for fix in flight.fixes:
            if fix.index_id and fix.index_id != index.id:
                msg = (
                    f"log {flight.log} was made with index {fix.index_id}, {index.root} is "
                    f"{index.id}; give the index that was flown with"
                )
                raise InputError(msg)
