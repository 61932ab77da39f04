"""A log that was read whole, as a source of states: which of its moments belongs to a frame."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_runtime.errors import InputError
from edge_runtime.state import VehicleState
from edge_runtime.states.occurrences import Occurrences
from edge_runtime.states.sample import FIELDS, Sample
from edge_runtime.states.timeline import HeadingFrom, Timeline, check_options
from edge_runtime.states.track_heading import COARSEST_M

UNIX_FROM_S = 1e8
"""Times above this are dates (after March 1973), those below count from a start."""
_ZONE_STEP_S = 900.0
_FARTHEST_ZONES_S = 26 * 3600.0
"""Zones go from -12 to +14 hours in steps of a quarter hour."""
_RUN_AFTER_SET_BACK = 5
"""Rows that go on from an earlier time before a step back is a clock that was set."""
_FRAME_SET_BACK_S = 0.5
_OWN_GAP_S = 0.25
"""Less than from one row to the next where times count rows."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a reader made of a file."""

    path: Path
    samples: tuple[Sample, ...]
    """In the order of the file."""
    timed: bool = True
    """False where the file has no times, and `t_s` counts rows."""
    starts_unix_s: float | None = None
    """The date at which `t_s` is 0, where the file says dates besides a time that counts from a
    start. A date without a zone is taken as UTC."""
    focal_35mm_mm: float | None = None
    """Focal length as for 35 mm film, where the file says it."""
    position_step_m: float = 0.0
    """In what steps positions are written."""
    notes: tuple[str, ...] = ()
    """What the reader left out or took for granted, one line each."""


class RecordedStates:
    """States of a recording, by the name of the frame or by its time. A `StateSource`."""

    live = False

    def __init__(
        self,
        recording: Recording,
        *,
        ignore: frozenset[str] = frozenset(),
        time_offset_s: float = 0.0,
        max_gap_s: float = 1.0,
        heading: HeadingFrom = "telemetry",
    ) -> None:
        """Sort the samples into timelines, one for each time the clock was set back.

        Args:
            recording: what was read.
            ignore: fields of VehicleState to leave out.
            time_offset_s: added to a frame's time to get the recording's.
            max_gap_s: farthest a sample holds.
            heading: where headings and velocities come from.

        Raises:
            InputError: options no timeline can do, or a track of positions that are too coarse.
        """
        check_options(max_gap_s=max_gap_s, ignore=ignore, heading=heading)
        if not math.isfinite(time_offset_s):
            msg = f"the time offset is {time_offset_s}; give seconds to --time-offset-s"
            raise InputError(msg)
        if heading != "telemetry":
            _check_track(recording)
        self.path = recording.path
        self.timed = recording.timed
        self.focal_35mm_mm = recording.focal_35mm_mm
        self.positions = tuple(s.position for s in recording.samples if s.position is not None)
        """(lat, lon) in the order of the file: to check their order and to score."""
        self._recording, self._offset_s = recording, time_offset_s
        self._said = Occurrences()
        for note in recording.notes:
            self._said.happened("note", f"telemetry: {note}")
        self._place_of: dict[str, tuple[int, float]] = {}
        self._alone = _standing_alone(recording)
        # What comes from the track is not for a row to say.
        from_track = {"yaw_deg", "velocity_east_mps", "velocity_north_mps"}
        self._ignore_of_rows = ignore | (set() if heading == "telemetry" else from_track)
        self._timelines: list[Timeline] = []
        self._spans: list[tuple[float, float]] = []
        runs = _runs(recording.samples, self._said) if recording.timed else [recording.samples]
        for samples in runs:
            # Without times rows are no neighbours of each other: each stands for itself.
            timeline = Timeline(
                self._said if recording.timed else Occurrences(),
                max_gap_s=max_gap_s if recording.timed else _OWN_GAP_S,
                ignore=ignore,
                heading=heading,
            )
            for sample in samples:
                timeline.add(sample)
                if sample.name:
                    self._place_of[sample.name] = (len(self._timelines), sample.state.t_s)
            self._timelines.append(timeline)
            self._spans.append((samples[0].state.t_s, samples[-1].state.t_s))
        self._now = 0
        self._last_t_s: float | None = None
        self._stamp_s = 0.0
        self._zone_s: float | None = None

    @property
    def names(self) -> frozenset[str]:
        """Frames that have a row of their own."""
        return frozenset(self._place_of)

    def knows(self, field: str) -> bool:
        """Whether any row says something about this field of VehicleState, or its group."""
        return any(timeline.knows(field) for timeline in self._timelines)

    def at(self, frame_name: str, t_s: float | None) -> VehicleState:
        """The state at one frame's exposure: of its row if it has one, else by its time."""
        place = self._place_of.get(frame_name)
        if place is not None:
            number, row_s = place
            self._stamp_s = row_s
            state = self._timelines[number].state_at(row_s)
            alone = self._alone.get(frame_name)
            return state if alone is None else self._with_own_row(state, alone)
        if t_s is None or not math.isfinite(t_s) or not self.timed:
            self._said.began(
                "no key",
                f"telemetry: {self.path.name} has no row for frame {frame_name}"
                + (", and the frame has no time" if self.timed else " and no times")
                + "; nothing is known of such frames",
            )
            return VehicleState(t_s=self._stamp_s if t_s is None else t_s)
        self._stamp_s = t_s
        moment_s = self._moment_s(t_s)
        if moment_s is None:
            return VehicleState(t_s=t_s)
        self._follow_the_clock(t_s, moment_s)
        return self._timelines[self._now].state_at(moment_s, stamp_s=t_s)

    def _with_own_row(self, state: VehicleState, row: Sample) -> VehicleState:
        """What a row itself says, before what the timeline makes of it and its neighbours."""
        own = Timeline(self._said, max_gap_s=_OWN_GAP_S, ignore=self._ignore_of_rows)
        own.add(row)
        said = own.state_at(row.state.t_s)
        values = {name: getattr(said, name) for name in FIELDS}
        return replace(state, **{name: v for name, v in values.items() if v is not None})

    def events(self) -> list[str]:
        """What happened since the last call, one line each."""
        return self._said.taken()

    def close(self) -> None:
        """Nothing to close: the file was read whole."""

    def _moment_s(self, t_s: float) -> float | None:
        """A frame's time on the recording's clock; None where the two have nothing in common."""
        first_s = self._recording.samples[0].state.t_s
        moment_s = t_s + self._offset_s
        dated_frame, dated_rows = t_s > UNIX_FROM_S, first_s > UNIX_FROM_S
        if dated_frame and not dated_rows:
            if self._recording.starts_unix_s is None:
                self._said.began(
                    "clocks",
                    f"telemetry: frames say dates and {self.path.name} counts seconds, so no row "
                    "belongs to a frame; give --time-offset-s",
                )
                return None
            moment_s -= self._recording.starts_unix_s
        elif dated_rows and not dated_frame:
            self._said.began(
                "clocks",
                f"telemetry: {self.path.name} says dates and frames count from 0; its first row is "
                "taken for the first frame",
            )
            moment_s += first_s
        if dated_frame:
            moment_s += self._zone_correction_s(moment_s)
        return moment_s

    def _zone_correction_s(self, moment_s: float) -> float:
        """Hours between two clocks, found once at the first frame that has a date."""
        if self._zone_s is not None:
            return self._zone_s
        self._zone_s = 0.0
        first_s = min(span[0] for span in self._spans)
        last_s = max(span[1] for span in self._spans)
        if first_s <= moment_s <= last_s:
            return 0.0
        fitting = zones_s(moment_s, first_s, last_s)
        if len(fitting) == 1:
            self._zone_s = fitting[0]
            self._said.happened(
                "zone",
                f"telemetry: its clock is {_hours(fitting[0])} the frames', a difference of time "
                "zones; corrected",
            )
        elif fitting:
            said = f"{_hours(fitting[0])} and {_hours(fitting[-1])}"
            self._said.happened(
                "zone",
                "telemetry: the frames are in its time only if its clock is in another time zone, "
                f"between {said} theirs; not corrected, give --time-offset-s",
            )
        return self._zone_s

    def _follow_the_clock(self, t_s: float, moment_s: float) -> None:
        """Go on to the rows after the clock was set back once the frames' clock was too."""
        before, self._last_t_s = self._last_t_s, t_s
        if before is None or t_s > before - _FRAME_SET_BACK_S:
            return
        self._said.happened(
            "frames back",
            f"telemetry: the frames' clock was set back by {before - t_s:.1f} s at {t_s:.2f} s",
        )
        for number in range(self._now + 1, len(self._timelines)):
            if self._spans[number][0] <= moment_s <= self._spans[number][1]:
                self._now = number
                return


def zones_s(moment_s: float, first_s: float, last_s: float) -> list[float]:
    """Differences of time zones that bring a moment into a span, the smallest first."""
    lowest = math.ceil(max(first_s - moment_s, -_FARTHEST_ZONES_S) / _ZONE_STEP_S)
    highest = math.floor(min(last_s - moment_s, _FARTHEST_ZONES_S) / _ZONE_STEP_S)
    return sorted((_ZONE_STEP_S * k for k in range(lowest, highest + 1) if k), key=abs)


def _standing_alone(recording: Recording) -> dict[str, Sample]:
    """Named rows that are no moment of a timeline: without times, or with the time of another.

    Photographs have whole seconds, so two taken within one would get one state; and rows without
    times do not follow each other, so that a height unlike the last one's is no jump.
    """
    named = [sample for sample in recording.samples if sample.name]
    if not recording.timed:
        return {sample.name: sample for sample in named}
    times = Counter(sample.state.t_s for sample in named)
    return {sample.name: sample for sample in named if times[sample.state.t_s] > 1}


def _runs(samples: Sequence[Sample], said: Occurrences) -> list[list[Sample]]:
    """Rows in time order; a new list wherever the clock was set back for good."""
    runs: list[list[Sample]] = [[]]
    unordered = 0
    last_s = -math.inf
    for k, sample in enumerate(samples):
        t_s = sample.state.t_s
        if t_s < last_s:
            following = samples[k : k + _RUN_AFTER_SET_BACK]
            times = [s.state.t_s for s in following]
            going_on = times == sorted(times)
            if len(times) == _RUN_AFTER_SET_BACK and going_on and times[-1] < last_s:
                said.happened(
                    "clock",
                    f"telemetry: the clock was set back by {last_s - t_s:.1f} s after "
                    f"{last_s:.2f} s; time begins anew there",
                )
                runs.append([])
                last_s = t_s
            else:
                unordered += 1
        last_s = max(last_s, t_s)
        runs[-1].append(sample)
    if unordered:
        said.happened("order", f"telemetry: {unordered} rows were out of order; sorted by time")
    ordered = [sorted(run, key=lambda s: s.state.t_s) for run in runs]
    return [_without_repeats(run, said) for run in ordered]


def _without_repeats(run: list[Sample], said: Occurrences) -> list[Sample]:
    """Rows of one time that say the same are one row."""
    kept: list[Sample] = []
    repeats = 0
    for sample in run:
        if kept and not sample.name and replace(kept[-1], name="") == sample:
            repeats += 1
        else:
            kept.append(sample)
    if repeats:
        said.happened("repeats", f"telemetry: {repeats} rows repeat the row before; left out")
    return kept


def _check_track(recording: Recording) -> None:
    if not recording.timed or not any(s.position is not None for s in recording.samples):
        msg = (
            f"telemetry {recording.path} has no positions with times to take a heading from; "
            "leave --heading at telemetry"
        )
        raise InputError(msg)
    if recording.position_step_m > COARSEST_M:
        msg = (
            f"telemetry {recording.path} gives positions in steps of "
            f"{recording.position_step_m:.0f} m, too coarse for a heading; leave --heading at "
            "telemetry"
        )
        raise InputError(msg)


def _hours(seconds: float) -> str:
    minutes = round(abs(seconds) / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min {'ahead of' if seconds > 0 else 'behind'}"
