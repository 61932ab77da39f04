import math
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.camera import rotation_ned
from edge_runtime.errors import InputError
from edge_runtime.state import VehicleState
from edge_runtime.states.angles import (
    angle_between_deg,
    attitude_between_deg,
    euler_deg,
    quaternion,
    turned_deg,
)
from edge_runtime.states.occurrences import MAX_LINES_A_KIND, Occurrences
from edge_runtime.states.sample import FIELDS, Sample
from edge_runtime.states.timeline import HeadingFrom, Timeline
from edge_runtime.states.track_heading import Track

ANGLE = st.floats(-180, 180)
SHARE = st.floats(0, 1)


def said_by(*states: VehicleState, max_gap_s: float = 1.0) -> tuple[Timeline, Occurrences]:
    said = Occurrences()
    timeline = Timeline(said, max_gap_s=max_gap_s)
    for state in states:
        timeline.add(Sample(state=state))
    return timeline, said


def heights(*rows: tuple[float, float], max_gap_s: float = 1.0) -> tuple[Timeline, Occurrences]:
    return said_by(*(VehicleState(t_s=t, height_m=h) for t, h in rows), max_gap_s=max_gap_s)


def test_every_field_of_a_state_is_in_one_group() -> None:
    assert sorted(FIELDS) == sorted(f.name for f in fields(VehicleState) if f.name != "t_s")


@given(ANGLE, ANGLE, SHARE)
def test_an_angle_goes_the_shorter_way(a: float, b: float, share: float) -> None:
    there = angle_between_deg(a, b, share)
    assert abs(turned_deg(a, there)) == pytest.approx(share * abs(turned_deg(a, b)), abs=1e-9)


def test_north_is_crossed_and_not_circled() -> None:
    assert angle_between_deg(350.0, 10.0, 0.5) == pytest.approx(0.0, abs=1e-9)


@given(ANGLE, st.floats(-89, 89), ANGLE)
def test_a_quaternion_is_the_rotation_of_the_camera_module(y: float, p: float, r: float) -> None:
    assert rotation_ned(*euler_deg(quaternion(y, p, r))) == pytest.approx(
        rotation_ned(y, p, r), abs=1e-6
    )


@given(ANGLE, st.floats(-50, 50), st.floats(-60, 60), ANGLE, st.floats(-50, 50), SHARE)
def test_an_attitude_turns_steadily_about_one_axis(
    y: float, p: float, r: float, y1: float, p1: float, share: float
) -> None:
    """The turn from a to the attitude between is `share` of the turn from a to b."""
    a, b = (y, p, r), (y1, p1, -r)
    between = attitude_between_deg(a, b, share)

    def turn_deg(one: tuple[float, float, float], two: tuple[float, float, float]) -> float:
        step = rotation_ned(*one).T @ rotation_ned(*two)
        return math.degrees(math.acos(np.clip((np.trace(step) - 1) / 2, -1, 1)))

    whole = turn_deg(a, b)
    assert turn_deg(a, between) == pytest.approx(share * whole, abs=1e-3)
    assert turn_deg(between, b) == pytest.approx((1 - share) * whole, abs=1e-3)


def test_a_gimbal_that_looks_down_keeps_its_yaw() -> None:
    yaw, pitch, roll = attitude_between_deg((44.0, -90.0, 0.0), (46.0, -89.8, 0.0), 0.5)
    assert (yaw, pitch, roll) == pytest.approx((45.0, -89.9, 0.0))


def test_values_between_samples_are_interpolated() -> None:
    timeline, _ = heights((0, 100.0), (1, 110.0))
    assert timeline.state_at(0.25).height_m == pytest.approx(102.5)
    assert timeline.state_at(1.0).height_m == 110.0


def test_groups_come_at_their_own_rates() -> None:
    timeline, _ = said_by(
        VehicleState(t_s=0.0, yaw_deg=10, pitch_deg=0, roll_deg=0),
        VehicleState(t_s=0.2, height_m=50),
        VehicleState(t_s=0.4, yaw_deg=20, pitch_deg=0, roll_deg=0),
    )
    state = timeline.state_at(0.2)
    assert (state.yaw_deg, state.height_m) == pytest.approx((15.0, 50.0))


@pytest.mark.parametrize(
    ("t_s", "height"),
    [(-0.9, 100.0), (-1.1, None), (0.9, 100.0), (1.5, None), (4.1, 110.0), (6.1, None)],
)
def test_nothing_holds_longer_than_the_largest_gap(t_s: float, height: float | None) -> None:
    timeline, _ = heights((0, 100.0), (5, 110.0))
    assert timeline.state_at(t_s).height_m == height


def test_a_gap_is_said_once_when_it_begins_and_once_when_it_ends() -> None:
    timeline, said = heights((0, 100.0), (5, 110.0))
    for t_s in np.arange(0.0, 5.6, 0.1):
        timeline.state_at(float(t_s))
    lines = said.taken()
    assert len(lines) == 2
    assert "no height above ground within 1 s of 1.10 s; taken as unknown" in lines[0]
    assert "known again at 4.00 s" in lines[1]
    assert said.taken() == []


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 1e6])
def test_values_no_drone_has_are_left_out_and_said_once(wrong: float) -> None:
    timeline, said = heights((0, 100.0), (0.5, wrong), (1.0, wrong), (1.5, 100.0), max_gap_s=2)
    assert timeline.state_at(0.75).height_m == 100.0
    assert len([line for line in said.taken() if "which no drone has" in line]) == 1


def test_a_spike_of_height_is_never_believed() -> None:
    timeline, said = heights((0, 100), (0.1, 400), (0.2, 101), (0.3, 101))
    assert timeline.state_at(0.1).height_m == pytest.approx(100.5)
    lines = said.taken()
    assert "jumps from 100 to 400 m at 0.10 s; not believed" in lines[0]
    assert "is back at 101" in lines[1]


def test_a_jump_is_believed_once_the_next_samples_confirm_it() -> None:
    timeline, said = heights((0, 100), (0.1, 400))
    assert timeline.state_at(0.1).height_m == 100
    for t_s in (0.2, 0.3):
        timeline.add(Sample(state=VehicleState(t_s=t_s, height_m=401)))
    assert timeline.state_at(0.25).height_m == pytest.approx(401)
    assert timeline.state_at(0.04).height_m == 100  # Nothing between the two is made up.
    assert timeline.state_at(0.06).height_m == 400
    assert "confirmed" in said.taken()[-1]


def test_a_climb_that_a_drone_can_fly_is_no_jump() -> None:
    timeline, said = heights(*((k / 10, 50 + 1.5 * k) for k in range(50)))
    assert timeline.state_at(4.0).height_m == pytest.approx(110.0)
    assert said.taken() == []


def test_yaw_may_jump() -> None:
    timeline, said = said_by(VehicleState(t_s=0, yaw_deg=0.0), VehicleState(t_s=0.1, yaw_deg=170.0))
    assert timeline.state_at(0.1).yaw_deg == 170.0
    assert said.taken() == []


def test_what_is_to_be_ignored_is_not_there() -> None:
    timeline = Timeline(Occurrences(), ignore=frozenset({"height_m", "yaw_deg"}))
    timeline.add(
        Sample(
            state=VehicleState(t_s=0, height_m=1, height_above_takeoff_m=2, yaw_deg=3, roll_deg=4)
        )
    )
    assert timeline.state_at(0.0) == VehicleState(t_s=0.0, roll_deg=4)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Timeline(Occurrences(), max_gap_s=0.0), "positive number to --max-gap-s"),
        (
            lambda: Timeline(Occurrences(), ignore=frozenset({"yaw"})),
            r"\['yaw'\]; known: .*yaw_deg",
        ),
        (lambda: Timeline(Occurrences(), heading="gps"), "heading is 'gps'; expected one of"),  # type: ignore[arg-type]
    ],
)
def test_options_that_make_no_sense_are_refused(
    make: Callable[[], Timeline], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        make()


def test_a_fault_that_comes_and_goes_does_not_flood_the_log() -> None:
    said = Occurrences()
    for _ in range(100):
        said.began("x", "broken")
        said.ended("x")
    lines = said.taken()
    assert len(lines) == MAX_LINES_A_KIND
    assert "not said again" in lines[-1]


def test_a_bounded_history_forgets_the_oldest_alone() -> None:
    timeline = Timeline(Occurrences(), keep=10)
    for k in range(1000):
        timeline.add(Sample(state=VehicleState(t_s=k * 0.1, height_m=50.0 + k * 0.01)))
    assert timeline.state_at(99.0).height_m == pytest.approx(59.9)
    assert timeline.state_at(50.0).height_m is None


def flown(
    heading: HeadingFrom, *, speed_mps: float, course_deg: float, repeats: int = 3
) -> tuple[Timeline, Occurrences]:
    """A straight line at 47 N, 30 cues a second of which `repeats` have the same position."""
    said = Occurrences()
    timeline = Timeline(said, heading=heading)
    metre_north = 1 / 111_170.0
    metre_east = metre_north / math.cos(math.radians(47.0))
    for k in range(30 * 6):
        way_m = speed_mps * (k // repeats * repeats) / 30
        timeline.add(
            Sample(
                state=VehicleState(t_s=k / 30, height_m=100.0),
                position=(
                    47.0 + way_m * math.cos(math.radians(course_deg)) * metre_north,
                    8.0 + way_m * math.sin(math.radians(course_deg)) * metre_east,
                ),
            )
        )
    return timeline, said


@pytest.mark.parametrize("course", [0.0, 80.0, 200.0, 359.0])
def test_a_track_gives_the_heading_and_the_velocity(course: float) -> None:
    timeline, _ = flown("track", speed_mps=10.0, course_deg=course)
    state = timeline.state_at(3.0)
    assert state.yaw_deg is not None
    assert turned_deg(course, state.yaw_deg) == pytest.approx(0.0, abs=0.5)
    assert state.velocity_east_mps is not None
    assert state.velocity_north_mps is not None
    speed = math.hypot(state.velocity_east_mps, state.velocity_north_mps)
    assert speed == pytest.approx(10.0, abs=0.2)


def test_positions_give_nothing_unless_a_track_is_asked_for() -> None:
    timeline, _ = flown("telemetry", speed_mps=10.0, course_deg=45.0)
    assert timeline.state_at(3.0) == VehicleState(t_s=3.0, height_m=100.0)


def test_a_drone_at_rest_has_a_velocity_and_no_heading() -> None:
    timeline, _ = flown("track", speed_mps=0.0, course_deg=45.0)
    state = timeline.state_at(3.0)
    assert state.yaw_deg is None
    assert state.velocity_north_mps == pytest.approx(0.0, abs=1e-6)


def test_a_held_heading_outlasts_the_flight() -> None:
    timeline, _ = flown("track-held", speed_mps=10.0, course_deg=80.0)
    moving = timeline.state_at(5.0).yaw_deg
    last = 47.0, 8.0
    for k in range(1, 120):
        timeline.add(Sample(state=VehicleState(t_s=6 + k / 30), position=last))
    assert timeline.state_at(9.5).yaw_deg is not None
    assert moving is not None


def test_a_track_crosses_the_date_line() -> None:
    track = Track()
    for k in range(50):
        lon = 179.9999 + k * 1e-5
        track.add(k / 10, 0.0, lon if lon < 180 else lon - 360)
    velocity = track.velocity(2.5)
    assert velocity is not None
    assert velocity.east_mps == pytest.approx(11.13, abs=0.1)


def test_zero_positions_are_not_used_and_said_once() -> None:
    said = Occurrences()
    timeline = Timeline(said, heading="track")
    for k in range(40):
        timeline.add(Sample(state=VehicleState(t_s=k / 10, height_m=9.0), position=(0.0, 0.0)))
    assert timeline.state_at(2.0) == VehicleState(t_s=2.0, height_m=9.0)
    assert len([line for line in said.taken() if "means that there is none" in line]) == 1
