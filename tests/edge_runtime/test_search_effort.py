"""How widely a frame is searched while nothing is known, and what a deadline leaves of it."""

from dataclasses import replace

import pytest

from edge_runtime.deadline import Deadline, Effort
from edge_runtime.matches import SearchRange
from edge_runtime.satellite_index import Circle
from edge_runtime.search_effort import effort_for, windows_wanted
from edge_runtime.search_scope import SearchScope

EVERYWHERE = SearchScope(
    near=None, windows=20, reach_m=42.0, range=SearchRange((0.0,), (1.0,)), searched_m2=1e6
)
NEAR = replace(EVERYWHERE, near=Circle(47.5, 8.3, 100.0), windows=4)


def test_a_pose_that_is_not_known_is_looked_for_in_more_windows() -> None:
    assert windows_wanted(EVERYWHERE, 1) == 20
    assert windows_wanted(EVERYWHERE, 2) == windows_wanted(EVERYWHERE, 12) == 60


def test_near_a_known_place_no_more_windows_are_looked_at_than_ever() -> None:
    assert windows_wanted(NEAR, 1) == windows_wanted(NEAR, 4) == 4


def test_without_a_deadline_all_windows_wanted_are_looked_at() -> None:
    assert effort_for(EVERYWHERE, 12, Deadline(None), 0.0) == (Effort(60, True), ())


@pytest.mark.parametrize("poses", [1, 12])
@pytest.mark.parametrize("deadline_ms", [5.0, 30.0, 61.0, 75.0, 100.0, 180.0, 189.0, 1000.0])
def test_more_windows_never_cost_what_the_usual_ones_had(poses: int, deadline_ms: float) -> None:
    """At first 3 ms a window and 8 ms for the fine repetition are expected."""
    granted, shed = effort_for(EVERYWHERE, poses, Deadline(deadline_ms), 0.0)
    usual, usual_shed = Deadline(deadline_ms).afford(EVERYWHERE.windows, 0.0)
    assert shed == usual_shed
    assert granted.fine == usual.fine
    assert granted.windows == usual.windows or (granted.windows == 60 and not shed)


def test_more_windows_come_as_soon_as_time_is_left_for_all_of_them() -> None:
    wide = 2.0 + 60 * 3.0 + 8.0
    assert effort_for(EVERYWHERE, 12, Deadline(wide), 0.0)[0] == Effort(60, True)
    assert effort_for(EVERYWHERE, 12, Deadline(wide - 0.1), 0.0)[0] == Effort(20, True)
    assert effort_for(EVERYWHERE, 12, Deadline(wide + 50.0), 50.1)[0] == Effort(20, True)


def test_a_frame_without_time_is_left_out_once() -> None:
    """Each frame that is left out makes the next one's expected time milder; only so much."""
    once, twice = Deadline(4.9), Deadline(4.9)
    assert (
        effort_for(EVERYWHERE, 12, once, 0.0)
        == twice.afford(20, 0.0)
        == (
            Effort(0, False),
            ("frame",),
        )
    )
    assert effort_for(EVERYWHERE, 12, once, 0.0) == twice.afford(20, 0.0)
