"""How much a correlation peak proves: its likelihood ratio of being right against being chance."""

import math
from collections.abc import Sequence

import numpy as np

from edge_runtime.geodesy import distance_m

MAX_LOG_EVIDENCE = 12.0
"""Correlation alone never proves more than this, either way."""
_RIGHT_EXCESS, _RIGHT_SPREAD = 6.0, 3.5
_CHANCE_EXCESS, _CHANCE_SPREAD = -0.2, 0.45
_USUAL_CHANCE_Z, _USUAL_CHANCE_WEIGHT = 3.9, 2.0
"""Peak of a window by chance over all development flights, and how many windows that counts for."""
_USUAL_TRIED = 57 * 57 * 21
"""Places times warps that were tried in each of those windows."""
_TRIED_PER_SAMPLE = 4.0
"""Neighbouring places and warps that say the same: one independent sample."""
_SAME_PLACE_M = 8.0


def correlation_log_evidence(excess_z: float) -> float:
    """Log-likelihood ratio of a correlation peak at the right place against a chance peak.

    Chance peaks are the maximum of many nearly independent samples and follow a Gumbel law; right
    ones spread widely around a larger value. Both laws were fitted to development flights
    (docs/accuracy.md). Below the usual chance peak and above the usual right one the densities
    are held, because fitted tails mean nothing there; so the ratio only grows with the excess.

    Args:
        excess_z: the peak's z above the usual peak of the frame's other windows.

    Returns:
        Natural logarithm, limited to plus and minus MAX_LOG_EVIDENCE.
    """
    right = (min(excess_z, _RIGHT_EXCESS) - _RIGHT_EXCESS) / _RIGHT_SPREAD
    chance = (max(excess_z, _CHANCE_EXCESS) - _CHANCE_EXCESS) / _CHANCE_SPREAD
    log_right = -0.5 * right * right - math.log(_RIGHT_SPREAD * math.sqrt(2 * math.pi))
    log_chance = -chance - math.exp(-chance) - math.log(_CHANCE_SPREAD)
    return max(-MAX_LOG_EVIDENCE, min(log_right - log_chance, MAX_LOG_EVIDENCE))


def usual_chance_z(tried: int) -> float:
    """Peak that chance usually reaches where so many places and warps were tried.

    The maximum of n independent normal samples lies near sqrt(2 ln n), so a smaller search has
    lower chance peaks.

    Args:
        tried: places times warps.
    """

    def top(count: float) -> float:
        return math.sqrt(2 * math.log(max(count / _TRIED_PER_SAMPLE, 2.0)))

    return _USUAL_CHANCE_Z + top(tried) - top(_USUAL_TRIED)


def peaks_log_evidence(
    lat_deg: Sequence[float], lon_deg: Sequence[float], z: Sequence[float], *, tried: int
) -> list[float]:
    """Judge every peak of a frame against what its peaks elsewhere reach by chance.

    How high chance peaks rise depends on the frame (orchards and housing estates repeat
    themselves), and the windows that name other places tell how high.

    Args:
        lat_deg: where each peak puts the drone, degrees.
        lon_deg: the same.
        z: of each peak.
        tried: places times warps looked at for each.

    Returns:
        `correlation_log_evidence` of each.
    """
    usual_z = usual_chance_z(tried)
    lat, lon, heights = np.asarray(lat_deg), np.asarray(lon_deg), np.asarray(z)
    judged = []
    for k in range(len(z)):
        elsewhere = heights[distance_m(lat[k], lon[k], lat, lon) > _SAME_PLACE_M]
        usual = float(np.median(elsewhere)) if len(elsewhere) else usual_z
        weight = len(elsewhere) / (len(elsewhere) + _USUAL_CHANCE_WEIGHT)
        background = weight * usual + (1 - weight) * usual_z
        judged.append(correlation_log_evidence(float(heights[k]) - background))
    return judged
