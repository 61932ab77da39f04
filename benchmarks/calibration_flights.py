"""Errors of flights with truth, from their logs."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.calibration_fit import Errors
from benchmarks.scored_flight import Attempt, score_flight
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.flight_log import read_settings, settings_path
from edge_runtime.localizer_config import LocalizerConfig


def flight_errors(log: Path, truth: Path, *, index_id: str, bundle_id: str) -> Errors:
    """Read a log and its truth.

    Args:
        log: fix records, .jsonl.
        truth: CSV with filename, lat_deg, lon_deg.
        index_id: of the index that is calibrated.
        bundle_id: of its encoder.

    Raises:
        InputError: either cannot be read, they do not fit each other, or the flight was on another
            index or with another encoder.
    """
    flight = score_flight(log, truth, logged_only=True)
    for name, expected in (("index_id", index_id), ("bundle_id", bundle_id)):
        if other := {getattr(fix, name) for fix in flight.fixes} - {expected}:
            msg = (
                f"log {log} has {name} {', '.join(sorted(other))}, expected {expected}; a "
                "calibration holds for one index and one encoder. Fly with these"
            )
            raise InputError(msg)
    rows = [row for attempt in flight.attempts if (row := _row(attempt)) is not None]
    table = np.array(sorted(rows), np.float64).reshape(-1, 4)
    return Errors(
        name=flight.name,
        t_s=table[:, 0],
        stated_m=table[:, 1],
        error_m=table[:, 2],
        probability=table[:, 3],
        asked=_asked(log),
    )


def _row(attempt: Attempt) -> tuple[float, float, float, float] | None:
    fix = attempt.fix
    if fix is None or not attempt.answered or attempt.error_m is None:
        return None
    stated_m = _stated_m(fix)
    if stated_m is None or not stated_m > 0:
        return None
    return fix.t_exposure_s, stated_m, attempt.error_m, fix.probability


def _stated_m(fix: Fix) -> float | None:
    """What the error model said, also where the flight was calibrated already."""
    before = asdict(fix).get("stated_eph_m")
    return fix.eph_m if before is None else float(before)


def _asked(log: Path) -> float:
    """The belief that answers of this run needed."""
    usual = LocalizerConfig().ok_probability
    if not settings_path(log).exists():
        return usual
    return float(read_settings(log).options.get("ok_probability", usual))
