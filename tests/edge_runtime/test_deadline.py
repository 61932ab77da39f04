"""What is left out of a frame to keep its deadline."""

import pytest

from edge_runtime.deadline import Deadline, Effort


def learned(
    deadline_ms: float | None, *, window_ms: float = 10.0, fine_ms: float = 20.0
) -> Deadline:
    """A deadline that has seen many frames of 4 windows."""
    deadline = Deadline(deadline_ms)
    for _ in range(60):
        deadline.spent(Effort(4, True), 4 * window_ms, fine_ms)
    return deadline


@pytest.mark.parametrize(
    ("elapsed_ms", "effort", "shed"),
    [
        (0.0, Effort(4, True), ()),
        (37.9, Effort(4, True), ()),
        (38.1, Effort(4, False), ("refine",)),
        (57.9, Effort(4, False), ("refine",)),
        (58.1, Effort(3, False), ("refine", "candidates")),
        (87.9, Effort(1, False), ("refine", "candidates")),
        (88.1, Effort(0, False), ("frame",)),
        (500.0, Effort(0, False), ("frame",)),
    ],
)
def test_refinement_goes_first_then_candidates_then_the_frame(
    elapsed_ms: float, effort: Effort, shed: tuple[str, ...]
) -> None:
    assert learned(100.0).afford(4, elapsed_ms) == (effort, shed)


def test_without_a_deadline_nothing_is_shed() -> None:
    deadline = learned(None)
    assert deadline.afford(20, 1e9) == (Effort(20, True), ())
    assert not deadline.missed(1e9)


def test_a_machine_that_turns_slow_is_noticed_within_some_frames() -> None:
    deadline = learned(100.0)
    for _ in range(15):
        deadline.spent(Effort(4, True), 4 * 40.0, 20.0)
    assert deadline.afford(4, 0.0)[0].windows < 4


def test_a_frame_that_did_nothing_teaches_nothing() -> None:
    deadline = learned(100.0)
    deadline.spent(Effort(0, False), 0.0, 0.0)
    assert deadline.afford(4, 0.0) == (Effort(4, True), ())


def test_a_stall_does_not_shed_for_ever() -> None:
    deadline = learned(50.0, window_ms=400.0)
    shed = [deadline.afford(1, 5.0)[1] for _ in range(20)]
    assert shed[0] == ("frame",)
    assert shed[-1] != ("frame",)


def test_a_deadline_is_missed_only_when_it_is_over() -> None:
    assert [Deadline(100.0).missed(ms) for ms in (99.0, 100.0, 100.1)] == [False, False, True]
