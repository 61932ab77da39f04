import itertools
import math

import numpy as np
import pytest

from benchmarks.compare.bootstrap import holm, least_p, paired_bootstrap, pairs_needed
from edge_runtime.errors import InputError


def test_the_interval_is_that_of_every_possible_resample() -> None:
    values = [0.01, -0.02, 0.05, 0.03, 0.9]
    medians = [float(np.median(drawn)) for drawn in itertools.product(values, repeat=5)]
    low, high = np.quantile(medians, (0.025, 0.975))
    found = paired_bootstrap(values)
    assert found.estimate == 0.03
    assert (found.low, found.high) == pytest.approx((low, high))


def test_p_values_are_twice_the_share_of_resamples_on_the_wrong_side() -> None:
    values = [0.01, -0.02, 0.05, 0.03, 0.9, 0.02, 0.04]
    drawn = np.array(values)[np.indices((7,) * 7).reshape(7, -1)]
    medians = np.median(drawn, axis=0)
    share = float(np.mean(medians <= 0.015))
    found = paired_bootstrap(values, limit=0.015)
    assert 0.0 < share < 0.5
    assert found.p_above == pytest.approx(2 * share, abs=0.015)
    assert found.p_below == 1.0


def test_turned_around_the_answer_is_turned_around() -> None:
    values = np.random.default_rng(3).standard_t(3, 21) + 0.4
    one, other = paired_bootstrap(values.tolist()), paired_bootstrap((-values).tolist())
    assert other.estimate == -one.estimate
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low), abs=0.02)
    assert other.p_below == pytest.approx(one.p_above, abs=0.01)
    assert other.p_above == one.p_below == 1.0


def test_the_interval_holds_the_truth_nineteen_times_of_twenty() -> None:
    rng = np.random.default_rng(11)
    held = 0
    for k in range(200):
        found = paired_bootstrap((0.0075 * rng.standard_t(2.5, 30)).tolist(), seed=k)
        held += found.low <= 0 <= found.high
    # 190 expected with a standard deviation of 3.
    assert 181 <= held <= 199


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(5).normal(size=12).tolist()
    assert paired_bootstrap(values, seed=4) == paired_bootstrap(values, seed=4)
    assert paired_bootstrap(values, seed=4) != paired_bootstrap(values, seed=5)


@pytest.mark.parametrize("pairs", [1, 3, 5, 8])
def test_few_pairs_cannot_have_a_small_p_value_however_far_they_are(pairs: int) -> None:
    found = paired_bootstrap([100.0] * pairs)
    assert found.p_above == least_p(pairs) == 2.0 ** (1 - pairs)


def test_pairs_needed_by_known_values() -> None:
    # 2 * 2**-6 = 0.031 <= 0.05 < 2 * 2**-5; 60 * 2 * 2**-12 = 0.029.
    assert [pairs_needed(n) for n in (1, 2, 60)] == [6, 7, 12]


def test_holm_by_hand() -> None:
    # 4 * .005, 3 * .01, 2 * .03, and .04 may not be below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("values", [[], [math.nan], [0.1, math.inf]])
def test_what_is_no_series_of_differences_is_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match="expected at least one difference"):
        paired_bootstrap(values)


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(InputError, match=r"limit of -0\.1"):
        paired_bootstrap([0.1], limit=-0.1)


def test_no_comparison_needs_no_pairs() -> None:
    with pytest.raises(InputError, match="at least one"):
        pairs_needed(0)
