import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import InputError
from train import exact_similarity
from train.exact_similarity import Hidden, Leaders, Similarities, expand_runs

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

SEEDED = settings(derandomize=True, deadline=None, max_examples=60)


def unit_rows(seed: int, rows: int, size: int) -> F32:
    found = np.random.default_rng(seed).normal(size=(rows, size))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def whole(queries: F32, references: F32, hidden: Hidden | None = None) -> F64:
    blocks = Similarities(queries, references).blocks(np.arange(len(queries)), hidden)
    return np.concatenate([scores.copy() for _, scores in blocks], axis=1)


def test_scores_are_the_scalar_products_to_the_rounding_of_a_float32() -> None:
    queries, references = unit_rows(1, 40, 1024), unit_rows(2, 60, 1024)
    expected = queries.astype(np.float64) @ references.astype(np.float64).T
    assert np.abs(whole(queries, references) - expected).max() < 5e-8


def test_whole_numbers_are_multiplied_exactly() -> None:
    rng = np.random.default_rng(3)
    queries, references = (rng.integers(-9, 10, (30, 16)).astype(np.float32) for _ in range(2))
    assert np.array_equal(
        whole(queries, references), queries.astype(int) @ references.T.astype(int)
    )


@pytest.mark.parametrize("size", [3, 64, 1000])
def test_no_bit_depends_on_the_shape_of_the_blocks(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, references = unit_rows(4, 50, size), unit_rows(5, 90, size)
    expected = whole(queries, references)
    similarities = Similarities(queries, references)
    for columns in (1, 7, 64, 89):
        monkeypatch.setattr(exact_similarity, "REFERENCE_BLOCK", columns)
        assert np.array_equal(whole(queries, references), expected)
    rows, columns_of = np.divmod(np.arange(50 * 90), 90)
    monkeypatch.setattr(exact_similarity, "_PAIR_BLOCK", 41)
    assert np.array_equal(similarities.pairs(rows, columns_of), expected.ravel())
    _, few = next(similarities.blocks(np.array([17, 3])))
    assert np.array_equal(few, expected[[17, 3], :89])


def test_equal_references_score_equally_wherever_they_stand() -> None:
    # In float32 a matrix product's last bits differ at the edges of the library's own blocks.
    references = np.tile(unit_rows(6, 1, 1023), (4500, 1))
    scores = whole(unit_rows(7, 5, 1023), references)
    assert np.array_equal(scores, np.repeat(scores[:, :1], 4500, axis=1))


def test_the_length_of_a_query_changes_no_order() -> None:
    queries, references = unit_rows(8, 20, 32), unit_rows(9, 50, 32)
    powers = np.exp2(np.random.default_rng(1).integers(-60, 60, (20, 1))).astype(np.float32)
    assert np.array_equal(whole(queries * powers, references), whole(queries, references) * powers)


def test_hidden_pairs_score_minus_infinity_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_similarity, "REFERENCE_BLOCK", 16)
    queries, references = unit_rows(1, 9, 8), unit_rows(2, 50, 8)
    rows, columns = np.array([0, 0, 4, 8]), np.array([3, 49, 16, 15])
    expected = whole(queries, references)
    expected[rows, columns] = -np.inf
    assert np.array_equal(whole(queries, references, Hidden(rows, columns)), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("which", "name"), [(0, "query 7"), (1, "reference 7")])
def test_an_embedding_that_is_not_finite_is_refused(value: float, which: int, name: str) -> None:
    views = [unit_rows(1, 20, 8), unit_rows(2, 20, 8)]
    views[which][7, 3] = value
    with pytest.raises(InputError, match=f"{name} is not finite .1 of 20 are not.*check the train"):
        Similarities(views[0], views[1])


def test_views_of_another_embedding_size_are_refused() -> None:
    with pytest.raises(InputError, match=r"do not fit; expected \(Q, D\) and \(R, D\)"):
        Similarities(unit_rows(1, 3, 8), unit_rows(1, 3, 9))


@SEEDED
@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.integers(1, 40),
    keep=st.integers(1, 12),
    block=st.integers(1, 41),
    values=st.integers(1, 30),
)
def test_leaders_are_the_start_of_a_stable_sort(
    seed: int, columns: int, keep: int, block: int, values: int
) -> None:
    # Few values tie often; the lowest of all is hidden.
    scores = np.random.default_rng(seed).integers(-1, values, (6, columns)).astype(np.float64)
    scores[scores < 0] = -np.inf
    leaders = Leaders(6, keep)
    for start in range(0, columns, block):
        leaders.add(scores[:, start : start + block], start)
    found_scores, found_columns = leaders.ranked()
    for row in range(6):
        order = [c for c in np.argsort(-scores[row], kind="stable") if scores[row, c] > -np.inf]
        expected = order[:keep] + [-1] * (keep - len(order))
        assert found_columns[row].tolist() == expected
        taken = scores[row, order[:keep]].tolist() + [-np.inf] * (keep - len(order))
        assert found_scores[row].tolist() == taken


def test_runs_are_expanded_one_after_the_other() -> None:
    owner, position = expand_runs(np.array([5, 0, 9, 2]), np.array([2, 0, 1, 3]))
    assert owner.tolist() == [0, 0, 2, 3, 3, 3]
    assert position.tolist() == [5, 6, 9, 2, 3, 4]
