import json

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import InputError
from train.retrieval_metrics import blocked_ranks, retrieval_metrics

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


def grid_rows(seed: int, rows: int, size: int = 4) -> F32:
    """Small integers: scalar products are exact and tie often."""
    return np.random.default_rng(seed).integers(-2, 3, (rows, size)).astype(np.float32)


def ranks_slowly(queries: F32, gallery: F32, is_match: I64) -> list[int]:
    out = []
    for query, match in zip(queries, is_match, strict=True):
        true = float(gallery[match] @ query)
        scores = [float(row @ query) for row in gallery]
        out.append(sum(s >= true for n, s in enumerate(scores) if n != match))
    return out


def test_ranks_equal_counting_one_by_one_across_blocks_and_ties() -> None:
    # 1,024 queries make a block.
    queries, gallery = grid_rows(1, 1100), grid_rows(2, 150)
    is_match = np.random.default_rng(3).integers(0, 150, 1100)
    found = blocked_ranks(queries, gallery, is_match)
    assert found.tolist() == ranks_slowly(queries, gallery, is_match)


def test_shuffling_the_gallery_changes_no_rank() -> None:
    queries, gallery = grid_rows(1, 40), grid_rows(2, 60)
    is_match = np.arange(40)
    order = np.random.default_rng(4).permutation(60)
    where = np.argsort(order)[is_match]
    assert np.array_equal(
        blocked_ranks(queries, gallery, is_match), blocked_ranks(queries, gallery[order], where)
    )


def test_a_perfect_encoder_is_perfect() -> None:
    eye = np.eye(20, dtype=np.float32)
    found = retrieval_metrics(eye, eye, np.arange(20))
    assert (found.r_at_1, found.r_at_5, found.r_at_10, found.median_rank) == (1, 1, 1, 1)
    assert (found.queries, found.gallery) == (20, 20)


@pytest.mark.parametrize("gallery", [2, 50, 300])
def test_a_constant_embedding_finds_nothing(gallery: int) -> None:
    # The published evaluators give it R@1 = 100 % (FACTS section 4).
    constant = np.ones((gallery, 8), np.float32)
    found = retrieval_metrics(constant, constant, np.arange(gallery))
    assert found.r_at_1 == 0.0
    assert found.r_at_1_percent == 0.0
    assert found.median_rank == gallery


def test_recall_counts_the_first_k() -> None:
    # Query n scores its own match 0 and n other references 1: its rank is n.
    gallery = np.eye(21, dtype=np.float32)
    queries = np.array([[*np.ones(n), *np.zeros(21 - n)] for n in range(20)], np.float32)
    queries[:, 20] = 0.5
    found = retrieval_metrics(queries, gallery, np.full(20, 20))
    assert found.r_at_1 == 1 / 20
    assert found.r_at_5 == 5 / 20
    assert found.r_at_10 == 10 / 20
    assert found.median_rank == 10.5


@pytest.mark.parametrize(("gallery", "k"), [(1, 1), (99, 1), (100, 1), (199, 1), (250, 2)])
def test_one_percent_is_rounded_down_but_never_to_none(gallery: int, k: int) -> None:
    rows = np.random.default_rng(6).normal(size=(gallery, 8)).astype(np.float32)
    found = retrieval_metrics(rows[:1], rows, np.array([0]))
    assert found.k_of_1_percent == k


def test_recall_at_one_percent_uses_its_k() -> None:
    gallery = np.eye(250, dtype=np.float32)
    queries = np.zeros((3, 250), np.float32)
    for rank, query in enumerate(queries):
        query[:rank] = 1.0
        query[249] = 0.5
    found = retrieval_metrics(queries, gallery, np.full(3, 249))
    assert found.r_at_1 == pytest.approx(1 / 3)
    assert found.r_at_1_percent == pytest.approx(2 / 3)


def test_metrics_are_plain_json_values() -> None:
    eye = np.eye(4, dtype=np.float32)
    values = retrieval_metrics(eye, eye, np.arange(4)).to_json()
    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_an_embedding_that_is_not_finite_is_refused(value: float, which: int) -> None:
    views = [grid_rows(1, 10), grid_rows(2, 10)]
    views[which][4, 1] = value
    with pytest.raises(InputError, match="check the training"):
        retrieval_metrics(views[0], views[1], np.arange(10))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="do not fit"):
        blocked_ranks(grid_rows(1, 10), grid_rows(2, 10, size=5), np.arange(10))
    with pytest.raises(InputError, match="do not fit"):
        blocked_ranks(grid_rows(1, 10), grid_rows(2, 10), np.arange(9))
