"""What a tile's similarity says of a predicted place."""

import math
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.bundle import Bundle
from edge_runtime.satellite_index import SatelliteIndex
from edge_runtime.similarity_evidence import UsualSimilarity, similarity_log_evidence


def test_a_tile_like_any_other_speaks_against_and_a_similar_one_for() -> None:
    assert similarity_log_evidence(0.0) < -2
    assert similarity_log_evidence(2.5) > 1


def test_the_evidence_grows_with_the_similarity_and_is_limited() -> None:
    found = [similarity_log_evidence(z) for z in np.linspace(-10, 10, 201)]
    assert found == sorted(found)
    assert min(found) == -3.0
    assert max(found) == pytest.approx(2.0, abs=0.2)


def test_no_tile_says_nothing() -> None:
    assert similarity_log_evidence(math.nan) == 0.0


def test_the_usual_similarity_is_the_maps_own(index_dir: Path, bundle: Bundle) -> None:
    index = SatelliteIndex.open(index_dir, bundle)
    queries = np.random.default_rng(3).normal(size=(2, index.embeddings.shape[1]))
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    usual, spread = UsualSimilarity(index).spread(queries, index.level)
    found = index.search(queries, len(index))
    for v in range(2):
        everywhere = found.similarities[v][found.rows[v] >= 0]
        assert usual[v] == pytest.approx(np.median(everywhere), abs=0.1)
        assert spread[v] == pytest.approx(
            1.4826 * np.median(np.abs(everywhere - np.median(everywhere))), rel=0.3
        )
    index.close()
