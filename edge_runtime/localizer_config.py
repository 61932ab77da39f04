"""Choices of one run, checked before anything is opened."""

import math
from dataclasses import dataclass

from edge_runtime.errors import InputError

_LIMITS: dict[str, tuple[float, float]] = {
    "top_k": (1, 10_000),
    "global_windows": (1, 10_000),
    "track_windows": (1, 10_000),
    "yaw_sigma_deg": (0, 90),
    "scale_sigma": (0, 0.3),
    "attitude_sigma_deg": (0, 45),
    "ok_probability": (0, 1),
    "max_eph_m": (0, 100_000),
    "lost_after_s": (0, 3600),
    "deadline_ms": (0.01, 600_000),
}
"""Lowest and highest value of each number in LocalizerConfig."""


@dataclass(frozen=True, kw_only=True)
class LocalizerConfig:
    """Choices of one run.

    Raises:
        InputError: a number that makes no sense.
    """

    top_k: int = 60
    """Tiles asked of the index, per frame."""
    global_windows: int = 20
    """Windows of imagery refined while the position is unknown."""
    track_windows: int = 4
    """Windows of imagery refined near a known position."""
    yaw_sigma_deg: float = 5.0
    """1-sigma of the heading; twice this is searched on both sides."""
    scale_sigma: float = 0.04
    """1-sigma of the height, relative."""
    attitude_sigma_deg: float = 1.0
    """1-sigma of roll and pitch: moves the drone against the ground it sees."""
    ok_probability: float = 0.995
    """A position is given as OK only when it is believed at least this much."""
    max_eph_m: float = 30.0
    """A position less accurate than this is not given."""
    lost_after_s: float = 3.0
    """Without an agreeing match for this long (and three frames), the drone is lost."""
    height_range_m: tuple[float, float] | None = None
    """Heights to search when the state has none."""
    deadline_ms: float | None = None
    """Time one frame may take; work is shed to keep it."""

    def __post_init__(self) -> None:
        """Check every number."""
        for name, (lowest, highest) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:
                msg = f"{name} is {value}; expected a number from {lowest} to {highest}"
                raise InputError(msg)
        if self.height_range_m is not None:
            low, high = self.height_range_m
            if not 0 < low <= high < math.inf:
                msg = f"height_range_m is {low} to {high}; expected 0 < LOW <= HIGH in metres"
                raise InputError(msg)
