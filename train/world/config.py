"""What a made-up world consists of."""

import math
import os
from dataclasses import dataclass

from edge_runtime.camera import Camera
from edge_runtime.errors import InputError

MAX_PHOTO_TILT_DEG = 6.0
"""Largest roll and pitch of a training photo."""
MAX_FLIGHT_TILT_DEG = 12.0
"""Largest bank or pitch in flight."""


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Size and seed of a made-up world. The same config gives the same bytes on one machine."""

    seed: int = 7
    """Seed of everything random; 0 or more."""
    train_size_m: float = 2000.0
    """Side of the square training ground."""
    train_photos: int = 1500
    """Photos at random poses over the training ground."""
    held_out_size_m: float = 1500.0
    """Side of the square held-out ground."""
    flights: int = 2
    """Flights over the held-out ground; 0 leaves only its imagery."""
    frames_per_flight: int = 100
    """Frames of each flight."""
    satellite_gsd_m: float = 0.5
    """Ground metres per pixel of the satellite imagery."""
    drone_gsd_m: float = 0.25
    """Ground metres per pixel of the rendering that photos are warped from."""
    min_height_m: float = 100.0
    """Lowest height above ground of photos and flights."""
    max_height_m: float = 140.0
    """Greatest height above ground of photos and flights."""
    speed_mps: float = 12.0
    """Ground speed in flight."""
    frame_rate_hz: float = 2.0
    """Frames per second in flight."""
    photo_width_px: int = 640
    """Width of the photos."""
    photo_height_px: int = 480
    """Height of the photos."""
    hfov_deg: float = 70.0
    """Horizontal field of view of the drone's camera."""
    centre_lat_deg: float = 47.6
    """Latitude of the north-west corner of the training ground (to the next 100 m of UTM)."""
    centre_lon_deg: float = 15.2
    """Longitude of the same corner; must lie in UTM zone 33 (12 to 18 degrees)."""
    yaw_sigma_deg: float = 5.0
    """Standard deviation of the measured yaw's error, bias, drift and noise together."""
    tilt_sigma_deg: float = 0.7
    """Standard deviation of the noise in measured roll and pitch."""
    height_sigma: float = 0.02
    """Standard deviation of the barometric height's bias, a fraction of the height."""
    velocity_sigma_mps: float = 0.5
    """Standard deviation of the noise in measured velocity, each component."""
    threads: int = os.cpu_count() or 1
    """Threads that render photos; does not change the result."""

    def __post_init__(self) -> None:
        """Refuse what cannot be made."""
        if self.seed < 0:
            msg = f"seed is {self.seed}; give 0 or more"
            raise InputError(msg)
        for name in ("train_photos", "flights", "frames_per_flight"):
            if getattr(self, name) < 0:
                msg = f"{name} is {getattr(self, name)}; give 0 or more"
                raise InputError(msg)
        positive = ("satellite_gsd_m", "drone_gsd_m", "min_height_m", "speed_mps", "frame_rate_hz")
        for name in (*positive, "threads"):
            if not getattr(self, name) > 0:
                msg = f"{name} is {getattr(self, name)}; it must be positive"
                raise InputError(msg)
        if not self.min_height_m <= self.max_height_m:
            msg = f"heights {self.min_height_m} to {self.max_height_m} m: give the lower one first"
            raise InputError(msg)
        if not (12 < self.centre_lon_deg < 17.5 and 0 < self.centre_lat_deg < 80):
            msg = (
                f"({self.centre_lat_deg}, {self.centre_lon_deg}) is not in UTM zone 33 north; "
                "give latitude 0 to 80 and longitude 12 to 17.5 degrees"
            )
            raise InputError(msg)
        tilt_deg = MAX_PHOTO_TILT_DEG
        photo_reach_m = self.reach_m(tilt_deg) + self.reach_m(-tilt_deg)
        if self.train_size_m < photo_reach_m + 2:
            msg = (
                f"train_size_m is {self.train_size_m:.0f}, but photos from "
                f"{self.max_height_m:.0f} m see up to {photo_reach_m:.0f} m; "
                "give a larger ground or a lower max_height_m"
            )
            raise InputError(msg)
        flight_reach_m = 2 * self.reach_m(MAX_FLIGHT_TILT_DEG)
        if self.flights and self.held_out_size_m < flight_reach_m + 60:
            msg = (
                f"held_out_size_m is {self.held_out_size_m:.0f}, but flights at "
                f"{self.max_height_m:.0f} m need {flight_reach_m + 60:.0f} m; "
                "give a larger ground, a lower max_height_m or no flights"
            )
            raise InputError(msg)
        if self.held_out_size_m < 50:
            msg = f"held_out_size_m is {self.held_out_size_m}; give at least 50 m"
            raise InputError(msg)

    def camera(self) -> Camera:
        """The drone's camera: rigid, straight down."""
        return Camera.from_hfov(
            self.photo_width_px,
            self.photo_height_px,
            self.hfov_deg,
            mount_pitch_deg=-90.0,
            stabilised=False,
        )

    def reach_m(self, tilt_deg: float) -> float:
        """Farthest ground seen from below the drone, at the greatest height and a tilt."""
        camera = self.camera()
        corner = math.hypot(camera.width_px / 2 / camera.fx_px, camera.height_px / 2 / camera.fy_px)
        # Roll and pitch may both be at their limit.
        angle_deg = math.degrees(math.atan(corner)) + tilt_deg * math.sqrt(2)
        if angle_deg >= 80:
            msg = f"hfov_deg {self.hfov_deg} sees the horizon when the drone tilts; give less"
            raise InputError(msg)
        return self.max_height_m * math.tan(math.radians(angle_deg))
