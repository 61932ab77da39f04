"""What is flown in a made-up world to test a localizer: parts made of a flight's own frames.

Four parts, each of which asks one thing of the runtime:

* `start`: from a random frame on, nothing known: how soon is there a fix?
* `whole`: a flight from its first frame to its last.
* `moved`: some seconds of flight, then the frames and the telemetry go on about 1 km away, while
  the clock goes on as if nothing had happened.
* `off_map`: a whole flight on an index of the western half of the ground, whose edge it crosses.

The telemetry has height, heading and attitude with a sensor's errors. Velocity is left out: with
it a wrong position would be found too easily.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.scored_flight import Truth, read_truth
from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m
from edge_runtime.state import VehicleState, with_ground_height
from edge_runtime.states.csv_table import read_csv

F64 = npt.NDArray[np.float64]
Part = Literal["start", "whole", "moved", "off_map"]

START_S = 8.0
"""Length of a start: longer than it may take, so that a late fix is seen as late."""
BEFORE_MOVE_S, AFTER_MOVE_S = 15.0, 25.0
"""Flight before and after being moved."""
MOVED_M = (950.0, 1100.0)
"""How far the drone is moved: about 1 km."""
_NO_VELOCITY = frozenset({"velocity_east_mps", "velocity_north_mps"})


@dataclass(frozen=True, kw_only=True)
class WorldFlight:
    """One flight of a world: frames on disk, what was measured, what was true."""

    name: str
    frames: Path
    """Folder of photographs."""
    states: tuple[VehicleState, ...]
    truths: tuple[Truth, ...]
    """As many as states, of the same frames."""

    @property
    def step_s(self) -> float:
        """Time between frames."""
        return (self.states[-1].t_s - self.states[0].t_s) / (len(self.states) - 1)


class Step(NamedTuple):
    """One frame of a part."""

    flight: int
    """Which of the world's flights."""
    frame: int
    """Its number in that flight."""
    t_s: float
    """Time on the part's own clock, from 0."""


@dataclass(frozen=True, kw_only=True)
class FlightPart:
    """What is flown in one go, with a localizer that knows nothing before."""

    part: Part
    name: str
    """Unique in a run, as moved_03."""
    steps: tuple[Step, ...]
    moved_at: int | None = None
    """Number of the first step after the drone was moved."""


def read_flights(world: Path) -> list[WorldFlight]:
    """Read the flights over the held-out ground of a world made by python -m train world.

    Raises:
        InputError: there are none, or telemetry and truth of one name other frames.
    """
    folders = sorted(
        (world / "held_out").glob("flight_*"), key=lambda p: int(p.name.rpartition("_")[2])
    )
    if not folders:
        msg = (
            f"{world} has no held_out/flight_1; make a world with flights: "
            "python -m train world WORLD --held-out-m 3000 --flights 3 --frames 1200"
        )
        raise InputError(msg)
    return [_read_flight(folder) for folder in folders]


def plan_parts(
    flights: Sequence[WorldFlight],
    *,
    parts: Sequence[Part],
    starts: int,
    moves: int,
    seed: int,
    middle_lon_deg: float | None = None,
) -> list[FlightPart]:
    """Decide what is flown; the same arguments give the same plan.

    Args:
        flights: of one world.
        parts: which kinds.
        starts: random starts.
        moves: times the drone is moved.
        seed: of the frames that are taken.
        middle_lon_deg: eastern edge of the half of the map that `off_map` flies on.

    Raises:
        InputError: the flights are too short for a start, or never 1 km from themselves.
    """
    planned: list[FlightPart] = []
    # One stream a kind, so that more starts do not change the moves.
    if "start" in parts:
        planned += _starts(flights, starts, np.random.default_rng([seed, 1]))
    if "whole" in parts:
        planned += [
            FlightPart(part="whole", name=f"whole_{k + 1:02d}", steps=_whole(k, flight))
            for k, flight in enumerate(flights)
        ]
    if "moved" in parts:
        planned += _moves(flights, moves, np.random.default_rng([seed, 2]))
    if "off_map" in parts and middle_lon_deg is not None:
        number = _crossing(flights, middle_lon_deg)
        steps = _whole(number, flights[number])
        planned.append(FlightPart(part="off_map", name=f"off_map_{number + 1:02d}", steps=steps))
    return planned


def states_of(
    part: FlightPart, flights: Sequence[WorldFlight]
) -> Iterator[tuple[Path, VehicleState, Truth]]:
    """(photograph, state on the part's clock, truth) of every step."""
    for step in part.steps:
        flight = flights[step.flight]
        truth = flight.truths[step.frame]
        state = replace(flight.states[step.frame], t_s=step.t_s)
        yield flight.frames / truth.frame, state, truth


def _whole(number: int, flight: WorldFlight) -> tuple[Step, ...]:
    first_s = flight.states[0].t_s
    return tuple(
        Step(number, k, round(state.t_s - first_s, 6)) for k, state in enumerate(flight.states)
    )


def _crossing(flights: Sequence[WorldFlight], middle_lon_deg: float) -> int:
    """Number of the flight that is about as long on the western half as off it."""
    shares = [np.mean([t.lon_deg > middle_lon_deg for t in flight.truths]) for flight in flights]
    return int(np.argmin(np.abs(np.array(shares) - 0.5)))


def _starts(
    flights: Sequence[WorldFlight], count: int, rng: np.random.Generator
) -> list[FlightPart]:
    planned = []
    for number in range(count):
        which = number % len(flights)
        flight = flights[which]
        length = round(START_S / flight.step_s) + 1
        if len(flight.states) < length:
            msg = f"{flight.name} has {len(flight.states)} frames; a start needs {length}"
            raise InputError(msg)
        first = int(rng.integers(len(flight.states) - length + 1))
        planned.append(
            FlightPart(
                part="start",
                name=f"start_{number + 1:02d}",
                steps=_stretch(which, first, length, 0.0, flight.step_s),
            )
        )
    return planned


def _moves(
    flights: Sequence[WorldFlight], count: int, rng: np.random.Generator
) -> list[FlightPart]:
    planned = []
    for number in range(count):
        which = number % len(flights)
        flight = flights[which]
        before = round(BEFORE_MOVE_S / flight.step_s)
        after = round(AFTER_MOVE_S / flight.step_s) + 1
        last, first = _far_pair(flight, before, after, rng)
        steps = _stretch(which, last - before + 1, before, 0.0, flight.step_s)
        resumed_s = steps[-1].t_s + flight.step_s
        planned.append(
            FlightPart(
                part="moved",
                name=f"moved_{number + 1:02d}",
                steps=steps + _stretch(which, first, after, resumed_s, flight.step_s),
                moved_at=before,
            )
        )
    return planned


def _far_pair(
    flight: WorldFlight, before: int, after: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Last frame before and first frame after a move, at random among all about 1 km apart."""
    lat = np.array([truth.lat_deg for truth in flight.truths])
    lon = np.array([truth.lon_deg for truth in flight.truths])
    lasts, firsts = np.arange(before - 1, len(lat)), np.arange(len(lat) - after + 1)
    apart = distance_m(lat[lasts, None], lon[lasts, None], lat[firsts], lon[firsts])
    fitting = np.argwhere((apart >= MOVED_M[0]) & (apart <= MOVED_M[1]))
    if not len(fitting):
        msg = (
            f"{flight.name} is nowhere {MOVED_M[0]:.0f} to {MOVED_M[1]:.0f} m from itself; "
            "expected a longer flight over larger ground: python -m train world WORLD "
            "--held-out-m 3000 --frames 1200"
        )
        raise InputError(msg)
    chosen = fitting[int(rng.integers(len(fitting)))]
    return int(lasts[chosen[0]]), int(firsts[chosen[1]])


def _stretch(
    flight: int, first: int, count: int, start_s: float, step_s: float
) -> tuple[Step, ...]:
    return tuple(Step(flight, first + k, round(start_s + k * step_s, 6)) for k in range(count))


def _read_flight(folder: Path) -> WorldFlight:
    telemetry = read_csv(folder / "telemetry.csv", ignore=_NO_VELOCITY).samples
    truths = read_truth(folder / "truth.csv")
    if [sample.name for sample in telemetry] != list(truths):
        msg = (
            f"{folder}/telemetry.csv and truth.csv do not name the same frames in the same order; "
            "make the world again: python -m train world"
        )
        raise InputError(msg)
    if len(truths) < 2:
        msg = f"{folder} has {len(truths)} frames; expected a flight of several"
        raise InputError(msg)
    return WorldFlight(
        name=folder.name,
        frames=folder / "frames",
        states=tuple(with_ground_height(sample.state) for sample in telemetry),
        truths=tuple(truths.values()),
    )
