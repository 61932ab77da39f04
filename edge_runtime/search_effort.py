"""How many windows of imagery a frame is looked for in, by what is open and what time is left."""

from edge_runtime.deadline import Deadline, Effort
from edge_runtime.search_scope import SearchScope

_MORE_WINDOWS = 3
"""How many times the windows of a known pose are looked at where heading or height is open: every
pose names places of its own, and what a pose costs by itself is paid already."""


def windows_wanted(scope: SearchScope, poses: int) -> int:
    """How many windows to look at: more while neither the place nor the pose is known.

    Args:
        scope: of the frame.
        poses: headings and heights that its views were made with.
    """
    return scope.windows * (_MORE_WINDOWS if scope.near is None and poses > 1 else 1)


def effort_for(
    scope: SearchScope, poses: int, deadline: Deadline, elapsed_ms: float
) -> tuple[Effort, tuple[str, ...]]:
    """All windows wanted where time is left for them; else the scope's own, shed as ever.

    Args:
        scope: of the frame.
        poses: headings and heights that its views were made with.
        deadline: says what can be afforded.
        elapsed_ms: of this frame.

    Returns:
        As `Deadline.afford`.
    """
    wanted = windows_wanted(scope, poses)
    granted, shed = deadline.afford(wanted, elapsed_ms)
    # More windows are a gift: for them neither the fine repetition is left out nor anything shed.
    if shed and granted.windows and wanted > scope.windows:
        return deadline.afford(scope.windows, elapsed_ms)
    return granted, shed
