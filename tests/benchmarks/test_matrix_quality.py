import numpy as np
import pytest

from benchmarks.matrix.pictures import Pictures
from benchmarks.matrix.quality import Embedded, embed_all, quality
from edge_runtime.geodesy import distance_m, move_lat_lon

SIDE = 6
STRIDE_M = 25.0


def _grid() -> np.ndarray:
    """(36, 2) places 25 m apart."""
    at = [
        move_lat_lon(47.0, 15.0, STRIDE_M * (k % SIDE), STRIDE_M * (k // SIDE))
        for k in range(SIDE * SIDE)
    ]
    return np.array([(float(p.lat_deg), float(p.lon_deg)) for p in at])


@pytest.fixture
def seen() -> Pictures:
    """Ten queries, each 3 m from the tile of the same number."""
    tiles = _grid()
    near = [move_lat_lon(lat, lon, 3.0, 0.0) for lat, lon in tiles[:10]]
    return Pictures(
        queries=np.zeros((10, 4, 4, 3), np.uint8),
        tiles=np.zeros((len(tiles), 4, 4, 3), np.uint8),
        query_places=np.array([(float(p.lat_deg), float(p.lon_deg)) for p in near]),
        tile_places=tiles,
        data="made up",
    )


@pytest.fixture
def right() -> Embedded:
    """Embeddings with which every query finds its own tile."""
    rng = np.random.default_rng(3)
    tiles = rng.normal(size=(SIDE * SIDE, 24)).astype(np.float32)
    tiles /= np.linalg.norm(tiles, axis=1, keepdims=True)
    queries = tiles[:10] + 0.05 * rng.normal(size=(10, 24)).astype(np.float32)
    return Embedded(queries / np.linalg.norm(queries, axis=1, keepdims=True), tiles)


def test_the_reference_agrees_with_itself_and_finds_all(right: Embedded, seen: Pictures) -> None:
    found = quality(right, right, seen, by="itself", trained=True)
    assert found.min_cosine == pytest.approx(1.0, abs=1e-6)
    assert (found.top1_agreement, found.recall_at_1, found.success_20m) == (1.0, 1.0, 1.0)
    assert (found.pictures, found.gallery, found.reference) == (46, 36, "itself")


def test_two_swapped_queries_are_two_misses_of_ten(right: Embedded, seen: Pictures) -> None:
    swapped = right.queries.copy()
    swapped[[0, 9]] = swapped[[9, 0]]
    found = quality(Embedded(swapped, right.tiles), right, seen, by="it", trained=True)
    assert (found.top1_agreement, found.recall_at_1, found.success_20m) == (0.8, 0.8, 0.8)
    assert found.min_cosine < 0.9
    assert found.median_cosine == pytest.approx(1.0, abs=1e-6)


def test_what_is_not_finite_is_found_by_nobody_and_counts_as_a_miss(
    right: Embedded, seen: Pictures
) -> None:
    tiles, queries = right.tiles.copy(), right.queries.copy()
    tiles[2], queries[5] = np.nan, np.inf
    found = quality(Embedded(queries, tiles), right, seen, by="it", trained=True)
    assert (found.top1_agreement, found.recall_at_1) == (0.8, 0.8)
    assert found.min_cosine == -1.0


def test_an_encoder_that_answers_nothing_finite_is_right_nowhere(
    right: Embedded, seen: Pictures
) -> None:
    nothing = Embedded(np.full_like(right.queries, np.nan), np.full_like(right.tiles, np.nan))
    found = quality(nothing, right, seen, by="it", trained=True)
    assert (found.min_cosine, found.median_cosine) == (-1.0, -1.0)
    assert (found.top1_agreement, found.recall_at_1, found.success_20m) == (0.0, 0.0, 0.0)


def test_weights_that_are_not_trained_have_no_recall_and_say_why(
    right: Embedded, seen: Pictures
) -> None:
    found = quality(right, right, seen, by="it", trained=False)
    assert found.recall_at_1 is None
    assert found.success_20m is None
    assert found.data == "made up; no recall: the weights are not trained for finding places"


def test_recall_and_success_agree_with_a_plain_loop(seen: Pictures) -> None:
    rng = np.random.default_rng(8)
    tiles = rng.normal(size=(36, 12)).astype(np.float32)
    # Alike enough to their own tile to be right now and then.
    queries = tiles[:10] + 1.2 * rng.normal(size=(10, 12)).astype(np.float32)
    found = quality(Embedded(queries, tiles), Embedded(queries, tiles), seen, by="it", trained=True)
    centre = tiles.mean(axis=0)
    right = near = 0
    for k in range(10):
        scores = []
        for tile in tiles:
            a, b = queries[k] - centre, tile - centre
            scores.append(float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b)))
        best = int(np.argmax(scores))
        right += best == k
        apart_m = float(distance_m(*seen.query_places[k], *seen.tile_places[best]))
        near += apart_m <= 20.0
    assert 0 < right < 10
    assert (found.recall_at_1, found.success_20m) == (right / 10, near / 10)


def test_pictures_are_embedded_in_order_in_batches_of_at_most_that_many(seen: Pictures) -> None:
    numbered = seen._replace(
        queries=np.arange(10 * 48, dtype=np.uint64).reshape(10, 4, 4, 3).astype(np.uint8)
    )
    sizes: list[int] = []

    def embed(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return images.reshape(len(images), -1).astype(np.float32)

    found = embed_all(embed, numbered, 4)
    assert sizes == [4, 4, 2, *[4] * 9]
    np.testing.assert_array_equal(found.queries, numbered.queries.reshape(10, -1))
