"""What the similarity of a place's tile says of a place that was not chosen by similarity.

A search of the whole map gives the tiles that are most similar, right or not, so their similarity
proves little. The place that a track predicts is another matter: if the drone is there, its tile is
far more similar to the view than tiles of the map usually are.
"""

import math

import numpy as np
import numpy.typing as npt

from edge_runtime.index_format import TileLevel
from edge_runtime.satellite_index import SatelliteIndex, centred

F32 = npt.NDArray[np.float32]

_SAMPLE_TILES = 256
_RIGHT_Z, _RIGHT_SPREAD = 2.5, 1.0
_CHANCE_Z, _CHANCE_SPREAD = 0.6, 0.9
"""Similarity of the best tile around the right place and around any other, in standard deviations
of the map's tiles: right ones have 5 % below 1.2 on two real flights and 2.8 on a made-up one."""
_LEAST, _MOST = -3.0, 2.0
"""The two laws are rough, so they are not believed far out."""


class UsualSimilarity:
    """How similar the tiles of a map usually are to a view. Not thread-safe."""

    def __init__(self, index: SatelliteIndex) -> None:
        self._index = index
        self._samples: dict[int, F32] = {}

    def spread(self, embeddings: F32, level: TileLevel) -> tuple[F32, F32]:
        """Median and standard deviation of the similarities to tiles all over the map.

        Args:
            embeddings: (V, D) float32, of views.
            level: the tiles that are looked at.

        Returns:
            Two (V,) float32.
        """
        sample = self._samples.get(level.first_row)
        if sample is None:
            steps = np.linspace(0, level.rows - 1, min(_SAMPLE_TILES, level.rows))
            rows = level.first_row + steps.astype(np.int64)
            sample = self._samples[level.first_row] = self._index.unit_embeddings(rows)
        similarities = centred(embeddings, self._index.centre) @ sample.T
        usual = np.median(similarities, axis=1)
        spread = 1.4826 * np.median(np.abs(similarities - usual[:, None]), axis=1)
        return usual.astype(np.float32), np.maximum(spread, 1e-6).astype(np.float32)


def similarity_log_evidence(z: float) -> float:
    """Log-likelihood ratio of a predicted place being right, by its tile's similarity.

    Args:
        z: similarity in standard deviations above the usual; NaN where there is no tile.

    Returns:
        Natural logarithm, limited; 0 where nothing is known.
    """
    if math.isnan(z):
        return 0.0
    # Beyond the usual right one the ratio is held, as it is for correlations.
    z = min(z, _RIGHT_Z)
    right = -0.5 * ((z - _RIGHT_Z) / _RIGHT_SPREAD) ** 2 - math.log(_RIGHT_SPREAD)
    chance = -0.5 * (max(z - _CHANCE_Z, 0.0) / _CHANCE_SPREAD) ** 2 - math.log(_CHANCE_SPREAD)
    return min(max(right - chance, _LEAST), _MOST)
