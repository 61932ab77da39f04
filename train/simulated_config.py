"""How far simulated drone views may differ from the imagery they are made of."""

import math
from dataclasses import dataclass

from edge_runtime.camera import Camera
from edge_runtime.errors import InputError

_RANGES = (
    ("heading_sigma_deg", 0, 180),
    ("scale_sigma", 0, 0.5),
    ("tilt_sigma_deg", 0, 30),
    ("lens_sigma", 0, 0.5),
    ("offset_sigma_m", 0, 1000),
    ("relief_m", 0, 100),
    ("exposure_stops", 0, 4),
    ("contrast", 0, 2),
    ("gamma", 0, 2),
    ("white_balance", 0, 1),
    ("channel_mix", 0, 1),
    ("saturation", 0, 2),
    ("equalised", 0, 1),
    ("haze", 0, 1),
    ("cast_shadows", 0, 1),
    ("cloud_shadows", 0, 1),
    ("season", 0, 1),
    ("materials", 0, 1),
    ("cars_per_hectare", 0, 1000),
    ("repainted_per_hectare", 0, 1000),
    ("blur_m", 0, 100),
    ("sharpen", 0, 10),
    ("tile_blur_m", 0, 100),
    ("tile_relit", 0, 1),
    ("detail_m", 0, 100),
    ("lost_detail", 0, 1),
    ("foreign_detail", 0, 10),
    ("texture", 0, 1),
    ("noise", 0, 1),
)
"""Lowest and highest value of each number, both allowed. NaN is in no range."""


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """What differs between a photograph and the imagery, and how much.

    Sigmas are of Gaussians; what says so is a probability; all else is the largest of amounts that
    are spread evenly from none. 0 turns a difference off.
    """

    camera: Camera | None = None
    """The camera that will fly. None: one that looks straight down, 70 degrees wide, 16:9."""
    height_m: tuple[float, float] | None = None
    """Lowest and highest height above ground. None: where the camera's shorter side just covers the
    encoder's view."""
    heading_sigma_deg: float = 4.0
    """Error of the heading: compass, declination, mounting."""
    scale_sigma: float = 0.06
    """Relative error of scale: height above a ground that is not flat, focal length."""
    tilt_sigma_deg: float = 2.0
    """Error of pitch and of roll, each: gimbal, mounting."""
    lens_sigma: float = 0.02
    """Error of the radial lens term k1."""
    offset_sigma_m: float = 2.0
    """Error of the place itself, each axis: imagery lies metres off. Shifts between the tiles of an
    index come on top, in training."""
    relief_m: float = 10.0
    """Roofs and trees stand up to this high, and lean away from the point below the camera."""
    exposure_stops: float = 0.5
    """Brightness, up or down, in factors of 2."""
    contrast: float = 0.5
    """Contrast, up or down, in factors of 2."""
    gamma: float = 0.6
    """Exponent of the tone curve, up or down, in factors of 2."""
    white_balance: float = 0.15
    """Relative gain of each channel, up or down."""
    channel_mix: float = 0.1
    """Share of each channel that comes from the others."""
    saturation: float = 0.7
    """Colourfulness, up or down, relative."""
    equalised: float = 0.15
    """Probability that the view's histogram is equalised in part: maps often are, so a photograph
    and its map differ by such a curve."""
    haze: float = 0.3
    """Share of the light that is haze."""
    cast_shadows: float = 0.6
    """Probability that things cast shadows from another sun."""
    cloud_shadows: float = 0.2
    """Probability of the shadow of a cloud."""
    season: float = 0.6
    """Probability that green turns to another green, brown, yellow or grey."""
    materials: float = 0.15
    """Change of colour by colour: surfaces that another sensor sees brighter or darker."""
    cars_per_hectare: float = 15.0
    """Cars that came, and as many that went."""
    repainted_per_hectare: float = 8.0
    """Roofs and fields of another colour."""
    blur_m: float = 0.5
    """Sigma of the photograph's blur on the ground: focus, motion, haze."""
    sharpen: float = 2.0
    """The photograph is sharper than the imagery: its detail is raised by this factor."""
    tile_blur_m: float = 0.5
    """Sigma of a blur of the tile, the other way to a photograph that is sharper."""
    tile_relit: float = 0.0
    """Probability that a tile has another season, light and tone, too."""
    detail_m: float = 0.8
    """Detail finer than about this is exchanged: what a photograph resolves and imagery does not,
    and what two days do not share, is mostly this fine."""
    lost_detail: float = 0.3
    """Share of the imagery's own detail that the photograph does not have."""
    foreign_detail: float = 0.4
    """Strength of detail from elsewhere on the imagery in its place."""
    texture: float = 0.03
    """Fine detail that imagery does not have, standard deviation in 0..1."""
    noise: float = 0.02
    """Sensor noise, standard deviation in 0..1."""
    jpeg_quality: tuple[int, int] = (50, 95)
    """Lowest and highest JPEG quality of the view."""

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            InputError: a value is out of its range; the range is named.
        """
        for name, lowest, highest in _RANGES:
            value = getattr(self, name)
            if not lowest <= value <= highest:
                msg = f"{name} is {value}; expected {lowest} to {highest}"
                raise InputError(msg)
        if self.height_m is not None:
            low, high = self.height_m
            if not 1 < low <= high < math.inf:
                msg = f"height_m is {low} to {high} m; expected 1 < lowest <= highest"
                raise InputError(msg)
        worst, best = self.jpeg_quality
        if not 1 <= worst <= best <= 100:
            msg = f"jpeg_quality is {worst} to {best}; expected 1 <= lowest <= highest <= 100"
            raise InputError(msg)
