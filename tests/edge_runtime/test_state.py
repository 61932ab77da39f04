"""A state is whatever is known; what is not known is None and never a number."""

import math

from edge_runtime.state import VehicleState, finite_state


def test_values_that_are_not_finite_are_not_known() -> None:
    state = VehicleState(t_s=3.0, height_m=math.nan, yaw_deg=math.inf, pitch_deg=2.0, roll_deg=0.0)
    assert finite_state(state, last_t_s=1.0) == VehicleState(t_s=3.0, pitch_deg=2.0, roll_deg=0.0)


def test_a_time_that_is_not_finite_is_the_last_one() -> None:
    assert finite_state(VehicleState(t_s=math.nan, yaw_deg=9.0), last_t_s=1.5) == VehicleState(
        t_s=1.5, yaw_deg=9.0
    )


def test_a_state_of_finite_values_is_left_as_it_is() -> None:
    state = VehicleState(t_s=1.0, height_m=80.0)
    assert finite_state(state, last_t_s=0.0) is state
