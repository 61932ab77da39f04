import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.intervals import percentile, rate, wilson_interval
from edge_runtime.errors import InputError


@given(st.integers(0, 60), st.integers(0, 60))
def test_interval_holds_the_share(count: int, more: int) -> None:
    n = count + more
    low, high = wilson_interval(count, n)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= count / n <= high


@given(st.integers(0, 60), st.integers(0, 60))
def test_interval_of_failures_mirrors_that_of_successes(count: int, more: int) -> None:
    low, high = wilson_interval(count, count + more)
    other_low, other_high = wilson_interval(more, count + more)
    assert (low, high) == pytest.approx((1 - other_high, 1 - other_low))


@pytest.mark.parametrize(
    ("count", "n", "expected"),
    [
        pytest.param(81, 263, (0.2553, 0.3662), id="Newcombe 1998, table I"),
        pytest.param(15, 148, (0.0624, 0.1605), id="Newcombe 1998, table I, rare"),
        pytest.param(0, 20, (0.0, 0.1611), id="Newcombe 1998, none"),
        pytest.param(29, 29, (0.8830, 1.0), id="mirror of Newcombe's 1 - 0 of 29"),
    ],
)
def test_known_wilson_intervals(count: int, n: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(count, n) == pytest.approx(expected, abs=1e-4)


def test_no_trials_say_nothing() -> None:
    empty = rate(0, 0)
    assert empty.share is None
    assert (empty.low, empty.high) == (0.0, 1.0)


def test_more_successes_than_trials_are_refused() -> None:
    with pytest.raises(InputError, match=r"within 0\.\.3"):
        rate(4, 3)


@pytest.mark.parametrize(
    ("percent", "expected"), [(5, 15), (30, 20), (40, 20), (50, 35), (99, 50), (100, 50)]
)
def test_percentile_is_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([35, 20, 15, 50, 40], percent) == expected


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0.1, 100))
def test_percentile_agrees_with_numpys_inverted_cdf_and_was_measured(
    values: list[float], percent: float
) -> None:
    found = percentile(values, percent)
    assert found in values
    assert np.mean(np.array(values) <= found) >= percent / 100 - 1e-9


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_percentile_of_nothing_or_nan_is_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match="all finite"):
        percentile(values, 50)
