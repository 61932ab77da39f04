"""Who takes part in the end-to-end comparison, and what is inside each one's clock.

A frame's time goes from asking for the photograph to having the answer: reading and decoding are
inside for everybody. skyfix also writes its log inside. Opening things is outside for everybody.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from benchmarks.plain_loop import PlainLoop, PlainLoopWithFeatures, PlainMap
from edge_runtime.backends.protocol import Backend
from edge_runtime.bundle import Bundle
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.flight import Flight
from edge_runtime.flight_log import FlightLog
from edge_runtime.localizer import Localizer
from edge_runtime.satellite_index import SatelliteIndex
from edge_runtime.service_notify import ServiceNotifier
from edge_runtime.sources.opening import open_frames
from edge_runtime.state import VehicleState
from edge_runtime.states.opening import open_states
from edge_runtime.states.protocol import StateSource


class Answer(NamedTuple):
    """What a contender says of one photograph, and how long it took."""

    name: str
    """File name."""
    wall_ms: float
    lat_deg: float | None
    """Where it would say the drone is, however little it believes it; None for nowhere."""
    lon_deg: float | None
    given: bool
    """Whether it gives this out as its answer."""


class Contender(Protocol):
    """Takes photographs in their order, some at a time."""

    name: str
    opencv_threads: int
    """What OpenCV is set to while this one works."""

    def answers(self, names: Sequence[str]) -> list[Answer]:
        """Work through some photographs, the next ones of the flight."""
        ...


class Skyfix:
    """skyfix as `skyfix run` puts it together: frames read ahead, states, localizer and log."""

    opencv_threads = 1

    def __init__(
        self,
        folder: Path,
        states: StateSource,
        localizer: Localizer,
        log: FlightLog,
        *,
        fresh: bool,
    ) -> None:
        """Take opened parts.

        Args:
            folder: of photographs.
            states: telemetry.
            localizer: which has seen nothing yet.
            log: takes every record.
            fresh: whether every frame meets a localizer that has seen none before it.
        """
        self.name = "skyfix whole map" if fresh else "skyfix in flight"
        self._folder, self._states, self._localizer, self._log = folder, states, localizer, log
        self._fresh = localizer.snapshot() if fresh else None

    def answers(self, names: Sequence[str]) -> list[Answer]:
        """See `Contender`."""
        # A source of its own for these frames: nothing is read ahead while another one is timed.
        source = open_frames(str(self._folder), names=frozenset(names))
        flight = Flight(
            source=source,
            states=self._states,
            localizer=self._localizer,
            notifier=ServiceNotifier.from_environment({}),
        )
        told = (self._log, source, self._states)
        found = []
        try:
            started = time.perf_counter()
            for frame in source.frames():
                if self._fresh is not None:
                    self._localizer.restore(self._fresh)
                fix = flight.step(frame, told)
                self._log.write(fix)
                wall_ms = 1e3 * (time.perf_counter() - started)
                lat, lon = self._localizer.place() or (None, None)
                if fix.lat_deg is not None:
                    lat, lon = fix.lat_deg, fix.lon_deg
                found.append(Answer(frame.name, wall_ms, lat, lon, fix.status == "OK"))
                started = time.perf_counter()
        finally:
            source.close()
        return found


class Plain:
    """The plain loop, with or without its refinement."""

    def __init__(
        self, name: str, loop: PlainLoop, folder: Path, states: dict[str, VehicleState]
    ) -> None:
        """Take an opened loop; telemetry lies in memory by name."""
        self.name = name
        self.opencv_threads = 1
        self._loop, self._folder, self._states = loop, folder, states

    def answers(self, names: Sequence[str]) -> list[Answer]:
        """See `Contender`."""
        found = []
        for name in names:
            started = time.perf_counter()
            state = self._states[name]
            guess = self._loop.locate(
                self._folder / name, height_m=state.height_m or 0.0, yaw_deg=state.yaw_deg or 0.0
            )
            wall_ms = 1e3 * (time.perf_counter() - started)
            found.append(
                Answer(name, wall_ms, guess.lat_deg, guess.lon_deg, guess.lat_deg is not None)
            )
        return found

    def take_better_setting(self, names: Sequence[str]) -> None:
        """Keep the number of OpenCV threads with which some photographs go faster."""
        fastest_ms = float("inf")
        for threads in (1, max(1, cv2.getNumberOfCPUs())):
            cv2.setNumThreads(threads)
            self.answers(names[:3])
            took_ms = sum(a.wall_ms for a in self.answers(names))
            if took_ms < fastest_ms:
                fastest_ms, self.opencv_threads = took_ms, threads


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The contenders and what they share."""

    contenders: tuple[Contender, ...]
    closing: list[Any] = field(default_factory=list)

    def close(self) -> None:
        """Close everything, the newest first."""
        for part in reversed(self.closing):
            part.close()


def open_contenders(
    *,
    folder: Path,
    telemetry: Path,
    names: Sequence[str],
    camera: Camera,
    bundle: Bundle,
    index_folder: Path,
    backend: Backend,
    logs: Path,
) -> Opened:
    """Open the two ways skyfix works and the two plain loops.

    Each has an index of its own, so that no one finds map tiles that another has decoded.

    Raises:
        InputError: the telemetry lacks what a plain loop needs.
        SkyfixError: something is missing or does not belong together.
    """
    table = open_states(str(telemetry))
    by_name = {name: table.at(name, None) for name in names}
    table.close()
    lacking = [n for n, s in by_name.items() if s.height_m is None or s.yaw_deg is None]
    if lacking:
        msg = (
            f"{lacking[0]} and {len(lacking) - 1} more photographs have no height_m or yaw_deg; "
            "expected both for every one, since a plain loop cannot do without"
        )
        raise InputError(msg)
    opened = Opened(contenders=())
    contenders: list[Contender] = []
    for number, fresh in enumerate((False, True)):
        index = SatelliteIndex.open(index_folder, bundle)
        log = FlightLog(logs / f"fixes_{number}.jsonl")
        states = open_states(str(telemetry))
        opened.closing.extend((index, log, states))
        localizer = Localizer(bundle, index, backend, camera)
        contenders.append(Skyfix(folder, states, localizer, log, fresh=fresh))
    index = SatelliteIndex.open(index_folder, bundle)
    opened.closing.append(index)
    rows = np.arange(index.level.rows)
    rows = rows[index.tiles["heading_deg"][rows] == 0]
    tiles = PlainMap(
        embeddings=np.ascontiguousarray(index.unit_embeddings(rows)),
        centre=index.centre,
        lat_deg=index.tiles["lat_deg"][rows],
        lon_deg=index.tiles["lon_deg"][rows],
        size_m=index.level.size_m,
    )
    onnx = bundle.onnx_path("fp32")
    plain = PlainLoop(onnx, camera, tiles)
    refined = PlainLoopWithFeatures(onnx, camera, tiles, index.imagery)
    contenders.append(Plain("plain loop", plain, folder, by_name))
    contenders.append(Plain("plain loop + SIFT", refined, folder, by_name))
    return Opened(contenders=tuple(contenders), closing=opened.closing)
