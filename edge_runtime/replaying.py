"""The same flight again: a log's frames, or a recording's, and how every fix compares."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from edge_runtime.deadline import Effort
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix, fix_from_json
from edge_runtime.flight import Watch
from edge_runtime.flight_camera import find_camera
from edge_runtime.flight_opening import is_live, open_localizer, opened, settings_of
from edge_runtime.localizer import Localizer
from edge_runtime.log_reading import LoggedRun, read_runs
from edge_runtime.run_settings import RunSettings, settings_path
from edge_runtime.sources.uri import parse_source

NOT_COMPARED = frozenset({"t_fix_s", "latency_ms", "deadline_missed", "events"})
"""Fields that measure time, or tell what happened around a run, and so differ from run to run."""


@dataclass(kw_only=True)
class ReplaySummary:
    """How a replay compares with what was flown."""

    frames: int = 0
    """Compared."""
    different: list[str] = field(default_factory=list)
    """One line for each frame that came out otherwise."""
    notes: list[str] = field(default_factory=list)
    """What could not be compared, one line each."""


def replay(log: Path, *, run: int | None = None, watch: Watch | None = None) -> ReplaySummary:
    """Run a log's frames, or a recording's, again and compare every field but times and events.

    Runs that a log was gone on with by are flown one after another, each with its own settings.

    Args:
        log: written by `run`, or the folder of a recording.
        run: which of the runs that the log holds, from 1; None for all.
        watch: told each fix.

    Raises:
        SkyfixError: the log, its settings, or anything they name is missing or altered.
    """
    summary = ReplaySummary()
    if log.is_dir():
        if run is not None:
            msg = f"{log} is a recording, which is replayed whole; leave --run {run} out"
            raise InputError(msg)
        _replay_recording(log, summary, watch)
        return summary
    runs = read_runs(log)
    # All of them before the first is flown, which may take hours.
    found = [(each, _settings_of_run(log, each, len(runs))) for each in _chosen(log, runs, run)]
    if len(runs) > 1:
        which = "each is replayed with its own settings" if run is None else f"replayed is {run}"
        summary.notes.append(f"the log holds {len(runs)} runs; {which}")
    total = sum(len(each.records) for each, _ in found)
    for each, settings in found:
        label = f"run {each.number}: " if len(runs) > 1 else ""
        _replay_run(settings, each.records, total, label, summary, watch)
    return summary


def effort_of(fix: Fix) -> Effort:
    """How much was done for a frame, so that it can be done again whatever the clock says."""
    return Effort(fix.windows, fix.windows > 0 and "refine" not in fix.shed)


def differing_fields(before: Fix, after: Fix) -> list[str]:
    """Names of fields that differ, times and events left out."""
    # Both sides take the same way through JSON, so rounding and NaN cannot differ.
    a, b = fix_from_json(before.to_json()), fix_from_json(after.to_json())
    names = (f.name for f in fields(Fix) if f.name not in NOT_COMPARED)
    return [name for name in names if getattr(a, name) != getattr(b, name)]


def _chosen(log: Path, runs: list[LoggedRun], number: int | None) -> list[LoggedRun]:
    if number is None:
        return runs
    if not 1 <= number <= len(runs):
        held = {0: "no records", 1: "one run"}.get(len(runs), f"{len(runs)} runs")
        msg = f"{log} holds {held}, so there is no --run {number}" + (
            f"; expected 1 to {len(runs)}" if runs else "; nothing can be replayed"
        )
        raise InputError(msg)
    return [runs[number - 1]]


def _settings_of_run(log: Path, run: LoggedRun, runs: int) -> RunSettings:
    """What a run is flown again with, once its frames are known to be there.

    Raises:
        InputError: they are not, or nothing says what the run was made of.
    """
    name = f"run {run.number} of {runs} in {log}" if runs > 1 else str(log)
    others = "; the other runs can be replayed alone, with --run" if runs > 1 else ""
    if run.settings is None:
        msg = (
            f"{name} cannot be replayed: {settings_path(log)} does not say what it was made of, "
            f"only what later runs were{others}"
        )
        raise InputError(msg)
    source = run.settings.source
    if is_live(source):
        msg = (
            f"{name} is of a live source, {source}, whose frames are gone; replay the "
            f"folder that skyfix run --record wrote{others}"
        )
        raise InputError(msg)
    if not Path(parse_source(source).target).exists():
        msg = f"{name} is of {source}, which is not there any more; put the frames back{others}"
        raise InputError(msg)
    return find_camera(run.settings).settings


def _replay_run(
    settings: RunSettings,
    records: list[Fix],
    total: int,
    label: str,
    summary: ReplaySummary,
    watch: Watch | None,
) -> None:
    """One run of a log; a frame whose record was lost is flown and not compared."""
    recorded = {fix.seq: fix for fix in records}
    last = records[-1].seq
    missing = last + 1 - len(recorded)
    if missing:
        summary.notes.append(
            f"{label}{missing} records are not in the log; their frames were flown and not compared"
        )
    flown = 0
    with opened(settings) as flight:
        for seq, frame in enumerate(flight.source.frames()):
            before = recorded.get(seq)
            fix = flight.step(frame, effort=None if before is None else effort_of(before))
            if before is not None:
                flown += 1
                fix = _compared(before, fix, summary, label)
                if watch is not None:
                    watch(fix, summary.frames, total)
            if seq == last:
                break
    if flown < len(recorded):
        summary.different.append(
            f"{label}{len(recorded) - flown} frames of the log are not in the source any more"
        )


def _replay_recording(folder: Path, summary: ReplaySummary, watch: Watch | None) -> None:
    from edge_runtime.recordings.reading import read_recording

    localizer: Localizer | None = None
    expected: int | None = None
    of_run: RunSettings | None = None
    try:
        for segment in read_recording(folder):
            settings = settings_of(segment.settings, segment.path)
            if localizer is not None and settings != of_run:
                localizer.close()
                localizer = None
            if localizer is None:
                localizer = open_localizer(settings)
                of_run = settings
            localizer.restore(segment.snapshot)
            for recorded in segment.records():
                frame, before = recorded.frame, recorded.fix
                if expected is not None and before.seq > expected:
                    summary.notes.append(
                        f"{before.seq - expected} frames before {before.frame} are not in the "
                        "recording"
                    )
                expected = before.seq + 1
                fix = localizer.step(
                    frame.image,
                    recorded.state,
                    frame_name=frame.name,
                    capture_ms=frame.capture_ms,
                    problem=frame.problem,
                    effort=effort_of(before),
                )
                fix = _compared(before, fix, summary)
                if watch is not None:
                    watch(fix, summary.frames, None)
    finally:
        if localizer is not None:
            localizer.close()


def _compared(before: Fix, after: Fix, summary: ReplaySummary, label: str = "") -> Fix:
    # How much was shed and dropped came from the clock, and went into the effort.
    after = replace(after, dropped=before.dropped, shed=before.shed)
    summary.frames += 1
    if changed := differing_fields(before, after):
        summary.different.append(f"{label}{before.frame}: {', '.join(changed)}")
    return after
