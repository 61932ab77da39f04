"""What matches have shown of the errors of heading and height: compass bias, altimeter offset.

These errors change slowly, so a track that knows them searches few headings and scales where one
that begins searches many.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

_YAW_DRIFT_DEG = 1.0
"""1-sigma by which a compass's error changes in a second."""
_SCALE_DRIFT = 0.006
"""1-sigma by which the relative error of height changes in a second: ground that rises."""
_YAW_STEP_SIGMA_DEG = 1.0
"""1-sigma of the heading of one match: headings are tried in steps of 2 degrees."""
_SCALE_STEP_SIGMA = 0.01
"""1-sigma of the height of one match: scales are tried in steps of 2 %."""
_MOST_SCALE = 0.25
"""Heights farther off than this are no offset but another height."""


@dataclass
class _Slow:
    """One slowly changing error: a scalar Kalman filter."""

    start_sigma: float
    drift: float
    value: float = 0.0
    sigma: float = field(init=False)

    def __post_init__(self) -> None:
        self.sigma = self.start_sigma

    def predict(self, dt_s: float) -> None:
        self.sigma = min((self.sigma**2 + self.drift**2 * max(dt_s, 0.0)) ** 0.5, self.start_sigma)

    def update(self, residual: float, sigma: float) -> None:
        gain = self.sigma**2 / (self.sigma**2 + sigma**2)
        self.value += gain * residual
        self.sigma *= (1 - gain) ** 0.5


class PoseCorrection:
    """Learned corrections to heading and height. Not thread-safe."""

    def __init__(self, yaw_sigma_deg: float, scale_sigma: float) -> None:
        """Start from no correction, with the 1-sigma errors of the sensors."""
        self._yaw = _Slow(yaw_sigma_deg, _YAW_DRIFT_DEG)
        self._scale = _Slow(scale_sigma, _SCALE_DRIFT)

    @property
    def yaw_deg(self) -> float:
        """To be added to the heading, clockwise."""
        return self._yaw.value

    @property
    def scale(self) -> float:
        """To be multiplied with the height."""
        return 1.0 + self._scale.value

    @property
    def yaw_sigma_deg(self) -> float:
        """1-sigma of the heading after correction."""
        return self._yaw.sigma

    @property
    def scale_sigma(self) -> float:
        """1-sigma of the height after correction, relative."""
        return self._scale.sigma

    @property
    def known(self) -> bool:
        """Whether matches have narrowed both errors well below the sensors' own."""
        return self._yaw.sigma <= 2.5 and self._scale.sigma <= 0.02

    def predict(self, dt_s: float) -> None:
        """Let time pass: what was learned grows old."""
        self._yaw.predict(dt_s)
        self._scale.predict(dt_s)

    def learn(self, yaw_residual_deg: float, scale_ratio: float) -> None:
        """Take a trusted match: its heading less the corrected one, its height over it."""
        self._yaw.update(yaw_residual_deg, _YAW_STEP_SIGMA_DEG)
        self._scale.update((scale_ratio - 1.0) * self.scale, _SCALE_STEP_SIGMA)
        self._scale.value = min(max(self._scale.value, -_MOST_SCALE), _MOST_SCALE)

    def forget(self) -> None:
        """Start again: the track that taught it was wrong or is gone."""
        for slow in (self._yaw, self._scale):
            slow.value, slow.sigma = 0.0, slow.start_sigma

    def snapshot(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {"yaw": asdict(self._yaw), "scale": asdict(self._scale)}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Take the state that `snapshot` gave."""
        for name, slow in (("yaw", self._yaw), ("scale", self._scale)):
            slow.value, slow.sigma = snapshot[name]["value"], snapshot[name]["sigma"]
