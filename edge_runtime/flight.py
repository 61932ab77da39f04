"""One run: frames and states in, fixes out to the log and every output, until the source is over.

The loop belongs to one thread and waits for nothing but the next frame. The log and the outputs
have threads and bounded queues of their own; what goes wrong in any part is told in the records.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Protocol

from edge_runtime.deadline import Effort
from edge_runtime.fix import Fix
from edge_runtime.flight_log import FlightLog
from edge_runtime.health import Health
from edge_runtime.live_page.page import LivePage
from edge_runtime.localizer import Localizer
from edge_runtime.outputs.outbox import Outbox
from edge_runtime.recordings.recorder import Recorder
from edge_runtime.service_notify import ServiceNotifier
from edge_runtime.sources.protocol import Frame, FrameSource
from edge_runtime.state import VehicleState, with_ground_height
from edge_runtime.states.protocol import StateSource
from edge_runtime.terrain import TakeoffTerrain

Watch = Callable[[Fix, int, int | None], None]
"""Told each fix, how many are done, and how many there will be where that is known."""
_RECENT = 4096
"""Frames that the median time is of, so that a long run needs no more memory than a short one."""
_LAST_WORDS_S = 5.0
"""For records that wait for a full medium when the flight is over; a service has little longer."""


class TellsEvents(Protocol):
    """Anything that says what happened since it was last asked."""

    def events(self) -> list[str]:
        """One line each."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run came to."""

    frames: int
    ok: int
    abstained: int
    lost: int
    degraded: int
    dropped: int
    """Frames that a camera gave while an older one was worked on."""
    missed: int
    """Frames that took longer than the deadline."""
    median_ms: float
    """Of the newest frames."""
    provider: str
    """What embedded, as the library names it."""
    notes: tuple[str, ...]
    """How the backend was chosen."""
    fallback: str
    """Why a faster backend did not run; empty where the best one did."""
    left_out: int
    """Photographs without telemetry."""
    lost_records: int
    """Records that the log's medium never took."""
    stopped: bool = False
    """Whether it was interrupted before the source was over."""
    last_events: tuple[str, ...] = ()
    """What happened after the last record, one line each: no record holds it."""


@dataclass(kw_only=True)
class Flight:
    """The opened parts of one run. `fly` once, then `close`; both belong to one thread."""

    source: FrameSource
    states: StateSource
    localizer: Localizer
    outboxes: Sequence[Outbox] = ()
    recorder: Recorder | None = None
    page: LivePage | None = None
    health: Health = field(default_factory=Health)
    notifier: ServiceNotifier = field(default_factory=ServiceNotifier.from_environment)
    terrain: TakeoffTerrain | None = None
    begins_at: tuple[float, float] | None = None
    """Latitude and longitude whose ground counts for `terrain` until there is a better guess."""
    source_period_s: float | None = None
    """Length of a video that is played over and over: its telemetry begins again with it."""
    others: Sequence[TellsEvents] = ()
    """More parts whose events belong in the records."""

    def fly(self, log: FlightLog, *, watch: Watch | None = None) -> RunSummary:
        """Localise every frame of the source, or until interrupted.

        Whatever ends it, the outputs have been given every fix and are closed afterwards.

        Args:
            log: takes every record.
            watch: told each fix.
        """
        statuses: Counter[str] = Counter()
        times_ms: deque[float] = deque(maxlen=_RECENT)
        dropped = missed = 0
        parts = (log, self.source, self.states, *self.outboxes, self.recorder, self.page)
        told: Sequence[TellsEvents] = [
            part for part in (*parts, self.localizer.matcher, *self.others) if part is not None
        ]
        total = self.source.count()
        stopped = False
        self.notifier.ready()
        try:
            for frame in self.source.frames():
                fix = self.step(frame, told)
                log.write(fix)
                for outbox in self.outboxes:
                    outbox.offer(fix)
                if self.page is not None:
                    self.page.publish(fix, frame.image, self.localizer.sight)
                self.health.advanced(fix, has_image=frame.image is not None)
                self.notifier.advanced()
                statuses[fix.status] += 1
                dropped += fix.dropped
                missed += fix.deadline_missed
                times_ms.append(fix.latency_ms["total"])
                if self.notifier.active:
                    self.notifier.status(self.health.status_line())
                if watch is not None:
                    watch(fix, sum(statuses.values()), total)
        except KeyboardInterrupt:
            stopped = True
        self.notifier.stopping()
        for outbox in self.outboxes:
            outbox.close()
        if self.recorder is not None:
            self.recorder.close()
        log.flush(_LAST_WORDS_S)
        info = self.localizer.backend.info
        return RunSummary(
            frames=sum(statuses.values()),
            ok=statuses["OK"],
            abstained=statuses["ABSTAIN"],
            lost=statuses["LOST"],
            degraded=statuses["DEGRADED"],
            dropped=dropped,
            missed=missed,
            median_ms=sorted(times_ms)[len(times_ms) // 2] if times_ms else 0.0,
            provider=info.provider,
            notes=info.notes,
            fallback=info.fallback,
            left_out=len(self.source.left_out),
            lost_records=log.lost,
            stopped=stopped,
            last_events=tuple(line for part in told for line in part.events()),
        )

    def step(
        self, frame: Frame, told: Sequence[TellsEvents] = (), *, effort: Effort | None = None
    ) -> Fix:
        """Localise one frame.

        Args:
            frame: of the source.
            told: parts whose events go into the record.
            effort: how much to do, as a recorded flight did.
        """
        state = self._state(frame)
        if self.recorder is not None:
            self.recorder.before_step(self.localizer.snapshot)
        fix = self.localizer.step(
            frame.image,
            state,
            frame_name=frame.name,
            capture_ms=frame.capture_ms,
            problem=frame.problem,
            effort=effort,
        )
        events = tuple(line for part in told for line in part.events())
        fix = replace(fix, dropped=frame.dropped, events=events)
        if self.recorder is not None:
            self.recorder.offer(frame, state, fix)
        return fix

    def _state(self, frame: Frame) -> VehicleState:
        t_s = frame.t_s
        if t_s is not None and self.source_period_s:
            t_s %= self.source_period_s
        state = self.states.at(frame.name, t_s)
        if frame.t_s is not None and self.source_period_s:
            state = replace(state, t_s=frame.t_s)
        rise_m = 0.0
        if self.terrain is not None:
            place = self.localizer.place() or self.begins_at
            if place is not None:
                rise_m = self.terrain.rise_m(*place)
        return with_ground_height(state, ground_above_takeoff_m=rise_m)

    def close(self) -> None:
        """Close every part, whatever happens to one of them."""
        with ExitStack() as stack:
            for part in (self.localizer, self.states, self.source, self.notifier):
                stack.callback(part.close)
            for optional in (self.page, self.recorder, *self.outboxes):
                if optional is not None:
                    stack.callback(optional.close)
