"""What one line of a log or one message says: some of a state, and perhaps a position."""

from dataclasses import dataclass

from edge_runtime.state import VehicleState

GROUPS: dict[str, tuple[str, ...]] = {
    "height": ("height_m",),
    "takeoff": ("height_above_takeoff_m",),
    "attitude": ("yaw_deg", "pitch_deg", "roll_deg"),
    "gimbal": ("gimbal_yaw_deg", "gimbal_pitch_deg", "gimbal_roll_deg"),
    "velocity": ("velocity_east_mps", "velocity_north_mps"),
}
"""Fields of VehicleState that are measured together. Groups come at rates of their own."""

FIELDS = tuple(name for names in GROUPS.values() for name in names)
"""Every field of VehicleState but its time."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was said at one moment."""

    state: VehicleState
    """`t_s` on the source's clock; None in every field it says nothing about."""
    position: tuple[float, float] | None = None
    """(lat, lon) where it was said: to score, to check its order and for a heading from the track.
    The localizer never sees it."""
    name: str = ""
    """File name of the frame it belongs to, if it names one."""
