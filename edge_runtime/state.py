"""What the aircraft knows of itself when a frame is taken."""

import math
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, kw_only=True)
class VehicleState:
    """Everything known at one exposure. None means not known, never zero."""

    t_s: float
    """Exposure time, seconds on the telemetry's clock."""
    height_m: float | None = None
    """Above the ground below, as measured or given. Where it is known it wins over the next one."""
    height_above_takeoff_m: float | None = None
    """Above the place of take-off, as a barometer says. `with_ground_height` makes of it a height
    above the ground where there is no better one."""
    yaw_deg: float | None = None
    """Heading of the airframe, clockwise from north."""
    pitch_deg: float | None = None
    """Airframe pitch, nose up positive."""
    roll_deg: float | None = None
    """Airframe roll, right side down positive."""
    gimbal_yaw_deg: float | None = None
    """Camera yaw clockwise from north."""
    gimbal_pitch_deg: float | None = None
    """Camera pitch relative to the horizon, -90 straight down."""
    gimbal_roll_deg: float | None = None
    """Camera roll relative to the horizon."""
    velocity_east_mps: float | None = None
    """Ground speed towards east."""
    velocity_north_mps: float | None = None
    """Ground speed towards north."""


def finite_state(state: VehicleState, *, last_t_s: float) -> VehicleState:
    """Take values that are not finite for not known, and such a time for the last one."""
    wrong = [f.name for f in fields(state) if not math.isfinite(getattr(state, f.name) or 0.0)]
    if not wrong:
        return state
    values: dict[str, float | None] = dict.fromkeys(wrong)
    if "t_s" in values:
        values["t_s"] = last_t_s
    return replace(state, **values)  # type: ignore[arg-type]


def with_ground_height(state: VehicleState, *, ground_above_takeoff_m: float = 0.0) -> VehicleState:
    """Fill `height_m` from the height above take-off where nothing measured it.

    The one rule: a measured height above the ground wins; else the height above take-off less
    what the ground below lies higher than the place of take-off.

    Args:
        state: any state.
        ground_above_takeoff_m: by a terrain model (`terrain.TakeoffTerrain`); 0 takes the ground as
            flat, and a value that is not finite says nothing, so it counts as 0.
    """
    if state.height_m is not None or state.height_above_takeoff_m is None:
        return state
    rise_m = ground_above_takeoff_m if math.isfinite(ground_above_takeoff_m) else 0.0
    return replace(state, height_m=state.height_above_takeoff_m - rise_m)
